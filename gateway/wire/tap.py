"""Passes a stream on and folds a copy of it, whatever its framing and its chunk borders.

Must never change a byte, never raise because of what a provider sends, and never hold more than a
bounded part of a stream.
"""

import logging
import struct
from typing import Final, Protocol

import msgspec

from gateway.wire.facts import Answer

# What a reader raises on bytes that are not what they should be.
ODD: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    msgspec.MsgspecError,
    struct.error,
)

log = logging.getLogger("taximeter.wire")

# An event larger than the first is passed on piece by piece while it is still being read; one
# larger than the second is not read.
EVENT_HELD_BYTES_MAX: Final = 256 * 1024
EVENT_READ_BYTES_MAX: Final = 32 * 1024 * 1024
END_HELD_BYTES_MAX: Final = 64 * 1024
# What is kept back of an event that is passed on in pieces, so that its end is never among them.
_KEPT_BACK: Final = 16


def note_odd(answer: Answer, odd: Exception, what: str = "an event") -> None:
    """Say in an answer that a part of it could not be read; its bytes go on whatever it is.

    Args:
        answer: What has been seen so far.
        odd: What its reader raised; the text may quote the answer, so only its kind is told.
        what: What could not be read.
    """
    log.warning("%s could not be read: %s", what, type(odd).__name__)
    _flag(answer, f"{what} could not be read ({type(odd).__name__})")


def _flag(answer: Answer, flag: str) -> None:
    if flag not in answer.flags:
        answer.flags = (*answer.flags, flag)


class Cutter(Protocol):
    """Cuts a stream into the events of its framing.

    Attributes:
        size: Bytes of an event whose end has not come yet.
    """

    size: int

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes and give the events they complete; joined, they are the stream."""
        ...

    def peek(self) -> bytes:
        """Show the event whose end has not come yet."""
        ...

    def close_part(self) -> bytes:
        """Give what must follow half an event that was passed on, so that another can follow."""
        ...


class Fold(Protocol):
    """Reads events.

    Attributes:
        answer: What has been seen so far.
    """

    answer: Answer

    def take(self, event: bytes) -> bool:
        """Read one event, framing and all; tell whether the answer ends with it."""
        ...


class Tap:
    """Passes a stream on and folds what it sees.

    Attributes:
        answer: What has been seen so far.
        can_append: Whether an event of the gateway's own may follow the provider's last.
    """

    __slots__ = (
        "_cutter",
        "_fold",
        "_held",
        "_is_blind",
        "_newest",
        "_passed",
        "answer",
        "can_append",
    )

    def __init__(self, cutter: Cutter, fold: Fold) -> None:
        self.answer = fold.answer
        self.can_append = True
        self._cutter = cutter
        self._fold = fold
        self._held = bytearray()
        self._passed = 0
        # The newest chunks of an event that is not complete; they hold what was not passed on.
        self._newest: list[bytes] = []
        self._is_blind = False

    @property
    def is_holding(self) -> bool:
        """Whether the end of the answer has come and is held back."""
        return bool(self._held)

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes and give those that may go to the client now.

        Args:
            chunk: The next bytes of the stream.

        Returns:
            Whole events, unchanged, without those that end the answer: they wait for the
            settlement. What follows the end waits too, up to ``END_HELD_BYTES_MAX``; of more than
            that, the last bytes.
        """
        if self._is_blind:
            return self._pass_late(chunk)
        cutter = self._cutter
        try:
            events = cutter.feed(chunk)
        except ODD:
            return self._go_blind(chunk)
        passed = []
        for event in events:
            is_end = self._take(event)
            rest = event
            if self._passed:
                rest = event[self._passed :]
                # What is held begins inside an event: nothing can stand before it.
                self.can_append = self.can_append and not is_end
            self._passed = 0
            if is_end or self._held:
                self._held += rest
            else:
                passed.append(rest)
        if len(self._held) > END_HELD_BYTES_MAX:
            self.can_append = False
            passed.append(bytes(self._held[:-_KEPT_BACK]))
            del self._held[:-_KEPT_BACK]
        if events:
            self._newest.clear()
        if cutter.size:
            self._newest.append(chunk)
        waiting = cutter.size - self._passed
        if waiting > EVENT_HELD_BYTES_MAX:
            passed.append(self._take_held() + self._take_piece(waiting))
        return passed[0] if len(passed) == 1 else b"".join(passed)

    def _take_piece(self, waiting: int) -> bytes:
        """Take what can be passed on of an event too large to hold."""
        # Not from the cutter: joining all of the event for every piece takes time squared.
        unpassed = b"".join(self._newest)[-waiting:]
        if len(unpassed) < waiting:  # a framing whose rest is longer than the newest bytes
            unpassed = self._cutter.peek()[self._passed :]
        if self._cutter.size > EVENT_READ_BYTES_MAX:
            self._stop_reading("an event is too large to read")
            self._newest.clear()
            return unpassed
        self._newest = [unpassed[-_KEPT_BACK:]]
        self._passed += waiting - _KEPT_BACK
        return unpassed[:-_KEPT_BACK]

    def finish(self, *, is_broken: bool = False) -> bytes:
        """End the stream.

        Args:
            is_broken: The stream broke off: half an event must not reach the client. What it says
                in full still counts.

        Returns:
            The bytes held back, and an event without its end if the stream ended with it.
        """
        if self._is_blind:
            return self._take_held()
        rest = self._cutter.peek()
        if rest:
            self._take(rest)
        if is_broken:
            return self._cutter.close_part() if self._passed else self._take_held()
        self._held += rest[self._passed :]
        return self._take_held()

    def _take(self, event: bytes) -> bool:
        try:
            return self._fold.take(event)
        except ODD as odd:
            note_odd(self.answer, odd)
            return False

    def _go_blind(self, chunk: bytes) -> bytes:
        """Pass everything on unread: the framing is not what the content type says."""
        self._stop_reading("the framing of the stream could not be read")
        passed = self._cutter.peek()[self._passed :] + self._take_held()
        self._held += chunk
        return passed

    def _stop_reading(self, why: str) -> None:
        self._is_blind = True
        self.can_append = False
        # What was told so far may be a running total, and the rest of the text is not known.
        self.answer.usage = None
        self.answer.is_readable = False
        _flag(self.answer, why)

    def _pass_late(self, chunk: bytes) -> bytes:
        """Pass on what came before, as nobody can tell which piece is the last."""
        passed = self._take_held()
        self._held += chunk
        return passed

    def _take_held(self) -> bytes:
        held = bytes(self._held)
        self._held.clear()
        return held
