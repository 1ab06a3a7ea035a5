"""OpenAI Chat Completions: request facts, the body to send and the error shape.

Must never re-encode a body; bytes are spliced or passed on.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Final, Self
from unicodedata import is_normalized, normalize

import msgspec

from gateway.wire.facts import Answer, Asked, BadRequest, ReplyHead, RequestFacts, StreamLane
from gateway.wire.openai_answer import (
    ABSENT,
    NAME_CHARS_MAX,
    NULLS,
    OPENAI_MAKE,
    UNREADABLE,
    ChatStream,
    Make,
    read_answer,
    read_tier,
)
from gateway.wire.openai_dialect import OpenAIDialect
from gateway.wire.openai_further import (
    Further,
    OwnTool,
    asks_elsewhere,
    brings_kept,
    is_plain,
    runs_tools,
    searches_aside,
)
from gateway.wire.splice import Member, replace_spans, scan_members
from pricing.meters import Meter
from pricing.rates import NO_VARIANTS
from pricing.usage import Quantity

# Tokens of a byte-level BPE text never outnumber its UTF-8 bytes, and the JSON around each message
# is longer than the few tokens that frame it. The constant covers what a provider adds by itself.
_NEVER_THINKS: Final = ("gpt-3.5", "gpt-4", "chatgpt-4o", "demo-")
# These models search for every prompt, asked or not.
_SEARCHES: Final = "-search-"
INPUT_TOKENS_SPARE: Final = 512
# How OpenAI frames a chat for its models; only for estimates.
TOKENS_PER_MESSAGE: Final = 3
TOKENS_PER_REPLY: Final = 3

_TEXT_METERS: Final = frozenset(
    {
        Meter.INPUT,
        Meter.CACHE_READ,
        Meter.CACHE_WRITE,
        Meter.CACHE_WRITE_12H,
        Meter.OUTPUT,
        Meter.REASONING,
    }
)
_IMAGE_METERS: Final = frozenset({Meter.INPUT_IMAGE, Meter.CACHE_READ_IMAGE})
_AUDIO_METERS: Final = frozenset({Meter.INPUT_AUDIO, Meter.CACHE_READ_AUDIO, Meter.OUTPUT_AUDIO})

# Source: https://platform.openai.com/docs/api-reference/chat/create, checked 2026-11-23.
_SEARCH_SIZES: Final = MappingProxyType(
    {size: MappingProxyType({Meter.WEB_SEARCH: size}) for size in ("low", "medium", "high")}
)

# Names whose repetition would let the provider read another value than we did.
_SINGLE: Final = frozenset(
    {
        "model",
        "messages",
        "stream",
        "stream_options",
        "n",
        "max_tokens",
        "max_completion_tokens",
        "service_tier",
        "modalities",
        "web_search_options",
        "prediction",
        "best_of",
        "tools",
        *Further.__struct_fields__,
    }
)
# Content parts whose tokens the bytes of the request bound; anything else may point elsewhere.
_SIZED_PARTS: Final = frozenset({"text", "refusal"})
# One pass over the body: every quoted name that is worth a closer look.
_NOTABLE: Final = re.compile(
    rb'"(model|messages|stream|stream_options|n|max_tokens|max_completion_tokens|service_tier'
    rb'|modalities|web_search_options|prediction|best_of)"'
)
_ESCAPED_ASCII: Final = re.compile(rb"\\u00[0-7]")


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Plain(msgspec.Struct, gc=False):
    """A message of nothing but text: what is anything else does not decode."""

    content: str | None = None
    audio: None = None


class _Fields(Further, kw_only=True):
    """The fields of a request beside its messages."""

    # Azure has the deployment in the address instead.
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    service_tier: str | None = None
    modalities: list[str] | None = None
    best_of: int | None = None
    web_search_options: msgspec.Raw = ABSENT
    prediction: msgspec.Raw = ABSENT


class _PlainRequest(_Fields, kw_only=True):
    messages: list[_Plain]
    tools: list[OwnTool] | None = None


class _Request(_Fields, kw_only=True):
    messages: msgspec.Raw
    tools: msgspec.Raw = ABSENT


class _SearchOptions(msgspec.Struct):
    search_context_size: str | None = None


class _Part(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    refusal: str | None = None


class _Kind(msgspec.Struct):
    """A part as far as its type, and what it would hold were it of another one."""

    type: str | None = None
    image_url: msgspec.Raw = ABSENT
    input_audio: msgspec.Raw = ABSENT
    file: msgspec.Raw = ABSENT


class _Asked(msgspec.Struct):
    content: msgspec.Raw = ABSENT
    audio: msgspec.Raw = ABSENT
    tool_calls: msgspec.Raw = ABSENT


class _Prompt(Further):
    messages: list[_Asked]
    tools: msgspec.Raw = ABSENT
    functions: msgspec.Raw = ABSENT
    response_format: msgspec.Raw = ABSENT


_decode_request = msgspec.json.Decoder(_Request).decode
_decode_plain = msgspec.json.Decoder(_PlainRequest).decode
_decode_asked = msgspec.json.Decoder(list[_Asked]).decode
_decode_prompt = msgspec.json.Decoder(_Prompt).decode
_decode_parts = msgspec.json.Decoder(list[_Part]).decode
_decode_kinds = msgspec.json.Decoder(list[_Kind]).decode
_decode_text = msgspec.json.Decoder(str).decode
_NO_FEES: Final[Mapping[Meter, Quantity]] = MappingProxyType({})
_ONE_SEARCH: Final[Mapping[Meter, Quantity]] = MappingProxyType({Meter.WEB_SEARCH: 1})


def always(asked: Asked) -> bool:
    """Say that every stream may be asked for its usage.

    Args:
        asked: The request.

    Returns:
        Yes.
    """
    return True


def never(asked: Asked) -> bool:
    """Say that no stream may be asked for its usage: it comes unasked, or is not known.

    Args:
        asked: The request.

    Returns:
        No.
    """
    return False


def bill_by_status(status: int, body: bytes) -> bool | None:
    """Say that nothing but the status tells whether an answer is billed.

    Args:
        status: HTTP status.
        body: The answer.

    Returns:
        Nothing.
    """
    return None


class OpenAIChat(OpenAIDialect):
    """The wire format of ``POST /chat/completions``.

    Attributes:
        api: Its name in the ledger.
        stream_types: Content types of an answer that is passed on as it comes.
        make: How the provider's answers differ.
        asks_usage: Tells whether a stream may be asked for its usage.
        is_billed: Tells whether an answer is billed, where the status tells the wrong thing.
    """

    api = "openai.chat"
    stream_types: tuple[str, ...] = ("text/event-stream",)

    def __init__(
        self,
        make: Make = OPENAI_MAKE,
        *,
        asks_usage: Callable[[Asked], bool] = always,
        is_billed: Callable[[int, bytes], bool | None] = bill_by_status,
    ) -> None:
        """Take what is particular to the provider.

        Args:
            make: How its answers differ.
            asks_usage: Tells whether a stream may be asked for its usage.
            is_billed: Tells whether an answer is billed, where the status tells the wrong thing.
        """
        self.make = make
        self.asks_usage = asks_usage
        self.is_billed = is_billed

    @classmethod
    def like(cls, other: "OpenAIChat") -> Self:
        """Make a format with what is particular to another one's provider.

        Args:
            other: A format of the same provider.

        Returns:
            The format.
        """
        return cls(other.make, asks_usage=other.asks_usage, is_billed=other.is_billed)

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts; bounds are never too small.

        Raises:
            BadRequest: Not JSON, not an object, no model, a field of the wrong type, or a field
                given twice, which two readers could read differently.

        Source:
            https://platform.openai.com/docs/api-reference/chat/create, checked 2026-11-23.
        """
        body = asked.body
        request: _Fields
        wider = None
        has_parts = is_open = False
        try:
            # Mostly the messages are nothing but text, and one pass tells.
            request = _decode_plain(body)
        except UNREADABLE:
            request = wider = _read_request(body)
            has_parts = _has_unsized(wider.messages)
            is_open = runs_tools(wider.tools)
        has_further = not is_plain(request)
        notable = _NOTABLE.findall(body)
        is_doubtful = has_further or len(notable) > len(set(notable)) or has_escapes(body)
        # Tools given twice decode twice above, but not beside what is no text.
        if is_doubtful or (wider is not None and body.count(b'"tools"') > 1):
            refuse_repeats(body)
        model = model_of(asked, request.model, "a chat completion request").removeprefix(
            self.make.publisher
        )
        is_searching = (
            request.web_search_options is not ABSENT
            and bytes(request.web_search_options) not in NULLS
        ) or _SEARCHES in model
        if has_further:
            is_searching = searches_aside(request) or is_searching
            is_open = is_open or asks_elsewhere(request)
            has_parts = has_parts or brings_kept(request)
        choices = max(1, request.n or 1, request.best_of or 1)
        limit = request.max_completion_tokens or 0
        if request.max_tokens is not None and request.max_tokens > limit:
            limit = request.max_tokens
        return RequestFacts(
            model=model,
            stream=bool(request.stream),
            # A stream that is not asked for its usage is left alone.
            wants_usage=bool(request.stream_options and request.stream_options.include_usage)
            or not self.asks_usage(asked),
            tier=read_tier(request.service_tier, self.make.tiers),
            input_tokens_max=(
                None
                if has_parts or is_searching or is_open
                else bytes_of(body) + INPUT_TOKENS_SPARE
            ),
            output_tokens_max=limit * choices if limit > 0 else None,
            choices=choices,
            # Rejected prediction tokens are billed as output on top of the answer.
            extra_output_max=(
                0 if request.prediction is ABSENT else len(bytes(request.prediction))
            ),
            meters=_meters_of(request, has_parts=has_parts),
            fees=_ONE_SEARCH if is_searching else _NO_FEES,
            variants=_search_size(request.web_search_options) if is_searching else NO_VARIANTS,
            rounds=None if is_open else 1,
        )

    def prepare_body(self, asked: Asked, facts: RequestFacts, model: str) -> bytes:
        """Make the body to send.

        Args:
            asked: The request as it came.
            facts: What was read of it.
            model: The provider's own name of the model.

        Returns:
            The same bytes, but for the model name where it differs and for
            ``stream_options.include_usage`` where a stream did not ask for it.
        """
        body = asked.body
        is_renamed = model != facts.model
        if not is_renamed and (not facts.stream or facts.wants_usage):
            return body
        if not is_renamed and b'"stream_options"' not in body and not has_escapes(body):
            start = body.index(b"{") + 1
            return body[:start] + b'"stream_options":{"include_usage":true},' + body[start:]
        members = {member.name: member for member in scan_members(body)}
        edits = []
        if is_renamed:
            edits.append((members["model"].start, members["model"].end, json.dumps(model).encode()))
        if facts.stream and not facts.wants_usage:
            edits += _usage_option(body, members.get("stream_options"))
        return replace_spans(body, edits)

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> StreamLane:
        """Begin to read a streamed answer.

        Args:
            facts: What the client asked for; decides whether the usage chunk is passed on.
            head: Status and headers of the answer.

        Returns:
            A lane for the bytes of the answer.
        """
        return ChatStream(strips_usage=not facts.wants_usage, make=self.make)

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            What it says; not readable when it is not a chat completion.
        """
        answer = read_answer(body, self.make)
        answer.is_billed = self.is_billed(head.status, body)
        if answer.is_billed:
            # An error that is billed all the same says nothing of its size.
            answer.is_readable = False
        return answer

    def may_think(self, model: str) -> bool:
        """Tell whether a model can produce output that is billed and never shown.

        Args:
            model: Under the provider's own name.

        Returns:
            False only for the families known not to.

        Source:
            https://platform.openai.com/docs/guides/reasoning, checked 2026-11-23.
        """
        return not model.startswith(_NEVER_THINKS)

    def read_prompt(self, asked: Asked) -> list[str] | None:
        """Read the texts of a prompt for counting.

        Args:
            asked: The request as it came.

        Returns:
            Message texts, tool calls and tool definitions; ``None`` when a part, such as an image,
            is not text, or when anything cannot be read as text.
        """
        try:
            prompt = _decode_prompt(asked.body)
            if runs_tools(prompt.tools) or asks_elsewhere(prompt) or brings_kept(prompt):
                return None  # what was read beside the messages is not here
            texts = [text for message in prompt.messages for text in _texts_of(message)]
            for shown in (prompt.tools, prompt.functions, prompt.response_format):
                texts.append(bytes(shown).decode())
        except (*UNREADABLE, _MoreThanText):
            return None
        return [text for text in texts if text]


def model_of(asked: Asked, named: str | None, what: str) -> str:
    """Find the model of a request: the deployment in the address, else the body's.

    Args:
        asked: The request.
        named: What the body says.
        what: What the request is, for the message.

    Returns:
        Its name.

    Raises:
        BadRequest: There is none, or it is too long.
    """
    model = asked.names.get("deployment") or named
    if model is None:
        raise BadRequest(f"the request body is not {what}: it has no `model`")
    if len(model) > NAME_CHARS_MAX:
        raise BadRequest(f"the model name is longer than {NAME_CHARS_MAX} characters")
    return model


def _read_request(body: bytes) -> _Request:
    try:
        return _decode_request(body)
    except (msgspec.ValidationError, UnicodeDecodeError) as wrong:
        raise BadRequest(f"the request body is not a chat completion request: {wrong}") from None
    except msgspec.DecodeError as broken:
        raise BadRequest(f"the request body is not JSON: {broken}") from None
    except RecursionError:
        raise BadRequest("the request body is nested too deeply") from None


def _meters_of(request: _Fields, *, has_parts: bool) -> frozenset[Meter]:
    if has_parts:
        return _TEXT_METERS | _IMAGE_METERS | _AUDIO_METERS
    if request.modalities and "audio" in request.modalities:
        return _TEXT_METERS | _AUDIO_METERS
    return _TEXT_METERS


def _search_size(options: msgspec.Raw) -> Mapping[Meter, str]:
    """How much a search reads, which some models charge for; medium unless the request says."""
    try:
        asked = msgspec.json.decode(options or b"{}", type=_SearchOptions)
    except msgspec.DecodeError:
        return NO_VARIANTS  # any size, as far as we know: the dearest is held
    return _SEARCH_SIZES.get(asked.search_context_size or "medium", NO_VARIANTS)


def has_escapes(body: bytes) -> bool:
    """Tell whether a name may be spelt with escapes.

    Args:
        body: JSON.

    Returns:
        Whether it holds an escape that could stand for a letter.
    """
    return b"\\" in body and _ESCAPED_ASCII.search(body) is not None


def refuse_repeats(body: bytes, single: AbstractSet[str] = _SINGLE) -> None:
    """Refuse a field given twice.

    Args:
        body: A JSON object; asked only when a cheap look found that it could be so.
        single: Names that matter.

    Raises:
        BadRequest: One of them stands there more than once.
    """
    names = Counter(member.name for member in scan_members(body))
    for name, count in names.items():
        if count > 1 and name in single:
            raise BadRequest(f"the request body gives {name!r} more than once; give it once")


def bytes_of(body: bytes) -> int:
    """Count the bytes a tokenizer sees: some compose the text first, and a few signs grow.

    Args:
        body: JSON.

    Returns:
        As many or more.
    """
    if body.isascii():
        return len(body)  # an escaped sign is never shorter than what becomes of it
    text = body.decode("utf-8", "replace")
    if is_normalized("NFC", text):
        return len(body)
    return max(len(body), len(normalize("NFC", text).encode("utf-8", "replace")))


def _has_unsized(messages: msgspec.Raw) -> bool:
    """Tell whether a message holds what its bytes do not bound, by any reading of it."""
    read = _read_messages(messages)
    # Of a repeated name another reader may take another value than we do.
    return any(map(_is_unsized, read)) or bytes(messages).count(b'"content"') > len(read)


def _read_messages(messages: msgspec.Raw) -> list[_Asked]:
    try:
        return _decode_asked(messages)
    except UNREADABLE as wrong:
        raise BadRequest(f"the messages are not chat messages: {wrong}") from None


def _is_unsized(message: _Asked) -> bool:
    if bytes(message.audio) not in NULLS:
        return True
    content = bytes(message.content)
    if content in NULLS or content.startswith(b'"'):
        return False
    try:
        return any(map(_is_unsized_part, _decode_kinds(content)))
    except UNREADABLE:
        return True


def _is_unsized_part(part: _Kind) -> bool:
    return part.type not in _SIZED_PARTS or any(
        bytes(held) not in NULLS for held in (part.image_url, part.input_audio, part.file)
    )


class _MoreThanText(Exception):
    """A message holds what cannot be counted as text."""


def _texts_of(message: _Asked) -> Iterator[str]:
    if bytes(message.audio) not in NULLS:
        raise _MoreThanText
    content = bytes(message.content)
    if content.startswith(b"["):
        for part in _decode_parts(content):
            if part.type not in _SIZED_PARTS:
                raise _MoreThanText
            yield part.text or part.refusal or ""
    elif content not in NULLS:
        yield _decode_text(content)
    yield bytes(message.tool_calls).decode()


def _usage_option(body: bytes, options: Member | None) -> list[tuple[int, int, bytes]]:
    """Make the edits that ask for the usage chunk."""
    if options is None:
        start = body.index(b"{") + 1
        return [(start, start, b'"stream_options":{"include_usage":true},')]
    given = body[options.start : options.end]
    if given.strip() == b"null":
        return [(options.start, options.end, b'{"include_usage":true}')]
    members = scan_members(given)
    edits = [
        (options.start + member.start, options.start + member.end, b"true")
        for member in members
        if member.name == "include_usage"
    ]
    if not edits:
        start = body.index(b"{", options.start) + 1
        edits.append((start, start, b'"include_usage":true' + (b"," if members else b"")))
    return edits
