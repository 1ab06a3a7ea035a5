"""The two entries the journal holds for a call, and the public shape of a ledger record.

Pure. Must never hold a prompt, an answer or a secret.
"""

from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from gateway.clock import to_rfc3339
from pricing.money import pico_to_text

Outcome = Literal[
    "ok", "upstream_error", "client_disconnected", "aborted", "cut_by_budget", "refused"
]
CostStatus = Literal["final", "estimated", "unpriced", "unknown"]


class LedgerLine(msgspec.Struct, frozen=True, kw_only=True):
    """One rated line of a record.

    Attributes:
        sku: What was sold, ``provider/model/meter``.
        price_id: The price applied.
        meter: What was counted.
        quantity: Decimal text.
        unit_price: Currency units for ``per`` quantity, decimal text.
        per: The quantity the price is for.
        list_cost_pico: Cost at the published price, in 10^-12 currency units.
        cost_pico: Cost at the price that applied, in 10^-12 currency units.
    """

    sku: str
    price_id: str
    meter: str
    quantity: str
    unit_price: str
    per: int
    list_cost_pico: int
    cost_pico: int


class LedgerRecord(msgspec.Struct, frozen=True, kw_only=True, tag="record"):
    """One finished request, as journalled and as kept in the ledger. Never edited.

    Attributes:
        id: ULID; the ``x-taximeter-request-id`` of the response.
        seq: Position among this journal's records, from 1, without gaps; 0 until appended.
        started_at_us: When the request arrived, microseconds since 1970.
        ended_at_us: When it was settled, microseconds since 1970.
        outcome: How it ended.
        http_status: Status the client got; ``None`` when the gateway died before sending one.
        stream: Whether the client asked for a stream.
        api: Wire format and operation, such as ``openai.chat``; ``unknown`` where the call was
            refused before its address was understood.
        provider: Provider id of the configuration; ``None`` when refused before routing.
        model_requested: Model as the client named it; ``None`` when it named none.
        model: Model the provider says it served; the requested one when it says nothing.
        provider_request_id: The provider's own id of the answer.
        organization: Who bears it; ``None`` for an unknown key. Likewise the next three.
        team: Team id.
        project: Project id.
        key: Key id.
        user: End user as the request named it.
        tags: Tags in force, sorted by name.
        usage: Disjoint counts by meter; empty when ``basis`` is ``none`` or ``unknown``. Whole
            numbers, or decimal text for fractions of seconds.
        input_total: All input tokens; ``None`` when unknown.
        output_total: All output tokens; ``None`` when unknown.
        basis: Where the counts come from.
        user_input_tokens: Tokens in user-role text, counted here; ``None`` when not counted.
        currency: ISO 4217 code of every amount.
        cost_pico: Cost in 10^-12 currency units; ``None`` when unknown, never zero for unknown.
        list_cost_pico: Cost at published prices, likewise.
        provider_cost_pico: What the provider says it charged; ``None`` when it does not say.
        price_version: Book version used; ``None`` when nothing was priced.
        cost_status: How final the cost is.
        lines: Rated lines; their costs add up to ``cost_pico``.
        corrects: Id of the record this one corrects by signed differences.
        flags: What was odd, in words; empty when all is well.
        ceiling_pico: What was held for the call; counts as spent while ``cost_pico`` is ``None``.
        ceiling_tokens: Tokens held for the call, likewise.
        input_parts: Tokens of the prompt by who said them, counted here, and how many images and
            retries there were; unset when not counted.
        priced_as: Catalog provider whose prices were asked. Like the next four it is unset where
            that is not known: entries of versions that did not write it, and refusals.
        priced_model: Catalog model whose prices applied, or would have.
        tier: Service tier it was priced at.
        region: Region class likewise; unset where the region does not change the price.
        variants: Makes it was priced in, by meter; unset where no meter was sold in one.
        model_asked: Model asked for, under the provider's own name; unset in entries of versions
            that did not write it, refusals and corrections. Likewise the next two.
        model_behind: Model behind that name; unset where it is no deployment.
        tier_asked: Tier that may have been served beside the standard one; unset where the tier
            was told or could be no other.
    """

    id: str
    seq: int = 0
    started_at_us: int
    ended_at_us: int
    outcome: Outcome
    http_status: int | None
    stream: bool
    api: str
    provider: str | None
    model_requested: str | None
    model: str | None
    provider_request_id: str | None = None
    organization: str | None
    team: str | None
    project: str | None
    key: str | None
    user: str | None = None
    tags: dict[str, str] = {}
    usage: dict[str, int | str] = {}
    input_total: int | None
    output_total: int | None
    basis: str
    user_input_tokens: int | None = None
    currency: str = "USD"
    cost_pico: int | None
    list_cost_pico: int | None
    provider_cost_pico: int | None = None
    price_version: str | None
    cost_status: CostStatus
    lines: tuple[LedgerLine, ...] = ()
    corrects: str | None = None
    flags: tuple[str, ...] = ()
    ceiling_pico: int | None = None
    ceiling_tokens: int | None = None
    # What is unset is not encoded, so entries from before these fields keep their hash. Guarded by
    # tests/ledger/test_priced_fields.py.
    input_parts: dict[str, int] | UnsetType = UNSET
    priced_as: str | UnsetType = UNSET
    priced_model: str | UnsetType = UNSET
    tier: str | UnsetType = UNSET
    region: str | UnsetType = UNSET
    variants: dict[str, str] | UnsetType = UNSET
    model_asked: str | UnsetType = UNSET
    model_behind: str | UnsetType = UNSET
    tier_asked: str | UnsetType = UNSET


