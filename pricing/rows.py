"""Prices and agreements as text: JSON with one rate a line, read with every problem at once.

Must never take a number that was written as a float, and never stop at the first problem.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from sys import intern
from typing import Any, Final, TypeVar

from pricing.agreements import Override
from pricing.hours import parse_hours
from pricing.manifest import BookBroken, ModelEntry
from pricing.meters import Meter
from pricing.money import decimal_from_text
from pricing.rates import Rate
from pricing.sku import STANDARD_TIER

_PROVIDER: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
_CURRENCY: Final = re.compile(r"[A-Z]{3}")
# What rows of a model mostly share: stated once per file or model, and again only where it differs.
_SHARED: Final = ("per", "valid_from", "source", "checked_at")
_HEAD_FIELDS: Final = frozenset({"provider", "currency", "defaults", "models"})
_MODEL_FIELDS: Final = frozenset(
    {"model", "aliases", "context_tokens_max", "output_tokens_max", "defaults", "rates"}
)
_RATE_FIELDS: Final = frozenset(
    {"meter", "tier", "over", "region", "variant", "hours", "amount", "valid_to", *_SHARED}
)
_OVERRIDE_FIELDS: Final = frozenset(Override.__dataclass_fields__)

Row = Mapping[str, Any]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What one file of a catalog holds.

    Attributes:
        provider: Whose prices.
        models: Its models.
        rates: Their dated rates.
        places: Where each of the rates stands, in the same order: file, model and row.
    """

    provider: str
    models: tuple[ModelEntry, ...]
    rates: tuple[Rate, ...]
    places: tuple[str, ...]


