"""What an operator does to the price book: a new price, an agreement, a candidate approved or not.

Must never change a version: each change makes another one from the one in force, checked as a whole
before it is recorded.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from gateway.prices.asked import Approval, PriceEdit, PriceRefused, Signature, to_row_asked
from gateway.prices.clashes import Base, name_scheduled, refuse_clashes
from gateway.prices.laid import Draft, check, find_stored, lay, merge_candidate
from gateway.prices.rows import Origin, StoredVersion
from gateway.prices.store import NewVersion, PriceChange, PriceStore, find_current, in_force
from gateway.prices.taking_back import take_back
from pricing.book import BookVersion, Manifest, describe_version


class PriceDesk:
    """Changes prices. Every method waits for the database: call it from a thread."""

    def __init__(self, store: PriceStore, reserved: Iterable[str] = ()) -> None:
        """Open the desk.

        Args:
            store: Where versions are kept.
            reserved: Providers whose prices the settings make.
        """
        self._store = store
        self._reserved = frozenset(reserved)

    def post(
        self, edit: PriceEdit, signed: Signature, effective_from: datetime | None = None
    ) -> tuple[StoredVersion, ...]:
        """Make a version with other prices.

        Args:
            edit: What changes.
            signed: Who changes it and why.
            effective_from: First instant calls are priced with it; ``None`` for at once.

        Returns:
            The version; and where others are to take effect after it, one more for each of them,
            which carries the change. Where it changes nothing before one of those, such as the end
            of an agreement still to come, it takes effect with that one.

        Raises:
            PriceRefused: The change is not possible, or a version that is scheduled says otherwise;
                nothing was recorded.
            StoreUnavailable: The database cannot be reached.
        """
        self._refuse_foreign(edit)
        with self._store.change() as change:
            bases = _bases(change, effective_from)
            refuse_clashes(change, edit, bases)
            return _record(change, _lay_all(change, bases, edit), signed, edit)

    def propose(
        self,
        contents: Mapping[str, tuple[str, str]],
        signed: Signature,
        base: str,
        kept: Sequence[Mapping[str, Any]] = (),
    ) -> StoredVersion | None:
        """Record a candidate: prices of some providers, for somebody to compare and approve.

        Args:
            contents: Digest and text by provider. Agreements, and providers that are not named,
                stay as they are.
            signed: Who proposes it and why.
            base: The version the contents were made from. What was changed since is no part of it,
                and approving it does not undo that unasked.
            kept: Prices set by hand that it keeps beside its lists, for whoever compares it.

        Returns:
            The candidate; ``None`` when it says what its base says.

        Raises:
            PriceRefused: The version it would make is broken.
            StoreUnavailable: The database cannot be reached.
        """
        taken = sorted(self._reserved & contents.keys())
        if taken:
            raise PriceRefused(f"the prices of {', '.join(taken)} come from the settings")
        with self._store.change() as change:
            read = find_stored(change, base).describe()
            before = read.manifest.providers
            changed = {name: digest for name, (digest, _) in contents.items()}
            changed = {name: d for name, d in changed.items() if before.get(name) != d}
            if not changed:
                return None
            draft = Draft(
                base=read,
                start=change.at,
                manifest=replace(read.manifest, providers={**before, **changed}),
                objects={d: (name, contents[name][1]) for name, d in changed.items()},
            )
            check(change, draft, draft.manifest.providers)
            new = _new(draft, signed, "import")
            return change.add(replace(new, status="candidate", effective_from=None, kept=kept))

    def approve(
        self,
        name: str,
        signed: Signature,
        effective_from: datetime | None = None,
        *,
        replaces: bool = False,
    ) -> tuple[StoredVersion, ...]:
        """Put the prices of a candidate in force, with the agreements that hold now.

        Args:
            name: The candidate.
            signed: Who approves it and why.
            effective_from: First instant calls are priced with it; ``None`` for at once.
            replaces: Whether it may undo what was changed since it was made.

        Returns:
            The version in force: the candidate itself, or where something else was changed since it
            was made, one that has both. Then one more for each version that takes effect later.

        Raises:
            PriceRefused: There is no such candidate, or it is not one any more; it would undo a
                change; or it does not go with the agreements. Nothing was recorded.
            StoreUnavailable: The database cannot be reached.
        """
        with self._store.change() as change:
            candidate = find_stored(change, name)
            if candidate.status != "candidate":
                raise PriceRefused(
                    f"{name} is {candidate.status} already; see `taximeter prices versions`",
                    kind="conflict",
                )
            bases = _bases(change, effective_from)
            asked = Approval(candidate=name, replaces=replaces)
            drafts = _lay_all(change, bases, asked)
            who_why = (signed.who, signed.why)
            only = drafts[0]
            is_itself = only.manifest == candidate.manifest and only.base.version == candidate.base
            if len(drafts) == 1 and is_itself and not only.is_idle:
                change.decide(name, "approved", who_why, effective_from=only.start)
                return (find_stored(change, name),)
            made = _record(change, drafts, signed, asked)
            start = made[0].effective_from
            change.decide(name, "approved", who_why, effective_from=start, became=made[0].version)
        return made

    def preview(self, name: str) -> BookVersion:
        """Tell what would be in force if a version were approved now, whatever that undoes.

        Args:
            name: A candidate; another version is taken as it is.

        Returns:
            The version, not recorded.

        Raises:
            PriceRefused: There is no such version.
            StoreUnavailable: The database cannot be reached.
        """
        versions = {one.version: one for one in self._store.list_versions()}
        found = versions.get(name)
        if found is None:
            raise PriceRefused(f"there is no price book version {name}", kind="unknown")
        if found.status != "candidate":
            return found.describe()
        base = self._store.current_at(self._store.clock.now())
        origin = Manifest(providers={}) if found.base is None else versions[found.base].manifest
        manifest = merge_candidate(found, origin, base, replaces=True)
        return describe_version(name, manifest, recorded_at=found.proposed_at, note=found.why)

    def reject(self, name: str, signed: Signature) -> tuple[StoredVersion, ...]:
        """Decide that a version is not to hold.

        Args:
            name: A candidate, or an approved version whose time has not come.
            signed: Who rejects it and why.

        Returns:
            The version; and those that contained what it changes, made again without it.

        Raises:
            PriceRefused: There is no such version, or calls were priced with it; it only carries a
                change into a later one; or another change cannot stand without it.
            StoreUnavailable: The database cannot be reached.
        """
        with self._store.change() as change:
            found = find_stored(change, name)
            if found.status == "rejected":
                raise PriceRefused(f"{name} was rejected already", kind="conflict")
            if found.became is not None:
                raise PriceRefused(
                    f"{name} became {found.became} already; reject that one", kind="conflict"
                )
            again: tuple[StoredVersion, ...] = ()
            if found.is_in_force:
                if found.describe().effective_from <= change.at:
                    raise PriceRefused(f"{name} is in the ledger already", kind="conflict")
                again = take_back(change, found, signed)
            else:
                change.decide(name, "rejected", (signed.who, signed.why))
            return (find_stored(change, name), *again)

    def _refuse_foreign(self, edit: PriceEdit) -> None:
        named = {rate.provider for rate in edit.rates} | {m.provider for m in edit.models}
        named |= {one.provider for one in edit.overrides if one.provider is not None}
        taken = sorted(named & self._reserved)
        if taken:
            raise PriceRefused(
                f"the prices of {', '.join(taken)} come from the settings; change self_hosted there"
            )


def _bases(change: PriceChange, effective_from: datetime | None) -> list[Base]:
    """The versions a change is laid over, each with when the result takes effect.

    The first is the one in force then. A change would undo the versions still to come, or they it,
    were each of them not made again with the change in it.
    """
    start = effective_from or change.at
    if start < change.at:
        raise PriceRefused(
            f"{start.isoformat()} is past; calls that were made keep their prices. Leave it out "
            "for at once, and give the price a valid_from in the past to correct it for re-rating",
            field="effective_from",
        )
    approved = in_force(change.list_versions())
    later = sorted({v.effective_from for v in approved if v.effective_from > start})
    return [(find_current(approved, at), at) for at in (start, *later)]


def _lay_all(
    change: PriceChange, bases: Sequence[Base], asked: PriceEdit | Approval
) -> list[Draft]:
    """Lay a change over each of the versions; a refusal names the one that is scheduled."""
    drafts: list[Draft] = []
    for base, start in bases:
        try:
            drafts.append(lay(change, base, start, asked))
        except PriceRefused as refused:
            if not drafts:
                raise
            raise PriceRefused(
                f"{refused.reason} (so says version {name_scheduled(change, start)}, which this "
                "would be carried into; if it is wrong, reject it first)",
                field=refused.field,
                kind=refused.kind,
            ) from refused
    return drafts


def _record(
    change: PriceChange, drafts: Sequence[Draft], signed: Signature, asked: PriceEdit | Approval
) -> tuple[StoredVersion, ...]:
    """Record a change, and what carries it into the versions scheduled for later."""
    telling = next((n for n, draft in enumerate(drafts) if not draft.is_idle), None)
    if telling is None:
        raise PriceRefused("that would change nothing: the price book says so", kind="conflict")
    first = _new(drafts[telling], signed, "operator")
    made = [change.add(replace(first, edit=to_row_asked(asked)))]
    for draft in drafts[telling + 1 :]:
        new = _new(draft, signed, "operator")
        made.append(change.add(replace(new, carries=made[0].version)))
    return tuple(made)


def _new(draft: Draft, signed: Signature, origin: Origin) -> NewVersion:
    return NewVersion(
        manifest=draft.manifest,
        objects=draft.objects,
        origin=origin,
        base=draft.base.version,
        effective_from=draft.start,
        recorded_by=signed.who,
        why=signed.why,
        status="approved",
    )
