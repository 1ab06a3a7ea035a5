"""Answers as Bedrock writes them, by an encoder that knows nothing of the gateway's."""

import base64
import json
import struct
import zlib
from typing import Any, Final

CONVERSE_USAGE: Final = {
    "inputTokens": 224,
    "outputTokens": 210,
    "totalTokens": 1746,
    "cacheReadInputTokens": 1024,
    "cacheWriteInputTokens": 288,
    "cacheDetails": [{"ttl": "1h", "inputTokens": 32}, {"ttl": "5m", "inputTokens": 256}],
}
CONVERSE: Final = {
    "metrics": {"latencyMs": 1234},
    "output": {"message": {"content": [{"text": "Fine, thänks."}], "role": "assistant"}},
    "stopReason": "end_turn",
    "usage": CONVERSE_USAGE,
}


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """Write one message of an event stream."""
    block = b"".join(
        struct.pack("!B", len(name))
        + name.encode()
        + struct.pack("!BH", 7, len(value.encode()))
        + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack("!II", 16 + len(block) + len(payload), len(block))
    head = prelude + struct.pack("!I", zlib.crc32(prelude)) + block + payload
    return head + struct.pack("!I", zlib.crc32(head))


def event(name: str, said: Any) -> bytes:
    """Write an event."""
    headers = {
        ":event-type": name,
        ":content-type": "application/json",
        ":message-type": "event",
    }
    return frame(headers, json.dumps(said, ensure_ascii=False).encode())


def exception(name: str, message: str) -> bytes:
    """Write trouble."""
    headers = {
        ":exception-type": name,
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return frame(headers, json.dumps({"message": message}).encode())


def chunk(said: Any) -> bytes:
    """Write an event of a stream of InvokeModel."""
    inner = json.dumps(said, ensure_ascii=False).encode()
    return event("chunk", {"bytes": base64.b64encode(inner).decode(), "p": "abcdef"})


def delta(text: str) -> bytes:
    """Write a piece of text of ConverseStream."""
    return event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}, "p": "ab"})


def metadata(usage: Any = CONVERSE_USAGE, **further: Any) -> bytes:
    """Write what closes ConverseStream."""
    return event("metadata", {"metrics": {"latencyMs": 900}, "p": "x", "usage": usage, **further})


STOP: Final = event("messageStop", {"p": "abc", "stopReason": "end_turn"})
SPOKEN: Final = (
    event("messageStart", {"p": "abcd", "role": "assistant"}),
    delta("Fine"),
    delta(", "),
    delta("thänks"),
    delta("."),
    event("contentBlockStop", {"contentBlockIndex": 0, "p": "a"}),
    STOP,
)
CONVERSE_STREAM: Final = (*SPOKEN, metadata())

# As Anthropic's models stream through InvokeModel: usage twice, inside and in the metrics.
CLAUDE_USAGE: Final = {
    "input_tokens": 224,
    "cache_creation_input_tokens": 288,
    "cache_read_input_tokens": 1024,
    "cache_creation": {"ephemeral_5m_input_tokens": 256, "ephemeral_1h_input_tokens": 32},
    "output_tokens": 210,
}
CLAUDE: Final = {
    "model": "claude-sonnet-4-5-20250929",
    "id": "msg_bdrk_01",
    "type": "message",
    "role": "assistant",
    "content": [{"type": "text", "text": "Fine, thänks."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": CLAUDE_USAGE,
}
CLAUDE_METRICS: Final = {
    "inputTokenCount": 224,
    "outputTokenCount": 210,
    "invocationLatency": 1500,
    "firstByteLatency": 500,
    "cacheReadInputTokenCount": 1024,
    "cacheWriteInputTokenCount": 288,
}
CLAUDE_STREAM: Final = (
    chunk(
        {
            "type": "message_start",
            "message": {
                **CLAUDE,
                "content": [],
                "stop_reason": None,
                "usage": {**CLAUDE_USAGE, "output_tokens": 2},
            },
        }
    ),
    chunk(
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    ),
    chunk(
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "Fine, "},
        }
    ),
    chunk(
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "thänks."},
        }
    ),
    chunk({"type": "content_block_stop", "index": 0}),
    chunk(
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 210},
        }
    ),
    chunk({"type": "message_stop", "amazon-bedrock-invocationMetrics": CLAUDE_METRICS}),
)
