"""What no single setting shows: repeated ids, shared secrets, scopes nothing can match.

Must never change a value. Works on settings nobody has checked yet, so that one problem does not
hide the next.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.directory_model import id_problem
from gateway.settings_sources import TreePath, path_text, suggest
from gateway.tags import name_problem

_RESERVED_PATHS: Final = frozenset(
    {"v1", "api", "docs", "healthz", "readyz", "metrics", "openapi.json"}
)


def find_contradictions(values: Mapping[str, Any]) -> Iterator[tuple[TreePath, str]]:
    """Look at everything together.

    Args:
        values: Nested dicts, lists and scalars as read, checked or not.

    Yields:
        Where, and what is wrong.
    """
    for name in _items(values.get("providers")):
        problem = id_problem(str(name))
        if problem is not None:
            yield ("providers", name), problem
        elif name in _RESERVED_PATHS:
            yield ("providers", name), f"/{name} is a path of the gateway itself; use another id"
    for name in _items(values.get("tag_policy")):
        problem = name_problem(str(name))
        if problem is not None:
            yield ("tag_policy", name), problem
    nouns = _nouns(values)
    for noun, found in nouns.items():
        yield from _repeats(noun, found)
    yield from _shared_secrets(nouns["key"])
    yield from _lost_scopes(values, nouns)


_Found = list[tuple[TreePath, dict[str, Any]]]


def _nouns(values: Mapping[str, Any]) -> dict[str, _Found]:
    """Every row with an id, with its path, by noun."""
    nouns: dict[str, _Found] = {"team": [], "project": [], "key": [], "budget": []}

    def collect(noun: str, rows: object, path: TreePath) -> None:
        for index, row in enumerate(rows if isinstance(rows, list) else ()):
            if not isinstance(row, dict):
                continue
            below = (*path, index)
            if isinstance(row.get("id"), str):
                nouns[noun].append((below, row))
            if noun == "team":
                collect("project", row.get("projects"), (*below, "projects"))
            if noun == "project":
                collect("key", row.get("keys"), (*below, "keys"))

    collect("team", values.get("teams"), ("teams",))
    collect("budget", values.get("budgets"), ("budgets",))
    return nouns


def _repeats(noun: str, found: _Found) -> Iterator[tuple[TreePath, str]]:
    first: dict[str, TreePath] = {}
    for path, row in found:
        name = row["id"]
        if name in first:
            message = f"the {noun} {name!r} is there already, at {path_text(first[name])}"
            yield (*path, "id"), message
        first.setdefault(name, path)


def _shared_secrets(keys: _Found) -> Iterator[tuple[TreePath, str]]:
    owner: dict[str, str] = {}
    for path, row in keys:
        secret = row.get("secret")
        if isinstance(secret, str) and secret:
            if secret in owner:
                message = f"key {owner[secret]!r} has the same secret; every key needs its own"
                yield (*path, "secret"), message
            owner.setdefault(secret, row["id"])


def _lost_scopes(
    values: Mapping[str, Any], nouns: Mapping[str, _Found]
) -> Iterator[tuple[TreePath, str]]:
    """Scopes no call can ever match: a budget that silently limits nothing."""
    known = {noun: {row["id"] for _, row in found} for noun, found in nouns.items()}
    known["organization"] = {str(values.get("organization", "default"))}
    known["provider"] = {str(name) for name in _items(values.get("providers"))} or {"demo"}
    # With no team in the file at all they live in the database, which cannot be asked here.
    checked = ["organization", "provider", *(["team", "project", "key"] if known["team"] else [])]
    budgets = values.get("budgets")
    for index, budget in enumerate(budgets if isinstance(budgets, list) else ()):
        scope = _items(_items(budget).get("scope"))
        for key in checked:
            wanted = scope.get(key)
            if isinstance(wanted, str) and wanted not in known[key]:
                yield (
                    ("budgets", index, "scope", key),
                    f"there is no {key} {wanted!r} in this file{suggest(wanted, known[key])}",
                )


def _items(mapping: object) -> Mapping[Any, Any]:
    return mapping if isinstance(mapping, dict) else {}
