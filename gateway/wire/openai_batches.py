"""OpenAI's files and batches: free to make, metered when the output of a batch is fetched.

Must never meter a batch twice, nor take a part of its output for all of it.
"""

from collections import Counter
from typing import Final

import msgspec

from gateway.wire.endpoints import Endpoint
from gateway.wire.facts import (
    Answer,
    OtherUse,
)
from gateway.wire.fetched import FetchedResults
from gateway.wire.openai_answer import ABSENT, NAME_CHARS_MAX, NULLS, UNREADABLE, read_answer
from gateway.wire.openai_free import FreeCalls
from gateway.wire.openai_responses_answer import read_response
from gateway.wire.openai_responses_usage import count_of
from pricing.meters import Meter
from pricing.usage import Basis, Quantity, Usage, unknown_usage

BATCH_TIER: Final = "batch"
_OK: Final = 200
# A line of a batch's output has all of these; what a file holds otherwise is nobody's business.
_MARKS: Final = (b'"custom_id"', b'"response"')
# Prompts are added up apart by these sizes, as every published step of a price lies at one of them.
# Source: https://platform.openai.com/docs/pricing, checked 2026-11-23.
_STEPS: Final = (128_000, 200_000, 256_000, 272_000)
_USES_MAX: Final = 256
_FLAGS_MAX: Final = 8
_NO_USAGE: Final = "a line of the output without usable counts"
_PART: Final = "the output was not read to its end: there may be more"


class _Reply(msgspec.Struct):
    status_code: msgspec.Raw = ABSENT
    body: msgspec.Raw = ABSENT


class _Line(msgspec.Struct):
    response: _Reply | None = None


class _Kind(msgspec.Struct):
    """An answer as far as it tells which API it is of."""

    id: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT


class _Key(msgspec.Struct, frozen=True):
    """What is added up apart.

    Attributes:
        model: Model served.
        step: The size its prompts do not exceed; 0 for those that exceed every one.
        variants: Makes, by meter.
    """

    model: str
    step: int
    variants: tuple[tuple[Meter, str], ...] = ()


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_kind = msgspec.json.Decoder(_Kind).decode


