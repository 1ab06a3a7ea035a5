"""``POST /api/v1/estimates``: what a call would cost, through the function that prices real ones.

Must never state a ceiling that a call could exceed: where nothing bounds it, there is none.
"""

import json
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
)

from gateway.admin.fields import InstantIn, InstantOut, PlainText
from gateway.admin.idempotency import ReplayRoute
from gateway.admin.ledger import LineOut
from gateway.admin.models import PricedModel, find_priced_model
from gateway.admin.parts import ControlParts, Parts
from gateway.admin.problems import RequestRefused
from gateway.clock import epoch_us
from gateway.ledger.filters import RecordFilter
from gateway.ledger.lines import to_ledger_lines
from gateway.ledger.usage import UsageQuery
from pricing.meters import TRAITS, Meter
from pricing.money import Money, decimal_from_text, pico_to_text
from pricing.rates import RateCard
from pricing.rating import (
    RatedLine,
    Reach,
    Unbounded,
    UnpricedSku,
    rate_ceiling,
    rate_usage,
    total_cost,
)
from pricing.sku import STANDARD_TIER
from pricing.usage import Quantity

HISTORY: Final = timedelta(days=30)
BATCH_TIER: Final = "batch"
# Words of the providers' APIs for the tier that the catalog calls standard.
_STANDARD_WORDS: Final = frozenset({"auto", "default", STANDARD_TIER})
# What a chat call can touch. Cached input is never dearer than plain input; cache writes are left
# out because a call writes a cache only where it asks to.
_CHAT_METERS: Final = frozenset({Meter.INPUT, Meter.CACHE_READ, Meter.OUTPUT, Meter.REASONING})
_TOKENS_MAX: Final = 10**12

router = APIRouter(prefix="/estimates", tags=["estimates"], route_class=ReplayRoute)