class Intent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="intent"):
    """What is about to be sent; becomes an ``aborted`` record if nothing follows it.

    Attributes are those of ``LedgerRecord`` with the same names, empty where those are unset, and:

    Attributes:
        bound_usage: Largest counts by meter the call can come to; empty when unbounded.
        bound_tier: Service tier they would be priced at; empty when unpriced.
        bound_region: Region class likewise.
        bound_variants: Makes they would be priced in, by meter.
    """

    id: str
    started_at_us: int
    stream: bool
    api: str
    provider: str
    model_requested: str
    organization: str
    team: str
    project: str
    key: str
    user: str | None = None
    tags: dict[str, str] = {}
    currency: str = "USD"
    price_version: str | None
    ceiling_pico: int | None
    ceiling_tokens: int | None
    bound_usage: dict[str, int | str] = {}
    bound_tier: str = ""
    bound_region: str | None = None
    bound_variants: dict[str, str] = {}
    priced_as: str = ""
    priced_model: str = ""
    model_asked: str = ""
    model_behind: str = ""


class Raised(msgspec.Struct, frozen=True, kw_only=True):
    """What an intent says instead, once more is held for its call than at first.

    Attributes are those of ``Intent`` with the same names.
    """

    ceiling_pico: int | None
    ceiling_tokens: int | None
    bound_usage: dict[str, int | str]
    bound_tier: str
    bound_region: str | None
    bound_variants: dict[str, str]


Entry = Intent | LedgerRecord

_PUBLIC_ORDER: Final = (
    "id",
    "started_at",
    "ended_at",
    "outcome",
    "http_status",
    "stream",
    "api",
    "provider",
    "model_requested",
    "model",
    "provider_request_id",
    "organization",
    "team",
    "project",
    "key",
    "user",
    "tags",
    "usage",
    "input_total",
    "output_total",
    "basis",
    "user_input_tokens",
    "input_parts",
    "currency",
    "cost",
    "list_cost",
    "provider_cost",
    "price_version",
    "cost_status",
    "lines",
    "corrects",
    "flags",
)


def to_public(record: LedgerRecord) -> dict[str, Any]:
    """Write a record the way the API and the exports show it.

    Args:
        record: Any record.

    Returns:
        Fields in their published order; instants as RFC 3339 UTC, money as decimal text, unknown
        as ``None``. What was held, how it was priced and the position in the chain stay inside.
    """
    shown: dict[str, Any] = {
        **msgspec.structs.asdict(record),
        "started_at": to_rfc3339(record.started_at_us),
        "ended_at": to_rfc3339(record.ended_at_us),
        "cost": _text_or_none(record.cost_pico),
        "list_cost": _text_or_none(record.list_cost_pico),
        "provider_cost": _text_or_none(record.provider_cost_pico),
        "lines": [line_to_public(line) for line in record.lines],
        "flags": list(record.flags),
        "input_parts": None if record.input_parts is UNSET else record.input_parts,
    }
    return {name: shown[name] for name in _PUBLIC_ORDER}


def line_to_public(line: LedgerLine) -> dict[str, str]:
    """Write a rated line the way the API and the exports show it.

    Args:
        line: Any line.

    Returns:
        Fields in their published order, all of them text; quantity, price and money decimal.
    """
    return {
        "sku": line.sku,
        "price_id": line.price_id,
        "meter": line.meter,
        "quantity": line.quantity,
        "unit_price": line.unit_price,
        "per": str(line.per),
        "list_cost": pico_to_text(line.list_cost_pico),
        "cost": pico_to_text(line.cost_pico),
    }


def _text_or_none(pico: int | None) -> str | None:
    return None if pico is None else pico_to_text(pico)
