"""What is paid whatever is called: reports of commitments, shared costs and GPUs of one's own.

Must never change a record: what is said here stands beside the ledger.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo

from gateway.clock import epoch_us, to_rfc3339
from gateway.directory import Directory
from gateway.directory_model import E
from gateway.directory_nouns import Nouns
from gateway.ledger.filters import RecordFilter
from gateway.ledger.quantities import UseQuery
from gateway.ledger.queries import Queries
from gateway.ledger.usage import UsageQuery
from gateway.settings import Settings
from gateway.settings_costs import to_commitment, to_deployment, to_shared_cost
from pricing.book import Book
from pricing.commitments import (
    PICO_PER_UNIT,
    TOKEN_UNIT,
    Coverage,
    MoneyPack,
    QuantityPack,
    Terms,
    Throughput,
    Use,
    find_horizon,
    find_step,
    from_pico,
)
from pricing.drawdown import Account, Day, account_for
from pricing.meters import INPUT_METERS, OUTPUT_METERS, Meter
from pricing.money import pico_to_text, round_to_pico
from pricing.months import Month, Span
from pricing.selfhosted import Deployment, Reality, TokenTerms, find_busy_us, gpu_cost
from pricing.sharing import Payers, Share, Split, split_cost

DAYS_MEASURED: Final = 30
_DAY: Final = timedelta(days=1)
# A call that began earlier than this before a span no longer lasts into it.
_CALL_MAX: Final = timedelta(days=1)
_PAGE_ROWS: Final = 500
T = TypeVar("T")
Watch = Callable[[], None]


def _unwatched() -> None:
    """Nobody wants to see progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentReport:
    """The commitments of one month.

    Attributes:
        month: In the calendar of each commitment's own zone.
        at: When it was made.
        accounts: One per commitment and period, in the order of the settings.
        unknown_requests: Calls any of them could cover whose use nobody knows; they are in none.
    """

    month: Month
    at: datetime
    accounts: tuple[Account, ...]
    unknown_requests: int


def report_commitments(
    settings: Settings,
    book: Book,
    queries: Queries,
    when: tuple[Month, datetime],
    watch: Watch = _unwatched,
) -> CommitmentReport:
    """Account for every commitment in one month.

    Args:
        settings: For the commitments.
        book: For the names of models.
        queries: The ledger.
        when: The month, and the time it is now.
        watch: Called with every row that is read.

    Returns:
        The report.

    Raises:
        StoreUnavailable: The database cannot be reached.
    """
    month, now = when
    commitments = [to_commitment(one, _namer(settings, book)) for one in settings.commitments]
    if not commitments:
        return CommitmentReport(month=month, at=now, accounts=(), unknown_requests=0)
    horizon = find_horizon(commitments, month)
    step = find_step(commitments, horizon)
    span = Span(horizon.start, max(horizon.start, min(horizon.end, now)))
    covers = tuple(commitment.covers for commitment in commitments)
    uses = queries.stream_uses(UseQuery(covers=covers, span=span, step=step))
    return CommitmentReport(
        month=month,
        at=now,
        accounts=account_for(commitments, _watched(uses, watch), month, now),
        unknown_requests=queries.count_unknown(covers, span),
    )


def _watched(rows: Iterable[T], watch: Watch) -> Iterator[T]:
    for row in rows:
        watch()
        yield row


def _namer(settings: Settings, book: Book) -> Callable[[str | None, str], frozenset[str]]:
    """Find every name of a model: what a call names and what is served need not be the same."""
    everywhere = {one.priced_as for one in settings.providers.values()} or book.providers

    def names_of(provider: str | None, model: str) -> frozenset[str]:
        one = None if provider is None else settings.providers.get(provider)
        catalogs = {one.priced_as} if one is not None else everywhere
        entries = [book.find_model(catalog, model) for catalog in catalogs]
        known = [(entry.model, *entry.aliases) for entry in entries if entry is not None]
        return frozenset({model}.union(*known))

    return names_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedReport:
    """One shared cost of one month, split.

    Attributes:
        split: Who bears how much.
        is_final: Whether the month is over.
        unknown_requests: Calls whose use nobody knows; they are in no share.
    """

    split: Split
    is_final: bool
    unknown_requests: int


