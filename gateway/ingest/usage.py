"""What is told of a call that did not pass the gateway, in one shape. Pure.

Must never guess: a count whose meaning is not said is refused, not booked.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Final, Literal

import msgspec

from gateway.estimating import TOKENS_MAX, read_quantity
from pricing.meters import Meter
from pricing.usage import Quantity

TEXT_CHARS_MAX: Final = 500
TAGS_MAX: Final = 64

# Which count holds another one where a provider counts the cache as part of the input.
_HOLDS: Final[Mapping[Meter, Meter]] = {
    Meter.CACHE_READ: Meter.INPUT,
    Meter.CACHE_WRITE: Meter.INPUT,
    Meter.CACHE_WRITE_1H: Meter.INPUT,
    Meter.CACHE_WRITE_12H: Meter.INPUT,
    Meter.CACHE_READ_AUDIO: Meter.INPUT_AUDIO,
    Meter.CACHE_READ_IMAGE: Meter.INPUT_IMAGE,
    Meter.CACHE_READ_VIDEO: Meter.INPUT_VIDEO,
}
_REASONING: Final[Mapping[Meter, Meter]] = {Meter.REASONING: Meter.OUTPUT}
_ENCODER: Final = msgspec.json.Encoder(order="deterministic")


class EventRefused(ValueError):
    """An event that cannot be booked as it is.

    Attributes:
        code: Stable machine code.
    """

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        super().__init__(detail)


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Whom an event names as the one who bears it, as sent.

    Attributes:
        team: Team id; ``None`` when it names none. The next three likewise.
        project: Project id.
        key: Key id.
        user: End user.
        tags: Tags it carries, sorted by name.
    """

    team: str | None = None
    project: str | None = None
    key: str | None = None
    user: str | None = None
    tags: dict[str, str] = {}


class Flags(msgspec.Struct, frozen=True, kw_only=True):
    """What counts mean; ``None`` where nobody said.

    Attributes:
        input_includes_cache: Whether input counts hold the tokens read from and written to a cache.
        output_includes_reasoning: Whether output counts hold those of reasoning.
    """

    input_includes_cache: bool | None = None
    output_includes_reasoning: bool | None = None


class OutsideUsage(msgspec.Struct, frozen=True, kw_only=True):
    """One call that did not pass the gateway.

    Attributes:
        source: Who tells of it; with ``id`` it names the call, once and for all.
        id: Its name there.
        api: Which way it was told, as ``api`` of the record.
        started_at_us: When it began, microseconds since 1970; decides its prices.
        ended_at_us: When it ended.
        provider: Provider as the event names it.
        model_requested: Model asked for; ``None`` when not told.
        model: Model served; ``None`` when not told.
        provider_request_id: The provider's own id of the answer.
        stream: Whether it was streamed.
        outcome: How it ended.
        counts: Disjoint counts by meter.
        service_tier: Tier served; ``None`` when not told.
        region: Region class; ``None`` when not told.
        owner: Who bears it.
    """

    source: str
    id: str
    api: str
    started_at_us: int
    ended_at_us: int
    provider: str
    model_requested: str | None = None
    model: str | None = None
    provider_request_id: str | None = None
    stream: bool = False
    outcome: Literal["ok", "upstream_error"] = "ok"
    counts: dict[str, int | str]
    service_tier: str | None = None
    region: str | None = None
    owner: Owner = Owner()

    def quantities(self) -> dict[Meter, Quantity]:
        """Read the counts by meter."""
        return {Meter(name): read_quantity(Meter(name), n) for name, n in self.counts.items()}

    @property
    def name_digest(self) -> str:
        """Hash of source and id: what makes a repetition one."""
        return sha256(_ENCODER.encode([self.source, self.id])).hexdigest()

    @property
    def content_digest(self) -> str:
        """Hash of everything told: what makes it a contradiction."""
        return sha256(_ENCODER.encode(self)).hexdigest()


