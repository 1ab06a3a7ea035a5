"""What a call would cost before it is made: at least, as expected, and at most.

Every figure comes out of the one rating function. Must never state a ceiling that a call could
exceed, nor an expectation that rests on nothing.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from gateway.ledger.history import NO_HISTORY
from gateway.usual import NoHistory, Usual
from gateway.wire.facts import Asked
from gateway.wire.openai_chat import TOKENS_PER_MESSAGE, TOKENS_PER_REPLY, OpenAIChat
from pricing.meters import INPUT_METERS, OUTPUT_METERS, TRAITS, Meter
from pricing.money import Money, decimal_from_text
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

TOKENS_MAX: Final = 10**12
BATCH_TIER: Final = "batch"
# How a quantity is written. No exponents: few characters would stand for a gigabyte of digits.
_NUMBER: Final = re.compile(r"[0-9]{1,18}(\.[0-9]{1,9})?", re.ASCII)

Messages = Sequence[Mapping[str, Any]]

# Words of the providers' APIs for the tier that the catalog calls standard.
_STANDARD_WORDS: Final = frozenset({"auto", "default", STANDARD_TIER})
_TEXT_METERS: Final = frozenset(
    {
        *(Meter.INPUT, Meter.CACHE_READ),
        *(Meter.CACHE_WRITE, Meter.CACHE_WRITE_1H, Meter.CACHE_WRITE_12H),
        *(Meter.OUTPUT, Meter.REASONING),
    }
)


class NoSuchTier(LookupError):
    """A model that is not sold in the service tier asked for; the text says in which it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a call is served, as far as it decides the price.

    Attributes:
        tier: Service tier of the catalog.
        region: Region class; ``None`` where the region does not matter.
    """

    tier: str = STANDARD_TIER
    region: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A model at the prices of an instant.

    Attributes:
        provider: Provider as the caller knows it.
        model: Model likewise, without its provider.
        card: Its prices.
        terms: How it is served.
    """

    provider: str
    model: str
    card: RateCard
    terms: Terms

    @property
    def name(self) -> str:
        """The model with its provider."""
        return f"{self.provider}/{self.model}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCall:
    """A call that was not made yet.

    Attributes:
        input_tokens: Tokens of the prompt.
        input_tokens_max: Most they can be; ``None`` when the prompt holds more than text.
        output_tokens: Tokens of the answer the caller expects; ``None`` when it does not say.
        output_tokens_max: Most the caller lets the answer have; ``None`` for the model's own limit.
    """

    input_tokens: int
    input_tokens_max: int | None
    output_tokens: int | None = None
    output_tokens_max: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rated:
    """Usage at the prices of an offer.

    Attributes:
        lines: As a record's.
        cost: Their sum.
        counted_as: Meters the offer has no price for, with the meter that was priced instead.
    """

    lines: tuple[RatedLine, ...]
    cost: Money
    counted_as: Mapping[Meter, Meter]

    @property
    def list_cost(self) -> Money:
        """The same at published prices."""
        return sum((line.list_cost for line in self.lines), Money(0, self.cost.currency))

    def tokens(self, direction: Literal["input", "output"]) -> int:
        """Count the tokens of one direction.

        Args:
            direction: Side of the call.

        Returns:
            Their sum over the lines.
        """
        return sum(
            int(line.quantity) for line in self.lines if TRAITS[line.meter].direction == direction
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a planned call would cost.

    Attributes:
        offer: At which prices.
        low: The prompt at its cheapest, from the cache where that is cheaper, and one token.
        expected: The prompt and the answer as expected; ``None`` when nothing tells.
        expected_from: Whose word the length of the answer is; ``None`` without expectation.
        ceiling: What no call of this shape exceeds; ``None`` when nothing bounds it.
        unbounded: Why there is no ceiling.
        usual: What the expectation rests on besides.
        note: What speaks against making the call at all; ``None`` when nothing does.
    """

    offer: Offer
    low: Rated
    expected: Rated | None
    expected_from: Literal["history", "given"] | None
    ceiling: Rated | None
    unbounded: str | None
    usual: Usual | NoHistory
    note: str | None


def read_terms(service_tier: str | None, region: str | None, *, is_batch: bool = False) -> Terms:
    """Read how a call is to be served.

    Args:
        service_tier: In the words of the catalog or of a provider's API; ``None`` for standard.
        region: Region class.
        is_batch: Whether it is part of a batch.

    Returns:
        The terms.

    Raises:
        ValueError: A batch in another tier.
    """
    asked = (service_tier or STANDARD_TIER).lower()
    tier = STANDARD_TIER if asked in _STANDARD_WORDS else asked
    if not is_batch:
        return Terms(tier=tier, region=region)
    if tier not in {STANDARD_TIER, BATCH_TIER}:
        raise ValueError(f"a call is served either at service_tier {tier} or as a batch, not both")
    return Terms(tier=BATCH_TIER, region=region)


def make_offer(provider: str, model: str, card: RateCard, terms: Terms) -> Offer:
    """Put a model, its prices and how it is served together.

    Args:
        provider: Provider as the caller knows it.
        model: Model likewise.
        card: Its prices.
        terms: How it is to be served.

    Returns:
        The offer. A region without prices of its own has those without a region.

    Raises:
        NoSuchTier: The model is not sold in this service tier.
    """
    if terms.tier not in card.tiers:
        tiers = ", ".join(sorted(card.tiers))
        raise NoSuchTier(f"{provider}/{model} has no tier {terms.tier!r}; there are {tiers}")
    regions = {rate.rate.region for prices in card.rates.values() for rate in prices}
    region = terms.region if terms.region in regions else None
    return Offer(provider=provider, model=model, card=card, terms=replace(terms, region=region))


def read_quantity(meter: Meter, amount: int | str) -> Quantity:
    """Read how much was counted.

    Args:
        meter: What was counted.
        amount: A whole number, or decimal text where fractions can be counted.

    Returns:
        The quantity, exactly.

    Raises:
        ValueError: Negative, not a number, or a fraction of something that has none.
    """
    if isinstance(amount, int):
        exact: Quantity = amount
    elif not _NUMBER.fullmatch(amount):
        raise ValueError(f"{meter.value}: {amount[:40]!r} is not a number such as 12 or 1.5")
    else:
        exact = decimal_from_text(amount)
        if exact == int(exact):
            exact = int(exact)
    if exact < 0:
        raise ValueError(f"{meter.value}: a quantity cannot be negative")
    if not isinstance(exact, int) and not meter.value.endswith("_second"):
        raise ValueError(f"{meter.value}: {amount} is not a whole number")
    return exact


def count_messages(messages: Messages, count: Callable[[Sequence[str]], int]) -> int:
    """Count the tokens of chat messages.

    Args:
        messages: As in the request.
        count: Counts texts, each on its own.

    Returns:
        The sum, with what the format of a chat adds. Parts that are not text count as their JSON.
    """
    body = json.dumps({"messages": messages}).encode()
    texts = OpenAIChat().read_prompt(Asked(body=body)) or [json.dumps(messages)]
    return count(texts) + TOKENS_PER_MESSAGE * len(messages) + TOKENS_PER_REPLY


def bound_messages(messages: Messages) -> int | None:
    """Bound the tokens of chat messages as the path of a call does: by their bytes.

    Args:
        messages: As in the request.

    Returns:
        A number the provider's count cannot exceed; ``None`` when they hold more than text.
    """
    body = json.dumps({"model": "any", "messages": messages}, ensure_ascii=False).encode()
    return OpenAIChat().read_facts(Asked(body=body)).input_tokens_max


def plan_call(
    prompt: int | Messages,
    count: Callable[[Messages], int],
    bound: Callable[[Messages], int | None] = bound_messages,
    *,
    output_tokens: int | None,
    output_tokens_max: int | None,
) -> PlannedCall:
    """Describe a call, counting its prompt where nobody has.

    Args:
        prompt: Its tokens, or the messages.
        count: Counts the tokens of messages.
        bound: Bounds the same from above.
        output_tokens: As in ``PlannedCall``.
        output_tokens_max: Likewise.

    Returns:
        The call.
    """
    most: int | None
    if isinstance(prompt, int):
        counted = most = prompt
    else:
        counted = count(prompt)
        bounded = bound(prompt)
        most = None if bounded is None else max(bounded, counted)
    return PlannedCall(
        input_tokens=counted,
        input_tokens_max=most,
        output_tokens=output_tokens,
        output_tokens_max=output_tokens_max,
    )


def rate_exactly(offer: Offer, counts: Mapping[Meter, Quantity]) -> Rated:
    """Price counted usage.

    Args:
        offer: At which prices.
        counts: Disjoint quantities by meter.

    Returns:
        The lines a record with this usage has.

    Raises:
        UnpricedSku: A meter has no price. Nothing is priced partially.
    """
    return _rate(offer, counts, {})


def rate_same(offer: Offer, counts: Mapping[Meter, Quantity]) -> Rated:
    """Price usage counted elsewhere, on a model that may count with fewer meters.

    Args:
        offer: At which prices.
        counts: Disjoint quantities by meter.

    Returns:
        The lines. Tokens of a meter the offer has no price for, such as the writing of a cache it
        does not sell, are plain input or output there; ``counted_as`` says so.

    Raises:
        UnpricedSku: What is not tokens has no price, or plain tokens have none.
    """
    prompt = sum(int(n) for meter, n in counts.items() if meter in INPUT_METERS)
    merged: dict[Meter, Quantity] = {}
    counted_as: dict[Meter, Meter] = {}
    for meter, quantity in counts.items():
        there = meter
        if not _has_price(offer, meter, prompt):
            there = {"input": Meter.INPUT, "output": Meter.OUTPUT}.get(
                TRAITS[meter].direction, meter
            )
        if there is not meter:
            counted_as[meter] = there
        merged[there] = merged.get(there, 0) + quantity
    return _rate(offer, merged, counted_as)


def estimate_call(offer: Offer, call: PlannedCall, usual: Usual | NoHistory) -> Estimate:
    """Work out what a planned call would cost.

    Args:
        offer: At which prices.
        call: The call.
        usual: What calls like it have used.

    Returns:
        The estimate. Searches and other fees that are not tokens come on top of every part.

    Raises:
        UnpricedSku: Plain input or output has no price.
    """
    limits = (call.output_tokens_max, offer.card.output_tokens_max)
    output_max = min((n for n in limits if n is not None), default=None)
    low = _low(offer, call, 1 if output_max is None else min(1, output_max))
    counts = _expect(call, usual, low.tokens("output"), output_max)
    ceiling, unbounded = _ceiling(offer, call, output_max)
    told: Literal["history"] | None = "history" if isinstance(usual, Usual) else None
    return Estimate(
        offer=offer,
        low=low,
        expected=None if counts is None else rate_same(offer, counts),
        expected_from=told if call.output_tokens is None else "given",
        ceiling=ceiling,
        unbounded=unbounded,
        usual=usual,
        note=_note(offer, call),
    )


def _note(offer: Offer, call: PlannedCall) -> str | None:
    fits = offer.card.context_tokens_max
    if fits is None or call.input_tokens <= fits:
        return None
    return f"{offer.name} takes prompts of at most {fits:,} tokens"


def _rate(
    offer: Offer, counts: Mapping[Meter, Quantity], counted_as: Mapping[Meter, Meter]
) -> Rated:
    lines = rate_usage(counts, offer.card, tier=offer.terms.tier, region=offer.terms.region)
    cost = total_cost(lines, offer.card.currency)
    return Rated(lines=lines, cost=cost, counted_as=counted_as)


def _has_price(offer: Offer, meter: Meter, prompt: int) -> bool:
    tier, region = offer.terms.tier, offer.terms.region
    return offer.card.find_rate(meter, tier=tier, region=region, input_total=prompt) is not None


def _low(offer: Offer, call: PlannedCall, answer: int) -> Rated:
    # A model that answers with no tokens, such as one for embeddings, may have no price of them.
    reply: dict[Meter, Quantity] = {Meter.OUTPUT: answer} if answer else {}
    plain = _rate(offer, {Meter.INPUT: call.input_tokens, **reply}, {})
    cached = _rate(offer, {Meter.CACHE_READ: call.input_tokens, **reply}, {})
    return cached if cached.cost < plain.cost else plain


def _expect(
    call: PlannedCall, usual: Usual | NoHistory, answer_min: int, answer_max: int | None
) -> dict[Meter, Quantity] | None:
    calls = usual.calls if isinstance(usual, Usual) else NO_HISTORY
    if call.output_tokens is not None:
        answer = call.output_tokens
    elif isinstance(usual, Usual):
        answer = usual.output_tokens
    else:
        return None
    answer = max(answer, answer_min)
    if answer_max is not None:
        answer = min(answer, answer_max)
    return {
        **_share_out(call.input_tokens, calls.input_counts, Meter.INPUT),
        **_share_out(answer, calls.output_counts, Meter.OUTPUT),
    }


def _share_out(whole: int, weights: Mapping[Meter, int], plain: Meter) -> dict[Meter, Quantity]:
    """Cut a number of tokens in proportion, the remainder to the largest fractions first."""
    total = sum(weights.values())
    if not total:
        return {plain: whole} if whole else {}
    parts = {meter: divmod(whole * weight, total) for meter, weight in weights.items()}
    left = whole - sum(part for part, _ in parts.values())
    by_rest = sorted(parts, key=lambda meter: (-parts[meter][1], meter.value))
    counts = {meter: part + (meter in by_rest[:left]) for meter, (part, _) in parts.items()}
    return {meter: counts[meter] for meter in Meter if counts.get(meter)}


def _ceiling(
    offer: Offer, call: PlannedCall, output_max: int | None
) -> tuple[Rated | None, str | None]:
    is_text = call.input_tokens_max is not None
    reach = Reach(
        input_tokens_max=call.input_tokens_max,
        output_tokens_max=output_max,
        meters=_TEXT_METERS if is_text else INPUT_METERS | OUTPUT_METERS,
        fees={},
        tiers=frozenset({offer.terms.tier}),
        region=offer.terms.region,
    )
    try:
        lines = rate_ceiling(reach, offer.card)
    except (Unbounded, UnpricedSku) as gap:
        return None, str(gap)
    return Rated(lines=lines, cost=total_cost(lines, offer.card.currency), counted_as={}), None
