"""The files around the code: locks, commands, catalog format, and what must never be committed."""

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Final

import pytest

from tests.house.tree import ROOT, project_files

# Written so that this file does not match itself. A lock file or a page that names a registry ties
# the project to one host.
_REGISTRY: Final = re.compile(
    r"p[y]pi[.]o[r]g|python[h]osted[.]|registry[.]n[p]mjs|d[e]b[.]debian[.]|c[r]ates[.]io"
    r"|p[r]oxy[.]golang"
)
_MACHINE_PATH: Final = re.compile(r"(^|[^A-Za-z0-9_.-])/(w[o]rk|f[a]rm|r[o]ot|h[o]me)/")
_LIVE_SECRET: Final = re.compile(r"sk-tm-[A-Za-z0-9_-]{43}")
_PIN: Final = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", re.MULTILINE)
_TARGET: Final = re.compile(r"^([a-z-]+):.*## ", re.MULTILINE)


def _text_files() -> list[tuple[Path, str]]:
    texts = []
    for path in project_files():
        content = (ROOT / path).read_bytes()
        if b"\0" not in content:
            texts.append((path, content.decode("utf-8")))
    return texts


def _pins(name: str) -> dict[str, str]:
    return dict(_PIN.findall((ROOT / name).read_text("utf-8")))


@pytest.mark.parametrize(
    ("forbidden", "instead"),
    [
        (_REGISTRY, "name packages, never the host they come from"),
        (_MACHINE_PATH, "write a path relative to the project"),
        (_LIVE_SECRET, "build made-up keys at run time, so that no scanner takes them for real"),
    ],
    ids=["registry hosts", "paths of one machine", "keys"],
)
def test_no_file_names_what_belongs_to_one_machine(
    forbidden: re.Pattern[str], instead: str
) -> None:
    """A checkout works the same wherever it lies and gives nothing away."""
    found = [
        f"{path}:{number}: {instead}"
        for path, text in _text_files()
        for number, line in enumerate(text.splitlines(), start=1)
        if forbidden.search(line)
    ]

    assert found == [], "\n".join(found)


def test_both_locks_pin_the_same_versions() -> None:
    """Tests run on the very packages that `make run` installs."""
    run, dev = _pins("requirements.lock"), _pins("requirements-dev.lock")

    assert run == {name: dev.get(name) for name in run}


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_every_pin_has_a_hash(name: str) -> None:
    """A package that changed after it was pinned is refused."""
    blocks = re.split(r"\n(?=[a-z0-9])", (ROOT / name).read_text("utf-8").strip())
    bare = [block.split()[0] for block in blocks if "--hash=sha256:" not in block]

    assert bare == []


def test_every_dependency_is_pinned_and_justified() -> None:
    """pyproject.toml, the lock and the decision about dependencies name the same packages."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {re.split(r"[\[<>=! ]", row, maxsplit=1)[0].lower() for row in project["dependencies"]}
    decision = (ROOT / "docs/adr/0007-dependencies.md").read_text("utf-8").lower()

    assert names <= _pins("requirements.lock").keys()
    assert [name for name in sorted(names) if f"| {name} |" not in decision] == []


def test_every_module_has_its_place_in_the_layers() -> None:
    """A new module says which way its imports may point."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    (layers,) = [c["layers"] for c in tool["importlinter"]["contracts"] if c["id"] == "layers"]
    placed = set(re.findall(r"gateway\.(\w+)", " ".join(layers)))
    there = {path.parts[1] for path in project_files() if path.parts[0] == "gateway"}
    modules = {
        name.removesuffix(".py") for name in there if name not in {"__init__.py", "py.typed"}
    }

    assert placed == modules


def test_ci_runs_the_two_commands_a_developer_runs() -> None:
    """There is no check that only the build machine knows."""
    script = ROOT / ".ci/run"

    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text("utf-8")
    assert script.read_text("utf-8").rstrip().endswith("make check\nmake test")


def test_make_has_the_promised_targets() -> None:
    """The commands of the public interface exist."""
    targets = set(_TARGET.findall((ROOT / "Makefile").read_text("utf-8")))

    assert {"run", "test", "check", "bench", "help"} <= targets


def test_license_is_the_whole_apache_license() -> None:
    """The licence the metadata names is the one in the folder."""
    text = (ROOT / "LICENSE").read_text("utf-8")

    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_catalog_has_one_rate_a_line() -> None:
    """A change of price is one line in a diff."""
    problems = []
    for path in sorted((ROOT / "pricing/catalog").glob("objects/*.json")):
        text = path.read_text("utf-8")
        rates = sum(len(model["rates"]) for model in json.loads(text)["models"])
        lines = [line.strip().rstrip(",") for line in text.splitlines() if '"meter"' in line]
        if len(lines) != rates or not all(line[0] + line[-1] == "{}" for line in lines):
            problems.append(f"{path.relative_to(ROOT)}: {rates} rates on {len(lines)} lines")

    assert problems == []
