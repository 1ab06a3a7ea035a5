"""The first half of a call: everything that must be true before a byte goes to a provider.

Must never send anything; each step either adds what it found to the call or refuses by name.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from math import ceil
from types import MappingProxyType
from typing import Final, Literal, Protocol

import msgspec

from gateway.budgets.holds import Hold
from gateway.budgets.protocol import BudgetStore, BudgetsUnavailable
from gateway.budgets.rules import BudgetExhausted, Demand, Subject
from gateway.callers import Caller, Callers, is_model_allowed, is_provider_allowed
from gateway.client import BodyTooLarge, Client
from gateway.clock import epoch_us
from gateway.headers import CREDENTIALS, KEY_PROTOCOL, RawHeaders
from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.lines import to_ledger_usage, to_ledger_variants
from gateway.ledger.record import Intent
from gateway.prices.current import Prices
from gateway.refusals import (
    RETRY_AFTER_S_MAX,
    BudgetRefused,
    InvalidRequest,
    KeyRefused,
    ModelNotAllowed,
    RequestTooLarge,
    StoreDown,
    TagsRefused,
    UnpricedModel,
)
from gateway.routes import Provider, Router, Surface
from gateway.tags import TagRule, TagsDecision, merge_tags
from gateway.wire.facts import (
    Answer,
    Asked,
    BadRequest,
    RequestFacts,
    StreamLane,
    WireFormat,
)
from gateway.wire.openai_chat import OpenAIChat
from gateway.wire.splice import refuse_crowds
from pricing.book import Book
from pricing.meters import Meter
from pricing.rates import RateCard
from pricing.rating import (
    Ceiling,
    Reach,
    Unbounded,
    UnpricedSku,
    find_ceiling,
    prices_request,
    prices_time,
)
from pricing.sku import STANDARD_TIER

_DEFAULT_FORMAT: WireFormat = OpenAIChat()
# Left to the provider, a call is served at the standard tier unless the project's settings there
# say priority.
_UNDECIDED_TIERS = frozenset({STANDARD_TIER, "priority"})
_OPEN_ENDED: Final = "nothing bounds how often models are asked for this call, or which"
USER_CHARS_MAX: Final = 256
# Credential=ID/DATE/REGION/SERVICE/aws4_request, where an id may hold slashes. Source:
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html,
# checked 2026-11-23.
SIGV4: Final = "AWS4-HMAC-SHA256"
SIGV4_SCOPE_PARTS: Final = 4
# Decisions on tags that are remembered, all dropped when full.
DECISIONS_MAX: Final = 1024
# Of what has begun already and can only be settled.
NO_DEMAND: Final = Demand(cost_pico=0, tokens=0, requests=0)
NO_TAGS: Final[Mapping[str, str]] = MappingProxyType({})


class OpenCall(msgspec.Struct, kw_only=True):
    """One call on its way; filled step by step.

    Attributes:
        id: Its request id.
        at: When it arrived.
        started_at_us: The same in microseconds since 1970.
        started_s: The same on the monotonic clock.
        headers: Headers as the client sent them.
        format: Wire format of the request; the default until the address told.
        surface: What the address told.
        caller: Who is calling; ``None`` until known. The rest likewise.
        asked: The request as it came.
        path: Path below the provider's base address.
        is_translated: Whether the provider speaks another language than the caller.
        origin: The call this one was translated for; ``None`` for a call of an application's own.
        facts: What the request asks for.
        provider: Who serves it.
        model: Model under the provider's own name.
        user: End user as the request named it.
        tags: Tags in force.
        flags: What was odd, in words.
        book: The version everything about it is priced with.
        card: Prices in force; ``None`` for an unpriced model that is allowed.
        gpus: GPUs it keeps busy; 0 where time has no price.
        is_request_priced: Whether it costs something by itself, whatever it counts.
        sent_s: When it was sent, on the monotonic clock.
        ceiling: The most the call can come to; ``None`` when unpriced or unbounded.
        ceiling_pico: Its cost; ``None`` when the cost cannot be bounded.
        ceiling_tokens: Most tokens it can count; ``None`` when they cannot be bounded.
        reach: What it can come to before it is priced; ``None`` where rounds have no bound.
        notes: Headers that tell the client what budgets have changed about the call.
        replaced: The model that was asked for, where a budget sends the call to another one, and
            which budget that was.
        hold: What is held in the budgets.
        further_holds: What was held beside it while its answer came.
        is_overrun: Whether the answer came to more than was held for it.
        counting: Comes to hold what the prompt counts, by who said it; ``None`` where it is not
            counted.
        prompt_parts: The same, once it is there.
        answer: What has been seen of the answer.
        lane: What a streamed answer goes through; ``None`` before it began.
        is_sent: Whether anything may have reached the provider.
        is_started: Whether the client has the head of the answer.
        is_settled: Whether the call has its record, or has lost its chance of one.
    """

    id: str
    at: datetime
    started_at_us: int
    started_s: float
    headers: RawHeaders
    format: WireFormat = _DEFAULT_FORMAT
    surface: Surface | None = None
    caller: Caller | None = None
    asked: Asked = Asked()
    path: str = ""
    is_translated: bool = False
    origin: str | None = None
    facts: RequestFacts | None = None
    provider: Provider | None = None
    model: str = ""
    user: str | None = None
    tags: Mapping[str, str] = NO_TAGS
    flags: list[str] = []
    book: Book | None = None
    card: RateCard | None = None
    gpus: int = 0
    is_request_priced: bool = False
    sent_s: float = 0.0
    ceiling: Ceiling | None = None
    ceiling_pico: int | None = None
    ceiling_tokens: int | None = None
    reach: Reach | None = None
    notes: RawHeaders = []
    replaced: str | None = None
    hold: Hold | None = None
    further_holds: list[Hold] = []
    is_overrun: bool = False
    counting: "asyncio.Future[Mapping[str, int] | None] | None" = None
    prompt_parts: Mapping[str, int] | None = None
    answer: Answer = msgspec.field(default_factory=Answer)
    lane: StreamLane | None = None
    is_sent: bool = False
    is_started: bool = False
    is_settled: bool = False


class IntentJournal(Protocol):
    """Where an intent is written before its call is sent."""

    def append_intent(self, intent: Intent) -> None:
        """Write it, or raise ``StoreUnavailable``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionPolicy:
    """Settings that decide what is let in.

    Attributes:
        body_bytes_max: Largest request body.
        unpriced: What happens to a model without a price.
        tag_policy: Rule by tag name.
    """

    body_bytes_max: int
    unpriced: Literal["block", "allow"]
    tag_policy: Mapping[str, TagRule]


