"""From an address and a model name to a provider and a wire format.

Must never send a request whose usage nobody would count.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final

from gateway.refusals import InvalidRequest, ModelNotAllowed
from gateway.upstream import Upstream
from gateway.wire.facts import WireFormat
from gateway.wire.openai_chat import OpenAIChat
from pricing.book import Book
from pricing.selfhosted import NO_FLEET, Fleet

# The surface every OpenAI SDK speaks; the model names the provider.
OPENAI_SURFACE: Final = "v1"
# Model names whose provider is remembered; a caller that invents names cannot fill memory.
NAMES_MAX: Final = 4096

# Kinds whose own API is the OpenAI shape, read by the same reader without exceptions.
_OPENAI_SHAPED: Final = frozenset({"openai", "vllm", "demo"})
_OPENAI_CHAT: Final = OpenAIChat()
_FORMATS: Final[Mapping[tuple[str, str], WireFormat]] = MappingProxyType(
    {(kind, "/chat/completions"): _OPENAI_CHAT for kind in _OPENAI_SHAPED}
)


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
        path: What is appended to the provider's base address.
        format: Wire format of the request.
    """

    provider: Provider | None
    path: str
    format: WireFormat


class Router:
    """Every address and model the gateway knows."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        """Take the configured providers.

        Args:
            providers: By id.
        """
        self.providers = providers
        self._surfaces: dict[str, Surface] = {}
        self._found: dict[tuple[str, str], tuple[Provider, str]] = {}
        self._found_in: Book | None = None

    def is_data_plane(self, path: str) -> bool:
        """Tell whether an address belongs to the data plane.

        Args:
            path: Path of the request.

        Returns:
            True for ``/v1/...`` and for ``/<provider id>/...``.
        """
        if path in self._surfaces:
            return True
        first = path.split("/", 2)[1] if path.startswith("/") else ""
        return first == OPENAI_SURFACE or first in self.providers

    def find_surface(self, method: str, path: str) -> Surface:
        """Find what an address alone tells.

        Args:
            method: HTTP method.
            path: Path of the request.

        Returns:
            Wire format, and the provider where the address names one.

        Raises:
            InvalidRequest: An address that is not metered (404), or not with this method (405).
        """
        surface = self._surfaces.get(path)
        if surface is None:
            surface = self._read_surface(path)
            self._surfaces[path] = surface
        if method != "POST":
            raise InvalidRequest(f"{path} takes POST, not {method}", status=405)
        return surface

    def find_provider(self, surface: Surface, name: str, book: Book) -> tuple[Provider, str]:
        """Find who serves a model.

        Args:
            surface: What the address told.
            name: Model as the client named it: ``provider/model``, or a bare name.
            book: Prices, which also tell which provider serves a bare model name.

        Returns:
            The provider, and the model under the provider's own name.

        Raises:
            ModelNotAllowed: No provider is configured, or none speaks this wire format.
            InvalidRequest: Several providers serve the name and nothing says which is meant.
        """
        if surface.provider is not None:
            return surface.provider, name
        if book is not self._found_in:
            self._found, self._found_in = {}, book
        found = self._found.get((surface.path, name))
        if found is None:
            found = self._look_up(surface, name, book)
            if len(self._found) < NAMES_MAX:
                self._found[surface.path, name] = found
        return found

    def _look_up(self, surface: Surface, name: str, book: Book) -> tuple[Provider, str]:
        prefix, slash, model = name.partition("/")
        if slash and prefix in self.providers:
            return self._speaking(surface, self.providers[prefix], name), model
        speakers = [p for p in self.providers.values() if (p.kind, surface.path) in _FORMATS]
        serving = [
            p for p in speakers if book.find_model(p.priced_as, p.model_behind(name))
        ] or speakers
        if len(serving) > 1:
            choices = " or ".join(f"{p.id}/{name}" for p in serving)
            raise InvalidRequest(f"several providers could serve {name!r}: say {choices}")
        if not serving:
            known = ", ".join(self.providers) or "none is configured"
            raise ModelNotAllowed(
                name, f"no configured provider speaks this API (providers: {known})"
            )
        return serving[0], name

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

    def _read_surface(self, path: str) -> Surface:
        _, first, rest = path.split("/", 2) if path.count("/") > 1 else ("", path[1:], "")
        rest = "/" + rest
        provider = self.providers.get(first)
        kind = "openai" if provider is None else provider.kind
        wire = _FORMATS.get((kind, rest))
        if wire is None:
            metered = sorted(p for k, p in _FORMATS if k == kind)
            offer = f"it meters {', '.join(metered)}" if metered else "none of its paths is metered"
            raise InvalidRequest(
                f"{path} is not metered by this version, so it is not forwarded; "
                f"under /{first} {offer}",
                status=404,
            )
        return Surface(provider=provider, path=rest, format=wire)

    def _speaking(self, surface: Surface, provider: Provider, name: str) -> Provider:
        if (provider.kind, surface.path) not in _FORMATS:
            raise ModelNotAllowed(
                name,
                f"provider {provider.id!r} ({provider.kind}) does not speak the OpenAI chat API "
                "and this version does not translate",
            )
        return provider
