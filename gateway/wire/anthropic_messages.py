"""Anthropic's Messages API: its wire format and every address that speaks it.

Must never re-encode a body; bytes are spliced or passed on.
"""

import json
from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.wire.anthropic_answer import open_message_lane, read_message
from gateway.wire.anthropic_batches import AnthropicBatches, AnthropicResults
from gateway.wire.anthropic_dialect import AnthropicDialect
from gateway.wire.anthropic_free import AnthropicCount, AnthropicFree
from gateway.wire.anthropic_request import read_prompt_texts, read_request
from gateway.wire.endpoints import Endpoint
from gateway.wire.facts import NO_NAMES, Answer, Asked, ReplyHead, RequestFacts, StreamLane
from gateway.wire.google_request import refuse_masks
from gateway.wire.splice import replace_spans, scan_members

_NEVER_THINKS: Final = (
    "claude-2",
    "claude-instant",
    "claude-3-haiku",
    "claude-3-opus",
    "claude-3-sonnet",
    "claude-3-5-",
)
_MODEL: Final = "model"


class AnthropicMessages(AnthropicDialect):
    """The wire format of ``POST /v1/messages``."""

    api = "anthropic.messages"
    stream_types: tuple[str, ...] = ("text/event-stream",)

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts; bounds are never too small.

        Raises:
            BadRequest: As ``read_request``.
        """
        return read_request(asked.body, named=asked.names.get(_MODEL))

    def prepare_body(self, asked: Asked, facts: RequestFacts, model: str) -> bytes:
        """Make the body to send.

        Args:
            asked: The request as it came.
            facts: What was read of it.
            model: The provider's own name of the model.

        Returns:
            The same bytes, but for the model name where it differs.
        """
        body = asked.body
        if model == facts.model:
            return body
        spans = [(m.start, m.end) for m in scan_members(body) if m.name == _MODEL]
        return replace_spans(body, [(*span, json.dumps(model).encode()) for span in spans])

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> StreamLane:
        """Begin to read a streamed answer.

        Args:
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            A lane for the bytes of the answer.
        """
        return open_message_lane(facts)

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            What it says; not readable when it is not a message.
        """
        return read_message(body, facts)

    def may_think(self, model: str) -> bool:
        """Tell whether a model can produce output that is billed and never shown.

        Args:
            model: Under the provider's own name.

        Returns:
            False only for the families known not to.

        Source:
            https://platform.claude.com/docs/en/build-with-claude/extended-thinking, checked
            2026-11-23.
        """
        return not model.startswith(_NEVER_THINKS)

    def read_prompt(self, asked: Asked) -> list[str] | None:
        """Read the texts of a prompt for counting.

        Args:
            asked: The request as it came.

        Returns:
            As ``read_prompt_texts``.
        """
        return read_prompt_texts(asked.body)


class VertexMessages(AnthropicMessages):
    """The wire format of ``rawPredict``: the address names the model, and where it runs."""

    is_streaming = False

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts. Every location but ``global`` has the regional price, where there is one.

        Raises:
            BadRequest: As ``read_request``, or for a mask, which could leave the usage out.

        Source:
            https://cloud.google.com/vertex-ai/generative-ai/pricing, checked 2026-11-23.
        """
        refuse_masks(asked)
        facts = read_request(
            asked.body, named=asked.names.get(_MODEL), is_streaming=self.is_streaming
        )
        is_global = asked.names.get("location") == "global"
        return msgspec.structs.replace(facts, region=None if is_global else "regional")


class VertexStream(VertexMessages):
    """The wire format of ``streamRawPredict``: the address alone asks for a stream."""

    is_streaming = True


_MESSAGES: Final = AnthropicMessages()
_COUNT: Final = AnthropicCount()
_FREE: Final = AnthropicFree()
_BATCHES: Final = AnthropicBatches()
_GET: Final = frozenset({"GET"})
_POST: Final = frozenset({"POST"})
_DELETE: Final = frozenset({"DELETE"})
_VERTEX: Final = "/v1/projects/{project}/locations/{location}/publishers/anthropic/models/"
_VERSIONED: Final = frozenset({"xai", "fireworks", "vllm", "ollama", "openrouter"})


def _rows(
    kinds: frozenset[str], path: str, prices: Mapping[str, str] = NO_NAMES
) -> tuple[Endpoint, Endpoint]:
    """A messages address and its count."""
    return (
        Endpoint(kinds=kinds, path=path, format=_MESSAGES, priced_as=prices),
        Endpoint(kinds=kinds, path=path + "/count_tokens", format=_COUNT, priced_as=prices),
    )


_OWN: Final = frozenset({"anthropic"})
_BATCH: Final = "/v1/messages/batches"

# Source: https://platform.claude.com/docs/en/api/overview; the other kinds: their own references
# of an Anthropic-compatible address. Checked 2026-11-23.
ENDPOINTS: Final = (
    *_rows(_OWN, "/v1/messages"),
    Endpoint(kinds=_OWN, path=_BATCH, format=_BATCHES),
    Endpoint(kinds=_OWN, path=_BATCH, format=_FREE, methods=_GET),
    Endpoint(kinds=_OWN, path=_BATCH + "/{batch}", format=_FREE, methods=_GET | _DELETE),
    Endpoint(kinds=_OWN, path=_BATCH + "/{batch}/cancel", format=_FREE, methods=_POST),
    Endpoint(kinds=_OWN, path=_BATCH + "/{batch}/results", format=AnthropicResults(), methods=_GET),
    Endpoint(kinds=_OWN, path="/v1/files", format=_FREE, methods=_GET | _POST),
    Endpoint(kinds=_OWN, path="/v1/files/{file}", format=_FREE, methods=_GET | _DELETE),
    Endpoint(kinds=_OWN, path="/v1/files/{file}/content", format=_FREE, methods=_GET),
    Endpoint(kinds=_OWN, path="/v1/models", format=_FREE, methods=_GET),
    Endpoint(kinds=_OWN, path="/v1/models/{id}", format=_FREE, methods=_GET),
    Endpoint(kinds=_OWN, path="/api/hello", format=_FREE, methods=_GET | {"HEAD"}),
    *_rows(frozenset({"deepseek"}), "/anthropic/v1/messages"),
    *_rows(frozenset({"azure"}), "/anthropic/v1/messages", {"openai": "azure_ai"}),
    # Where the base address ends with the version, it has been taken from the path.
    *_rows(_VERSIONED, "/messages"),
    *_rows(_VERSIONED, "/v1/messages"),
    Endpoint(
        kinds=frozenset({"vertex"}),
        path=_VERTEX + "count-tokens:rawPredict",
        format=_COUNT,
        priced_as={"gemini": "vertex"},
    ),
    Endpoint(
        kinds=frozenset({"vertex"}),
        path=_VERTEX + "{model}:rawPredict",
        format=VertexMessages(),
        priced_as={"gemini": "vertex"},
    ),
    Endpoint(
        kinds=frozenset({"vertex"}),
        path=_VERTEX + "{model}:streamRawPredict",
        format=VertexStream(),
        priced_as={"gemini": "vertex"},
    ),
)
