"""The shape of the settings: one frozen class per section, with its defaults and its own rules.

Must never look beyond one value and its neighbours; ``gateway.settings_checks`` does.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from gateway.budgets.actions import parse_actions
from gateway.budgets.rules import (
    PARTS,
    Mode,
    OnStoreDown,
    budget_from_config,
    check_scope,
    parse_limit,
)
from gateway.budgets.windows import parse_anchor, parse_window
from gateway.directory_model import tags_problem
from gateway.settings_alerts import AlertReceiverSettings
from gateway.settings_costs import (
    CommitmentSettings,
    Id,
    SelfHostedSettings,
    SharedCostSettings,
    Zone,
)
from gateway.settings_otlp import OtlpSettings
from gateway.settings_sources import suggest

ProviderKind = Literal[
    "openai",
    "azure",
    "anthropic",
    "gemini",
    "vertex",
    "bedrock",
    "cohere",
    "mistral",
    "deepseek",
    "xai",
    "groq",
    "together",
    "fireworks",
    "openrouter",
    "perplexity",
    "vllm",
    "ollama",
    "demo",
]

# The address each kind has when the file names none; `{region}` is the provider's region.
# As the providers' API references give them. Azure has none: every resource has its own host.
BASE_URLS: Final[Mapping[str, str]] = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com",
    "vertex": "https://{region}-aiplatform.googleapis.com",
    "bedrock": "https://bedrock-runtime.{region}.amazonaws.com",
    "cohere": "https://api.cohere.com",
    "mistral": "https://api.mistral.ai/v1",
    "deepseek": "https://api.deepseek.com",
    "xai": "https://api.x.ai/v1",
    "groq": "https://api.groq.com/openai/v1",
    "together": "https://api.together.xyz/v1",
    "fireworks": "https://api.fireworks.ai/inference/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "perplexity": "https://api.perplexity.ai",
    "vllm": "http://127.0.0.1:8000/v1",
    "ollama": "http://127.0.0.1:11434",
}

# Kinds whose models stand in the catalog under another provider's name.
PRICED_AS: Final[Mapping[str, str]] = {"azure": "openai"}

# Kinds whose customers choose names that do not tell the model.
HAS_DEPLOYMENTS: Final = frozenset({"azure", "bedrock", "mistral"})

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def _checked_port(url: str) -> None:
    try:
        _ = urlsplit(url).port
    except ValueError as broken:
        raise ValueError(f"the address cannot be read: {broken}") from None


def _checked_http_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as broken:
        raise ValueError(f"the address cannot be read: {broken}") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("write an address such as https://api.example.com/v1")
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ValueError("the path of a call is appended to it, so it cannot hold ? or #")
    if parts.username is not None:
        raise ValueError("put the credential into api_key or headers, not into the address")
    if any(c.isspace() for c in url) or not url.isascii():
        raise ValueError("an address is ASCII without spaces")
    return url.rstrip("/")


def _checked_tags(tags: dict[str, str]) -> dict[str, str]:
    problem = tags_problem(tags)
    if problem is not None:
        raise ValueError(problem)
    return tags


def _checked_token(token: SecretStr) -> SecretStr:
    text = token.get_secret_value()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("a secret is printable ASCII without spaces, and not empty")
    return token


def _not_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("write a number, not true or false")  # noqa: TRY004 - pydantic wants it
    return value


Count = Annotated[int, BeforeValidator(_not_bool)]
Tags = Annotated[dict[str, str], AfterValidator(_checked_tags)]
Token = Annotated[SecretStr, AfterValidator(_checked_token)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Named(_Part):
    @model_validator(mode="before")
    @classmethod
    def _name_from_id(cls, values: object) -> object:
        return {"name": values.get("id"), **values} if isinstance(values, dict) else values


class ServerSettings(_Part):
    """The HTTP server.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 lets the system choose.
        workers: Processes; more than one share their budgets over ``storage.redis_url``.
        stop_s: How long open calls may take to end after a SIGTERM.
        retire_s: How long they may in a worker that a SIGHUP has replaced.
        body_bytes_max: Largest request body.
        scheduling: ``batch`` for the most calls a core, ``normal`` where other programs share it.
        admin_token: Opens ``/api/v1``; ``None`` when neither the settings nor
            ``TAXIMETER_ADMIN_TOKEN`` give one.
        metrics_token: Opens ``/metrics``; ``None`` leaves it open.
        metrics_label_sets_max: Label sets that a worker counts apart; what comes after them is
            counted under ``other``.
    """

    host: str = Field(default="127.0.0.1", min_length=1)
    port: Count = Field(default=8080, ge=0, le=65_535)
    workers: Count = Field(default=1, ge=1, le=256)
    stop_s: Count = Field(default=20, ge=0, le=86_400)
    retire_s: Count = Field(default=600, ge=0, le=86_400)
    body_bytes_max: Count = Field(default=33_554_432, ge=1)
    scheduling: Literal["batch", "normal"] = "batch"
    admin_token: Token | None = None
    metrics_token: Token | None = None
    metrics_label_sets_max: Count = Field(default=2_000, ge=1, le=1_000_000)


class StorageSettings(_Part):
    """Where the ledger and the journal are.

    Attributes:
        database_url: ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or ``postgresql://...``.
        journal_dir: Folder of the journal; relative to the working directory.
        fsync: ``normal`` survives a killed process, ``full`` a power cut too.
        redis_url: Where gateways that share budgets agree; one address or, for a cluster, several.
            Several workers need it.
    """

    database_url: str = "sqlite:///data/taximeter.db"
    journal_dir: Path = Path("data/journal")
    fsync: Literal["normal", "full"] = "normal"
    redis_url: str | tuple[str, ...] | None = None

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, url: str) -> str:
        if url.startswith("sqlite:///"):
            if url in {"sqlite:///", "sqlite:///:memory:"}:
                raise ValueError("the ledger needs a file: sqlite:///data/taximeter.db")
            return url
        if url.startswith("postgresql://"):
            _checked_port(url)
            return url
        raise ValueError(
            "write sqlite:///relative.db, sqlite:////absolute.db or "
            "postgresql://user:password@host:port/database"
        )

    @field_validator("journal_dir")
    @classmethod
    def _named_dir(cls, folder: Path) -> Path:
        if "\0" in str(folder):
            raise ValueError("a folder name cannot hold a NUL character")
        return folder

    @field_validator("redis_url", mode="plain")
    @classmethod
    def _redis_urls(cls, urls: object) -> str | tuple[str, ...] | None:
        if urls is None:
            return None
        # An environment variable holds one text; a comma parts the members of a cluster.
        parts = urls.split(",") if isinstance(urls, str) else urls
        if not isinstance(parts, list | tuple) or not parts:
            raise ValueError("write one Redis address, or a list of them for a cluster")
        for url in parts:
            if not isinstance(url, str) or not url.startswith(("redis://", "rediss://", "unix://")):
                raise ValueError("a Redis address starts with redis://, rediss:// or unix://")
            _checked_port(url)
        return parts[0] if isinstance(urls, str) and len(parts) == 1 else tuple(parts)


class MeteringSettings(_Part):
    """What metering does when things are not plain.

    Attributes:
        durability: ``commit`` holds a response's last byte until its settlement is journalled.
        on_client_disconnect: What happens to the upstream call when the client leaves.
        drains_max: Answers read to their end at once for clients that have left.
        missing_usage: What happens when a provider sends no usage.
        unpriced: What happens to a model without a price.
        user_input_tokens: Whether to count the tokens of user-role text: ``true``, ``false``, or
            the share of calls to count, between 0 and 1.
        output_cap_min: Smallest limit that is written into a request so that it fits a budget.
        output_cap_max: Largest one, where the model's own maximum is not known.
    """

    durability: Literal["commit", "async"] = "commit"
    on_client_disconnect: Literal["auto", "drain", "cancel"] = "auto"
    drains_max: Annotated[int, Field(ge=0)] = 256
    missing_usage: Literal["estimate", "fail"] = "estimate"
    unpriced: Literal["block", "allow"] = "block"
    user_input_tokens: bool | Annotated[float, Field(ge=0, le=1)] = True
    output_cap_min: Count = Field(default=16, ge=1)
    output_cap_max: Count = Field(default=8192, ge=1)


class ProviderSettings(_Part):
    """One upstream.

    Attributes:
        kind: Whose API it speaks.
        base_url: Where it is, without a trailing slash; ``None`` only for the built-in ``demo``.
        api_key: The provider's credential; ``None`` where none is needed.
        headers: Sent with every call.
        timeout_s: Longest silence from the provider.
        priced_as: The catalog provider its models are priced as; the kind's own unless given. In
            a file ``null`` means: under the provider's own id.
        region: Cloud region.
        deployments: Azure deployment name, Bedrock inference profile, or id of one of Mistral's
            agents, to model.
        aws_access_key_id: For Bedrock, with ``aws_secret_access_key``; what the AWS SDKs would find
            unless given.
        aws_secret_access_key: Likewise.
        aws_session_token: Likewise, for temporary credentials.
        project: Google Cloud project, for calls that are translated to Vertex.
    """

    kind: ProviderKind
    base_url: str | None = None
    api_key: Token | None = None
    headers: dict[str, str] = {}
    timeout_s: Annotated[float, BeforeValidator(_not_bool)] = Field(default=600, gt=0, le=86_400)
    priced_as: str = ""
    region: str | None = None
    deployments: dict[str, str] = {}
    aws_access_key_id: Token | None = None
    aws_secret_access_key: Token | None = None
    aws_session_token: Token | None = None
    project: Annotated[str, Field(pattern=r"^[a-z0-9:.-]{1,64}$")] | None = None

    @field_validator("base_url")
    @classmethod
    def _http_url(cls, url: str | None) -> str | None:
        return None if url is None else _checked_http_url(url)

    @field_validator("region")
    @classmethod
    def _region_name(cls, region: str | None) -> str | None:
        # It becomes a part of a host name, so it must not be able to change which host that is.
        if region is not None and not re.fullmatch(r"[a-z0-9-]{1,32}", region):
            raise ValueError(f"{region!r} is not a region name such as us-east-1")
        return region

    @field_validator("headers")
    @classmethod
    def _sendable(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a header name")
            if not value.isascii() or not value.isprintable():
                raise ValueError(f"the value of {name} is not printable ASCII")
        return headers

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, values: object) -> object:
        """Fill in what follows from the kind, so that nobody has to ask twice."""
        if not isinstance(values, dict) or not isinstance(values.get("kind"), str):
            return values
        kind = values["kind"]
        filled = {"priced_as": PRICED_AS.get(kind, kind), **values}
        if values.get("base_url") is None and kind in BASE_URLS:
            url = BASE_URLS[kind]
            region = values.get("region")
            if "{region}" not in url or isinstance(region, str):
                filled["base_url"] = url.replace("{region}", str(region))
        return filled

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.base_url is None and self.kind == "azure":
            raise ValueError("needs base_url, such as https://NAME.openai.azure.com")
        if self.base_url is None and self.kind != "demo":
            raise ValueError(f"needs a region (or a base_url): kind {self.kind} has one per region")
        if self.deployments and self.kind not in HAS_DEPLOYMENTS:
            kinds = ", ".join(sorted(HAS_DEPLOYMENTS))
            raise ValueError(f"deployments are for the kinds {kinds}, this is kind {self.kind}")
        return self

    @model_validator(mode="after")
    def _signable(self) -> Self:
        pair = (self.aws_access_key_id, self.aws_secret_access_key)
        if self.kind != "bedrock":
            if any((*pair, self.aws_session_token)):
                raise ValueError(f"AWS credentials are for kind bedrock, this is kind {self.kind}")
            return self
        if (pair[0] is None) != (pair[1] is None) or (self.aws_session_token and pair[0] is None):
            raise ValueError("needs both aws_access_key_id and aws_secret_access_key")
        if self.api_key is not None and pair[0] is not None:
            raise ValueError("has api_key and aws_access_key_id: keep the one to use")
        if self.api_key is None and self.region is None:
            raise ValueError("needs a region: without api_key its requests are signed for one")
        return self


class KeySettings(_Part):
    """A virtual key.

    Attributes:
        id: Its public name.
        secret: What the application sends.
        models: Patterns of the models it may call, matched against ``provider/model`` and
            ``model``.
        tags: Tags of its calls.
        expires_at: When it stops working; ``None`` for never.
    """

    id: Id
    secret: Token
    models: tuple[str, ...] = ("*",)
    tags: Tags = {}
    expires_at: AwareDatetime | None = None


class ProjectSettings(_Named):
    """A project of a team.

    Attributes:
        id: Unique among all projects.
        name: For people; the id unless given.
        tags: Tags of its calls.
        keys: Its keys.
    """

    id: Id
    name: str = ""
    tags: Tags = {}
    keys: tuple[KeySettings, ...] = ()


class TeamSettings(_Named):
    """A team.

    Attributes:
        id: Unique among all teams.
        name: For people; the id unless given.
        tags: Tags of its calls.
        projects: Its projects.
    """

    id: Id
    name: str = ""
    tags: Tags = {}
    projects: tuple[ProjectSettings, ...] = ()


class BudgetSettings(_Part):
    """A budget as written; ``gateway.budgets.rules`` gives it meaning.

    Attributes:
        id: Unique among all budgets.
        scope: Scope key to wanted value; all must match, none matches every call.
        limit: Such as ``500 USD``, ``2000000 tokens`` or ``100 requests``.
        window: Such as ``month`` or ``rolling:3600``.
        timezone: IANA zone in which windows start.
        mode: ``hard``, ``soft`` or ``observe``.
        thresholds: Percentages of the limit that raise an alert.
        actions: What it does beside refusing, such as ``fallback:openai/gpt-5-mini``.
        on_store_down: Whether calls go on where the Redis that workers share cannot be asked.
        anchor: Where windows begin, such as ``2026-01-31T09:00:00``.
        rollover: Whether a window takes over what the one before left, or the most it takes over.
        valid_from: First instant whose calls count.
        valid_to: First instant whose calls count no longer.
    """

    id: Id
    scope: dict[str, str] = {}
    limit: str
    window: str
    timezone: Zone = "UTC"
    mode: Mode = Mode.HARD
    thresholds: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = ()
    actions: tuple[str, ...] = ()
    on_store_down: OnStoreDown | None = None
    anchor: str | None = None
    rollover: bool | str = False
    valid_from: AwareDatetime | None = None
    valid_to: AwareDatetime | None = None

    @field_validator("scope")
    @classmethod
    def _known_scope(cls, scope: dict[str, str]) -> dict[str, str]:
        for part in scope:
            if part not in PARTS and not part.startswith("tag."):
                hint = suggest(part, [*PARTS, "tag.<name>"])
                raise ValueError(f"unknown scope key {part!r}{hint}")
        check_scope(scope)
        return scope

    @field_validator("limit")
    @classmethod
    def _readable_limit(cls, text: str) -> str:
        parse_limit(text)
        return text

    @field_validator("window")
    @classmethod
    def _readable_window(cls, text: str) -> str:
        parse_window(text, "UTC")
        return text

    @model_validator(mode="after")
    def _readable_actions(self) -> Self:
        parse_actions(self.actions, self.mode.value, parse_window(self.window, "UTC"))
        return self

    @field_validator("anchor")
    @classmethod
    def _readable_anchor(cls, text: str | None) -> str | None:
        if text is not None:
            parse_anchor(text)
        return text

    @model_validator(mode="after")
    def _sound_together(self) -> Self:
        budget_from_config(
            {
                "id": self.id,
                "scope": self.scope,
                "limit": self.limit,
                "window": self.window,
                "timezone": self.timezone,
                "anchor": self.anchor,
                "rollover": self.rollover,
                "valid_from": self.valid_from,
                "valid_to": self.valid_to,
            }
        )
        return self


class TagRule(_Part):
    """What a tag must be.

    Attributes:
        required: Whether every call must carry it.
        values: The values allowed; ``None`` for any.
        on_violation: Whether a call that breaks the rule is refused or only flagged.
    """

    required: bool = False
    values: tuple[str, ...] | None = Field(default=None, min_length=1)
    on_violation: Literal["reject", "warn"] = "reject"


class Settings(_Part):
    """Everything that can be set.

    Attributes:
        server: The HTTP server.
        storage: Where the ledger and the journal are.
        metering: What metering does when things are not plain.
        providers: Upstreams by id; empty means the built-in ``demo`` answers.
        organization: Id of the organisation.
        teams: Teams with their projects and keys, read-only at run time.
        budgets: Budgets, read-only at run time.
        alerts: Who is told of budgets.
        otlp: Where spans and metrics of calls are sent.
        tag_policy: Rules by tag name.
        commitments: What was paid for in advance.
        shared_costs: Fixed costs that several bear.
        self_hosted: Models on GPUs of one's own.
    """

    server: ServerSettings = ServerSettings()
    storage: StorageSettings = StorageSettings()
    metering: MeteringSettings = MeteringSettings()
    providers: dict[str, ProviderSettings] = {}
    organization: Id = "default"
    teams: tuple[TeamSettings, ...] = ()
    budgets: tuple[BudgetSettings, ...] = ()
    alerts: tuple[AlertReceiverSettings, ...] = ()
    otlp: OtlpSettings = OtlpSettings()
    tag_policy: dict[str, TagRule] = {}
    commitments: tuple[CommitmentSettings, ...] = ()
    shared_costs: tuple[SharedCostSettings, ...] = ()
    self_hosted: tuple[SelfHostedSettings, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _own_prices(cls, values: object) -> object:
        """Turn ``priced_as: null`` into the provider's own id."""
        providers = values.get("providers") if isinstance(values, dict) else None
        if not isinstance(values, dict) or not isinstance(providers, dict):
            return values
        resolved = {
            name: {**given, "priced_as": name}
            if isinstance(given, dict) and given.get("priced_as", "") is None
            else given
            for name, given in providers.items()
        }
        return {**values, "providers": resolved}