class Directory(Protocol):
    """Who may call, as of now; replaced whole when the directory changes."""

    @property
    def callers(self) -> Callers:
        """Every key that works."""
        ...

    @property
    def is_spending_known(self) -> bool:
        """Whether every budget knows what it had spent before it came into force."""
        ...

    async def learn_spending(self) -> bool:
        """Wait a moment until it is known; tell whether it is."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Lets a call in, or refuses it by name.

    Attributes:
        directory: Who may call.
        router: Who serves what.
        prices: The book that holds at an instant.
        budgets: Where the ceiling is held.
        journal: Where the intent is written.
        policy: Settings that decide.
    """

    directory: Directory
    router: Router
    prices: Prices
    budgets: BudgetStore
    journal: IntentJournal
    policy: AdmissionPolicy
    _decisions: dict[tuple[str, str | None], tuple[Caller, TagsDecision]] = field(
        default_factory=dict, init=False, repr=False
    )

    def identify(self, call: OpenCall, client: Client) -> None:
        """Find who is calling, wherever the SDK put the key.

        Args:
            call: Filled by this step.
            client: The one who called.

        Raises:
            KeyRefused: No key, or one that opens nothing.
        """
        secret = read_secret(client)
        if not secret:
            raise KeyRefused(is_missing=True)
        call.caller = self.directory.callers.find(secret, call.at)
        if call.caller is None:
            raise KeyRefused(is_missing=False)

    async def read(self, call: OpenCall, client: Client) -> None:
        """Route by the address, then read the body and the facts metering needs of it.

        Args:
            call: Filled by this step.
            client: The one who called.

        Raises:
            InvalidRequest: Address not metered, or a body the wire format does not know.
            RequestTooLarge: Body over the limit.
        """
        surface = call.surface = self.router.find_surface(client.method, client.path)
        call.format = surface.format
        try:
            call.asked = Asked(
                body=await client.read_body(self.policy.body_bytes_max),
                method=client.method,
                headers=client.headers,
                query=client.query_string,
                names=surface.names,
            )
            refuse_crowds(call.asked.body)
            call.facts = call.format.read_facts(call.asked)
        except BodyTooLarge:
            raise RequestTooLarge(self.policy.body_bytes_max) from None
        except BadRequest as bad:
            raise InvalidRequest(str(bad)) from None

    def route(self, call: OpenCall) -> None:
        """Find who serves the model, and whether this key may call it.

        Args:
            call: Filled by this step.

        Raises:
            ModelNotAllowed: The key's patterns leave it out, or nobody serves it.
            InvalidRequest: A body the provider's own wire format does not know.
        """
        assert call.surface is not None
        assert call.facts is not None
        assert call.caller is not None
        book = call.book = self.prices.at(call.at)
        found = self.router.find_destination(
            call.surface, call.asked.method, call.facts.model, book
        )
        call.provider, call.model = found.provider, found.model
        call.path, call.is_translated = found.path, found.is_translated
        if found.format is not call.format:
            # Of the same request another provider may charge for something else.
            call.format = found.format
            try:
                call.facts = call.format.read_facts(call.asked)
            except BadRequest as bad:
                raise InvalidRequest(str(bad)) from None
        self.check_allowed(call.caller, call.provider.id, call.model, call.facts)

    def check_allowed(self, caller: Caller, provider: str, model: str, facts: RequestFacts) -> None:
        """Make sure that a key may call a model.

        Args:
            caller: Whose key it is.
            provider: Who serves it.
            model: Under the provider's own name.
            facts: What else is put to work.

        Raises:
            ModelNotAllowed: The key's patterns leave it out.
        """
        hint = f"key {caller.key!r} may not call it; ask an admin"
        if facts.is_free and not model:
            if not is_provider_allowed(caller, provider):
                raise ModelNotAllowed(f"{provider}/", hint)
        elif not is_model_allowed(caller, provider, model):
            raise ModelNotAllowed(facts.model, hint)
        for other in facts.further_models:
            if not is_model_allowed(caller, provider, other):
                raise ModelNotAllowed(other, hint)

    def tag(self, call: OpenCall, client: Client) -> None:
        """Decide the tags and the end user.

        Args:
            call: Filled by this step.
            client: The one who called.

        Raises:
            TagsRefused: The tags break a rule that rejects.
            InvalidRequest: A header that cannot be read, and must not be dropped.
        """
        assert call.caller is not None
        for name in ("x-taximeter-tags", "x-taximeter-user"):
            if client.is_unreadable(name):
                raise InvalidRequest(f"{name} is given twice or is not ASCII: percent-encode it")
        user = client.header("x-taximeter-user")
        call.user = user[:USER_CHARS_MAX] if user else None
        header = client.header("x-taximeter-tags")
        if header is None and not self.policy.tag_policy:
            call.tags = call.caller.tags
            return
        decision = self._decide_tags(call.caller, header)
        call.tags = decision.tags
        if decision.violations:
            if decision.is_refused:
                raise TagsRefused(tuple(v.reason for v in decision.violations if v.is_refusal))
            call.flags += [f"tag policy: {violation.reason}" for violation in decision.violations]

    def _decide_tags(self, caller: Caller, header: str | None) -> TagsDecision:
        """Merge the tags, or remember: an application sends the same few headers all day."""
        kept = self._decisions.get((caller.key, header))
        # The caller is another object once anything about it may have changed.
        if kept is not None and kept[0] is caller:
            return kept[1]
        decision = merge_tags(caller.tags, header, self.policy.tag_policy)
        if len(self._decisions) >= DECISIONS_MAX:
            self._decisions.clear()
        self._decisions[caller.key, header] = (caller, decision)
        return decision

    def price(self, call: OpenCall) -> None:
        """Find the prices in force and the most the call can cost and count.

        Args:
            call: Filled by this step.

        Raises:
            UnpricedModel: No price, and the policy blocks what has none.
        """
        assert call.caller is not None
        assert call.provider is not None
        assert call.facts is not None
        assert call.book is not None
        if call.facts.is_free:
            call.ceiling_pico = call.ceiling_tokens = 0
            return
        call.card = call.book.find_card(
            call.provider.priced_as,
            call.provider.model_behind(call.model),
            call.at,
            call.caller.payer,
        )
        if call.card is None:
            self._allow_unpriced(call, "the model is not in the book")
        card = call.card
        if card is not None and call.facts.is_either:
            call.facts = call.facts.sold_by(card)
        maxima = (None, None) if card is None else (card.context_tokens_max, card.output_tokens_max)
        region = call.facts.region or call.provider.region
        reach = call.facts.reach(_tiers_of(call), region, maxima)
        is_endless = call.facts.rounds is None
        if is_endless:
            call.flags.append(_OPEN_ENDED)
        elif reach.input_tokens_max is not None and reach.output_tokens_max is not None:
            call.ceiling_tokens = reach.input_tokens_max + reach.output_tokens_max
        if card is not None:
            reach = _add_own_fees(call, reach, card)
        if is_endless:
            return
        call.reach = reach
        if card is not None:
            self._bound(call, reach, card)

    def _bound(self, call: OpenCall, reach: Reach, card: RateCard) -> None:
        try:
            call.ceiling = find_ceiling(reach, card)
            call.ceiling_pico = call.ceiling.cost_pico
        except Unbounded as open_ended:
            call.flags.append(str(open_ended))
        except UnpricedSku as gap:
            self._allow_unpriced(call, str(gap))

    async def hold(self, call: OpenCall, demand: Demand | None = None) -> None:
        """Hold the ceiling in every budget that applies.

        Args:
            call: Filled by this step.
            demand: What to hold instead; ``None`` for the ceiling.

        Raises:
            BudgetRefused: One of them has no room; nothing is held.
            StoreDown: What a budget had spent is not known, or where it stands now.
        """
        if not self.directory.is_spending_known and not await self.directory.learn_spending():
            raise StoreDown("ledger")
        try:
            held = await self.budgets.reserve(
                call.id,
                subject_of(call),
                demand or Demand(cost_pico=call.ceiling_pico, tokens=call.ceiling_tokens),
                call.at,
            )
        except BudgetsUnavailable as down:
            raise StoreDown(down.store) from None
        if isinstance(held, BudgetExhausted):
            raise BudgetRefused(held, _retry_after_s(held, call.at))
        call.hold = held

    def intend(self, call: OpenCall) -> None:
        """Write down what is about to be sent.

        Args:
            call: Filled by this step.

        Raises:
            StoreDown: The journal takes no more; the hold is given back, nothing was sent.
        """
        assert call.caller is not None
        assert call.provider is not None
        assert call.facts is not None
        assert call.hold is not None
        ceiling = call.ceiling
        intent = Intent(
            id=call.id,
            started_at_us=call.started_at_us,
            stream=call.facts.stream,
            api=call.format.api,
            provider=call.provider.id,
            model_requested=call.facts.model,
            organization=call.caller.organization,
            team=call.caller.team,
            project=call.caller.project,
            key=call.caller.key,
            user=call.user,
            tags=dict(call.tags),
            price_version=None if call.card is None else call.card.version,
            ceiling_pico=call.ceiling_pico,
            ceiling_tokens=call.ceiling_tokens,
            bound_usage={} if ceiling is None else to_ledger_usage(ceiling.counts),
            bound_tier="" if ceiling is None else ceiling.tier,
            bound_region=None if ceiling is None else ceiling.region,
            bound_variants={} if ceiling is None else to_ledger_variants(ceiling.variants),
            priced_as=call.provider.priced_as,
            priced_model="" if call.card is None else call.card.model,
            model_asked=call.model,
            model_behind=call.provider.deployments.get(call.model, ""),
        )
        try:
            self.journal.append_intent(intent)
        except StoreUnavailable:
            self.budgets.release(call.hold)
            raise StoreDown("journal") from None

    def _allow_unpriced(self, call: OpenCall, reason: str) -> None:
        assert call.provider is not None
        assert call.book is not None
        if self.policy.unpriced == "block":
            raise UnpricedModel(call.provider.id, call.model, call.book.version.version, reason)
        call.flags.append(f"unpriced: {reason}")


