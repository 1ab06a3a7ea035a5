"""The plainer calls of OpenAI's API: completions, embeddings, reranking, and what is free.

Must never re-encode a body; bytes are spliced or passed on.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Final, TypeVar

import msgspec

from gateway.wire.facts import (
    Answer,
    Asked,
    BadRequest,
    ReplyHead,
    RequestFacts,
    free_facts,
)
from gateway.wire.openai_answer import ABSENT, UNREADABLE, Make, read_tier
from gateway.wire.openai_chat import (
    INPUT_TOKENS_SPARE,
    OpenAIChat,
    bytes_of,
    has_escapes,
    model_of,
    refuse_repeats,
)
from gateway.wire.openai_kinds import CHATS
from gateway.wire.openai_places import PLACES, rows
from gateway.wire.openai_usage import Counting
from pricing.meters import Meter
from pricing.usage import NOTHING

_INPUT_METERS: Final = frozenset({Meter.INPUT, Meter.CACHE_READ})
_TEXT_METERS: Final = _INPUT_METERS | {Meter.OUTPUT, Meter.REASONING}
_IMAGE_MARKS: Final = (b'"image', b'"video', b'"audio')

Shape = TypeVar("Shape")


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Completion(msgspec.Struct, kw_only=True):
    model: str | None = None
    prompt: msgspec.Raw = ABSENT
    suffix: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None
    service_tier: str | None = None


class _Inputs(msgspec.Struct, kw_only=True):
    model: str | None = None
    input: msgspec.Raw = ABSENT
    query: msgspec.Raw = ABSENT
    documents: list[msgspec.Raw] | None = None


class _Pairs(msgspec.Struct, kw_only=True):
    model: str | None = None
    text_1: msgspec.Raw = ABSENT
    text_2: msgspec.Raw = ABSENT


class _Named(msgspec.Struct, kw_only=True):
    model: str | None = None


_OF_COMPLETION: Final = frozenset(_Completion.__struct_fields__)
_OF_INPUTS: Final = frozenset(_Inputs.__struct_fields__)
_OF_PAIRS: Final = frozenset(_Pairs.__struct_fields__)
_decode_completion = msgspec.json.Decoder(_Completion).decode
_decode_inputs = msgspec.json.Decoder(_Inputs).decode
_decode_pairs = msgspec.json.Decoder(_Pairs).decode
_decode_named = msgspec.json.Decoder(_Named).decode
_decode_texts = msgspec.json.Decoder(str | list[str]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read_body(
    asked: Asked, decode: Callable[[bytes], Shape], what: str, single: AbstractSet[str]
) -> Shape:
    """Read a JSON request, and refuse one that two readers could read differently.

    Args:
        asked: The request.
        decode: Decodes what is needed of it.
        what: What it should be, for the message.
        single: Fields that may stand there once.

    Returns:
        What was decoded.

    Raises:
        BadRequest: Not JSON, a field of the wrong type, or one given twice.
    """
    try:
        read = decode(asked.body)
    except (msgspec.ValidationError, UnicodeDecodeError) as wrong:
        raise BadRequest(f"the request body is not {what}: {wrong}") from None
    except msgspec.DecodeError as broken:
        raise BadRequest(f"the request body is not JSON: {broken}") from None
    except RecursionError:
        raise BadRequest("the request body is nested too deeply") from None
    body = asked.body
    if has_escapes(body) or any(body.count(f'"{name}"'.encode()) > 1 for name in single):
        refuse_repeats(body, single)
    return read


class OpenAICompletions(OpenAIChat):
    """The wire format of ``POST /completions``, the older one."""

    api = "openai.completions"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts; every prompt of a list has answers of its own.

        Raises:
            BadRequest: Not JSON, no model, a field of the wrong type or given twice.

        Source:
            https://platform.openai.com/docs/api-reference/completions/create, checked 2026-11-23.
        """
        read: _Completion = read_body(
            asked, _decode_completion, "a completion request", _OF_COMPLETION
        )
        model = model_of(asked, read.model, "a completion request")
        choices = max(1, read.n or 1, read.best_of or 1) * _count_prompts(read.prompt)
        limit = read.max_tokens
        return RequestFacts(
            model=model,
            stream=bool(read.stream),
            wants_usage=bool(read.stream_options and read.stream_options.include_usage)
            or not self.asks_usage(asked),
            tier=read_tier(read.service_tier, self.make.tiers),
            input_tokens_max=bytes_of(asked.body) + INPUT_TOKENS_SPARE,
            output_tokens_max=None if limit is None or limit < 1 else limit * choices,
            choices=choices,
            extra_output_max=0,
            meters=_TEXT_METERS,
            fees={},
        )

    def read_prompt(self, asked: Asked) -> list[str] | None:
        """Read the texts of a prompt for counting.

        Args:
            asked: The request as it came.

        Returns:
            The texts; ``None`` for prompts of token numbers.
        """
        try:
            read = _decode_completion(asked.body)
            texts = _decode_texts(read.prompt)
        except UNREADABLE:
            return None
        given = [texts] if isinstance(texts, str) else texts
        return [text for text in (*given, read.suffix or "") if text]


