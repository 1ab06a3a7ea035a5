"""Where each provider kind has the addresses of OpenAI's API, below its base address.

Must never hold more than rows.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from gateway.wire.endpoints import Endpoint
from gateway.wire.facts import WireFormat

_PROJECT: Final = "/v1/projects/{project}/locations/{location}/endpoints/openapi"

# The first one is where calls of the surface under ``/v1`` go. The empty one is for a base address
# that has the rest in it. From the providers' API references, checked 2026-11-23:
# https://learn.microsoft.com/azure/ai-foundry/openai/reference, https://docs.mistral.ai/api,
# https://api-docs.deepseek.com, https://docs.x.ai/docs/api-reference,
# https://console.groq.com/docs/openai, https://docs.together.ai/docs/openai-api-compatibility,
# https://docs.fireworks.ai/tools-sdks/openai-compatibility, https://openrouter.ai/docs/api-reference,
# https://docs.perplexity.ai/api-reference, https://docs.vllm.ai/en/latest/serving,
# https://docs.ollama.com/api/openai-compatibility, https://docs.cohere.com/docs/compatibility-api,
# https://ai.google.dev/gemini-api/docs/openai, https://docs.claude.com/en/api/openai-sdk,
# https://cloud.google.com/vertex-ai/generative-ai/docs/migrate/openai/overview,
# https://docs.aws.amazon.com/bedrock/latest/userguide/inference-chat-completions.html
PLACES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "openai": ("", "/v1"),
        "demo": ("", "/v1"),
        "vllm": ("", "/v1"),
        "mistral": ("", "/v1"),
        "deepseek": ("", "/v1", "/beta"),
        "xai": ("", "/v1"),
        "groq": ("", "/openai/v1"),
        "together": ("", "/v1"),
        "fireworks": ("", "/inference/v1"),
        "openrouter": ("", "/api/v1", "/v1"),
        "perplexity": ("", "/v1"),
        "ollama": ("/v1", ""),
        "anthropic": ("/v1", ""),
        "cohere": ("/compatibility/v1", ""),
        "gemini": ("/v1beta/openai", "/v1/openai", ""),
        "vertex": (_PROJECT, _PROJECT.replace("/v1/", "/v1beta1/", 1), ""),
        "bedrock": ("/openai/v1", ""),
        "azure": (
            "/openai/v1",
            "/openai/deployments/{deployment}",
            "/deployments/{deployment}",
            "/v1",
            "",
        ),
    }
)


def rows(
    path: str,
    formats: Mapping[str, WireFormat],
    *,
    methods: frozenset[str] = frozenset({"POST"}),
) -> Iterator[Endpoint]:
    """List the addresses one path of OpenAI's API has with several kinds.

    Args:
        path: Such as ``/chat/completions``.
        formats: Reads its requests and answers, by kind.
        methods: HTTP methods it takes.

    Yields:
        A row for every place a kind has it in.
    """
    for kind, wire_format in formats.items():
        for place in PLACES[kind]:
            yield Endpoint(
                kinds=frozenset({kind}), path=place + path, format=wire_format, methods=methods
            )