def subject_of(call: OpenCall) -> Subject:
    """Say what a call is for budgets.

    Args:
        call: Routed and tagged.

    Returns:
        Everything a scope can name.
    """
    assert call.caller is not None
    assert call.provider is not None
    return Subject(
        organization=call.caller.organization,
        team=call.caller.team,
        project=call.caller.project,
        key=call.caller.key,
        provider=call.provider.id,
        model=call.model,
        user=call.user,
        tags=call.tags,
    )


def read_secret(client: Client) -> str | None:
    """Find the key, wherever the SDK put it.

    Args:
        client: The one who called.

    Returns:
        The virtual key; ``None`` where there is none.
    """
    for name in CREDENTIALS:
        value = client.header(name)
        if not value:
            continue
        scheme, space, token = value.partition(" ")
        if not space:
            return value
        if scheme.lower() == "bearer" and token.strip():
            return token.strip()
        if scheme == SIGV4:
            return _signed_by(token)
    # Where a browser can put it: a WebSocket takes no header there.
    for offered in (client.header("sec-websocket-protocol") or "").split(","):
        if offered.strip().startswith(KEY_PROTOCOL):
            return offered.strip().removeprefix(KEY_PROTOCOL)
    return client.query("key") or client.query("api-key")


def _signed_by(signature: str) -> str | None:
    """Read who signed: the id of the AWS access key, which is where the virtual key stands.

    The signature itself cannot be checked, because nobody here knows a secret of the caller's; the
    id opens like a bearer token.
    """
    for part in signature.split(","):
        name, _, scope = part.strip().partition("=")
        if name == "Credential":
            return scope.rsplit("/", SIGV4_SCOPE_PARTS)[0] or None
    return None


