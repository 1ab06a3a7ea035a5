"""What the demo provider says in each provider's words: whole answers, streams and errors.

Must never say anything a script did not ask for.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.traffic.requests import Script, canned

_PIECES: Final = 6
_TEXT_TOKENS_MAX: Final = 400
_CREATED: Final = 1_763_856_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripted:
    """One answer of the demo provider.

    Attributes:
        status: HTTP status.
        content_type: Of the body.
        chunks: The body in the pieces it is sent in.
        is_cut: Whether the connection breaks off instead of ending.
    """

    status: int
    content_type: str
    chunks: tuple[bytes, ...]
    is_cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What an answer is made from.

    Attributes:
        script: What was asked for.
        model: Model asked for.
        stream: Whether it is streamed.
        with_usage: Whether a stream of OpenAI's chat was asked to tell its usage.
        id: The provider's id of the answer.
    """

    script: Script
    model: str
    stream: bool
    with_usage: bool
    id: str


def answer(path: str, asking: Asking) -> Scripted:
    """Answer in the words of whoever has that path.

    Args:
        path: Of the request.
        asking: What to say.

    Returns:
        The answer; a 404 for a path nobody has.
    """
    dialect = next((write for tail, write in _DIALECTS.items() if tail in path), None)
    if dialect is None:
        return _error(404, "not_found", "the demo provider does not know this address")
    trouble = asking.script.trouble
    if trouble == "busy":
        is_anthropic = "/messages" in path
        return _error(529 if is_anthropic else 429, "overloaded_error", "too busy just now")
    if trouble == "broken":
        return _error(500, "server_error", "something broke")
    said = dialect(asking)
    if trouble == "cut" and asking.stream:
        half = len(said) // 2
        return Scripted(
            status=200, content_type="text/event-stream", chunks=said[:half], is_cut=True
        )
    kind = "text/event-stream" if asking.stream else "application/json"
    return Scripted(status=200, content_type=kind, chunks=said)


def _error(status: int, kind: str, message: str) -> Scripted:
    error = {"type": "error", "error": {"type": kind, "message": message, "code": status}}
    return Scripted(
        status=status, content_type="application/json", chunks=(json.dumps(error).encode(),)
    )


def _texts(script: Script) -> list[str]:
    text = canned(min(script.output - script.reasoning, _TEXT_TOKENS_MAX))
    size = max(1, len(text) // _PIECES)
    return [text[at : at + size] for at in range(0, len(text), size)] or [""]


def _whole(value: Mapping[str, Any]) -> tuple[bytes, ...]:
    return (json.dumps(value).encode(),)


def _event(value: Mapping[str, Any], name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(value)}\n\n".encode()


def _chat(asking: Asking) -> tuple[bytes, ...]:
    script = asking.script
    usage: dict[str, Any] = {
        "prompt_tokens": script.input,
        "completion_tokens": script.output,
        "total_tokens": script.input + script.output,
        "prompt_tokens_details": {"cached_tokens": script.cache_read},
        "completion_tokens_details": {"reasoning_tokens": script.reasoning},
    }
    head: dict[str, Any] = {"id": asking.id, "created": _CREATED, "model": asking.model}
    texts = _texts(script)
    if not asking.stream:
        message = {"role": "assistant", "content": "".join(texts)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return _whole({"object": "chat.completion", **head, "choices": [choice], "usage": usage})
    head["object"] = "chat.completion.chunk"
    choices: list[dict[str, Any]] = [
        {"index": 0, "delta": {"content": text}, "finish_reason": None} for text in texts
    ]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    events = [_event({**head, "choices": [choice]}) for choice in choices]
    if asking.with_usage:
        events.append(_event({**head, "choices": [], "usage": usage}))
    return (*events, b"data: [DONE]\n\n")


def _responses(asking: Asking) -> tuple[bytes, ...]:
    script = asking.script
    texts = _texts(script)
    usage = {
        "input_tokens": script.input,
        "input_tokens_details": {"cached_tokens": script.cache_read},
        "output_tokens": script.output,
        "output_tokens_details": {"reasoning_tokens": script.reasoning},
        "total_tokens": script.input + script.output,
    }
    content = [{"type": "output_text", "text": "".join(texts), "annotations": []}]
    item = {"id": "msg_demo", "type": "message", "role": "assistant", "content": content}
    head = {
        "id": asking.id,
        "object": "response",
        "created_at": _CREATED,
        "model": asking.model,
        "output": [],
        "usage": None,
    }
    done = {**head, "status": "completed", "output": [item], "usage": usage}
    if not asking.stream:
        return _whole(done)
    first: dict[str, Any] = {
        "type": "response.created",
        "response": {**head, "status": "in_progress"},
    }
    deltas: list[dict[str, Any]] = [
        {"type": "response.output_text.delta", "item_id": "msg_demo", "delta": text}
        for text in texts
    ]
    last: dict[str, Any] = {"type": "response.completed", "response": done}
    return tuple(_event(event, str(event["type"])) for event in (first, *deltas, last))


def _embeddings(asking: Asking) -> tuple[bytes, ...]:
    count = asking.script.input
    return _whole(
        {
            "object": "list",
            "model": asking.model,
            "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}],
            "usage": {"prompt_tokens": count, "total_tokens": count},
        }
    )


def _messages(asking: Asking) -> tuple[bytes, ...]:
    script = asking.script
    usage = {
        "input_tokens": script.input - script.cache_read - script.cache_write,
        "cache_creation_input_tokens": script.cache_write,
        "cache_read_input_tokens": script.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": script.cache_write,
            "ephemeral_1h_input_tokens": 0,
        },
        "output_tokens": script.output,
        "service_tier": "standard",
    }
    texts = _texts(script)
    head: dict[str, Any] = {
        "id": asking.id,
        "type": "message",
        "role": "assistant",
        "model": asking.model,
        "stop_sequence": None,
    }
    if not asking.stream:
        content = [{"type": "text", "text": "".join(texts)}]
        return _whole({**head, "content": content, "stop_reason": "end_turn", "usage": usage})
    begun: dict[str, Any] = {
        **head,
        "content": [],
        "stop_reason": None,
        "usage": {**usage, "output_tokens": 1},
    }
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ]
    for text in texts:
        delta = {"type": "text_delta", "text": text}
        events.append({"type": "content_block_delta", "index": 0, "delta": delta})
    events += [
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": script.output},
        },
        {"type": "message_stop"},
    ]
    return tuple(_event(event, str(event["type"])) for event in events)


def _generate(asking: Asking) -> tuple[bytes, ...]:
    script = asking.script
    visible = script.output - script.reasoning
    usage = {
        "promptTokenCount": script.input,
        "cachedContentTokenCount": script.cache_read,
        "candidatesTokenCount": visible,
        "thoughtsTokenCount": script.reasoning,
        "totalTokenCount": script.input + script.output,
    }
    head = {"modelVersion": asking.model, "responseId": asking.id}
    texts = _texts(script) if asking.stream else ["".join(_texts(script))]
    said = []
    for number, text in enumerate(texts, 1):
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}}
        is_last = number == len(texts)
        if is_last:
            candidate["finishReason"] = "STOP"
        tail = {"usageMetadata": usage} if is_last else {}
        said.append({"candidates": [candidate], **tail, **head})
    return tuple(_event(one) for one in said) if asking.stream else _whole(said[0])


_DIALECTS: Final[Mapping[str, Callable[[Asking], tuple[bytes, ...]]]] = {
    "/chat/completions": _chat,
    "/responses": _responses,
    "/embeddings": _embeddings,
    "/messages": _messages,
    "enerateContent": _generate,
}
