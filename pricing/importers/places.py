"""What providers and models of other lists are called in our catalog.

Must never guess: a provider that is not listed here is left out by name.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

# Names the litellm map has for a provider of the catalog, where they differ.
_LITELLM_RENAMED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "azure_text": "azure",
        "bedrock_converse": "bedrock",
        "codestral": "mistral",
        "cohere_chat": "cohere",
        "fireworks_ai": "fireworks",
        "fireworks_ai-embedding-models": "fireworks",
        "text-completion-codestral": "mistral",
        "text-completion-inception": "inception",
        "text-completion-openai": "openai",
        "together_ai": "together",
        "vertex_ai": "vertex",
        "vertex_ai-ai21_models": "vertex",
        "vertex_ai-anthropic_models": "vertex",
        "vertex_ai-deepseek_models": "vertex",
        "vertex_ai-embedding-models": "vertex",
        "vertex_ai-language-models": "vertex",
        "vertex_ai-llama_models": "vertex",
        "vertex_ai-minimax_models": "vertex",
        "vertex_ai-mistral_models": "vertex",
        "vertex_ai-moonshot_models": "vertex",
        "vertex_ai-openai_models": "vertex",
        "vertex_ai-qwen_models": "vertex",
        "vertex_ai-text-models": "vertex",
        "vertex_ai-video-models": "vertex",
        "vertex_ai-zai_models": "vertex",
    }
)
# Providers the catalog calls what the litellm map calls them.
_LITELLM_SAME: Final = frozenset(
    [
        "agentcore",
        "ai21",
        "aihubmix",
        "aiml",
        "amazon_nova",
        "anthropic",
        "anyscale",
        "apiserpent",
        "assemblyai",
        "aws_polly",
        "azure",
        "azure_ai",
        "baseten",
        "bedrock",
        "bedrock_mantle",
        "bespoke",
        "bing_grounding",
        "black_forest_labs",
        "cerebras",
        "chatgpt",
        "cloudflare",
        "cognition",
        "cohere",
        "coralbricks",
        "crusoe",
        "darkbloom",
        "dashscope",
        "databricks",
        "dataforseo",
        "deepgram",
        "deepinfra",
        "deepseek",
        "duckduckgo",
        "elevenlabs",
        "exa_ai",
        "fal_ai",
        "featherless_ai",
        "firecrawl",
        "friendliai",
        "gemini",
        "gigachat",
        "github_copilot",
        "gmi",
        "google_pse",
        "gradient_ai",
        "groq",
        "heroku",
        "hyperbolic",
        "inception",
        "inferenceapis",
        "jina_ai",
        "lambda_ai",
        "laya",
        "lemonade",
        "libertai",
        "linkup",
        "llamagate",
        "meta",
        "meta_llama",
        "microsoft_365_copilot",
        "minimax",
        "mistral",
        "moonshot",
        "morph",
        "nace",
        "nebius",
        "nimble",
        "nlp_cloud",
        "novita",
        "nscale",
        "nvidia_nim",
        "oci",
        "ollama",
        "openai",
        "openinfer",
        "openrouter",
        "ovhcloud",
        "parallel_ai",
        "perplexity",
        "pinstripes",
        "prism",
        "publicai",
        "qwencloud",
        "qwen_ai_platform",
        "recraft",
        "reducto",
        "replicate",
        "runwayml",
        "sagemaker",
        "sail",
        "sambanova",
        "sarvam",
        "scaledown",
        "scaleway",
        "scx-ai",
        "searxng",
        "serper",
        "snowflake",
        "soniox",
        "stability",
        "strands_decider",
        "tavily",
        "tencent",
        "tensormesh",
        "tinyfish",
        "transcribe",
        "typesafe",
        "v0",
        "vercel_ai_gateway",
        "volcengine",
        "voyage",
        "wandb",
        "watsonx",
        "xai",
        "xiaomi_mimo",
        "you_com",
        "zai",
    ]
)
LITELLM_PROVIDERS: Final[Mapping[str, str]] = MappingProxyType(
    {name: name for name in _LITELLM_SAME} | dict(_LITELLM_RENAMED)
)

# First parts of a key that name the provider once more, besides the provider's own name.
_PREFIXES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "amazon_nova": ("amazon-nova",),
        "azure": ("azure",),
        "fireworks": ("fireworks_ai",),
        "together": ("together_ai",),
        "vertex": ("vertex_ai",),
        "mistral": ("codestral", "text-completion-codestral"),
        "inception": ("text-completion-inception",),
    }
)

GENAI_PROVIDERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "aws": "bedrock",
        "github-copilot": "github_copilot",
        "google": "gemini",
        "moonshotai": "moonshot",
        "openai-decisions": "openai_decisions",
        "voyageai": "voyage",
        "x-ai": "xai",
    }
    | {
        name: name
        for name in [
            "anthropic",
            "arcee",
            "avian",
            "azure",
            "baseten",
            "cerebras",
            "cloudflare",
            "cohere",
            "cursor",
            "databricks",
            "deepseek",
            "doubleword",
            "elevenlabs",
            "fireworks",
            "groq",
            "huggingface_cerebras",
            "huggingface_fireworks-ai",
            "huggingface_groq",
            "huggingface_hyperbolic",
            "huggingface_nebius",
            "huggingface_novita",
            "huggingface_nscale",
            "huggingface_ovhcloud",
            "huggingface_publicai",
            "huggingface_sambanova",
            "huggingface_together",
            "meta",
            "minimax",
            "mistral",
            "modal",
            "novita",
            "openai",
            "openrouter",
            "ovhcloud",
            "perplexity",
            "quicksilverpro",
            "together",
            "typesafe",
            "zai",
            "zhipuai",
        ]
    }
)

# Providers that run on the user's own machine: their zeros are prices.
LOCAL_PROVIDERS: Final = frozenset({"lemonade", "ollama"})

_AZURE_REGIONS: Final = frozenset({"apac", "eu", "global", "global-standard", "us", "us-gov"})
_AWS_REGION: Final = re.compile(r"(?:us|eu|ap|ca|sa|me|af)(?:-gov)?-[a-z]+-\d")
_SIZE: Final = re.compile(r"(?:\d+|max)-x-(?:\d+|max)")
_STEPS: Final = re.compile(r"(?:\d+|max)-steps")
_QUALITIES: Final = frozenset({"hd", "high", "low", "medium", "standard"})
# Rows that price "any model of 4 to 8 billion parameters".
_SIZE_CLASS: Final = re.compile(
    r"(?:together-ai|fireworks-ai)-(?:[a-z]+-)*[\d.]+[bm]\b.*|.*-default"
)


class NotAModel(ValueError):
    """A key of the map that names no model; the text says what it is instead."""


class CatalogPlace(NamedTuple):
    """Where a row of the litellm map belongs.

    Attributes:
        provider: Catalog provider.
        model: Name the provider has for the model.
        region: Region class the row is for.
        variant: Size and quality of an image the row is for.
        is_prefixed: The key itself names the provider, so that it is the row to believe where two
            rows are for one model.
    """

    provider: str
    model: str
    region: str | None
    variant: str | None
    is_prefixed: bool


def find_place(key: str, litellm_provider: str) -> CatalogPlace | None:
    """Find the catalog provider and model a row of the litellm map is about.

    Args:
        key: Name of the row.
        litellm_provider: Its provider.

    Returns:
        The place, or ``None`` for a provider without a catalog name.

    Raises:
        NotAModel: The key is a class of models or a commitment.
    """
    provider = LITELLM_PROVIDERS.get(litellm_provider)
    if provider is None:
        return None
    parts = key.split("/")
    if len(parts) == 1 and _SIZE_CLASS.fullmatch(key):
        raise NotAModel("a class of models by size")
    if any(part.endswith("-commitment") for part in parts):
        raise NotAModel("a reserved machine is a commitment, not a price of a call")
    variant: list[str] = []
    while len(parts) > 1 and (
        parts[0] in _QUALITIES or _SIZE.fullmatch(parts[0]) or _STEPS.fullmatch(parts[0])
    ):
        variant.append(parts.pop(0))
    prefixes = (litellm_provider, provider, *_PREFIXES.get(provider, ()))
    is_prefixed = len(parts) > 1 and parts[0] in prefixes
    if is_prefixed:
        parts.pop(0)
    region = _pop_region(provider, parts)
    while len(parts) > 1 and (
        parts[0] in _QUALITIES or _SIZE.fullmatch(parts[0]) or _STEPS.fullmatch(parts[0])
    ):
        variant.append(parts.pop(0))
    return CatalogPlace(provider, "/".join(parts), region, _variant_name(variant), is_prefixed)


def _pop_region(provider: str, parts: list[str]) -> str | None:
    if len(parts) < 2:
        return None
    first = parts[0]
    if (provider == "azure" and first in _AZURE_REGIONS) or (
        provider.startswith("bedrock") and _AWS_REGION.fullmatch(first)
    ):
        return parts.pop(0)
    return None


def _variant_name(parts: list[str]) -> str | None:
    """Size first, then quality or steps: ``1024x1024/hd``."""
    sizes = [part.replace("-x-", "x") for part in parts if _SIZE.fullmatch(part)]
    others = [part for part in parts if not _SIZE.fullmatch(part)]
    return "/".join([*sizes, *others]) or None
