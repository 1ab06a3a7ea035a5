"""The shape of the settings about alerts: who is told, of what, and how.

Must never show the address of a receiver: for many of them it is the secret.
"""

from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
)

from gateway.budgets.alerting import AlertKind
from gateway.budgets.rules import check_scope
from gateway.settings_costs import Id

TIMEOUT_S_MAX: Final = 60
_SECRET_CHARS_MIN: Final = 16


def _checked_url(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError("the address cannot be read") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("write an address such as https://hooks.example.com/taximeter")
    if parts.username is not None:
        raise ValueError("an address cannot hold a user name; a receiver is told by a secret")
    if "#" in text:
        raise ValueError("nothing after # is ever sent; leave it out")
    if any(c.isspace() for c in text) or not text.isascii():
        raise ValueError("an address is ASCII without spaces")
    return url


def _checked_secret(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if len(text) < _SECRET_CHARS_MIN or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(
            f"a secret is {_SECRET_CHARS_MIN} or more characters of printable ASCII without spaces"
        )
    return secret


def _not_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("write a number, not true or false")  # noqa: TRY004 - pydantic wants it
    return value


class AlertReceiverSettings(BaseModel):
    """Somebody who is told what budgets have to say.

    Attributes:
        id: Unique among the receivers; deliveries are kept under it.
        url: Where messages are posted.
        secret: Signs them; ``None`` leaves them unsigned.
        format: ``json`` for programs, ``slack`` for incoming webhooks of Slack and the like.
        on: What is told.
        budgets: Patterns of budget ids.
        scope: Parts a budget's scope must have.
        timeout_s: Longest wait for an answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Id
    url: Annotated[SecretStr, AfterValidator(_checked_url)]
    secret: Annotated[SecretStr, AfterValidator(_checked_secret)] | None = None
    format: Literal["json", "slack"] = "json"
    on: tuple[AlertKind, ...] = tuple(AlertKind)
    budgets: tuple[str, ...] = ("*",)
    scope: dict[str, str] = {}
    timeout_s: Annotated[float, BeforeValidator(_not_bool)] = Field(
        default=10, gt=0, le=TIMEOUT_S_MAX
    )

    @field_validator("on", "budgets")
    @classmethod
    def _some(cls, listed: tuple[str, ...]) -> tuple[str, ...]:
        if not listed:
            raise ValueError("it would never be told anything; leave it out for everything")
        return listed

    @field_validator("scope")
    @classmethod
    def _known_scope(cls, scope: dict[str, str]) -> dict[str, str]:
        check_scope(scope)
        return scope

    @property
    def shown_url(self) -> str:
        """Scheme and host of the address: as much as may be shown."""
        parts = urlsplit(self.url.get_secret_value())
        return f"{parts.scheme}://{parts.netloc}"
