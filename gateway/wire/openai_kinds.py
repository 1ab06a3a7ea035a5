"""Chat completions of every provider kind: what each does beside what OpenAI's API says, as data.

Must never hold a reader of its own: the common one reads, these say what else there is.
"""

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from gateway.wire.facts import Answer, Asked, OtherUse, RequestFacts
from gateway.wire.google_request import refuse_masks
from gateway.wire.openai_answer import NAME_CHARS_MAX, TIERS, UNREADABLE, Make
from gateway.wire.openai_chat import OpenAIChat, never
from gateway.wire.openai_places import rows
from gateway.wire.openai_usage import (
    TOKENS_MAX,
    Counting,
    UsageObject,
    read_usage,
    whole_of,
)
from gateway.wire.told_cost import cost_of, fields_in, take_cost, ticks_of, usage_fields
from pricing.meters import Meter
from pricing.rates import NO_VARIANTS
from pricing.usage import Usage

# The first api-version whose streams take ``stream_options``.
# Source: https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle, 2026-11-23.
_AZURE_USAGE_FROM: Final = "2024-09-01"
# Errors Azure may charge for although nothing was answered.
# Source: https://learn.microsoft.com/azure/ai-foundry/openai/how-to/manage-costs, 2026-11-23.
_AZURE_BILLED: Final = (b'"content_filter"', b'"context_length_exceeded"')
_BAD_REQUEST: Final = 400
_TIMED_OUT: Final = 408
# Far above what Mistral hears in one request.
# Source: https://docs.mistral.ai/capabilities/audio, checked 2026-11-23.
_HEARD_S_MAX: Final = 3 * 3600

_BROKEN_DOWN: Final = b'"usage_breakdown"'
_SIZES: Final = frozenset({"low", "medium", "high"})
# This model's citations, thoughts and searches are charged one by one, and nothing bounds them.
# Source: https://docs.perplexity.ai/getting-started/pricing, checked 2026-11-23.
_RESEARCHER: Final = "deep-research"


def _count(answer: Answer, meter: Meter, count: int | None) -> None:
    """Add a count to a report that has some."""
    usage = answer.usage
    if usage is None or not usage.counts or not count or not 0 < count <= TOKENS_MAX:
        return
    counts = {**usage.counts, meter: usage.counts.get(meter, 0) + count}
    answer.usage = Usage(counts=counts, basis=usage.basis, flags=usage.flags)


def _sum_of(fields: Mapping[str, Any], *names: str) -> int:
    return sum(whole_of(fields.get(name)) or 0 for name in names)


def note_openrouter(answer: Answer, data: bytes) -> None:
    """Read what OpenRouter says beside its counts: the cost, and the searches in it.

    Args:
        answer: Takes it.
        data: A JSON object that has brought usage.

    Source:
        https://openrouter.ai/docs/use-cases/usage-accounting: ``cost`` is what the account is
        charged; with a key of one's own it is the fee alone, and the provider's bill is beside it.
        Checked 2026-11-23.
    """
    fields = usage_fields(data)
    cost = cost_of(fields.get("cost"))
    if cost is not None and fields.get("is_byok") is True:
        upstream = cost_of(fields_in(fields.get("cost_details")).get("upstream_inference_cost"))
        cost = None if upstream is None else cost + upstream
    take_cost(answer, cost)
    used = fields_in(fields.get("server_tool_use_details") or fields.get("server_tool_use"))
    if "web_search_requests" in used:
        _count(answer, Meter.WEB_SEARCH, whole_of(used["web_search_requests"]))
        answer.tells_fees = True
    # What the account is charged holds every search.
    answer.tells_fees = answer.tells_fees or answer.provider_cost is not None


def note_xai(answer: Answer, data: bytes) -> None:
    """Read what xAI says beside its counts: the exact bill, and the searches in it.

    Args:
        answer: Takes it.
        data: A JSON object that has brought usage.

    Source:
        https://docs.x.ai/docs/api-reference, ``usage``; https://docs.x.ai/docs/models for the fees
        of tools. Checked 2026-11-23.
    """
    fields = usage_fields(data)
    take_cost(answer, ticks_of(fields.get("cost_in_usd_ticks")))
    tools = fields_in(fields.get("server_side_tool_usage_details"))
    searches = _sum_of(tools, "web_search_calls", "x_search_calls")
    _count(answer, Meter.WEB_SEARCH, searches + _sum_of(fields, "num_sources_used"))
    answer.tells_fees = True


def note_perplexity(answer: Answer, data: bytes) -> None:
    """Read what Perplexity says beside its counts: the cost, and what it has read.

    Args:
        answer: Takes it.
        data: A JSON object that has brought usage.

    Source:
        https://docs.perplexity.ai/api-reference/chat-completions-post, ``usage``;
        https://docs.perplexity.ai/getting-started/pricing: citation tokens of deep research cost
        what its prompt costs. Checked 2026-11-23.
    """
    fields = usage_fields(data)
    take_cost(answer, cost_of(fields_in(fields.get("cost")).get("total_cost")))
    size = fields.get("search_context_size")
    if isinstance(size, str) and size in _SIZES:
        answer.variants = MappingProxyType({Meter.WEB_SEARCH: size})
    if _RESEARCHER in (answer.model or ""):
        _count(answer, Meter.INPUT, whole_of(fields.get("citation_tokens")))
        _count(answer, Meter.WEB_SEARCH, whole_of(fields.get("num_search_queries")))
    answer.tells_fees = True


def note_mistral(answer: Answer, data: bytes) -> None:
    """Note that a report of Mistral's holds what it heard, too.

    Args:
        answer: Takes it.
        data: A JSON object that has brought usage.
    """
    answer.tells_fees = True