def _add_own_fees(call: OpenCall, reach: Reach, card: RateCard) -> Reach:
    """Add what is charged by the call, and by its time."""
    assert call.provider is not None
    if prices_request(card):
        call.is_request_priced = True
        reach = msgspec.structs.replace(reach, fees={**reach.fees, Meter.REQUEST: 1})
    if prices_time(card):
        call.gpus = call.provider.fleet.gpus_at(card.model, call.at)
        seconds = ceil(call.provider.call_s_max) * call.gpus
        reach = msgspec.structs.replace(reach, fees={**reach.fees, Meter.GPU_SECOND: seconds})
    return reach


def _tiers_of(call: OpenCall) -> frozenset[str]:
    """Tiers the provider may serve the call at: what is asked for is a wish, standard the rest."""
    assert call.facts is not None
    if call.facts.tier is not None:
        return frozenset({call.facts.tier, STANDARD_TIER})
    if call.card is None:
        return frozenset({STANDARD_TIER})
    return _undecided_of(call.card.tiers)


@lru_cache(maxsize=256)
def _undecided_of(tiers: frozenset[str]) -> frozenset[str]:
    return (_UNDECIDED_TIERS & tiers) | {STANDARD_TIER}


def _retry_after_s(exhausted: BudgetExhausted, at: datetime) -> int | None:
    """Whole seconds until the same call would fit; ``None`` when that is far off or not known."""
    room_at = exhausted.room_at or exhausted.window.end
    if room_at is None:
        return None
    wait_us = epoch_us(room_at) - epoch_us(at)
    return max(1, ceil(wait_us / 1_000_000)) if wait_us <= RETRY_AFTER_S_MAX * 1_000_000 else None
