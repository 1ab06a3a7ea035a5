"""What an operator does to the price book: a new price, an agreement, a candidate approved or not.

Must never change a version: each change makes another one from the one in force, checked as a whole
before it is recorded.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from gateway.prices.rows import Origin, StoredVersion
from gateway.prices.store import NewVersion, PriceChange, PriceStore, find_current, in_force
from pricing.agreements import Override
from pricing.book import (
    AGREEMENTS,
    BookBroken,
    BookVersion,
    Manifest,
    ModelEntry,
    agreements_digest,
    build_book,
    describe_version,
    digest_of,
    object_name,
)
from pricing.changes import (
    ChangeRefused,
    with_model,
    with_override,
    with_override_ended,
    with_rate,
)
from pricing.rates import Rate
from pricing.rows import agreements_text, parse_agreements, parse_prices, prices_text


class PriceRefused(Exception):
    """A change of prices that was not made.

    Attributes:
        field: What is at fault; empty where it is the whole.
        reason: What is wrong and what would help.
        kind: Whether it can never be right, is too late, or is about something that is not there.
    """

    def __init__(
        self,
        reason: str,
        *,
        field: str = "",
        kind: Literal["invalid", "conflict", "unknown"] = "invalid",
    ) -> None:
        self.field = field
        self.reason = reason
        self.kind = kind
        super().__init__(f"{field}: {reason}" if field else reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Who changes prices, and why.

    Attributes:
        who: For the record.
        why: Likewise; never empty.
    """

    who: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceEdit:
    """What changes.

    Attributes:
        rates: Dated prices; an earlier one of the same name ends where its successor starts.
        models: Models that are new.
        overrides: Negotiated rates that are new.
        ends: Negotiated rates that end: their id and the first instant they no longer hold.
    """

    rates: tuple[Rate, ...] = ()
    models: tuple[ModelEntry, ...] = ()
    overrides: tuple[Override, ...] = ()
    ends: tuple[tuple[str, datetime], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A version that was made and checked, and is not recorded."""

    manifest: Manifest
    objects: Mapping[str, tuple[str, str]]


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
            which has the change as well.

        Raises:
            PriceRefused: The change is not possible; nothing was recorded.
            StoreUnavailable: The database cannot be reached.
        """
        self._refuse_foreign(edit)
        with self._store.change() as change:
            made: list[StoredVersion] = []
            for base, start in _bases(change, effective_from):
                draft = _edited(change, base, edit)
                if not made:
                    _refuse_idle(draft.manifest, base.manifest)
                made.append(change.add(_new(draft, base, start, signed, "operator")))
        return tuple(made)

    def propose(
        self, contents: Mapping[str, tuple[str, str]], signed: Signature
    ) -> StoredVersion | None:
        """Record a candidate: prices of some providers, for somebody to compare and approve.

        Args:
            contents: Digest and text by provider. The agreements in force, and providers that are
                not named, stay as they are.
            signed: Who proposes it and why.

        Returns:
            The candidate; ``None`` when it would change nothing.

        Raises:
            PriceRefused: The version it would make is broken.
            StoreUnavailable: The database cannot be reached.
        """
        taken = sorted(self._reserved & contents.keys())
        if taken:
            raise PriceRefused(f"the prices of {', '.join(taken)} come from the settings")
        digests = {provider: digest for provider, (digest, _) in contents.items()}
        objects = {digest: (provider, text) for provider, (digest, text) in contents.items()}
        with self._store.change() as change:
            base = find_current(in_force(change.list_versions()), change.at)
            providers = {**base.manifest.providers, **digests}
            draft = _Draft(
                manifest=replace(base.manifest, providers=providers),
                objects=objects,
            )
            if draft.manifest == base.manifest:
                return None
            _check(change, draft, base, providers)
            new = _new(draft, base, None, signed, "import")
            return change.add(replace(new, status="candidate"))

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
            candidate = _find(change, name)
            if candidate.status != "candidate":
                raise PriceRefused(
                    f"{name} is {candidate.status} already; see `taximeter prices versions`",
                    kind="conflict",
                )
            origin = _manifest_of(change, candidate.base)
            drafts: list[tuple[_Draft, BookVersion, datetime]] = []
            for base, start in _bases(change, effective_from):
                manifest = _merged(candidate, origin, base, replaces=replaces)
                draft = _Draft(manifest=manifest, objects={})
                if not drafts:
                    _refuse_idle(manifest, base.manifest)
                _check(change, draft, base, manifest.providers)
                drafts.append((draft, base, start))
            who_why = (signed.who, signed.why)
            first, _, start = drafts[0]
            if len(drafts) == 1 and first.manifest == candidate.manifest:
                change.decide(name, "approved", who_why, effective_from=start)
                return (_find(change, name),)
            made = [change.add(_new(*one, signed, "operator")) for one in drafts]
            change.decide(name, "approved", who_why, effective_from=start, became=made[0].version)
        return tuple(made)

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
        manifest = _merged(found, origin, base, replaces=True)
        return describe_version(name, manifest, recorded_at=found.proposed_at, note=found.why)

    def reject(self, name: str, signed: Signature) -> StoredVersion:
        """Decide that a version is not to hold.

        Args:
            name: A candidate, or an approved version whose time has not come.
            signed: Who rejects it and why.

        Returns:
            The version.

        Raises:
            PriceRefused: There is no such version, or calls were priced with it.
            StoreUnavailable: The database cannot be reached.
        """
        with self._store.change() as change:
            found = _find(change, name)
            held = found.effective_from is not None and found.effective_from <= change.at
            if found.status == "rejected" or found.became or (found.is_in_force and held):
                what = "was rejected" if found.status == "rejected" else "is in the ledger"
                raise PriceRefused(f"{name} {what} already", kind="conflict")
            change.decide(name, "rejected", (signed.who, signed.why))
            return _find(change, name)

    def _refuse_foreign(self, edit: PriceEdit) -> None:
        named = {rate.provider for rate in edit.rates} | {m.provider for m in edit.models}
        named |= {one.provider for one in edit.overrides if one.provider is not None}
        taken = sorted(named & self._reserved)
        if taken:
            raise PriceRefused(
                f"the prices of {', '.join(taken)} come from the settings; change self_hosted there"
            )


def _find(change: PriceChange, name: str) -> StoredVersion:
    for one in change.list_versions():
        if one.version == name:
            return one
    raise PriceRefused(
        f"there is no price book version {name}; see `taximeter prices versions`", kind="unknown"
    )


def _manifest_of(change: PriceChange, name: str | None) -> Manifest:
    return Manifest(providers={}) if name is None else _find(change, name).manifest


def _bases(
    change: PriceChange, effective_from: datetime | None
) -> list[tuple[BookVersion, datetime]]:
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


def _new(
    draft: _Draft,
    base: BookVersion,
    start: datetime | None,
    signed: Signature,
    origin: Origin,
) -> NewVersion:
    return NewVersion(
        manifest=draft.manifest,
        objects=draft.objects,
        origin=origin,
        base=base.version,
        effective_from=start,
        recorded_by=signed.who,
        why=signed.why,
        status="approved",
    )


def _edited(change: PriceChange, base: BookVersion, edit: PriceEdit) -> _Draft:
    providers, objects = dict(base.manifest.providers), {}
    touched = {rate.provider for rate in edit.rates} | {m.provider for m in edit.models}
    try:
        for provider in sorted(touched):
            digest, text = _edit_prices(change, providers.get(provider), provider, edit)
            providers[provider], objects[digest] = digest, (provider, text)
        agreements = base.manifest.agreements
        if edit.overrides or edit.ends:
            agreements, text = _edit_agreements(change, agreements, edit)
            if agreements is not None:
                objects[agreements] = (AGREEMENTS, text)
    except ChangeRefused as refused:
        raise PriceRefused(str(refused), kind="conflict") from refused
    draft = _Draft(manifest=Manifest(providers=providers, agreements=agreements), objects=objects)
    _check(change, draft, base, _to_check(touched, edit.overrides, providers))
    return draft


def _edit_prices(
    change: PriceChange, digest: str | None, provider: str, edit: PriceEdit
) -> tuple[str, str]:
    models: tuple[ModelEntry, ...] = ()
    rates: tuple[Rate, ...] = ()
    if digest is not None:
        file = object_name(provider, digest)
        content = parse_prices(file, change.open_object(provider, digest))
        models, rates = content.models, content.rates
    named = [(rate.price_id, rate.valid_from) for rate in edit.rates]
    if len(set(named)) < len(named):
        raise PriceRefused(
            "two of these rates are the same price from the same instant", field="rates"
        )
    for entry in edit.models:
        models = with_model(models, entry) if entry.provider == provider else models
    for rate in edit.rates:
        if rate.provider == provider:
            if not any(entry.model == rate.model for entry in models):
                raise PriceRefused(_unknown_model(models, rate), field="model")
            rates = with_rate(rates, rate)
    try:
        return digest_of(models, rates), prices_text(models, rates)
    except ValueError as mixed:
        raise PriceRefused(f"{provider}: {mixed}", field="currency") from mixed


def _unknown_model(models: Sequence[ModelEntry], rate: Rate) -> str:
    for entry in models:
        if rate.model in entry.aliases:
            return f"{rate.model!r} is another name of {entry.model!r}; write that"
    return f"{rate.provider} has no model {rate.model!r}; say new_model to add it"


def _edit_agreements(
    change: PriceChange, digest: str | None, edit: PriceEdit
) -> tuple[str | None, str]:
    overrides: tuple[Override, ...] = ()
    if digest is not None:
        file = object_name(AGREEMENTS, digest)
        overrides = parse_agreements(file, change.open_object(AGREEMENTS, digest))
    for name, end in edit.ends:
        overrides = with_override_ended(overrides, name, end)
    for override in edit.overrides:
        overrides = with_override(overrides, override)
    found = agreements_digest(overrides) if overrides else None
    return found, agreements_text(overrides)


def _to_check(
    touched: Iterable[str], overrides: Iterable[Override], providers: Mapping[str, str]
) -> Iterable[str]:
    """Whose prices the change can be at odds with: everybody's, for an override of all."""
    wanted = set(touched)
    for override in overrides:
        if override.provider is None:
            return providers
        if override.provider not in providers:
            raise PriceRefused(
                f"the price book has no provider {override.provider!r}", field="provider"
            )
        wanted.add(override.provider)
    return wanted


def _check(change: PriceChange, draft: _Draft, base: BookVersion, providers: Iterable[str]) -> None:
    """Build the book, which finds every problem."""

    def open_object(name: str, digest: str) -> str:
        known = draft.objects.get(digest)
        return change.open_object(name, digest) if known is None else known[1]

    version = describe_version(base.version, draft.manifest, recorded_at=change.at)
    try:
        build_book(version, open_object, providers)
    except BookBroken as broken:
        raise PriceRefused("; ".join(broken.problems[:10])) from broken


def _refuse_idle(manifest: Manifest, base: Manifest) -> None:
    if manifest == base:
        raise PriceRefused("that would change nothing: the price book says so", kind="conflict")


def _merged(
    candidate: StoredVersion, origin: Manifest, base: BookVersion, *, replaces: bool
) -> Manifest:
    """Lay what a candidate changed over what is in force, provider by provider."""
    given, before, now = candidate.manifest.providers, origin.providers, base.manifest.providers
    names = sorted(given.keys() | before.keys())
    changed = [name for name in names if given.get(name) != before.get(name)]
    lost = [name for name in changed if now.get(name) not in (before.get(name), given.get(name))]
    if lost and not replaces:
        raise PriceRefused(
            f"the prices of {', '.join(lost)} were changed since {candidate.version} was made; "
            "import again, or approve it with --replace to undo those changes",
            kind="conflict",
        )
    merged = {**now, **{name: given[name] for name in changed if name in given}}
    gone = {name for name in changed if name not in given}
    kept = {name: digest for name, digest in merged.items() if name not in gone}
    return Manifest(providers=kept, agreements=base.manifest.agreements)
