"""Who said what in a prompt, by the shape of each API."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.counting import count_parts
from gateway.prompt_parts import split_prompt

IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
TOOL = {"type": "function", "function": {"name": "look"}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}

CASES: dict[str, tuple[str, dict[str, Any], dict[str, list[str]], int]] = {
    "a question": (
        "openai.chat",
        {"messages": [{"role": "user", "content": "Hi"}]},
        {"user": ["Hi"]},
        0,
    ),
    "a conversation": (
        "openai.chat",
        {
            "messages": [
                {"role": "system", "content": "Be kind"},
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello"},
                {"role": "user", "content": [{"type": "text", "text": "Look"}, IMAGE]},
            ]
        },
        {"system": ["Be kind"], "user": ["Hi", "Look"], "history": ["Hello"]},
        1,
    ),
    "tools": (
        "openai.chat",
        {
            "messages": [
                {"role": "user", "content": "Go"},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "content": "42"},
            ],
            "tools": [TOOL],
        },
        {
            "user": ["Go"],
            "tools": [
                json.dumps([CALL], separators=(",", ":")),
                "42",
                json.dumps([TOOL], separators=(",", ":")),
            ],
        },
        0,
    ),
    "an input of the Responses API": (
        "openai.responses",
        {
            "instructions": "Be brief",
            "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
        },
        {"system": ["Be brief"], "user": ["Hi"]},
        0,
    ),
    "a conversation with Mistral": (
        "mistral.conversations",
        {
            "instructions": "Be brief",
            "inputs": [
                {"type": "message.input", "role": "user", "content": "Hi"},
                {"type": "message.output", "role": "assistant", "content": "Hello"},
                {"role": "user", "content": [{"type": "text", "text": "And?"}]},
            ],
        },
        {"system": ["Be brief"], "user": ["Hi", "And?"], "history": ["Hello"]},
        0,
    ),
    "an interaction": (
        "gemini.interactions",
        {
            "system_instruction": "Be brief",
            "input": [
                {"type": "user_input", "content": [{"type": "text", "text": "Hi"}]},
                {"type": "model_output", "content": [{"type": "text", "text": "Hello"}]},
                {"type": "text", "text": "And?"},
                {"type": "image", "data": "AAAA"},
                {"role": "user", "content": "Now?"},
                {"type": "function_result", "result": "42"},
            ],
        },
        {
            "system": ["Be brief"],
            "user": ["Hi", "And?", "Now?"],
            "history": ["Hello"],
            "tools": ['{"type":"function_result","result":"42"}'],
        },
        1,
    ),
    "a message to Claude": (
        "anthropic.messages",
        {
            "system": [{"type": "text", "text": "Be kind"}],
            "messages": [
                {"role": "user", "content": "Go"},
                {"role": "assistant", "content": [{"type": "text", "text": "Going"}]},
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "t", "content": "42"},
                        {"type": "image", "source": {}},
                        {"type": "text", "text": "And?"},
                    ],
                },
            ],
        },
        {
            "system": ["Be kind"],
            "user": ["Go", "And?"],
            "history": ["Going"],
            "tools": ['{"type":"tool_result","tool_use_id":"t","content":"42"}'],
        },
        1,
    ),
    "a content for Gemini": (
        "gemini.generate_content",
        {
            "systemInstruction": {"parts": [{"text": "Be kind"}]},
            "contents": [
                {"parts": [{"text": "Hi"}, {"inlineData": {"data": "AA=="}}]},
                {"role": "model", "parts": [{"text": "Hello"}]},
            ],
        },
        {"system": ["Be kind"], "user": ["Hi"], "history": ["Hello"]},
        1,
    ),
    "a converse request": (
        "bedrock.converse",
        {
            "system": [{"text": "Be kind"}],
            "messages": [
                {"role": "user", "content": [{"text": "Hi"}, {"image": {"format": "png"}}]}
            ],
        },
        {"system": ["Be kind"], "user": ["Hi"]},
        1,
    ),
    "a message with its history": (
        "cohere.chat",
        {"message": "Hi", "chat_history": [{"role": "CHATBOT", "message": "Hello"}]},
        {"user": ["Hi"], "history": ["Hello"]},
        0,
    ),
    "a plain input": ("openai.embeddings", {"input": ["a", "b"]}, {"user": ["a", "b"]}, 0),
}


@pytest.mark.parametrize(("api", "asked", "texts", "images"), CASES.values(), ids=CASES)
def test_texts_are_sorted_by_who_said_them(
    api: str, asked: dict[str, Any], texts: dict[str, list[str]], images: int
) -> None:
    """What a user wrote is told from everything that was put around it."""
    parts = split_prompt(api, json.dumps(asked).encode())

    assert parts is not None
    assert (texts, images) == (parts.texts, parts.images)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000, b"\xff\xfe", b"null"])
def test_what_is_no_request_has_no_parts(body: bytes) -> None:
    """Nor does it stop the one who counts."""
    assert split_prompt("openai.chat", body) is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    ),
    st.sampled_from(["openai.chat", "openai.responses", "openai.embeddings"]),
)
def test_any_json_can_be_sorted(value: object, api: str) -> None:
    """Odd fields are left out."""
    body = json.dumps(
        {"messages": value, "input": value, "tools": value, "system": value, "contents": value}
    )

    assert split_prompt(api, body.encode()) is not None


def test_a_format_without_a_prompt_is_not_counted() -> None:
    """A recording has no text."""
    assert count_parts("openai.audio.transcriptions", b"{}", "o200k_base") is None


def test_nothing_said_is_zero_tokens() -> None:
    """This zero is known."""
    assert {"user": 0} == count_parts("openai.chat", b'{"messages":[]}', "o200k_base")


SAID = {
    "typed in a session": (
        "openai.realtime",
        [
            {
                "type": "conversation.item.create",
                "item": {
                    "type": "message",
                    "role": "user",
                    "content": [{"type": "input_text", "text": "Hi"}],
                },
            },
            {
                "type": "response.create",
                "response": {
                    "instructions": "Be brief",
                    "input": [{"type": "message", "role": "user", "content": "And?"}],
                },
            },
        ],
        {"user": ["Hi", "And?"], "system": ["Be brief"]},
    ),
    "an answer of a tool in a session": (
        "openai.realtime",
        [{"type": "conversation.item.create", "item": {"type": "function_call_output"}}],
        {"tools": ['{"type":"function_call_output"}']},
    ),
    "turns of Gemini Live": (
        "gemini.live",
        [
            {"realtimeInput": {"text": "Hi"}},
            {"clientContent": {"turns": [{"role": "user", "parts": [{"text": "And?"}]}]}},
            {"toolResponse": {"functionResponses": []}},
        ],
        {"user": ["Hi", "And?"], "tools": ['{"functionResponses":[]}']},
    ),
    "a response over a socket": (
        "openai.responses.live",
        [{"type": "response.create", "model": "gpt-5", "input": "Hi"}],
        {"user": ["Hi"]},
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_what_was_said_in_a_session_is_sorted(case: str) -> None:
    """The frames since the last response stand together."""
    api, frames, texts = SAID[case]

    parts = split_prompt(api, json.dumps(frames).encode())

    assert parts is not None
    assert texts == parts.texts


@pytest.mark.parametrize(
    "frames",
    [
        b"[]",
        b"7",
        b'[{"type":"conversation.item.create","item":{"type":"message","role":"user",'
        b'"content":[{"type":"input_audio","audio":"AAAA"}]}}]',
    ],
)
def test_what_was_only_spoken_is_not_counted(frames: bytes) -> None:
    """No text is known of sound: that is not zero."""
    assert split_prompt("openai.realtime", frames) is None
