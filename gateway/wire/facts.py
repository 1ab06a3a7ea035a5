"""What the path of a call knows of any request and any answer, whatever the wire format.

Must never hold more of a prompt or an answer than counting needs, and never log it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Final, Protocol

import msgspec

from gateway.headers import RawHeaders
from pricing.meters import INPUT_METERS, OUTPUT_METERS, Meter
from pricing.rates import NO_VARIANTS, RateCard
from pricing.rating import Reach
from pricing.usage import Quantity, Usage

NO_NAMES: Final[Mapping[str, str]] = MappingProxyType({})


class BadRequest(ValueError):
    """The body is not a request this wire format knows; the text says what is wrong."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One request as it came, with what its address names.

    Attributes:
        body: Request body.
        method: HTTP method.
        headers: Names in lower case and values.
        query: Query string as sent, without the question mark.
        names: What the address names, such as the model, percent-decoded.
    """

    body: bytes = b""
    method: str = "POST"
    headers: RawHeaders = []
    query: str = ""
    names: Mapping[str, str] = NO_NAMES


class RequestFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What one request asks for, as far as metering needs it.

    Attributes:
        model: Model as the client named it; empty where the call has none.
        stream: Whether the client asked for a stream.
        wants_usage: Whether the client asked for the usage chunk of a stream itself.
        tier: Service tier asked for, in catalog words; ``None`` when left to the provider.
        input_tokens_max: Most input tokens the body can come to; ``None`` when it holds parts whose
            size it does not tell (images, files, searches).
        output_tokens_max: Most output tokens over all choices; ``None`` when the model decides.
        choices: Number of answers asked for.
        extra_output_max: Output tokens that may be billed on top of any limit.
        meters: Token meters the call can touch.
        fees: Largest quantity of every meter that is not tokens. They are billed as they stand
            unless the answer tells them.
        variants: In which make a meter is sold, where the request says so.
        region: Region class asked for; ``None`` where the provider's own holds.
        is_either: Of the meters and fees, those count that the model is sold by: some models take
            their price by the token and others of the same API by the image, second or character.
        is_free: The call itself costs nothing, whatever it answers: a list, a count, a file.
        further_models: Other models that may serve it or be asked for it; the key must be allowed
            all of them.
        rounds: Most times a model reads a whole prompt for one answer; ``None`` where nothing
            bounds what the call comes to, as other models join in or rounds have no limit.
        named: The provider's own id of what the address names, such as a batch.
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
    region: str | None = None
    is_either: bool = False
    is_free: bool = False
    further_models: tuple[str, ...] = ()
    rounds: int | None = 1
    named: str | None = None

    def sold_by(self, card: RateCard) -> "RequestFacts":
        """Leave out what the model is not sold by.

        Args:
            card: Its prices.

        Returns:
            The same but for meters and fees without a price; the same where none has one.
        """
        fees = {meter: most for meter, most in self.fees.items() if card.sells(meter)}
        meters = frozenset(meter for meter in self.meters if card.sells(meter))
        if not fees and not meters:
            return self
        return msgspec.structs.replace(
            self,
            fees=fees,
            meters=meters,
            input_tokens_max=self.input_tokens_max if meters & INPUT_METERS else 0,
            output_tokens_max=self.output_tokens_max if meters & OUTPUT_METERS else 0,
        )

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
        inputs = self.input_tokens_max
        if inputs is None and model_input_max is not None and self.rounds is not None:
            inputs = model_input_max * self.rounds
        output = self.output_tokens_max
        if output is None and model_output_max is not None:
            output = model_output_max * self.choices * (self.rounds or 1)
        return Reach(
            input_tokens_max=inputs,
            output_tokens_max=None if output is None else output + self.extra_output_max,
            meters=self.meters,
            fees=self.fees,
            tiers=tiers,
            region=region,
            variants=self.variants,
        )


def free_facts(model: str = "", *, stream: bool = False) -> RequestFacts:
    """Say that a request costs nothing: a list, a count, a file.

    Args:
        model: Model as the client named it; empty where the call has none.
        stream: Whether the client asked for a stream.

    Returns:
        Facts whose ceiling is zero.
    """
    return RequestFacts(
        model=model,
        stream=stream,
        wants_usage=True,
        tier=None,
        input_tokens_max=0,
        output_tokens_max=0,
        choices=1,
        extra_output_max=0,
        meters=frozenset(),
        fees={},
        is_free=True,
    )


class OtherUse(msgspec.Struct, frozen=True, kw_only=True):
    """What another model used for the same answer, billed at its own price.

    Attributes:
        model: Under the provider's own name.
        usage: Disjoint counts.
        tier: Service tier in catalog words; ``None`` for that of the answer.
        region: Region class, as ``Answer.region``; ``None`` for that of the answer.
        variants: In which make a meter was sold; empty for those of the answer.
        prompt_tokens: As ``Answer.prompt_tokens``.
    """

    model: str
    usage: Usage
    tier: str | None = None
    region: str | None = None
    variants: Mapping[Meter, str] = NO_VARIANTS
    prompt_tokens: int | None = None


class Answer(msgspec.Struct, kw_only=True):
    """What has been seen of one answer so far.

    Attributes:
        usage: What the provider reported last and could be used; ``None`` until it reported. Basis
            ``none`` where it says, or is known, not to bill this answer.
        lacks_input: The usage leaves the prompt out, which was read all the same: it is counted.
        others: What other models used for it, each billed at its own price.
        provider_cost: What the provider says this answer costs, in its own currency units; ``None``
            where it does not say, or where its word is not the bill.
        tells_fees: The usage holds every fee there is, so none is taken from the request.
        is_billed: Whether the provider bills this answer, where the status tells the wrong thing.
        once: The provider's own id of what was metered, where it can be delivered again: whatever
            has been metered under it is not metered again, but completed where it was not final.
        is_earlier: What is told was used by an earlier call, known by ``once``: it completes that
            call's record, and where there is none nothing is metered.
        flags: What the reader found odd beside the usage, in words.
        model: Model the provider says it served.
        tier: Service tier the provider says it served, in catalog words.
        region: Region class the provider says it served from; empty for one that does not change
            the price, ``None`` when it does not say.
        variants: In which make a meter was sold, where the answer says more than the request.
        prompt_tokens: Largest prompt of the calls whose sum the usage is; ``None`` where it is that
            of one call.
        request_id: The provider's own id of the answer.
        text: Visible output, kept for counting if usage never comes; its beginning, bounded.
        usage_chars: Size of the visible output when usage was last reported.
        text_chars: Characters of all visible output, kept or not.
        hides_output: Whether some output was billed and not shown; ``None`` where only the model's
            name tells whether it may have been.
        is_finished: Every token of the answer has been produced; only usage may follow.
        is_complete: The format's own end was seen.
        is_error: The provider reported an error inside a successful response.
        is_readable: The answer had the format's shape.
    """

    usage: Usage | None = None
    lacks_input: bool = False
    others: tuple[OtherUse, ...] = ()
    provider_cost: Decimal | None = None
    tells_fees: bool = False
    is_billed: bool | None = None
    once: str | None = None
    is_earlier: bool = False
    flags: tuple[str, ...] = ()
    model: str | None = None
    tier: str | None = None
    region: str | None = None
    variants: Mapping[Meter, str] = NO_VARIANTS
    prompt_tokens: int | None = None
    request_id: str | None = None
    text: list[str] = []
    usage_chars: int = 0
    text_chars: int = 0
    hides_output: bool | None = None
    is_finished: bool = False
    is_complete: bool = False
    is_error: bool = False
    is_readable: bool = False


class ReplyHead(Protocol):
    """Status and headers of an answer."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        """Names in lower case and values, repeated names kept."""
        ...


def header_of(head: ReplyHead, name: str) -> str | None:
    """Read a header of an answer.

    Args:
        head: The answer.
        name: In lower case.

    Returns:
        Its first value, or ``None``.
    """
    return next((value for key, value in head.headers if key == name), None)


class StreamLane(Protocol):
    """Takes a streamed answer in, gives out what the client may have, and folds what it sees.

    Attributes:
        answer: What has been seen so far.
        can_append: Whether an event of the gateway's own may follow the provider's last.
    """

    answer: Answer
    can_append: bool

    @property
    def is_holding(self) -> bool:
        """Whether the end of the answer has come and is held back."""
        ...

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


class Dialect(Protocol):
    """How one API's clients are told of trouble."""

    def shape_error(self, error: ErrorBody) -> bytes:
        """Write a refusal in this API's error shape."""
        ...

    def shape_stream_error(self, error: ErrorBody) -> bytes:
        """Write trouble as an event inside a stream that has begun."""
        ...

    def shape_stream_facts(self, facts: RawHeaders) -> bytes:
        """Write cost facts as one comment inside a stream; empty where there are no comments."""
        ...

    def error_headers(self, error: ErrorBody) -> RawHeaders:
        """List what a refusal has beside ``content-type: application/json``."""
        ...


class WireFormat(Dialect, Protocol):
    """One API's way of asking, answering and saying no.

    Attributes:
        api: Its name in the ledger.
        stream_types: Content types, or how they begin, of an answer that is passed on as it comes.
    """

    api: str
    stream_types: tuple[str, ...]

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request; raises ``BadRequest``."""
        ...

    def prepare_body(self, asked: Asked, facts: RequestFacts, model: str) -> bytes:
        """Make the body to send: the same bytes but for the model name and the usage option."""
        ...

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> StreamLane:
        """Begin to read a streamed answer."""
        ...

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer."""
        ...

    def may_think(self, model: str) -> bool:
        """Tell whether a model can produce output that is billed and never shown."""
        ...

    def read_prompt(self, asked: Asked) -> Sequence[str] | None:
        """Read the texts of a prompt for counting; ``None`` when it holds more than text."""
        ...
