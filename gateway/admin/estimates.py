"""``POST /api/v1/estimates``: what a call would cost, through the function that prices real ones.

Must never work out a cost itself: ``gateway.estimating`` does, for the command line too.
"""

import json
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final, Literal, Self

from fastapi import APIRouter
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

from gateway.admin.fields import Id, InstantIn, InstantOut, PlainText
from gateway.admin.idempotency import ReplayRoute
from gateway.admin.ledger import LineOut
from gateway.admin.models import PricedModel, find_priced_model, payer_in
from gateway.admin.parts import ControlParts, Parts
from gateway.admin.problems import RequestRefused
from gateway.estimate_public import (
    Choice,
    choice_of,
    choice_of_rated,
    choose,
    comparison_to_public,
    estimate_to_public,
    offer_to_public,
    rated_to_public,
)
from gateway.estimating import (
    TOKENS_MAX,
    NoSuchTier,
    Offer,
    Terms,
    estimate_call,
    make_offer,
    plan_call,
    rate_exactly,
    rate_same,
    read_quantity,
    read_terms,
)
from gateway.usual import NoHistory, Usual, ask_for, find_usual, history_query
from pricing.meters import Meter
from pricing.rating import UnpricedSku
from pricing.usage import Quantity

COMPARED_MAX: Final = 20

router = APIRouter(prefix="/estimates", tags=["estimates"], route_class=ReplayRoute)


