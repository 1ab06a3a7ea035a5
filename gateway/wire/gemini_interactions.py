"""Gemini's Interactions API: request facts, and the usage of an answer, whole or streamed.

Must never let an interaction run whose usage nobody would see.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import msgspec

from gateway.wire.cutters import SseCutter
from gateway.wire.facts import Answer, Asked, BadRequest, ReplyHead, RequestFacts, StreamLane
from gateway.wire.gemini_answer import charged, keep
from gateway.wire.gemini_request import (
    MEDIA_INPUT_METERS,
    MEDIA_OUTPUT_METERS,
    NO_FEES,
    SEARCHES_MAX,
    TEXT_METERS,
    tier_asked,
)
from gateway.wire.gemini_usage import UsageParts, number_of, read_counts, read_media, read_usage
from gateway.wire.google_format import GoogleFormat
from gateway.wire.google_request import (
    INPUT_TOKENS_SPARE,
    decode_body,
    has_escapes,
    model_of,
    refuse_masks,
    refuse_repeats,
    region_of_location,
    snake_of,
)
from gateway.wire.openai_answer import NAME_CHARS_MAX, UNREADABLE
from gateway.wire.sse import data_of
from gateway.wire.tap import Tap
from pricing.meters import Meter
from pricing.usage import Basis, Usage

_SINGLE: Final = (
    "model",
    "agent",
    "input",
    "systemInstruction",
    "generationConfig",
    "tools",
    "stream",
    "background",
    "previousInteractionId",
    "cachedContent",
    "serviceTier",
    "environment",
)
_SEARCH_TOOLS: Final = frozenset({"google_search", "google_maps"})
# What a prompt may hold for its bytes to bound it; anything else may point elsewhere.
_SIZED: Final = frozenset(
    {
        None,
        "text",
        "user_input",
        "model_output",
        "thought",
        "function_call",
        "function_result",
    }
)
_POINTERS: Final = frozenset({"uri", "data", "file_id"})
_ENDS: Final = frozenset({"interaction.completed", "interaction.complete"})
_COUNTS: Final = (
    "total_input_tokens",
    "total_cached_tokens",
    "total_tool_use_tokens",
    "total_output_tokens",
    "total_thought_tokens",
    "total_tokens",
)
_NO_MEDIA: Final[Mapping[str, int]] = MappingProxyType({})
_DEPTH_MAX: Final = 32

_object: Final = msgspec.json.Decoder(dict[str, Any])


class Interactions(GoogleFormat):
    """The wire format of ``POST /interactions``."""

    api = "gemini.interactions"
    stream_types: tuple[str, ...] = ("text/event-stream",)

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came; its body names the model.

        Returns:
            The facts; bounds are never too small.

        Raises:
            BadRequest: It cannot be read, names an agent, or asks to be answered later.

        Source:
            https://ai.google.dev/api/interactions-api, checked 2026-11-23.
        """
        refuse_masks(asked)
        given = decode_body(asked.body, _object, "an interaction")
        refuse_repeats(asked.body, _SINGLE)
        request = {snake_of(name): value for name, value in given.items()}
        named = request.get("model")
        if request.get("agent") or not isinstance(named, str) or not named:
            raise BadRequest("name a model: what agents use is not metered by this version")
        if request.get("background") or request.get("environment"):
            raise BadRequest(
                "an interaction in the background is answered later and not metered by this "
                "version: leave 'background' and 'environment' out"
            )
        tools = _tools_of(request.get("tools"))
        is_sized = not (
            tools
            or request.get("previous_interaction_id")
            or request.get("cached_content")
            or _points_elsewhere(request.get("input"))
        )
        limit = _limit_of(request.get("generation_config"), asked.body)
        meters = TEXT_METERS | MEDIA_OUTPUT_METERS
        tier = request.get("service_tier")
        return RequestFacts(
            model=model_of(named),
            stream=request.get("stream") is True,
            wants_usage=True,
            tier=tier_asked(asked, tier if isinstance(tier, str) else None),
            input_tokens_max=len(asked.body) + INPUT_TOKENS_SPARE if is_sized else None,
            output_tokens_max=limit if limit is not None and limit > 0 else None,
            choices=1,
            extra_output_max=0,
            meters=meters if is_sized else meters | MEDIA_INPUT_METERS,
            fees={Meter.WEB_SEARCH: SEARCHES_MAX} if tools & _SEARCH_TOOLS else NO_FEES,
            region=region_of_location(asked.names),
        )

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> StreamLane:
        """Begin to read a streamed answer.

        Args:
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            A lane for the bytes of the answer.
        """
        return Tap(SseCutter(), InteractionFold(facts))

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            What it says.
        """
        fold = InteractionFold(facts)
        try:
            said = _object.decode(body)
        except UNREADABLE:
            return fold.answer
        if said.get("error"):
            fold.answer.is_error = True
            return fold.answer
        fold.answer.is_readable = True
        fold.fold_interaction(said)
        fold.end()
        return fold.answer

    def read_prompt(self, asked: Asked) -> Sequence[str] | None:
        """Read the texts of a prompt for counting.

        Args:
            asked: The request as it came.

        Returns:
            ``None``: what was said before is kept at Google, so nobody can count it.
        """
        return None


def _limit_of(config: object, body: bytes) -> int | None:
    """Read the limit of the output; none where another reader may find another one."""
    if not isinstance(config, dict) or has_escapes(body):
        return None
    if sum(body.count(name) for name in (b'"max_output_tokens"', b'"maxOutputTokens"')) > 1:
        return None
    return number_of(config.get("max_output_tokens", config.get("maxOutputTokens")))


def _tools_of(tools: object) -> frozenset[str]:
    """Name the tools the provider runs itself."""
    if tools is None:
        return frozenset()
    if not isinstance(tools, list):
        raise BadRequest("tools is no list")
    kinds = [tool.get("type") if isinstance(tool, dict) else None for tool in tools]
    return frozenset(str(kind) for kind in kinds) - {"function"}


def _points_elsewhere(value: object, depth: int = 0) -> bool:
    """Tell whether a prompt holds what its bytes do not bound."""
    if depth > _DEPTH_MAX:
        return True
    if isinstance(value, list):
        return any(_points_elsewhere(one, depth + 1) for one in value)
    if not isinstance(value, dict):
        return False
    kind = value.get("type")
    if not (kind is None or isinstance(kind, str)) or kind not in _SIZED:
        return True
    if not _POINTERS.isdisjoint(value):
        return True
    return any(_points_elsewhere(value.get(name), depth + 1) for name in ("content", "result"))


class InteractionFold:
    """Folds the events of one interaction.

    Attributes:
        answer: What has been seen so far.
    """

    def __init__(self, facts: RequestFacts) -> None:
        self.answer = Answer()
        self._model = facts.model

    def take(self, event: bytes) -> bool:
        """Read one event.

        Args:
            event: A server-sent event.

        Returns:
            Whether the interaction is complete with it.
        """
        data = data_of(event)
        if data is None or not data.startswith(b"{"):
            return False
        said = _object.decode(data)
        answer = self.answer
        answer.is_readable = True
        kind = said.get("event_type")
        if kind == "error" or said.get("error"):
            answer.is_error = True
        delta = said.get("delta")
        if isinstance(delta, dict) and isinstance(delta.get("text"), str):
            keep(answer, delta["text"])
        interaction = said.get("interaction")
        if isinstance(interaction, dict):
            self.fold_interaction(interaction)
        if kind == "interaction.status_update":
            self._fold_usage(said.get("usage"))
        metadata = said.get("metadata")
        if isinstance(metadata, dict):
            self._fold_usage(metadata.get("total_usage"))
        if kind not in _ENDS:
            return False
        self.end()
        return True

    def fold_interaction(self, told: Mapping[str, Any]) -> None:
        """Read an interaction, as far as it has come.

        Args:
            told: As decoded.
        """
        answer = self.answer
        model, name, tier = told.get("model"), told.get("id"), told.get("service_tier")
        if isinstance(model, str) and model:
            answer.model = model_of(model[:NAME_CHARS_MAX])
        if isinstance(name, str) and name:
            answer.request_id = name[:NAME_CHARS_MAX]
        if isinstance(tier, str) and tier and tier != "unspecified":
            answer.tier = tier.lower()[:32]
        self._fold_usage(told.get("usage"))

    def end(self) -> None:
        """Take note that the interaction is complete."""
        answer, usage = self.answer, self.answer.usage
        answer.is_complete = answer.is_finished = answer.tells_fees = True
        if usage is not None and usage.basis is Basis.PARTIAL:
            answer.usage = msgspec.structs.replace(usage, basis=Basis.REPORTED)

    def _fold_usage(self, told: object) -> None:
        """Read the newest usage, a running total that replaces all before it.

        Source:
            https://ai.google.dev/api/interactions-api#Resource:Usage, checked 2026-11-23.
        """
        if not isinstance(told, dict):
            return
        odd: list[str] = []
        counts = read_counts(told, _COUNTS, odd)
        parts = UsageParts(
            prompt=counts[0],
            cached=counts[1],
            tools=counts[2],
            output=counts[3],
            thoughts=counts[4],
            total=counts[5],
            prompt_media=read_media(told.get("input_tokens_by_modality"), "tokens") or _NO_MEDIA,
            cached_media=read_media(told.get("cached_tokens_by_modality"), "tokens"),
            tools_media=read_media(told.get("tool_use_tokens_by_modality"), "tokens") or _NO_MEDIA,
            output_media=read_media(told.get("output_tokens_by_modality"), "tokens") or _NO_MEDIA,
            odd=tuple(odd),
        )
        if parts.is_empty:
            return
        usage = read_usage(parts)
        tools = told.get("grounding_tool_count")
        searches = 0
        for tool in tools if isinstance(tools, list) else ():
            if isinstance(tool, dict) and tool.get("type") in _SEARCH_TOOLS:
                searches += max(0, number_of(tool.get("count")) or 0)
        counted = dict(usage.counts)
        if searches and counted:
            counted[Meter.WEB_SEARCH] = charged(searches, self.answer.model, self._model)
        basis = Basis.PARTIAL if usage.basis is Basis.REPORTED else usage.basis
        self.answer.usage = Usage(counts=counted, basis=basis, flags=usage.flags)
        if usage.output_total:
            self.answer.usage_chars = self.answer.text_chars