def _count_prompts(prompt: msgspec.Raw) -> int:
    if not bytes(prompt).startswith(b"["):
        return 1
    try:
        given = _decode_list(prompt)
    except UNREADABLE:
        return 1
    # A list of numbers is one prompt.
    return max(1, sum(bytes(one)[:1] in (b'"', b"[") for one in given))


class OpenAIEmbeddings(OpenAIChat):
    """The wire format of ``POST /embeddings``: input and nothing else."""

    api = "openai.embeddings"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts; there is no output.

        Raises:
            BadRequest: Not JSON, no model, a field of the wrong type or given twice.

        Source:
            https://platform.openai.com/docs/api-reference/embeddings/create, checked 2026-11-23.
        """
        read: _Inputs = read_body(asked, _decode_inputs, "an embedding request", _OF_INPUTS)
        return _input_facts(asked, model_of(asked, read.model, "an embedding request"), 0)

    def read_prompt(self, asked: Asked) -> list[str] | None:
        """Read the texts for counting.

        Args:
            asked: The request as it came.

        Returns:
            The texts; ``None`` for anything else.
        """
        try:
            texts = _decode_texts(_decode_inputs(asked.body).input)
        except UNREADABLE:
            return None
        return [texts] if isinstance(texts, str) else texts


class OpenAIRerank(OpenAIEmbeddings):
    """The wire format of ``POST /rerank``: every document is read with the query."""

    api = "openai.rerank"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts; there is no output.

        Raises:
            BadRequest: Not JSON, no model, a field of the wrong type or given twice.

        Source:
            https://docs.together.ai/reference/rerank, https://docs.fireworks.ai/api-reference and
            https://docs.vllm.ai/en/latest/serving, checked 2026-11-23.
        """
        read: _Inputs = read_body(asked, _decode_inputs, "a reranking request", _OF_INPUTS)
        model = model_of(asked, read.model, "a reranking request")
        pairs = len(read.documents or ())
        return _input_facts(asked, model, pairs * (len(bytes(read.query)) + INPUT_TOKENS_SPARE))

    def read_prompt(self, asked: Asked) -> None:
        """Say that the texts are not counted: how they are joined is the model's matter.

        Args:
            asked: The request as it came.
        """


