"""From an address and a model name to a provider and a wire format.

Must never send a request whose usage nobody would count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from gateway.addresses import find_meant, say_unmetered
from gateway.refusals import InvalidRequest, ModelNotAllowed
from gateway.upstream import Upstream
from gateway.wire.endpoints import Match, WrongMethod
from gateway.wire.facts import NO_NAMES, Dialect, WireFormat
from gateway.wire.table import (
    DIALECTS,
    ENDPOINTS,
    OPENAI,
    OPENAI_DIALECT,
    OPENAI_PREFIXES,
    TRANSLATED,
)
from pricing.book import Book
from pricing.selfhosted import NO_FLEET, Fleet

# The surface every OpenAI SDK speaks; the model names the provider.
OPENAI_SURFACE: Final = "v1"
# Model names whose provider is remembered; a caller that invents names cannot fill memory.
NAMES_MAX: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One configured provider, ready to be called.

    Attributes:
        id: Its id in the configuration.
        kind: Its kind.
        base_url: Address without a slash at the end.
        priced_as: Catalog provider its models are priced as.
        auth: Header that carries the provider's credential; ``None`` when it needs none.
        headers: Further headers to send, names in lower case.
        upstream: Where requests are sent.
        region: Region class the address stands for; ``None`` where it does not change the price.
        drains: Whether an answer is read to its end after the client has left.
        deployments: Model behind a name that the provider's customer chose, as Azure has them.
        fleet: How many GPUs its models run on; counts only where time has a price.
        call_s_max: Longest a call may take where time has a price.
        project: Whose project Vertex bills, with its location, as in an address there.
    """

    id: str
    kind: str
    base_url: str
    priced_as: str
    auth: tuple[str, str] | None
    headers: tuple[tuple[str, str], ...]
    upstream: Upstream
    region: str | None
    drains: bool
    deployments: Mapping[str, str] = field(default_factory=dict)
    fleet: Fleet = NO_FLEET
    call_s_max: float = 600
    project: str | None = None

    def model_behind(self, name: str) -> str:
        """Find the model whose prices a name has.

        Args:
            name: Model or deployment, under the provider's own name.

        Returns:
            The model behind a deployment; any other name as it is.
        """
        return self.deployments.get(name, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """What an address alone tells.

    Attributes:
        provider: The provider, or ``None`` where the model decides.
        path: What is appended to the provider's base address; below ``/v1`` where
            the model decides.
        format: Wire format of the request.
        names: What the address names, such as the model.
    """

    provider: Provider | None
    path: str
    format: WireFormat
    names: Mapping[str, str] = field(default_factory=lambda: NO_NAMES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a call goes.

    Attributes:
        provider: Who serves it.
        model: The model under the provider's own name.
        path: What is appended to the provider's base address; below ``/v1`` where it is translated.
        format: Wire format there; that of the request where it is translated.
        is_translated: Whether the provider speaks another language.
    """

    provider: Provider
    model: str
    path: str
    format: WireFormat
    is_translated: bool = False


class Router:
    """Every address and model the gateway knows."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        """Take the configured providers.

        Args:
            providers: By id.
        """
        self.providers = providers
        self._kinds = {name: provider.kind for name, provider in providers.items()}
        self._surfaces: dict[tuple[str, str], Surface] = {}
        self._found: dict[tuple[str, str, str], Destination] = {}
        self._found_in: Book | None = None

    def is_data_plane(self, path: str) -> bool:
        """Tell whether an address belongs to the data plane.

        Args:
            path: Path of the request.

        Returns:
            True for ``/v1/...`` and for ``/<provider id>/...``.
        """
        first = path.split("/", 2)[1] if path.startswith("/") else ""
        return first == OPENAI_SURFACE or first in self.providers

    def find_dialect(self, method: str, path: str) -> Dialect:
        """Find in which words a refusal is understood.

        Args:
            method: HTTP method.
            path: Path of the request.

        Returns:
            That of the address; where it is none, that of the provider it names, else OpenAI's.
        """
        known = self._surfaces.get((method, path))
        if known is not None:
            return known.format
        try:
            # Not kept: whoever is refused before anything is known of it fills no memory.
            return self._read_surface(method, path).format
        except InvalidRequest:
            pass
        provider = self.providers.get(path.split("/", 2)[1] if path.startswith("/") else "")
        return OPENAI_DIALECT if provider is None else DIALECTS.get(provider.kind, OPENAI_DIALECT)

    def find_surface(self, method: str, path: str) -> Surface:
        """Find what an address alone tells.

        Args:
            method: HTTP method.
            path: Path of the request, percent-decoded.

        Returns:
            Wire format, and the provider where the address names one.

        Raises:
            InvalidRequest: An address that is not metered (404), or not with this method (405).
        """
        surface = self._surfaces.get((method, path))
        if surface is None:
            surface = self._read_surface(method, path)
            if len(self._surfaces) >= NAMES_MAX:
                self._surfaces.clear()
            self._surfaces[method, path] = surface
        return surface

    def find_destination(self, surface: Surface, method: str, name: str, book: Book) -> Destination:
        """Find who serves a model, and where.

        Args:
            surface: What the address told.
            method: HTTP method.
            name: Model as the client named it: ``provider/model``, or a bare name; empty where the
                call has none.
            book: Prices, which also tell which provider serves a bare model name.

        Returns:
            The provider, the model under the provider's own name, and the address there.

        Raises:
            ModelNotAllowed: No provider is configured, or none speaks this wire format.
            InvalidRequest: Several providers serve the name and nothing says which is meant.
        """
        if surface.provider is not None:
            return Destination(
                provider=surface.provider, model=name, path=surface.path, format=surface.format
            )
        if book is not self._found_in:
            self._found, self._found_in = {}, book
        key = (method, surface.path, name)
        found = self._found.get(key)
        if found is None:
            found = self._look_up(surface, method, name, book)
            if len(self._found) < NAMES_MAX:
                self._found[key] = found
        return found

    def find_fallback(
        self, surface: Surface, request: tuple[str, str], name: str, book: Book
    ) -> tuple[Destination, Surface]:
        """Find who serves another model than the one a request names, and where.

        Args:
            surface: What the address told.
            request: HTTP method and path of the request.
            name: The other model, as ``provider/model``.
            book: Prices, as for ``find_destination``.

        Returns:
            Where the call goes, and what the address would have told had it named that model.

        Raises:
            ModelNotAllowed: It cannot be reached from there: a provider's own address leads to
                models of that provider alone.
            InvalidRequest: As ``find_destination``.
        """
        method, path = request
        if surface.provider is None:
            return self.find_destination(surface, method, name, book), surface
        provider, _, model = name.partition("/")
        if provider != surface.provider.id:
            raise ModelNotAllowed(name, f"it is not one of provider {surface.provider.id!r}")
        other = self._with_model(surface, method, path, model)
        return (
            Destination(
                provider=surface.provider, model=model, path=other.path, format=other.format
            ),
            other,
        )

    def _with_model(self, surface: Surface, method: str, path: str, model: str) -> Surface:
        """What an address tells with another model in it; the same where the body names it."""
        if not surface.names:
            return surface
        place = next((one for one in ("model", "deployment") if one in surface.names), "")
        named = surface.names.get(place)
        if named is not None and path.count(f"/{named}") == 1:
            other = self.find_surface(method, path.replace(f"/{named}", f"/{model}"))
            if other.names.get(place) == model and other.format is surface.format:
                return other
        raise ModelNotAllowed(model, "the address cannot name it instead")

    def _look_up(self, surface: Surface, method: str, name: str, book: Book) -> Destination:
        prefix, slash, model = name.partition("/")
        if slash and prefix in self.providers:
            provider = self.providers[prefix]
            match = _find_on_openai_surface(provider, method, surface.path)
            if match is not None:
                return _destination(provider, model, match)
            if _can_translate(provider, method, surface.path):
                return _translated(provider, model, surface)
            raise ModelNotAllowed(
                name,
                f"provider {provider.id!r} ({provider.kind}) has no {surface.path} in OpenAI's API "
                "and this version does not translate it",
            )
        speakers: list[tuple[Provider, Match | None]] = [
            (provider, match)
            for provider in self.providers.values()
            if (match := _find_on_openai_surface(provider, method, surface.path)) is not None
        ]
        able = speakers + [
            (p, None) for p in self.providers.values() if _can_translate(p, method, surface.path)
        ]
        serving = [
            one
            for one in able
            if name and book.find_model(one[0].priced_as, one[0].model_behind(name))
        ]
        # A name the operator gave comes first, then the maker of a model before its resellers.
        chosen = (
            [one for one in serving if name in one[0].deployments]
            or [one for one in serving if one[0].kind == one[0].priced_as]
            or serving
            or speakers
            or able
        )
        if len(chosen) > 1:
            raise InvalidRequest(self._say_several(name, [p.id for p, _ in chosen], serving))
        if not chosen:
            known = ", ".join(self.providers) or "none is configured"
            raise ModelNotAllowed(
                name, f"no configured provider speaks this API (providers: {known})"
            )
        provider, match = chosen[0]
        if match is None:
            return _translated(provider, name, surface)
        return _destination(provider, name, match)

    def _say_several(self, name: str, ids: list[str], serving: Sequence[object]) -> str:
        prefix, slash, model = name.partition("/")
        if slash and not serving:
            known = ", ".join(self.providers)
            return (
                f"no provider here has the id {prefix!r} and none has a price for {name!r}: "
                f"write PROVIDER/{model} with one of {known}"
            )
        choices = " or ".join(f"{id_}/{name}" if name else f"/{id_}" for id_ in ids)
        what = repr(name) if name else "it: the address decides"
        return f"several providers could serve {what}: say {choices}"

    def models(self, book: Book, at: datetime) -> list[tuple[Provider, str]]:
        """List every priced model a provider serves.

        Args:
            book: The prices.
            at: Aware instant the prices must hold at.

        Returns:
            Provider and catalog model, in order of the configuration.
        """
        return [
            (provider, entry.model)
            for provider in self.providers.values()
            for entry in book.models
            if entry.provider == provider.priced_as
            and book.find_card(entry.provider, entry.model, at)
        ]

    def _read_surface(self, method: str, path: str) -> Surface:
        _, first, rest = path.split("/", 2) if path.count("/") > 1 else ("", path[1:], "")
        provider = self.providers.get(first)
        kind = OPENAI if provider is None else provider.kind
        rest = _without_version("/" + rest, provider)
        try:
            match = ENDPOINTS.find(kind, method, rest)
        except WrongMethod as wrong:
            said = f"{path} takes {' or '.join(wrong.methods)}, not {method}"
            meant = find_meant(ENDPOINTS, self._kinds, kind, method, path)
            if meant is not None:
                said += f"; {method} {meant} is metered"
            raise InvalidRequest(said, status=405) from None
        if match is None:
            raise InvalidRequest(
                say_unmetered(ENDPOINTS, self._kinds, kind, method, path), status=404
            )
        return Surface(
            provider=None if provider is None else _priced(provider, match),
            path=rest if provider is None else match.path,
            format=match.endpoint.format,
            names=match.names,
        )


def _without_version(path: str, provider: Provider | None) -> str:
    """Take from a path what the provider's base address ends with as well, such as the version."""
    if provider is None:
        return path
    parts = urlsplit(provider.base_url).path.strip("/").split("/")
    for first in range(len(parts)):
        ending = "/" + "/".join(parts[first:])
        if len(ending) > 1 and path.startswith(ending + "/"):
            return path[len(ending) :]
    return path


def _find_on_openai_surface(provider: Provider, method: str, path: str) -> Match | None:
    """Find where a provider has an address of OpenAI's API."""
    prefix = OPENAI_PREFIXES.get(provider.kind)
    if prefix is None:
        return None
    try:
        return ENDPOINTS.find(provider.kind, method, _without_version(prefix + path, provider))
    except WrongMethod:
        return None


def _can_translate(provider: Provider, method: str, path: str) -> bool:
    """Tell whether a call is translated; the handshake of a session, which is a GET, never is."""
    return (
        method == "POST"
        and (provider.kind, path) in TRANSLATED
        and (provider.kind != "vertex" or provider.project is not None)
    )


def _translated(provider: Provider, model: str, surface: Surface) -> Destination:
    return Destination(
        provider=provider,
        model=model,
        path=surface.path,
        format=surface.format,
        is_translated=True,
    )


def _destination(provider: Provider, model: str, match: Match) -> Destination:
    return Destination(
        provider=_priced(provider, match),
        model=model,
        path=match.path,
        format=match.endpoint.format,
    )


def _priced(provider: Provider, match: Match) -> Provider:
    """The provider with the prices of what is behind an address."""
    priced_as = match.endpoint.priced_as.get(provider.priced_as, provider.priced_as)
    return provider if priced_as == provider.priced_as else replace(provider, priced_as=priced_as)
