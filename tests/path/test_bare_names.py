"""A bare model name goes to the one provider it can mean, or is refused with the choices."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from gateway.models_list import pick_example
from gateway.refusals import InvalidRequest
from gateway.routes import Provider, Router
from gateway.wire.facts import ErrorBody
from pricing.book import load_book

BOOK: Final = load_book("2026-11-23.2")
AT: Final = datetime(2026, 11, 23, 12, tzinfo=UTC)


def router_of(**providers: Mapping[str, Any]) -> Router:
    """Make a router of providers, each by its kind and what else it has."""
    return Router(
        {
            id_: Provider(
                id=id_,
                base_url="http://p",
                auth=None,
                headers=(),
                upstream=None,  # type: ignore[arg-type]
                region=None,
                drains=False,
                **fields,
            )
            for id_, fields in providers.items()
        }
    )


def found(name: str, **providers: Mapping[str, Any]) -> str:
    """Find the provider of a name among some."""
    router = router_of(**providers)
    surface = router.find_surface("POST", "/v1/chat/completions")
    return router.find_destination(surface, "POST", name, BOOK).provider.id


OPENAI: Final = {"kind": "openai", "priced_as": "openai"}
AZURE: Final = {"kind": "azure", "priced_as": "openai", "deployments": {"my-gpt": "gpt-5"}}
SAME: Final = {**AZURE, "deployments": {"gpt-5": "gpt-5"}}
GEMINI: Final = {"kind": "gemini", "priced_as": "gemini"}


def test_the_maker_of_a_model_comes_before_its_resellers() -> None:
    """Azure is priced as OpenAI and has the same names."""
    assert "openai" == found("gpt-5", openai=OPENAI, azure=AZURE, gemini=GEMINI)


def test_a_name_the_operator_gave_comes_first() -> None:
    """A deployment is named in the settings."""
    assert "azure" == found("my-gpt", openai=OPENAI, azure=AZURE)
    assert "azure" == found("gpt-5", openai=OPENAI, azure=SAME)


def test_two_makers_are_a_choice_for_the_caller() -> None:
    """Nothing is guessed between equals."""
    with pytest.raises(InvalidRequest, match="a/gpt-5 or b/gpt-5"):
        found("gpt-5", a=OPENAI, b=OPENAI, azure=AZURE)


NO_KEY: Final = ErrorBody(
    status=401, code="invalid_api_key", kind="authentication_error", message="no", details={}
)


@pytest.mark.parametrize(
    ("path", "like"),
    [
        ("/openrouter/messages", "/anthropic/v1/messages"),
        ("/azure/anthropic/v1/messages", "/anthropic/v1/messages"),
        ("/openrouter/chat/completions", "/v1/chat/completions"),
        ("/gemini/v1beta/openai/chat/completions", "/v1/chat/completions"),
        ("/gemini/nowhere", "/gemini/v1beta/models/m:generateContent"),
        ("/nowhere/at/all", "/v1/chat/completions"),
    ],
)
def test_a_refusal_is_in_the_words_of_its_address(path: str, like: str) -> None:
    """Also where nothing has been read yet, as of somebody with a wrong key."""
    router = router_of(
        anthropic={"kind": "anthropic", "priced_as": "anthropic"},
        openrouter={"kind": "openrouter", "priced_as": "openrouter"},
        azure=AZURE,
        gemini=GEMINI,
    )
    shaped = [router.find_dialect("POST", one).shape_error(NO_KEY) for one in (path, like)]

    assert shaped[0] == shaped[1]
    assert b"no" in shaped[0]
    router.find_surface("POST", like)
    assert shaped[1] == router.find_dialect("POST", like).shape_error(NO_KEY)


def test_a_provider_that_is_not_there_is_not_taken_for_a_part_of_the_model() -> None:
    """Otherwise every provider would be offered with the misspelt one in its model's name."""
    with pytest.raises(InvalidRequest, match=r"no provider here has the id 'opnai'.*a, b") as told:
        found("opnai/gpt-5", a=OPENAI, b=OPENAI)

    assert "PROVIDER/gpt-5" in told.value.reason


def test_the_first_example_is_a_small_chat_model() -> None:
    """Not whatever stands first in the book; with its provider where several are there."""
    alone = router_of(openai=OPENAI)
    many = router_of(azure=AZURE, openai=OPENAI)

    assert "gpt-5-mini" == pick_example(alone.models(BOOK, AT))
    assert "azure/gpt-5-mini" == pick_example(many.models(BOOK, AT))
    assert "MODEL" == pick_example([])
