"""Where settings come from: a YAML file with its line numbers, the environment, secret files.

Must never decide whether a value makes sense; ``gateway.settings`` does. Must never show a secret.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

TreePath = tuple[str | int, ...]

# A crafted file can alias a list of aliases of lists; real files hold a few thousand nodes.
_NODES_MAX: Final = 200_000
_TAG_PREFIX: Final = "tag:yaml.org,2002:"
_REFERENCE: Final = re.compile(r"(env|file):(.*)", re.DOTALL)
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_NUMBER: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_OVERRIDE_PREFIX: Final = "TAXIMETER_"
_PLAIN_NAMES: Final = frozenset(
    {"TAXIMETER_CONFIG", "TAXIMETER_ADMIN_TOKEN", "TAXIMETER_KEY", "TAXIMETER_URL"}
)
# Kubernetes sets these for every pod beside a service named "taximeter"; they are not ours.
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_SERVICE_LINK: Final = re.compile(
    r"TAXIMETER_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with the settings.

    Attributes:
        source: The file, or the environment variable, that holds the value.
        line: Line in that file, from 1; ``None`` when there is no line to name.
        path_in_file: Where in the settings, such as ``budgets[0].limit``; empty for the whole.
        message: What is wrong and what to write instead; never the value of a secret.
    """

    source: str
    line: int | None
    path_in_file: str
    message: str

    def __str__(self) -> str:
        """Say it in one line, with the file and line first, as compilers do."""
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        parts = [place, self.path_in_file, self.message]
        return ": ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a value was read.

    Attributes:
        source: File or environment variable.
        line: Line in the file, from 1; ``None`` outside a file.
    """

    source: str
    line: int | None


@dataclass(slots=True, kw_only=True)
class Tree:
    """Settings as read, before anybody judged them.

    Attributes:
        source: The file, or ``environment`` when there is none.
        values: Nested dicts, lists and scalars.
        places: Where each path was read.
        problems: What could not be read; the paths in ``unread`` have one.
        unread: Paths whose value could not be read; ``None`` stands in their place.
        env_names: Environment variables that ``env:`` references name.
    """

    source: str
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[TreePath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unread: set[TreePath] = field(default_factory=set)
    env_names: set[str] = field(default_factory=set)

    def complain(self, path: TreePath, message: str) -> None:
        """Note a problem where the value stands, or where its nearest parent does.

        Args:
            path: Any path; it need not exist.
            message: What is wrong and what to write instead.
        """
        place = Place(source=self.source, line=None)
        for length in range(len(path), -1, -1):
            if path[:length] in self.places:
                place = self.places[path[:length]]
                break
        problem = Problem(
            source=place.source, line=place.line, path_in_file=path_text(path), message=message
        )
        if problem not in self.problems:
            self.problems.append(problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """What turning nodes into values needs at every depth."""

    tree: Tree
    folder: Path
    environ: Mapping[str, str]
    open_nodes: set[int] = field(default_factory=set)
    seen: list[None] = field(default_factory=list)


def path_text(path: Iterable[str | int]) -> str:
    """Write a path the way people name settings.

    Args:
        path: Keys and list positions.

    Returns:
        Text such as ``teams[0].projects[1].id``.
    """
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def suggest(name: str, known: Iterable[str]) -> str:
    """Guess which name was meant.

    Args:
        name: The unknown name.
        known: Names that exist.

    Returns:
        ``; did you mean X?``, or the known names when none is close, or nothing when there are
        none.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there are: {', '.join(names)}" if names else ""


def read_file(path: Path, environ: Mapping[str, str]) -> Tree:
    """Read a YAML file with the place of every value; references in it are resolved.

    Args:
        path: The file.
        environ: For ``env:NAME``.

    Returns:
        The tree; everything unreadable is among its problems.
    """
    tree = Tree(source=str(path))
    try:
        text = path.read_text("utf-8-sig")
    except OSError as broken:
        tree.complain((), f"cannot be read: {broken.strerror}")
        return tree
    except UnicodeDecodeError as broken:
        tree.complain((), f"is not UTF-8 text: {broken.reason} at byte {broken.start}")
        return tree
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as broken:
        _complain_of_syntax(tree, broken)
        return tree
    reader = _Reader(tree=tree, folder=path.parent, environ=environ)
    values = None if node is None else _value_of(node, (), reader)
    if isinstance(values, dict):
        # "server:" with nothing under it means "nothing set here", not "no server".
        tree.values = {key: value for key, value in values.items() if value is not None}
    elif values is not None:
        tree.complain((), "write keys and values at the top, such as `server: {port: 8080}`")
    return tree


