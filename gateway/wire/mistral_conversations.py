"""Mistral's conversations: tokens of the model, and of the connectors that work for it.

Must never price a conversation that goes on without knowing which model it began with.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from gateway.wire.cutters import SseCutter
from gateway.wire.facts import (
    Answer,
    Asked,
    BadRequest,
    ReplyHead,
    RequestFacts,
    StreamLane,
    free_facts,
)
from gateway.wire.mistral_dialect import ConversationDialect
from gateway.wire.openai_places import rows
from gateway.wire.openai_usage import UsageObject, read_usage
from gateway.wire.plain_format import FreeCalls, PlainFormat
from gateway.wire.reading import (
    ABSENT,
    INPUT_TOKENS_SPARE,
    NAME_CHARS_MAX,
    SingleFields,
    bytes_seen,
    checked_model,
    is_given,
    keep_text,
    keep_unread,
    mend_surrogates,
    read_name,
    read_quantity,
    refusing,
    try_read,
)
from gateway.wire.sse import data_of
from gateway.wire.tap import Tap
from pricing.meters import Meter
from pricing.usage import Basis, Quantity, Usage, unknown_usage

_CONVERSATION: Final = "conversation"
# Conversations whose model is remembered; the oldest is forgotten first.
_REMEMBERED_MAX: Final = 10_000
_METERS: Final = frozenset({Meter.INPUT, Meter.CACHE_READ, Meter.OUTPUT})
_NO_FEES: Final[Mapping[Meter, Quantity]] = MappingProxyType({})
_SINGLE: Final = SingleFields("model", "agent_id", "inputs", "stream", "tools", "completion_args")
_STARTED: Final = "conversation.response.started"
_DONE: Final = "conversation.response.done"
_FAILED: Final = "conversation.response.error"


class _Arguments(msgspec.Struct):
    max_tokens: int | None = None


class _Request(msgspec.Struct):
    model: str | None = None
    agent_id: str | None = None
    stream: bool | None = None
    tools: msgspec.Raw = ABSENT
    inputs: msgspec.Raw = ABSENT
    completion_args: _Arguments | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: msgspec.Raw = ABSENT
    completion_tokens: msgspec.Raw = ABSENT
    total_tokens: msgspec.Raw = ABSENT
    connector_tokens: msgspec.Raw = ABSENT
    connectors: msgspec.Raw = ABSENT
    num_cached_tokens: msgspec.Raw = ABSENT
    prompt_tokens_details: msgspec.Raw = ABSENT


class _Cached(msgspec.Struct):
    cached_tokens: msgspec.Raw = ABSENT


class _Entry(msgspec.Struct):
    """One entry of an answer, or one event of a stream; which of them it is its fields tell."""

    type: msgspec.Raw = ABSENT
    model: msgspec.Raw = ABSENT
    content: msgspec.Raw = ABSENT
    arguments: msgspec.Raw = ABSENT
    conversation_id: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT


class _Whole(msgspec.Struct):
    conversation_id: msgspec.Raw = ABSENT
    outputs: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT


_decode_request: Final = msgspec.json.Decoder(_Request).decode
_decode_usage: Final = msgspec.json.Decoder(_Usage).decode
_decode_cached: Final = msgspec.json.Decoder(_Cached).decode
_decode_entry: Final = msgspec.json.Decoder(_Entry).decode
_decode_whole: Final = msgspec.json.Decoder(_Whole).decode
_decode_entries: Final = msgspec.json.Decoder(list[_Entry]).decode
_decode_names: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text: Final = msgspec.json.Decoder(str).decode


class _Models:
    """Which model a conversation began with, as what goes on with it does not say."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def remember(self, conversation: str | None, model: str) -> None:
        if conversation is None or not model:
            return
        self._names[conversation] = model
        if len(self._names) > _REMEMBERED_MAX:
            del self._names[next(iter(self._names))]

    def find(self, conversation: str | None) -> str | None:
        return None if conversation is None else self._names.get(conversation)


