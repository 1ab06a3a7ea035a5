"""The way to the Redis that workers agree through: one script, and a channel to call each other.

Must never decide anything about a budget, nor retry what may have been done under a new number.
"""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

_SCRIPT: Final = Path(__file__).with_name("shared.lua").read_text("utf-8")
_SHA: Final = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
# A server on the same network answers in well under a millisecond. Calls wait for this.
ANSWER_S_MAX: Final = 0.25
CONNECT_S_MAX: Final = 0.25

Value = str | int
_NO_NEAR: Final = (0,) * 7


class RedisDown(Exception):
    """Redis did not answer, or not as it should; what was asked may have been done."""


class NoAgreement(Exception):
    """Workers have not agreed: nothing can be claimed."""


class AgreementLost(NoAgreement):
    """Redis does not have, or no longer has, what workers had agreed on."""


class NotOpen(NoAgreement):
    """Not every worker has said yet what it had before Redis was lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NearPart:
    """What a worker tells of the windows that share money with one.

    Attributes:
        carried_max: Most that a window takes over.
        earlier_key: Where workers agree on the window before; ``None`` where there is none.
        earlier_limit: Largest amount in it, without what it took over itself.
        is_earlier_new: Whether nothing in the ledger can belong to it that no worker has claimed.
        later_key: Where workers agree on the window after; ``None`` where there is none.
        later_limit: Largest amount in that, without what it takes over.
        is_later_new: As ``is_earlier_new``.
    """

    carried_max: int
    earlier_key: str | None
    earlier_limit: int
    is_earlier_new: bool
    later_key: str | None
    later_limit: int
    is_later_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPart:
    """What a worker tells of one counter.

    Attributes:
        key: Where workers agree on it.
        is_new: Whether nothing in the ledger can belong to it.
        expires_ms: When it may be forgotten, milliseconds since 1970; 0 for never.
        acked: Number of the last operation on it that was answered.
        limit: Largest amount in the window, without what it takes over.
        claim: The claim it needs, or has.
        most: The largest claim it can make use of.
        spent: What the worker has spent itself.
        held: What it holds.
        parked: The part of ``spent`` whose true amount is not known.
        near: The windows before and after, where something rolls over.
    """

    key: str
    is_new: bool
    expires_ms: int
    acked: int
    limit: int
    claim: int
    most: int
    spent: int
    held: int
    parked: int
    near: NearPart | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OthersPart:
    """How one counter stands.

    Attributes:
        is_laid: Whether its base is known, this worker's part of the ledger included.
        claim: The worker's claim.
        spent: What others have spent.
        held: What others hold.
        parked: What others have parked.
        most: The largest claim the worker could have.
        carried: What the window takes over from the one before.
    """

    is_laid: bool
    claim: int
    spent: int
    held: int
    parked: int
    most: int
    carried: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What came of asking for larger claims.

    Attributes:
        number: Of the operation.
        lacking: Place of the first counter that had no room; ``None`` when all claims were given.
        is_sure: Whether there is no room whatever the other workers give back.
        peers: How many other workers were called upon to give back what they do not use.
        answers: How each counter stands.
    """

    number: int
    lacking: int | None
    is_sure: bool
    peers: int
    answers: tuple[OthersPart, ...]


@dataclass(frozen=True, slots=True)
class Laid:
    """What the ledger holds for a counter.

    Attributes:
        generation: Field ``g`` as it was before the ledger was read; ``0`` where missing.
        base: As ``shared.lua`` describes it.
        cut: Journal by name to the last position in the base.
        gone: Workers whose records are all in the base, and the last operation that set their claim
            as it was before the ledger was read; ``0`` where there was none.
    """

    generation: str
    base: str
    cut: Mapping[str, int]
    gone: Mapping[str, str] = field(default_factory=dict)


class NotLaid(Exception):
    """The base of a counter is not known yet.

    Attributes:
        place: Of the counter among those asked for.
    """

    def __init__(self, place: int) -> None:
        super().__init__(place)
        self.place = place


