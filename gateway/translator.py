"""The child that translates: OpenAI-shaped calls in, litellm's answers out, over pipes.

Must never be imported by a worker: litellm takes seconds to load and more memory than the gateway.
Must never call anything but the gateway's own addresses, and never try a call twice.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, BinaryIO, Final, cast

import litellm
from litellm.responses.litellm_completion_transformation.handler import (
    LiteLLMCompletionTransformationHandler,
)
from openai import OpenAIError

from gateway.translation_frames import ASK, CANCEL, DATA, END, FRAME, HEAD

_INTERNAL: Final = 500
_BAD_REQUEST: Final = 400
# What a library raises on a request or an answer it cannot make sense of.
_TROUBLE: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    OpenAIError,
    RuntimeError,
    TypeError,
    ValueError,
)
_Answer = Any  # litellm's own, of many classes

# What OpenAI's API takes; https://platform.openai.com/docs/api-reference, checked 2026-11-23. What
# is not named here could be an option of the library, such as another address to call.
_CHAT_FIELDS: Final = frozenset(
    {
        "messages",
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "modalities",
        "n",
        "parallel_tool_calls",
        "presence_penalty",
        "reasoning_effort",
        "response_format",
        "seed",
        "service_tier",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    }
)
_RESPONSES_FIELDS: Final = frozenset(
    {
        "input",
        "instructions",
        "max_output_tokens",
        "metadata",
        "parallel_tool_calls",
        "reasoning",
        "stream",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_p",
        "user",
    }
)
# Hints whose loss changes no answer, and what needs nothing done for it.
_UNNEEDED: Final = frozenset({"prompt_cache_key", "prompt_cache_retention", "safety_identifier"})
_MEANINGLESS: Final[Mapping[str, tuple[object, ...]]] = MappingProxyType(
    {
        "background": (False,),
        "include": ([], ["reasoning.encrypted_content"]),
        "store": (False,),
        "truncation": ("disabled",),
    }
)
# What needs something that is kept at OpenAI, and what to do instead.
_ADVICE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "background": "wait for the answer, or stream it",
        "conversation": "send all of the conversation as `input`",
        "previous_response_id": "send all of the conversation as `input`",
        "prompt": "send its text as `instructions` and `input`",
        "store": "leave it out: nothing is kept, so send the conversation with every request",
    }
)
_INPUT_ITEMS: Final = frozenset(
    {
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
    }
)
_TOOLS: Final = frozenset({"function", "custom"})
_SEARCHES: Final = frozenset({"web_search", "web_search_preview"})
_EMBEDDING_FIELDS: Final = frozenset({"input", "dimensions", "encoding_format", "user"})
_FIELDS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "/chat/completions": _CHAT_FIELDS,
        "/responses": _RESPONSES_FIELDS,
        "/embeddings": _EMBEDDING_FIELDS,
    }
)


class _Untranslatable(ValueError):
    """The request cannot be said in the provider's words."""


class Translator:
    """Answers calls side by side, until the parent has gone."""

    def __init__(self, out: BinaryIO) -> None:
        """Begin with no call.

        Args:
            out: Where frames of answers go.
        """
        self._out = out
        self._running: dict[int, asyncio.Task[None]] = {}

    async def serve(self, questions: asyncio.StreamReader) -> None:
        """Answer until there are no more questions.

        Args:
            questions: Frames of the parent's.
        """
        with suppress(asyncio.IncompleteReadError):
            while True:
                size, number, kind = FRAME.unpack(await questions.readexactly(FRAME.size))
                payload = await questions.readexactly(size)
                if kind == CANCEL:
                    running = self._running.get(number)
                    if running is not None:
                        running.cancel()
                    continue
                if kind == ASK:
                    self._begin(number, payload)

    def _begin(self, number: int, payload: bytes) -> None:
        task = asyncio.ensure_future(self._answer(number, payload))
        self._running[number] = task

        def end(done: "asyncio.Task[None]") -> None:
            self._running.pop(number, None)
            if not done.cancelled() and done.exception() is not None:
                self._fail(number, RuntimeError("the translation broke off"))
            self._send(number, END, b"")

        task.add_done_callback(end)

    async def _answer(self, number: int, payload: bytes) -> None:
        try:
            asked = json.loads(payload)
            body = json.loads(asked["body"])
            answer = await _call(asked["path"], _arguments(asked, body))
            if body.get("stream"):
                self._send(number, HEAD, _head(200, "text/event-stream"))
                async for event in _events(answer, asked["path"]):
                    self._send(number, DATA, event)
            else:
                self._send(number, HEAD, _head(200, "application/json"))
                self._send(number, DATA, _whole(answer, asked["path"]))
        except _TROUBLE as failed:
            self._fail(number, failed)

    def _fail(self, number: int, failed: Exception) -> None:
        status, error = _error_of(failed)
        self._send(number, HEAD, _head(status, "application/json"))
        self._send(number, DATA, json.dumps({"error": error}).encode())

    def _send(self, number: int, kind: int, payload: bytes) -> None:
        self._out.write(FRAME.pack(len(payload), number, kind) + payload)
        self._out.flush()