class ConversationFold:
    """Reads the events of a conversation.

    Attributes:
        answer: What has been seen so far.
        conversation: Id of the conversation, once it is known.
    """

    __slots__ = ("_asked", "_models", "answer", "conversation")

    def __init__(self, models: _Models, asked: str) -> None:
        """Begin.

        Args:
            models: Takes note of the conversation's model.
            asked: Model or agent asked for.
        """
        self.answer = Answer()
        self.conversation: str | None = None
        self._models = models
        self._asked = asked

    def take(self, event: bytes) -> bool:
        """Read one event.

        Args:
            event: With its framing.

        Returns:
            Whether it ends the answer.
        """
        data = data_of(event)
        if data is None:
            return False
        seen = try_read(_decode_entry, msgspec.Raw(data))
        if seen is None:
            seen = try_read(_decode_entry, msgspec.Raw(mend_surrogates(data)))
        if seen is None:
            return data.strip() == b"[DONE]"
        answer = self.answer
        answer.is_readable = True
        kind = read_name(seen.type)
        if kind == _STARTED:
            answer.request_id = read_name(seen.conversation_id)
            self._models.remember(answer.request_id, self._asked)
        elif kind == _FAILED:
            answer.is_error = True
        elif kind == _DONE:
            _end(answer, seen.usage)
            return True
        else:
            _keep_entry(answer, seen)
        return kind == _FAILED


class MistralConversation(PlainFormat, ConversationDialect):
    """The wire format of conversations: beginning one, going on, and starting again."""

    api = "mistral.conversations"

    def __init__(self, models: _Models) -> None:
        """Take where models are remembered.

        Args:
            models: Shared by all addresses of conversations.
        """
        self._models = models

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts, with the agent for the model where one is asked for. What is kept at
            Mistral leaves the prompt to the model's context; tools take it as often as they like.

        Raises:
            BadRequest: Not JSON, a field of the wrong type or given twice, or no model: a
                conversation that goes on must have begun here.

        Source:
            https://docs.mistral.ai/api/endpoint/beta/conversations, checked 2026-11-23.
        """
        with refusing("a conversation"):
            request = _decode_request(asked.body)
        _SINGLE.check(asked.body)
        kept = asked.names.get(_CONVERSATION)
        model = request.model or request.agent_id or self._models.find(kept)
        if not model:
            raise BadRequest(
                "name the model or the agent"
                if kept is None
                else f"this gateway does not know the model of conversation {kept[:80]!r}, so it "
                "has no price: begin a new one here, with what was said as its inputs"
            )
        limit = (request.completion_args or _Arguments()).max_tokens or 0
        # An agent may have tools of its own.
        has_tools = request.model is None or bytes(request.tools) not in (b"", b"null", b"[]")
        is_open = kept is not None or has_tools or not bytes(request.inputs).startswith(b'"')
        return RequestFacts(
            model=checked_model(model),
            stream=bool(request.stream),
            wants_usage=True,
            tier=None,
            input_tokens_max=None if is_open else bytes_seen(asked.body) + INPUT_TOKENS_SPARE,
            output_tokens_max=limit if limit > 0 else None,
            choices=1,
            extra_output_max=0,
            meters=_METERS,
            fees=_NO_FEES,
            rounds=None if has_tools else 1,
        )

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> StreamLane:
        """Begin to read a streamed answer.

        Args:
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            A lane for its events.
        """
        return Tap(SseCutter(), ConversationFold(self._models, facts.model))

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            What it says.
        """
        answer = Answer()
        whole = try_read(_decode_whole, msgspec.Raw(body))
        if whole is None:
            whole = try_read(_decode_whole, msgspec.Raw(mend_surrogates(body)))
        if whole is None or not (is_given(whole.outputs) or is_given(whole.usage)):
            return answer
        answer.is_readable = True
        answer.request_id = read_name(whole.conversation_id)
        self._models.remember(answer.request_id, facts.model)
        for entry in try_read(_decode_entries, whole.outputs) or ():
            _keep_entry(answer, entry)
        _end(answer, whole.usage)
        return answer

    def read_prompt(self, asked: Asked) -> list[str] | None:
        """Read the texts of a prompt for counting.

        Args:
            asked: The request as it came.

        Returns:
            The one text a conversation begins with; ``None`` where there is more to it.
        """
        request = try_read(_decode_request, msgspec.Raw(asked.body))
        if request is None or _CONVERSATION in asked.names or request.model is None:
            return None
        text = try_read(_decode_text, request.inputs)
        return None if text is None or is_given(request.tools) else [text]


