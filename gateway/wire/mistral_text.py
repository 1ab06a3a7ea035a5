"""Mistral's further calls on text: filling in the middle, agents, moderation, classification.

Must never price an agent by its name: the model behind it is configured, or the call is refused.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from gateway.wire.facts import Answer, Asked, ReplyHead, RequestFacts
from gateway.wire.mistral_dialect import MistralDialect
from gateway.wire.openai_answer import Make, read_tier
from gateway.wire.openai_chat import OpenAIChat, never
from gateway.wire.openai_kinds import MistralChat, note_mistral
from gateway.wire.openai_places import rows
from gateway.wire.openai_usage import read_odd_usage, read_usage
from gateway.wire.plain_format import PlainFormat
from gateway.wire.reading import (
    ABSENT,
    INPUT_TOKENS_SPARE,
    UNREADABLE,
    SingleFields,
    bytes_seen,
    checked_model,
    is_given,
    mend_surrogates,
    read_name,
    refusing,
    try_read,
)
from pricing.meters import INPUT_METERS, Meter
from pricing.usage import Basis, Quantity, Usage

MISTRAL_MAKE: Final = Make(note=note_mistral)
_FIM_METERS: Final = frozenset({Meter.INPUT, Meter.CACHE_READ, Meter.OUTPUT})
_INPUT: Final = frozenset({Meter.INPUT})
_NO_FEES: Final[Mapping[Meter, Quantity]] = MappingProxyType({})
_SINGLE: Final = SingleFields(
    "model", "prompt", "suffix", "stream", "max_tokens", "agent_id", "input", "service_tier"
)


class _Fim(msgspec.Struct, kw_only=True):
    model: str
    prompt: str
    suffix: str | None = None
    stream: bool | None = None
    max_tokens: int | None = None
    service_tier: str | None = None


class _Agent(msgspec.Struct):
    agent_id: str


class _Judged(msgspec.Struct, kw_only=True):
    model: str
    input: msgspec.Raw = ABSENT


class _Judgement(msgspec.Struct):
    id: msgspec.Raw = ABSENT
    model: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT
    results: msgspec.Raw = ABSENT


_decode_fim: Final = msgspec.json.Decoder(_Fim).decode
_decode_agent: Final = msgspec.json.Decoder(_Agent).decode
_decode_judged: Final = msgspec.json.Decoder(_Judged).decode
_decode_judgement: Final = msgspec.json.Decoder(_Judgement).decode


class MistralFim(MistralDialect, OpenAIChat):
    """The wire format of ``POST /fim/completions``, which answers as a chat does."""

    api = "mistral.fim"

    def __init__(self) -> None:
        """Take what is particular to Mistral."""
        super().__init__(MISTRAL_MAKE, asks_usage=never)

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts.

        Raises:
            BadRequest: Not JSON, no model or prompt, a field of the wrong type or given twice.

        Source:
            https://docs.mistral.ai/api/endpoint/fim, checked 2026-11-23.
        """
        with refusing("a fill-in-the-middle request"):
            request = _decode_fim(asked.body)
        _SINGLE.check(asked.body)
        limit = request.max_tokens or 0
        return RequestFacts(
            model=checked_model(request.model),
            stream=bool(request.stream),
            wants_usage=True,
            tier=read_tier(request.service_tier, self.make.tiers),
            input_tokens_max=bytes_seen(asked.body) + INPUT_TOKENS_SPARE,
            output_tokens_max=limit if limit > 0 else None,
            choices=1,
            extra_output_max=0,
            meters=_FIM_METERS,
            fees=_NO_FEES,
        )

    def read_prompt(self, asked: Asked) -> list[str] | None:
        """Read the texts of a prompt for counting.

        Args:
            asked: The request as it came.

        Returns:
            What stands before the gap, and behind it.
        """
        request = try_read(_decode_fim, msgspec.Raw(asked.body))
        return None if request is None else [request.prompt, request.suffix or ""]


