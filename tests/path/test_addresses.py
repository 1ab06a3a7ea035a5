"""A wrong address is refused with the one that was meant, where there is one."""

from typing import Final

import pytest

from gateway.addresses import COMPARED_MAX, find_meant, say_unmetered
from gateway.wire.table import ENDPOINTS

KINDS: Final = {
    "openai": "openai",
    "claude": "anthropic",
    "gemini": "gemini",
    "local": "ollama",
}
GENERATE: Final = "models/gemini-2.5-flash:generateContent"


@pytest.mark.parametrize(
    ("kind", "path", "meant"),
    [
        # The version stands in the base URL and the SDK adds it.
        ("anthropic", "/claude/v1/v1/messages", "/claude/v1/messages"),
        ("ollama", "/local/api/api/chat", "/local/api/chat"),
        ("gemini", f"/gemini/v1beta/v1beta/{GENERATE}", f"/gemini/v1beta/{GENERATE}"),
        # Slashes.
        ("openai", "/v1//chat/completions", "/v1/chat/completions"),
        ("openai", "/v1/chat/completions/", "/v1/chat/completions"),
        # Somebody else's API below the surface of OpenAI's.
        ("openai", "/v1/messages", "/claude/v1/messages"),
        ("openai", "/openai/v1/messages", "/claude/v1/messages"),
        ("openai", f"/v1/{GENERATE}", f"/gemini/v1/{GENERATE}"),
        ("openai", "/v1/api/chat", "/local/api/chat"),
        ("openai", "/v1/claude/v1/messages", "/claude/v1/messages"),
        # A slip of the finger.
        ("openai", "/v1/chat/completion", "/v1/chat/completions"),
        ("openai", "/openai/embedings", "/openai/embeddings"),
    ],
)
def test_the_address_that_was_meant_is_named(kind: str, path: str, meant: str) -> None:
    """By the mistakes people make with base URLs."""
    assert meant == find_meant(ENDPOINTS, KINDS, kind, "POST", path)
    assert f"POST {meant} is" in say_unmetered(ENDPOINTS, KINDS, kind, "POST", path)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/assistants",
        "/v1/threads/t/messages",
        "/openai/fine_tuning/jobs",
        "/v1/" + "v1/" * COMPARED_MAX + "chat/completions",
    ],
)
def test_what_has_no_place_here_is_not_guessed(path: str) -> None:
    """A wrong hint would cost more than none."""
    said = say_unmetered(ENDPOINTS, KINDS, "openai", "POST", path)

    assert find_meant(ENDPOINTS, KINDS, "openai", "POST", path) is None
    assert "it meters" in said
    assert "/chat/completions" in said


def test_the_list_names_an_address_once() -> None:
    """With and without the version it is the same one."""
    said = say_unmetered(ENDPOINTS, KINDS, "openai", "POST", "/v1/assistants")

    assert " /embeddings," in said
    assert "/v1/embeddings" not in said
