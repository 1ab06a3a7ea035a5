"""What OpenAI says, byte by byte, for the scripted upstream to play.

Must never be written by a serialiser in one piece: equality of bytes has to mean something.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from tests.upstream import Received, Reply, Script, Sse

SERVED_MODEL: Final = "gpt-5-2025-08-07"
# The example of the public contract: 224 fresh, 1024 cached, 146 visible and 64 reasoning tokens.
USAGE: Final[Mapping[str, Any]] = {
    "prompt_tokens": 1248,
    "completion_tokens": 210,
    "total_tokens": 1458,
    "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 64,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}


def completion(
    text: str = "Fine, thanks.",
    *,
    answer_id: str = "chatcmpl-C0ffee",
    usage: Mapping[str, Any] | None = USAGE,
    message: Mapping[str, Any] | None = None,
) -> bytes:
    """Write a chat completion whose bytes no serialiser would write again.

    Args:
        text: The answer.
        answer_id: The provider's id of the answer.
        usage: Usage object; ``None`` leaves it out.
        message: Replaces the whole assistant message.

    Returns:
        JSON with odd spacing, a float in exponent form, escapes and an unknown field.
    """
    said = json.dumps(message or {"role": "assistant", "content": text, "refusal": None})
    counted = b"" if usage is None else b'\n  "usage":' + json.dumps(usage).encode() + b","
    return (
        b'{ "id":"%b",  "object": "chat.completion","created":1763894400,\n' % answer_id.encode()
        + b'  "model":"%b", "x_unknown": {"weight": 1e-05, "caf\\u00e9": "\xc3\xa9"},\n'
        % SERVED_MODEL.encode()
        + b'  "choices":[{"index":0,"message":%b,"finish_reason":"stop","logprobs":null}],'
        % said.encode()
        + counted
        + b'\n  "service_tier":"default","system_fingerprint":"fp_1"}\n'
    )


def chunk(delta: Mapping[str, Any] | None, *, finish: str | None = None, **top: Any) -> bytes:
    """Write one chunk of a streamed chat completion.

    Args:
        delta: What the first choice gains; ``None`` for no choices at all.
        finish: Finish reason.
        top: Further fields of the chunk; replaces the usual ones of the same name.

    Returns:
        One line of JSON.
    """
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    fields = {
        "id": "chatcmpl-57ream",
        "object": "chat.completion.chunk",
        "created": 1763894400,
        "model": SERVED_MODEL,
        "choices": choices,
        "usage": None,
        "obfuscation": "aX9\u00e9",
        **top,
    }
    return json.dumps(fields, separators=(",", ": "), ensure_ascii=False).encode()


def spoken(*words: str, **top: Any) -> tuple[bytes, ...]:
    """Write the chunks of a streamed text answer, one a word, with opening and finish."""
    return (
        chunk({"role": "assistant", "content": "", "refusal": None}, **top),
        *(chunk({"content": word}, **top) for word in words),
        chunk({}, finish="stop", **top),
    )


def usage_chunk(usage: Mapping[str, Any] = USAGE, **top: Any) -> bytes:
    """Write the extra chunk that carries usage: no choices."""
    return chunk(None, usage=usage, **top)


WHOLE: Final = Reply(body=completion())
STREAM: Final = Sse(events=spoken("Fine", ", ", "th\u00e4nks", "."), usage=(usage_chunk(),))


def answer_like_openai(received: Received) -> Script:
    """Play ``STREAM`` when the body asks for a stream, else ``WHOLE``."""
    return STREAM if b'"stream":true' in received.body.replace(b" ", b"") else WHOLE
