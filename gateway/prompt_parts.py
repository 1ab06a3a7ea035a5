"""Who said what in a prompt: texts by role, for counting what the user wrote and what was added.

Must never be run in the process that carries calls: it reads whole bodies, and holds no more than
one at a time.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

# Parts of a record that say why a prompt is larger than what its user wrote.
USER: Final = "user"
SYSTEM: Final = "system"
HISTORY: Final = "history"
TOOLS: Final = "tools"
IMAGES: Final = "images"
_ROLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "user": USER,
        "USER": USER,
        "human": USER,
        "User": USER,
        "system": SYSTEM,
        "SYSTEM": SYSTEM,
        "developer": SYSTEM,
        "tool": TOOLS,
        "TOOL": TOOLS,
        "function": TOOLS,
    }
)
_TOOL_RESULTS: Final = frozenset(
    {
        "tool_result",
        "tool_use",
        "toolResult",
        "toolUse",
        "functionCall",
        "functionResponse",
        "function_call",
        "function_response",
        "web_search_tool_result",
        "server_tool_use",
        "function_call_output",
    }
)
_TEXTS: Final = ("text", "refusal", "input_text", "output_text", "thinking")
_MEDIA: Final = (
    *("image_url", "input_image", "image", "inlineData", "inline_data", "fileData", "file_data"),
    *("input_audio", "file", "input_file", "document", "video", "images"),
)
_MESSAGES: Final = (None, "message", "message.input", "message.output")
_SPOKEN: Final[Mapping[object, str]] = MappingProxyType(
    {None: USER, "text": USER, "image": USER, "user_input": USER, "model_output": HISTORY}
)
_DEPTH_MAX: Final = 64


@dataclass(slots=True)
class Parts:
    """A prompt, sorted.

    Attributes:
        texts: Texts by part.
        images: Images, files and recordings, which are not counted as text.
    """

    texts: dict[str, list[str]] = field(default_factory=dict)
    images: int = 0

    def add(self, part: str, text: object) -> None:
        """Add a text.

        Args:
            part: Which part it belongs to.
            text: The text; anything that is not text is left out.
        """
        if isinstance(text, str) and text:
            self.texts.setdefault(part, []).append(text)

    def add_json(self, part: str, value: object) -> None:
        """Add what a model sees as JSON, such as the definition of a tool.

        Args:
            part: Which part it belongs to.
            value: Anything JSON can hold; nothing is added for an empty one.
        """
        if value:
            self.add(part, json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def split_prompt(api: str, body: bytes) -> Parts | None:
    """Sort the texts of a request by who said them.

    Args:
        api: Wire format, as in the ledger.
        body: Request body as it came; of a session the frames since its last response, in an array.

    Returns:
        The parts; ``None`` for a format without a prompt, or a body that is none.
    """
    reader = _READERS.get(api)
    if reader is None:
        return None
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return None
    parts = Parts()
    if api in _SESSIONS:
        for frame in _list(asked):
            if isinstance(frame, dict):
                reader(frame, parts)
        # What was spoken is no text: nothing is known of it.
        return parts if parts.texts else None
    if not isinstance(asked, dict):
        return None
    reader(asked, parts)
    return parts


def _read_chat(asked: Mapping[str, Any], parts: Parts) -> None:
    """Messages with roles: OpenAI's, Cohere's, Mistral's, Ollama's."""
    _read_turns(asked.get("messages"), parts)
    for name in ("tools", "functions", "response_format", "format"):
        parts.add_json(TOOLS, asked.get(name))


def _read_messages(asked: Mapping[str, Any], parts: Parts) -> None:
    """Anthropic's messages; the system prompt stands beside them, in Bedrock's too."""
    _read_content(asked.get("system"), SYSTEM, parts)
    _read_turns(asked.get("messages"), parts)
    parts.add_json(TOOLS, asked.get("tools"))
    parts.add_json(TOOLS, asked.get("toolConfig"))
    # Models of other makers behind Bedrock's own address take a plain prompt.
    for name in ("prompt", "inputText"):
        parts.add(USER, asked.get(name))


def _read_gemini(asked: Mapping[str, Any], parts: Parts) -> None:
    for name in ("systemInstruction", "system_instruction"):
        _read_content(_member(asked.get(name), "parts"), SYSTEM, parts)
    _read_turns(asked.get("contents"), parts, content="parts", usual=USER)
    parts.add_json(TOOLS, asked.get("tools"))
    for requested in _list(asked.get("requests")):
        _read_content(_member(_member(requested, "content"), "parts"), USER, parts)
    _read_content(_member(asked.get("content"), "parts"), USER, parts)


def _read_responses(asked: Mapping[str, Any], parts: Parts) -> None:
    parts.add(SYSTEM, asked.get("instructions"))
    given = asked.get("input")
    parts.add(USER, given)
    for item in _list(given):
        kind = _member(item, "type")
        if kind in _MESSAGES:
            _read_turns([item], parts)
        elif kind == "reasoning":
            _read_content(_member(item, "summary"), HISTORY, parts)
        else:
            parts.add_json(TOOLS, item)
    parts.add_json(TOOLS, asked.get("tools"))


def _read_conversation(asked: Mapping[str, Any], parts: Parts) -> None:
    """Mistral's conversations: inputs like those of OpenAI's responses."""
    _read_responses({**asked, "input": asked.get("inputs")}, parts)


def _read_interaction(asked: Mapping[str, Any], parts: Parts) -> None:
    """Gemini's interactions: text, contents, or turns with a role."""
    for name in ("systemInstruction", "system_instruction"):
        parts.add(SYSTEM, asked.get(name))
    given = asked.get("input")
    parts.add(USER, given)
    for one in _list(given):
        if _member(one, "role") is not None:
            _read_turns([one], parts)
        elif _member(one, "type") in _SPOKEN:
            part = _SPOKEN[_member(one, "type")]
            content = _member(one, "content")
            _read_content(one if content is None else content, part, parts)
        else:
            parts.add_json(TOOLS, one)
    parts.add_json(TOOLS, asked.get("tools"))


