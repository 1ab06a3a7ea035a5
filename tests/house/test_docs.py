"""The docs are complete, their links lead somewhere and their examples run."""

import ast
import doctest
import re
import shlex
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import BaseModel

from gateway.cli import COMMANDS
from gateway.settings import Settings, load_settings
from tests.cli.shell import Shell
from tests.house.tree import ROOT, modules, project_files

_FENCE: Final = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
_OWN_PATH: Final = re.compile(
    r"`((?:gateway|pricing|tests|docs|bench|grafana)/[\w./-]*|\w+\.(?:md|toml|lock))`"
)
_METRIC: Final = re.compile(r"(?:llm|gateway)_[a-z_]+[a-z]")
_MAKE: Final = re.compile(r"\bmake ([a-z]+)\b")
_SAME: Final = doctest.OutputChecker()
_COMMAND: Final = re.compile(r"(?:^|[`/]|\| )taximeter ([a-z-]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: The page.
        info: What stands after the fence, such as ``python run``.
        text: What stands inside.
    """

    page: Path
    info: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}: {self.text.splitlines()[0][:40]}"


def _pages() -> list[Path]:
    return [path for path in project_files() if path.suffix == ".md" and path.parts[0] != "bench"]


def _text(page: Path) -> str:
    return (ROOT / page).read_text("utf-8")


def _blocks(info: str) -> list[Block]:
    return [
        Block(page=page, info=found[1], text=found[2])
        for page in _pages()
        for found in _FENCE.finditer(_text(page))
        if found[1] == info
    ]


def _anchor(heading: str) -> str:
    """The way GitHub names a heading."""
    plain = re.sub(r"[`*\[\]]|\([^)]*\)", "", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        path = f"{prefix}{name}"
        if inner is None:
            yield path
        else:
            many = "*." if inner is not field.annotation else ""
            yield from _keys(inner, f"{path}.{many}")


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The settings class a section holds one or many of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if isinstance(annotation, types.UnionType):
        return None
    return next(filter(None, map(_model_in, typing.get_args(annotation))), None)


def test_every_setting_is_explained() -> None:
    """A key that exists stands in docs/configuration.md, and no other."""
    documented = set(
        re.findall(r"^\| `([a-z_.*]+)` \|", _text(Path("docs/configuration.md")), re.M)
    )
    lists = {"teams.*.projects", "teams.*.projects.*.keys"}

    assert documented - lists == set(_keys(Settings)) - {"organization"}


def test_every_metric_is_explained() -> None:
    """A metric that exists stands in docs/metrics.md, and no other."""
    names = ("metrics", "counts", "budget_gauges")
    naming = {Path(f"gateway/{name}.py") for name in names}
    named = {
        node.value
        for module in modules("gateway")
        if module.path in naming
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and _METRIC.fullmatch(node.value)
    }
    documented = set(re.findall(r"^\| `([a-z_]+)` \|", _text(Path("docs/metrics.md")), re.M))

    assert {name.removesuffix("_total") for name in documented} == {
        name.removesuffix("_total") for name in named
    }


def _leads_somewhere(page: Path, target: str) -> bool:
    if "://" in target:
        return True
    name, _, anchor = target.partition("#")
    file = (ROOT / page).parent / name if name else ROOT / page
    if not file.exists():
        return False
    return not anchor or anchor in map(_anchor, _HEADING.findall(file.read_text("utf-8")))


def test_the_readme_leads_to_every_page() -> None:
    """Nobody looks into a folder; the list of disagreements belongs to its page on sources."""
    linked = set(_LINK.findall(_text(Path("README.md"))))
    pages = {page.as_posix() for page in _pages() if page.parent == Path("docs")}

    assert pages - linked == {"docs/pricing-disagreements.md"}


@pytest.mark.parametrize("page", _pages(), ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file that exists, and a heading in it."""
    targets = _LINK.findall(_FENCE.sub("", _text(page)))
    broken = [target for target in targets if not _leads_somewhere(page, target)]

    assert broken == []


@pytest.mark.parametrize("page", _pages(), ids=str)
def test_files_and_commands_named_in_the_docs_exist(page: Path) -> None:
    """What a page says to open or to run is there."""
    text = _text(page)
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.M))
    code = "\n".join([*re.findall(r"`[^`\n]+`", text), *(f[2] for f in _FENCE.finditer(text))])

    assert [path for path in _OWN_PATH.findall(text) if not (ROOT / path).exists()] == []
    assert [name for name in _MAKE.findall(code) if name not in targets] == []
    assert [name for name in _COMMAND.findall(code) if name not in COMMANDS] == []


@pytest.mark.parametrize("block", _blocks("yaml check"), ids=str)
def test_configurations_in_the_docs_are_valid(block: Block, tmp_path: Path) -> None:
    """A configuration a page shows can be started with."""
    file = tmp_path / "taximeter.yaml"
    file.write_text(block.text, "utf-8")
    names = re.findall(r"env:(\w+)", block.text)

    settings = load_settings(
        file,
        {
            name: f"{'https://' * name.endswith('_URL')}made-up-{name.lower()}.test"
            for name in names
        },
    )

    assert settings.organization


@pytest.mark.parametrize("block", _blocks("pycon run"), ids=str)
def test_python_sessions_in_the_docs_are_true(block: Block) -> None:
    """A session a page shows prints what it says."""
    found = doctest.DocTestParser().get_doctest(block.text, {}, str(block.page), None, 0)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    runner.run(found, out=said.append)

    assert runner.failures == 0, "".join(said)


def _console_pages() -> list[Path]:
    return sorted({block.page for block in _blocks("console run")})


@pytest.mark.parametrize("page", _console_pages(), ids=str)
def test_commands_in_the_docs_print_what_they_say(page: Path, tmp_path: Path) -> None:
    """Commands of a page, run in its order and in one folder; ``...`` stands for anything.

    A block marked ``file NAME`` is that file, and `echo $?` the exit code of the command before.
    """
    shell, code = Shell(tmp_path), 0
    for info, text in _FENCE.findall(_text(page)):
        if " file " in info:
            (tmp_path / info.partition(" file ")[2]).write_text(text, "utf-8")
        if info != "console run":
            continue
        for line, says in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
            if line == "echo $?":
                assert f"{code}\n" == says
                continue
            program, *words = shlex.split(line)
            answer = shell.run(*words)
            code = answer.code
            assert program == "taximeter"
            assert _SAME.check_output(says, answer.out + answer.err, doctest.ELLIPSIS), (
                f"{page}: {line}\n{answer.out}{answer.err}"
            )


def test_pages_with_examples_are_found() -> None:
    """The tests above have something to run."""
    assert _console_pages()
    assert _blocks("yaml check")
    assert _blocks("pycon run")
