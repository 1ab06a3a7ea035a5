"""Who is calling: virtual keys looked up in memory, and which models each may reach.

Must never touch a database on the way of a request, and never keep a secret: only its SHA-256.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase, translate
from functools import lru_cache
from hashlib import sha256
from typing import Protocol

from pricing.agreements import Payer


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The owner of a virtual key, with everything a request inherits from it.

    Attributes:
        organization: Organisation id.
        team: Team id.
        project: Project id.
        key: Key id; never the secret.
        tags: Tags every call of this key carries, sorted by name: the team's, overlaid by the
            project's, overlaid by the key's.
        models: Glob patterns of what the key may call, matched against ``provider/model`` and
            against the bare model.
        expires_at: First instant the key no longer works; ``None`` for never.
    """

    organization: str
    team: str
    project: str
    key: str
    tags: Mapping[str, str]
    models: tuple[str, ...]
    expires_at: datetime | None

    @property
    def payer(self) -> Payer:
        """Whose negotiated prices its calls have."""
        return Payer(self.organization, self.team, self.project)


class KnownCallers(Protocol):
    """The part of a directory snapshot a lookup needs."""

    @property
    def callers(self) -> Mapping[bytes, Caller]:
        """Callers by the SHA-256 digest of their secret; revoked keys are absent."""
        ...


class Callers:
    """Every key that works, as of one snapshot of the directory."""

    def __init__(self, snapshot: KnownCallers) -> None:
        """Take over a snapshot.

        Args:
            snapshot: Read-only; make a new ``Callers`` when the directory changes.
        """
        self._callers = snapshot.callers

    def find(self, secret: str, at: datetime) -> Caller | None:
        """Find who holds a secret.

        Args:
            secret: As the request carried it.
            at: Aware instant of the request.

        Returns:
            The caller, or ``None`` for an unknown, revoked or expired key.
        """
        # Looking a digest up in a dict leaks no more by its timing than the digest itself, which
        # does not lead back to 256 random bits, so no constant-time comparison is needed here.
        caller = self._callers.get(secret_digest(secret))
        if caller is None or (caller.expires_at is not None and at >= caller.expires_at):
            return None
        return caller


def secret_digest(secret: str) -> bytes:
    """Hash a key's secret the way the directory stores it.

    Args:
        secret: Any text; what a client sent need not be valid Unicode.

    Returns:
        32 bytes. A fast hash is enough: secrets are 256 random bits, so there is nothing to guess.
    """
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()


def is_model_allowed(caller: Caller, provider: str, model: str) -> bool:
    """Tell whether a key may call a model.

    Args:
        caller: The owner of the key.
        provider: Provider id of the configuration.
        model: Model as requested, without the provider prefix.

    Returns:
        True when one of the key's patterns matches ``provider/model`` or the bare model. Case
        counts; ``*`` also spans slashes.
    """
    allowed = _compiled(caller.models)
    if allowed is None:
        return True
    return allowed.match(f"{provider}/{model}") is not None or allowed.match(model) is not None


def is_provider_allowed(caller: Caller, provider: str) -> bool:
    """Tell whether a key may call anything of a provider, for calls that name no model.

    Args:
        caller: The owner of the key.
        provider: Provider id of the configuration.

    Returns:
        True when one of the key's patterns can match a model of the provider.
    """
    return any(
        "/" not in pattern or fnmatchcase(provider, pattern.partition("/")[0])
        for pattern in caller.models
    )


@lru_cache(maxsize=4096)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str] | None:
    """One expression for all patterns; ``None`` when everything matches.

    ``translate`` writes atomic groups, so a pattern such as ``*a*a*a*b`` cannot backtrack for long.
    """
    if "*" in patterns:
        return None
    if not patterns:
        return re.compile(r"(?!)")
    return re.compile("|".join(map(translate, patterns)))