def report_shared(
    settings: Settings,
    queries: Queries,
    payers: Mapping[Payers, Iterable[str]],
    month: Month,
    now: datetime,
) -> tuple[SharedReport, ...]:
    """Split the shared costs of one month.

    Args:
        settings: For the shared costs.
        queries: The ledger.
        payers: Ids of all teams and of all projects, so that those without use are listed too.
        month: In the calendar of each cost's own zone.
        now: Aware instant.

    Returns:
        One report per cost that is due in that month.

    Raises:
        StoreUnavailable: The database cannot be reached.
    """
    listed = {kind: tuple(ids) for kind, ids in payers.items()}
    found = []
    for cost in map(to_shared_cost, settings.shared_costs):
        if not cost.is_due(month):
            continue
        span = month.span(cost.zone)
        wanted = RecordFilter(
            from_us=epoch_us(span.start),
            to_us=epoch_us(span.end),
            provider=cost.provider,
            model=cost.model,
        )
        weights: dict[str | None, int] = {}
        unknown = 0
        for row in queries.usage(UsageQuery(wanted=wanted, group_by=(cost.payers,))):
            payer = row.group[cost.payers]
            if cost.measure == "tokens":
                weight = row.input_tokens + row.output_tokens
                unknown += row.unknown_usage_requests
            else:
                weight = row.cost_pico
                unknown += row.unknown_cost_requests
            # Refused calls have no team when their key was not known, and used nothing.
            if payer is not None or weight:
                weights[payer] = weights.get(payer, 0) + weight
        split = split_cost(cost, month, weights, listed[cost.payers])
        found.append(SharedReport(split=split, is_final=now >= span.end, unknown_requests=unknown))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostingReport:
    """A model on GPUs of one's own: what was assumed of it and what it really did.

    Attributes:
        deployment: The figures in force at the end of the span.
        reality: What was measured.
    """

    deployment: Deployment
    reality: Reality


def report_hosting(
    settings: Settings, queries: Queries, span: Span, watch: Watch = _unwatched
) -> tuple[HostingReport, ...]:
    """Measure the models on GPUs of one's own.

    Args:
        settings: For what they cost.
        queries: The ledger.
        span: Over which span of time.
        watch: Called with every row that is read.

    Returns:
        One report per model that was there in the span.

    Raises:
        StoreUnavailable: The database cannot be reached.
    """
    histories: dict[tuple[str, str], list[Deployment]] = {}
    for one in map(to_deployment, settings.self_hosted):
        if one.starts < span.end:
            histories.setdefault((one.provider, one.model), []).append(one)
    return tuple(
        _measure(sorted(history, key=lambda one: one.starts), queries, span, watch)
        for history in histories.values()
    )


def _measure(
    history: list[Deployment], queries: Queries, span: Span, watch: Watch
) -> HostingReport:
    newest = history[-1]
    there = Span(max(span.start, history[0].starts.astimezone(UTC)), span.end)
    covers = Coverage(
        provider=newest.provider,
        models=frozenset({newest.model, *newest.aliases}),
        meters=frozenset(Meter),
    )
    uses = list(_watched(queries.stream_uses(_whole_days(covers, there)), watch))
    earlier = Span(there.start - _CALL_MAX, there.end)
    spans = _watched(queries.stream_spans(covers, earlier), watch)
    reality = Reality(
        provider=newest.provider,
        model=newest.model,
        span=there,
        gpu_cost_pico=gpu_cost(history, there),
        busy_us=find_busy_us(spans, epoch_us(there.start), epoch_us(there.end)),
        input_tokens=_tokens(uses, INPUT_METERS),
        output_tokens=_tokens(uses, OUTPUT_METERS),
        output_weight=_weight_of(newest),
        billed_pico=sum(use.cost_pico or 0 for use in uses),
    )
    return HostingReport(deployment=newest, reality=reality)


def _whole_days(covers: Coverage, span: Span) -> UseQuery:
    return UseQuery(covers=(covers,), span=span, step=_DAY)


def _weight_of(deployment: Deployment) -> Decimal:
    terms = deployment.terms
    return terms.output_weight if isinstance(terms, TokenTerms) else Decimal(1)