def _encodable(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Refuse text that is no Unicode and numbers that are no JSON."""
    try:
        json.dumps(messages, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise ValueError("holds text that is not Unicode, or a number that is not JSON") from None
    return messages


Tokens = Annotated[int, Field(ge=0, le=_TOKENS_MAX, strict=True)]
# Whole numbers as they are; fractions of seconds as text, because a float is not what was counted.
Amount = Tokens | Annotated[str, StringConstraints(pattern=r"^[0-9]{1,12}(\.[0-9]{1,9})?$")]


class _AboutModel(BaseModel):
    model_config = ConfigDict(extra="forbid")

    provider: PlainText | None = None
    model: PlainText = Field(examples=["openai/gpt-5"])
    service_tier: PlainText | None = Field(default=None, examples=["standard", "flex"])
    region: PlainText | None = None
    batch: bool = False
    at: InstantIn | None = None


class TokensEstimate(_AboutModel):
    """A call whose input was counted already."""

    input_tokens: Tokens
    max_output_tokens: Annotated[int, Field(ge=1, le=_TOKENS_MAX, strict=True)] | None = None


class MessagesEstimate(_AboutModel):
    """A call whose input is counted here; nothing of it is kept."""

    messages: Annotated[
        list[dict[str, Any]], Field(min_length=1, max_length=10_000), AfterValidator(_encodable)
    ] = Field(examples=[[{"role": "user", "content": "Hello"}]])
    max_output_tokens: Annotated[int, Field(ge=1, le=_TOKENS_MAX, strict=True)] | None = None


class UsageEstimate(_AboutModel):
    """Usage to be rated exactly."""

    usage: Annotated[dict[Meter, Amount], Field(max_length=len(Meter))] = Field(
        examples=[{"input": 224, "cache_read": 1024, "output": 146}]
    )


def _form_of(body: object) -> str:
    if isinstance(body, dict):
        return next((form for form in ("usage", "messages") if form in body), "input_tokens")
    return "input_tokens"


EstimateIn = Annotated[
    Annotated[TokensEstimate, Tag("input_tokens")]
    | Annotated[MessagesEstimate, Tag("messages")]
    | Annotated[UsageEstimate, Tag("usage")],
    Discriminator(_form_of),
]


class CostOut(BaseModel):
    """One cost and the lines it is the sum of."""

    cost: str
    input_tokens: int
    output_tokens: int
    lines: list[LineOut]


class _PricedOut(BaseModel):
    provider: str
    model: str
    price_version: str
    currency: str
    service_tier: str
    region: str | None
    at: InstantOut


class EstimateOut(_PricedOut):
    """What a call would cost before it is made.

    Attributes:
        input_tokens_from: Whether the input was given or counted here.
        low: The input and one output token.
        expected: The input and the usual output; null when nothing tells what is usual.
        expected_from: ``history``: the mean output of this model in the last 30 days of the ledger;
            ``assumption``: half of the most it can be.
        ceiling: What no call of this shape exceeds; null when nothing bounds it. Cache writes,
            tools and parts that are not text come on top.
        unbounded: Why there is no ceiling.
    """

    input_tokens_from: Literal["given", "counted"]
    low: CostOut
    expected: CostOut | None
    expected_from: Literal["history", "assumption"] | None
    ceiling: CostOut | None
    unbounded: str | None


class RatedOut(_PricedOut):
    """Usage, rated as a real call's would be."""

    cost: str
    list_cost: str
    lines: list[LineOut]


class _Question:
    """An estimate with everything it rests on looked up."""

    def __init__(self, parts: ControlParts, body: _AboutModel) -> None:
        self.parts = parts
        self.at: datetime = body.at or parts.clock.now()
        self.tier = _tier_of(body)
        self.found: PricedModel = find_priced_model(parts, body.provider, body.model, self.at)
        self.card = self.found.card
        # A region without prices of its own has those without a region.
        self.region = body.region if body.region in _regions(self.card) else None

    def rate(self, counts: dict[Meter, Quantity]) -> tuple[RatedLine, ...]:
        return rate_usage(counts, self.card, tier=self.tier, region=self.region)

    def priced(self) -> dict[str, Any]:
        return {
            "provider": self.found.provider,
            "model": self.found.name,
            "price_version": self.card.version,
            "currency": self.card.currency,
            "service_tier": self.tier,
            "region": self.region,
            "at": self.at,
        }


# Counting waits for the tokenizer and the history for the database, so this runs in a thread.
@router.post("")
def estimate(parts: Parts, body: EstimateIn) -> EstimateOut | RatedOut:
    """Estimate a call from its input, or rate given usage exactly.

    With ``messages`` or ``input_tokens``: the low, expected and ceiling cost. With ``usage``: the
    lines a call with this usage has in the ledger.
    """
    question = _Question(parts, body)
    try:
        if isinstance(body, UsageEstimate):
            return _rate_exactly(question, body)
        return _estimate_call(question, body)
    except UnpricedSku as gap:
        raise RequestRefused(422, "unpriced_meter", str(gap)) from gap


def _rate_exactly(question: _Question, body: UsageEstimate) -> RatedOut:
    lines = question.rate({meter: _quantity(meter, n) for meter, n in body.usage.items()})
    currency = question.card.currency
    list_cost = sum((line.list_cost for line in lines), Money(0, currency))
    return RatedOut(
        **question.priced(),
        cost=str(total_cost(lines, currency)),
        list_cost=str(list_cost),
        lines=_lines_out(lines),
    )


def _estimate_call(question: _Question, body: TokensEstimate | MessagesEstimate) -> EstimateOut:
    if isinstance(body, MessagesEstimate):
        counted = question.parts.count_tokens(body.messages, question.found.name)
        bound = question.parts.bound_tokens(body.messages, question.found.name)
        bound = None if bound is None else max(bound, counted)
    else:
        counted, bound = body.input_tokens, body.input_tokens
    limits = [n for n in (body.max_output_tokens, question.card.output_tokens_max) if n is not None]
    output_max = min(limits, default=None)
    usual, usual_from = _usual_output(question, output_max)
    ceiling, unbounded = _ceiling(question, bound, output_max)
    return EstimateOut(
        **question.priced(),
        input_tokens_from="counted" if isinstance(body, MessagesEstimate) else "given",
        low=_cost_out(question.rate({Meter.INPUT: counted, Meter.OUTPUT: 1})),
        expected=(
            None
            if usual is None
            else _cost_out(question.rate({Meter.INPUT: counted, Meter.OUTPUT: usual}))
        ),
        expected_from=usual_from,
        ceiling=ceiling,
        unbounded=unbounded,
    )


def _usual_output(
    question: _Question, output_max: int | None
) -> tuple[int | None, Literal["history", "assumption"] | None]:
    seen = question.parts.queries.usage(
        UsageQuery(
            wanted=RecordFilter(
                from_us=epoch_us(question.parts.clock.now() - HISTORY),
                provider=question.found.provider,
                model=question.found.name,
                outcome="ok",
            )
        )
    )
    calls = sum(row.requests - row.unknown_usage_requests for row in seen)
    if calls > 0:
        mean = max(1, sum(row.output_tokens for row in seen) // calls)
        return mean if output_max is None else min(mean, output_max), "history"
    if output_max is None:
        return None, None
    return max(1, output_max // 2), "assumption"


def _ceiling(
    question: _Question, input_max: int | None, output_max: int | None
) -> tuple[CostOut | None, str | None]:
    reach = Reach(
        input_tokens_max=input_max,
        output_tokens_max=output_max,
        meters=_CHAT_METERS,
        fees={},
        tiers=frozenset({question.tier}),
        region=question.region,
    )
    try:
        return _cost_out(rate_ceiling(reach, question.card)), None
    except Unbounded as gap:
        return None, f"{gap}; set max_output_tokens"


def _regions(card: RateCard) -> set[str | None]:
    return {region for _, region, _ in card.rates}


def _tier_of(body: _AboutModel) -> str:
    asked = (body.service_tier or STANDARD_TIER).lower()
    tier = STANDARD_TIER if asked in _STANDARD_WORDS else asked
    if not body.batch:
        return tier
    if tier not in {STANDARD_TIER, BATCH_TIER}:
        detail = f"a call is served either at service_tier {tier} or as a batch, not both"
        raise RequestRefused(422, "invalid_request", detail)
    return BATCH_TIER


def _quantity(meter: Meter, amount: int | str) -> Quantity:
    if isinstance(amount, int):
        return amount
    exact = decimal_from_text(amount)
    if exact == int(exact):
        return int(exact)
    if not meter.value.endswith("_second"):
        detail = f"usage.{meter.value}: {amount} is not a whole number"
        raise RequestRefused(422, "invalid_request", detail)
    return exact


def _cost_out(lines: tuple[RatedLine, ...]) -> CostOut:
    totals = {"input": 0, "output": 0, "none": 0}
    for line in lines:
        totals[TRAITS[line.meter].direction] += int(line.quantity)
    return CostOut(
        cost=pico_to_text(sum(line.cost.pico for line in lines)),
        input_tokens=totals["input"],
        output_tokens=totals["output"],
        lines=_lines_out(lines),
    )


def _lines_out(lines: tuple[RatedLine, ...]) -> list[LineOut]:
    return [
        LineOut(
            sku=line.sku,
            price_id=line.price_id,
            meter=line.meter,
            quantity=line.quantity,
            unit_price=line.unit_price,
            per=str(line.per),
            list_cost=pico_to_text(line.list_cost_pico),
            cost=pico_to_text(line.cost_pico),
        )
        for line in to_ledger_lines(lines)
    ]
