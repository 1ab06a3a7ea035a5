"""Folding Bedrock's streams: which frames are events, which are trouble, and text kept to count.

Must never raise on a frame, and never hold more text than counting needs.
"""

from typing import Final

from gateway.wire.eventstream import EventFrame, read_frame
from gateway.wire.facts import Answer
from gateway.wire.openai_answer import TEXT_KEPT_CHARS_MAX

# Trouble that keeps a call from the model; whatever comes before any event was not billed.
_BEFORE_THE_MODEL: Final = frozenset(
    {"throttlingException", "validationException", "serviceUnavailableException"}
)


def keep_text(answer: Answer, text: str) -> None:
    """Count a text, and keep as much of it as there is room for.

    Args:
        answer: Takes it.
        text: Visible output.
    """
    room = TEXT_KEPT_CHARS_MAX - answer.text_chars
    answer.text_chars += len(text)
    if room > 0 and text:
        answer.text.append(text[:room])


def keep_unread(answer: Answer, raw: bytes) -> None:
    """Count what is too odd to read as the text it is on the wire.

    Args:
        answer: Takes it.
        raw: As it came.
    """
    keep_text(answer, raw.decode("utf-8", "replace"))


class FrameFold:
    """Reads frames; a subclass reads the events in them.

    Attributes:
        answer: What has been seen so far.
    """

    def __init__(self) -> None:
        self.answer = Answer()

    def take(self, event: bytes) -> bool:
        """Read one frame; tell whether the answer ends with it.

        Args:
            event: Its bytes.

        Returns:
            True for the last event and for trouble, which ends a stream too.
        """
        frame = read_frame(event)
        if frame is None:
            return False
        headers = frame.headers
        if headers.get(":message-type") in ("exception", "error"):
            if not self.answer.is_readable:
                kind = headers.get(":exception-type", "")
                self.answer.is_billed = False if kind in _BEFORE_THE_MODEL else None
            self.answer.is_error = True
            self.answer.is_readable = True
            return True
        self.answer.is_readable = True
        return self._take_event(headers.get(":event-type", ""), frame)

    def _take_event(self, name: str, frame: EventFrame) -> bool:
        """Read one event; a subclass knows them."""
        raise NotImplementedError