class _Share(msgspec.Struct):
    model: str
    usage: UsageObject


class _Breakdown(msgspec.Struct):
    models: list[_Share] = []


class _Broken(msgspec.Struct):
    usage_breakdown: _Breakdown | None = None


_decode_broken = msgspec.json.Decoder(_Broken, strict=False).decode


def note_groq(answer: Answer, data: bytes) -> None:
    """Read which models a compound system asked, where that explains all its usage.

    Args:
        answer: Takes it.
        data: A JSON object that has brought usage.

    Source:
        https://console.groq.com/docs/compound, ``usage_breakdown``, checked 2026-11-23.
    """
    answer.others = ()
    if _BROKEN_DOWN not in data or answer.usage is None:
        return
    try:
        told = _decode_broken(data).usage_breakdown
    except UNREADABLE:
        return
    shares = [] if told is None else told.models
    uses = [
        OtherUse(model=share.model[:NAME_CHARS_MAX], usage=read_usage(share.usage))
        for share in shares
    ]
    sums: Counter[Meter] = Counter()
    for use in uses:
        sums.update({meter: int(count) for meter, count in use.usage.counts.items()})
    if uses and sums == answer.usage.counts:
        answer.model, answer.usage = uses[0].model, uses[0].usage
        answer.others = tuple(uses[1:])


class PerplexityChat(OpenAIChat):
    """Chat completions of Perplexity, whose models search for every prompt."""

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts. The price of a search is in that of the request; deep research has no bound.

        Raises:
            BadRequest: As ``OpenAIChat.read_facts``.
        """
        facts = super().read_facts(asked)
        is_open = _RESEARCHER in facts.model
        return msgspec.structs.replace(
            facts,
            input_tokens_max=None,
            output_tokens_max=None if is_open else facts.output_tokens_max,
            fees={},
            variants=NO_VARIANTS,
        )


class GoogleChat(OpenAIChat):
    """Chat completions of Google, whose answers can be asked for in part."""

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts.

        Raises:
            BadRequest: As ``OpenAIChat.read_facts``, or for a mask: without the total of its usage
                an answer does not tell what was thought.
        """
        refuse_masks(asked)
        return super().read_facts(asked)


class MistralChat(OpenAIChat):
    """Chat completions of Mistral, which bills what it hears by the second."""

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts, with the longest audio there can be where there is any.

        Raises:
            BadRequest: As ``OpenAIChat.read_facts``.
        """
        facts = super().read_facts(asked)
        if facts.input_tokens_max is not None or b"input_audio" not in asked.body:
            return facts
        fees = {**facts.fees, Meter.AUDIO_SECOND: _HEARD_S_MAX}
        return msgspec.structs.replace(facts, fees=fees)


def azure_takes_usage_option(asked: Asked) -> bool:
    """Tell whether Azure takes ``stream_options`` with a request.

    Args:
        asked: The request.

    Returns:
        False for versions of the API from before it, and for answers on the customer's own data.

    Source:
        https://learn.microsoft.com/azure/ai-foundry/openai/reference, checked 2026-11-23.
    """
    if b'"data_sources"' in asked.body or b'"dataSources"' in asked.body:
        return False
    version = dict(parse_qsl(asked.query)).get("api-version", "")
    return not version[:1].isdigit() or version >= _AZURE_USAGE_FROM


def azure_bills(status: int, body: bytes) -> bool | None:
    """Tell whether Azure may charge for an error.

    Args:
        status: HTTP status.
        body: The answer.

    Returns:
        Yes for what its filters stopped and for what took too long; ``None`` where the status
        tells.

    Source:
        https://learn.microsoft.com/azure/ai-foundry/openai/how-to/manage-costs, "HTTP error
        response code and billing status", checked 2026-11-23.
    """
    is_stopped = status == _BAD_REQUEST and any(code in body for code in _AZURE_BILLED)
    return True if is_stopped or status == _TIMED_OUT else None


_PLAIN: Final = OpenAIChat()
_GOOGLE: Final = Make(counting=Counting(total_has_thought=True))
# Where usage comes unasked it is not asked for, so that not a byte of the stream changes.
CHATS: Final[Mapping[str, OpenAIChat]] = MappingProxyType(
    {
        "openai": _PLAIN,
        "demo": _PLAIN,
        "vllm": _PLAIN,
        "ollama": _PLAIN,
        "anthropic": _PLAIN,
        "bedrock": _PLAIN,
        "cohere": _PLAIN,
        "deepseek": _PLAIN,
        "together": _PLAIN,
        "gemini": GoogleChat(_GOOGLE),
        "vertex": GoogleChat(msgspec.structs.replace(_GOOGLE, publisher="google/")),
        "azure": OpenAIChat(asks_usage=azure_takes_usage_option, is_billed=azure_bills),
        "mistral": MistralChat(Make(note=note_mistral), asks_usage=never),
        "fireworks": OpenAIChat(asks_usage=never),
        # Flex is billed like on demand: https://console.groq.com/docs/service-tiers, 2026-11-23.
        "groq": OpenAIChat(
            Make(tiers=MappingProxyType({**TIERS, "flex": "standard"}), note=note_groq),
            asks_usage=never,
        ),
        "openrouter": OpenAIChat(Make(note=note_openrouter), asks_usage=never),
        "perplexity": PerplexityChat(
            Make(counting=Counting(thinks_beside=True), note=note_perplexity), asks_usage=never
        ),
        "xai": OpenAIChat(
            Make(counting=Counting(thinks_outside=True), note=note_xai), asks_usage=never
        ),
    }
)

ENDPOINTS: Final = tuple(rows("/chat/completions", CHATS))
