"""The shape of the settings about fixed costs: commitments, shared costs, GPUs of one's own.

Must never look beyond one value and its neighbours; ``gateway.settings_checks`` does.
"""

import zoneinfo
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from gateway.directory_model import id_problem
from gateway.settings_sources import suggest
from pricing.commitments import (
    TOKEN_METERS,
    Commitment,
    Coverage,
    MoneyPack,
    QuantityPack,
    Throughput,
    to_pico,
)
from pricing.meters import Meter
from pricing.money import decimal_from_text, money_from_text
from pricing.months import midnight, parse_month
from pricing.selfhosted import Deployment, TimeTerms, TokenTerms
from pricing.sharing import Measure, Payers, SharedCost

# Gives every name of a model of a provider; both as the settings name them.
NamesOf = Callable[[str | None, str], frozenset[str]]
_UTC: Final = zoneinfo.ZoneInfo("UTC")
_DAY_CHARS: Final = 10


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def checked_id(text: str) -> str:
    """Refuse what is no id.

    Args:
        text: As written.

    Returns:
        The same.

    Raises:
        ValueError: Saying what an id is.
    """
    problem = id_problem(text)
    if problem is not None:
        raise ValueError(f"{text!r} is not an id: {problem}")
    return text


def checked_zone(name: str) -> str:
    """Refuse what is no time zone.

    Args:
        name: As written.

    Returns:
        The same.

    Raises:
        ValueError: With what was probably meant.
    """
    if name not in zoneinfo.available_timezones():
        hint = suggest(name, zoneinfo.available_timezones())
        hint = hint if "did you mean" in hint else "; write one such as Europe/Berlin"
        raise ValueError(f"there is no time zone {name!r}{hint}")
    return name


def _exact(value: object) -> object:
    if isinstance(value, float):
        raise ValueError("put quotes around the number, so that it stays exact")  # noqa: TRY004 - pydantic wants it
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError('write a number such as "2.10"')  # noqa: TRY004 - likewise
    return decimal_from_text(str(value))


def _checked_usd(text: str) -> str:
    parse_usd(text)
    return text


def _checked_month(text: str) -> str:
    parse_month(text)
    return text


def _one_word(text: str) -> str:
    if not text or not text.isprintable() or text != text.strip():
        raise ValueError("write a name, without spaces around it")
    return text


Id = Annotated[str, AfterValidator(checked_id)]
Zone = Annotated[str, AfterValidator(checked_zone)]
Name = Annotated[str, AfterValidator(_one_word)]
Figure = Annotated[Decimal, BeforeValidator(_exact)]
Usd = Annotated[str, AfterValidator(_checked_usd)]
MonthText = Annotated[str, AfterValidator(_checked_month)]
Positive = Annotated[int, Field(strict=True, ge=1, le=10**15)]


def parse_usd(text: str) -> int:
    """Read an amount of money.

    Args:
        text: Such as ``400 USD``.

    Returns:
        10^-12 US dollars.

    Raises:
        ValueError: Not such an amount, or less than nothing.
    """
    number, _, unit = text.partition(" ")
    if unit != "USD":
        raise ValueError(f'{text!r} is not an amount such as "400 USD"')
    pico = money_from_text(number).pico
    if pico < 0:
        raise ValueError(f"{text!r} is negative")
    return pico


def parse_start(text: str, zone: zoneinfo.ZoneInfo) -> datetime:
    """Read when something starts or ends.

    Args:
        text: A day, which begins at its midnight, or an instant with its zone.
        zone: Whose midnight.

    Returns:
        Aware instant.

    Raises:
        ValueError: Neither.
    """
    try:
        if len(text) == _DAY_CHARS:
            return midnight(date.fromisoformat(text), zone)
        at = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        at = None
    if at is None or at.tzinfo is None:
        raise ValueError(f"{text!r} is neither a day such as 2026-11-01 nor an instant with a zone")
    return at


class CoverSettings(_Part):
    """Which use counts; everything given must match.

    Attributes:
        provider: Provider id.
        model: A model by any of its names.
        meters: What is counted; tokens of all kinds unless given, and with money everything.
        team: Team id.
        project: Project id.
    """

    provider: Name | None = None
    model: Name | None = None
    meters: tuple[Meter, ...] = ()
    team: Name | None = None
    project: Name | None = None


