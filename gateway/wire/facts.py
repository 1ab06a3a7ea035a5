"""What the path of a call knows of any request and any answer, whatever the wire format.

Must never hold more of a prompt or an answer than counting needs, and never log it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from gateway.headers import RawHeaders
from pricing.meters import Meter
from pricing.rates import NO_VARIANTS
from pricing.rating import Reach
from pricing.usage import Quantity, Usage


class BadRequest(ValueError):
    """The body is not a request this wire format knows; the text says what is wrong."""


class RequestFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What one request asks for, as far as metering needs it.

    Attributes:
        model: Model as the client named it.
        stream: Whether the client asked for a stream.
        wants_usage: Whether the client asked for the usage chunk of a stream itself.
        tier: Service tier asked for, in catalog words; ``None`` when left to the provider.
        input_tokens_max: Most input tokens the body can come to; ``None`` when it holds parts whose
            size it does not tell (images, files, searches).
        output_tokens_max: Most output tokens over all choices; ``None`` when the model decides.
        choices: Number of answers asked for.
        extra_output_max: Output tokens that may be billed on top of any limit.
        meters: Token meters the call can touch.
        fees: Largest quantity of every meter that is not tokens.
        variants: In which make a meter is sold, where the request says so.
    """

    model: str
    stream: bool
    wants_usage: bool
    tier: str | None
    input_tokens_max: int | None
    output_tokens_max: int | None
    choices: int
    extra_output_max: int
    meters: frozenset[Meter]
    fees: Mapping[Meter, Quantity]
    variants: Mapping[Meter, str] = NO_VARIANTS

    def reach(
        self, tiers: frozenset[str], region: str | None, maxima: tuple[int | None, int | None]
    ) -> Reach:
        """Say what the call can come to on a model.

        Args:
            tiers: Tiers the provider may serve it at.
            region: Region class it is served in.
            maxima: Most tokens of a prompt and of one answer of that model; ``None`` if unknown.

        Returns:
            Bounds for the ceiling; sides the request leaves open are taken from the model.
        """
        model_input_max, model_output_max = maxima
        # What the body bounds is never lowered to a published limit: lists lag behind providers.
        inputs = model_input_max if self.input_tokens_max is None else self.input_tokens_max
        output = self.output_tokens_max
        if output is None and model_output_max is not None:
            output = model_output_max * self.choices
        return Reach(
            input_tokens_max=inputs,
            output_tokens_max=None if output is None else output + self.extra_output_max,
            meters=self.meters,
            fees=self.fees,
            tiers=tiers,
            region=region,
            variants=self.variants,
        )


class Answer(msgspec.Struct, kw_only=True):
    """What has been seen of one answer so far.

    Attributes:
        usage: What the provider reported last and could be used; ``None`` until it reported.
        model: Model the provider says it served.
        tier: Service tier the provider says it served, in catalog words.
        variants: In which make a meter was sold, where the answer says more than the request.
        request_id: The provider's own id of the answer.
        text: Visible output, kept for counting if usage never comes; its beginning, bounded.
        usage_chars: Size of the visible output when usage was last reported.
        text_chars: Characters of all visible output, kept or not.
        is_finished: Every token of the answer has been produced; only usage may follow.
        is_complete: The format's own end was seen.
        is_error: The provider reported an error inside a successful response.
        is_readable: The answer had the format's shape.
    """

    usage: Usage | None = None
    model: str | None = None
    tier: str | None = None
    variants: Mapping[Meter, str] = NO_VARIANTS
    request_id: str | None = None
    text: list[str] = []
    usage_chars: int = 0
    text_chars: int = 0
    is_finished: bool = False
    is_complete: bool = False
    is_error: bool = False
    is_readable: bool = False


class StreamLane(Protocol):
    """Takes a streamed answer in, gives out what the client may have, and folds what it sees."""

    answer: Answer

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes and give those that may go to the client now."""
        ...

    def finish(self, *, is_broken: bool = False) -> bytes:
        """End the stream and give the bytes held back until the settlement is safe.

        After a broken stream they end where an event ends, so that another one can follow.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBody:
    """A refusal in words, before a dialect shapes it.

    Attributes:
        status: HTTP status.
        code: Stable machine code.
        kind: The dialect-neutral error type.
        message: What happened and what to do.
        details: More facts by name.
    """

    status: int
    code: str
    kind: str
    message: str
    details: Mapping[str, object]


class WireFormat(Protocol):
    """One API's way of asking, answering and saying no."""

    api: str

    def read_facts(self, body: bytes) -> RequestFacts:
        """Read what metering needs of a request; raises ``BadRequest``."""
        ...

    def prepare_body(self, body: bytes, facts: RequestFacts, model: str) -> bytes:
        """Make the body to send: the same bytes but for the model name and the usage option."""
        ...

    def open_stream(self, facts: RequestFacts) -> StreamLane:
        """Begin to read a streamed answer."""
        ...

    def read_whole(self, body: bytes) -> Answer:
        """Read a whole answer."""
        ...

    def may_think(self, model: str) -> bool:
        """Tell whether a model can produce output that is billed and never shown."""
        ...

    def read_prompt(self, body: bytes) -> Sequence[str] | None:
        """Read the texts of a prompt for counting; ``None`` when it holds more than text."""
        ...

    def shape_error(self, error: ErrorBody) -> bytes:
        """Write a refusal in this API's error shape."""
        ...

    def shape_stream_error(self, error: ErrorBody) -> bytes:
        """Write trouble as an event inside a stream that has begun."""
        ...

    def shape_stream_facts(self, facts: RawHeaders) -> bytes:
        """Write cost facts as one comment inside a stream."""
        ...
