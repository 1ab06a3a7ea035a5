"""Anthropic's message batches: free to make, metered when their results are fetched.

Must never meter a batch twice, nor a part of one as if it were all of it.
"""

from typing import Any, Final

import msgspec

from gateway.wire.anthropic_answer import NULLS, UNREADABLE
from gateway.wire.anthropic_free import AnthropicFree
from gateway.wire.anthropic_request import Request, refuse_repeats
from gateway.wire.anthropic_usage import BATCH_TIER, NAME_CHARS_MAX, read_usage
from gateway.wire.facts import (
    Answer,
    Asked,
    BadRequest,
    OtherUse,
    RequestFacts,
    free_facts,
)
from gateway.wire.fetched import FetchedResults
from pricing.meters import Meter
from pricing.usage import NOTHING, Basis, Quantity, Usage

_SUCCEEDED: Final = "succeeded"
_REFUSAL: Final = "refusal"
_PART: Final = "the results were not read to their end: there may be more"
_FLAGS_MAX: Final = 8
_MODELS_MAX: Final = 64


class _Item(msgspec.Struct):
    params: Request


class _Create(msgspec.Struct):
    requests: list[_Item]


class _Message(msgspec.Struct):
    model: str | None = None
    stop_reason: str | None = None
    usage: dict[str, Any] | None = None


class _Result(msgspec.Struct):
    type: str | None = None
    message: _Message | None = None


class _Line(msgspec.Struct):
    result: _Result | None = None


_decode_create = msgspec.json.Decoder(_Create).decode
_decode_line = msgspec.json.Decoder(_Line).decode


class AnthropicBatches(AnthropicFree):
    """The wire format of ``POST /v1/messages/batches``."""

    api = "anthropic.batches"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Say that making a batch costs nothing, and which models it names.

        Args:
            asked: The request as it came.

        Returns:
            Facts whose ceiling is zero; the key must be allowed every model.

        Raises:
            BadRequest: Not a batch, a request without a model, or a field given twice.
        """
        try:
            batch = _decode_create(asked.body)
        except UNREADABLE as wrong:
            raise BadRequest(f"the request body is not a batch of messages: {wrong}") from None
        _refuse_repeated_params(asked.body)
        models = list(dict.fromkeys(item.params.model for item in batch.requests))
        named = [model for model in models if model]
        if len(named) < len(models):
            raise BadRequest("a request of the batch names no model: give 'model'")
        return msgspec.structs.replace(
            free_facts(named[0] if named else ""), further_models=tuple(named[1:])
        )


class _RawItem(msgspec.Struct):
    params: msgspec.Raw


class _RawCreate(msgspec.Struct):
    requests: list[_RawItem]


def _refuse_repeated_params(body: bytes) -> None:
    if body.count(b'"model"') > body.count(b'"params"') or b"\\u00" in body:
        for item in msgspec.json.decode(body, type=_RawCreate).requests:
            refuse_repeats(bytes(item.params))


class ResultsFold:
    """Adds up the lines of a batch's results.

    Attributes:
        answer: What has been seen so far; it has no usage before ``close``.

    Source:
        https://platform.claude.com/docs/en/build-with-claude/batch-processing: ``errored``,
        ``canceled`` and ``expired`` requests are not billed. Checked 2026-11-23.
    """

    __slots__ = ("_counts", "_flags", "_is_estimated", "answer")

    def __init__(self) -> None:
        self.answer = Answer(is_billed=False, tells_fees=True, tier=BATCH_TIER)
        self._counts: dict[tuple[str, str | None], dict[Meter, Quantity]] = {}
        self._flags: list[str] = []
        self._is_estimated = False

    def take(self, event: bytes) -> bool:
        """Read one line.

        Args:
            event: A line of JSON.

        Returns:
            Never that it is the last.
        """
        if event.strip() in NULLS:
            return False
        try:
            result = _decode_line(event).result
        except UNREADABLE:
            self._note("a line of the results could not be read")
            return False
        self.answer.is_readable = True
        if result is None or result.type != _SUCCEEDED:
            return False
        message = result.message or _Message()
        told = read_usage(
            message.usage or {}, asked=message.model, is_refused=message.stop_reason == _REFUSAL
        )
        if told.usage.basis is Basis.UNKNOWN:
            self._note("a result without usable counts")
        self._is_estimated |= told.usage.basis is Basis.ESTIMATED
        region = told.region
        self._add(told.model or message.model or "a model without a name", region, told.usage)
        for other in told.others:
            self._add(other.model, region, other.usage)
        return False

    def close(self, source: str | None, *, is_whole: bool) -> None:
        """Take the sums for the usage.

        Args:
            source: The batch's or file's id.
            is_whole: Whether every line has been seen; a part is completed when all are fetched.
        """
        answer = self.answer
        answer.is_complete = answer.is_finished = is_whole
        answer.is_billed = None
        answer.request_id = answer.once = None if source is None else source[:NAME_CHARS_MAX]
        answer.flags = (*answer.flags, *self._flags)
        basis = Basis.ESTIMATED if self._is_estimated else Basis.REPORTED
        if not is_whole and answer.is_readable:
            basis = Basis.PARTIAL
            answer.flags = (*answer.flags, _PART)
        uses = [
            OtherUse(
                model=model,
                usage=Usage(counts=counts, basis=basis),
                tier=BATCH_TIER,
                region=region or "",
            )
            for (model, region), counts in self._counts.items()
        ]
        if not uses:
            answer.usage = NOTHING
            return
        first = uses[0]
        answer.model, answer.region, answer.usage = first.model, first.region, first.usage
        answer.others = tuple(uses[1:])

    def _add(self, model: str, region: str | None, usage: Usage) -> None:
        key = (model[:NAME_CHARS_MAX], region or None)
        if key not in self._counts and len(self._counts) >= _MODELS_MAX:
            self._note(f"results of more than {_MODELS_MAX} models are not counted apart")
            key = ("more models than are counted apart", None)
        if not usage.counts:
            return
        counts = self._counts.setdefault(key, {})
        for meter, count in usage.counts.items():
            counts[meter] = counts.get(meter, 0) + count
        for flag in usage.flags:
            self._note(flag)

    def _note(self, flag: str) -> None:
        self._is_estimated = True
        if flag not in self._flags and len(self._flags) < _FLAGS_MAX:
            self._flags.append(flag)


class AnthropicResults(FetchedResults, AnthropicFree):
    """The wire format of ``GET /v1/messages/batches/{id}/results``."""

    api = "anthropic.batch_results"
    stream_types: tuple[str, ...] = (
        "application/x-jsonl",
        "application/x-jsonlines",
        "application/x-ndjson",
        "application/jsonl",
        "application/binary",
        "application/octet-stream",
        "text/plain",
    )
    source = "batch"
    results = ResultsFold
    errors = AnthropicFree()