def _complain_of_syntax(tree: Tree, broken: yaml.YAMLError) -> None:
    mark = getattr(broken, "problem_mark", None)
    reason = getattr(broken, "problem", None) or getattr(broken, "reason", None) or "not readable"
    line = None if mark is None else mark.line + 1
    column = "" if mark is None else f" (column {mark.column + 1})"
    tree.problems.append(_problem_at(tree, line, (), f"not YAML: {reason}{column}"))


def _problem_at(tree: Tree, line: int | None, path: TreePath, message: str) -> Problem:
    return Problem(source=tree.source, line=line, path_in_file=path_text(path), message=message)


def _value_of(node: yaml.Node, path: TreePath, reader: _Reader) -> Any:  # noqa: ANN401 - YAML
    tree = reader.tree
    tree.places.setdefault(path, Place(source=tree.source, line=node.start_mark.line + 1))
    reader.seen.append(None)
    if id(node) in reader.open_nodes or len(reader.seen) > _NODES_MAX:
        return _skip(tree, path, "an alias leads back to itself or unfolds into too much")
    if isinstance(node, yaml.ScalarNode):
        return _scalar_of(node, path, reader)
    if node.tag not in {f"{_TAG_PREFIX}map", f"{_TAG_PREFIX}seq"}:
        return _skip(tree, path, f"the YAML tag {node.tag} is not understood; leave it out")
    reader.open_nodes.add(id(node))
    try:
        if isinstance(node, yaml.SequenceNode):
            return [_value_of(item, (*path, i), reader) for i, item in enumerate(node.value)]
        return _mapping_of(node, path, reader)
    finally:
        reader.open_nodes.discard(id(node))


def _mapping_of(node: yaml.Node, path: TreePath, reader: _Reader) -> dict[str, Any]:
    tree = reader.tree
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == f"{_TAG_PREFIX}merge":
            message = "write a plain name as the key; `<<` and lists are not supported"
            tree.problems.append(_problem_at(tree, line, path, message))
            continue
        key = key_node.value
        below = (*path, key)
        if key in values:
            first = tree.places[below].line
            message = f"is written twice; the first is on line {first}; keep one"
            tree.problems.append(_problem_at(tree, line, below, message))
            continue
        tree.places[below] = Place(source=tree.source, line=line)
        values[key] = _value_of(value_node, below, reader)
    return values


def _scalar_of(node: yaml.ScalarNode, path: TreePath, reader: _Reader) -> Any:  # noqa: ANN401
    text: str = node.value
    known = {"str", "int", "float", "bool", "null", "timestamp", "value"}
    if node.tag.removeprefix(_TAG_PREFIX) not in known:
        return _skip(reader.tree, path, f"the YAML tag {node.tag} is not understood; leave it out")
    if node.style is None and not _REFERENCE.fullmatch(text):
        return _plain_scalar(text)
    return _resolve(text, path, reader)


def _plain_scalar(text: str) -> str | int | float | bool | None:
    # The rules of YAML 1.2, not 1.1: there `no` is false, `1:30` is 90 and 010 is 8, which turns
    # country codes, times and ids into something nobody wrote.
    if text in {"", "~", "null", "Null", "NULL"}:
        return None
    if text in {"true", "True", "TRUE", "false", "False", "FALSE"}:
        return text.lower() == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text)
    return text


def _resolve(text: str, path: TreePath, reader: _Reader) -> str | None:
    match = _REFERENCE.fullmatch(text)
    if match is None:
        return text
    kind, rest = match.groups()
    return _from_env(rest, path, reader) if kind == "env" else _from_file(rest, path, reader)


