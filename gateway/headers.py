"""Which headers pass through, in either direction.

Must never pass on a credential, and must never drop a header that an SDK or a provider needs: all
but a short deny list go through, with the verdict remembered per name.
"""

from collections.abc import Sequence
from itertools import compress
from operator import itemgetter
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
# Source: https://platform.openai.com/docs/guides/realtime-websocket, checked 2026-11-23.
KEY_PROTOCOL: Final = "openai-insecure-api-key."
_DENIED_UP: Final = (
    _HOP_BY_HOP
    | frozenset(CREDENTIALS)
    | {
        "host",
        "content-length",
        "expect",
        # Replies are metered from a copy, so they are asked for uncompressed.
        "accept-encoding",
        # Some servers take a request for one of another method, which may cost something.
        # https://cloud.google.com/apis/docs/system-parameters, checked 2026-11-23.
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        # Each hop makes its own handshake.
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
        # Parts of a signature that is made anew, or not needed, and a caller's session token.
        "x-amz-content-sha256",
        "x-amz-date",
        "x-amz-security-token",
        "amz-sdk-invocation-id",
        "amz-sdk-request",
    }
)
_OWN_PREFIX: Final = "x-taximeter-"
_NAMES_MAX: Final = 4096


_NAME: Final = itemgetter(0)


class _Verdicts(dict[str, bool]):
    """Whether a header of that name passes; memory is bounded."""

    def __init__(self, denied: frozenset[str]) -> None:
        super().__init__()
        self._denied = denied

    def __missing__(self, name: str) -> bool:
        lowered = name.lower()
        passes = lowered not in self._denied and not lowered.startswith(_OWN_PREFIX)
        if len(self) < _NAMES_MAX:
            self[name] = passes
        return passes


class HeaderFilter:
    """Remembers for every header name whether it passes."""

    def __init__(self, denied: frozenset[str]) -> None:
        self._verdict = _Verdicts(denied).__getitem__

    def choose(self, headers: Sequence[tuple[str, str]]) -> RawHeaders:
        """Choose what goes on.

        Args:
            headers: As they came, names in lower case.

        Returns:
            Everything but the deny list, in order, repeated names kept.
        """
        # No loop of ours: two of these run for every call, over some twenty headers each.
        return list(compress(headers, map(self._verdict, map(_NAME, headers))))


TO_UPSTREAM: Final = HeaderFilter(_DENIED_UP)
# The length is set again by the server, because a stream may lose a stripped event.
TO_CLIENT: Final = HeaderFilter(_HOP_BY_HOP | {"content-length"})
