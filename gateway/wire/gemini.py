"""Gemini's ``generateContent``, whole and streamed, and every address of Gemini and Vertex AI.

Must never hold what another format reads.
"""

from typing import Final

from gateway.wire.endpoints import Endpoint
from gateway.wire.facts import Answer, Asked, ReplyHead, RequestFacts
from gateway.wire.gemini_answer import read_answer
from gateway.wire.gemini_interactions import Interactions
from gateway.wire.gemini_pieces import CachedContents, EmbedContent, Predict, PredictLongRunning
from gateway.wire.gemini_request import read_facts
from gateway.wire.google_format import Batch, Free, GoogleFormat, Upload


class GenerateContent(GoogleFormat):
    """The wire format of ``:generateContent``."""

    api = "gemini.generate_content"
    is_stream = False

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts; bounds are never too small.

        Raises:
            BadRequest: It cannot be read, or could be read in two ways.
        """
        return read_facts(asked, stream=self.is_stream)

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            What it says.
        """
        return read_answer(body, facts, head)


class StreamGenerateContent(GenerateContent):
    """The wire format of ``:streamGenerateContent``: events, or without ``alt=sse`` one array."""

    api = "gemini.generate_content"
    stream_types = ("text/event-stream", "application/json")
    is_stream = True


_GEMINI: Final = frozenset({"gemini"})
_VERTEX: Final = frozenset({"vertex"})
_READ: Final = frozenset({"GET"})
_ANY: Final = frozenset({"GET", "PATCH", "DELETE"})
_GENERATE: Final = GenerateContent()
_STREAM: Final = StreamGenerateContent()
_EMBED: Final = EmbedContent()
_PREDICT: Final = Predict()
_LONG: Final = PredictLongRunning()
_FREE: Final = Free()
_BATCH: Final = Batch()
_CACHES: Final = CachedContents()
_INTERACTIONS: Final = Interactions()

_PLACE: Final = "/{version}/projects/{project}/locations/{location}"
# Where a model stands, by kind; the first is in the list a refusal gives.
_MODELS: Final = (
    (_GEMINI, "/{version}/models/{model}"),
    (_GEMINI, "/models/{model}"),
    (_GEMINI, "/{version}/tunedModels/{tuned}"),
    (_VERTEX, _PLACE + "/publishers/google/models/{model}"),
    (_VERTEX, _PLACE + "/endpoints/{endpoint}"),
    (_VERTEX, "/{version}/publishers/google/models/{model}"),
)
_VERBS: Final = (
    ("generateContent", _GENERATE),
    ("streamGenerateContent", _STREAM),
    ("countTokens", _FREE),
    ("computeTokens", _FREE),
    ("embedContent", _EMBED),
    ("batchEmbedContents", _EMBED),
    ("predict", _PREDICT),
    ("predictLongRunning", _LONG),
    ("fetchPredictOperation", _FREE),
    ("batchGenerateContent", _BATCH),
    ("asyncBatchEmbedContent", _BATCH),
)

ENDPOINTS: Final = (
    *(
        Endpoint(kinds=kinds, path=f"{path}:{verb}", format=format_)
        for verb, format_ in _VERBS
        for kinds, path in _MODELS
    ),
    *(Endpoint(kinds=kinds, path=path, format=_FREE, methods=_READ) for kinds, path in _MODELS),
    Endpoint(kinds=_GEMINI, path="/{version}/models", format=_FREE, methods=_READ),
    Endpoint(kinds=_GEMINI, path="/models", format=_FREE, methods=_READ),
    Endpoint(kinds=_GEMINI, path="/{version}/tunedModels", format=_FREE, methods=_READ),
    Endpoint(
        kinds=_GEMINI,
        path="/{version}/models/{model}/operations/{operation}",
        format=_FREE,
        methods=_READ,
    ),
    Endpoint(kinds=_GEMINI, path="/{version}/operations/{operation}", format=_FREE, methods=_READ),
    Endpoint(kinds=_GEMINI, path="/{version}/files", format=_FREE, methods=_READ),
    Endpoint(
        kinds=_GEMINI,
        path="/{version}/files/{file}",
        format=_FREE,
        methods=frozenset({"GET", "DELETE"}),
    ),
    Endpoint(kinds=_GEMINI, path="/upload/{version}/files", format=Upload()),
    Endpoint(
        kinds=_VERTEX, path="/{version}/publishers/google/models", format=_FREE, methods=_READ
    ),
    *(
        endpoint
        for kinds, place in ((_GEMINI, "/{version}"), (_VERTEX, _PLACE))
        for endpoint in (
            Endpoint(kinds=kinds, path=f"{place}/interactions", format=_INTERACTIONS),
            Endpoint(
                kinds=kinds,
                path=f"{place}/interactions/{{interaction}}",
                format=_FREE,
                methods=frozenset({"GET", "DELETE"}),
            ),
            Endpoint(
                kinds=kinds, path=f"{place}/interactions/{{interaction}}/cancel", format=_FREE
            ),
            Endpoint(kinds=kinds, path=f"{place}/cachedContents", format=_CACHES),
            Endpoint(kinds=kinds, path=f"{place}/cachedContents", format=_FREE, methods=_READ),
            Endpoint(
                kinds=kinds, path=f"{place}/cachedContents/{{cache}}", format=_FREE, methods=_ANY
            ),
        )
    ),
)
