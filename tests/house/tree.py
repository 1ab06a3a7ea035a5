"""What the house tests look at: the project's files, their syntax trees and comments.

Must never import the code it looks at.
"""

import ast
import io
import re
import shutil
import subprocess
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("gateway", "pricing")
_NOT_OURS: Final = frozenset(
    {".venv", ".git", "__pycache__", "data", "build", "dist", ".hypothesis", "out"}
)
_ESCAPE: Final = re.compile(r"#\s*house:\s*(?P<rule>[\w-]+) because (?P<reason>\S.*)")


@cache
def project_files() -> tuple[Path, ...]:
    """List every file that is, or could be, committed.

    Returns:
        Paths relative to the root, sorted. Asks git; walks the folder where there is no git.
    """
    git = shutil.which("git")
    if git is not None and (ROOT / ".git").exists():
        listed = subprocess.run(
            [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        names = {name for name in listed.stdout.split("\0") if name}
        return tuple(sorted(Path(name) for name in names if (ROOT / name).is_file()))
    return tuple(
        sorted(
            path.relative_to(ROOT)
            for path in ROOT.rglob("*")
            if path.is_file() and not _NOT_OURS & set(path.relative_to(ROOT).parts)
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Escape:
    """A written excuse for one finding.

    Attributes:
        path: File it stands in.
        line: Line it stands on; it excuses that line and the next one that holds code.
        covers: The lines it excuses.
        rule: Rule it is about.
        reason: Why the rule does not fit here.
    """

    path: Path
    line: int
    covers: frozenset[int]
    rule: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One Python file.

    Attributes:
        path: Relative to the root.
        text: Its source.
        tree: Its syntax tree.
        comments: Text of every comment by line.
        escapes: Every excuse in it.
    """

    path: Path
    text: str
    tree: ast.Module
    comments: dict[int, str]
    escapes: tuple[Escape, ...]

    @property
    def package(self) -> str:
        """The top folder the file is in."""
        return self.path.parts[0]


@cache
def modules(*packages: str) -> tuple[Module, ...]:
    """Parse every Python file of some top folders.

    Args:
        packages: Names of top folders.

    Returns:
        One per file, in path order.
    """
    return tuple(
        read_module(path)
        for path in project_files()
        if path.suffix == ".py" and path.parts[0] in packages
    )


def read_module(path: Path) -> Module:
    """Parse one file.

    Args:
        path: Relative to the root.

    Returns:
        The parsed file.
    """
    return parse_module(path, (ROOT / path).read_text("utf-8"))


def parse_module(path: Path, text: str) -> Module:
    """Parse source text as if it stood in a file.

    Args:
        path: Where it would stand, relative to the root.
        text: Python source.

    Returns:
        The parsed file.
    """
    comments = {
        token.start[0]: token.string
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    }
    lines = text.splitlines()
    return Module(
        path=path,
        text=text,
        tree=ast.parse(text, str(path)),
        comments=comments,
        escapes=tuple(_read_escapes(path, lines, comments)),
    )


def _read_escapes(path: Path, lines: list[str], comments: dict[int, str]) -> Iterator[Escape]:
    for number, comment in comments.items():
        found = _ESCAPE.search(comment)
        if found is None:
            continue
        following = number
        while following < len(lines) and lines[following - 1].lstrip().startswith("#"):
            following += 1
        yield Escape(
            path=path,
            line=number,
            covers=frozenset({number, following}),
            rule=found["rule"],
            reason=found["reason"],
        )


def functions_of(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Find every function and method.

    Args:
        tree: Any syntax tree.

    Yields:
        Each definition, nested ones too.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def dotted_name(node: ast.AST) -> str:
    """Write a chain of attributes as text.

    Args:
        node: Any expression.

    Returns:
        Text such as ``datetime.datetime.now``; a link that is not a plain name becomes ``?``.
    """
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            return f"{dotted_name(value)}.{attr}"
        case ast.Call(func=func):
            return dotted_name(func)
        case _:
            return "?"
