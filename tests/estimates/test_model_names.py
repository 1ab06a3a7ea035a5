"""Which model a name means: one table, for the command line and for HTTP."""

from dataclasses import dataclass, field, replace

import pytest

from gateway.models_list import (
    MAKERS,
    AmbiguousModel,
    NoSuchModel,
    Shelves,
    find_named_model,
)
from pricing.book import load_book

BOOK = load_book()
GPT_5 = BOOK.find_model("openai", "gpt-5")
SOLD = {
    "openai": {"gpt-5"},
    "azure": {"gpt-5", "sora"},
    "anthropic": {"claude"},
    "gemini": {"gemini-pro", "claude"},
    "vertex": {"gemini-pro", "claude"},
    "groq": {"llama", "qwen"},
    "together": {"llama"},
    "openrouter": {"openai/gpt-5", "meta-llama/llama", "claude"},
}


@dataclass
class Configured:
    priced_as: str
    deployments: dict[str, str] = field(default_factory=dict)


EAST = Configured("azure", {"prod": "gpt-5"})
OPENAI = Configured("openai")
ROUTER = Configured("openrouter")
NOBODYS = Configured("house")


def shelves(sold=SOLD, **configured):
    """A small catalog, and some providers of it configured."""

    def find(catalog, name):
        known = name in sold[catalog]
        return replace(GPT_5, provider=catalog, model=name, aliases=()) if known else None

    return Shelves(configured=configured, catalogs=sold.keys(), find=find)


@pytest.mark.parametrize(
    ("configured", "provider", "asked", "means"),
    [
        # the provider named before the slash
        ({}, None, "azure/gpt-5", ("azure", "azure/gpt-5")),
        ({"east": EAST}, None, "east/gpt-5", ("east", "azure/gpt-5")),
        ({"east": EAST}, None, "openai/gpt-5", ("openai", "openai/gpt-5")),
        ({"east": EAST}, None, "east/prod", ("east", "azure/gpt-5")),
        ({"router": ROUTER}, None, "openai/gpt-5", ("openai", "openai/gpt-5")),
        ({"openai": EAST}, None, "openai/gpt-5", ("openai", "azure/gpt-5")),
        ({}, None, "openrouter/openai/gpt-5", ("openrouter", "openrouter/openai/gpt-5")),
        ({}, None, "meta-llama/llama", ("openrouter", "openrouter/meta-llama/llama")),
        # configured providers, in their order
        ({"east": EAST}, None, "gpt-5", ("east", "azure/gpt-5")),
        ({"east": EAST, "oa": OPENAI}, None, "gpt-5", ("east", "azure/gpt-5")),
        ({"oa": OPENAI, "east": EAST}, None, "gpt-5", ("oa", "openai/gpt-5")),
        ({"oa": OPENAI, "east": EAST}, None, "prod", ("east", "azure/gpt-5")),
        ({"router": ROUTER}, None, "claude", ("router", "openrouter/claude")),
        ({"house": NOBODYS, "oa": OPENAI}, None, "gpt-5", ("oa", "openai/gpt-5")),
        # its maker, or the only one to sell it
        ({}, None, "gpt-5", ("openai", "openai/gpt-5")),
        ({}, None, "gemini-pro", ("gemini", "gemini/gemini-pro")),
        ({}, None, "claude", ("anthropic", "anthropic/claude")),
        ({"oa": OPENAI}, None, "claude", ("anthropic", "anthropic/claude")),
        ({}, None, "sora", ("azure", "azure/sora")),
        # a provider beside the name
        ({}, "vertex", "claude", ("vertex", "vertex/claude")),
        ({"east": EAST}, "east", "east/prod", ("east", "azure/gpt-5")),
        ({"oa": OPENAI}, "openrouter", "openai/gpt-5", ("openrouter", "openrouter/openai/gpt-5")),
    ],
    ids=str,
)
def test_a_name_means_what_people_mean(configured, provider, asked, means):
    """Provider before the slash, configuration, only seller, maker; the id says who was found."""
    found = find_named_model(shelves(**configured), asked, provider)

    assert means == (found.provider, f"{found.entry.provider}/{found.entry.model}")


@pytest.mark.parametrize(
    ("provider", "asked"),
    [
        (None, "gtp-5"),
        (None, "nobody/gpt-5"),
        (None, "groq/gpt-5"),
        ("groq", "gpt-5"),
        ("nobody", "gpt-5"),
        ("groq", "openai/gpt-5"),
        (None, ""),
    ],
)
def test_a_name_nobody_has_means_nothing(provider, asked):
    """A provider that was named is not overruled."""
    with pytest.raises(NoSuchModel):
        find_named_model(shelves(), asked, provider)


@pytest.mark.parametrize(
    ("sellers", "says"),
    [
        (("b", "a"), "m is sold by several: a, b; name the one, as in a/m, or configure"),
        (("e", "d", "c", "b", "a"), "by several: a, b, c, d, e; name"),
        (("g", "f", "e", "d", "c", "b", "a"), "by several: a, b, c, d, e and 2 more; name"),
    ],
    ids=str,
)
def test_between_resellers_nobody_guesses(sellers, says):
    """The first five of them, and how to say which."""
    with pytest.raises(AmbiguousModel) as several:
        find_named_model(shelves({seller: {"m"} for seller in sellers}), "m")

    assert says in str(several.value)
    assert several.value.providers == tuple(sorted(sellers))


@pytest.mark.parametrize(
    ("asked", "maker"),
    [
        ("gpt-5", "openai"),
        ("gpt-5-2025-08-07", "openai"),
        ("claude-sonnet-4-5", "anthropic"),
        ("gemini-2.5-pro", "gemini"),
        ("mistral-large-latest", "mistral"),
        ("deepseek-chat", "deepseek"),
        ("grok-4", "xai"),
        ("command-r", "cohere"),
        ("demo-chat", "demo"),
    ],
)
def test_the_shipped_catalog_has_makers(asked, maker):
    """By name, alias or snapshot; nothing is configured."""
    places = Shelves(configured={}, catalogs=BOOK.providers, find=BOOK.find_model)

    assert maker == find_named_model(places, asked).entry.provider
    assert set(MAKERS) <= BOOK.providers
