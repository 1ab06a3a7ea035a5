"""What a call of the past costs under another version of the price book. Pure.

Must never guess what a call was priced as, nor write anything but the difference.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Final, Literal, NamedTuple

import msgspec
from msgspec import UNSET

from gateway.clock import from_epoch_us
from gateway.ledger.corrected import PostedCall, PricedAs, Sums, posted_call
from gateway.ledger.lines import to_ledger_lines
from gateway.ledger.record import CostStatus, LedgerLine, LedgerRecord
from gateway.price_versions import PriceVersions
from pricing.agreements import Payer
from pricing.book import Book, BookBroken
from pricing.meters import Meter
from pricing.rates import RateCard
from pricing.rating import RatedLine, UnpricedSku
from pricing.served import Served, find_card_asked, find_card_served, is_snapshot_of, rate_served
from pricing.usage import Quantity

Reason = Literal[
    "usage_unknown",
    "provider_cost",
    "not_said",
    "not_derivable",
    "several_models",
    "no_price",
    "other_currency",
    "too_large",
]
REASONS: Final[Mapping[Reason, str]] = {
    "usage_unknown": "nobody knows what the call used",
    "provider_cost": "the provider itself said what the call costs",
    "not_said": "the record does not say what it was priced as",
    "not_derivable": "its own cost cannot be derived from the version it names",
    "several_models": "several models worked on it, each at a price of its own",
    "no_price": "the version has no price for what was used",
    "other_currency": "the version has its prices in another currency",
    "too_large": "the new cost is too large for the ledger",
}
_METERS: Final = {meter.value: meter for meter in Meter}
_NAMES: Final = {meter: meter.value for meter in Meter}
_RANKS: Final = {meter.value: place for place, meter in enumerate(Meter)}
_COST_PICO_MAX: Final = 2**63 - 1
_UNBILLED: Final = "none"
_UNKNOWN: Final = "unknown"
_REFUSED: Final = "refused"


class Left(NamedTuple):
    """A call that stays as it is because it cannot be priced.

    Attributes:
        reason: Why, as a name.
        detail: Why, in words, with what is missing.
    """

    reason: Reason
    detail: str


class Unbilled(NamedTuple):
    """A call that costs nothing under any version: refused, or never begun."""


class Repriced(NamedTuple):
    """A call with its price under a version.

    Attributes:
        priced: What it is priced as now.
        lines: Its lines.
        cost_pico: Their cost, in 10^-12 currency units.
        list_cost_pico: The same at published prices.
        sums: The same by meter.
        is_changed: Whether the ledger says something else.
    """

    priced: PricedAs
    lines: tuple[RatedLine, ...]
    cost_pico: int
    list_cost_pico: int
    sums: Sums
    is_changed: bool


Verdict = Repriced | Unbilled | Left
UNBILLED: Final = Unbilled()


class Rerater:
    """Prices calls of the past under one version.

    What a call comes to depends on its record and the version alone, not on corrections of its
    price in between: re-rating to one version after another ends at the last.
    """

    def __init__(self, versions: PriceVersions, version: str) -> None:
        """Choose the version.

        Args:
            versions: Where it is, and the versions that old records name.
            version: Its name.
        """
        self.version = version
        self._versions = versions
        self._books: dict[str, Book] = {}
        self._origins = _Origins(versions)

    def rate(self, call: PostedCall) -> Verdict:
        """Price a call.

        Args:
            call: As the ledger knows it.

        Returns:
            Its price and whether it changes, or why it has none.

        Raises:
            BookBroken: The version is broken.
            OSError: The version cannot be read.
        """
        if call.outcome == _REFUSED or (call.basis == _UNBILLED and not call.usage):
            return UNBILLED
        if call.basis == _UNKNOWN:
            return Left("usage_unknown", REASONS["usage_unknown"])
        if call.provider_cost_pico is not None:
            return Left("provider_cost", REASONS["provider_cost"])
        if not _adds_up(call):
            return Left("not_derivable", "the lines of the record do not add up to its cost")
        priced = call.priced or self._origins.find(call)
        if isinstance(priced, Left):
            return priced
        return self._reprice(call, priced)

    def _reprice(self, call: PostedCall, priced: PricedAs) -> Repriced | Left:
        book = self._books.get(priced.provider)
        if book is None:
            book = self._versions.find_book(self.version, priced.provider)
            self._books[priced.provider] = book
        try:
            served = _served(call, priced)
            card = _find_card(served, book)
            if card is None:
                name = f"{priced.provider}/{priced.model}"
                return Left("no_price", f"price book {self.version} has no price for {name}")
            if card.currency != call.currency:
                told = f"price book {self.version} has {card.model} in {card.currency}"
                return Left("other_currency", told)
            tier, lines = rate_served(_counts(call.usage), served, card)
        except (UnpricedSku, KeyError, ValueError) as gap:
            return Left("no_price", str(gap))
        sums: Sums = {}
        cost = listed = 0
        for line in lines:
            pair = (line.cost.pico, line.list_cost.pico)
            cost += pair[0]
            listed += pair[1]
            if pair != (0, 0):
                sums[_NAMES[line.meter]] = pair
        if max(cost, listed) > _COST_PICO_MAX:
            return Left("too_large", REASONS["too_large"])
        is_changed = call.cost_pico is None or sums != call.sums
        now = priced
        if (card.model, tier) != (priced.model, priced.tier):
            now = priced._replace(model=card.model, tier=tier)
        return Repriced(now, lines, cost, listed, sums, is_changed)


def _adds_up(call: PostedCall) -> bool:
    if call.cost_pico is None and call.list_cost_pico is None:
        return not call.sums
    cost = listed = 0
    for one, other in call.sums.values():
        cost += one
        listed += other
    return (cost, listed) == (call.cost_pico, call.list_cost_pico)


def _served(call: PostedCall, priced: PricedAs) -> Served:
    """What was served, as the record tells it."""
    asked, behind, model, tier = priced.asked, priced.behind, call.model, priced.tier
    if asked is None:
        # From before the record said what was asked for. What it was priced as stands for that, and
        # a name that is no snapshot of it is a deployment's, or belongs to another model.
        asked = priced.model
        if model is not None and not is_snapshot_of(model, (asked,)):
            model = None
    return Served(
        priced_as=priced.provider,
        asked=asked,
        behind=behind,
        model=model,
        tier=None if priced.tier_asked else tier,
        tier_asked=priced.tier_asked,
        region=priced.region,
        at=from_epoch_us(call.started_at_us),
        payer=Payer(call.organization, call.team, call.project),
        variants={_METERS[name]: make for name, make in priced.variants.items()},
    )


def _find_card(served: Served, book: Book) -> RateCard | None:
    return find_card_served(served, find_card_asked(served, book), book)[0]


def _counts(usage: Mapping[str, int | str]) -> dict[Meter, Quantity]:
    return {
        _METERS[name]: count if isinstance(count, int) else Decimal(count)
        for name, count in usage.items()
    }


class _Origins:
    """Finds what records that do not say so were priced as, by the names of their prices."""

    def __init__(self, versions: PriceVersions) -> None:
        self._versions = versions
        self._prices: dict[tuple[str, str], dict[str, PricedAs]] = {}
        self._found: dict[tuple[str, tuple[str, ...]], PricedAs | Left] = {}

    def find(self, call: PostedCall) -> PricedAs | Left:
        """Tell what a call was priced as, proved by deriving its own cost again."""
        if not call.price_ids or call.price_version is None:
            return Left("not_said", REASONS["not_said"])
        key = (call.price_version, call.price_ids)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = self._look_up(call, *key)
        if isinstance(found, Left) or self._is_proved(call, call.price_version, found):
            return found
        return Left("not_derivable", f"price book {call.price_version} makes another cost of it")

    def _look_up(
        self, call: PostedCall, version: str, price_ids: tuple[str, ...]
    ) -> PricedAs | Left:
        try:
            for provider in self._providers(call.provider):
                prices = self._prices_of(version, provider)
                if price_ids[0] in prices:
                    return _agree(prices, price_ids, call)
        except (BookBroken, OSError) as gone:
            return Left("not_derivable", f"price book {version} cannot be read: {gone}")
        return Left("not_derivable", f"price book {version} has no price {price_ids[0]}")

    def _providers(self, first: str | None) -> Iterable[str]:
        known = {p for one in self._versions.list_versions() for p in one.manifest.providers}
        return dict.fromkeys([*([first] if first else []), *sorted(known)])

    def _prices_of(self, version: str, provider: str) -> dict[str, PricedAs]:
        key = (version, provider)
        if key not in self._prices:
            book = self._versions.find_book(version, provider)
            self._prices[key] = {
                rate.price_id: PricedAs(
                    rate.provider,
                    rate.model,
                    rate.tier,
                    rate.region,
                    {_NAMES[rate.meter]: rate.variant} if rate.variant is not None else {},
                )
                for rate in book.rates
            }
        return self._prices[key]

    def _is_proved(self, call: PostedCall, version: str, priced: PricedAs) -> bool:
        book = self._versions.find_book(version, priced.provider)
        try:
            served = _served(call, priced)
            card = _find_card(served, book)
            if card is None:
                return False
            _, lines = rate_served(_counts(call.first_usage), served, card)
        except (UnpricedSku, KeyError, ValueError):
            return False
        sums = {_NAMES[line.meter]: (line.cost.pico, line.list_cost.pico) for line in lines}
        return {m: pair for m, pair in sums.items() if pair != (0, 0)} == call.first_sums


def _agree(
    prices: Mapping[str, PricedAs], price_ids: Iterable[str], call: PostedCall
) -> PricedAs | Left:
    found = [prices[name] for name in price_ids if name in prices]
    first = found[0]
    regions = {one.region for one in found} - {None}
    makes = {meter: make for one in found for meter, make in one.variants.items()}
    same = {(one.model, one.tier) for one in found}
    if len({one.model for one in found}) > 1:
        return Left("several_models", REASONS["several_models"])
    if len(same) > 1 or len(regions) > 1:
        return Left("not_derivable", f"the lines of {call.id} are of several tiers or regions")
    return first._replace(region=next(iter(regions), None), variants=makes)


class Author(NamedTuple):
    """Who corrects, and what marks it.

    Attributes:
        run_flag: Marks every correction of the run.
        why: Said in every correction.
        now_us: When, microseconds since 1970.
        mint: Makes ids.
    """

    run_flag: str
    why: str
    now_us: int
    mint: Callable[[], str]


def correct(
    record: LedgerRecord, corrections: tuple[LedgerRecord, ...], rerater: Rerater, author: Author
) -> LedgerRecord | None:
    """Write the correction that takes a call from what the ledger says to another version's prices.

    Args:
        record: The record to correct; it is no correction itself.
        corrections: Every correction of it so far.
        rerater: The version.
        author: Who corrects.

    Returns:
        A record of the differences alone; ``None`` when there are none, or the call cannot be
        priced. Its lines take back those that no longer hold and add those that do, so each is
        ``quantity * unit_price / per``, and their sum is the difference. Where the cost was not
        known before, the difference is the whole cost.
    """
    call = posted_call(record, corrections)
    verdict = rerater.rate(call)
    if not isinstance(verdict, Repriced) or not verdict.is_changed:
        return None
    lines = _differences((record, *corrections), call, verdict)
    status: CostStatus = "final" if call.basis == "reported" else "estimated"
    return LedgerRecord(
        id=author.mint(),
        started_at_us=record.started_at_us,
        ended_at_us=max(author.now_us, record.started_at_us),
        outcome=record.outcome,
        http_status=record.http_status,
        stream=record.stream,
        api=record.api,
        provider=record.provider,
        model_requested=record.model_requested,
        model=record.model,
        organization=record.organization,
        team=record.team,
        project=record.project,
        key=record.key,
        user=record.user,
        tags=record.tags,
        usage={},
        input_total=0,
        output_total=0,
        basis=call.basis,
        currency=record.currency,
        cost_pico=verdict.cost_pico - (call.cost_pico or 0),
        list_cost_pico=verdict.list_cost_pico - (call.list_cost_pico or 0),
        price_version=rerater.version,
        cost_status=status,
        lines=lines,
        corrects=record.id,
        flags=(author.run_flag, f"why: {author.why}"),
        priced_as=verdict.priced.provider,
        priced_model=verdict.priced.model,
        tier=verdict.priced.tier,
        region=verdict.priced.region or UNSET,
        variants=dict(verdict.priced.variants) or UNSET,
    )


def _differences(
    posted: Iterable[LedgerRecord], call: PostedCall, verdict: Repriced
) -> tuple[LedgerLine, ...]:
    """Lines that no longer hold, taken back, then the new ones, of the meters whose cost changes.

    Where the cost was not known, every line is new: also one that costs nothing.
    """
    before: Counter[LedgerLine] = Counter()
    for record in posted:
        for line in record.lines:
            if line.quantity.startswith("-"):
                before[_negated(line)] -= 1
            else:
                before[line] += 1
    after = Counter(to_ledger_lines(verdict.lines))
    meters = {line.meter for line in (*before, *after)}
    if call.cost_pico is not None:
        meters = {m for m in meters if call.sums.get(m) != verdict.sums.get(m)}
    change = Counter(after)
    change.subtract(before)
    back: list[LedgerLine] = []
    new: list[LedgerLine] = []
    for line, count in change.items():
        if line.meter in meters:
            (new if count > 0 else back).extend(
                [line if count > 0 else _negated(line)] * abs(count)
            )
    return (*sorted(back, key=_rank), *sorted(new, key=_rank))


def _rank(line: LedgerLine) -> int:
    return _RANKS.get(line.meter, len(_RANKS))


def _negated(line: LedgerLine) -> LedgerLine:
    quantity = line.quantity
    return msgspec.structs.replace(
        line,
        quantity=quantity[1:] if quantity.startswith("-") else f"-{quantity}",
        cost_pico=-line.cost_pico,
        list_cost_pico=-line.list_cost_pico,
    )