def _from_env(name: str, path: TreePath, reader: _Reader) -> str | None:
    if not _ENV_NAME.fullmatch(name):
        return _skip(reader.tree, path, "write the name of an environment variable after `env:`")
    reader.tree.env_names.add(name)
    value = reader.environ.get(name)
    if not value:
        state = "is not set" if value is None else "is empty"
        return _skip(
            reader.tree, path, f"the environment variable {name} {state}; set it, or remove this"
        )
    return value


def _from_file(name: str, path: TreePath, reader: _Reader) -> str | None:
    target = reader.folder / name
    try:
        value = target.read_text("utf-8").rstrip("\r\n")
    except OSError as broken:
        return _skip(reader.tree, path, f"cannot read the file {target}: {broken.strerror}")
    except UnicodeDecodeError:
        return _skip(reader.tree, path, f"the file {target} is not UTF-8 text")
    if not value:
        return _skip(reader.tree, path, f"the file {target} is empty")
    return value


def _skip(tree: Tree, path: TreePath, message: str) -> str | None:
    """Note that a value could not be read; ``None`` stands in its place."""
    tree.unread.add(path)
    tree.complain(path, message)
    return None


def apply_overrides(
    tree: Tree, environ: Mapping[str, str], keys_of: Mapping[str, frozenset[str]]
) -> None:
    """Lay ``TAXIMETER_<SECTION>__<KEY>`` over the tree.

    Args:
        tree: Changed in place; names nobody knows are among its problems afterwards.
        environ: The environment.
        keys_of: Keys that can be set by section; ``providers`` takes
            ``TAXIMETER_PROVIDERS__<ID>__<KEY>``; a section without keys is a value itself.
    """
    reader = _Reader(tree=tree, folder=Path(), environ=environ)
    known = _override_names(tree, keys_of)
    for name in sorted(environ):
        if not name.startswith(_OVERRIDE_PREFIX) or name in _PLAIN_NAMES:
            continue
        path = known.get(name)
        if path is None and name.startswith("TAXIMETER_PROVIDERS__"):
            path = _new_provider_path(name, keys_of)
        if path is not None:
            _override(path, name, reader)
        elif name not in tree.env_names and not _SERVICE_LINK.fullmatch(name):
            known_names = [*known, *_PLAIN_NAMES]
            close = difflib.get_close_matches(name, known_names, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            tree.problems.append(
                Problem(
                    source=name,
                    line=None,
                    path_in_file="",
                    message="no setting has this name (TAXIMETER_<SECTION>__<KEY>)" + hint,
                )
            )


def _override(path: TreePath, name: str, reader: _Reader) -> None:
    tree = reader.tree
    if path in tree.unread:
        # The text that could not be read is replaced, so what was wrong with it no longer matters.
        tree.unread.discard(path)
        tree.problems = [p for p in tree.problems if p.path_in_file != path_text(path)]
    tree.places[path] = Place(source=name, line=None)
    text = reader.environ[name]
    _put(tree.values, path, None if text == "null" else _resolve(text, path, reader))


def _override_names(tree: Tree, keys_of: Mapping[str, frozenset[str]]) -> dict[str, TreePath]:
    names: dict[str, TreePath] = {}
    for section, keys in keys_of.items():
        if section == "providers":
            continue
        if not keys:
            names[_OVERRIDE_PREFIX + section.upper()] = (section,)
        for key in keys:
            names[f"{_OVERRIDE_PREFIX}{section}__{key}".upper()] = (section, key)
    providers = tree.values.get("providers")
    for provider in providers if isinstance(providers, dict) else ():
        for key in keys_of.get("providers", ()):
            spelled = re.sub(r"[^A-Za-z0-9]", "_", provider)
            names[f"{_OVERRIDE_PREFIX}PROVIDERS__{spelled}__{key}".upper()] = (
                "providers",
                provider,
                key,
            )
    return names


def _new_provider_path(name: str, keys_of: Mapping[str, frozenset[str]]) -> TreePath | None:
    parts = name.lower().split("__")
    if len(parts) == 3 and parts[1] and parts[2] in keys_of.get("providers", ()):
        return ("providers", parts[1], parts[2])
    return None


def _put(values: dict[str, Any], path: TreePath, value: str | None) -> None:
    for part in path[:-1]:
        below = values.setdefault(str(part), {})
        if not isinstance(below, dict):
            return  # The file has nonsense here, which is reported as such.
        values = below
    values[str(path[-1])] = value
