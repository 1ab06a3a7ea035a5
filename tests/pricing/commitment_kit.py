"""Commitments and use for tests, in words; quantities in plain units."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from pricing.commitments import (
    PICO_PER_UNIT,
    Commitment,
    Coverage,
    MoneyPack,
    QuantityPack,
    Throughput,
    Use,
)
from pricing.meters import Meter
from pricing.money import money_from_text

NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)


def usd(text):
    return money_from_text(text).pico


def units(count):
    return int(count) * PICO_PER_UNIT


def use(at, quantity=0, cost: str | None = "0", **others):
    fields = {
        "at": at,
        "provider": "openai",
        "model": "gpt-5",
        "asked": "gpt-5",
        "team": "search",
        "project": "rag",
        "meter": Meter.INPUT,
        "quantity_pico": units(quantity),
        "cost_pico": None if cost is None else usd(cost),
    }
    return Use(**(fields | others))


def hours(count):
    return timedelta(hours=count)


def days(count):
    return timedelta(days=count)


def commitment(name, terms, *, starts=NOVEMBER, ends=DECEMBER, zone="UTC", **covers):
    return Commitment(
        id=name,
        covers=Coverage(**covers),
        zone=ZoneInfo(zone),
        starts=starts,
        ends=ends,
        terms=terms,
    )


def pack(name="pack", quantity=1000, fee="3", *, renews=False, **others):
    terms = QuantityPack(quantity_pico=units(quantity), fee_pico=usd(fee), renews=renews)
    return commitment(name, terms, **others)


def credit(name="credit", amount="10", fee="8", *, renews=False, **others):
    terms = MoneyPack(amount_pico=usd(amount), fee_pico=usd(fee), renews=renews)
    return commitment(name, terms, **others)


def throughput(name="ptu", per_minute=10, fee="2", **others):
    return commitment(
        name, Throughput(tokens_per_minute=per_minute, hour_fee_pico=usd(fee)), **others
    )
