"""Budgets of several workers: each fills the claims it has, and asks Redis only for larger ones.

Must never hold above a claim that was given, except for what a budget says to allow without Redis.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, Protocol

from gateway.budgets.counters import Account, Counter
from gateway.budgets.holds import Hold
from gateway.budgets.memory import MemoryBudgets, refuse
from gateway.budgets.protocol import BudgetsUnavailable
from gateway.budgets.rules import Budget, BudgetExhausted, BudgetId, Demand, Mode, Subject
from gateway.budgets.share import CLOSED, Share
from gateway.budgets.shared_link import (
    AgreementLost,
    NoAgreement,
    NotLaid,
    NotOpen,
    OthersPart,
    OwnPart,
    RedisDown,
    SharedLink,
    Taken,
)
from gateway.budgets.shared_windows import (
    counters_about,
    earlier_of,
    is_calm,
    make_share,
    near_part,
    neighbours_of,
)
from gateway.clock import Clock, epoch_us
from gateway.ledger.errors import StoreUnavailable

# How long a call waits for what other workers do not use, in all.
RECALL_S_MAX: Final = 0.28
# For so long what a worker was refused is not asked for again.
FULL_S: Final = 0.2
# How long a call waits for the ledger to say what a window had seen.
LEARN_S_MAX: Final = 2.0


class Founder(Protocol):
    """Brings what the ledger knows of a window to where workers agree on it."""

    async def found(self, counter: Counter) -> None:
        """Lay the base of a counter, once, whoever else does so at the same time."""
        ...


class SharedBudgets(MemoryBudgets):
    """Keeps ``gateway.budgets.protocol.BudgetStore`` together with other workers.

    A counter's ``spent`` and ``held`` are everybody's, as of the last answer; its ``ceiling`` is
    this worker's claim above what others have. So what fits the claim is held without asking.

    Attributes:
        turn: Whoever changes claims has it, so that operations on them follow each other.
        is_agreed: Whether this worker takes part in the epoch that holds.
        is_down: Whether Redis did not answer when it was last asked.
        born_at: Since when the epoch holds.
        unread: Budgets of which this worker does not know yet what it had spent itself.
        founder: Who knows what the ledger holds of a window.
        on_trouble: Called when an operation fails, and when a claim is too small to wait.
    """

    def __init__(self, link: SharedLink, clock: Clock) -> None:
        """Prepare; nothing fits a hard budget before the workers agree.

        Args:
            link: The way to Redis.
            clock: What time it is.
        """
        super().__init__()
        self._share_of = self._make_share
        self.link = link
        self._clock = clock
        self.founder: Founder = _NoFounder()
        self.turn = asyncio.Lock()
        self.is_agreed = False
        self.is_down = False
        self.born_at: datetime | None = None
        self.unread: set[BudgetId] = set()
        self.on_trouble: Callable[[], None] = _nothing
        self._recalls: dict[str, _Recall] = {}

    async def reserve(
        self, hold_id: str, subject: Subject, demand: Demand, at: datetime
    ) -> Hold | BudgetExhausted:
        """Hold a demand; waits only where a claim is too small. See ``MemoryBudgets.reserve``.

        Args:
            hold_id: Id of the call.
            subject: The call.
            demand: The most it can come to.
            at: When it was admitted.

        Returns:
            The hold, or the first hard budget that had no room.

        Raises:
            BudgetsUnavailable: A budget that is closed without Redis needs it, or the ledger.
            ValueError: A hold of that id is open.
        """
        held = self.hold_now(hold_id, subject, demand, at)
        if isinstance(held, Hold) or held.asked is None:
            return held
        return await self._ask(hold_id, subject, demand, at)

    def install(self, budgets: Iterable[Budget], at: datetime) -> tuple[Budget, ...]:
        """Replace the set of budgets; see ``MemoryBudgets.install``."""
        fresh = super().install(budgets, at)
        self.unread = (self.unread & self._accounts.keys()) | {budget.id for budget in fresh}
        return fresh

    def settle(self, hold: Hold, actual: Demand) -> bool:
        """End a hold by what was used; see ``BudgetStore.settle``."""
        is_first = super().settle(hold, actual)
        if is_first and any(need_of(counter) > _claim(counter) for counter in hold.counters):
            # More was used than held: others must hear of it before they fill what seems left.
            self.on_trouble()
        return is_first

    def told_of(self, counter: Counter, claim: int, most: int) -> OwnPart:
        """Say how this worker stands with a counter.

        Args:
            counter: The counter.
            claim: The claim it needs.
            most: The largest it can make use of.

        Returns:
            What to tell.
        """
        share = share_of(counter)
        near = share.near
        return OwnPart(
            key=share.key,
            is_new=self.is_calm(counter),
            expires_ms=share.expires_ms,
            acked=share.acked,
            limit=counter.limit if near is None else counter.limit - counter.carried,
            claim=claim,
            most=most,
            spent=counter.spent - share.spent,
            held=counter.held - share.held,
            parked=counter.parked - share.parked,
            near=None if near is None else near_part(counter, near, self.born_at),
        )

    def take_answer(self, counter: Counter, answer: OthersPart, number: int) -> None:
        """Note how everybody stands with a counter.

        Args:
            counter: The counter.
            answer: As Redis gave it.
            number: Of the operation.
        """
        share = share_of(counter)
        if answer.carried != counter.carried:
            counter.carried = answer.carried
            counter.refresh()
        counter.spent += answer.spent - share.spent
        counter.held += answer.held - share.held
        counter.parked += answer.parked - share.parked
        share.spent, share.held, share.parked = answer.spent, answer.held, answer.parked
        share.acked = number
        share.kept = answer.claim
        share.is_laid = answer.is_laid
        self.set_ceiling(counter)

    def set_ceiling(self, counter: Counter) -> None:
        """Let a counter be filled as far as its claim goes.

        Args:
            counter: The counter.
        """
        share = share_of(counter)
        counter.ceiling = share.claim + share.spent + share.held if self.is_agreed else CLOSED

    def lose(self) -> None:
        """Let go of every claim: what was agreed is gone, or not known to be there any more."""
        self.is_agreed = False
        for account in self.accounts():
            for counter in account.counters():
                share_of(counter).forget()
                counter.ceiling = CLOSED
        self.on_trouble()

    def agree(self, born_at: datetime) -> None:
        """Take part in an epoch, with what claims there are.

        Args:
            born_at: Since when it holds.
        """
        self.born_at = born_at
        self.is_agreed = True
        for account in self.accounts():
            for counter in account.counters():
                self.set_ceiling(counter)

    def accounts(self) -> tuple[Account, ...]:
        """Give every installed budget."""
        return tuple(self._accounts.values())

    def counters_about(self, key: str) -> list[Counter]:
        """Find what this worker has of a window, and of those that share money with it.

        Args:
            key: Where workers agree on the window.

        Returns:
            The counters it has.
        """
        return [one for a in self._accounts.values() for one in counters_about(a, key)]

    def idle_counters(self, counters: Iterable[Counter]) -> None:
        """Keep of some claims what is used alone, before anybody is told.

        Args:
            counters: Nothing more is held in them until the workers agree again.
        """
        for counter in counters:
            share_of(counter).claim = max(need_of(counter), 0)
            self.set_ceiling(counter)

    def hear(self, kind: str, worker: str, key: str) -> None:
        """Take in that another worker has given back what it did not use.

        Args:
            kind: As ``SharedLink.listen`` gives it.
            worker: Who is meant.
            key: The counter.
        """
        recall = self._recalls.get(key)
        if kind == "G" and worker == self.link.worker and recall is not None:
            recall.count()

    async def _ask(
        self, hold_id: str, subject: Subject, demand: Demand, at: datetime
    ) -> Hold | BudgetExhausted:
        recalls = True
        for _ in range(_TRIES):
            try:
                came = await self._take(hold_id, subject, demand, at, recalls=recalls)
            except (RedisDown, NotOpen):
                return self._do_without(hold_id, subject, demand, at)
            except AgreementLost:
                self.lose()
                return self._do_without(hold_id, subject, demand, at)
            except _Unknown as unknown:
                await self._learn(unknown.counter)
                continue
            if not isinstance(came, _Recall):
                return came
            recalls = False
            await came.wait()
        raise BudgetsUnavailable("ledger")

    async def _take(
        self, hold_id: str, subject: Subject, demand: Demand, at: datetime, *, recalls: bool
    ) -> "Hold | BudgetExhausted | _Recall":
        """Ask for the claims a call needs; nothing is awaited between their coming and the hold."""
        async with self.turn:
            held = self.hold_now(hold_id, subject, demand, at)
            short = self._short_of(subject, demand, at)
            if isinstance(held, Hold) or not short:
                return held
            if not self.is_agreed or self.is_down:
                raise NotOpen
            for one in short:
                if one[0].account.budget.id in self.unread:
                    raise _Unknown(one[0])
                if self._is_full(*one):
                    return refuse(*one)
            running = [r for one, _ in short if (r := self._recalls.get(share_of(one).key))]
            await self._leave_neighbours(short)
            try:
                taken = await self._send(short, recalls=recalls and not running)
            except NotLaid as unknown:
                raise _Unknown(short[unknown.place][0]) from None
            if taken.lacking is None:
                return self.hold_now(hold_id, subject, demand, at)
            if recalls and (running or taken.peers):
                return running[0] if running else self._begin_recall(short, taken)
            if taken.is_sure or not recalls:
                self._note_full(short[taken.lacking][0], taken.answers[taken.lacking].most)
            return refuse(*short[taken.lacking])

    async def _leave_neighbours(self, short: Sequence[tuple[Counter, int]]) -> None:
        """Give back what is not used of windows that share money with those that are short."""
        idle = [
            near
            for counter, _ in short
            for near in neighbours_of(counter)
            if share_of(near).claim > max(need_of(near), 0)
        ]
        if idle:
            self.idle_counters(idle)
            await self.tell(idle)

    async def tell(self, counters: Sequence[Counter]) -> None:
        """Say how this worker stands with counters, and hear how others do.

        Args:
            counters: Distinct ones; the caller has the turn.

        Raises:
            RedisDown: Redis does not answer.
            AgreementLost: It does not know the epoch.
        """
        told = [self.told_of(one, share_of(one).claim, 0) for one in counters]
        if not told:
            return
        number, answers = await self.link.tell(told, epoch_us(self._clock.now()))
        for counter, one, answer in zip(counters, told, answers, strict=True):
            share_of(counter).told = (one.spent, one.held, one.parked)
            self.take_answer(counter, answer, number)

    def _note_full(self, counter: Counter, most: int) -> None:
        share = share_of(counter)
        share.most = most
        share.full_until_s = asyncio.get_running_loop().time() + FULL_S

    async def _send(self, short: Sequence[tuple[Counter, int]], *, recalls: bool) -> Taken:
        # Once they are given nothing comes before the hold, so it is told with them.
        told = [
            replace(self.told_of(counter, need_of(counter) + amount, 2 * counter.limit), held=held)
            for counter, amount in short
            for held in [counter.held - share_of(counter).held + amount]
        ]
        try:
            taken = await self.link.take(told, epoch_us(self._clock.now()), recalls=recalls)
        except RedisDown:
            self.is_down = True
            self.on_trouble()
            raise
        self.is_down = False
        for (counter, _), answer in zip(short, taken.answers, strict=True):
            if taken.lacking is None:
                share = share_of(counter)
                share.idle = 0
                self.take_answer(counter, answer, taken.number)
                # Set last: where less is taken over than before, only what is used would be left.
                share.claim = answer.claim
                self.set_ceiling(counter)
            else:
                # Nothing was written, so the number stands for no operation.
                self.take_answer(counter, answer, share_of(counter).acked)
        return taken

    def _short_of(
        self, subject: Subject, demand: Demand, at: datetime
    ) -> Sequence[tuple[Counter, int]]:
        found = []
        for counter in self._plan(subject, at).hard:
            amount = demand.amount(counter.account.budget.unit)
            if amount and counter.spent + counter.held + amount > counter.ceiling:
                found.append((counter, amount))
        return found

    def _is_full(self, counter: Counter, amount: int) -> bool:
        share = share_of(counter)
        return (
            need_of(counter) + amount > share.most
            and asyncio.get_running_loop().time() < share.full_until_s
        )

    def _begin_recall(self, short: Sequence[tuple[Counter, int]], taken: Taken) -> "_Recall":
        keys = [
            share_of(counter).key
            for (counter, amount), answer in zip(short, taken.answers, strict=True)
            if need_of(counter) + amount > answer.most
        ]
        recall = _Recall(taken.peers * len(keys))
        self._recalls.update(dict.fromkeys(keys, recall))
        loop = asyncio.get_running_loop()
        loop.call_later(RECALL_S_MAX, self._end_recall, keys, recall)
        return recall

    def _end_recall(self, keys: Sequence[str], recall: "_Recall") -> None:
        recall.end()
        for key in keys:
            if self._recalls.get(key) is recall:
                del self._recalls[key]

    async def _learn(self, counter: Counter) -> None:
        try:
            async with asyncio.timeout(LEARN_S_MAX):
                await self.founder.found(counter)
        except (TimeoutError, StoreUnavailable):
            raise BudgetsUnavailable("ledger") from None
        except (RedisDown, NoAgreement):
            raise BudgetsUnavailable("redis") from None

    def _do_without(
        self, hold_id: str, subject: Subject, demand: Demand, at: datetime
    ) -> Hold | BudgetExhausted:
        """Admit what budgets that are open without Redis would refuse; others are closed."""
        short = self._short_of(subject, demand, at)
        if any(is_closed(counter.account.budget) for counter, _ in short):
            raise BudgetsUnavailable("redis")
        for counter, amount in short:
            # What lies above the claim is told as soon as there is somebody to tell.
            counter.ceiling = counter.spent + counter.held + amount
        return self.hold_now(hold_id, subject, demand, at)

    def is_calm(self, counter: Counter) -> bool:
        """Tell whether a window began after everything that could have counted in it unseen.

        Args:
            counter: The window's counter.

        Returns:
            Whether the ledger need not be asked about it.
        """
        return is_calm(counter.account, counter.window, self.born_at)

    def _make_share(self, account: Account, counter: Counter) -> Share:
        return make_share(account.budget, counter.window, self.link.key_of)


# A call may have to learn of each of its budgets, lose a race and be called upon once.
_TRIES: Final = 16


class _Unknown(Exception):
    """What a window had seen must be read from the ledger first.

    Attributes:
        counter: Its counter.
    """

    def __init__(self, counter: Counter) -> None:
        super().__init__(share_of(counter).key)
        self.counter = counter


class _Recall:
    """A call to other workers to give back what they do not use; several may wait for it."""

    def __init__(self, replies: int) -> None:
        self._missing = replies
        self._is_over = asyncio.Event()

    def count(self) -> None:
        """One has."""
        self._missing -= 1
        if self._missing <= 0:
            self._is_over.set()

    def end(self) -> None:
        """Who has not by now does not count."""
        self._is_over.set()

    async def wait(self) -> None:
        """Wait until all have, or it took too long."""
        await self._is_over.wait()


def is_closed(budget: Budget) -> bool:
    """Tell whether a budget lets nothing in while Redis cannot be asked.

    Args:
        budget: Any budget.

    Returns:
        As it says; where it says nothing, what is hard is closed.
    """
    if budget.on_store_down is None:
        return budget.mode is Mode.HARD
    return budget.on_store_down == "closed"


def live_counters(budgets: SharedBudgets, at: datetime) -> Iterator[Counter]:
    """List the counters of the windows that hold now, and older ones that are in use.

    What has not been read yet is left out: others would take it for nothing.

    Args:
        budgets: The budgets.
        at: Now.

    Yields:
        Each once.
    """
    for account in budgets.accounts():
        if account.budget.id in budgets.unread:
            continue
        now = account.counter_at(at)
        earlier = earlier_of(now)
        yield now
        for counter in tuple(account.counters()):
            share = share_of(counter)
            used = counter.spent - share.spent, counter.held - share.held
            is_news = used != share.told[:2] or share.claim > sum(used)
            # What stood for a worker before it started again is in the base by now.
            is_news = is_news or (share.is_laid and share.kept > share.claim)
            # What a window takes over is known once all have spoken of the one before.
            is_due = counter is earlier and not (
                share.acked and (share.is_laid or budgets.is_calm(counter))
            )
            if counter is not now and (is_news or is_due):
                yield counter


def share_of(counter: Counter) -> Share:
    """Give what this worker has of a counter.

    Args:
        counter: One that is shared.

    Returns:
        Its share.

    Raises:
        TypeError: Nobody shares it.
    """
    if counter.share is None:
        raise TypeError("a counter that nobody shares is among those that are shared")
    return counter.share


def need_of(counter: Counter) -> int:
    """Add up what this worker itself has spent and holds.

    Args:
        counter: One that is shared.

    Returns:
        The least its claim has to be; negative where corrections took back more.
    """
    share = share_of(counter)
    return counter.spent + counter.held - share.spent - share.held


def _claim(counter: Counter) -> int:
    return share_of(counter).claim if counter.account.is_hard else need_of(counter)


class _NoFounder:
    """Stands in until there is somebody to ask."""

    async def found(self, counter: Counter) -> None:
        raise StoreUnavailable(f"nobody reads the ledger for {share_of(counter).key}")


def _nothing() -> None:
    """Nobody wants to know."""