def _tokens(uses: Iterable[Use], meters: frozenset[Meter]) -> int:
    return sum(use.quantity_pico for use in uses if use.meter in meters) // PICO_PER_UNIT


def list_payers(directory: Directory) -> Mapping[Payers, tuple[str, ...]]:
    """List who can bear a shared cost.

    Args:
        directory: Of teams and projects.

    Returns:
        Ids of all teams and of all projects, by what the settings call them.

    Raises:
        StoreUnavailable: The database cannot be reached.
    """
    return {"team": _ids(directory.teams), "project": _ids(directory.projects)}


def _ids(nouns: Nouns[E]) -> tuple[str, ...]:
    found: list[str] = []
    page = nouns.page(_PAGE_ROWS)
    found += [entity.id for entity in page.items]
    while page.next_cursor is not None:
        page = nouns.page(_PAGE_ROWS, page.next_cursor)
        found += [entity.id for entity in page.items]
    return tuple(found)


def month_of(now: datetime) -> Month:
    """Name the month a report is of when nobody says so.

    Args:
        now: Aware instant.

    Returns:
        The current month in UTC.
    """
    return Month.of(now, ZoneInfo("UTC"))


def kind_of(terms: Terms) -> str:
    """Name a kind of commitment.

    Args:
        terms: What was bought.

    Returns:
        ``quantity``, ``money`` or ``throughput``.
    """
    match terms:
        case QuantityPack():
            return "quantity"
        case MoneyPack():
            return "money"
        case Throughput():
            return "throughput"


def unit_text(account: Account) -> str:
    """Name the unit of an account.

    Args:
        account: Any.

    Returns:
        ``tokens``, a currency, or the unit of a meter.
    """
    unit = account.commitment.unit
    return "tokens" if unit == TOKEN_UNIT else unit


def permille_text(permille: int | None) -> str | None:
    """Write tenths of a percent.

    Args:
        permille: Parts of 1,000; ``None`` when there is no whole.

    Returns:
        Text such as ``12.5``.
    """
    return None if permille is None else f"{permille // 10}.{permille % 10}"


def commitments_to_public(report: CommitmentReport) -> dict[str, Any]:
    """Write a report the way the API shows it.

    Args:
        report: Any.

    Returns:
        Plain data; money and quantities as decimal text, exact, and unknown as ``None``.
    """
    accounts = report.accounts
    saving = sum(account.saving_pico for account in accounts)
    return {
        "month": str(report.month),
        "at": _instant(report.at),
        "unknown_usage_requests": report.unknown_requests,
        "amortized_fee": pico_to_text(sum(account.amortised_pico for account in accounts)),
        "on_demand_cost": pico_to_text(sum(account.on_demand_pico for account in accounts)),
        "overflow_cost": pico_to_text(sum(account.overflow_cost_pico for account in accounts)),
        "saving": pico_to_text(saving),
        "items": [_account_to_public(account) for account in accounts],
    }


def _account_to_public(account: Account) -> dict[str, Any]:
    projected = account.projected_at
    effective = account.effective_pico
    return {
        "id": account.commitment.id,
        "kind": kind_of(account.commitment.terms),
        "unit": unit_text(account),
        "period_start": _instant(account.period.start),
        "period_end": _instant(account.period.end),
        "as_of": _instant(account.as_of),
        "committed": _quantity(account.committed),
        "used": _quantity(account.used),
        "unused": _quantity(account.unused),
        "overflow": _quantity(account.overflow),
        "used_percent": permille_text(account.used_permille),
        "currency": account.commitment.currency,
        "fee": pico_to_text(account.fee_pico),
        "fee_per_hour": pico_to_text(account.hour_pico),
        "fee_per_day": pico_to_text(account.day_pico),
        "amortized_fee": pico_to_text(account.amortised_pico),
        "on_demand_cost": pico_to_text(account.on_demand_pico),
        "saving": pico_to_text(account.saving_pico),
        "overflow_cost": pico_to_text(account.overflow_cost_pico),
        "unpriced_quantity": _quantity(account.unpriced_quantity),
        "effective_price": None if effective is None else pico_to_text(effective),
        "effective_per": None if effective is None else str(account.effective_per),
        "exhausted_at": None if account.exhausted_at is None else _instant(account.exhausted_at),
        "projected_at": None if projected is None else _instant(projected),
        "lasts": account.exhausted_at is None
        and (projected is None or projected >= account.period.end),
        "days": [_day_to_public(day) for day in account.days],
    }


