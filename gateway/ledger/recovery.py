"""What happens to a journal at start, before the first call: open calls end, records are shipped.

Must never guess that an open call cost nothing.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from msgspec import UNSET

from gateway.clock import SystemClock, from_epoch_us
from gateway.ledger.errors import LedgerConflict, StoreUnavailable
from gateway.ledger.journal import Fsync, Journal
from gateway.ledger.lines import to_ledger_lines
from gateway.ledger.record import CostStatus, Intent, LedgerLine, LedgerRecord
from gateway.ledger.shipper import LedgerSink, Shipper
from pricing.agreements import Payer
from pricing.book import Book, BookBroken, load_book
from pricing.meters import INPUT_METERS, OUTPUT_METERS, Meter
from pricing.rating import UnpricedSku, rate_usage
from pricing.usage import Basis

STOPPED_FLAG: Final = "ceiling: the gateway stopped before this call was settled"


# Finds a book by the name of its version, with the prices of a catalog provider at least.
FindBook = Callable[[str, str], Book]


@lru_cache(maxsize=4)
def find_shipped_book(version: str, provider: str) -> Book:
    """Find a version among those that are installed.

    Args:
        version: Its name.
        provider: Catalog provider whose prices are needed.

    Returns:
        The book, with the prices of that provider alone.

    Raises:
        BookBroken: It is not installed any more, or was edited.
    """
    return load_book(version, providers=[provider])


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryReport:
    """What recovery found and did.

    Attributes:
        aborted: Calls that were open and are now ``aborted`` records.
        records_shipped: Records brought to the ledger, repeated ones included.
        torn_bytes: Bytes of an entry that was being written when the last process died.
        damaged_files: Copies of segments that are not readable in full; a person should look.
        store_trouble: Why the ledger does not hold everything yet; ``None`` when it does.
    """

    aborted: int
    records_shipped: int
    torn_bytes: int
    damaged_files: tuple[Path, ...]
    store_trouble: str | None


def recover(
    journal_dir: Path,
    sink: LedgerSink,
    *,
    now_us: int,
    fsync: Fsync = "normal",
    find_book: FindBook = find_shipped_book,
) -> tuple[Journal, RecoveryReport]:
    """Take a journal over and put everything in it where it belongs.

    Args:
        journal_dir: Made if it is not there.
        sink: The ledger. When it is down the records stay in the journal, to be shipped later.
        now_us: Microseconds since 1970.
        fsync: As for ``Journal.open``.
        find_book: Finds the book a call was admitted under.

    Returns:
        The journal, in which no call is open, and what was done.

    Raises:
        JournalInUse: Another process has it.
        JournalBroken: It cannot be read or written.
        JournalFull: The disk is too full to write down how the open calls ended.
    """
    journal = Journal.open(journal_dir, fsync=fsync)
    with ExitStack() as undo:
        undo.callback(journal.close)
        report = recover_journal(journal, sink, now_us=now_us, find_book=find_book)
        undo.pop_all()
    return journal, report


def recover_journal(
    journal: Journal,
    sink: LedgerSink,
    *,
    now_us: int,
    find_book: FindBook = find_shipped_book,
) -> RecoveryReport:
    """Do the same with a journal just opened.

    Args:
        journal: No call of this process is in it yet.
        sink: The ledger.
        now_us: Microseconds since 1970.
        find_book: As for ``recover``.

    Returns:
        What was done.

    Raises:
        JournalBroken: It cannot be written, or an intent in it is not known.
        JournalFull: Likewise, for lack of room.
    """
    intents = journal.open_intents()
    for intent in intents:
        journal.append_record(end_aborted(intent, now_us, find_book))
    shipper = Shipper(journal, sink, SystemClock())
    trouble = None
    try:
        shipper.ship_pending()
    except (StoreUnavailable, LedgerConflict, OSError) as error:
        trouble = str(error)
    return RecoveryReport(
        aborted=len(intents),
        records_shipped=shipper.records_shipped,
        torn_bytes=journal.torn_bytes,
        damaged_files=tuple(sorted({*journal.damaged_files, *shipper.damaged_files})),
        store_trouble=trouble,
    )


def end_aborted(
    intent: Intent, now_us: int, find_book: FindBook = find_shipped_book
) -> LedgerRecord:
    """Write the record of a call that nothing is known of after it was accepted.

    Args:
        intent: What was about to be sent.
        now_us: Microseconds since 1970.
        find_book: As for ``recover``.

    Returns:
        A record of the most the call can have come to; unknown, never zero, where that is unknown.
    """
    bound = _bound_of(intent, find_book)
    return LedgerRecord(
        id=intent.id,
        started_at_us=intent.started_at_us,
        ended_at_us=max(now_us, intent.started_at_us),
        outcome="aborted",
        http_status=None,
        stream=intent.stream,
        api=intent.api,
        provider=intent.provider,
        model_requested=intent.model_requested,
        model=_asked(intent),
        organization=intent.organization,
        team=intent.team,
        project=intent.project,
        key=intent.key,
        user=intent.user,
        tags=intent.tags,
        usage=intent.bound_usage,
        input_total=bound.input_total,
        output_total=bound.output_total,
        basis=bound.basis,
        currency=intent.currency,
        cost_pico=bound.cost_pico,
        list_cost_pico=bound.list_cost_pico,
        price_version=intent.price_version,
        cost_status=bound.cost_status,
        lines=bound.lines,
        flags=(STOPPED_FLAG,),
        ceiling_pico=intent.ceiling_pico,
        ceiling_tokens=intent.ceiling_tokens,
        priced_as=intent.priced_as or UNSET,
        priced_model=_priced_model(intent) if intent.priced_as else UNSET,
        tier=intent.bound_tier or UNSET,
        region=intent.bound_region or UNSET,
        variants=intent.bound_variants or UNSET,
        model_asked=intent.model_asked or UNSET,
        model_behind=intent.model_behind or UNSET,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bound:
    basis: Basis
    cost_status: CostStatus
    input_total: int | None = None
    output_total: int | None = None
    cost_pico: int | None = None
    list_cost_pico: int | None = None
    lines: tuple[LedgerLine, ...] = ()


def _bound_of(intent: Intent, find_book: FindBook) -> _Bound:
    if not intent.bound_usage:
        return _Bound(basis=Basis.UNKNOWN, cost_status="unknown")
    lines = rate_bound(intent, find_book)
    return _Bound(
        basis=Basis.ESTIMATED,
        cost_status="estimated" if lines else "unpriced",
        input_total=_sum_tokens(intent.bound_usage, INPUT_METERS),
        output_total=_sum_tokens(intent.bound_usage, OUTPUT_METERS),
        cost_pico=sum(line.cost_pico for line in lines) if lines else None,
        list_cost_pico=sum(line.list_cost_pico for line in lines) if lines else None,
        lines=lines,
    )


def rate_bound(intent: Intent, find_book: FindBook = find_shipped_book) -> tuple[LedgerLine, ...]:
    """Price the most a call can have come to, with the book it was admitted under.

    Args:
        intent: What was about to be sent.
        find_book: As for ``recover``.

    Returns:
        Rated lines; none when the call had no price, or its book is not installed any more.
    """
    if not intent.bound_tier or intent.price_version is None:
        return ()
    try:
        card = find_book(intent.price_version, intent.priced_as).find_card(
            intent.priced_as,
            _priced_model(intent),
            from_epoch_us(intent.started_at_us),
            Payer(intent.organization, intent.team, intent.project),
        )
        if card is None:
            return ()
        counts = {Meter(name): int(count) for name, count in intent.bound_usage.items()}
        lines = rate_usage(
            counts,
            card,
            tier=intent.bound_tier,
            region=intent.bound_region,
            variants={Meter(name): make for name, make in intent.bound_variants.items()},
        )
    except (BookBroken, UnpricedSku):
        return ()
    return to_ledger_lines(lines)


def _asked(intent: Intent) -> str:
    # Intents from before ``model_asked`` say what the client wrote, with the provider or without.
    return intent.model_asked or intent.model_requested.removeprefix(f"{intent.provider}/")


def _priced_model(intent: Intent) -> str:
    return intent.priced_model or intent.model_behind or _asked(intent)


def _sum_tokens(usage: Mapping[str, int | str], meters: frozenset[Meter]) -> int:
    return sum(int(count) for meter, count in usage.items() if meter in meters)
