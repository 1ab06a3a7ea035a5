"""Cells of the grid that hold no case, each with the reason.

Must never name a cell that has a case: ``test_grid.py`` compares.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

_MEDIA: Final = ("cached", "reasoning", "tools", "images", "audio", "refusal")
_STREAMS: Final = ("streamed", "aborted")


def _cells(
    reason: str, columns: Iterable[str], others: Mapping[str, str] | None = None
) -> dict[str, str]:
    return {**dict.fromkeys(columns, reason), **(others or {})}


def _beside(reason: str, *present: str) -> dict[str, str]:
    """What a format without a conversation lacks, but for columns it has all the same."""
    whole = dict.fromkeys(_STREAMS, "whole answers only")
    rest = {**dict.fromkeys(_MEDIA, reason), **whole}
    return {name: why for name, why in rest.items() if name not in present}


# Nothing is billed for these calls themselves, so there is nothing to count.
FREE: Final = frozenset(
    {
        "anthropic.batches",
        "anthropic.count_tokens",
        "anthropic.other",
        "bedrock.free",
        "cohere.free",
        "free",
        "gemini.batch",
        "gemini.free",
        "gemini.upload",
        "mistral.conversations_kept",
        "mistral.free",
        "ollama.free",
        "openai.batches",
        "openai.files",
        "openai.models",
        "openai.moderations",
        "openai.responses.free",
        "openai.responses.stored",
    }
)

# Sessions over a socket: a call is a turn of one, told in tests/e2e/test_realtime.py.
SESSIONS: Final = frozenset({"gemini.live", "openai.realtime", "openai.responses.live"})

# Columns a format does not have.
NOT_THERE: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "anthropic.batch_results": _cells(
            "a file", ("streamed",), _cells("lines are answers of messages", _MEDIA[1:])
        ),
        "anthropic.messages": _cells("takes and makes no sound", ("audio",)),
        "bedrock.async_invoke": _beside("makes videos"),
        "bedrock.converse": _cells("sound is not told apart in the usage", ("audio",)),
        "bedrock.guardrail": _beside("judges text"),
        "bedrock.invoke": _cells("sound is not told apart in the usage", ("audio",)),
        "cohere.chat": _cells(
            "takes and makes no sound", ("audio",), {"refusal": "no such stop reason"}
        ),
        "cohere.chat.v1": _cells(
            "text and tools only",
            ("cached", "reasoning", "images", "audio"),
            {"refusal": "no such stop reason"},
        ),
        "cohere.classify": _beside("sorts text"),
        "cohere.embed": _beside("vectors", "images"),
        "cohere.generate": _cells("text only", _MEDIA),
        "cohere.parse": _beside("counts pages"),
        "cohere.rerank": _beside("counts searches"),
        "cohere.summarize": _beside("text only"),
        "gemini.cached_contents": _beside("text is stored", "cached"),
        "gemini.embed_content": _beside("vectors"),
        # The statuses of its published reference: completed, failed, cancelled, incomplete, ...
        "gemini.interactions": {"refusal": "no such status"},
        "gemini.predict": _beside("counts pictures", "images", "refusal"),
        "gemini.predict_long_running": _beside("counts seconds of video"),
        "mistral.agents": _cells("takes and makes no sound", ("audio",))
        | {"refusal": "no such stop reason"},
        "mistral.batch_results": _cells("a file", ("streamed",))
        | _cells("lines are answers of other formats", _MEDIA),
        "mistral.chat_classifications": _beside("judges text"),
        "mistral.chat_moderations": _beside("judges text"),
        "mistral.classifications": _beside("judges text"),
        "mistral.conversations": _cells("no such counts", ("cached", "reasoning", "audio"))
        | {"refusal": "no such stop reason"},
        "mistral.fim": _cells(
            "fills in code", ("reasoning", "tools", "images", "audio", "refusal")
        ),
        "mistral.moderations": _beside("judges text"),
        "mistral.ocr": _beside("counts pages"),
        "mistral.speech": _cells("counts characters", _MEDIA),
        "mistral.transcriptions": _cells(
            "counts seconds", ("cached", "reasoning", "tools", "images", "refusal")
        ),
        "ollama.chat": _cells("takes and makes no sound", ("audio",))
        | {"refusal": "no such stop reason"},
        "ollama.embed": _beside("vectors"),
        "ollama.generate": _cells("takes no tools", ("tools",))
        | {"audio": "takes and makes no sound", "refusal": "no such stop reason"},
        "openai.completions": _cells(
            "text only", ("reasoning", "tools", "images", "audio", "refusal")
        ),
        "openai.embeddings": _beside("vectors"),
        "openai.file_content": _cells("a file", ("streamed",))
        | _cells("lines are answers of other formats", ("tools", "images", "audio", "refusal")),
        "openai.image_edits": _cells(
            "makes pictures", ("cached", "reasoning", "tools", "audio", "refusal")
        ),
        "openai.image_variations": _beside("makes pictures", "images"),
        "openai.images": _cells(
            "makes pictures", ("cached", "reasoning", "tools", "audio", "refusal")
        ),
        "openai.rerank": _beside("counts tokens of documents"),
        "openai.responses": _cells("takes and makes no sound", ("audio",)),
        "openai.score": _beside("counts tokens of documents"),
        "openai.speech": _cells("speaks", ("cached", "reasoning", "tools", "images", "refusal")),
        "openai.transcriptions": _cells(
            "writes down", ("cached", "reasoning", "tools", "images", "refusal")
        ),
        "openai.translations": _beside("writes down", "audio"),
        "perplexity.search": _beside("counts requests"),
    }
)
