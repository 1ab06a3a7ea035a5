"""What the company's applications send: planned calls as requests of each provider's API.

Must never hold anybody's words: prompts are canned text of the planned length.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.traffic.company import CompanyCall

# Tells the demo provider what to answer; a real provider would not know it.
SCRIPT_HEADER: Final = "x-demo-script"
# The demo provider's answers carry it: nobody else's do.
MARK_HEADER: Final = "x-demo"
_LOREM: Final = (
    "You answer for a made-up company. Use the passages below and say so when they do not help. "
    "Passage: the parts list of the coffee machine names a gasket, a valve and two filters. "
)
_BYTES_PER_TOKEN: Final = 5
_OUTPUT_MAX: Final = 4_096
_USER_SHARE: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What the demo provider is to answer.

    Attributes:
        input: Tokens of the prompt, caches included.
        cache_read: Of these, read from a cache.
        cache_write: Of these, written to one.
        output: Tokens of the answer, reasoning included.
        reasoning: Of these, reasoning.
        trouble: What goes wrong.
    """

    input: int
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    trouble: str = ""

    def to_text(self) -> str:
        """Write it for the header.

        Returns:
            Numbers and the trouble, with commas.
        """
        counts = (self.input, self.cache_read, self.cache_write, self.output, self.reasoning)
        return ",".join([*map(str, counts), self.trouble])

    @classmethod
    def from_text(cls, text: str) -> "Script":
        """Read it from the header.

        Args:
            text: As written by ``to_text``.

        Returns:
            The same.

        Raises:
            ValueError: Something else.
        """
        counts = text.split(",")
        numbers = [int(count) for count in counts[:5]]
        if len(counts) != 6 or min(numbers) < 0:
            raise ValueError(f"{text!r} is not five counts and a word")
        return cls(
            input=numbers[0],
            cache_read=numbers[1],
            cache_write=numbers[2],
            output=numbers[3],
            reasoning=numbers[4],
            trouble=counts[5],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRequest:
    """One HTTP request to the gateway, without its address and key.

    Attributes:
        path: After the gateway's address.
        headers: Without the key.
        body: JSON.
    """

    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


def script_of(call: CompanyCall) -> Script:
    """Tell the demo provider what was planned.

    Args:
        call: The plan.

    Returns:
        Its answer.
    """
    return Script(
        input=call.input,
        cache_read=call.cache_read,
        cache_write=call.cache_write,
        output=call.output,
        reasoning=call.reasoning,
        trouble=call.trouble,
    )


def write_request(call: CompanyCall) -> CallRequest:
    """Write a planned call as its application would send it.

    Args:
        call: The plan.

    Returns:
        The request.
    """
    workload = call.workload
    path, body = _WRITERS[workload.api](call)
    headers = [
        ("content-type", "application/json"),
        ("x-taximeter-stream-cost", "1"),
        (SCRIPT_HEADER, script_of(call).to_text()),
    ]
    if workload.feature:
        headers.append(("x-taximeter-tags", f"feature={workload.feature}"))
    if call.user:
        headers.append(("x-taximeter-user", call.user))
    return CallRequest(
        path=f"/{workload.provider}{path}",
        headers=tuple(headers),
        body=json.dumps(body, separators=(",", ":")).encode(),
    )


def canned(tokens: int) -> str:
    """Make a text that so many tokens can stand for.

    Args:
        tokens: How many.

    Returns:
        Words.
    """
    size = tokens * _BYTES_PER_TOKEN
    return (_LOREM * (size // len(_LOREM) + 1))[:size]


def _texts(call: CompanyCall) -> tuple[str, str]:
    asked = max(4, call.input // _USER_SHARE // 2)
    return canned(call.input), canned(asked)


def _messages(call: CompanyCall) -> list[dict[str, str]]:
    system, asked = _texts(call)
    return [{"role": "system", "content": system}, {"role": "user", "content": asked}]


def _chat(call: CompanyCall) -> tuple[str, dict[str, Any]]:
    is_openai = call.workload.provider == "openai"
    limit = "max_completion_tokens" if is_openai else "max_tokens"
    body = {"model": call.workload.model, "messages": _messages(call), limit: _OUTPUT_MAX}
    return "/chat/completions", body | ({"stream": True} if call.stream else {})


def _responses(call: CompanyCall) -> tuple[str, dict[str, Any]]:
    system, asked = _texts(call)
    body: dict[str, Any] = {
        "model": call.workload.model,
        "instructions": system,
        "input": asked,
        "max_output_tokens": _OUTPUT_MAX,
    }
    return "/responses", body | ({"stream": True} if call.stream else {})


def _embeddings(call: CompanyCall) -> tuple[str, dict[str, Any]]:
    return "/embeddings", {"model": call.workload.model, "input": canned(call.input)}


def _anthropic(call: CompanyCall) -> tuple[str, dict[str, Any]]:
    system, asked = _texts(call)
    body: dict[str, Any] = {
        "model": call.workload.model,
        "max_tokens": _OUTPUT_MAX,
        "system": [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": asked}],
    }
    return "/v1/messages", body | ({"stream": True} if call.stream else {})


def _generate(call: CompanyCall) -> tuple[str, dict[str, Any]]:
    system, asked = _texts(call)
    body = {
        "systemInstruction": {"parts": [{"text": system}]},
        "contents": [{"role": "user", "parts": [{"text": asked}]}],
        "generationConfig": {"maxOutputTokens": _OUTPUT_MAX},
    }
    verb = "streamGenerateContent?alt=sse" if call.stream else "generateContent"
    return f"/v1beta/models/{call.workload.model}:{verb}", body


_WRITERS: Final[Mapping[str, Any]] = {
    "chat": _chat,
    "responses": _responses,
    "embeddings": _embeddings,
    "messages": _anthropic,
    "generate": _generate,
}
