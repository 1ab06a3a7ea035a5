"""Taking back a version whose time has not come: as though nobody had ever asked for it.

Must never touch a version that calls were priced with, and never lose what somebody else asked.

What holds at an instant is every change whose time has come by then, in the order they were asked
for. A version that contains the rejected change is therefore made again without it, from what was
asked then: it becomes another one.
"""

from collections.abc import Sequence
from datetime import datetime

from gateway.prices.asked import Approval, PriceEdit, PriceRefused, Signature, from_row_asked
from gateway.prices.laid import lay
from gateway.prices.rows import StoredVersion
from gateway.prices.store import NewVersion, PriceChange


def take_back(
    change: PriceChange, found: StoredVersion, signed: Signature
) -> tuple[StoredVersion, ...]:
    """Reject a version that is scheduled, and make again what contains it.

    Args:
        change: The transaction.
        found: An approved version that takes effect later.
        signed: Who rejects it and why.

    Returns:
        The versions that were made again.

    Raises:
        PriceRefused: It carries a change into a later version and is none itself; or something that
            was asked for since cannot stand without it.
    """
    live = [one for one in change.list_versions() if one.is_in_force]
    if found.carries is not None:
        raise PriceRefused(_say_carried(found, live), kind="conflict")
    inside = [one for one in live if one.turn > found.turn and _start(one) >= _start(found)]
    left = [one for one in live if one not in (found, *inside)]
    if found.edit is None and found.origin == "operator":
        _refuse_forgotten(found, left)
    change.decide(found.version, "rejected", (signed.who, signed.why))
    why = (signed.who, f"{found.version} was rejected: {signed.why}")
    again: dict[str, StoredVersion] = {}
    for one in sorted(inside, key=lambda each: each.turn):
        if not _is_needed(one, found, live):
            change.decide(one.version, "rejected", why)
            continue
        asked_by = one if one.carries is None else _named(live, one.carries)
        new = _made_again(change, one, asked_by, (found, [*left, *again.values()], again))
        change.decide(one.version, "approved", why, effective_from=_start(one), became=new.version)
        again[one.version] = new
    return tuple(again.values())


def _is_needed(one: StoredVersion, rejected: StoredVersion, live: Sequence[StoredVersion]) -> bool:
    """Whether somebody asked for it, or for what it carries something into."""
    if one.carries is None:
        return True
    return one.carries != rejected.version and any(
        other.carries is None and _start(other) == _start(one) and other.turn < one.turn
        for other in live
        if other.version != rejected.version
    )


def _made_again(
    change: PriceChange,
    one: StoredVersion,
    asked_by: StoredVersion,
    state: tuple[StoredVersion, Sequence[StoredVersion], dict[str, StoredVersion]],
) -> StoredVersion:
    rejected, left, again = state
    base = _before(left, asked_by.turn, _start(one))
    try:
        draft = lay(change, base.describe(), _start(one), _asked(asked_by))
    except PriceRefused as refused:
        name = asked_by.version
        held = _start(asked_by) <= change.at
        mend = "it holds already, so set other prices instead" if held else f"reject {name} first"
        raise PriceRefused(
            f"{name} was laid over {rejected.version} and cannot stand without it: "
            f"{refused.reason}; {mend}",
            kind="conflict",
        ) from refused
    carried = again.get(one.carries or "")
    return change.add(
        NewVersion(
            manifest=draft.manifest,
            objects=draft.objects,
            origin=one.origin,
            base=base.version,
            effective_from=_start(one),
            recorded_by=one.recorded_by,
            why=one.why,
            status="approved",
            carries=one.carries if carried is None else carried.version,
            turn=one.turn,
            edit=one.edit,
        )
    )


def _asked(version: StoredVersion) -> PriceEdit | Approval:
    if version.edit is None:
        raise PriceRefused("nobody wrote down what it changes")
    return from_row_asked(version.edit)


def _before(left: Sequence[StoredVersion], turn: int, start: datetime) -> StoredVersion:
    """What is in force at an instant, of what is left, without anything asked for since."""
    older = [each for each in left if each.turn < turn and _start(each) <= start]
    return max(older, key=lambda each: each.turn)


def _refuse_forgotten(found: StoredVersion, left: Sequence[StoredVersion]) -> None:
    """Without it the version before it has to be in force, not a change it may carry."""
    there = max(
        (each for each in left if _start(each) <= _start(found)), key=lambda each: each.turn
    )
    if there.version != found.base:
        raise PriceRefused(
            f"{found.version} was recorded before anybody wrote down what a version changes, so it "
            f"cannot be told from {there.version}; set the prices it should have again, with "
            f"effective_from {_start(found).isoformat()}",
            kind="conflict",
        )


def _say_carried(found: StoredVersion, live: Sequence[StoredVersion]) -> str:
    into = [each for each in live if each.carries is None and _start(each) == _start(found)]
    names = ", ".join(each.version for each in into)
    return (
        f"{found.version} only carries {found.carries} into {names}, which would undo it; reject "
        f"{names} to take back what is scheduled for {_start(found).isoformat()}, and to take back "
        f"{found.carries} reject that one, or set other prices where it is in force already"
    )


def _named(live: Sequence[StoredVersion], name: str) -> StoredVersion:
    return next(each for each in live if each.version == name)


def _start(version: StoredVersion) -> datetime:
    return version.describe().effective_from
