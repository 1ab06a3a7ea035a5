"""Where each wire format takes a limit of its output, and how one is written into a request.

Must never change a limit that a request names, nor a byte beside the field that is added.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from gateway.wire.splice import Member, plain_name, replace_spans, scan_members

Path = tuple[str, ...]

_MAX_TOKENS: Final[tuple[Path, ...]] = (("max_tokens",),)
# Whose chat models take ``max_completion_tokens`` and may refuse the older name; everywhere else
# the older one is what is honoured. OpenAI's, Groq's and xAI's API references, checked 2026-11-23.
_NEW_NAMES: Final = frozenset({"openai", "groq", "xai"})
_CHAT: Final = "openai.chat"
_NEW_CHAT: Final[tuple[Path, ...]] = (("max_completion_tokens",), ("max_tokens",))
_OLD_CHAT: Final[tuple[Path, ...]] = (("max_tokens",), ("max_completion_tokens",))
# Every field that can hold the limit; the first is the one that is written. As the providers' API
# references name them, checked 2026-11-23.
_LIMITS: Final[Mapping[str, tuple[Path, ...]]] = MappingProxyType(
    {
        "openai.completions": _MAX_TOKENS,
        "openai.responses": (("max_output_tokens",),),
        "openai.responses.live": (("max_output_tokens",),),
        # The older name is that of a session; it is looked for, so that no limit is given twice.
        "openai.realtime": (
            ("response", "max_output_tokens"),
            ("response", "max_response_output_tokens"),
        ),
        "anthropic.messages": _MAX_TOKENS,
        "gemini.generate_content": (("generationConfig", "maxOutputTokens"),),
        "gemini.interactions": (("generation_config", "max_output_tokens"),),
        "bedrock.converse": (("inferenceConfig", "maxTokens"),),
        "cohere.chat": _MAX_TOKENS,
        "cohere.chat.v1": _MAX_TOKENS,
        "cohere.generate": _MAX_TOKENS,
        "mistral.fim": _MAX_TOKENS,
        "mistral.agents": _MAX_TOKENS,
        "mistral.conversations": (("completion_args", "max_tokens"),),
        "ollama.chat": (("options", "num_predict"),),
        "ollama.generate": (("options", "num_predict"),),
    }
)


def limit_fields(api: str, priced_as: str) -> tuple[Path, ...]:
    """Find where a request takes a limit of its output.

    Args:
        api: Name of the wire format in the ledger.
        priced_as: Catalog provider whose models are called.

    Returns:
        Every field that can hold it, each as the names on the way to it, the one to write first;
        empty for a format that takes none.
    """
    if api == _CHAT:
        return _NEW_CHAT if priced_as in _NEW_NAMES else _OLD_CHAT
    return _LIMITS.get(api, ())


def cap_output(body: bytes, fields: tuple[Path, ...], tokens: int) -> bytes | None:
    """Write a limit of the output into a request that names none.

    Args:
        body: A JSON object.
        fields: As ``limit_fields`` gives them.
        tokens: The limit.

    Returns:
        The same bytes with the first field added; ``None`` where one of them is there already,
        whatever it says, or where the body has no place for it.
    """
    if not fields:
        return None
    # Once: the body may be megabytes, and nobody else is served meanwhile.
    members = scan_members(body)
    if any(_is_named(body, members, path) for path in fields):
        return None
    return _write(body, members, fields[0], str(tokens).encode())


def _is_named(body: bytes, members: Sequence[Member], path: Path) -> bool:
    """Tell whether a field is there, or might be for another reader."""
    name, *rest = path
    for member in members:
        if plain_name(member.name) != plain_name(name):
            continue
        given = body[member.start : member.end].strip()
        if given == b"null":
            continue
        if not rest or not given.startswith(b"{"):
            return True
        if _is_named(given, scan_members(given), tuple(rest)):
            return True
    return False


def _write(body: bytes, members: Sequence[Member], path: Path, value: bytes) -> bytes | None:
    name, *rest = path
    same = [member for member in members if plain_name(member.name) == plain_name(name)]
    if len(same) > 1:
        return None
    nested = value
    for inner in reversed(rest):
        nested = b'{"' + inner.encode() + b'":' + nested + b"}"
    if not same:
        start = body.find(b"{") + 1
        added = b'"' + name.encode() + b'":' + nested + (b"," if members else b"")
        return body[:start] + added + body[start:] if start else None
    (member,) = same
    given = body[member.start : member.end]
    written: bytes | None = nested
    if given.strip() != b"null":
        written = _write(given, scan_members(given), tuple(rest), value)
    return None if written is None else replace_spans(body, [(member.start, member.end, written)])