def _read_realtime(frame: Mapping[str, Any], parts: Parts) -> None:
    """A frame of OpenAI's: an item of the conversation, or a response with items of its own."""
    item = frame.get("item")
    _read_responses({"input": [item]} if item else _fields(frame.get("response")), parts)


def _read_live(frame: Mapping[str, Any], parts: Parts) -> None:
    """A message of Gemini's Live API."""
    for name in ("clientContent", "client_content"):
        _read_turns(_member(frame.get(name), "turns"), parts, content="parts", usual=USER)
    for name in ("realtimeInput", "realtime_input"):
        parts.add(USER, _member(frame.get(name), "text"))
    for name in ("toolResponse", "tool_response"):
        parts.add_json(TOOLS, frame.get(name))


def _read_plain(asked: Mapping[str, Any], parts: Parts) -> None:
    """A prompt or an input without roles."""
    parts.add(SYSTEM, asked.get("system"))
    for name in ("prompt", "input", "suffix", "texts", "query", "text"):
        value = asked.get(name)
        parts.add(USER, value)
        for one in _list(value):
            parts.add(USER, one)
    _read_content(asked.get("images"), USER, parts)


def _read_cohere(asked: Mapping[str, Any], parts: Parts) -> None:
    """Cohere's first version: one message beside its history."""
    parts.add(SYSTEM, asked.get("preamble"))
    parts.add(USER, asked.get("message"))
    for turn in _list(asked.get("chat_history")):
        parts.add(HISTORY, _member(turn, "message"))
    for name in ("tools", "tool_results", "documents"):
        parts.add_json(TOOLS, asked.get(name))
    _read_turns(asked.get("messages"), parts)


def _read_turns(
    turns: object, parts: Parts, *, content: str = "content", usual: str = HISTORY
) -> None:
    for turn in _list(turns):
        if not isinstance(turn, dict):
            continue
        role = turn.get("role")
        part = usual if role is None else _ROLES.get(str(role), HISTORY)
        _read_content(turn.get(content), part, parts)
        parts.add_json(TOOLS, turn.get("tool_calls") or turn.get("function_call"))
        parts.images += len(_list(turn.get("images")))


def _read_content(content: object, part: str, parts: Parts, depth: int = 0) -> None:
    """Add the texts of a message, whose content is text, a part or a list of parts."""
    if isinstance(content, str):
        parts.add(part, content)
    elif isinstance(content, list) and depth < _DEPTH_MAX:
        for one in content:
            _read_content(one, part, parts, depth + 1)
    elif isinstance(content, dict):
        _read_part(content, part, parts)


def _read_part(content: Mapping[str, Any], part: str, parts: Parts) -> None:
    kind = content.get("type")
    if kind in _TOOL_RESULTS or not _TOOL_RESULTS.isdisjoint(content):
        # What a tool answered travels in a message of the user's, and is none of it.
        parts.add_json(TOOLS, content)
        return
    if kind in _MEDIA or any(content.get(name) for name in _MEDIA):
        parts.images += 1
        return
    for name in _TEXTS:
        parts.add(part, content.get(name))


def _member(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _fields(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


_READERS: Final[Mapping[str, Callable[[Mapping[str, Any], Parts], None]]] = MappingProxyType(
    {
        "anthropic.messages": _read_messages,
        "bedrock.converse": _read_messages,
        "bedrock.invoke": _read_messages,
        "cohere.chat": _read_cohere,
        "cohere.embed": _read_plain,
        "cohere.rerank": _read_plain,
        "gemini.embed_content": _read_gemini,
        "gemini.generate_content": _read_gemini,
        "gemini.interactions": _read_interaction,
        "mistral.agents": _read_chat,
        "mistral.conversations": _read_conversation,
        "mistral.conversations_kept": _read_conversation,
        "mistral.fim": _read_plain,
        "ollama.chat": _read_chat,
        "ollama.embed": _read_plain,
        "ollama.generate": _read_plain,
        "openai.chat": _read_chat,
        "openai.completions": _read_plain,
        "openai.embeddings": _read_plain,
        "openai.responses": _read_responses,
        # The frames of sessions.
        "gemini.live": _read_live,
        "openai.realtime": _read_realtime,
        "openai.responses.live": _read_responses,
    }
)
_SESSIONS: Final = frozenset({"gemini.live", "openai.realtime", "openai.responses.live"})
