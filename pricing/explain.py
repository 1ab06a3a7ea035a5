"""Why a price applies: the one that won, and what every other one lost by.

Must never decide a price itself: the winner is the one a bill takes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime

from pricing.agreements import Override, Payer
from pricing.book import Book
from pricing.meters import Meter
from pricing.rates import CompiledRate, Rate, meters_behind
from pricing.sku import STANDARD_TIER


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceQuestion:
    """What is asked: the price of one meter in one call.

    Attributes:
        provider: Catalog provider.
        name: Model name, alias or snapshot.
        meter: What was counted.
        at: When the call began; aware.
        tier: Service tier served.
        region: Region class served.
        variant: The make that was sold; ``None`` when nothing says so.
        input_total: Tokens of the whole prompt.
        payer: Who pays; ``None`` for published prices.
    """

    provider: str
    name: str
    meter: Meter
    at: datetime
    tier: str = STANDARD_TIER
    region: str | None = None
    variant: str | None = None
    input_total: int = 0
    payer: Payer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """A price or an override that was looked at.

    Attributes:
        name: Price id, or the id of the override.
        terms: What it says: amount and per, or percent.
        verdict: ``applies``, or what it lost by, in words.
    """

    name: str
    terms: str
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Which price applies and why.

    Attributes:
        question: What was asked.
        version: Book version that was asked.
        recorded_at: When that version was recorded.
        model: Catalog model behind the name; ``None`` when the book does not know it.
        price: The price that applies; ``None`` when there is none.
        reasons: Why this one, one sentence each; why there is none, where there is none.
        rates: Every rate of the meter and of those it can be priced as, and its verdict.
        overrides: Every override that can be about the model, and its verdict.
    """

    question: PriceQuestion
    version: str
    recorded_at: datetime
    model: str | None
    price: CompiledRate | None
    reasons: tuple[str, ...]
    rates: tuple[Considered, ...]
    overrides: tuple[Considered, ...]

    @property
    def source(self) -> str | None:
        """Page the published price was read from."""
        return None if self.price is None else self.price.rate.source

    @property
    def checked_at(self) -> date | None:
        """Day somebody last looked at that page."""
        return None if self.price is None else self.price.rate.checked_at


APPLIES = "applies"


def explain_price(book: Book, question: PriceQuestion) -> Explanation:
    """Say which price one meter of a call takes, and why no other.

    Args:
        book: Where prices are looked up.
        question: What is asked.

    Returns:
        The price a bill would take, with what was considered.
    """
    entry = book.find_model(question.provider, question.name)
    card = book.find_card(question.provider, question.name, question.at, question.payer)
    price = None
    if card is not None:
        price = card.find_rate(
            question.meter,
            tier=question.tier,
            region=question.region,
            input_total=question.input_total,
            variant=question.variant,
        )
    rates = [] if entry is None else _relevant(book.rates_of(entry.provider, entry.model), question)
    overrides = [
        override
        for override in book.overrides
        if entry is not None and override.is_for_model(entry.provider, entry.model)
    ]
    reasons = (
        _reasons_against(question, entry is not None, bool(rates))
        if price is None
        else _reasons_for(question, price, overrides)
    )
    return Explanation(
        question=question,
        version=book.version.version,
        recorded_at=book.version.recorded_at,
        model=None if entry is None else entry.model,
        price=price,
        reasons=tuple(reasons),
        rates=tuple(_judge_rate(rate, question, price) for rate in rates),
        overrides=tuple(_judge_override(o, question, price) for o in overrides),
    )


def _relevant(rates: Iterable[Rate], question: PriceQuestion) -> list[Rate]:
    order = {meter: number for number, meter in enumerate(meters_behind(question.meter))}
    found = [rate for rate in rates if rate.meter in order]
    return sorted(
        found,
        key=lambda r: (
            order[r.meter],
            r.tier != question.tier,
            r.tier,
            r.region or "",
            r.variant or "",
            -(r.over or 0),
            r.valid_from,
        ),
    )


def terms_of(amount: str, per: int, currency: str) -> str:
    """Write a price in words.

    Args:
        amount: Decimal text.
        per: The quantity it is for.
        currency: ISO 4217 code.

    Returns:
        Such as ``2.5 USD per 1,000,000``.
    """
    return f"{amount} {currency} per {per:,}"


def _judge_rate(rate: Rate, question: PriceQuestion, price: CompiledRate | None) -> Considered:
    is_chosen = price is not None and price.rate is rate
    verdict = APPLIES if is_chosen else next(_losses(rate, question, price))
    terms = terms_of(f"{rate.amount:f}", rate.per, rate.currency)
    return Considered(name=rate.price_id, terms=terms, verdict=verdict)


