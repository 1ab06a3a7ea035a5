"""Calls whose use is told again, or only later: what is known of them, and what is still to add.

Must never let one use be metered twice, nor take an estimate for the last word.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final, NamedTuple, Protocol

import msgspec

from gateway.ledger.record import LedgerLine, LedgerRecord
from pricing.meters import Meter

# Ids that are remembered; what falls out is looked up in the ledger.
KNOWN_MAX: Final = 16_384
_REPORTED: Final = "reported"
_UNKNOWN: Final = "unknown"
_RANKS: Final = {meter.value: place for place, meter in enumerate(Meter)}


class Records(Protocol):
    """The ledger, as far as earlier calls need it; raises ``StoreUnavailable``."""

    async def find_metered(self, provider: str, request_id: str) -> LedgerRecord | None:
        """Look up the call that was metered under a provider's own id."""
        ...

    async def find_corrections(self, record_id: str) -> tuple[LedgerRecord, ...]:
        """Look up every correction of a record, the oldest first."""
        ...


class Queries(Protocol):
    """The ledger as it is read, which takes its time."""

    def find_metered(self, provider: str, request_id: str) -> LedgerRecord | None:
        """Look up the call that was metered under a provider's own id."""
        ...

    def find_corrections(self, record_id: str) -> tuple[LedgerRecord, ...]:
        """Look up every correction of a record, the oldest first."""
        ...


