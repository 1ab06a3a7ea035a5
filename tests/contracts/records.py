"""Ledger records for tests: one plain one to vary, and any possible one.

Must never ask for the time.
"""

import secrets
from typing import Any

import msgspec
from hypothesis import strategies as st

from gateway.ids import IdSource
from gateway.ledger.record import LedgerLine, LedgerRecord
from pricing.meters import Meter

NOON_US = 1_795_435_200_000_000  # 2026-11-23T12:00:00Z
SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US
DAY_US = 24 * HOUR_US
INT64 = st.integers(min_value=-(2**63) + 1, max_value=2**63 - 1)

_ids = IdSource()


def mint() -> str:
    """Make an id no other record has."""
    return _ids.mint(NOON_US // 1000)


def make_line(meter: str, quantity: str = "1000", cost_pico: int = 0, **changes: Any) -> LedgerLine:
    """Make one rated line."""
    fields: dict[str, Any] = {
        "sku": f"openai/gpt-5/{meter}",
        "price_id": f"openai/gpt-5/{meter}/standard",
        "meter": meter,
        "quantity": quantity,
        "unit_price": "1.25",
        "per": 1_000_000,
        "list_cost_pico": cost_pico,
        "cost_pico": cost_pico,
    }
    return LedgerLine(**{**fields, **changes})


def make_record(**changes: Any) -> LedgerRecord:
    """Make a plain successful record with one line of 1,000 input tokens."""
    fields: dict[str, Any] = {
        "id": mint(),
        "started_at_us": NOON_US,
        "ended_at_us": NOON_US + SECOND_US,
        "outcome": "ok",
        "http_status": 200,
        "stream": False,
        "api": "openai.chat",
        "provider": "openai",
        "model_requested": "gpt-5",
        "model": "gpt-5",
        "organization": "acme",
        "team": "search",
        "project": "rag",
        "key": "rag-ci",
        "usage": {"input": 1000},
        "input_total": 1000,
        "output_total": 0,
        "basis": "reported",
        "cost_pico": 1_250_000_000,
        "list_cost_pico": 1_250_000_000,
        "price_version": "2026-11-20.1",
        "cost_status": "final",
        "lines": (make_line("input", cost_pico=1_250_000_000),),
    }
    return LedgerRecord(**{**fields, **changes})


def make_unknown(**changes: Any) -> LedgerRecord:
    """Make a record of a call whose size and cost nobody knows."""
    unknown: dict[str, Any] = {
        "outcome": "aborted",
        "http_status": None,
        "usage": {},
        "input_total": None,
        "output_total": None,
        "basis": "unknown",
        "cost_pico": None,
        "list_cost_pico": None,
        "price_version": None,
        "cost_status": "unknown",
        "lines": (),
    }
    return make_record(**{**unknown, **changes})


def make_refused(**changes: Any) -> LedgerRecord:
    """Make a record of a call that was not let through."""
    refused: dict[str, Any] = {
        "outcome": "refused",
        "http_status": 429,
        "usage": {},
        "input_total": 0,
        "output_total": 0,
        "basis": "none",
        "cost_pico": 0,
        "list_cost_pico": 0,
        "price_version": None,
        "lines": (),
    }
    return make_record(**{**refused, **changes})


def make_tenant() -> str:
    """Name an organisation that no other test uses."""
    return f"org-{secrets.token_hex(8)}"


def any_text() -> st.SearchStrategy[str]:
    """Draw any text a database can hold."""
    return st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)


def any_quantity() -> st.SearchStrategy[int | str]:
    """Draw a count, or a decimal with a fraction."""
    fraction = st.decimals(0, 10**6, places=3, allow_nan=False, allow_infinity=False)
    return st.integers(0, 2**40) | fraction.map(lambda number: f"{number:f}")


@st.composite
def any_record(draw: st.DrawFn) -> LedgerRecord:
    """Draw any record, also ones that make little sense."""
    usage = draw(st.dictionaries(st.sampled_from([m.value for m in Meter]), any_quantity()))
    rated = [meter for meter in usage if draw(st.booleans())]
    lines = tuple(
        make_line(
            meter,
            quantity=str(usage[meter]),
            cost_pico=draw(INT64),
            sku=draw(any_text()),
            per=draw(st.integers(1, 10**6)),
        )
        for meter in rated
    )
    columns = {
        name: draw(st.none() | any_text())
        for name in ("provider", "model", "team", "key", "user", "price_version", "corrects")
    }
    numbers = {
        name: draw(st.none() | INT64)
        for name in (
            *("input_total", "output_total", "user_input_tokens", "ceiling_tokens"),
            *("cost_pico", "list_cost_pico", "provider_cost_pico", "ceiling_pico"),
        )
    }
    tags = draw(st.dictionaries(any_text(), any_text(), max_size=4))
    priced: dict[str, Any] = {
        name: draw(any_text())
        for name in (
            *("priced_as", "priced_model", "tier", "region"),
            *("model_asked", "model_behind", "tier_asked"),
        )
        if draw(st.booleans())
    }
    variants = draw(st.none() | st.dictionaries(st.sampled_from(Meter).map(str), any_text()))
    if variants is not None:
        priced["variants"] = dict(sorted(variants.items()))
    return make_record(
        **columns,
        **numbers,
        **priced,
        usage=usage,
        lines=lines,
        tags=dict(sorted(tags.items())),
        flags=tuple(draw(st.lists(any_text(), max_size=3))),
        stream=draw(st.booleans()),
        outcome=draw(st.sampled_from(["ok", "aborted", "refused"])),
        http_status=draw(st.none() | st.integers(100, 599)),
    )


def with_seq(record: LedgerRecord, seq: int) -> LedgerRecord:
    """Give a record its place in a journal."""
    return msgspec.structs.replace(record, seq=seq)
