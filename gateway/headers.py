"""Which headers pass through, in either direction.

Must never pass on a credential, and must never drop a header that an SDK or a provider needs: all
but a short deny list go through, with the verdict remembered per name.
"""

from collections.abc import Iterable
from typing import Final

RawHeaders = list[tuple[str, str]]

# RFC 9110 section 7.6.1, and framing that each hop sets for itself.
_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# The virtual key never leaves the gateway, wherever an SDK puts it.
CREDENTIALS: Final = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
_DENIED_UP: Final = (
    _HOP_BY_HOP
    | frozenset(CREDENTIALS)
    | {
        "host",
        "content-length",
        "expect",
        # Replies are metered from a copy, so they are asked for uncompressed.
        "accept-encoding",
    }
)
_OWN_PREFIX: Final = "x-taximeter-"
_NAMES_MAX: Final = 4096


class HeaderFilter:
    """Remembers for every header name whether it passes; memory is bounded."""

    def __init__(self, denied: frozenset[str]) -> None:
        self._denied = denied
        self._passes: dict[str, bool] = {}

    def choose(self, headers: Iterable[tuple[str, str]]) -> RawHeaders:
        """Choose what goes on.

        Args:
            headers: As they came, names in lower case.

        Returns:
            Everything but the deny list, in order, repeated names kept.
        """
        known = self._passes
        passed = []
        for header in headers:
            name = header[0]
            passes = known.get(name)
            if passes if passes is not None else self._judge(name):
                passed.append(header)
        return passed

    def _judge(self, name: str) -> bool:
        lowered = name.lower()
        passes = lowered not in self._denied and not lowered.startswith(_OWN_PREFIX)
        if len(self._passes) < _NAMES_MAX:
            self._passes[name] = passes
        return passes


TO_UPSTREAM: Final = HeaderFilter(_DENIED_UP)
# The length is set again by the server, because a stream may lose a stripped event.
TO_CLIENT: Final = HeaderFilter(_HOP_BY_HOP | {"content-length"})