def _day_to_public(day: Day) -> dict[str, Any]:
    return {
        "day": day.day.isoformat(),
        "used": _quantity(day.used),
        "on_demand_cost": pico_to_text(day.on_demand_pico),
        "amortized_fee": pico_to_text(day.amortised_pico),
        "left": None if day.left is None else _quantity(day.left),
    }


def shared_to_public(reports: Iterable[SharedReport], month: Month) -> dict[str, Any]:
    """Write split costs the way the API shows them.

    Args:
        reports: Of one month.
        month: That month.

    Returns:
        Plain data; money as decimal text, exact.
    """
    return {
        "month": str(month),
        "items": [
            {
                "id": report.split.cost.id,
                "amount": pico_to_text(report.split.cost.amount_pico),
                "currency": "USD",
                "split_by": report.split.cost.measure,
                "among": report.split.cost.payers,
                "is_final": report.is_final,
                "unallocated": pico_to_text(report.split.unallocated_pico),
                "unknown_requests": report.unknown_requests,
                "shares": [_share_to_public(share, report.split) for share in report.split.shares],
            }
            for report in reports
        ],
    }


def _share_to_public(share: Share, split: Split) -> dict[str, Any]:
    is_money = split.cost.measure == "cost"
    return {
        "id": share.payer,
        "used": pico_to_text(share.weight) if is_money else str(share.weight),
        "percent": permille_text(share_permille(share, split)),
        "amount": pico_to_text(share.amount_pico),
    }


def share_permille(share: Share, split: Split) -> int | None:
    """Tell how large a share is.

    Args:
        share: One of the split's.
        split: The split.

    Returns:
        Parts of 1,000; ``None`` when nobody used anything.
    """
    whole = sum(one.weight for one in split.shares)
    return round_to_pico(share.weight * 1000, whole) if whole else None


def hosting_to_public(report: HostingReport) -> dict[str, Any]:
    """Write what a model of one's own really cost the way ``--json`` shows it.

    Args:
        report: Any.

    Returns:
        Plain data; money and figures as decimal text, and ``None`` where nothing was measured.
    """
    real, terms = report.reality, report.deployment.terms
    assumed: dict[str, str | None] = {"priced_by": "gpu_second"}
    if isinstance(terms, TokenTerms):
        assumed = {
            "priced_by": "tokens",
            "tokens_per_s": f"{terms.tokens_per_s:f}",
            "utilization": f"{terms.utilization:f}",
            "output_weight": f"{terms.output_weight:f}",
            "output_share": f"{terms.output_share:f}",
        }
    figures = (real.tokens_per_s, real.utilization, real.output_share)
    prices = (real.blended_pico, real.input_pico, real.output_pico)
    names = ("price_per_million", "input_price_per_million", "output_price_per_million")
    return {
        "provider": real.provider,
        "model": real.model,
        "gpus": report.deployment.gpus,
        "gpu_hour": f"{report.deployment.gpu_hour:f}",
        "from": _instant(real.span.start),
        "to": _instant(real.span.end),
        "assumed": assumed,
        "measured": dict(
            zip(("tokens_per_s", "utilization", "output_share"), map(_text, figures), strict=True)
        ),
        "busy_seconds": f"{real.busy_us // 10**6}.{real.busy_us % 10**6:06d}",
        "input_tokens": real.input_tokens,
        "output_tokens": real.output_tokens,
        "currency": "USD",
        "gpu_cost": pico_to_text(real.gpu_cost_pico),
        "billed": pico_to_text(real.billed_pico),
        "unrecovered": pico_to_text(real.unrecovered_pico),
        **{
            name: None if pico is None else pico_to_text(pico)
            for name, pico in zip(names, prices, strict=True)
        },
    }


def _text(figure: Decimal | None) -> str | None:
    return None if figure is None else f"{figure:f}"


def _quantity(pico: int) -> str:
    return f"{from_pico(pico):f}"


def _instant(at: datetime) -> str:
    return to_rfc3339(epoch_us(at))
