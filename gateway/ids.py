"""Request ids: ULIDs, sortable by time, strictly increasing within a process.

Must never be guessed to be secret: an id names a record, it does not open one.
"""

import secrets
from datetime import datetime
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS: Final = 80
_PAIRS: Final = tuple(a + b for a in _ALPHABET for b in _ALPHABET)


_LOW_BITS: Final = 10
_LOW_MAX: Final = 1 << _LOW_BITS


class IdSource:
    """Mints ids for one process.

    Fresh random bits are drawn once a millisecond; within it ids count on, as the specification's
    monotonic form does, which costs a fraction of drawing them each time.
    """

    def __init__(self) -> None:
        self._last = 0
        self._epoch_ms = -1
        self._head = ""

    def mint(self, epoch_ms: int) -> str:
        """Make the next id.

        Args:
            epoch_ms: Milliseconds since 1970.

        Returns:
            26 characters of Crockford base 32; greater than every id minted before, even when the
            clock steps back.

        Source:
            https://github.com/ulid/spec, monotonicity section.
        """
        if epoch_ms <= self._epoch_ms:
            value = self._last + 1
            low = value & (_LOW_MAX - 1)
            if low:
                self._last = value
                return self._head + _PAIRS[low]
        else:
            self._epoch_ms = epoch_ms
            value = (epoch_ms << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
            if value <= self._last:
                value = self._last + 1
        self._last = value
        pairs = [_PAIRS[(value >> shift) & 0x3FF] for shift in range(120, -1, -_LOW_BITS)]
        self._head = "".join(pairs[:-1])
        return self._head + pairs[-1]


def first_id(at: datetime) -> str:
    """Make a text that sorts behind every id of a time before, and before every id from it on.

    Args:
        at: The time, to the second.

    Returns:
        The first ten characters of an id of then.
    """
    millis = int(at.timestamp()) * 1000
    return "".join(_ALPHABET[millis >> shift & 31] for shift in range(45, -1, -5))
