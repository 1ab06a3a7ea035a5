"""Ollama's own API: chat, generate and embeddings, streamed as lines unless told otherwise.

Must never take a prompt that Ollama did not count, because it was cached, for an empty one.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from gateway.headers import RawHeaders
from gateway.wire.cutters import LineCutter, json_of
from gateway.wire.endpoints import Endpoint
from gateway.wire.facts import (
    Answer,
    Asked,
    ErrorBody,
    ReplyHead,
    RequestFacts,
    StreamLane,
    free_facts,
)
from gateway.wire.plain_format import EVENTS, LINES, FreeCalls, PlainFormat
from gateway.wire.reading import (
    ABSENT,
    NAME_CHARS_MAX,
    NULLS,
    UNREADABLE,
    SingleFields,
    bytes_seen,
    checked_model,
    is_given,
    keep_text,
    keep_unread,
    mend_surrogates,
    read_name,
    read_quantity,
    refusing,
    try_read,
)
from gateway.wire.tap import Tap
from pricing.meters import Meter
from pricing.usage import NOTHING, Basis, Quantity, Usage, unknown_usage

OLLAMA: Final = frozenset({"ollama"})
# What a model's own template and system text may add to a prompt, unless the request says how
# large the context is. https://docs.ollama.com/modelfile, checked 2026-11-23.
_TEMPLATE_TOKENS_MAX: Final = 8192
_METERS: Final = frozenset({Meter.INPUT, Meter.OUTPUT})
_INPUT: Final = frozenset({Meter.INPUT})
_NO_FEES: Final[Mapping[Meter, Quantity]] = MappingProxyType({})
_SINGLE: Final = SingleFields("model", "messages", "prompt", "stream", "options", "images", "input")
# Loading a model into memory and out of it generates nothing.
_IDLE: Final = frozenset({"load", "unload"})


class _Options(msgspec.Struct):
    num_predict: int | None = None
    num_ctx: int | None = None


class _Request(msgspec.Struct):
    model: str
    stream: bool | None = None
    options: _Options | None = None
    images: msgspec.Raw = ABSENT
    messages: list["_Asked"] | None = None


class _Asked(msgspec.Struct):
    content: str | None = None
    thinking: str | None = None
    images: msgspec.Raw = ABSENT
    tool_calls: msgspec.Raw = ABSENT


class _Prompt(msgspec.Struct):
    messages: list[_Asked] | None = None
    tools: msgspec.Raw = ABSENT
    format: msgspec.Raw = ABSENT
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    input: str | list[str] | None = None
    images: msgspec.Raw = ABSENT
    context: msgspec.Raw = ABSENT


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    tool_calls: msgspec.Raw = ABSENT


class _Part(msgspec.Struct, gc=False):
    """One object of a stream, or a whole answer."""

    model: str | None = None
    message: _Message | None = None
    response: str | None = None
    thinking: str | None = None
    done: bool | None = None
    done_reason: str | None = None
    prompt_eval_count: msgspec.Raw = ABSENT
    eval_count: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT


class _OddPart(msgspec.Struct, gc=False):
    """The same with every field unread, to be read one by one where some are odd."""

    model: msgspec.Raw = ABSENT
    done: msgspec.Raw = ABSENT
    done_reason: msgspec.Raw = ABSENT
    prompt_eval_count: msgspec.Raw = ABSENT
    eval_count: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT
    embeddings: msgspec.Raw = ABSENT
    embedding: msgspec.Raw = ABSENT


class _Named(msgspec.Struct):
    model: str | None = None
    name: str | None = None
    stream: bool | None = None


_decode_request: Final = msgspec.json.Decoder(_Request).decode
_decode_prompt: Final = msgspec.json.Decoder(_Prompt).decode
_decode_part: Final = msgspec.json.Decoder(_Part).decode
_decode_odd: Final = msgspec.json.Decoder(_OddPart).decode
_decode_named: Final = msgspec.json.Decoder(_Named).decode


class OllamaDialect:
    """The error shape of Ollama's API."""

    def shape_error(self, error: ErrorBody) -> bytes:
        """Write a refusal in Ollama's error shape.

        Args:
            error: The refusal.

        Returns:
            JSON with ``error``, and the code and facts of the refusal beside it.

        Source:
            https://docs.ollama.com/api/errors, checked 2026-11-23.
        """
        said = {"error": error.message, "code": error.code, "type": error.kind, **error.details}
        return msgspec.json.encode(said)

    def shape_stream_error(self, error: ErrorBody) -> bytes:
        """Write trouble as one more line.

        Args:
            error: What went wrong.

        Returns:
            The object on a line of its own; Ollama's clients raise when they read it.
        """
        return self.shape_error(error) + b"\n"

    def shape_stream_facts(self, facts: RawHeaders) -> bytes:
        """Write cost facts, for which lines of JSON have no place.

        Args:
            facts: Header names and values.

        Returns:
            Nothing: there are no comments.
        """
        return b""

    def error_headers(self, error: ErrorBody) -> RawHeaders:
        """List what a refusal has beside its content type.

        Args:
            error: The refusal.

        Returns:
            Nothing: clients read the body.
        """
        return []