def _losses(rate: Rate, question: PriceQuestion, price: CompiledRate | None) -> Iterator[str]:
    """What a rate lost by, the plainest reason first; there is always one."""
    at = question.at
    if rate.valid_from > at:
        yield f"starts on {rate.valid_from.isoformat()}"
    if rate.valid_to is not None and rate.valid_to <= at:
        yield f"ended on {rate.valid_to.isoformat()}"
    if rate.tier != question.tier:
        yield f"is for tier {rate.tier}, the call was served at {question.tier}"
    if rate.region not in (None, question.region):
        yield f"is for region {rate.region}, the call {_placed(question)}"
    if rate.variant not in (None, question.variant):
        yield f"is for {rate.variant}, the call {_made(question)}"
    if rate.hours is not None and not rate.hours.holds_at(at):
        yield f"holds {rate.hours}, which {at.isoformat()} is outside of"
    if rate.over is not None and question.input_total <= rate.over:
        yield f"is for prompts over {rate.over:,} tokens, this one has {question.input_total:,}"
    if price is None:
        yield f"{question.meter.value} is sold in makes, and the call {_made(question)}"
    else:
        yield from _beaten(rate, price.rate)


def _beaten(rate: Rate, winner: Rate) -> Iterator[str]:
    """What the winner had over a rate that would have held too."""
    if rate.meter is not winner.meter:
        yield f"{winner.meter.value} has a price of its own"
    if rate.variant != winner.variant:
        yield f"the price of {winner.variant} goes before the plain one"
    if rate.region != winner.region:
        yield f"the price of region {winner.region} goes before the one without a region"
    if rate.hours != winner.hours and rate.over == winner.over:
        yield f"the price of the window {winner.hours} goes before the one for any time"
    yield f"the price for prompts over {winner.over or 0:,} tokens goes before it"


def _placed(question: PriceQuestion) -> str:
    return "names no region" if question.region is None else f"was served in {question.region}"


def _made(question: PriceQuestion) -> str:
    return "names no make" if question.variant is None else f"was for {question.variant}"


def _judge_override(
    override: Override, question: PriceQuestion, price: CompiledRate | None
) -> Considered:
    terms = f"{override.percent} %"
    if override.amount is not None:
        terms = terms_of(f"{override.amount:f}", override.per or 1, override.currency)
    is_chosen = price is not None and price.agreement == override.id
    verdict = APPLIES if is_chosen else next(_override_losses(override, question, price))
    return Considered(name=override.id, terms=f"{terms}: {override.why}", verdict=verdict)


def _override_losses(
    override: Override, question: PriceQuestion, price: CompiledRate | None
) -> Iterator[str]:
    """What an override lost by, the plainest reason first; there is always one."""
    if question.payer is None:
        yield "published prices were asked for"
    elif not override.is_for_payer(question.payer):
        yield f"is for {'/'.join(filter(None, override.payer))}"
    if override.valid_from > question.at:
        yield f"starts on {override.valid_from.isoformat()}"
    if override.valid_to is not None and override.valid_to <= question.at:
        yield f"ended on {override.valid_to.isoformat()}"
    if price is None:
        yield "there is no price to change"
    elif not override.is_for_rate(price.rate):
        yield f"is not about {price.price_id}"
    else:
        yield f"{price.agreement} is more specific, or as specific and newer"


def _reasons_for(
    question: PriceQuestion, price: CompiledRate, overrides: list[Override]
) -> Iterator[str]:
    rate = price.rate
    if rate.meter is not question.meter:
        yield (
            f"{question.meter.value} has no price of its own and is priced as {rate.meter.value}"
        )
    if rate.variant is not None:
        yield f"it is the price of {rate.variant}"
    elif question.variant is not None:
        yield f"there is no price of {question.variant}, so the plain one holds"
    if rate.region is None and question.region is not None:
        yield f"there is no price of region {question.region}, so the one without a region holds"
    if rate.over is not None:
        yield f"the whole prompt has {question.input_total:,} tokens, more than {rate.over:,}"
    if rate.hours is not None:
        yield f"{question.at.isoformat()} is within {rate.hours}"
    end = "without an end" if rate.valid_to is None else f"until {rate.valid_to.isoformat()}"
    yield f"it holds from {rate.valid_from.isoformat()} {end}"
    override = next((o for o in overrides if o.id == price.agreement), None)
    if override is not None and price.listed is not None:
        published = terms_of(price.listed.amount_text, price.listed.per, rate.currency)
        yield f"override {override.id} changes the published {published}: {override.why}"


def _reasons_against(question: PriceQuestion, is_known: bool, has_rates: bool) -> Iterator[str]:
    if not is_known:
        yield f"{question.provider} has no model {question.name!r} in this version"
    elif not has_rates:
        yield f"{question.meter.value} is never priced for this model, nor what it is priced as"
    else:
        yield f"no rate of {question.meter.value} fits this call"
