"""Prices over HTTP: whose, at which hour, and why."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from gateway.prices.current import Prices
from pricing.agreements import Override
from pricing.book import Book
from pricing.hours import parse_hours
from pricing.meters import Meter
from tests.admin.world import NOON, World, the_book


def agreed_world(world: World) -> World:
    """The same with agreements and prices by the hour, and a path that has a part of the book."""
    night = parse_hours("daily 22:00-06:00 UTC")
    fields: dict[str, Any] = {
        "valid_from": NOON - timedelta(days=1),
        "valid_to": None,
        "why": "contract 7",
    }
    whole = the_book()
    rates = [r for r in whole.rates if r.provider != "openai"]
    timed = [replace(r, hours=night, amount=r.amount / 2) for r in rates if r.provider == "demo"]
    overrides = [
        Override(id="team", team="search", provider="demo", percent=Decimal(-20), **fields),
        Override(id="rag", project="rag", meter=Meter.OUTPUT, percent=Decimal(-50), **fields),
    ]
    models = [m for m in whole.models if m.provider != "openai"]
    book = Book(whole.version, models, [*rates, *timed], overrides)
    part = Book(
        whole.version,
        [m for m in models if m.provider == "demo"],
        [r for r in book.rates if r.provider == "demo"],
        overrides,
    )
    world.rebuild(prices=Prices(part), find_whole=lambda _: book)
    return world


@pytest.mark.parametrize(
    ("query", "amounts"),
    [
        ({}, {"input": ("2.50", None), "output": ("10", None)}),
        ({"team": "search"}, {"input": ("2", "team"), "output": ("8", "team")}),
        # The team of a project is known.
        ({"project": "rag"}, {"input": ("2", "team"), "output": ("5", "rag")}),
        ({"organization": "acme"}, {"input": ("2.50", None), "output": ("10", None)}),
        ({"at": "2026-11-23T23:00:00Z"}, {"input": ("1.25", None), "output": ("5", None)}),
    ],
    ids=str,
)
def test_prices_are_those_of_whoever_pays_at_that_hour(world: World, query, amounts):
    """Negotiated prices stand beside the published ones; one price of a meter holds at a time."""
    agreed_world(world)
    page = world.call("GET", "/prices", params={"model": "demo-chat", **query}).json()
    found = {item["meter"]: item for item in page["items"]}

    assert len(found) == len(page["items"])
    for meter, (amount, agreement) in amounts.items():
        assert (amount, agreement) == (found[meter]["amount"], found[meter]["agreement"])
        listed = found[meter]["list_amount"]
        assert (listed is None) == (agreement is None)
    assert ("daily 22:00-06:00 UTC" if "at" in query else None) == found["input"]["hours"]


def test_a_price_is_explained(world: World):
    """Which one applies, and what every other one lost by."""
    agreed_world(world)
    query = {"model": "fake/demo-chat", "explain": "reasoning", "project": "rag"}
    page = world.call("GET", "/prices", params=query).json()
    (found,) = page["explanations"]

    assert ("5", "10", "rag") == (
        found["price"]["amount"],
        found["price"]["list_amount"],
        found["price"]["agreement"],
    )
    assert "reasoning has no price of its own and is priced as output" in found["reasons"]
    assert {"team": "rag is more specific, or as specific and newer", "rag": "applies"} == {
        one["name"]: one["verdict"] for one in found["overrides"]
    }
    assert 2 == len(found["rates"])
    query |= {"explain": "page"}
    (missing,) = world.call("GET", "/prices", params=query).json()["explanations"]
    assert missing["price"] is None
    assert missing["reasons"]


def test_prices_outside_the_configuration_are_shown_too(world: World):
    """The path has only the part of the book it uses; the control plane can ask for all of it."""
    agreed_world(world)
    whole = world.call("GET", "/prices", params={"limit": "1000"}).json()
    one = world.call("GET", "/prices", params={"model": "claude-haiku-4-5"}).json()["items"]
    body = {"model": "anthropic/claude-haiku-4-5", "input_tokens": 10, "max_output_tokens": 1}

    assert 1000 == len(whole["items"])
    assert whole["next_cursor"] is not None
    assert {"anthropic", "vertex"} <= {item["provider"] for item in one}
    assert 200 == world.call("POST", "/estimates", json=body).status_code


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"explain": "input"}, 422),
        ({"explain": "tokens", "model": "demo-chat"}, 422),
        ({"input_tokens": "-1"}, 422),
        ({"project": "nobody"}, 404),
        ({"team": ""}, 422),
    ],
    ids=str,
)
def test_questions_about_prices_that_make_no_sense_are_refused(world: World, query, status):
    """A question that is not understood has no answer that looks like one."""
    assert status == world.call("GET", "/prices", params=query).status_code


def test_a_deployment_is_estimated_as_the_model_behind_it(tmp_path):
    """Under the name its owner gave it."""
    config = """
providers:
  azure: {kind: azure, base_url: "http://127.0.0.1:9", deployments: {ours: gpt-5}}
"""
    world = World(tmp_path, config)
    body = {"provider": "azure", "model": "ours", "usage": {"input": 1000}}
    answer = world.call("POST", "/estimates", json=body)

    assert "0.00125" == answer.json()["cost"], answer.text
