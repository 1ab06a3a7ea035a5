"""Cohere's calls that write no text: embeddings, reranking, classifying, parsing, and free ones.

Must never hold less for a search than its documents can be cut into.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from gateway.wire.cohere_answer import read_answer
from gateway.wire.cohere_chat import COHERE
from gateway.wire.cohere_dialect import CohereDialect
from gateway.wire.endpoints import Endpoint
from gateway.wire.facts import Answer, Asked, BadRequest, ReplyHead, RequestFacts
from gateway.wire.plain_format import FreeCalls, PlainFormat
from gateway.wire.reading import (
    ABSENT,
    INPUT_TOKENS_SPARE,
    SingleFields,
    bytes_seen,
    checked_model,
    is_given,
    refusing,
    try_read,
)
from pricing.meters import Meter
from pricing.usage import Quantity

# Context of the model that embeds images: no input is more, images and all.
# Source: https://docs.cohere.com/docs/cohere-embed, checked 2026-11-23.
_EMBED_INPUT_TOKENS_MAX: Final = 128_000
# These count images, later ones the tokens of images. Source: https://cohere.com/pricing.
_COUNTS_IMAGES: Final = re.compile(r"embed-(?:english|multilingual)-.*v3")
# A search is a query with up to 100 documents; a document longer than 500 tokens with its query is
# several, and there are at most 10,000 in a call. Source: https://cohere.com/pricing and
# https://docs.cohere.com/v1/reference/rerank, checked 2026-11-23.
_SEARCH_DOCUMENTS: Final = 100
_CHUNK_TOKENS: Final = 500
_CHUNKS_MAX: Final = 10_000
_NO_METERS: Final[frozenset[Meter]] = frozenset()
_INPUT: Final = frozenset({Meter.INPUT})
_INPUT_AND_IMAGE: Final = frozenset({Meter.INPUT, Meter.INPUT_IMAGE})
_NO_FEES: Final[Mapping[Meter, Quantity]] = MappingProxyType({})
_SINGLE: Final = SingleFields("model", "texts", "images", "inputs", "query", "documents")


class _EmbedRequest(msgspec.Struct):
    model: str | None = None
    images: list[msgspec.Raw] | None = None
    inputs: list[msgspec.Raw] | None = None


class _Input(msgspec.Struct):
    content: list["_Part"] | None = None


class _Part(msgspec.Struct):
    type: str | None = None
    image_url: msgspec.Raw = ABSENT


class _RerankRequest(msgspec.Struct):
    model: str | None = None
    query: msgspec.Raw = ABSENT
    documents: list[msgspec.Raw] = []


class _ModelRequest(msgspec.Struct):
    model: str | None = None


_decode_embed: Final = msgspec.json.Decoder(_EmbedRequest).decode
_decode_input: Final = msgspec.json.Decoder(_Input).decode
_decode_rerank: Final = msgspec.json.Decoder(_RerankRequest).decode
_decode_model: Final = msgspec.json.Decoder(_ModelRequest).decode


class _CohereCall(PlainFormat, CohereDialect):
    """Reads the answer of a call that writes no text."""

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            What it says; without billed units it is billed at its ceiling.
        """
        answer = read_answer(body)
        if answer.usage is None or not answer.usage.counts:
            # Nothing of it can be counted.
            answer.is_readable = False
        return answer