class LedgerRecords:
    """The ledger, asked in a thread."""

    def __init__(
        self, queries: Queries, catch_up: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        """Prepare.

        Args:
            queries: The ledger.
            catch_up: Brings what other workers have journalled to the ledger; ``None`` where there
                are none.
        """
        self._queries = queries
        self._catch_up = catch_up

    async def find_metered(self, provider: str, request_id: str) -> LedgerRecord | None:
        """Look up the call that was metered under a provider's own id.

        Args:
            provider: Provider id of the configuration.
            request_id: The id.

        Returns:
            Its record; ``None`` when there is none.

        Raises:
            StoreUnavailable: The ledger cannot be asked.
        """
        if self._catch_up is not None:
            await self._catch_up()
        return await asyncio.to_thread(self._queries.find_metered, provider, request_id)

    async def find_corrections(self, record_id: str) -> tuple[LedgerRecord, ...]:
        """Look up every correction of a record.

        Args:
            record_id: Its id.

        Returns:
            The corrections, the oldest first.

        Raises:
            StoreUnavailable: The ledger cannot be asked.
        """
        return await asyncio.to_thread(self._queries.find_corrections, record_id)


class NoRecords:
    """A ledger that knows nothing."""

    async def find_metered(self, provider: str, request_id: str) -> LedgerRecord | None:
        """Look up the call that was metered under a provider's own id.

        Args:
            provider: Provider id of the configuration.
            request_id: The id.

        Returns:
            Nothing.
        """
        return None

    async def find_corrections(self, record_id: str) -> tuple[LedgerRecord, ...]:
        """Look up every correction of a record.

        Args:
            record_id: Its id.

        Returns:
            Nothing.
        """
        return ()


class Posted(NamedTuple):
    """An earlier call as the ledger has it.

    Attributes:
        record: Its record.
        corrections: Every correction of it, the oldest first.
    """

    record: LedgerRecord
    corrections: tuple[LedgerRecord, ...] = ()

    @property
    def is_final(self) -> bool:
        """Whether what the provider itself reported has been booked."""
        basis = self.record.basis
        for one in self.corrections:
            if one.input_total is not None and one.basis != _UNKNOWN:
                basis = one.basis
        return basis == _REPORTED

    @property
    def cost_pico(self) -> int | None:
        """What was booked, in 10^-12 currency units; ``None`` where it is not known."""
        return _sum([one.cost_pico for one in (self.record, *self.corrections)])

    @property
    def tokens(self) -> int | None:
        """Tokens booked, of both directions; ``None`` where they are not known."""
        return _sum(
            [
                None if one.input_total is None else one.input_total + (one.output_total or 0)
                for one in (self.record, *self.corrections)
            ]
        )


class Metered:
    """What has been metered under a provider's own id."""

    def __init__(self, records: Records, known_max: int = KNOWN_MAX) -> None:
        """Begin with what the ledger knows.

        Args:
            records: The ledger.
            known_max: Ids that are remembered.
        """
        self._records = records
        self._known_max = known_max
        # The record of a call whose use is not final; ``None`` for what needs no more.
        self._known: OrderedDict[tuple[str, str], LedgerRecord | None] = OrderedDict()

    def note(self, record: LedgerRecord, *, is_final: bool = False) -> None:
        """Take note that something was metered.

        Args:
            record: Of a call whose answer can be delivered again.
            is_final: Whether nothing is to be added, whatever the record says.
        """
        if record.provider is None or record.provider_request_id is None or record.basis == "none":
            return
        known = self._known
        key = (record.provider, record.provider_request_id)
        known[key] = None if is_final or record.basis == _REPORTED else record
        known.move_to_end(key)
        if len(known) > self._known_max:
            known.popitem(last=False)

    def is_final(self, provider: str, request_id: str) -> bool:
        """Tell whether nothing is to be added to what is remembered.

        Args:
            provider: Provider id of the configuration.
            request_id: The provider's own id.

        Returns:
            True for an id that was noted as final and has not been forgotten.
        """
        return self._known.get((provider, request_id), ...) is None

    async def find(self, provider: str, request_id: str) -> Posted | None:
        """Find what was metered under an id.

        Args:
            provider: Provider id of the configuration.
            request_id: The provider's own id.

        Returns:
            The call as it stands; ``None`` when nothing was metered under it here.

        Raises:
            StoreUnavailable: The ledger cannot be asked.
        """
        record = self._known.get((provider, request_id))
        if record is None:
            record = await self._records.find_metered(provider, request_id)
        if record is None:
            return None
        return Posted(record, await self._records.find_corrections(record.id))


def complete(posted: Posted, truth: LedgerRecord, correction_id: str) -> LedgerRecord:
    """Write the correction that takes a call from what was booked to what it came to.

    Args:
        posted: The call as the ledger has it.
        truth: The record it would have had, had its use been known.
        correction_id: Id of the correction.

    Returns:
        A record of the signed differences alone. Its lines take back those that do not hold and
        add those that do. What was not known before is the whole of the truth.
    """
    before = (posted.record, *posted.corrections)
    known = [one for one in before if one.input_total is not None and one.basis != _UNKNOWN]
    return msgspec.structs.replace(
        truth,
        id=correction_id,
        seq=0,
        api=posted.record.api,
        usage=_minus(truth.usage, [one.usage for one in known]),
        input_total=_difference(truth.input_total, [one.input_total for one in known]),
        output_total=_difference(truth.output_total, [one.output_total for one in known]),
        cost_pico=_difference(truth.cost_pico, [one.cost_pico for one in before]),
        list_cost_pico=_difference(truth.list_cost_pico, [one.list_cost_pico for one in before]),
        lines=_differences(before, truth.lines),
        corrects=posted.record.id,
    )


def _sum(amounts: Iterable[int | None]) -> int | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None


def _difference(now: int | None, before: Iterable[int | None]) -> int | None:
    return None if now is None else now - sum(one for one in before if one is not None)


def _minus(
    now: Mapping[str, int | str], before: Iterable[Mapping[str, int | str]]
) -> dict[str, int | str]:
    left = {meter: Decimal(count) for meter, count in now.items()}
    for usage in before:
        for meter, count in usage.items():
            left[meter] = left.get(meter, Decimal(0)) - Decimal(count)
    return {
        meter: int(left[meter]) if left[meter] == int(left[meter]) else f"{left[meter]:f}"
        for meter in sorted(left, key=_rank)
        if left[meter]
    }


def _differences(
    before: Sequence[LedgerRecord], now: Iterable[LedgerLine]
) -> tuple[LedgerLine, ...]:
    change = Counter(now)
    for record in before:
        for line in record.lines:
            if line.quantity.startswith("-"):
                change[_negated(line)] += 1
            else:
                change[line] -= 1
    back: list[LedgerLine] = []
    new: list[LedgerLine] = []
    for line, count in change.items():
        (new if count > 0 else back).extend([line if count > 0 else _negated(line)] * abs(count))
    return (
        *sorted(back, key=lambda line: _rank(line.meter)),
        *sorted(new, key=lambda line: _rank(line.meter)),
    )


def _rank(meter: str) -> int:
    return _RANKS.get(meter, len(_RANKS))


def _negated(line: LedgerLine) -> LedgerLine:
    quantity = line.quantity
    return msgspec.structs.replace(
        line,
        quantity=quantity[1:] if quantity.startswith("-") else f"-{quantity}",
        cost_pico=-line.cost_pico,
        list_cost_pico=-line.list_cost_pico,
    )
