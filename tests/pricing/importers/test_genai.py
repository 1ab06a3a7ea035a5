"""The genai-prices list: tiers, dates and hours as the list itself defines them."""

from collections import Counter
from datetime import UTC, datetime

import pytest

from pricing.importers.corrections import ENDED_PRICES
from pricing.importers.draft import Reason
from pricing.importers.genai_file import parse_genai
from pricing.manifest import BookBroken
from tests.pricing.importers.lists import (
    genai_of,
    genai_text,
    json_text,
    prices_of,
    read_genai,
    reasons_of,
    spans_of,
)

IN_OUT = {"input_mtok": 1, "output_mtok": 2}


@pytest.mark.parametrize(
    ("fields", "prices"),
    [
        (IN_OUT, {"input": "1/1000000", "output": "2/1000000"}),
        ({"input_mtok": "=0.18000000000000002"}, {"input": "0.18/1000000"}),
        ({"cache_write_mtok": "=0.08333333333333334"}, {"cache_write": "0.25/3000000"}),
        (
            {"input_mtok": {"base": 1, "tiers": [{"start": 200000, "price": 2}]}},
            {"input": "1/1000000", "input over 200000": "2/1000000"},
        ),
        (
            {"web_searches_kcount": 10, "storage_searches_kcount": "=2.5", "requests_kcount": 5},
            {"web_search": "10/1000", "search_unit file_search": "2.5/1000", "request": "5/1000"},
        ),
        (
            {"audio_hours": "=0.111", "input_audio_hours": "=0.111"},
            {"audio_second": "0.111/3600"},
        ),
        ({"input_document_kpages": 2, "input_annotated_document_kpages": 3},
         {"page": "2/1000", "page annotated": "3/1000"}),
    ],
)  # fmt: skip
def test_fields_become_prices(fields, prices):
    """Each for the quantity the list states it for."""
    assert prices == prices_of(genai_of(prices=fields))


@pytest.mark.parametrize(
    ("when", "prices"),
    [
        (
            {"processing": "batch"},
            {"input batch": "0.5/1000000", "output batch": "2/1000000"},
        ),
        (
            {"service_tier": "fast"},
            {"input priority": "0.5/1000000", "output priority": "2/1000000"},
        ),
        ({"speed": "fast"}, {"input fast": "0.5/1000000", "output fast": "2/1000000"}),
        ({"route": "mistral/eu"}, {"input eu": "0.5/1000000"}),
        ({"search_type": "fast"}, {"input fast": "0.5/1000000"}),
    ],
)
def test_a_context_is_a_tier_a_region_or_a_variant(when, prices):
    """A tier has the standard price of what it does not price itself."""
    candidate = genai_of(
        prices=IN_OUT, price_variants=[{"when": when, "prices": {"input_mtok": "=0.5"}}]
    )

    assert {"input": "1/1000000", "output": "2/1000000"} | prices == prices_of(candidate)


def test_the_last_condition_that_holds_wins_and_equal_neighbours_are_one():
    """A price of a day starts at midnight UTC; where it does not change, nothing is cut."""
    candidate = genai_of(
        prices=[
            {"prices": {"input_mtok": 4, "output_mtok": 8}},
            {
                "constraint": {"start_date": "2026-03-01"},
                "prices": {"input_mtok": 2, "output_mtok": 8},
            },
            {"constraint": {"start_date": "2026-06-01"}, "prices": {"input_mtok": 1}},
        ]
    )

    assert [
        ("input", "1", "2026-06-01", ""),
        ("input", "2", "2026-03-01", "2026-06-01"),
        ("input", "4", "2020-01-01", "2026-03-01"),
        ("output", "8", "2020-01-01", "2026-06-01"),
    ] == spans_of(candidate)


def test_a_tier_starts_on_its_day_and_follows_the_standard_price():
    """Before that day it is not sold; what it inherits changes with the standard price."""
    candidate = genai_of(
        prices=[
            {"prices": IN_OUT},
            {
                "constraint": {"start_date": "2026-06-01"},
                "prices": {"input_mtok": 1, "output_mtok": 3},
            },
        ],
        price_variants=[
            {
                "when": {"processing": "batch"},
                "constraint": {"start_date": "2026-03-01"},
                "prices": {"input_mtok": "=0.5"},
            }
        ],
    )

    assert [
        ("input", "1", "2020-01-01", ""),
        ("input batch", "0.5", "2026-03-01", ""),
        ("output", "2", "2020-01-01", "2026-06-01"),
        ("output", "3", "2026-06-01", ""),
        ("output batch", "2", "2026-03-01", "2026-06-01"),
        ("output batch", "3", "2026-06-01", ""),
    ] == spans_of(candidate)