# What ``litellm.aresponses`` comes to for providers without this API. Called by itself because that
# one loads the library's proxy, which can be told to connect to tool servers.
_RESPONSES: Final = LiteLLMCompletionTransformationHandler()


def _call(path: str, arguments: dict[str, Any]) -> Awaitable[_Answer]:
    if path == "/embeddings":
        return cast("Awaitable[_Answer]", litellm.aembedding(**arguments))
    if path == "/responses":
        return cast("Awaitable[_Answer]", _RESPONSES.response_api_handler(**arguments))
    return cast("Awaitable[_Answer]", litellm.acompletion(**arguments))


def _arguments(asked: Mapping[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    known = _FIELDS[asked["path"]]
    if asked["path"] == "/responses":
        body = _plain_response(body)
    odd = sorted(body.keys() - known - {"model"})
    if odd:
        raise _Untranslatable(
            f"{', '.join(odd)}: not translated to {asked['kind']}; "
            + (_ADVICE.get(odd[0]) or "leave it out, or call the provider by its own API")
        )
    arguments = {name: value for name, value in body.items() if name in known}
    if asked["path"] == "/chat/completions" and body.get("stream"):
        arguments.setdefault("stream_options", None)
    prefix, base = _PLACES[asked["kind"], asked["path"] == "/embeddings"]
    model = prefix + asked["model"]
    if asked["path"] == "/responses":
        _check_response(asked, prefix, arguments)
        arguments = _response_arguments(prefix, arguments)
        model = model.partition("/")[2]
    if asked["path"] != "/embeddings":
        # Tools never make the library call tool servers itself, nor load its proxy for that.
        arguments["_skip_mcp_handler"] = True
    if asked["kind"] == "bedrock":
        # Only a name it needs: the address is the gateway's.
        arguments["aws_region_name"] = asked["region"] or "us-east-1"
    return {
        **arguments,
        "model": model,
        "api_base": base.format(base=asked["base"], project=asked["project"]),
        "api_key": asked["key"],
        "extra_headers": asked["headers"],
        "num_retries": 0,
        "max_retries": 0,
        "timeout": asked["timeout_s"],
    }


def _plain_response(body: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what says nothing, and hints that only OpenAI takes."""
    return {
        name: value
        for name, value in body.items()
        if value is not None and name not in _UNNEEDED and value not in _MEANINGLESS.get(name, ())
    }


def _check_response(asked: Mapping[str, Any], prefix: str, arguments: Mapping[str, Any]) -> None:
    """Refuse what the library would drop or what refers to something kept at OpenAI."""
    said = arguments.get("input")
    if not isinstance(said, str | list):
        raise _Untranslatable("input: a text or a list of items is needed")
    for item in said if isinstance(said, list) else ():
        kind = _kind_of(item, "message")
        if kind not in _INPUT_ITEMS:
            raise _Untranslatable(
                f"input of type {kind!r}: not translated to {asked['kind']}; send the messages "
                "themselves, or call the provider by its own API"
            )
    for tool in arguments.get("tools") or ():
        kind = _kind_of(tool, "")
        if kind not in _TOOLS and not (kind in _SEARCHES and _searches(asked, prefix)):
            raise _Untranslatable(
                f"tool of type {kind!r}: not translated to {asked['kind']}; call the provider by "
                "its own API"
            )


def _kind_of(item: object, usual: str) -> str:
    return str(item.get("type") or usual) if isinstance(item, dict) else type(item).__name__


def _searches(asked: Mapping[str, Any], prefix: str) -> bool:
    """Tell whether the library can ask this model to search the web."""
    provider = prefix.partition("/")[0]
    able = litellm.get_supported_openai_params(asked["model"], custom_llm_provider=provider)
    return "web_search_options" in (able or ())


def _response_arguments(prefix: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Sort the fields of a request the way the library's bridge to chats takes them."""
    return {
        "input": arguments["input"],
        "responses_api_request": {
            name: value for name, value in arguments.items() if name not in ("input", "stream")
        },
        "stream": arguments.get("stream"),
        "custom_llm_provider": prefix.partition("/")[0],
        "_is_async": True,
    }


# How litellm names a kind, and the address it is to call; for chat and for embeddings.
_PLACES: Final[Mapping[tuple[str, bool], tuple[str, str]]] = MappingProxyType(
    {
        ("anthropic", False): ("anthropic/", "{base}"),
        ("gemini", False): ("gemini/", "{base}/v1beta"),
        ("gemini", True): ("gemini/", "{base}/v1beta"),
        # Vertex takes Gemini's own requests, at an address that names a project.
        ("vertex", False): ("gemini/", "{base}/v1/{project}/publishers/google"),
        ("vertex", True): ("gemini/", "{base}/v1/{project}/publishers/google"),
        ("bedrock", False): ("bedrock/converse/", "{base}"),
        ("bedrock", True): ("bedrock/", "{base}"),
    }
)


def _head(status: int, content_type: str) -> bytes:
    return json.dumps({"status": status, "content_type": content_type}).encode()


def _whole(answer: _Answer, path: str) -> bytes:
    """Write a whole answer in OpenAI's shape."""
    if path == "/responses":
        return json.dumps(_response_of(answer.model_dump(mode="json", exclude_none=True))).encode()
    written: str = answer.model_dump_json(exclude_none=True)
    return written.encode()


def _response_of(fields: dict[str, Any]) -> dict[str, Any]:
    """Give a response an id as this API has them."""
    name = str(fields.get("id"))
    return fields if name.startswith("resp_") else {**fields, "id": f"resp_{name}"}


async def _events(answer: AsyncIterator[Any], path: str) -> AsyncIterator[bytes]:
    """Write a stream as the events of OpenAI's API."""
    if path == "/responses":
        async for event in _response_events(answer):
            yield event
        return
    try:
        async for chunk in answer:
            data = chunk.model_dump_json(exclude_none=True, exclude_unset=True)
            yield f"data: {data}\n\n".encode()
    except _TROUBLE as failed:
        # The head has gone: it is told inside the stream.
        _, error = _error_of(failed)
        yield f"data: {json.dumps({'error': error})}\n\n".encode()
        return
    yield b"data: [DONE]\n\n"


async def _response_events(answer: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    """Write a stream as the events of the Responses API, numbered as they go out."""
    number = 0
    try:
        async for chunk in answer:
            fields = chunk.model_dump(mode="json", exclude_none=True)
            yield _named(fields, number)
            number += 1
    except _TROUBLE as failed:
        _, error = _error_of(failed)
        told = {"type": "error", **{name: error[name] for name in ("code", "message", "param")}}
        yield _named(told, number)


def _named(fields: dict[str, Any], number: int) -> bytes:
    data = json.dumps({**fields, "sequence_number": number})
    return f"event: {fields['type']}\ndata: {data}\n\n".encode()


def _error_of(failed: Exception) -> tuple[int, dict[str, object]]:
    if isinstance(failed, _Untranslatable):
        error_type, status = "invalid_request_error", _BAD_REQUEST
        told = str(failed)
    else:
        status = getattr(failed, "status_code", None) or _INTERNAL
        error_type = "api_error" if status >= _INTERNAL else "invalid_request_error"
        # Its first line: what follows is a traceback and advice for the library's own users.
        told = str(getattr(failed, "message", None) or failed).partition("\n")[0]
    error: dict[str, object] = {
        "message": told,
        "type": error_type,
        "param": None,
        "code": "translated_call_failed",
    }
    return int(status), error


async def _main(out: BinaryIO) -> None:
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    questions = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(questions), sys.stdin)
    translator = Translator(out)
    await translator.serve(questions)


def main() -> None:
    """Translate until the parent has gone. What libraries print goes to the log."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    asyncio.run(_main(out))


if __name__ == "__main__":
    main()