class MistralAgent(MistralDialect, MistralChat):
    """The wire format of ``POST /agents/completions``: a chat with an agent for its model."""

    api = "mistral.agents"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts, with the agent for the model; ``deployments`` of the provider say which
            model is behind it. Its instructions are not in the request, so nothing but the context
            bounds the prompt.

        Raises:
            BadRequest: As ``OpenAIChat.read_facts``; no agent.

        Source:
            https://docs.mistral.ai/api/endpoint/agents, checked 2026-11-23.
        """
        with refusing("an agent's request"):
            agent = _decode_agent(asked.body).agent_id
        _SINGLE.check(asked.body)
        names = {**asked.names, "deployment": agent}
        facts = super().read_facts(msgspec.structs.replace(asked, names=names))
        return msgspec.structs.replace(facts, input_tokens_max=None)

    def read_prompt(self, asked: Asked) -> list[str] | None:
        """Say that the prompt cannot be counted here.

        Args:
            asked: The request as it came.

        Returns:
            ``None``: an agent's instructions and its tools are kept at Mistral.
        """
        return None


class MistralJudge(PlainFormat, MistralDialect):
    """The wire format of moderation and classification, of texts and of chats.

    Attributes:
        api: Its name in the ledger.
    """

    def __init__(self, api: str) -> None:
        """Take a name.

        Args:
            api: Of the call, in the ledger.
        """
        self.api = api

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts: no output.

        Raises:
            BadRequest: Not JSON, no model, a field of the wrong type or given twice.

        Source:
            https://docs.mistral.ai/api/endpoint/classifiers, checked 2026-11-23.
        """
        with refusing("a moderation or classification request"):
            request = _decode_judged(asked.body)
        _SINGLE.check(asked.body)
        return RequestFacts(
            model=checked_model(request.model),
            stream=False,
            wants_usage=True,
            tier=None,
            input_tokens_max=bytes_seen(asked.body) + INPUT_TOKENS_SPARE,
            output_tokens_max=0,
            choices=1,
            extra_output_max=0,
            meters=_INPUT,
            fees=_NO_FEES,
        )

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            What it says. Without usage, which is not in the reference, its input is counted here.
        """
        answer = Answer()
        read = try_read(_decode_judgement, msgspec.Raw(body))
        if read is None:
            read = try_read(_decode_judgement, msgspec.Raw(mend_surrogates(body)))
        if read is None or not is_given(read.results):
            return answer
        answer.is_readable = answer.is_finished = answer.is_complete = True
        answer.request_id, answer.model = read_name(read.id), read_name(read.model)
        usage = read_usage(read_odd_usage(bytes(read.usage)))
        told = {meter: count for meter, count in usage.counts.items() if meter in INPUT_METERS}
        answer.lacks_input = not told
        flags = usage.flags if told else ()
        basis = usage.basis if told else Basis.PARTIAL
        answer.usage = Usage(counts=told, basis=basis, flags=flags)
        return answer

    def read_prompt(self, asked: Asked) -> list[str] | None:
        """Read the texts that are judged, for counting.

        Args:
            asked: The request as it came.

        Returns:
            The input as it stands in the request.
        """
        try:
            return [bytes(_decode_judged(asked.body).input).decode()]
        except UNREADABLE:
            return None


_JUDGES: Final = MappingProxyType(
    {
        "/moderations": MistralJudge("mistral.moderations"),
        "/chat/moderations": MistralJudge("mistral.chat_moderations"),
        "/classifications": MistralJudge("mistral.classifications"),
        "/chat/classifications": MistralJudge("mistral.chat_classifications"),
    }
)

ENDPOINTS: Final = (
    *rows("/fim/completions", {"mistral": MistralFim()}),
    *rows("/agents/completions", {"mistral": MistralAgent(MISTRAL_MAKE, asks_usage=never)}),
    *(row for path, judge in _JUDGES.items() for row in rows(path, {"mistral": judge})),
)
