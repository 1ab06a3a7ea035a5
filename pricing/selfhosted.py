"""Self-hosted models: prices from what the GPUs cost, and what the tokens really cost.

Must never price below cost: a derived price is rounded up, never down.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from pricing.book import Book, ModelEntry, describe_version, digest_of
from pricing.meters import Meter
from pricing.money import round_to_pico
from pricing.months import Span
from pricing.rates import AMOUNT_DECIMALS_MAX, Rate
from pricing.sku import STANDARD_TIER

_PER_TOKENS: Final = 10**6
_SECONDS_PER_HOUR: Final = 3600
_SMALLEST: Final = 10**AMOUNT_DECIMALS_MAX
_PICO: Final = 10**12
_TICK: Final = timedelta(microseconds=1)
_DIGEST_CHARS: Final = 8
_LOCAL: Final = "+local."


class DeploymentRefused(ValueError):
    """A deployment that cannot be priced; the text says what to write instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTerms:
    """What a price per token is derived from.

    Attributes:
        tokens_per_s: Input and output tokens together, in a second in which it is busy.
        utilization: Percent of the paid time in which it is busy.
        output_weight: How many input tokens one output token takes as long as.
        output_share: Percent of the tokens that are output.
    """

    tokens_per_s: Decimal
    utilization: Decimal
    output_weight: Decimal
    output_share: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeTerms:
    """Priced by the GPU second: tokens are counted and cost nothing of their own."""


Terms = TokenTerms | TimeTerms


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A model on GPUs of one's own, from a day on.

    Attributes:
        provider: Provider id of the configuration, under which it is priced.
        model: Its name there.
        aliases: Other names it answers to.
        gpus: GPUs it runs on.
        gpu_hour: What one of them costs an hour, in US dollars.
        starts: First instant these figures hold; aware.
        terms: How its price is derived.
        context_tokens_max: Most tokens of a prompt; ``None`` when not known.
        output_tokens_max: Most tokens of an answer; ``None`` when not known.
    """

    provider: str
    model: str
    aliases: tuple[str, ...] = ()
    gpus: int
    gpu_hour: Decimal
    starts: datetime
    terms: Terms
    context_tokens_max: int | None = None
    output_tokens_max: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no price follows from.

        Raises:
            DeploymentRefused: Naming the deployment and the figure that is out of range.
        """
        self._check(self.gpus >= 1, "needs at least one GPU")
        self._check(self.gpu_hour >= 0, "the price of a GPU hour is negative")
        decimals = -int(self.gpu_hour.as_tuple().exponent)
        self._check(decimals <= AMOUNT_DECIMALS_MAX, "the price of a GPU hour is too fine")
        if isinstance(self.terms, TokenTerms):
            terms = self.terms
            self._check(terms.tokens_per_s > 0, "tokens_per_s must be more than 0")
            self._check(0 < terms.utilization <= 100, "utilization is a percentage above 0")
            self._check(terms.output_weight > 0, "output_weight must be more than 0")
            self._check(0 <= terms.output_share <= 100, "output_share is a percentage")

    def _check(self, is_right: bool, wrong: str) -> None:
        if not is_right:
            raise DeploymentRefused(f"{self.provider}/{self.model}: {wrong}")

    @property
    def hour_cost(self) -> Fraction:
        """What it costs an hour, busy or not, in US dollars."""
        return Fraction(self.gpu_hour) * self.gpus


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPrices:
    """Prices of one's own, ready to be laid beside a published book.

    Attributes:
        models: One entry per provider and model.
        rates: Dated rates.
    """

    models: tuple[ModelEntry, ...]
    rates: tuple[Rate, ...]