def test_hours_of_the_day_go_before_the_price_of_the_whole_day():
    """The window is a price of its own beside the other one."""
    candidate = genai_of(
        prices=[
            {"prices": {"input_mtok": 1}},
            {
                "constraint": {"start_time": "16:30:00Z", "end_time": "00:30:00Z"},
                "prices": {"input_mtok": 2},
            },
        ]
    )

    assert {"input": "1/1000000", "input daily 16:30-00:30 UTC": "2/1000000"} == prices_of(
        candidate
    )


def test_a_later_day_ends_the_windows_listed_before_it():
    """The last condition that holds wins, whatever kind it is."""
    window = {
        "constraint": {"start_time": "01:00:00Z", "end_time": "02:00:00Z"},
        "prices": {"input_mtok": 9},
    }
    day = {"constraint": {"start_date": "2026-03-01"}, "prices": {"input_mtok": 2}}

    assert [
        ("input", "1", "2020-01-01", "2026-03-01"),
        ("input", "2", "2026-03-01", ""),
        ("input daily 01:00-02:00 UTC", "9", "2020-01-01", "2026-03-01"),
    ] == spans_of(genai_of(prices=[{"prices": {"input_mtok": 1}}, window, day]))


def test_only_exact_names_are_aliases_and_patterns_are_counted():
    """Nobody can list what a pattern matches: such a name finds no price, not a wrong one."""
    candidate = genai_of(
        match={"or": [{"equals": "m-1"}, {"starts_with": "m-"}, {"or": [{"equals": "m-2"}]}]},
        prices=IN_OUT,
    )

    assert ("m-1", "m-2") == candidate.models[0].aliases
    assert ["PATTERN"] == reasons_of(candidate)
    assert candidate.left_out[0].detail == "starts_with m-"


def test_a_name_belongs_to_the_model_of_that_id_else_to_the_first_that_claims_it():
    """As the list looks names up."""
    models = [
        {"id": "a", "match": {"or": [{"equals": "b"}, {"equals": "x"}]}, "prices": IN_OUT},
        {"id": "b", "match": {"equals": "x"}, "prices": IN_OUT},
        {"id": "b", "match": {"equals": "b"}, "prices": IN_OUT},
    ]
    candidate = read_genai(json_text([{"id": "openai", "models": models}]))

    assert [("a", ("x",)), ("b", ())] == [(m.model, m.aliases) for m in candidate.models]
    assert ["NAME_TAKEN"] * 3 == reasons_of(candidate)


@pytest.mark.parametrize(
    ("provider", "model", "reason"),
    [
        ("moon", {"prices": IN_OUT}, Reason.PROVIDER_UNKNOWN),
        ("openai", {"prices": {}}, Reason.NO_PRICE),
        ("openai", {"prices": {"input_mtok": 0}}, Reason.ONLY_ZEROS),
        ("openai", {"prices": {"input_moons": 1}}, Reason.FIELD_UNKNOWN),
        ("openai", {"prices": {"input_mtok": "=1.23456789"}}, Reason.NOISE),
        ("openai", {"prices": {"audio_hours": 1, "input_audio_hours": 2}}, Reason.CONTRADICTION),
        (
            "openai",
            {"prices": [{"constraint": {"moon": 1}, "prices": IN_OUT}]},
            Reason.FIELD_UNKNOWN,
        ),
        (
            "openai",
            {"prices": IN_OUT, "price_variants": [{"when": {"moon": "full"}, "prices": IN_OUT}]},
            Reason.FIELD_UNKNOWN,
        ),
    ],
)
def test_a_model_that_cannot_be_taken_is_named(provider, model, reason):
    """Nothing of it becomes a price."""
    candidate = genai_of(provider=provider, **model)

    assert () == candidate.models
    assert [reason.name] == reasons_of(candidate)