class CommitmentSettings(_Part):
    """A commitment as written; ``pricing.commitments`` gives it meaning.

    Attributes:
        id: Unique among all commitments.
        covers: Which use it is for; all unless given.
        amount: Such as ``500000000 tokens``, ``1000 USD`` or ``10000 web_search``.
        fee: Price of it; a free allowance has none.
        renews: ``month`` where every calendar month brings it anew.
        tokens_per_minute: Capacity, for throughput by the hour instead.
        fee_per_hour: Price of that.
        starts: Day or instant from which it holds.
        ends: Day or instant from which it no longer does; ``None`` while it has no end.
        timezone: IANA zone of its days and months.
    """

    id: Id
    covers: CoverSettings = CoverSettings()
    amount: str | None = None
    fee: Usd = "0 USD"
    renews: Literal["month"] | None = None
    tokens_per_minute: Positive | None = None
    fee_per_hour: Usd | None = None
    starts: str
    ends: str | None = None
    timezone: Zone = "UTC"

    @field_validator("amount")
    @classmethod
    def _readable_amount(cls, text: str | None) -> str | None:
        if text is not None:
            _parse_amount(text)
        return text

    @model_validator(mode="after")
    def _accountable(self) -> Self:
        by_hour = (self.tokens_per_minute is not None, self.fee_per_hour is not None)
        if any(by_hour) == (self.amount is not None) or any(by_hour) != all(by_hour):
            raise ValueError("give either amount, or tokens_per_minute and fee_per_hour")
        if any(by_hour) and {"fee", "renews"} & self.model_fields_set:
            raise ValueError("fee and renews go with amount; throughput has fee_per_hour")
        to_commitment(self, lambda _, model: frozenset({model}))
        return self


def _parse_amount(text: str) -> tuple[Decimal, str]:
    number, _, unit = text.partition(" ")
    if unit not in {"tokens", "USD", *Meter}:
        hint = suggest(unit, ["tokens", "USD", *(meter.value for meter in Meter)])
        raise ValueError(f'{text!r} is not an amount such as "500000000 tokens" or "1 USD"{hint}')
    return decimal_from_text(number), unit


def to_commitment(one: CommitmentSettings, names_of: NamesOf) -> Commitment:
    """Give a commitment its meaning.

    Args:
        one: As written.
        names_of: Finds the other names of its model.

    Returns:
        The commitment.

    Raises:
        ValueError: It cannot be accounted for.
    """
    zone = zoneinfo.ZoneInfo(one.timezone)
    covers = one.covers
    terms: QuantityPack | MoneyPack | Throughput
    meters = frozenset(covers.meters) or TOKEN_METERS
    if one.amount is None:
        assert one.tokens_per_minute is not None  # noqa: S101 - the validator has seen to it
        terms = Throughput(
            tokens_per_minute=one.tokens_per_minute,
            hour_fee_pico=parse_usd(one.fee_per_hour or "0 USD"),
        )
    else:
        number, unit = _parse_amount(one.amount)
        fee, renews = parse_usd(one.fee), one.renews is not None
        if unit == "USD":
            meters = frozenset(covers.meters) or frozenset(Meter)
            terms = MoneyPack(amount_pico=to_pico(number), fee_pico=fee, renews=renews)
        else:
            if unit != "tokens" and covers.meters:
                raise ValueError(f"amount says it is for {unit}: leave covers.meters out")
            meters = meters if unit == "tokens" else frozenset({Meter(unit)})
            terms = QuantityPack(quantity_pico=to_pico(number), fee_pico=fee, renews=renews)
            if unit == "tokens" and not meters <= TOKEN_METERS:
                raise ValueError("amount is in tokens, and covers.meters names more than those")
    return Commitment(
        id=one.id,
        covers=Coverage(
            provider=covers.provider,
            models=frozenset() if covers.model is None else names_of(covers.provider, covers.model),
            meters=meters,
            team=covers.team,
            project=covers.project,
        ),
        zone=zone,
        starts=parse_start(one.starts, zone),
        ends=None if one.ends is None else parse_start(one.ends, zone),
        terms=terms,
    )


