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
    yield from _lost_covers(values, nouns)
    yield from _misplaced_gpus(values)
    yield from _lone_workers(values)


_Found = list[tuple[TreePath, dict[str, Any]]]


def _nouns(values: Mapping[str, Any]) -> dict[str, _Found]:
    """Every row with an id, with its path, by noun."""
    nouns: dict[str, _Found] = {
        noun: []
        for noun in (
            *("team", "project", "key", "budget", "commitment", "shared cost"),
            "alert receiver",
        )
    }

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
    collect("commitment", values.get("commitments"), ("commitments",))
    collect("shared cost", values.get("shared_costs"), ("shared_costs",))
    collect("alert receiver", values.get("alerts"), ("alerts",))
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
    """Scopes nothing can match: a budget that limits nothing, a receiver who is never told."""
    known = _known_ids(values, nouns)
    for section in ("budgets", "alerts"):
        for index, row in _rows(values, section):
            scope = _items(row.get("scope"))
            yield from _unknown_ids(scope, known, (section, index, "scope"))


def _lost_covers(
    values: Mapping[str, Any], nouns: Mapping[str, _Found]
) -> Iterator[tuple[TreePath, str]]:
    """Commitments and shared costs for use that can never be."""
    known = _known_ids(values, nouns)
    for index, one in _rows(values, "commitments"):
        covers = _items(one.get("covers"))
        yield from _unknown_ids(covers, known, ("commitments", index, "covers"))
    for index, one in _rows(values, "shared_costs"):
        yield from _unknown_ids(one, known, ("shared_costs", index))


def _misplaced_gpus(values: Mapping[str, Any]) -> Iterator[tuple[TreePath, str]]:
    """Prices of one's own that no call would find, or that contradict each other."""
    providers = _items(values.get("providers"))
    first: dict[tuple[str, ...], int] = {}
    for index, one in _rows(values, "self_hosted"):
        path = ("self_hosted", index, "provider")
        name = one.get("provider")
        provider = providers.get(name) if isinstance(name, str) else None
        if isinstance(name, str) and name not in providers:
            known = map(str, providers)
            yield path, f"there is no provider {name!r} in this file{suggest(name, known)}"
        elif isinstance(provider, dict):
            priced_as = provider.get("priced_as", provider.get("kind"))
            if priced_as not in (None, name):
                yield path, f"{name} is priced as {priced_as}: write priced_as: null there"
        key = tuple(str(one.get(part)) for part in ("provider", "model", "starts"))
        if key in first:
            there = path_text(("self_hosted", first[key]))
            yield ("self_hosted", index, "starts"), f"the same model starts then, at {there}"
        first.setdefault(key, index)


def _known_ids(
    values: Mapping[str, Any], nouns: Mapping[str, _Found]
) -> Mapping[str, frozenset[str]]:
    """The ids a scope can name, by noun; without those only the database knows."""
    known = {noun: frozenset(row["id"] for _, row in found) for noun, found in nouns.items()}
    known["organization"] = frozenset({str(values.get("organization", "default"))})
    known["provider"] = frozenset(map(str, _items(values.get("providers")))) or frozenset({"demo"})
    # With no team in the file at all they live in the database, which cannot be asked here.
    names = ["organization", "provider", *(["team", "project", "key"] if known["team"] else [])]
    return {name: known[name] for name in names}


def _unknown_ids(
    scope: Mapping[Any, Any], known: Mapping[str, frozenset[str]], path: TreePath
) -> Iterator[tuple[TreePath, str]]:
    for key, ids in known.items():
        wanted = scope.get(key)
        if isinstance(wanted, str) and wanted not in ids:
            yield (*path, key), f"there is no {key} {wanted!r} in this file{suggest(wanted, ids)}"


def _rows(values: Mapping[str, Any], section: str) -> Iterator[tuple[int, Mapping[Any, Any]]]:
    rows = values.get(section)
    for index, row in enumerate(rows if isinstance(rows, list) else ()):
        yield index, _items(row)


def _items(mapping: object) -> Mapping[Any, Any]:
    return mapping if isinstance(mapping, dict) else {}


def _lone_workers(values: Mapping[str, Any]) -> Iterator[tuple[TreePath, str]]:
    """Several workers that could not know what the others have spent."""
    server, storage = values.get("server"), values.get("storage")
    workers = server.get("workers", 1) if isinstance(server, dict) else 1
    has_redis = isinstance(storage, dict) and bool(storage.get("redis_url"))
    if isinstance(workers, int) and workers > 1 and not has_redis:
        yield (
            ("server", "workers"),
            "several workers share their budgets over Redis: set storage.redis_url, or write 1",
        )
