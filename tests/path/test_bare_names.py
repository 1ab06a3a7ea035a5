"""A bare model name goes to the one provider it can mean, or is refused with the choices."""

from collections.abc import Mapping
from typing import Any, Final

import pytest

from gateway.refusals import InvalidRequest
from gateway.routes import Provider, Router
from pricing.book import load_book

BOOK: Final = load_book("2026-11-23.2")


def found(name: str, **providers: Mapping[str, Any]) -> str:
    """Find the provider of a name among some, each by its kind and what else it has."""
    made = {
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
    router = Router(made)
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