class SharedCostSettings(_Part):
    """A shared cost as written; ``pricing.sharing`` gives it meaning.

    Attributes:
        id: Unique among all shared costs.
        amount: Cost of one month, such as ``3000 USD``.
        split_by: What decides the shares.
        among: Who bears it.
        provider: Only use of this provider counts; every one unless given.
        model: Only use of this model counts; every one unless given.
        first_month: First month it is paid; always unless given.
        last_month: Last month it is paid; ``None`` while it has no end.
        timezone: IANA zone of its months.
    """

    id: Id
    amount: Usd
    split_by: Measure = "tokens"
    among: Payers = "team"
    provider: Name | None = None
    model: Name | None = None
    first_month: MonthText | None = None
    last_month: MonthText | None = None
    timezone: Zone = "UTC"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        cost = to_shared_cost(self)
        if cost.first is not None and cost.last is not None and cost.last < cost.first:
            raise ValueError("last_month is before first_month")
        return self


def to_shared_cost(one: SharedCostSettings) -> SharedCost:
    """Give a shared cost its meaning.

    Args:
        one: As written.

    Returns:
        The shared cost.
    """
    return SharedCost(
        id=one.id,
        amount_pico=parse_usd(one.amount),
        measure=one.split_by,
        payers=one.among,
        zone=zoneinfo.ZoneInfo(one.timezone),
        first=None if one.first_month is None else parse_month(one.first_month),
        last=None if one.last_month is None else parse_month(one.last_month),
        provider=one.provider,
        model=one.model,
    )


class SelfHostedSettings(_Part):
    """A model on GPUs of one's own, as written; ``pricing.selfhosted`` gives it meaning.

    Attributes:
        provider: Provider id, which must be priced under its own id.
        model: Model there.
        aliases: Other names it answers to.
        gpus: GPUs it runs on.
        gpu_hour: What one of them costs an hour, such as ``2.10 USD``.
        priced_by: ``tokens``, or ``gpu_second`` for a price by time.
        tokens_per_s: Input and output tokens together, in a busy second.
        utilization: Percent of the paid time in which it is busy.
        output_weight: How many input tokens one output token takes as long as.
        output_share: Percent of the tokens that are output; needed with another weight than 1.
        starts: Day (in UTC) or instant from which these figures hold.
        context_tokens_max: Most tokens of a prompt.
        output_tokens_max: Most tokens of an answer.
    """

    provider: Name
    model: Name
    aliases: tuple[Name, ...] = ()
    gpus: Positive = 1
    gpu_hour: Usd
    priced_by: Literal["tokens", "gpu_second"] = "tokens"
    tokens_per_s: Figure | None = None
    utilization: Figure = Decimal(100)
    output_weight: Figure = Decimal(1)
    output_share: Figure | None = None
    starts: str
    context_tokens_max: Positive | None = None
    output_tokens_max: Positive | None = None

    @model_validator(mode="after")
    def _priceable(self) -> Self:
        figures = {"tokens_per_s", "utilization", "output_weight", "output_share"}
        if self.priced_by == "gpu_second" and figures & self.model_fields_set:
            given = ", ".join(sorted(figures & self.model_fields_set))
            raise ValueError(f"a price by gpu_second needs no {given}; leave it out")
        if self.priced_by == "tokens" and self.tokens_per_s is None:
            raise ValueError("a price by tokens needs tokens_per_s, measured or assumed")
        if self.output_share is None and self.output_weight != 1:
            raise ValueError("output_weight needs output_share, the percentage of output tokens")
        to_deployment(self)
        return self


def to_deployment(one: SelfHostedSettings) -> Deployment:
    """Give GPUs of one's own their meaning.

    Args:
        one: As written.

    Returns:
        The deployment.

    Raises:
        ValueError: No price follows from it.
    """
    terms: TokenTerms | TimeTerms = TimeTerms()
    if one.tokens_per_s is not None:
        terms = TokenTerms(
            tokens_per_s=one.tokens_per_s,
            utilization=one.utilization,
            output_weight=one.output_weight,
            output_share=one.output_share or Decimal(0),
        )
    return Deployment(
        provider=one.provider,
        model=one.model,
        aliases=one.aliases,
        gpus=one.gpus,
        gpu_hour=decimal_from_text(one.gpu_hour.partition(" ")[0]),
        starts=parse_start(one.starts, _UTC),
        terms=terms,
        context_tokens_max=one.context_tokens_max,
        output_tokens_max=one.output_tokens_max,
    )
