"""OpenAI's image calls: generations, edits and variations.

Must never read a picture: what is billed stands beside it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from gateway.wire.cutters import SseCutter
from gateway.wire.facts import Answer, Asked, BadRequest, OtherUse, ReplyHead, RequestFacts
from gateway.wire.multipart import scan_form, text_of
from gateway.wire.openai_answer import NAME_CHARS_MAX, NULLS, OPENAI_MAKE, UNREADABLE, Make
from gateway.wire.openai_audio import rename_in_form
from gateway.wire.openai_chat import INPUT_TOKENS_SPARE, OpenAIChat, bytes_of, model_of
from gateway.wire.openai_kinds import CHATS
from gateway.wire.openai_places import rows
from gateway.wire.openai_text import read_body
from gateway.wire.openai_usage import PromptDetails, UsageObject, read_usage, whole_of
from gateway.wire.sse import data_of
from gateway.wire.tap import Tap
from gateway.wire.told_cost import fields_in
from pricing.meters import Meter
from pricing.rates import NO_VARIANTS
from pricing.usage import Basis, Quantity, Usage

_SUCCESS_BELOW: Final = 300
# The largest picture of any model has some 6,300 tokens, and one that is shown to it as many.
# Source: https://platform.openai.com/docs/guides/image-generation, "Cost and latency", checked
# 2026-11-23. Ten times that leaves room for the pictures of models to come.
_TOKENS_PER_IMAGE_MAX: Final = 65_536
_TOKENS_PER_IMAGE_SHOWN_MAX: Final = 16_384
# Most pictures an edit takes.
_SHOWN_MAX: Final = 16
_TOKEN_METERS: Final = frozenset(
    {
        Meter.INPUT,
        Meter.INPUT_IMAGE,
        Meter.CACHE_READ,
        Meter.CACHE_READ_IMAGE,
        Meter.OUTPUT,
        Meter.OUTPUT_IMAGE,
    }
)
_COMPLETED: Final = b".completed"
_UNDECIDED: Final = frozenset({None, "", "auto"})


class _Picture(msgspec.Struct, kw_only=True):
    model: str | None = None
    prompt: str | None = None
    n: int | None = None
    size: str | None = None
    quality: str | None = None
    stream: bool | None = None


class _Nothing(msgspec.Struct):
    """A member that is counted and not read."""


class _Pictures(msgspec.Struct, kw_only=True):
    type: str | None = None
    data: list[_Nothing] | None = None
    usage: dict[str, Any] | None = None
    svg_usage: dict[str, Any] | None = None
    size: str | None = None
    quality: str | None = None
    error: msgspec.Raw = msgspec.Raw(b"")


_decode_picture = msgspec.json.Decoder(_Picture).decode
_decode_pictures = msgspec.json.Decoder(_Pictures).decode
_OF_PICTURE: Final = frozenset(_Picture.__struct_fields__)


class PictureFold:
    """Reads the events of a picture: usage stands in the one that completes it.

    Attributes:
        answer: What has been seen so far.
    """

    __slots__ = ("_facts", "_make", "answer")

    def __init__(self, facts: RequestFacts, make: Make) -> None:
        self.answer = Answer()
        self._facts = facts
        self._make = make

    def take(self, event: bytes) -> bool:
        """Read one event; tell whether the answer ends with it.

        Args:
            event: With its blank line.

        Returns:
            Whether it completes the only picture.
        """
        # The type stands before or after megabytes of picture.
        if _COMPLETED not in event[:256] and _COMPLETED not in event[-4096:]:
            if b'"error"' in event[:256]:
                self.answer.is_error = True
            return False
        data = data_of(event)
        if data is None:
            return False
        told = _decode_pictures(data)
        if not (told.type or "").endswith(_COMPLETED.decode()):
            return False
        self.answer.is_readable = self.answer.is_complete = self.answer.is_finished = True
        _take(self.answer, told, self._facts, images=1)
        if self._make.note is not None:
            self._make.note(self.answer, data)
        return self._facts.choices == 1


class OpenAIImages(OpenAIChat):
    """The wire format of ``POST /images/generations``, ``edits`` and ``variations``."""

    def __init__(self, api: str, make: Make = OPENAI_MAKE) -> None:
        """Take what is particular.

        Args:
            api: Its name in the ledger.
            make: How the provider's answers differ.
        """
        super().__init__(make)
        self.api = api

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came, JSON or a form.

        Returns:
            The facts: pictures for models sold by them, tokens for the others.

        Raises:
            BadRequest: Neither JSON nor a form, no model, or a field given twice.

        Source:
            https://platform.openai.com/docs/api-reference/images, checked 2026-11-23.
        """
        read, text_bytes, shown = _read_json(asked) if _is_json(asked) else _read_form(asked)
        count = max(1, read.n or 1)
        variants: Mapping[Meter, str] = NO_VARIANTS
        make = _make_of(read.size, read.quality)
        if make is not None:
            variants = MappingProxyType({Meter.IMAGE: make})
        return RequestFacts(
            model=model_of(asked, read.model, "an image request"),
            stream=bool(read.stream),
            wants_usage=True,
            tier=None,
            input_tokens_max=(
                text_bytes + INPUT_TOKENS_SPARE + shown * _TOKENS_PER_IMAGE_SHOWN_MAX
            ),
            output_tokens_max=count * _TOKENS_PER_IMAGE_MAX,
            choices=count,
            extra_output_max=0,
            meters=_TOKEN_METERS,
            fees={Meter.IMAGE: count},
            variants=variants,
            is_either=True,
        )

    def prepare_body(self, asked: Asked, facts: RequestFacts, model: str) -> bytes:
        """Make the body to send.

        Args:
            asked: The request as it came.
            facts: What was read of it.
            model: The provider's own name of the model.

        Returns:
            The same bytes, but for the model name where it differs.
        """
        if model == facts.model:
            return asked.body
        if _is_json(asked):
            plain = msgspec.structs.replace(facts, stream=False)
            return super().prepare_body(asked, plain, model)
        return rename_in_form(asked, facts, model)

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> Tap:
        """Begin to read pictures that come in events.

        Args:
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            A lane for their bytes.
        """
        return Tap(SseCutter(), PictureFold(facts, self.make))

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            Its usage, or how many pictures there are.
        """
        answer = Answer(tells_fees=True)
        try:
            told = _decode_pictures(body)
        except UNREADABLE:
            return answer
        answer.is_readable = answer.is_complete = True
        if bytes(told.error) not in NULLS:
            answer.is_error = True
        if head.status < _SUCCESS_BELOW:
            _take(answer, told, facts, images=len(told.data or ()))
            if self.make.note is not None and told.usage:
                self.make.note(answer, body)
        return answer

    def read_prompt(self, asked: Asked) -> None:
        """Say that a picture cannot be counted as text.

        Args:
            asked: The request as it came.
        """


def _is_json(asked: Asked) -> bool:
    return asked.body[:64].lstrip()[:1] == b"{"


def _read_json(asked: Asked) -> tuple[_Picture, int, int]:
    read: _Picture = read_body(asked, _decode_picture, "an image request", _OF_PICTURE)
    shown = _SHOWN_MAX if b'"image' in asked.body or b'"mask"' in asked.body else 0
    return read, bytes_of(asked.body), shown


def _read_form(asked: Asked) -> tuple[_Picture, int, int]:
    body = asked.body
    content_type = next((value for key, value in asked.headers if key == "content-type"), None)
    parts = scan_form(body, content_type)
    fields = {name: text_of(body, parts, name) for name in _OF_PICTURE}
    count = fields["n"]
    if count is not None and not (count.isascii() and count.isdigit() and len(count) < 6):
        raise BadRequest(f"the field 'n' is not a number: {count[:20]!r}")
    read = _Picture(
        model=fields["model"],
        n=None if count is None else int(count),
        size=fields["size"],
        quality=fields["quality"],
        stream=(fields["stream"] or "").strip().lower() in ("true", "1"),
    )
    text_bytes = sum(part.end - part.start for part in parts if not part.is_file)
    return read, text_bytes, sum(part.is_file for part in parts)


def _make_of(size: str | None, quality: str | None) -> str | None:
    """Name the make as the price book does; ``None`` where the model decides."""
    if size in _UNDECIDED or len(size or "") > NAME_CHARS_MAX:
        return None
    return size if quality in _UNDECIDED else f"{size}/{quality}"[:NAME_CHARS_MAX]


def _take(answer: Answer, told: _Pictures, facts: RequestFacts, *, images: int) -> None:
    answer.tells_fees = True
    make = _make_of(told.size, told.quality)
    if make is not None:
        answer.variants = MappingProxyType({Meter.IMAGE: make})
    if told.svg_usage is not None:
        used = _usage_of(told.svg_usage, frozenset())
        name = told.svg_usage.get("model")
        if used is not None and used.counts and isinstance(name, str):
            answer.others = (OtherUse(model=name[:NAME_CHARS_MAX], usage=used),)
    usage = None if told.usage is None else _usage_of(told.usage, facts.meters)
    if usage is not None and usage.counts:
        answer.usage = usage
    elif Meter.IMAGE in facts.fees and images > 0:
        answer.usage = Usage(counts={Meter.IMAGE: images}, basis=Basis.REPORTED)


def _usage_of(fields: Mapping[str, Any], sold: frozenset[Meter]) -> Usage | None:
    """Read the usage of pictures; ``None`` without counts.

    Source:
        https://platform.openai.com/docs/api-reference/images/object, checked 2026-11-23.
    """
    inside, outside = fields_in(fields.get("input_tokens_details")), _details(fields)
    cached = whole_of(inside.get("cached_tokens")) or whole_of(fields.get("cached_tokens"))
    raw = UsageObject(
        prompt_tokens=whole_of(fields.get("input_tokens")),
        completion_tokens=whole_of(fields.get("output_tokens")),
        total_tokens=whole_of(fields.get("total_tokens")),
        prompt_tokens_details=PromptDetails(
            cached_tokens=cached, image_tokens=whole_of(inside.get("image_tokens"))
        ),
    )
    thought = whole_of(fields.get("reasoning_tokens")) or 0
    usage = read_usage(raw)
    made = usage.counts.get(Meter.OUTPUT, 0)
    if not made:
        return usage
    counts: dict[Meter, Quantity] = {**usage.counts}
    if Meter.OUTPUT_IMAGE in sold:
        text = whole_of(outside.get("text_tokens")) or 0
        written = text if 0 <= text <= made else 0
        counts[Meter.OUTPUT], counts[Meter.OUTPUT_IMAGE] = written, made - written
    elif 0 < thought <= made:
        counts[Meter.OUTPUT], counts[Meter.REASONING] = made - thought, thought
    return Usage(
        counts={meter: count for meter, count in counts.items() if count},
        basis=usage.basis,
        flags=usage.flags,
    )


def _details(fields: Mapping[str, Any]) -> dict[str, Any]:
    return fields_in(fields.get("output_tokens_details"))


_DRAWING: Final = ("openai", "azure", "xai", "together", "fireworks", "gemini", "vllm")
_EDITING: Final = ("openai", "azure", "xai")

ENDPOINTS: Final = (
    *rows(
        "/images/generations",
        {kind: OpenAIImages("openai.images", CHATS[kind].make) for kind in _DRAWING},
    ),
    *rows(
        "/images/edits",
        {kind: OpenAIImages("openai.image_edits", CHATS[kind].make) for kind in _EDITING},
    ),
    *rows("/images/variations", {"openai": OpenAIImages("openai.image_variations")}),
)