class OpenAIScore(OpenAIRerank):
    """The wire format of vLLM's ``POST /score``: texts read in pairs."""

    api = "openai.score"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts; there is no output.

        Raises:
            BadRequest: Not JSON, no model, a field of the wrong type or given twice.

        Source:
            https://docs.vllm.ai/en/latest/serving, "Score API", checked 2026-11-23.
        """
        read: _Pairs = read_body(asked, _decode_pairs, "a request", _OF_PAIRS)
        model = model_of(asked, read.model, "a scoring request")
        first, second = bytes(read.text_1), bytes(read.text_2)
        pairs = max(_count_texts(first), _count_texts(second))
        most = min(len(first), len(second)) + INPUT_TOKENS_SPARE
        return _input_facts(asked, model, pairs * most)


def _count_texts(raw: bytes) -> int:
    if not raw.startswith(b"["):
        return 1
    try:
        return len(_decode_list(raw))
    except UNREADABLE:
        return len(raw)


def _input_facts(asked: Asked, model: str, further: int) -> RequestFacts:
    is_open = any(mark in asked.body for mark in _IMAGE_MARKS)
    return RequestFacts(
        model=model,
        stream=False,
        wants_usage=True,
        tier=None,
        input_tokens_max=None if is_open else bytes_of(asked.body) + INPUT_TOKENS_SPARE + further,
        output_tokens_max=0,
        choices=1,
        extra_output_max=0,
        meters=_INPUT_METERS | {Meter.INPUT_IMAGE} if is_open else _INPUT_METERS,
        fees={},
    )


class OpenAIFree(OpenAIChat):
    """Calls that cost nothing: the list of models, moderations."""

    def __init__(self, api: str) -> None:
        """Take the name of the call.

        Args:
            api: As in the ledger.
        """
        super().__init__()
        self.api = api

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Say that the call is free.

        Args:
            asked: The request as it came.

        Returns:
            Facts whose ceiling is zero.

        Raises:
            BadRequest: A body that is not JSON, or that names its model twice.

        Source:
            https://platform.openai.com/docs/guides/moderation, "free to use", checked 2026-11-23.
        """
        if asked.method == "GET":
            return free_facts(asked.names.get("model", ""))
        single = frozenset({"model"})
        read: _Named = read_body(asked, _decode_named, "a request", single)
        return free_facts(asked.names.get("deployment") or read.model or "")

    def prepare_body(self, asked: Asked, facts: RequestFacts, model: str) -> bytes:
        """Make the body to send.

        Args:
            asked: The request as it came.
            facts: What was read of it.
            model: The provider's own name of the model.

        Returns:
            The same bytes, but for the model name where it differs.
        """
        return super().prepare_body(asked, facts, model) if asked.body else b""

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer, none of whose numbers are billed.

        Args:
            body: The answer as it came.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            That nothing is billed.
        """
        return Answer(usage=NOTHING, is_readable=True, is_complete=True)

    def read_prompt(self, asked: Asked) -> None:
        """Say that nothing is to be counted.

        Args:
            asked: The request as it came.
        """


def _with_no_output(kind: str) -> Make:
    return Make(counting=Counting(has_no_output=True), note=CHATS[kind].make.note)


_COMPLETING: Final = (
    *("openai", "azure", "deepseek", "xai", "together", "fireworks", "openrouter", "vllm"),
    "ollama",
)
_EMBEDDING: Final = (
    *("openai", "azure", "mistral", "together", "fireworks", "vllm", "cohere", "gemini", "ollama"),
    *("openrouter", "xai", "groq", "perplexity"),
)
_RERANKING: Final = ("vllm", "together", "fireworks")
_LISTING: Final = frozenset(PLACES) - {"anthropic", "cohere", "vertex", "bedrock"}
_MODELS: Final = OpenAIFree("openai.models")
_GET: Final = frozenset({"GET"})

ENDPOINTS: Final = (
    *rows("/completions", {kind: OpenAICompletions.like(CHATS[kind]) for kind in _COMPLETING}),
    *rows("/embeddings", {kind: OpenAIEmbeddings(_with_no_output(kind)) for kind in _EMBEDDING}),
    *rows("/rerank", {kind: OpenAIRerank(_with_no_output(kind)) for kind in _RERANKING}),
    *rows("/score", {"vllm": OpenAIScore(_with_no_output("vllm"))}),
    *rows("/moderations", {"openai": OpenAIFree("openai.moderations")}),
    *rows("/models", MappingProxyType(dict.fromkeys(_LISTING, _MODELS)), methods=_GET),
    *rows("/models/{model...}", dict.fromkeys(_LISTING, _MODELS), methods=_GET),
)