def _encodable(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Refuse text that is no Unicode and numbers that are no JSON."""
    try:
        json.dumps(messages, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise ValueError("holds text that is not Unicode, or a number that is not JSON") from None
    return messages


Tokens = Annotated[int, Field(ge=0, le=TOKENS_MAX, strict=True)]
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
    compare: Annotated[list[PlainText], Field(max_length=COMPARED_MAX)] = Field(
        default=[],
        description="Other models to price the same call on, as in `model`.",
        examples=[["anthropic/claude-sonnet-4-5"]],
    )


class _AboutCall(_AboutModel):
    """What both kinds of planned calls say of the answer, and of whom they are."""

    output_tokens: Tokens | None = Field(
        default=None, description="Tokens the answer is expected to have, instead of history's."
    )
    max_output_tokens: Annotated[int, Field(ge=1, le=TOKENS_MAX, strict=True)] | None = None
    team: Id | None = Field(default=None, description="Whose calls tell what is usual.")
    project: Id | None = Field(default=None, description="Likewise; its team follows.")

    @model_validator(mode="after")
    def _is_within_limit(self) -> Self:
        limit, expected = self.max_output_tokens, self.output_tokens
        if limit is not None and expected is not None and expected > limit:
            raise ValueError("output_tokens is more than max_output_tokens")
        return self


class TokensEstimate(_AboutCall):
    """A call whose input was counted already."""

    input_tokens: Tokens


class MessagesEstimate(_AboutCall):
    """A call whose input is counted here; nothing of it is kept."""

    messages: Annotated[
        list[dict[str, Any]], Field(min_length=1, max_length=10_000), AfterValidator(_encodable)
    ] = Field(examples=[[{"role": "user", "content": "Hello"}]])


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
    """One cost and the lines it is the sum of.

    Attributes:
        cost: Sum of the lines.
        list_cost: The same at published prices.
        input_tokens: Of all lines.
        output_tokens: Of all lines.
        counted_as: Meters without a price here, by the meter whose price they have instead.
        lines: As in a ledger record.
    """

    cost: str
    list_cost: str
    input_tokens: int
    output_tokens: int
    counted_as: dict[str, str]
    lines: list[LineOut]


class HistoryOut(BaseModel):
    """What the expectation rests on.

    Attributes:
        scope: Whose calls: the narrowest of these that has enough, or else the widest.
        id: Id of that project, team or organisation; null for everybody's calls of the model.
        records: How many calls.
        first_day: Day of the oldest, in UTC.
        last_day: Day of the newest.
        output_tokens: Mean tokens of an answer.
        cached_percent: Share of their input tokens that came out of a cache.
    """

    scope: Literal["project", "team", "organization", "model"]
    id: str | None
    records: int
    first_day: str
    last_day: str
    output_tokens: int
    cached_percent: int


class ComparedOut(BaseModel):
    """One model of a comparison.

    Attributes:
        provider: Provider.
        model: Model.
        cost: Of the given usage; absent for a planned call.
        low: Of the planned call; absent for given usage, like the next two.
        expected: With the tokens expected of the model asked for.
        ceiling: With this model's own limit where the call sets none.
        ratio: How many times the cost of the model asked for; null where either is unknown.
        counted_as: As in the costs above, of ``cost`` or ``expected``.
        note: Why the call has no cost there, or that its prompt does not fit; mostly null.
    """

    provider: str
    model: str
    cost: str | None = None
    low: str | None = None
    expected: str | None = None
    ceiling: str | None = None
    ratio: str | None
    counted_as: dict[str, str]
    note: str | None


class ComparisonOut(BaseModel):
    """The same call on several models, the one asked for first.

    Attributes:
        by: The cost that ``ratio`` compares.
        models: The models, in the order asked for.
    """

    by: Literal["cost", "low", "expected", "ceiling"]
    models: list[ComparedOut]


class _PricedOut(BaseModel):
    provider: str
    model: str
    price_version: str
    currency: str
    service_tier: str
    region: str | None
    at: InstantOut
    comparison: ComparisonOut | None = None


class EstimateOut(_PricedOut):
    """What a call would cost before it is made.

    Attributes:
        input_tokens_from: Whether the input was given or counted here.
        low: The input, from a cache where that is cheaper, and one output token.
        expected: The input and the usual output; null when nothing tells what is usual.
        expected_from: ``history``: the mean of recent calls of this model; ``given``: your own
            ``output_tokens``, with the cache share of ``history`` where there is one.
        history: The calls of this ledger that tell what is usual; null when there are none.
        no_history: Why there are none.
        ceiling: What no call of this shape exceeds; null when nothing bounds it. Fees
            that are not tokens, such as searches, come on top of every part.
        unbounded: Why there is no ceiling.
        note: That the prompt does not fit the model; mostly null.
        comparison: The call on other models; null unless ``compare`` asked for it.
    """

    input_tokens_from: Literal["given", "counted"]
    low: CostOut
    expected: CostOut | None
    expected_from: Literal["history", "given"] | None
    history: HistoryOut | None
    no_history: str | None
    ceiling: CostOut | None
    unbounded: str | None
    note: str | None


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
        try:
            self.terms: Terms = read_terms(body.service_tier, body.region, is_batch=body.batch)
        except ValueError as contradiction:
            raise RequestRefused(422, "invalid_request", str(contradiction)) from contradiction
        team, project = (body.team, body.project) if isinstance(body, _AboutCall) else (None, None)
        payer = payer_in(parts, team, project)
        self.found = find_priced_model(parts, body.provider, body.model, self.at, payer)
        self.others = [
            find_priced_model(parts, None, name, self.at, payer) for name in body.compare
        ]
        self.offer = self.offer_of(self.found)

    def offer_of(self, found: PricedModel) -> Offer:
        return make_offer(found.provider, found.name, found.card, self.terms)


# Counting waits for the tokenizer and the history for the database, so this runs in a thread.
@router.post("", response_model_exclude_unset=True)
def estimate(parts: Parts, body: EstimateIn) -> EstimateOut | RatedOut:
    """Estimate a call from its input, or rate given usage exactly.

    With ``messages`` or ``input_tokens``: the low, expected and ceiling cost. With ``usage``: the
    lines a call with this usage has in the ledger. ``compare`` prices the same on other models.
    """
    try:
        question = _Question(parts, body)
        if isinstance(body, UsageEstimate):
            return _rate_exactly(question, body)
        return _estimate_call(question, body)
    except (UnpricedSku, NoSuchTier) as gap:
        raise RequestRefused(422, "unpriced_meter", str(gap)) from gap


def _rate_exactly(question: _Question, body: UsageEstimate) -> RatedOut:
    try:
        counts: dict[Meter, Quantity] = {
            meter: read_quantity(meter, amount) for meter, amount in body.usage.items()
        }
    except ValueError as refused:
        raise RequestRefused(422, "invalid_request", f"usage.{refused}") from refused
    rated = rate_exactly(question.offer, counts)

    def choice(found: PricedModel) -> Choice:
        offer = question.offer_of(found)
        return choice_of_rated(offer, rate_same(offer, counts))

    return RatedOut(
        **offer_to_public(question.offer, question.at),
        **_comparison(question, choice_of_rated(question.offer, rated), choice),
        **rated_to_public(rated),
    )


def _estimate_call(question: _Question, body: TokensEstimate | MessagesEstimate) -> EstimateOut:
    parts, model = question.parts, question.found.name
    call = plan_call(
        body.messages if isinstance(body, MessagesEstimate) else body.input_tokens,
        lambda messages: parts.count_tokens(messages, model),
        lambda messages: parts.bound_tokens(messages, model),
        output_tokens=body.output_tokens,
        output_tokens_max=body.max_output_tokens,
    )
    usual = _usual(question, body)
    estimate = estimate_call(question.offer, call, usual)

    def choice(found: PricedModel) -> Choice:
        return choice_of(estimate_call(question.offer_of(found), call, usual))

    return EstimateOut(
        **offer_to_public(question.offer, question.at),
        **_comparison(question, choice_of(estimate), choice),
        input_tokens_from="counted" if isinstance(body, MessagesEstimate) else "given",
        **estimate_to_public(estimate),
    )


def _usual(question: _Question, body: _AboutCall) -> Usual | NoHistory:
    parts, found = question.parts, question.found
    priced_as = {name: given.priced_as for name, given in parts.settings.providers.items()}
    query = history_query(found.entry, found.provider, priced_as, parts.clock.now())
    try:
        query = ask_for(query, parts.directory, team=body.team, project=body.project)
    except ValueError as contradiction:
        raise RequestRefused(422, "invalid_request", str(contradiction)) from contradiction
    return find_usual(parts.queries.history, query)


def _comparison(
    question: _Question, first: Choice, choice: Callable[[PricedModel], Choice]
) -> dict[str, Any]:
    if not question.others:
        return {}
    others = [
        choose((found.provider, found.name), first.costs, partial(choice, found))
        for found in question.others
    ]
    return {"comparison": comparison_to_public([first, *others])}
