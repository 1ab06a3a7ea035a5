"""The whole price book, for those who ask about models that no configured provider serves.

Must never be loaded for a call: the path has the part of the book that it uses.
"""

from collections.abc import Callable
from threading import Lock

from pricing.book import Book


class WholeBook:
    """The whole of a version the path uses a part of, loaded when it is first asked for.

    Most gateways serve a handful of the providers that have prices. The rest of the catalog would
    cost every start time and memory, for questions that are rare.
    """

    def __init__(self, load: Callable[[str], Book]) -> None:
        """Load nothing yet.

        Args:
            load: Loads a whole version by its name; called in a thread of the control plane.
        """
        self._load = load
        self._lock = Lock()
        self._whole: Book | None = None

    def __call__(self, part: Book) -> Book:
        """Find the whole book; waits while it is loaded.

        Args:
            part: What the path uses now.

        Returns:
            All of the same version. One is kept: the one asked for last.
        """
        if part.providers >= part.version.manifest.providers.keys():
            return part
        with self._lock:
            if self._whole is None or self._whole.version.version != part.version.version:
                self._whole = None
                self._whole = self._load(part.version.version)
            return self._whole