class MistralKept(FreeCalls, ConversationDialect):
    """The wire format of looking conversations up, which costs nothing."""

    api = "mistral.conversations_kept"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read nothing: the call is free.

        Args:
            asked: The request as it came.

        Returns:
            Facts whose ceiling is zero.
        """
        return free_facts()


def read_conversation_usage(raw: msgspec.Raw) -> Usage:
    """Turn the usage of a conversation into disjoint counts.

    Args:
        raw: As Mistral sent it: what connectors read stands beside the prompt, inside the total.

    Returns:
        Disjoint counts; the tokens of connectors are input. Calls of connectors have prices of
        their own, which the price book does not have: they are flagged, and the rest estimated.

    Source:
        https://docs.mistral.ai/agents/connectors/websearch for the sum of an answer's usage, and
        https://mistral.ai/pricing for connectors; checked 2026-11-23.
    """
    told = try_read(_decode_usage, raw)
    if told is None:
        return unknown_usage("the usage cannot be read")
    extra = _whole(told.connector_tokens) or 0
    prompt, output = _whole(told.prompt_tokens), _whole(told.completion_tokens)
    cached = try_read(_decode_cached, told.prompt_tokens_details) or _Cached()
    usage = read_usage(
        UsageObject(
            prompt_tokens=None if prompt is None else prompt + extra,
            completion_tokens=output,
            total_tokens=_whole(told.total_tokens),
            num_cached_tokens=_whole(told.num_cached_tokens) or _whole(cached.cached_tokens),
        )
    )
    calls = try_read(_decode_names, told.connectors) or {}
    made = [f"{name[:40]} {n}" for name, raw_n in calls.items() if (n := read_quantity(raw_n))]
    if not made or usage.basis is Basis.UNKNOWN:
        return usage
    flag = f"calls of connectors have no price here: {', '.join(sorted(made)[:8])}"
    return Usage(counts=usage.counts, basis=Basis.ESTIMATED, flags=(*usage.flags, flag))


def _whole(raw: msgspec.Raw) -> int | None:
    count = read_quantity(raw)
    return None if count is None else int(count)


def _end(answer: Answer, usage: msgspec.Raw) -> None:
    if is_given(usage):
        answer.usage = read_conversation_usage(usage)
    answer.usage_chars = answer.text_chars
    answer.is_finished = answer.is_complete = True


def _keep_entry(answer: Answer, entry: _Entry) -> None:
    """Keep what an entry shows, and the model that wrote it."""
    model = read_name(entry.model)
    if model:
        answer.model = model[:NAME_CHARS_MAX]
    for field in (entry.content, entry.arguments):
        if is_given(field):
            text = try_read(_decode_text, field)
            if text is None:
                keep_unread(answer, bytes(field))
            else:
                keep_text(answer, text)


_TALK: Final = MistralConversation(_Models())
_KEPT: Final = MistralKept()
_ONE: Final = "/conversations/{conversation}"
_GET: Final = frozenset({"GET"})

ENDPOINTS: Final = (
    *rows("/conversations", {"mistral": _TALK}),
    *rows("/conversations", {"mistral": _KEPT}, methods=_GET),
    *rows(_ONE + "/history", {"mistral": _KEPT}, methods=_GET),
    *rows(_ONE + "/messages", {"mistral": _KEPT}, methods=_GET),
    *rows(_ONE + "/restart", {"mistral": _TALK}),
    *rows(_ONE, {"mistral": _TALK}),
    *rows(_ONE, {"mistral": _KEPT}, methods=frozenset({"GET", "DELETE"})),
)
