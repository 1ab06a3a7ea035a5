"""What to say of an address that is not metered: where what was meant most likely is.

Must never forward anything, nor name more than the providers, which ``GET /`` lists as well.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Final

from gateway.wire.endpoints import EndpointTable, WrongMethod

# A longer address is not compared with those that are metered: that takes longer the longer it is.
COMPARED_MAX: Final = 120
# How alike a mistyped address must be to be taken for one, of 1.
_ALIKE: Final = 0.8
_VERSIONS: Final = ("/v1", "/v1beta", "/api", "")
# Segments that a base URL has too many of, beside the providers' ids.
_PREFIXES: Final = frozenset({"api", "openai", "v1", "v1beta", "v2"})


def say_unmetered(
    table: EndpointTable, kinds: Mapping[str, str], kind: str, method: str, path: str
) -> str:
    """Say that an address is not metered, and which one may have been meant.

    Args:
        table: What is metered.
        kinds: Kind of each configured provider, by its id.
        kind: Kind of provider the first segment of the address stands for.
        method: HTTP method.
        path: Path of the request, percent-decoded.

    Returns:
        One sentence for the caller.
    """
    said = f"{path} is not metered by this version, so it is not forwarded; "
    meant = find_meant(table, kinds, kind, method, path)
    if meant is not None:
        return f"{said}{method} {meant} is: change the base URL so that the client asks for it"
    first = path.split("/", 2)[1]
    metered = _shortest(table.list_paths(kind))
    offer = f"it meters {', '.join(metered)}" if metered else "none of its paths is metered"
    return f"{said}under /{first} {offer}"


def find_meant(
    table: EndpointTable, kinds: Mapping[str, str], kind: str, method: str, path: str
) -> str | None:
    """Find the metered address that a wrong one most likely stands for.

    Args:
        table: What is metered.
        kinds: Kind of each configured provider, by its id.
        kind: Kind of provider the first segment of the address stands for.
        method: HTTP method.
        path: Path of the request, percent-decoded.

    Returns:
        An address of this gateway; ``None`` when none comes near.
    """
    if len(path) > COMPARED_MAX:
        return None
    first, *parts = [part for part in path.split("/") if part]
    # A slash too many, or a version that both the base URL and the SDK wrote.
    endings = list(_endings(parts, kinds))
    for rest in endings:
        if f"/{first}{rest}" != path and _is_metered(table, kind, method, rest):
            return f"/{first}{rest}"
    # Another provider's own API below the surface of OpenAI's, or below the wrong provider.
    for name, other in kinds.items():
        for rest in endings:
            for version in _VERSIONS:
                if name != first and _is_metered(table, other, method, version + rest):
                    return f"/{name}{version}{rest}"
    near = get_close_matches("/" + "/".join(parts), table.list_paths(kind), n=1, cutoff=_ALIKE)
    return f"/{first}{near[0]}" if near and _is_metered(table, kind, method, near[0]) else None


def _endings(parts: list[str], kinds: Mapping[str, str]) -> Iterator[str]:
    """The address, and what is left of it without what a base URL may have had too many of."""
    for start in range(len(parts)):
        yield "/" + "/".join(parts[start:])
        if parts[start] not in _PREFIXES and parts[start] not in kinds:
            return


def _is_metered(table: EndpointTable, kind: str, method: str, path: str) -> bool:
    try:
        return table.find(kind, method, path) is not None
    except WrongMethod:
        return False


def _shortest(paths: list[str]) -> list[str]:
    """Leave out what differs from another address by its version alone."""
    known = set(paths)
    return [one for one in paths if not (one.startswith("/v1/") and one[3:] in known)]
