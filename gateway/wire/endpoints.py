"""What a provider's address stands for: which wire format reads it, and what the path names.

Must never match an address whose calls nobody would meter.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import quote

from gateway.wire.facts import NO_NAMES, WireFormat

_HOLE: Final = re.compile(r"\{([a-z_]+)(\.\.\.)?\}")
# What may stand unescaped in a path; RFC 3986 section 3.3, with the slash between segments.
_PLAIN: Final = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:@/]*")
_SAFE: Final = "-._~!$&'()*+,;=:@"
# AWS signs the path as botocore writes it, with only RFC 3986's unreserved characters left alone.
_UNRESERVED: Final = "-._~"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address of one API.

    Attributes:
        kinds: Provider kinds that have it.
        path: Below the provider's base address. ``{name}`` stands for one segment or a part of it,
            ``{name...}`` for anything, slashes too.
        format: Reads its requests and answers.
        methods: HTTP methods it takes.
        is_strict: Whether what stands for a name is sent with every reserved character escaped.
        priced_as: Catalog provider whose prices its models have, by that of the provider's other
            models; where nothing stands here they are the same.
    """

    kinds: frozenset[str]
    path: str
    format: WireFormat
    methods: frozenset[str] = frozenset({"POST"})
    is_strict: bool = False
    priced_as: Mapping[str, str] = field(default_factory=lambda: NO_NAMES)


class Match(NamedTuple):
    """An address that was recognised.

    Attributes:
        endpoint: What it stands for.
        names: What the path names, percent-decoded.
        path: To append to the provider's base address, percent-encoded.
    """

    endpoint: Endpoint
    names: Mapping[str, str]
    path: str


class WrongMethod(LookupError):
    """The address is known, but not with this method.

    Attributes:
        methods: Those it takes, sorted.
    """

    def __init__(self, methods: Iterable[str]) -> None:
        self.methods = tuple(sorted(methods))
        super().__init__(", ".join(self.methods))


class EndpointTable:
    """Finds what an address stands for."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        """Take the endpoints.

        Args:
            endpoints: Of every provider kind; of two that match the first one counts.
        """
        self._plain: dict[tuple[str, str], list[Endpoint]] = {}
        self._patterns: dict[str, list[tuple[re.Pattern[str], Endpoint]]] = {}
        for endpoint in endpoints:
            for kind in endpoint.kinds:
                if "{" in endpoint.path:
                    pattern = re.compile(_to_pattern(endpoint.path), re.DOTALL)
                    self._patterns.setdefault(kind, []).append((pattern, endpoint))
                else:
                    self._plain.setdefault((kind, endpoint.path), []).append(endpoint)

    def find(self, kind: str, method: str, path: str) -> Match | None:
        """Find what an address stands for.

        Args:
            kind: Provider kind.
            method: HTTP method.
            path: Below the provider's base address, percent-decoded.

        Returns:
            The match; ``None`` for an address nobody meters.

        Raises:
            WrongMethod: The address takes other methods.
        """
        methods: set[str] = set()
        for endpoint in self._plain.get((kind, path), ()):
            if method in endpoint.methods:
                return Match(endpoint, NO_NAMES, path)
            methods |= endpoint.methods
        for pattern, endpoint in self._patterns.get(kind, ()):
            found = pattern.fullmatch(path)
            if found is None:
                continue
            if method in endpoint.methods:
                names = found.groupdict()
                return Match(endpoint, names, _encoded(endpoint, names, path))
            methods |= endpoint.methods
        if methods:
            raise WrongMethod(methods)
        return None

    def list_priced(self, kind: str, priced_as: str) -> frozenset[str]:
        """List the catalog providers whose prices calls can need.

        Args:
            kind: Provider kind.
            priced_as: Catalog provider most of its models are priced as.

        Returns:
            That one and those of single addresses.
        """
        rows = [row for (one, _), each in self._plain.items() if one == kind for row in each]
        rows += [row for _, row in self._patterns.get(kind, ())]
        return frozenset({priced_as, *(row.priced_as.get(priced_as, priced_as) for row in rows)})

    def list_paths(self, kind: str) -> list[str]:
        """List what is metered of a provider kind.

        Args:
            kind: Provider kind.

        Returns:
            Paths with their names in braces, sorted.
        """
        plain = {path for one, path in self._plain if one == kind}
        return sorted(plain | {one.path for _, one in self._patterns.get(kind, ())})


def _to_pattern(path: str) -> str:
    """Write a path as a regular expression; a name takes as little as it can."""
    parts, at = [], 0
    for hole in _HOLE.finditer(path):
        parts.append(re.escape(path[at : hole.start()]))
        parts.append(f"(?P<{hole[1]}>.+)" if hole[2] else f"(?P<{hole[1]}>[^/]+?)")
        at = hole.end()
    return "".join([*parts, re.escape(path[at:])])


def _encoded(endpoint: Endpoint, names: Mapping[str, str], path: str) -> str:
    """Write a path as it is sent; the server has decoded what the client wrote."""
    if not endpoint.is_strict:
        return path if _PLAIN.fullmatch(path) else quote(path, safe=_SAFE + "/")

    def escape(hole: re.Match[str]) -> str:
        return quote(names[hole[1]], safe=_UNRESERVED)

    return _HOLE.sub(escape, endpoint.path)
