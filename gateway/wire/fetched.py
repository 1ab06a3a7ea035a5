"""Results of batches, metered when they are fetched: what all providers' have in common.

Must never meter a part of a batch as if it were all of it, nor hold up or change a byte of it.
"""

from typing import ClassVar, Final, Protocol

import msgspec

from gateway.wire.cutters import LineCutter
from gateway.wire.facts import (
    Answer,
    Asked,
    ReplyHead,
    RequestFacts,
    StreamLane,
    WireFormat,
    free_facts,
)
from gateway.wire.reading import refuse_ranges
from gateway.wire.tap import ODD, Tap

# What is told in full, and not in parts that were chosen.
_WHOLE: Final = 200
_ERRORS_FROM: Final = 300


class Results(Protocol):
    """Adds up the lines of a batch's results.

    Attributes:
        answer: What they come to.
    """

    answer: Answer

    def take(self, event: bytes) -> bool:
        """Read one line; tells whether it was the last."""
        ...

    def close(self, source: str | None, *, is_whole: bool) -> None:
        """Take the sums for the usage of the batch or file of that id."""
        ...


class FetchedLane(Tap):
    """Passes results on and meters what has passed of them."""

    __slots__ = ("_is_whole", "_results", "_source")

    def __init__(self, results: Results, source: str | None, *, is_whole: bool = True) -> None:
        """Begin.

        Args:
            results: Reads the lines.
            source: Id of the batch, or of the file the results are in.
            is_whole: Whether all of them come, and not a range.
        """
        self._results = results
        self._source = source
        self._is_whole = is_whole
        super().__init__(LineCutter(), results)
        self.can_append = False

    def finish(self, *, is_broken: bool = False) -> bytes:
        """End the stream.

        Args:
            is_broken: It broke off, or nobody listens any more.

        Returns:
            All bytes held back.
        """
        # Half a line goes on as well: nothing follows it, and by it the client sees the break.
        tail = super().finish()
        # By then the only flags are those of bytes that were not read.
        is_read = not (is_broken or self.answer.flags)
        self._results.close(self._source, is_whole=self._is_whole and is_read)
        return tail


class FetchedResults:
    """A wire format whose answers are the results of a batch, or a file that may hold them.

    Attributes:
        source: Name, in the address, of the batch's or file's id.
        results: Begins to add up the lines.
        errors: Reads the answers that hold none.
    """

    source: ClassVar[str]
    results: ClassVar[type[Results]]
    errors: ClassVar[WireFormat]

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Say that fetching costs nothing beyond what the batch has used.

        Args:
            asked: The request as it came.

        Returns:
            Facts whose ceiling is zero.

        Raises:
            BadRequest: Only a range of them is asked for.
        """
        refuse_ranges(asked)
        return msgspec.structs.replace(free_facts(), named=asked.names.get(self.source))

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> StreamLane:
        """Begin to read results.

        Args:
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            A lane for their bytes.
        """
        if head.status >= _ERRORS_FROM:
            return self.errors.open_stream(facts, head)
        return FetchedLane(self.results(), facts.named, is_whole=head.status == _WHOLE)

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read results that come in one piece.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            What the batch has used; nothing for an error, or a file that holds no results.
        """
        if head.status >= _ERRORS_FROM:
            return self.errors.read_whole(body, facts, head)
        results = self.results()
        is_whole = head.status == _WHOLE
        try:
            for line in body.splitlines():
                results.take(line)
        except ODD:
            is_whole = False
        results.close(facts.named, is_whole=is_whole)
        return results.answer
