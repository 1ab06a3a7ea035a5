"""What a recorded test run costs: a file of calls, one JSON object a line, priced at one book.

Must never count a call of unknown size as free, nor price a line it does not understand.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec

from gateway.estimating import (
    TOKENS_MAX,
    Messages,
    NoSuchTier,
    Offer,
    Rated,
    Terms,
    estimate_call,
    make_offer,
    plan_call,
    rate_exactly,
    read_quantity,
    read_terms,
)
from gateway.usual import NoHistory
from pricing.book import Book
from pricing.meters import Meter
from pricing.money import Money
from pricing.rates import RateCard
from pricing.rating import UnpricedSku
from pricing.usage import Quantity

PROBLEMS_MAX: Final = 20
_UNBILLED: Final = "none"
_UNKNOWN: Final = "unknown"
_Tokens = Annotated[int, msgspec.Meta(ge=0, le=TOKENS_MAX)]
_NOT_ASKED: Final = NoHistory(why="a recorded run is priced without a ledger")

Basis = Literal["usage", "expected", "ceiling"]


class RunBroken(ValueError):
    """A recorded run that cannot be priced; ``problems`` names every line at fault.

    Attributes:
        problems: ``line N: what is wrong`` each, the first ``PROBLEMS_MAX``.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class CallRefused(ValueError):
    """A call of a run that cannot be priced; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What pricing a run needs.

    Attributes:
        book: The prices.
        now: Instant they hold at, for calls that name none.
        at: Instant they hold at for every call; ``None`` to let the calls say.
        find: Finds the card of a model by its name, its provider and an instant; raises
            ``CallRefused``.
        count: Counts the tokens of chat messages for a model; raises ``CallRefused``.
    """

    book: Book
    now: datetime
    at: datetime | None
    find: Callable[[str, str | None, datetime], RateCard]
    count: Callable[[Messages, str], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCall:
    """One priced call.

    Attributes:
        line: Where it stands in the file.
        id: Id of its record; ``None`` for a request that was not made.
        model: Catalog provider and model.
        basis: What was priced: counted usage, expected tokens, or the most it can be.
        rated: Its lines.
    """

    line: int
    id: str | None
    model: str
    basis: Basis
    rated: Rated


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTotal:
    """What a run costs.

    Attributes:
        calls: Calls priced.
        unbilled: Calls nobody bills: refused, or never begun.
        unknown: Calls of unknown size, which the cost does not hold.
        cost: Sum over the priced calls.
        models: Calls and cost by model, the dearest first.
        worst: The dearest calls, the dearest first.
    """

    calls: int
    unbilled: int
    unknown: int
    cost: Money
    models: Mapping[str, tuple[int, Money]]
    worst: tuple[RunCall, ...]


class _Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A call as ``POST /api/v1/estimates`` is asked about it."""

    model: str
    provider: str | None = None
    service_tier: str | None = None
    region: str | None = None
    batch: bool = False
    at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    usage: dict[Meter, int | str] | None = None
    input_tokens: _Tokens | None = None
    messages: list[dict[str, Any]] | None = None
    output_tokens: _Tokens | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1, le=TOKENS_MAX)] | None = None
    team: str | None = None
    project: str | None = None
    compare: list[str] = []


class _Line(msgspec.Struct, frozen=True):
    price_id: str


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """The part of an exported ledger record that decides its price."""

    id: str
    outcome: str
    basis: str
    provider: str | None
    model: str | None
    usage: dict[Meter, int | str]
    lines: list[_Line]
    corrects: str | None = None


class _Correction(msgspec.Struct, frozen=True):
    corrects: str | None = None
    usage: dict[Meter, int | str] | None = None


def price_run(
    read: Callable[[], Iterable[bytes]],
    tools: Tools,
    *,
    worst: int,
    step: Callable[[], None],
) -> RunTotal:
    """Price every call of a recorded run, in memory that does not grow with it.

    Args:
        read: Opens the file again and yields its lines: corrections are looked for first, because
            they stand behind what they correct.
        tools: Prices and how to find them.
        worst: How many of the dearest calls to keep.
        step: Called once for every line.

    Returns:
        The total.

    Raises:
        RunBroken: A line is no call, or cannot be priced; or there is none at all.
        OSError: The file cannot be read.
    """
    pricer = _Pricer(tools, _read_corrections(read()), worst)
    problems: list[str] = []
    for number, line in enumerate(read(), start=1):
        step()
        if not line.strip():
            continue
        try:
            pricer.add(number, line)
        except RecursionError:
            problems.append(f"line {number}: it is nested too deeply")
        except (UnpricedSku, NoSuchTier, ValueError) as refused:
            problems.append(f"line {number}: {refused}")
            if len(problems) >= PROBLEMS_MAX:
                break
    problems += [] if problems else pricer.find_orphans()
    if not problems and not pricer.has_seen_any:
        problems.append("it holds no call, which is no proof of a cheap one")
    if problems:
        raise RunBroken(problems)
    return pricer.total()


def _read_corrections(lines: Iterable[bytes]) -> dict[str, dict[Meter, Quantity]]:
    """Add up what later records say of earlier ones, by the id corrected."""
    decoder = msgspec.json.Decoder(_Correction)
    found: dict[str, dict[Meter, Quantity]] = {}
    for line in lines:
        try:
            record = decoder.decode(line) if b'"corrects"' in line else _Correction()
            if record.corrects is not None:
                sums = found.setdefault(record.corrects, {})
                for meter, amount in (record.usage or {}).items():
                    sums[meter] = sums.get(meter, 0) + _signed(meter, amount)
        except (ValueError, RecursionError):
            continue  # told when the line is priced, with its number
    return found


def _signed(meter: Meter, amount: int | str) -> Quantity:
    size = read_quantity(meter, str(amount).removeprefix("-"))
    return -size if str(amount).startswith("-") else size


class _Pricer:
    """Adds calls up as they are read."""

    def __init__(
        self, tools: Tools, corrections: Mapping[str, Mapping[Meter, Quantity]], worst: int
    ) -> None:
        self._tools = tools
        self._corrections = corrections
        self._pending = set(corrections)
        self._worst_max = worst
        self._worst: list[tuple[int, int, RunCall]] = []
        self._sums: dict[str, tuple[int, Money]] = {}
        self._unbilled = 0
        self._unknown = 0
        self._prices = {
            str(rate.price_id): (rate.provider, rate.model, rate.tier, rate.region)
            for rate in tools.book.rates
        }

    @property
    def has_seen_any(self) -> bool:
        """Whether there was a call at all."""
        return bool(self._sums or self._unbilled or self._unknown)

    def find_orphans(self) -> list[str]:
        """Name corrections of records the file does not hold."""
        return [
            f"a record corrects {missing}, which is not in the file"
            for missing in sorted(self._pending)[:PROBLEMS_MAX]
        ]

    def add(self, number: int, line: bytes) -> None:
        """Price one line; raises whatever says that it cannot be."""
        raw = msgspec.json.decode(line)
        if not isinstance(raw, dict):
            raise CallRefused("it is not a JSON object")
        if "outcome" in raw:
            self._add_record(number, msgspec.convert(raw, _Record))
        else:
            self._post(number, None, *self._price_request(msgspec.convert(raw, _Request)))

    def total(self) -> RunTotal:
        """Give the sums."""
        by_cost = sorted(self._sums.items(), key=lambda row: (-row[1][1].pico, row[0]))
        currency = by_cost[0][1][1].currency if by_cost else "USD"
        return RunTotal(
            calls=sum(calls for calls, _ in self._sums.values()),
            unbilled=self._unbilled,
            unknown=self._unknown,
            cost=sum((cost for _, cost in self._sums.values()), Money(0, currency)),
            models=dict(by_cost),
            worst=tuple(call for _, _, call in sorted(self._worst, key=lambda row: row[:2])[::-1]),
        )

    def _post(self, number: int, id_: str | None, offer: Offer, rated: Rated, basis: Basis) -> None:
        currency = rated.cost.currency
        if any(known.currency != currency for _, known in self._sums.values()):
            raise CallRefused(f"it is priced in {currency}, the calls before it are not")
        name = f"{offer.card.provider}/{offer.card.model}"
        calls, cost = self._sums.get(name, (0, Money(0, rated.cost.currency)))
        self._sums[name] = (calls + 1, cost + rated.cost)
        call = RunCall(line=number, id=id_, model=name, basis=basis, rated=rated)
        heapq.heappush(self._worst, (rated.cost.pico, -number, call))
        if len(self._worst) > self._worst_max:
            heapq.heappop(self._worst)

    def _add_record(self, number: int, record: _Record) -> None:
        if record.corrects is not None:
            return  # its usage is already part of the record it corrects
        self._pending.discard(record.id)
        change = self._corrections.get(record.id, {})
        if record.outcome == "refused" or (record.basis == _UNBILLED and not change):
            self._unbilled += 1
        elif record.basis == _UNKNOWN and not change:
            self._unknown += 1
        else:
            counts = {meter: read_quantity(meter, amount) for meter, amount in record.usage.items()}
            for meter, more in change.items():
                counts[meter] = counts.get(meter, 0) + more
            offer = self._offer_of(record)
            self._post(number, record.id, offer, rate_exactly(offer, counts), "usage")

    def _offer_of(self, record: _Record) -> Offer:
        """Find the prices of a record by the names of those it was booked at, so tiers are kept."""
        at = self._tools.at or self._tools.now
        if not record.lines:
            if record.model is None:
                raise CallRefused("the record names no model")
            card = self._tools.find(record.model, record.provider, at)
            return make_offer(card.provider, card.model, card, Terms())
        known = [self._prices[x.price_id] for x in record.lines if x.price_id in self._prices]
        if not known:
            version = self._tools.book.version.version
            raise CallRefused(f"price book {version} has no {record.lines[0].price_id}")
        provider, model, tier, _ = known[0]
        region = next((region for *_, region in known if region is not None), None)
        found = self._tools.book.find_card(provider, model, at)
        if found is None:
            raise CallRefused(f"{provider}/{model} has no price at {at.isoformat()}")
        return make_offer(provider, model, found, Terms(tier=tier, region=region))

    def _price_request(self, asked: _Request) -> tuple[Offer, Rated, Basis]:
        given = [x for x in ("usage", "input_tokens", "messages") if getattr(asked, x) is not None]
        if len(given) != 1:
            raise CallRefused("give one of usage, input_tokens and messages")
        terms = read_terms(asked.service_tier, asked.region, is_batch=asked.batch)
        at = self._tools.at or asked.at or self._tools.now
        card = self._tools.find(asked.model, asked.provider, at)
        offer = make_offer(card.provider, card.model, card, terms)
        if asked.usage is not None:
            counts: dict[Meter, Quantity] = {
                meter: read_quantity(meter, amount) for meter, amount in asked.usage.items()
            }
            return offer, rate_exactly(offer, counts), "usage"
        call = plan_call(
            (asked.input_tokens or 0) if asked.messages is None else asked.messages,
            lambda messages: self._tools.count(messages, asked.model),
            output_tokens=asked.output_tokens,
            output_tokens_max=asked.max_output_tokens,
        )
        estimate = estimate_call(offer, call, _NOT_ASKED)
        if estimate.expected is not None:
            return offer, estimate.expected, "expected"
        if estimate.ceiling is not None:
            return offer, estimate.ceiling, "ceiling"
        raise CallRefused(f"{estimate.unbounded}; give output_tokens or max_output_tokens")