class OutputFold:
    """Adds up the lines of a batch's output; a file that is none counts nothing.

    Attributes:
        answer: What has been seen so far; its usage is set by ``close``.

    Source:
        https://platform.openai.com/docs/guides/batch: requests that fail or expire are not billed.
        Checked 2026-11-23.
    """

    __slots__ = ("_flags", "_is_estimated", "_is_output", "_prompts", "_sums", "answer")

    def __init__(self) -> None:
        self.answer = Answer(tells_fees=True)
        self._sums: dict[_Key, Counter[Meter]] = {}
        self._prompts: dict[_Key, int] = {}
        self._flags: list[str] = []
        self._is_estimated = False
        self._is_output = False

    def take(self, event: bytes) -> bool:
        """Read one line.

        Args:
            event: A line of any file.

        Returns:
            Never that it is the last.
        """
        if not all(mark in event for mark in _MARKS):
            return False
        self._is_output = True
        self.answer.is_readable = True
        # Should the rest never be read: what was used is not nothing.
        self.answer.is_billed = True
        try:
            reply = _decode_line(event).response
            if reply is not None and _is_success(reply):
                self._add(bytes(reply.body))
        except UNREADABLE:
            self._note("a line of the output could not be read")
        return False

    def close(self, source: str | None, *, is_whole: bool) -> None:
        """Take the sums for the usage.

        Args:
            source: The file's id.
            is_whole: Whether every line has been seen.
        """
        answer = self.answer
        if not self._is_output:
            return
        answer.once = None if source is None else source[:NAME_CHARS_MAX]
        answer.tier = BATCH_TIER
        answer.is_complete = answer.is_finished = is_whole
        answer.flags = (*answer.flags, *self._flags)
        basis = Basis.ESTIMATED if self._is_estimated else Basis.REPORTED
        if not is_whole:
            basis = Basis.PARTIAL
            answer.flags = (*answer.flags, _PART)
        uses = [
            OtherUse(
                model=key.model,
                usage=Usage(counts=dict(counts), basis=basis),
                tier=BATCH_TIER,
                variants=dict(key.variants),
                prompt_tokens=self._prompts[key],
            )
            for key, counts in self._sums.items()
        ]
        if not uses:
            if is_whole and not self._is_estimated:
                answer.is_billed = False  # no line succeeded
            else:
                answer.usage = unknown_usage(_NO_USAGE)
            return
        first = uses[0]
        answer.model, answer.usage = first.model, first.usage
        answer.variants, answer.prompt_tokens = first.variants, first.prompt_tokens
        answer.others = tuple(uses[1:])

    def _add(self, body: bytes) -> None:
        """Add what one request of the batch has used."""
        kind = _decode_kind(body)
        is_response = b'"input_tokens"' in bytes(kind.usage)
        answer = read_response(body) if is_response else read_answer(body)
        usage = answer.usage
        if usage is None or usage.basis is Basis.UNKNOWN:
            if not _is_free(kind):
                self._note(_NO_USAGE)
            return
        self._is_estimated |= usage.basis is not Basis.REPORTED
        for flag in (*usage.flags, *answer.flags):
            self._note(flag, is_doubtful=False)
        model = answer.model or "a model without a name"
        self._sum(model, usage, tuple(answer.variants.items()))
        for other in answer.others:
            self._sum(other.model, other.usage, tuple(other.variants.items()))

    def _sum(self, model: str, usage: Usage, variants: tuple[tuple[Meter, str], ...]) -> None:
        prompt = usage.input_total or 0
        step = next((step for step in _STEPS if prompt <= step), 0)
        key = _Key(model[:NAME_CHARS_MAX], step, variants)
        if key not in self._sums and len(self._sums) >= _USES_MAX:
            self._note(f"more than {_USES_MAX} models are not counted apart")
            key = _Key("more models than are counted apart", 0)
        counts: Counter[Meter] = self._sums.setdefault(key, Counter())
        quantities: dict[Meter, Quantity] = dict(usage.counts)
        for meter, count in quantities.items():
            counts[meter] += int(count)
        self._prompts[key] = max(prompt, self._prompts.get(key, 0))

    def _note(self, flag: str, *, is_doubtful: bool = True) -> None:
        self._is_estimated |= is_doubtful
        if flag not in self._flags and len(self._flags) < _FLAGS_MAX:
            self._flags.append(flag)


class FileContents(FetchedResults, FreeCalls):
    """The wire format of ``GET /files/{file_id}/content``.

    Any file is passed on as it comes. The output of a batch tells what the batch has used.
    """

    stream_types: tuple[str, ...] = ("",)
    source = "file_id"
    results = OutputFold
    errors = FreeCalls("openai.file_content")

    def __init__(self) -> None:
        super().__init__("openai.file_content")


def _is_success(reply: _Reply) -> bool:
    code = None if bytes(reply.status_code) in NULLS else msgspec.json.decode(reply.status_code)
    status = count_of(code)
    return status is None or status == _OK


def _is_free(kind: _Kind) -> bool:
    """Tell whether an answer without usage is one of a moderation, which costs nothing.

    Source:
        https://platform.openai.com/docs/guides/moderation, checked 2026-11-23.
    """
    return bytes(kind.id).startswith(b'"modr')


def _rows() -> tuple[Endpoint, ...]:
    files, batches, contents = (
        FreeCalls("openai.files"),
        FreeCalls("openai.batches"),
        FileContents(),
    )
    roots = {
        "": frozenset({"openai", "groq"}),
        "/openai": frozenset({"azure"}),
        "/openai/v1": frozenset({"azure"}),
    }
    get, both, one = frozenset({"GET"}), frozenset({"GET", "POST"}), frozenset({"GET", "DELETE"})
    post = frozenset({"POST"})
    return tuple(
        Endpoint(kinds=kinds, path=root + path, format=reader, methods=methods)
        for root, kinds in roots.items()
        for path, reader, methods in (
            ("/files", files, both),
            ("/files/{file_id}", files, one),
            ("/files/{file_id}/content", contents, get),
            ("/batches", batches, both),
            ("/batches/{batch_id}", batches, get),
            ("/batches/{batch_id}/cancel", batches, post),
        )
    )


ENDPOINTS: Final = _rows()