MODULE = """
from decimal import Decimal
raise SystemExit("this must not run")
providers: list[Provider] = [
    Provider(
        id='openai', name='x', api_pattern='x', extractors=[UsageExtractor(root='usage')],
        models=[ModelInfo(
            id='m', match=ClauseOr(or_=[ClauseEquals(equals='n')]), context_window=10,
            prices=[
                ConditionalPrice(prices=ModelPrice(input_mtok=TieredPrices(
                    base=Decimal('1'), tiers=[Tier(start=5, price=Decimal('2'))]))),
                ConditionalPrice(
                    constraint=TimeOfDateConstraint(
                        start_time=datetime.time(1, 0, tzinfo=datetime.timezone.utc),
                        end_time=datetime.time(2, 0, tzinfo=datetime.timezone.utc)),
                    prices=ModelPrice(input_mtok=Decimal('3'))),
            ],
            price_variants=[PriceVariant(
                when={'processing': 'batch'},
                constraint=StartDateConstraint(start_date=datetime.date(2026, 1, 2)),
                prices=ModelPrice(input_mtok=Decimal('0.5')))],
        )],
    ),
]
"""


def test_the_module_is_read_like_the_json_without_running_it():
    """Both forms of the same list come to the same prices."""
    as_json = json_text(
        [
            {
                "id": "openai",
                "models": [
                    {
                        "id": "m",
                        "match": {"or": [{"equals": "n"}]},
                        "context_window": 10,
                        "prices": [
                            {
                                "prices": {
                                    "input_mtok": {"base": 1, "tiers": [{"start": 5, "price": 2}]}
                                }
                            },
                            {
                                "constraint": {"start_time": "01:00:00Z", "end_time": "02:00:00Z"},
                                "prices": {"input_mtok": 3},
                            },
                        ],
                        "price_variants": [
                            {
                                "when": {"processing": "batch"},
                                "constraint": {"start_date": "2026-01-02"},
                                "prices": {"input_mtok": "=0.5"},
                            }
                        ],
                    }
                ],
            }
        ]
    )
    of_module, of_json = read_genai(MODULE, "data.py"), read_genai(as_json)

    assert of_json.models[0].rates == of_module.models[0].rates
    assert ("n",) == of_module.models[0].aliases


@pytest.mark.parametrize(
    "value",
    ["open('x')", "[x for x in y]", "Provider('positional')", "Decimal('x')", "1.5", "lambda: 1"],
)
def test_a_module_that_is_more_than_data_is_refused(value):
    """With the line it stands on."""
    with pytest.raises(BookBroken, match=r"data\.py: line 1: .*"):
        parse_genai(f"providers: list[Provider] = [{value}]", "data.py")


def test_a_module_without_the_list_is_refused():
    """Another module of the same name."""
    with pytest.raises(BookBroken, match="no list named providers"):
        parse_genai("prices = []", "data.py")


def test_the_whole_list_is_read_or_named():
    """Every model is a price or in the list of what was left out; the counts are known."""
    candidate = read_genai(genai_text(), "data.py")

    assert 2151 == len(candidate.models)
    assert 7834 == candidate.rate_count
    assert {
        Reason.PATTERN: 533,
        Reason.NO_PRICE: 179,
        Reason.TIER_WITHOUT_BAND: 4,
    } == candidate.count_left_out()
    assert 32 < len(Counter(model.provider for model in candidate.models))


@pytest.mark.parametrize(
    "model",
    [
        # A variant by the time of day, a window of other prices, one without length.
        {
            "prices": IN_OUT,
            "price_variants": [
                {
                    "when": {"processing": "batch"},
                    "constraint": {"start_time": "01:00", "end_time": "02:00"},
                    "prices": IN_OUT,
                }
            ],
        },
        {
            "prices": [
                {"prices": IN_OUT},
                {
                    "constraint": {"start_time": "01:00", "end_time": "02:00"},
                    "prices": {"input_mtok": 2},
                },
            ]
        },
        {
            "prices": [
                {"prices": IN_OUT},
                {"constraint": {"start_time": "01:00", "end_time": "01:00"}, "prices": IN_OUT},
            ]
        },
        {"prices": [{"when": {"processing": "batch"}, "prices": IN_OUT}]},
    ],
)
def test_a_condition_without_a_rule_is_named(model):
    """Better no price than one that holds at the wrong time."""
    candidate = genai_of(**model)

    assert () == candidate.models
    assert "a field no rule is known for" in str(candidate.left_out[0])


def test_prices_that_are_known_to_have_ended_end():
    """The list still has the off-peak discount of 2025; who is newer says what came later."""
    found = read_genai(genai_text(), "data.py")
    ends = {
        model.model: {rate.valid_to for rate in model.rates}
        for model in found.models
        if (model.provider, model.model) in ENDED_PRICES
    }

    assert {"deepseek-chat", "deepseek-reasoner"} == ends.keys()
    assert all({datetime(2025, 9, 5, tzinfo=UTC)} == days for days in ends.values())