class Lines:
    """Reads the lines of an answer.

    Attributes:
        answer: What has been seen so far.
    """

    __slots__ = ("answer",)

    def __init__(self) -> None:
        self.answer = Answer()

    def take(self, event: bytes) -> bool:
        """Read one line.

        Args:
            event: With its line end.

        Returns:
            Whether it is the last, which says ``done``.
        """
        data = json_of(event)
        if not data:
            return False
        try:
            part = _decode_part(data)
        except UNREADABLE:
            return self._take_odd(data)
        _fold(self.answer, part)
        return bool(part.done)

    def _take_odd(self, data: bytes) -> bool:
        odd = try_read(_decode_odd, msgspec.Raw(mend_surrogates(data)))
        if odd is None:
            return False
        keep_unread(self.answer, data)
        is_done = bytes(odd.done) == b"true"
        _fold(
            self.answer,
            _Part(
                model=read_name(odd.model),
                done=is_done,
                done_reason=read_name(odd.done_reason),
                prompt_eval_count=odd.prompt_eval_count,
                eval_count=odd.eval_count,
                error=odd.error,
            ),
        )
        return is_done


class OllamaText(PlainFormat, OllamaDialect):
    """The wire format of ``POST /api/chat`` and ``/api/generate``.

    Attributes:
        api: Its name in the ledger.
        stream_types: Content types, or how they begin, of an answer that is passed on as it comes.
    """

    stream_types: tuple[str, ...] = (EVENTS, *LINES)

    def __init__(self, api: str) -> None:
        """Take a name.

        Args:
            api: Of the call, in the ledger.
        """
        self.api = api

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts. It streams unless it says that it does not. The size of the context, where
            it is given, bounds the prompt; images leave it unbounded else.

        Raises:
            BadRequest: Not JSON, no model, a field of the wrong type or given twice.

        Source:
            https://docs.ollama.com/api/chat and https://docs.ollama.com/api/generate, checked
            2026-11-23.
        """
        with refusing("an Ollama request"):
            request = _decode_request(asked.body)
        _SINGLE.check(asked.body)
        options = request.options or _Options()
        predict, context = options.num_predict or 0, options.num_ctx or 0
        has_images = _is_filled(request.images) or any(
            _is_filled(message.images) for message in request.messages or ()
        )
        inputs = None if has_images else bytes_seen(asked.body) + _TEMPLATE_TOKENS_MAX
        return RequestFacts(
            model=checked_model(request.model),
            stream=request.stream is not False,
            wants_usage=True,
            tier=None,
            input_tokens_max=context if context > 0 else inputs,
            output_tokens_max=predict if predict > 0 else None,
            choices=1,
            extra_output_max=0,
            meters=_METERS,
            fees=_NO_FEES,
        )

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> StreamLane:
        """Begin to read a streamed answer.

        Args:
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            A lane for its lines.
        """
        return Tap(LineCutter(), Lines())

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            What it says.
        """
        return read_answer(body)

    def read_prompt(self, asked: Asked) -> list[str] | None:
        """Read the texts of a prompt for counting.

        Args:
            asked: The request as it came.

        Returns:
            Everything that is text; ``None`` where there is an image, or the tokens of an earlier
            answer.
        """
        try:
            prompt = _decode_prompt(asked.body)
        except UNREADABLE:
            return None
        messages = prompt.messages or []
        if any(map(_is_filled, (prompt.images, prompt.context, *(m.images for m in messages)))):
            return None
        asked_for = prompt.input if isinstance(prompt.input, list) else [prompt.input or ""]
        texts = [prompt.system, prompt.prompt, prompt.suffix, *asked_for]
        for message in messages:
            texts += [message.content, message.thinking, _shown(message.tool_calls)]
        return [text for text in (*texts, _shown(prompt.tools)) if text]


