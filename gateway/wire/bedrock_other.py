"""What else Bedrock's runtime does: counting, jobs that answer later, guardrails on their own.

Must never book a guardrail's units as tokens.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.wire.bedrock_converse import BEDROCK
from gateway.wire.bedrock_dialect import BedrockDialect
from gateway.wire.bedrock_frames import FrameFold
from gateway.wire.bedrock_requests import bad_json, model_of, refuse_repeats
from gateway.wire.endpoints import Endpoint
from gateway.wire.eventstream import FrameCutter
from gateway.wire.facts import (
    Answer,
    Asked,
    BadRequest,
    ReplyHead,
    RequestFacts,
    free_facts,
)
from gateway.wire.openai_answer import UNREADABLE
from gateway.wire.tap import Tap
from pricing.meters import Meter
from pricing.usage import Basis, Quantity, Usage, unknown_usage

# What prices of guardrails can be set under; the shipped book has none.
GUARDRAIL_MODEL: Final = "apply-guardrail"


class _Whole(BedrockDialect):
    """What the formats of this module share: no streams, no text to count."""

    stream_types: tuple[str, ...] = ()

    def prepare_body(self, asked: Asked, facts: RequestFacts, model: str) -> bytes:
        """Make the body to send.

        Args:
            asked: The request as it came.
            facts: What was read of it.
            model: The provider's own name of the model.

        Returns:
            The same bytes.
        """
        return asked.body

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> Tap:
        """Begin to read an answer that came as a stream unasked.

        Args:
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            A lane that reads nothing of it.
        """
        return Tap(FrameCutter(), FrameFold())

    def may_think(self, model: str) -> bool:
        """Tell whether a model can produce output that is billed and never shown.

        Args:
            model: Under the provider's own name.

        Returns:
            False: there is no output.
        """
        return False

    def read_prompt(self, asked: Asked) -> None:
        """Read the texts of a prompt for counting.

        Args:
            asked: The request as it came.

        Returns:
            Nothing to count.
        """


class BedrockFree(_Whole):
    """Calls that cost nothing: counting tokens, asking about jobs."""

    api = "bedrock.free"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            That it is free.

        Source:
            https://docs.aws.amazon.com/bedrock/latest/userguide/count-tokens.html: "There's no
            charge for using this API operation". Checked 2026-11-23.
        """
        return free_facts(model_of(asked.names))

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            Nothing of it counts.
        """
        return Answer(is_readable=True, is_complete=True)


class BedrockGuardrail(_Whole):
    """``POST /guardrail/{id}/version/{v}/apply``: text units, at a price of their own."""

    api = "bedrock.guardrail"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            A call of the model ``apply-guardrail``: refused as unpriced unless the operator has set
            a price per request for it, or allows what has none.

        Raises:
            BadRequest: Not a JSON object.

        Source:
            https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ApplyGuardrail.html,
            checked 2026-11-23.
        """
        try:
            msgspec.json.decode(asked.body, type=dict[str, msgspec.Raw])
        except UNREADABLE as broken:
            raise bad_json("a request of ApplyGuardrail", broken) from None
        return _other_facts(GUARDRAIL_MODEL, {})

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            Unknown usage, with the units it tells in a flag.
        """
        try:
            usage = msgspec.json.decode(body, type=_Guarded).usage
            told = ", ".join(f"{name} {count}" for name, count in usage.items() if count)
        except UNREADABLE:
            return Answer()
        unknown = unknown_usage(f"units of a guardrail have no meter: {told[:512]}")
        return Answer(usage=unknown, is_readable=True, is_complete=True)


class _Guarded(msgspec.Struct):
    usage: dict[str, int]


class BedrockAsync(_Whole):
    """``POST /async-invoke``: a job whose answer goes to a bucket, where nobody here sees it."""

    api = "bedrock.async_invoke"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The seconds of video it asks for, which is all that bounds such a job.

        Raises:
            BadRequest: Not JSON, or a job that does not say how many seconds it makes.

        Source:
            https://docs.aws.amazon.com/bedrock/latest/APIReference/
            API_runtime_StartAsyncInvoke.html, checked 2026-11-23.
        """
        try:
            job = msgspec.json.decode(asked.body, type=_Job)
        except UNREADABLE as broken:
            raise bad_json("a request of StartAsyncInvoke", broken) from None
        refuse_repeats(asked.body, frozenset({"modelId", "modelInput"}))
        made = job.modelInput
        seconds = made.videoGenerationConfig.durationSeconds if made.videoGenerationConfig else None
        if seconds is None and made.duration is not None and made.duration.endswith("s"):
            told = made.duration[:-1]
            seconds = int(told) if told.isdecimal() and len(told) < 6 else None
        if seconds is None or seconds < 1:
            raise BadRequest(
                "this version meters asynchronous calls that say how many seconds of video they "
                "make; others answer where it cannot see them"
            )
        return _other_facts(job.modelId, {Meter.VIDEO_SECOND: seconds})

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            The seconds asked for, ``estimated``: the job has only begun.
        """
        flag = "booked as asked for: how the job ends is not known here"
        usage = Usage(counts=facts.fees, basis=Basis.ESTIMATED, flags=(flag,))
        is_taken = head.status < 300
        return Answer(
            usage=usage if is_taken else None, tells_fees=True, is_readable=True, is_complete=True
        )


class _Video(msgspec.Struct):
    durationSeconds: int | None = None  # noqa: N815 - on the wire


class _Input(msgspec.Struct):
    videoGenerationConfig: _Video | None = None  # noqa: N815 - on the wire
    duration: str | None = None


class _Job(msgspec.Struct):
    modelId: str  # noqa: N815 - on the wire
    modelInput: _Input  # noqa: N815


def _other_facts(model: str, fees: Mapping[Meter, Quantity]) -> RequestFacts:
    """A call that counts no tokens."""
    return RequestFacts(
        model=model,
        stream=False,
        wants_usage=True,
        tier=None,
        input_tokens_max=0,
        output_tokens_max=0,
        choices=1,
        extra_output_max=0,
        meters=frozenset(),
        fees=fees,
    )


_GET: Final = frozenset({"GET"})

ENDPOINTS: Final = (
    Endpoint(
        kinds=BEDROCK, path="/model/{model...}/count-tokens", format=BedrockFree(), is_strict=True
    ),
    Endpoint(kinds=BEDROCK, path="/async-invoke", format=BedrockFree(), methods=_GET),
    Endpoint(
        kinds=BEDROCK,
        path="/async-invoke/{job...}",
        format=BedrockFree(),
        methods=_GET,
        is_strict=True,
    ),
    Endpoint(kinds=BEDROCK, path="/async-invoke", format=BedrockAsync()),
    Endpoint(
        kinds=BEDROCK,
        path="/guardrail/{guardrail...}/version/{version}/apply",
        format=BedrockGuardrail(),
        is_strict=True,
    ),
)
