"""Every address of every provider kind that is metered, and how each kind says no.

Must never hold more than rows: a wire format is a module, an address of one a row.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from gateway.wire import (
    anthropic_messages,
    bedrock_converse,
    bedrock_invoke,
    bedrock_other,
    cohere_calls,
    cohere_chat,
    gemini,
    gemini_live,
    mistral_batches,
    mistral_conversations,
    mistral_documents,
    mistral_text,
    ollama,
    openai_audio,
    openai_batches,
    openai_images,
    openai_kinds,
    openai_realtime,
    openai_responses,
    openai_responses_live,
    openai_text,
    small_calls,
)
from gateway.wire.anthropic_dialect import AnthropicDialect
from gateway.wire.bedrock_dialect import BedrockDialect
from gateway.wire.cohere_dialect import CohereDialect
from gateway.wire.endpoints import EndpointTable
from gateway.wire.facts import Dialect
from gateway.wire.google_dialect import GoogleDialect
from gateway.wire.mistral_dialect import MistralDialect
from gateway.wire.openai_dialect import OpenAIDialect
from gateway.wire.openai_places import PLACES

# The kind whose addresses the surface under ``/v1`` has.
OPENAI: Final = "openai"

ENDPOINTS: Final = EndpointTable(
    [
        *openai_kinds.ENDPOINTS,
        *openai_realtime.ENDPOINTS,
        *openai_responses_live.ENDPOINTS,
        *gemini_live.ENDPOINTS,
        *openai_text.ENDPOINTS,
        *openai_audio.ENDPOINTS,
        *openai_images.ENDPOINTS,
        *openai_responses.ENDPOINTS,
        *openai_batches.ENDPOINTS,
        *anthropic_messages.ENDPOINTS,
        *gemini.ENDPOINTS,
        *cohere_chat.ENDPOINTS,
        *cohere_calls.ENDPOINTS,
        *mistral_text.ENDPOINTS,
        *mistral_conversations.ENDPOINTS,
        *mistral_documents.ENDPOINTS,
        *mistral_batches.ENDPOINTS,
        *ollama.ENDPOINTS,
        *small_calls.ENDPOINTS,
        *bedrock_converse.ENDPOINTS,
        *bedrock_invoke.ENDPOINTS,
        *bedrock_other.ENDPOINTS,
    ]
)

# Kinds with an API of their own: a call in OpenAI's words is translated, although some of them
# have an address that takes most of it. That one stays open on their own surface. Cohere's takes
# all of it, and litellm 1.106 cannot read Cohere's streams.
_OTHERS: Final = frozenset({"anthropic", "bedrock", "gemini", "vertex"})
_EMBEDDING: Final = _OTHERS - {"anthropic"}
TRANSLATED: Final = frozenset(
    {(kind, path) for kind in _OTHERS for path in ("/chat/completions", "/responses")}
    | {(kind, "/embeddings") for kind in _EMBEDDING}
)

# Where a kind has the addresses of OpenAI's API, below its base address; a kind that is missing
# does not speak it, or has a project in the address.
OPENAI_PREFIXES: Final[Mapping[str, str]] = MappingProxyType(
    {
        kind: places[0]
        for kind, places in PLACES.items()
        if "{" not in places[0] and kind not in _OTHERS
    }
)

# Refusals on a provider's own surface are in its words; OpenAI's where nothing stands here.
DIALECTS: Final[Mapping[str, Dialect]] = MappingProxyType(
    {
        "anthropic": AnthropicDialect(),
        "bedrock": BedrockDialect(),
        "cohere": CohereDialect(),
        "gemini": GoogleDialect(),
        "mistral": MistralDialect(),
        "ollama": ollama.OllamaDialect(),
        "vertex": GoogleDialect(),
    }
)
OPENAI_DIALECT: Final = OpenAIDialect()

# The header a kind takes its key in; a bearer token where nothing stands here.
_KEY_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {"anthropic": "x-api-key", "azure": "api-key", "gemini": "x-goog-api-key"}
)


def auth_of(kind: str, key: str) -> tuple[str, str]:
    """Write a provider's key as its kind takes it.

    Args:
        kind: Provider kind.
        key: The credential.

    Returns:
        Name and value of a header.
    """
    name = _KEY_HEADERS.get(kind)
    return ("authorization", f"Bearer {key}") if name is None else (name, key)