class SharedLink:
    """Asks Redis, as one worker.

    Attributes:
        worker: Name of the worker: that of its journal.
        epoch: Since when workers agree on what they have now; empty before the first answer.
        from_seq: Number of the last record of its journal that it did not count itself.
        asked: How many commands were sent.
    """

    def __init__(
        self, urls: Sequence[str], organization: str, worker: str, from_seq: int, now_us: int
    ) -> None:
        """Prepare; nothing is sent.

        Args:
            urls: One address, or several members of a cluster.
            organization: Names the deployment: gateways of one organisation share budgets.
            worker: Name of the journal.
            from_seq: Number of the last record in it.
            now_us: Microseconds since 1970; operations are numbered from here on, so that those of
                a worker that starts again are later ones.
        """
        self.worker = worker
        self.from_seq = from_seq
        self.epoch = ""
        self.asked = 0
        self._number = now_us
        self._redis = _open(urls)
        # A channel reaches subscribers at any member of a cluster.
        self._listener = _open(urls[:1], listens=True)
        self._home = "{taximeter:" + organization.replace("}", "") + "}:"
        self._channel = self._home + "recall"

    def key_of(self, digest: str, start_us: int) -> str:
        """Name a budget's window.

        Args:
            digest: Of what the budget counts.
            start_us: Start of the window; 0 where it has none.

        Returns:
            The key. All of one deployment lie in one slot of a cluster, for one script.
        """
        return f"{self._home}{digest}:{start_us}"

    async def begin(self, epoch: str, now_us: int) -> None:
        """Take part in the epoch that holds, or in a new one where Redis lost the last.

        Args:
            epoch: Name for a new one.
            now_us: Microseconds since 1970.
        """
        self.epoch = _pairs(await self._run("begin", (), now_us, epoch))["id"]

    async def join(self, now_us: int) -> Mapping[str, str]:
        """Say that everything this worker has was told in this epoch.

        Args:
            now_us: Microseconds since 1970.

        Returns:
            Fields of the epoch.
        """
        return _pairs(await self._run("join", (), now_us, self.from_seq))

    async def open_epoch(self, now_us: int) -> None:
        """Let claims be given again.

        Args:
            now_us: Microseconds since 1970.
        """
        await self._run("open", (), now_us)

    async def leave(self, now_us: int) -> None:
        """Say that this worker will not answer any more.

        Args:
            now_us: Microseconds since 1970.
        """
        await self._run("leave", (), now_us)

    async def end_epoch(self, now_us: int) -> None:
        """Make every worker say again what it has.

        Args:
            now_us: Microseconds since 1970.
        """
        await self._run("end", (), now_us)

    async def look(self, key: str, expires_ms: int, now_us: int) -> Mapping[str, str]:
        """Read everything agreed about a counter.

        Args:
            key: Its key.
            expires_ms: As in ``OwnPart``.
            now_us: Microseconds since 1970.

        Returns:
            Its fields, as ``shared.lua`` describes them.
        """
        return _pairs(await self._run("look", (key,), now_us, expires_ms))

    async def lay(self, key: str, expires_ms: int, now_us: int, laid: Laid) -> bool:
        """Say what the ledger holds for a counter.

        Args:
            key: Its key.
            expires_ms: As in ``OwnPart``.
            now_us: Microseconds since 1970.
            laid: What it holds.

        Returns:
            False when another worker was faster: look again.
        """
        named = [part for pair in laid.cut.items() for part in pair]
        gone = [part for pair in laid.gone.items() for part in pair]
        values = expires_ms, laid.generation, laid.base, len(laid.cut), *named, *gone
        return (await self._run("lay", (key,), now_us, *values))[0] == "ok"

    async def tell(
        self, told: Sequence[OwnPart], now_us: int
    ) -> tuple[int, tuple[OthersPart, ...]]:
        """Say how counters stand, claims included, whether there is room or not.

        Args:
            told: Counters; distinct keys.
            now_us: Microseconds since 1970.

        Returns:
            Number of the operation, and how they stand with everybody else's part.
        """
        number, answer = await self._run_numbered("tell", told, now_us)
        return number, _answers(answer[2:])

    async def take(self, told: Sequence[OwnPart], now_us: int, *, recalls: bool) -> Taken:
        """Ask for larger claims, all of them or none.

        Args:
            told: Counters that are short; distinct keys.
            now_us: Microseconds since 1970.
            recalls: Whether other workers are called upon where there is no room.

        Returns:
            What came of it.

        Raises:
            NotLaid: The base of one is not known.
            NotOpen: Workers have not agreed yet.
        """
        number, answer = await self._run_numbered("take", told, now_us, recalls=recalls)
        if answer[0] == "unlaid":
            raise NotLaid(int(answer[1]) - 1)
        if answer[0] == "short":
            return Taken(
                number=number,
                lacking=int(answer[1]) - 1,
                is_sure=answer[3] == "1",
                peers=int(answer[2]),
                answers=_answers(answer[4:]),
            )
        given = _answers(answer[2:])
        return Taken(number=number, lacking=None, is_sure=False, peers=0, answers=given)

    async def give_word(self, to: str, key: str) -> None:
        """Tell a worker that what it called for was given back, as far as there was any.

        Args:
            to: The worker that called.
            key: The counter.
        """
        await self._publish(f"G|{to}|{key}")

    async def listen(self) -> AsyncIterator[tuple[str, str, str]]:
        """Hear what workers call to each other, for ever.

        Yields:
            ``R`` or ``G``, the worker that called or is meant, and the key.

        Raises:
            RedisDown: The connection broke; listen again.
        """
        hears = self._listener.pubsub(ignore_subscribe_messages=True)
        try:
            await hears.subscribe(self._channel)
            async for message in hears.listen():
                kind, worker, key = str(message["data"]).split("|", 2)
                yield kind, worker, key
        except (RedisError, OSError) as error:
            raise RedisDown(str(error)) from error
        finally:
            await hears.aclose()  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()
        await self._listener.aclose()

    async def _publish(self, text: str) -> None:
        self.asked += 1
        try:
            await self._listener.publish(self._channel, text)
        except (RedisError, OSError) as error:
            raise RedisDown(str(error)) from error

    async def _run_numbered(
        self, verb: str, told: Sequence[OwnPart], now_us: int, *, recalls: bool = False
    ) -> tuple[int, list[str]]:
        keys = [one.key for one in told]
        # Where other workers are to be called, the channel stands after the counters.
        values: list[Value] = [len(told)]
        for one in told:
            values += self._block(one)
            values += _near_block(one.near, keys)
        values += [self._channel] if recalls else []
        while True:
            self._number += 1
            number = self._number
            answer = await self._run(verb, keys, now_us, *values, number=number)
            if answer[0] != "stale":
                return number, answer
            # A clock stepped back while this worker was away: go on after what it once did.
            self._number = int(answer[1])

    def _block(self, one: OwnPart) -> tuple[Value, ...]:
        return (
            self.from_seq,
            int(one.is_new),
            one.expires_ms,
            one.acked,
            one.limit,
            one.claim,
            one.most,
            one.spent,
            one.held,
            one.parked,
        )

    async def _run(
        self, verb: str, keys: Sequence[str], now_us: int, *values: Value, number: int = 0
    ) -> list[str]:
        self.asked += 1
        sent = (
            *(self._home + "epoch", self._home + "alive", *keys),
            *(verb, self.epoch, self.worker, now_us, number),
            *values,
        )
        many = 2 + len(keys)
        try:
            try:
                answer = await self._redis.evalsha(_SHA, many, *sent)
            except NoScriptError:
                answer = await self._redis.eval(_SCRIPT, many, *sent)
        except (RedisError, OSError) as error:
            raise RedisDown(str(error)) from error
        answer = cast("list[str]", answer)
        if answer[0] == "lost":
            raise AgreementLost
        if answer[0] == "closed":
            raise NotOpen
        return answer