class Unreadable(msgspec.Struct, frozen=True, kw_only=True):
    """An event that is not booked.

    Attributes:
        source: As far as it could be read; empty where not.
        id: Likewise.
        code: Stable machine code.
        detail: What is wrong and what would help.
    """

    source: str
    id: str
    code: str
    detail: str


Told = OutsideUsage | Unreadable


def disjoint_counts(counts: Mapping[str, int | str], flags: Flags) -> dict[str, int | str]:
    """Take the tokens out of a count that stand in another one too.

    Args:
        counts: As told, by the name of the meter.
        flags: What they mean.

    Returns:
        Disjoint counts, in the order of the meters; zeros are left out.

    Raises:
        EventRefused: A count is no count, its meaning is not said where it matters, or two counts
            contradict each other.
    """
    exact: dict[Meter, Quantity] = {}
    for name, amount in counts.items():
        quantity = _read(name, amount)
        if quantity:
            exact[Meter(name)] = quantity
    if not exact:
        raise EventRefused("no_usage", "the event counts nothing")
    told = (
        ("input_includes_cache", flags.input_includes_cache, _HOLDS),
        ("output_includes_reasoning", flags.output_includes_reasoning, _REASONING),
    )
    for flag, includes, holds in told:
        parts = [meter for meter in holds if meter in exact]
        if parts and includes is None:
            named = " and ".join(part.value for part in parts)
            wholes = " and ".join(sorted({holds[part].value for part in parts}))
            raise EventRefused(
                f"{flag}_missing",
                f"say {flag}: whether {wholes} holds the tokens of {named}. Providers differ, and "
                "a guess would bill them twice or not at all",
            )
        if includes:
            _take_out(exact, {part: holds[part] for part in parts})
    return {
        meter.value: exact[meter] if isinstance(exact[meter], int) else str(exact[meter])  # type: ignore[misc]
        for meter in Meter
        if exact.get(meter)
    }


def checked_text(name: str, value: object, *, is_required: bool = False) -> str | None:
    """Check a text of an event.

    Args:
        name: What it is, for the message.
        value: As sent.
        is_required: Whether it must be there.

    Returns:
        The text; ``None`` where there is none.

    Raises:
        EventRefused: It is missing, too long, empty, no text or not printable.
    """
    if value is None and not is_required:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= TEXT_CHARS_MAX:
        raise EventRefused(
            "invalid_event", f"{name} must be text of 1 to {TEXT_CHARS_MAX} characters"
        )
    if not value.isprintable() or not _is_unicode(value):
        raise EventRefused("invalid_event", f"{name} holds characters that cannot be printed")
    return value


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read(name: str, amount: object) -> Quantity:
    try:
        meter = Meter(name)
    except ValueError:
        known = ", ".join(one.value for one in Meter)
        raise EventRefused(
            "unknown_meter", f"{name[:40]!r} is no meter; there are {known}"
        ) from None
    if isinstance(amount, bool) or not isinstance(amount, int | str):
        raise EventRefused(
            "invalid_event", f"{name}: write a whole number, or fractions of seconds as text"
        )
    try:
        quantity = read_quantity(meter, amount)
    except ValueError as wrong:
        raise EventRefused("invalid_event", str(wrong)) from wrong
    if quantity > TOKENS_MAX:
        raise EventRefused("invalid_event", f"{name}: more than {TOKENS_MAX}")
    return quantity


def _take_out(exact: dict[Meter, Quantity], parts: Mapping[Meter, Meter]) -> None:
    for whole in sorted(set(parts.values())):
        inside = sum(exact[part] for part in parts if parts[part] is whole)
        left = exact.get(whole, 0) - inside
        if left < 0:
            named = " + ".join(part.value for part in parts if parts[part] is whole)
            raise EventRefused(
                "contradicting_counts",
                f"{whole.value} is {exact.get(whole, 0)}, which cannot hold {named} = {inside}",
            )
        exact[whole] = left
