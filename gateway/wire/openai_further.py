"""What a chat completion can be asked to read or run beside its messages, by any provider.

Must never take a request for one whose bytes bound its prompt where a provider adds to it.
"""

from typing import Final, Literal

import msgspec

from gateway.wire.facts import BadRequest
from gateway.wire.openai_answer import ABSENT, NULLS, UNREADABLE

# Contents that are kept at the provider. Names may be escaped.
_KEPT: Final = (b"cached_content", b"cachedContent", b"\\u00")


class OwnTool(msgspec.Struct, gc=False):
    """A tool the caller runs itself; one that the provider runs does not decode.

    Attributes:
        type: What it is; some leave it out of functions.
    """

    type: Literal["function", "custom"] | None = None


class Further(msgspec.Struct, kw_only=True):
    """Fields that compatible providers act on.

    Attributes:
        models: Models to fall back to.
        plugins: OpenRouter's searches and readers of files.
        search_parameters: xAI's searches.
        preset: OpenRouter's stored settings.
        data_sources: What Azure reads before it answers.
        dataSources: The same as it was spelt before.
        extra_body: What else Google knows, such as a cached content.
        google: The same, one level up.

    Source:
        https://openrouter.ai/docs/api-reference/parameters, https://docs.x.ai/docs/api-reference,
        https://learn.microsoft.com/azure/ai-foundry/openai/references/on-your-data,
        https://ai.google.dev/gemini-api/docs/openai, checked 2026-11-23.
    """

    models: msgspec.Raw = ABSENT
    plugins: msgspec.Raw = ABSENT
    search_parameters: msgspec.Raw = ABSENT
    preset: msgspec.Raw = ABSENT
    data_sources: msgspec.Raw = ABSENT
    dataSources: msgspec.Raw = ABSENT  # noqa: N815 - on the wire
    extra_body: msgspec.Raw = ABSENT
    google: msgspec.Raw = ABSENT


_decode_tools: Final = msgspec.json.Decoder(list[OwnTool] | None).decode


def is_plain(asked: Further) -> bool:
    """Tell whether none of the fields is given, as hardly ever one is.

    Args:
        asked: The fields.

    Returns:
        Whether there is nothing to look at.
    """
    return (
        asked.models is ABSENT
        and asked.plugins is ABSENT
        and asked.search_parameters is ABSENT
        and asked.preset is ABSENT
        and asked.data_sources is ABSENT
        and asked.dataSources is ABSENT
        and asked.extra_body is ABSENT
        and asked.google is ABSENT
    )


def runs_tools(tools: msgspec.Raw) -> bool:
    """Tell whether the provider runs a tool of its own, and reads what it finds.

    Args:
        tools: As the request lists them.

    Returns:
        Whether one of them is none of the caller's, such as a search.

    Source:
        https://console.groq.com/docs/browser-search, https://openrouter.ai/docs/features,
        https://platform.moonshot.ai/docs/guide/use-web-search, checked 2026-11-23.
    """
    if tools is ABSENT:
        return False
    try:
        _decode_tools(tools)
    except UNREADABLE:
        return True
    return False


def searches_aside(asked: Further) -> bool:
    """Tell whether a search is asked for that is charged apart.

    Args:
        asked: The fields.

    Returns:
        Whether one is.

    Raises:
        BadRequest: Other models may answer, whose prices are not held.
    """
    if bytes(asked.models) not in NULLS:
        raise BadRequest("'models' names other models to fall back to: name the one to call")
    return not (bytes(asked.plugins) in NULLS and bytes(asked.search_parameters) in NULLS)


def asks_elsewhere(asked: Further) -> bool:
    """Tell whether the provider looks things up for the answer, as often as it likes.

    Args:
        asked: The fields.

    Returns:
        Whether nothing bounds what is read.
    """
    fields = (
        asked.plugins,
        asked.search_parameters,
        asked.preset,
        asked.data_sources,
        asked.dataSources,
    )
    return any(bytes(field) not in NULLS for field in fields)


def brings_kept(asked: Further) -> bool:
    """Tell whether a content that is kept at the provider is part of the prompt.

    Args:
        asked: The fields.

    Returns:
        Whether the prompt is longer than the request.
    """
    further = bytes(asked.extra_body) + bytes(asked.google)
    return bool(further) and any(name in further for name in _KEPT)
