"""Settings shown to people: secrets masked, doubtful choices named.

Must never write a secret, not even its length.
"""

import re
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from gateway.settings_models import Settings

MASK: Final = "********"


def effective(settings: Settings) -> dict[str, Any]:
    """Show the settings with every secret masked.

    Args:
        settings: Any settings.

    Returns:
        Plain data for YAML or JSON, in the order of the contract.
    """
    shown: dict[str, Any] = _masked(settings.model_dump())
    shown["storage"]["database_url"] = _mask_password(settings.storage.database_url)
    match settings.storage.redis_url:
        case str(url):
            shown["storage"]["redis_url"] = _mask_password(url)
        case tuple(urls):
            shown["storage"]["redis_url"] = [_mask_password(url) for url in urls]
        case None:
            pass
    for name, provider in settings.providers.items():
        shown["providers"][name]["headers"] = dict.fromkeys(provider.headers, MASK)
    for row, receiver in zip(shown["alerts"], settings.alerts, strict=True):
        row["url"] = f"{receiver.shown_url}/{MASK}"
    return shown


def warnings_of(settings: Settings) -> tuple[str, ...]:
    """Name what is allowed but probably not meant.

    Args:
        settings: Any settings.

    Returns:
        One sentence each; empty when there is nothing to say.
    """
    found = []
    for receiver in settings.alerts:
        if receiver.secret is None and receiver.format == "json":
            found.append(
                f"alert receiver {receiver.id}: has no secret, so it cannot tell who a message is"
                " from"
            )
    for team in settings.teams:
        for project in team.projects:
            for key in project.keys:
                if len(key.secret.get_secret_value()) < 20:
                    found.append(
                        f"key {key.id}: its secret is short enough to guess; use 32 letters"
                    )
    return tuple(found)


def _masked(value: Any) -> Any:  # noqa: ANN401 - walks whatever pydantic dumped
    if isinstance(value, dict):
        return {key: _masked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path | StrEnum):
        return str(value)
    if isinstance(value, Decimal):
        return f"{value:f}"
    return MASK if isinstance(value, SecretStr) else value


def _mask_password(url: str) -> str:
    return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", rf"\1:{MASK}@", url)