def _open(urls: Sequence[str], *, listens: bool = False) -> "Redis | RedisCluster":
    # One repeat reaches a server that has closed an idle connection; the number of an operation
    # keeps it from being done twice.
    options: dict[str, Any] = {
        "decode_responses": True,
        "socket_connect_timeout": CONNECT_S_MAX,
        "socket_timeout": None if listens else ANSWER_S_MAX,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 1),
    }
    if len(urls) == 1:
        return Redis.from_url(urls[0], **options)
    nodes = [Redis.from_url(url).connection_pool.connection_kwargs for url in urls]
    named = {name: nodes[0][name] for name in ("username", "password") if name in nodes[0]}
    startup = [ClusterNode(one["host"], one.get("port", 6379)) for one in nodes]
    is_secret = urls[0].startswith("rediss://")
    return RedisCluster(startup_nodes=startup, ssl=is_secret, **named, **options)


def _pairs(answer: Sequence[str]) -> Mapping[str, str]:
    return dict(zip(answer[::2], answer[1::2], strict=True))


def _near_block(near: NearPart | None, keys: list[str]) -> tuple[Value, ...]:
    """Write a counter's neighbours, by their places among the keys; 0 where there is none."""
    if near is None:
        return _NO_NEAR
    places = []
    for key in (near.earlier_key, near.later_key):
        if key is not None:
            keys.append(key)
        places.append(0 if key is None else 2 + len(keys))
    return (
        near.carried_max,
        places[0],
        near.earlier_limit,
        int(near.is_earlier_new),
        places[1],
        near.later_limit,
        int(near.is_later_new),
    )


def _answers(parts: Sequence[str]) -> tuple[OthersPart, ...]:
    found = []
    for at in range(0, len(parts), 7):
        is_laid, *amounts = parts[at : at + 7]
        claim, spent, held, parked, most, carried = map(int, amounts)
        found.append(
            OthersPart(
                is_laid=is_laid == "1",
                claim=claim,
                spent=spent,
                held=held,
                parked=parked,
                most=most,
                carried=carried,
            )
        )
    return tuple(found)
