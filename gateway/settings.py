"""The settings: read once from file and environment, validated as a whole, frozen afterwards.

Must never start with a setting nobody understands.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from gateway.settings_alerts import AlertReceiverSettings
from gateway.settings_checks import find_contradictions
from gateway.settings_costs import (
    CommitmentSettings,
    CoverSettings,
    SelfHostedSettings,
    SharedCostSettings,
)
from gateway.settings_models import (
    BudgetSettings,
    KeySettings,
    MeteringSettings,
    ProjectSettings,
    ProviderSettings,
    ServerSettings,
    Settings,
    StorageSettings,
    TagRule,
    TeamSettings,
)
from gateway.settings_otlp import OtlpSettings
from gateway.settings_show import MASK, effective, warnings_of
from gateway.settings_sources import (
    Problem,
    Tree,
    TreePath,
    apply_overrides,
    read_file,
    suggest,
)

__all__ = [
    "MASK",
    "AlertReceiverSettings",
    "BudgetSettings",
    "CommitmentSettings",
    "KeySettings",
    "MeteringSettings",
    "Problem",
    "ProjectSettings",
    "ProviderSettings",
    "SelfHostedSettings",
    "ServerSettings",
    "Settings",
    "SettingsBroken",
    "SharedCostSettings",
    "StorageSettings",
    "TagRule",
    "TeamSettings",
    "effective",
    "find_config",
    "load_settings",
    "warnings_of",
]

CONFIG_DEFAULT: Final = Path("taximeter.yaml")


class SettingsBroken(ValueError):
    """Settings that must not be used; ``problems`` lists everything wrong with them at once.

    Attributes:
        problems: In the order of the file.
    """

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


def find_config(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Choose the settings file.

    Args:
        path: What ``--config`` says.
        environ: For ``TAXIMETER_CONFIG``.

    Returns:
        The first of: ``path``, ``TAXIMETER_CONFIG``, ``taximeter.yaml`` in the working directory
        if there is one; ``None`` for the defaults.
    """
    if path is not None:
        return path
    if environ.get("TAXIMETER_CONFIG"):
        return Path(environ["TAXIMETER_CONFIG"])
    return CONFIG_DEFAULT if CONFIG_DEFAULT.is_file() else None


def load_settings(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read and check the settings.

    Args:
        path: What ``--config`` says; ``None`` looks where ``find_config`` does.
        environ: The environment.

    Returns:
        Settings in which every reference is resolved and every rule holds.

    Raises:
        SettingsBroken: Something is wrong; every problem is listed, with file and line.
    """
    file = find_config(path, environ)
    tree = Tree(source="environment") if file is None else read_file(file, environ)
    broken_file = bool(tree.problems) and not tree.values
    apply_overrides(tree, environ, _override_keys())
    settings = None if broken_file else _validate(tree)
    if not broken_file:
        for where, message in find_contradictions(tree.values):
            tree.complain(where, message)
    if settings is None or tree.problems:
        raise SettingsBroken(
            tuple(sorted(tree.problems, key=lambda p: (p.source, p.line or 0, p.path_in_file)))
        )
    token = environ.get("TAXIMETER_ADMIN_TOKEN")
    if settings.server.admin_token is None and token:
        server = settings.server.model_copy(update={"admin_token": SecretStr(token)})
        return settings.model_copy(update={"server": server})
    return settings


def _override_keys() -> dict[str, frozenset[str]]:
    sections: dict[str, type[BaseModel]] = {
        "server": ServerSettings,
        "storage": StorageSettings,
        "metering": MeteringSettings,
        "otlp": OtlpSettings,
        "providers": ProviderSettings,
    }
    keys = {name: frozenset(part.model_fields) for name, part in sections.items()}
    keys["providers"] -= {"headers", "deployments"}
    keys["otlp"] -= {"headers"}
    return {**keys, "organization": frozenset()}


def _validate(tree: Tree) -> Settings | None:
    try:
        return Settings.model_validate(tree.values)
    except ValidationError as broken:
        for error in broken.errors(include_url=False, include_input=False):
            path = _known_path(tree, error)
            if not any(path[: len(unread)] == unread for unread in tree.unread):
                tree.complain(path, _message_of(error))
    return None


def _known_path(tree: Tree, error: ErrorDetails) -> TreePath:
    """Cut what pydantic adds to a path: which member of a union it tried."""
    path = tuple(error["loc"])
    if error["type"] == "missing":
        return path
    while path and path not in tree.places:
        path = path[:-1]
    return path or tuple(error["loc"])


_MESSAGES: Final[Mapping[str, str]] = {
    "missing": "is missing",
    "int_parsing": "write a whole number",
    "int_type": "write a whole number",
    "int_from_float": "write a whole number",
    "float_parsing": "write a number",
    "float_type": "write a number",
    "string_type": "write text; a number or true needs quotes around it",
    "bool_parsing": "write true or false",
    "bool_type": "write true or false",
    "dict_type": "write keys and values here",
    "model_type": "write keys and values here",
    "model_attributes_type": "write keys and values here",
    "list_type": "write a list",
    "tuple_type": "write a list",
    "path_type": "write a path",
    "timezone_aware": "add the time zone, such as 2027-01-31T00:00:00Z",
}


def _message_of(error: ErrorDetails) -> str:
    kind = error["type"]
    context = error.get("ctx", {})
    match kind:
        case "value_error":
            return str(context["error"])
        case "literal_error" | "enum":
            return f"write one of {str(context['expected']).replace(chr(39), '')}"
        case "extra_forbidden":
            name = str(error["loc"][-1])
            return f"there is no such setting{suggest(name, _siblings_of(error['loc']))}"
        case "greater_than_equal" | "less_than_equal" | "greater_than":
            return error["msg"].replace("Input should be", "must be")
        case _ if kind.startswith("datetime"):
            return "write an instant such as 2027-01-31T00:00:00Z"
        case _:
            return _MESSAGES.get(kind, re.sub(r"^\w+ should", "must", error["msg"]))


_MODELS: Final[Mapping[tuple[str, ...], type[BaseModel]]] = {
    (): Settings,
    ("server",): ServerSettings,
    ("storage",): StorageSettings,
    ("metering",): MeteringSettings,
    ("providers", "*"): ProviderSettings,
    ("teams", "*"): TeamSettings,
    ("teams", "*", "projects", "*"): ProjectSettings,
    ("teams", "*", "projects", "*", "keys", "*"): KeySettings,
    ("budgets", "*"): BudgetSettings,
    ("alerts", "*"): AlertReceiverSettings,
    ("otlp",): OtlpSettings,
    ("tag_policy", "*"): TagRule,
    ("commitments", "*"): CommitmentSettings,
    ("commitments", "*", "covers"): CoverSettings,
    ("shared_costs", "*"): SharedCostSettings,
    ("self_hosted", "*"): SelfHostedSettings,
}


def _siblings_of(path: TreePath) -> frozenset[str]:
    """The settings that exist beside an unknown one: every second step is a name or a number."""
    shape = tuple(str(part) if depth % 2 == 0 else "*" for depth, part in enumerate(path[:-1]))
    return frozenset(_MODELS[shape].model_fields)