class _Unwritten:
    """A JSON number that is no integer, kept as it was written."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def parse_prices(file: str, text: str) -> Content:
    """Read the prices of one provider.

    Args:
        file: Its name, for what is said of it.
        text: JSON.

    Returns:
        Models and rates.

    Raises:
        BookBroken: Every problem, each with file, model and row.
    """
    head = _parse_json(file, text)
    problems: list[str] = []
    models: list[ModelEntry] = []
    rates: list[Rate] = []
    places: list[str] = []
    try:
        provider, currency, defaults, rows = _read_head(head)
    except (KeyError, TypeError, ValueError) as broken:
        raise BookBroken([f"{file}: {_say(broken)}"]) from broken
    for number, row in enumerate(rows, start=1):
        try:
            entry = _read_model(provider, row)
            shared = {**defaults, **_read_defaults(row)}
        except (KeyError, TypeError, ValueError) as broken:
            problems.append(f"{file}: model {number}: {_say(broken)}")
            continue
        models.append(entry)
        for line, rate_row in enumerate(row["rates"], start=1):
            place = f"{file}: {entry.model}: rate {line}"
            try:
                rates.append(_read_rate((provider, currency), entry.model, shared, rate_row))
                places.append(place)
            except (KeyError, TypeError, ValueError) as broken:
                problems.append(f"{place}: {_say(broken)}")
    if problems:
        raise BookBroken(problems)
    return Content(
        provider=provider, models=tuple(models), rates=tuple(rates), places=tuple(places)
    )


def parse_agreements(file: str, text: str) -> tuple[Override, ...]:
    """Read negotiated rates.

    Args:
        file: Its name, for what is said of it.
        text: JSON: an object with the list ``agreements``.

    Returns:
        The overrides.

    Raises:
        BookBroken: Every problem, each with file and row.
    """
    head = _parse_json(file, text)
    if not isinstance(head, dict) or not isinstance(head.get("agreements"), list) or len(head) > 1:
        raise BookBroken([f"{file}: write an object with one list, agreements"])
    problems: list[str] = []
    overrides: list[Override] = []
    for number, row in enumerate(head["agreements"], start=1):
        try:
            overrides.append(_read_override(row))
        except (KeyError, TypeError, ValueError) as broken:
            problems.append(f"{file}: agreement {number}: {_say(broken)}")
    if problems:
        raise BookBroken(problems)
    return tuple(overrides)


def prices_text(models: Iterable[ModelEntry], rates: Iterable[Rate]) -> str:
    """Write the prices of one provider, one rate a line, in an order that does not depend on luck.

    Args:
        models: Of one provider.
        rates: Of these models, in one currency.

    Returns:
        JSON that ``parse_prices`` reads back.

    Raises:
        ValueError: Several providers or currencies, or none.
    """
    entries = sorted(models, key=lambda m: m.model)
    rows: dict[str, list[Rate]] = {m.model: [] for m in entries}
    for rate in rates:
        rows[rate.model].append(rate)
    providers = {m.provider for m in entries}
    currencies = {rate.currency for found in rows.values() for rate in found} or {"USD"}
    if len(providers) != 1 or len(currencies) != 1:
        both = (sorted(providers), sorted(currencies))
        raise ValueError(f"a file is of one provider and one currency, not of {both}")
    everything = [_rate_row(rate) for found in rows.values() for rate in found]
    shared = _commonest(everything, ("per", "source", "checked_at"))
    blocks = [_model_text(m, rows[m.model], shared) for m in entries]
    top = {"provider": providers.pop(), "currency": currencies.pop(), "defaults": shared}
    lines = [f'  "{name}": {_compact(value)},' for name, value in top.items() if value]
    return "\n".join(["{", *lines, '  "models": [', ",\n".join(blocks), "  ]", "}"]) + "\n"


def agreements_text(overrides: Iterable[Override]) -> str:
    """Write negotiated rates, one a line, by id.

    Args:
        overrides: Any.

    Returns:
        JSON that ``parse_agreements`` reads back.
    """
    rows = [_compact(_override_row(o)) for o in sorted(overrides, key=lambda o: o.id)]
    listed = ",\n".join(f"    {row}" for row in rows)
    return f'{{\n  "agreements": [\n{listed}\n  ]\n}}\n'


# --- reading


def _parse_json(file: str, text: str) -> object:
    try:
        document: object = json.loads(
            text,
            parse_float=_Unwritten,
            parse_constant=_Unwritten,
            object_pairs_hook=_without_repeats,
        )
    except (RecursionError, ValueError) as broken:
        raise BookBroken([f"{file}: {broken}"]) from broken
    return document


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
        raise ValueError(f"{', '.join(names)} is given twice in one object")
    return row


def _say(broken: Exception) -> str:
    return f"the field {broken} is missing" if isinstance(broken, KeyError) else str(broken)


def _checked(row: object, known: frozenset[str]) -> Row:
    if not isinstance(row, dict):
        raise ValueError(f"write an object, not {row!r}")  # noqa: TRY004 - one error type for bad catalog text
    if not known >= row.keys():
        raise ValueError(f"unknown fields {sorted(row.keys() - known)}")
    for value in row.values():
        if type(value) is _Unwritten:
            raise ValueError(f"write {value} as text: prices are never floats")
    return row


def _read_head(head: object) -> tuple[str, str, Row, list[Any]]:
    row = _checked(head, _HEAD_FIELDS)
    provider, currency = _text(row, "provider"), _text(row, "currency")
    if not _PROVIDER.fullmatch(provider):
        raise ValueError(f"{provider!r} is not a provider: lower case, digits and . _ -")
    if not _CURRENCY.fullmatch(currency):
        raise ValueError(f"{currency!r} is not an ISO 4217 code")
    if not isinstance(row["models"], list):
        raise ValueError("models is a list")  # noqa: TRY004 - one error type for bad catalog text
    return intern(provider), intern(currency), _read_defaults(row), row["models"]


def _read_defaults(row: Row) -> Row:
    return _checked(row.get("defaults", {}), frozenset(_SHARED))


def _read_model(provider: str, row: object) -> ModelEntry:
    fields = _checked(row, _MODEL_FIELDS)
    model = _text(fields, "model")
    aliases = fields.get("aliases", [])
    if not isinstance(fields["rates"], list) or not isinstance(aliases, list):
        raise ValueError(f"{model}: rates and aliases are lists")  # noqa: TRY004 - likewise
    if not all(isinstance(alias, str) and alias for alias in aliases):
        raise ValueError(f"{model}: aliases are names, not {aliases!r}")
    return ModelEntry(
        provider=provider,
        model=intern(model),
        aliases=tuple(aliases),
        context_tokens_max=_count(fields, "context_tokens_max"),
        output_tokens_max=_count(fields, "output_tokens_max"),
    )


def _read_rate(head: tuple[str, str], model: str, shared: Row, row: object) -> Rate:
    fields = {**shared, **_checked(row, _RATE_FIELDS)}
    provider, currency = head
    return Rate(
        provider=provider,
        model=intern(model),
        meter=Meter(fields["meter"]),
        amount=decimal_from_text(fields["amount"]),
        per=_count(fields, "per") or 0,
        currency=currency,
        valid_from=parse_instant(_text(fields, "valid_from")),
        valid_to=_optional(fields, "valid_to", parse_instant),
        tier=intern(_text(fields, "tier")) if "tier" in fields else STANDARD_TIER,
        over=_count(fields, "over"),
        region=_optional(fields, "region", intern),
        variant=_optional(fields, "variant", intern),
        hours=_optional(fields, "hours", parse_hours),
        source=_text(fields, "source"),
        checked_at=_day(_text(fields, "checked_at")),
    )


def _read_override(row: object) -> Override:
    fields = _checked(row, _OVERRIDE_FIELDS)
    return Override(
        id=_text(fields, "id"),
        organization=_optional(fields, "organization", str),
        team=_optional(fields, "team", str),
        project=_optional(fields, "project", str),
        provider=_optional(fields, "provider", str),
        model=_optional(fields, "model", str),
        meter=_optional(fields, "meter", Meter),
        tier=_optional(fields, "tier", str),
        over=_count(fields, "over"),
        region=_optional(fields, "region", str),
        variant=_optional(fields, "variant", str),
        percent=_decimal(fields, "percent"),
        amount=_decimal(fields, "amount"),
        per=_count(fields, "per"),
        currency=_text(fields, "currency") if "currency" in fields else "USD",
        valid_from=parse_instant(_text(fields, "valid_from")),
        valid_to=_optional(fields, "valid_to", parse_instant),
        why=_text(fields, "why"),
    )


def _text(row: Row, name: str) -> str:
    value = row[name]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is text, not {value!r}")
    return value


def _optional(row: Row, name: str, read: Callable[[str], _T]) -> _T | None:
    value = row.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"{name} is text, not {value!r}")  # noqa: TRY004 - likewise
    return read(value)


def _count(row: Row, name: str) -> int | None:
    value = row.get(name)
    if value is None or (type(value) is int and value >= 0):
        return value
    raise ValueError(f"{name} is a whole number of at least zero, not {value!r}")


def _decimal(row: Row, name: str) -> Decimal | None:
    value = row.get(name)
    return None if value is None else decimal_from_text(value)


@lru_cache(maxsize=4096)
def parse_instant(text: str) -> datetime:
    """Read an instant.

    Args:
        text: RFC 3339, with a time zone.

    Returns:
        The same, aware.

    Raises:
        ValueError: It is no instant, or has no zone.
    """
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text} needs a time zone")
    return at


@lru_cache(maxsize=4096)
def _day(text: str) -> date:
    return date.fromisoformat(text)


# --- writing


def _rate_row(rate: Rate) -> dict[str, Any]:
    row = {
        "meter": rate.meter.value,
        "tier": None if rate.tier == STANDARD_TIER else rate.tier,
        "over": rate.over,
        "region": rate.region,
        "variant": rate.variant,
        "hours": None if rate.hours is None else str(rate.hours),
        "amount": f"{rate.amount:f}",
        "per": rate.per,
        "valid_from": rate.valid_from.isoformat(),
        "valid_to": None if rate.valid_to is None else rate.valid_to.isoformat(),
        "source": rate.source,
        "checked_at": rate.checked_at.isoformat(),
    }
    return {name: value for name, value in row.items() if value is not None}


def _override_row(override: Override) -> dict[str, Any]:
    row = {name: getattr(override, name) for name in Override.__dataclass_fields__}
    for name in ("percent", "amount"):
        row[name] = None if row[name] is None else f"{row[name]:f}"
    for name in ("valid_from", "valid_to"):
        row[name] = None if row[name] is None else row[name].isoformat()
    return {name: value for name, value in row.items() if value is not None}


def _model_text(entry: ModelEntry, rates: list[Rate], head: Row) -> str:
    rows = [_rate_row(rate) for rate in sorted(rates, key=_rate_order)]
    common = _commonest(rows, _SHARED)
    own = {name: value for name, value in common.items() if head.get(name) != value}
    shared = {**head, **own}
    fields = {
        "model": entry.model,
        "aliases": list(entry.aliases),
        "context_tokens_max": entry.context_tokens_max,
        "output_tokens_max": entry.output_tokens_max,
        "defaults": own,
    }
    lines = [
        f'      "{name}": {_compact(value)},'
        for name, value in fields.items()
        if value not in (None, [], {})
    ]
    listed = [
        "        "
        + _compact({name: value for name, value in row.items() if shared.get(name) != value})
        for row in rows
    ]
    body = ["    {", *lines, '      "rates": [', ",\n".join(listed), "      ]", "    }"]
    return "\n".join(line for line in body if line)


_METER_ORDER: Final = {meter: position for position, meter in enumerate(Meter)}


def _rate_order(rate: Rate) -> tuple[Any, ...]:
    return (
        rate.tier != STANDARD_TIER,
        rate.tier,
        rate.region or "",
        _METER_ORDER[rate.meter],
        rate.variant or "",
        -1 if rate.over is None else rate.over,
        str(rate.hours or ""),
        rate.valid_from,
    )


def _commonest(rows: list[dict[str, Any]], names: Iterable[str]) -> dict[str, Any]:
    if not rows:
        return {}
    counted = {name: Counter(row[name] for row in rows).most_common() for name in names}
    # The smallest of those equally common, so that the text does not depend on the order of rows.
    return {
        name: min((value for value, n in found if n == found[0][1]), key=str)
        for name, found in counted.items()
    }


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