class OllamaEmbed(OllamaText):
    """The wire format of ``POST /api/embed`` and the older ``/api/embeddings``."""

    stream_types: tuple[str, ...] = (EVENTS,)

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts: no output.

        Raises:
            BadRequest: Not JSON, no model, a field of the wrong type or given twice.

        Source:
            https://docs.ollama.com/api/embed, checked 2026-11-23.
        """
        with refusing("an Ollama request"):
            request = _decode_request(asked.body)
        _SINGLE.check(asked.body)
        return RequestFacts(
            model=checked_model(request.model),
            stream=False,
            wants_usage=True,
            tier=None,
            input_tokens_max=bytes_seen(asked.body) + _TEMPLATE_TOKENS_MAX,
            output_tokens_max=0,
            choices=1,
            extra_output_max=0,
            meters=_INPUT,
            fees=_NO_FEES,
        )


class OllamaFree(FreeCalls, OllamaDialect):
    """The wire format of calls that generate nothing: lists, and the keeping of models."""

    api = "ollama.free"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read the model, so that a key reaches only models it may call.

        Args:
            asked: The request as it came.

        Returns:
            Facts whose ceiling is zero.
        """
        named = None
        if asked.body.lstrip().startswith(b"{"):
            named = try_read(_decode_named, msgspec.Raw(asked.body))
        if named is None:
            return free_facts()
        return free_facts(checked_model(named.model or named.name or ""))

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> StreamLane:
        """Begin to pass progress on, line by line.

        Args:
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            A lane of which nothing is read.
        """
        return Tap(LineCutter(), Lines())


def read_answer(body: bytes) -> Answer:
    """Read a whole answer.

    Args:
        body: The answer as it came.

    Returns:
        What it says; not readable when it is no answer of Ollama's.
    """
    lines = Lines()
    lines.take(body)
    answer = lines.answer
    part = try_read(_decode_odd, msgspec.Raw(mend_surrogates(body)))
    if part is None or answer.usage is not None or answer.is_error:
        return answer
    if is_given(part.embeddings) or is_given(part.embedding):
        count = read_quantity(part.prompt_eval_count)
        answer.text.clear()
        answer.text_chars = 0
        answer.is_readable = answer.is_finished = answer.is_complete = True
        answer.usage = _usage_of(answer, count, 0)
    return answer


def _fold(answer: Answer, part: _Part) -> None:
    answer.is_readable |= part.done is not None
    if part.model:
        answer.model = part.model[:NAME_CHARS_MAX]
    if part.message is not None:
        keep_text(answer, part.message.content)
        keep_text(answer, part.message.thinking)
        if is_given(part.message.tool_calls):
            keep_unread(answer, bytes(part.message.tool_calls))
    keep_text(answer, part.response)
    keep_text(answer, part.thinking)
    if is_given(part.error):
        answer.is_error = True
    if not part.done:
        return
    answer.is_finished = answer.is_complete = True
    answer.usage_chars = answer.text_chars
    if part.done_reason in _IDLE:
        answer.usage = NOTHING
        return
    output = read_quantity(part.eval_count)
    if output is None:
        told = bytes(part.eval_count)[:40].decode("utf-8", "replace")
        answer.usage = unknown_usage(f"eval_count is no usable count: {told or 'missing'}")
        return
    prompt = read_quantity(part.prompt_eval_count)
    answer.usage = _usage_of(answer, prompt, output)


def _usage_of(answer: Answer, prompt: Quantity | None, output: Quantity) -> Usage:
    """Count what Ollama counted; a prompt that it read from its cache it may leave out."""
    named = ((Meter.INPUT, prompt), (Meter.OUTPUT, output))
    counts = {meter: count for meter, count in named if count}
    answer.lacks_input = prompt is None
    return Usage(counts=counts, basis=Basis.REPORTED)


def _is_filled(raw: msgspec.Raw) -> bool:
    return bytes(raw).replace(b" ", b"") not in NULLS | {b"[]"}


def _shown(raw: msgspec.Raw) -> str:
    return bytes(raw).decode("utf-8", "replace") if _is_filled(raw) else ""


_EMBED: Final = OllamaEmbed("ollama.embed")
_FREE: Final = OllamaFree()


def _free(path: str, *methods: str) -> Endpoint:
    return Endpoint(kinds=OLLAMA, path=path, format=_FREE, methods=frozenset(methods))


# Source: https://docs.ollama.com/api, checked 2026-11-23.
ENDPOINTS: Final = (
    Endpoint(kinds=OLLAMA, path="/api/chat", format=OllamaText("ollama.chat")),
    Endpoint(kinds=OLLAMA, path="/api/generate", format=OllamaText("ollama.generate")),
    Endpoint(kinds=OLLAMA, path="/api/embed", format=_EMBED),
    Endpoint(kinds=OLLAMA, path="/api/embeddings", format=_EMBED),
    _free("/api/tags", "GET"),
    _free("/api/ps", "GET"),
    _free("/api/version", "GET"),
    _free("/api/show", "POST"),
    _free("/api/pull", "POST"),
    _free("/api/push", "POST"),
    _free("/api/create", "POST"),
    _free("/api/copy", "POST"),
    _free("/api/delete", "DELETE"),
    _free("/api/blobs/{digest}", "POST", "HEAD"),
)