def derive_prices(deployments: Iterable[Deployment]) -> OwnPrices:
    """Derive prices from what deployments cost.

    Args:
        deployments: In any order; several of one model follow each other in time.

    Returns:
        Rates for input and output tokens, or for GPU seconds, whose source says how they were
        derived. The newest deployment of a model says its names and limits.

    Raises:
        DeploymentRefused: Two of one model start at the same instant.
    """
    models, rates = [], []
    for history in _histories(deployments).values():
        newest = history[-1]
        models.append(
            ModelEntry(
                provider=newest.provider,
                model=newest.model,
                aliases=newest.aliases,
                context_tokens_max=newest.context_tokens_max,
                output_tokens_max=newest.output_tokens_max,
            )
        )
        ends = [*(later.starts for later in history[1:]), None]
        for deployment, end in zip(history, ends, strict=True):
            rates += _rates_of(deployment, end)
    return OwnPrices(models=tuple(models), rates=tuple(rates))


def _histories(
    deployments: Iterable[Deployment],
) -> Mapping[tuple[str, str], list[Deployment]]:
    histories: dict[tuple[str, str], list[Deployment]] = defaultdict(list)
    for deployment in sorted(deployments, key=lambda d: (d.provider, d.model, d.starts)):
        histories[deployment.provider, deployment.model].append(deployment)
    for history in histories.values():
        for earlier, later in pairwise(history):
            if earlier.starts == later.starts:
                raise DeploymentRefused(
                    f"{later.provider}/{later.model}: is there twice from "
                    f"{later.starts.isoformat()}; give one of them another start"
                )
    return histories


def _rates_of(deployment: Deployment, end: datetime | None) -> list[Rate]:
    source = explain(deployment)
    prices: dict[Meter, tuple[Decimal, int]]
    match deployment.terms:
        case TimeTerms():
            # Tokens of a call are still counted, and what is counted needs a price: that of time.
            nothing = (Decimal(0), _PER_TOKENS)
            gpu_second = (deployment.gpu_hour, _SECONDS_PER_HOUR)
            prices = {
                Meter.INPUT: nothing,
                Meter.OUTPUT: nothing,
                Meter.CACHE_WRITE: nothing,
                Meter.GPU_SECOND: gpu_second,
            }
        case TokenTerms() as terms:
            each = token_price(deployment.hour_cost, terms)
            input_price = _round_up(each)
            prices = {
                Meter.INPUT: (input_price, _PER_TOKENS),
                Meter.OUTPUT: (_round_up(each * Fraction(terms.output_weight)), _PER_TOKENS),
                Meter.CACHE_WRITE: (input_price, _PER_TOKENS),
            }
    return [
        Rate(
            provider=deployment.provider,
            model=deployment.model,
            meter=meter,
            amount=amount,
            per=per,
            currency="USD",
            valid_from=deployment.starts,
            valid_to=end,
            tier=STANDARD_TIER,
            source=source,
            checked_at=deployment.starts.date(),
        )
        for meter, (amount, per) in prices.items()
    ]


def token_price(hour_cost: Fraction, terms: TokenTerms) -> Fraction:
    """Work out what a million input tokens have to cost.

    Args:
        hour_cost: What the GPUs cost an hour.
        terms: Throughput and utilisation.

    Returns:
        The price at which an hour of tokens, mixed as stated, pays for the hour; exact. Output
        tokens cost ``output_weight`` times as much.
    """
    share = Fraction(terms.output_share) / 100
    weighted = (1 - share) + share * Fraction(terms.output_weight)
    busy_s = _SECONDS_PER_HOUR * Fraction(terms.utilization) / 100
    return hour_cost * _PER_TOKENS / (Fraction(terms.tokens_per_s) * busy_s * weighted)


def explain(deployment: Deployment) -> str:
    """Say how a price was derived, for the source of its rates.

    Args:
        deployment: Any.

    Returns:
        One sentence with every figure that decides the price.
    """
    gpus = f"{deployment.gpus} GPU{'s' if deployment.gpus > 1 else ''}"
    paid = f"{gpus} x {deployment.gpu_hour:f} USD/hour"
    match deployment.terms:
        case TimeTerms():
            return f"own deployment, priced by time: {paid}"
        case TokenTerms() as terms:
            return (
                f"own deployment: {paid} / ({terms.tokens_per_s:f} tokens/s busy "
                f"x {terms.utilization:f} % utilization), output weight {terms.output_weight:f} "
                f"at {terms.output_share:f} % output, rounded up"
            )