class CohereEmbed(_CohereCall):
    """The wire format of ``POST /v1/embed`` and ``/v2/embed``."""

    api = "cohere.embed"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts. Every image is held at the context of the model, or as one image where the
            model counts images.

        Raises:
            BadRequest: Not JSON, no model, a field of the wrong type or given twice.

        Source:
            https://docs.cohere.com/reference/embed, checked 2026-11-23.
        """
        with refusing("an embed request"):
            request = _decode_embed(asked.body)
        _SINGLE.check(asked.body)
        model = _named(request.model)
        images = len(request.images or ()) + sum(map(_has_image, request.inputs or ()))
        fees, tokens = _NO_FEES, bytes_seen(asked.body) + INPUT_TOKENS_SPARE
        if images and _COUNTS_IMAGES.match(model):
            fees = {Meter.IMAGE: images}
        else:
            tokens += images * _EMBED_INPUT_TOKENS_MAX
        return _facts_of(model, tokens, fees, _INPUT_AND_IMAGE if images else _INPUT)


class CohereRerank(_CohereCall):
    """The wire format of ``POST /v1/rerank`` and ``/v2/rerank``."""

    api = "cohere.rerank"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts: no tokens, and as many searches as the documents can be cut into.

        Raises:
            BadRequest: Not JSON, no model, a field of the wrong type or given twice.

        Source:
            https://docs.cohere.com/reference/rerank, checked 2026-11-23.
        """
        with refusing("a rerank request"):
            request = _decode_rerank(asked.body)
        _SINGLE.check(asked.body)
        documents = request.documents
        room = max(1, _CHUNK_TOKENS - len(bytes(request.query)))
        chunks = sum(max(1, -(-bytes_seen(bytes(one)) // room)) for one in documents)
        chunks = min(chunks, max(_CHUNKS_MAX, len(documents)))
        searches = max(1, -(-chunks // _SEARCH_DOCUMENTS))
        return _facts_of(_named(request.model), 0, {Meter.SEARCH_UNIT: searches}, _NO_METERS)


class CohereClassify(_CohereCall):
    """The wire format of ``POST /v1/classify``."""

    api = "cohere.classify"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts: the tokens of what is classified, as the price book has no other price.

        Raises:
            BadRequest: Not JSON, no model, or a field given twice.

        Source:
            https://docs.cohere.com/v1/reference/classify, checked 2026-11-23.
        """
        model = _read_model(asked, "a classify request")
        return _facts_of(model, bytes_seen(asked.body) + INPUT_TOKENS_SPARE, _NO_FEES, _INPUT)


class CohereParse(_CohereCall):
    """The wire format of ``POST /v2/parse``."""

    api = "cohere.parse"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts: one page, as a request holds one image.

        Raises:
            BadRequest: Not JSON, no model, or a field given twice.

        Source:
            https://docs.cohere.com/reference/parse, checked 2026-11-23.
        """
        return _facts_of(_read_model(asked, "a parse request"), 0, {Meter.PAGE: 1}, _NO_METERS)


class CohereFree(FreeCalls, CohereDialect):
    """The wire format of Cohere's calls that cost nothing."""

    api = "cohere.free"


def _named(model: str | None) -> str:
    if not model:
        raise BadRequest("name the model: without one Cohere chooses it, and so its price")
    return checked_model(model)


def _read_model(asked: Asked, what: str) -> str:
    with refusing(what):
        request = _decode_model(asked.body)
    _SINGLE.check(asked.body)
    return _named(request.model)


def _has_image(raw: msgspec.Raw) -> bool:
    """Tell whether an input holds more than text; one that cannot be read may."""
    read = try_read(_decode_input, raw)
    if read is None or read.content is None:
        return True
    return any(part.type != "text" or is_given(part.image_url) for part in read.content)


def _facts_of(
    model: str, tokens: int, fees: Mapping[Meter, Quantity], meters: frozenset[Meter]
) -> RequestFacts:
    return RequestFacts(
        model=model,
        stream=False,
        wants_usage=True,
        tier=None,
        input_tokens_max=tokens,
        output_tokens_max=0,
        choices=1,
        extra_output_max=0,
        meters=meters,
        fees=fees,
    )


_EMBED: Final = CohereEmbed()
_RERANK: Final = CohereRerank()
_FREE: Final = CohereFree()
_GET: Final = frozenset({"GET"})

ENDPOINTS: Final = (
    Endpoint(kinds=COHERE, path="/v2/embed", format=_EMBED),
    Endpoint(kinds=COHERE, path="/v1/embed", format=_EMBED),
    Endpoint(kinds=COHERE, path="/v2/rerank", format=_RERANK),
    Endpoint(kinds=COHERE, path="/v1/rerank", format=_RERANK),
    Endpoint(kinds=COHERE, path="/v2/parse", format=CohereParse()),
    Endpoint(kinds=COHERE, path="/v1/classify", format=CohereClassify()),
    Endpoint(kinds=COHERE, path="/v1/tokenize", format=_FREE),
    Endpoint(kinds=COHERE, path="/v1/detokenize", format=_FREE),
    Endpoint(kinds=COHERE, path="/v1/check-api-key", format=_FREE),
    Endpoint(kinds=COHERE, path="/v1/models", format=_FREE, methods=_GET),
    Endpoint(kinds=COHERE, path="/v1/models/{model}", format=_FREE, methods=_GET),
)