def _round_up(amount: Fraction) -> Decimal:
    """Round to what a published price can hold; away from zero."""
    smallest = -(-amount.numerator * _SMALLEST // amount.denominator)
    whole, rest = divmod(smallest, _SMALLEST)
    return Decimal(f"{whole}.{rest:0{AMOUNT_DECIMALS_MAX}d}".rstrip("0").rstrip("."))


def add_to_book(book: Book, own: OwnPrices) -> Book:
    """Lay prices of one's own beside a published book.

    Args:
        book: A published version.
        own: Prices under providers of one's own.

    Returns:
        A book whose version says so: ``2026-11-23.1+local.1a2b3c4d``, where the end is a digest of
        the own prices alone, so that the same settings make the same version again. The book
        itself when there are none.

    Raises:
        BookBroken: A name is claimed twice, or prices overlap.
    """
    if not own.models:
        return book
    published = book.version
    models, rates = (*book.models, *own.models), (*book.rates, *own.rates)
    added = {
        provider: digest_of(
            [model for model in models if model.provider == provider],
            [rate for rate in rates if rate.provider == provider],
        )
        for provider in {model.provider for model in own.models}
    }
    manifest = replace(published.manifest, providers={**published.manifest.providers, **added})
    local = digest_of(own.models, own.rates).removeprefix("sha256:")[:_DIGEST_CHARS]
    version = describe_version(
        f"{published.version}{_LOCAL}{local}",
        manifest,
        recorded_at=published.recorded_at,
        effective_from=published.effective_from,
        note=published.note,
    )
    return Book(version, models, rates, book.overrides)


def published_name(version: str) -> str:
    """Name the published version a book with own prices is built on.

    Args:
        version: Name of a version, with own prices or without.

    Returns:
        The name of the published one.
    """
    return version.partition(_LOCAL)[0]


@dataclass(frozen=True, slots=True)
class Fleet:
    """How many GPUs the models of one provider run on.

    Attributes:
        history: By name or alias of the model, when how many began to run; in order.
    """

    history: Mapping[str, tuple[tuple[datetime, int], ...]]

    def gpus_at(self, model: str, at: datetime) -> int:
        """Tell how many GPUs a call keeps busy.

        Args:
            model: Name or alias.
            at: When it began.

        Returns:
            The number; one where nothing else is known.
        """
        gpus = 1
        for start, count in self.history.get(model, ()):
            if start > at:
                break
            gpus = count
        return gpus


NO_FLEET: Final = Fleet(MappingProxyType({}))


def fleets_of(deployments: Iterable[Deployment]) -> Mapping[str, Fleet]:
    """Read how many GPUs every provider's models run on.

    Args:
        deployments: In any order.

    Returns:
        Fleets by provider.
    """
    found: dict[str, dict[str, tuple[tuple[datetime, int], ...]]] = defaultdict(dict)
    for (provider, model), history in _histories(deployments).items():
        counts = tuple((deployment.starts, deployment.gpus) for deployment in history)
        for name in (model, *history[-1].aliases):
            found[provider][name] = counts
    return {provider: Fleet(history) for provider, history in found.items()}


def gpu_seconds(elapsed_us: int, gpus: int) -> Decimal:
    """Count how long GPUs were kept busy.

    Args:
        elapsed_us: Microseconds of the clock on the wall.
        gpus: How many of them.

    Returns:
        Seconds of one GPU, to the microsecond.
    """
    seconds, rest = divmod(elapsed_us * gpus, 10**6)
    return Decimal(f"{seconds}.{rest:06d}")


def find_busy_us(spans: Iterable[tuple[int, int]], start_us: int, end_us: int) -> int:
    """Measure the time in which at least one call was open.

    Args:
        spans: Start and end of every call in microseconds, in the order of their starts.
        start_us: Where to begin.
        end_us: Where to end.

    Returns:
        Microseconds of the span that are covered; calls side by side count once.
    """
    busy_us, seen_us = 0, start_us
    for began_us, ended_us in spans:
        end = min(ended_us, end_us)
        begin = max(began_us, seen_us)
        if end > begin:
            busy_us += end - begin
            seen_us = end
    return busy_us


@dataclass(frozen=True, slots=True, kw_only=True)
class Reality:
    """What a deployment really did and cost over a span of time.

    Attributes:
        provider: Provider id.
        model: Model.
        span: The span, from the first deployment on if that is later.
        gpu_cost_pico: What the GPUs cost in it, in 10^-12 US dollars.
        busy_us: Microseconds in which at least one call was open.
        input_tokens: Known input tokens.
        output_tokens: Known output tokens.
        output_weight: How many input tokens one output token takes as long as.
        billed_pico: What its calls were recorded to cost.
    """

    provider: str
    model: str
    span: Span
    gpu_cost_pico: int
    busy_us: int
    input_tokens: int
    output_tokens: int
    output_weight: Decimal
    billed_pico: int

    @property
    def span_us(self) -> int:
        """Length of the span in microseconds."""
        return max(0, (self.span.end - self.span.start) // _TICK)

    @property
    def tokens(self) -> int:
        """Input and output tokens."""
        return self.input_tokens + self.output_tokens

    @property
    def utilization(self) -> Decimal | None:
        """Percent of the time in which it was busy, to three decimals; ``None`` of no time."""
        return _ratio(self.busy_us * 100, self.span_us)

    @property
    def tokens_per_s(self) -> Decimal | None:
        """Tokens in a busy second, to three decimals; ``None`` when it was never busy."""
        return _ratio(self.tokens * 10**6, self.busy_us)

    @property
    def output_share(self) -> Decimal | None:
        """Percent of the tokens that were output, to three decimals; ``None`` of no tokens."""
        return _ratio(self.output_tokens * 100, self.tokens)

    @property
    def blended_pico(self) -> int | None:
        """What a million tokens really cost, in 10^-12 US dollars; ``None`` of no tokens."""
        return self._per_million(Fraction(self.tokens))

    @property
    def input_pico(self) -> int | None:
        """What a million input tokens really cost, by weight; ``None`` of no tokens."""
        return self._per_million(self._weighted)

    @property
    def output_pico(self) -> int | None:
        """What a million output tokens really cost, by weight; ``None`` of no tokens."""
        return self._per_million(self._weighted / Fraction(self.output_weight))

    @property
    def unrecovered_pico(self) -> int:
        """What the GPUs cost beyond what was billed; negative when more was billed."""
        return self.gpu_cost_pico - self.billed_pico

    @property
    def _weighted(self) -> Fraction:
        return self.input_tokens + self.output_tokens * Fraction(self.output_weight)

    def _per_million(self, tokens: Fraction) -> int | None:
        if not tokens:
            return None
        exact = self.gpu_cost_pico * _PER_TOKENS / tokens
        return round_to_pico(exact.numerator, exact.denominator)


def _ratio(part: int, whole: int) -> Decimal | None:
    """A ratio to three decimals, half to even."""
    if whole <= 0:
        return None
    found, rest = divmod(round_to_pico(part * 1000, whole), 1000)
    return Decimal(f"{found}.{rest:03d}".rstrip("0").rstrip("."))


def gpu_cost(history: Iterable[Deployment], span: Span) -> int:
    """Add up what the GPUs of a model cost over a span of time.

    Args:
        history: Its deployments, each until the next one starts.
        span: Which time.

    Returns:
        10^-12 US dollars, rounded once.
    """
    dated = sorted(history, key=lambda deployment: deployment.starts)
    ends = [*(later.starts for later in dated[1:]), span.end]
    whole = Fraction(0)
    for deployment, end in zip(dated, ends, strict=True):
        begin, until = max(deployment.starts, span.start), min(end, span.end)
        if until > begin:
            hours = Fraction((until - begin) // _TICK, _SECONDS_PER_HOUR * 10**6)
            whole += deployment.hour_cost * hours
    return round_to_pico((whole * _PICO).numerator, (whole * _PICO).denominator)
