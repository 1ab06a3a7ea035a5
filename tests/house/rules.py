"""The house rules that read syntax trees: what each forbids and what to write instead.

Must never depend on how a line is formatted.
"""

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.house.tree import Module, dotted_name, functions_of

FUNCTION_LINES_MAX: Final = 60
MODULE_LINES_MAX: Final = 600

# The places where a request meets the outside: trouble of any kind must become an answer there.
_HTTP_EDGE: Final = ("gateway/app.py", "gateway/admin/")
_CLOCK: Final = "gateway/clock.py"
_WALL_CLOCK: Final = frozenset({"now", "utcnow", "today"})
_UNFINISHED: Final = re.compile(r"\b(TODO|FIXME|XXX)\b")

# Each type that says "already checked", and the only module that may call it.
MINTED_IN: Final[Mapping[str, str]] = {
    "SkuId": "pricing/sku.py",
    "PriceId": "pricing/sku.py",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One place that breaks a rule.

    Attributes:
        path: File.
        line: Line.
        rule: Name of the rule, as an excuse has to spell it.
        say: What is wrong and what to write instead.
    """

    path: Path
    line: int
    rule: str
    say: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.say}"


Rule = Callable[[Module], Iterator[tuple[int, str]]]


def long_function(module: Module) -> Iterator[tuple[int, str]]:
    """Find functions whose body, without its docstring, is too long."""
    for function in functions_of(module.tree):
        body = function.body
        if ast.get_docstring(function, clean=False) is not None:
            body = body[1:]
        if not body or function.end_lineno is None:
            continue
        length = function.end_lineno - body[0].lineno + 1
        if length > FUNCTION_LINES_MAX:
            yield (
                function.lineno,
                f"{function.name} has {length} lines of body, {FUNCTION_LINES_MAX} at most: "
                "keep the branches here and move arithmetic into leaves",
            )


def long_module(module: Module) -> Iterator[tuple[int, str]]:
    """Find files that should be split by noun."""
    length = module.text.count("\n")
    if length > MODULE_LINES_MAX:
        yield 1, f"{length} lines, {MODULE_LINES_MAX} at most: split it by noun"


def float_money(module: Module) -> Iterator[tuple[int, str]]:
    """Find floats in the library that prices."""
    if module.package != "pricing":
        return
    for node in ast.walk(module.tree):
        match node:
            case ast.Constant(value=float()):
                yield node.lineno, "a float literal: write the number as text, or as an integer"
            case ast.Call(func=ast.Name(id="float")):
                yield node.lineno, "float(): use decimal_from_text or an integer ratio"
            case _:
                pass


def async_pricing(module: Module) -> Iterator[tuple[int, str]]:
    """Find coroutines in the library that is pure."""
    if module.package != "pricing":
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield node.lineno, "pricing is pure: whoever waits lives in gateway"


def wall_clock(module: Module) -> Iterator[tuple[int, str]]:
    """Find questions for the time that do not go through a clock that was passed in."""
    if module.path.as_posix() == _CLOCK:
        return
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted_name(node.func)
        owner, _, called = name.rpartition(".")
        if name in {"time.time", "time.time_ns"} or (
            called in _WALL_CLOCK and owner.rsplit(".", 1)[-1] in {"datetime", "date"}
        ):
            yield node.lineno, f"{name}(): take `at` as an argument, or ask a Clock passed in"


def minted_elsewhere(module: Module) -> Iterator[tuple[int, str]]:
    """Find checked names made outside the module that checks them."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted_name(node.func).rsplit(".", 1)[-1]
        home = MINTED_IN.get(name)
        if home is not None and module.path.as_posix() != home:
            yield node.lineno, f"{name}(...) is minted in {home} only: call its function"


def unfinished(module: Module) -> Iterator[tuple[int, str]]:
    """Find notes that belong in an issue."""
    for line, comment in module.comments.items():
        if _UNFINISHED.search(comment):
            yield line, "an open question is an issue with an owner, not a comment"


def printed(module: Module) -> Iterator[tuple[int, str]]:
    """Find output that bypasses the caller's choice of stream."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and dotted_name(node.func) == "print":
            yield node.lineno, "print(): write to sys.stdout in the command line, log elsewhere"


def local_import(module: Module) -> Iterator[tuple[int, str]]:
    """Find imports that run in the middle of a call."""
    for function in functions_of(module.tree):
        for node in ast.walk(function):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield node.lineno, "an import inside a function: move it to the top"


def lazy_import(module: Module) -> Iterator[tuple[int, str]]:
    """Find imports hidden in a call."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and dotted_name(node.func).endswith("import_module"):
            yield node.lineno, "import_module(): import at the top, or say what it would cost there"


def broad_except(module: Module) -> Iterator[tuple[int, str]]:
    """Find handlers that catch what nobody can answer for."""
    at_edge = module.path.as_posix().startswith(_HTTP_EDGE)
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ExceptHandler) or not _is_broad(node):
            continue
        if not at_edge:
            yield node.lineno, "catch the cause you can answer for; the HTTP edge takes the rest"
        elif not any(isinstance(inner, ast.Raise) for inner in ast.walk(node)):
            yield node.lineno, "log it, count it and raise it again"


def _is_broad(handler: ast.ExceptHandler) -> bool:
    caught = handler.type
    names = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return caught is None or any(
        name is not None and dotted_name(name) in {"Exception", "BaseException"} for name in names
    )


def sleep(module: Module) -> Iterator[tuple[int, str]]:
    """Find threads that wait for time instead of for an event."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and dotted_name(node.func) == "time.sleep":
            yield node.lineno, "time.sleep(): wait for an event with a timeout"


def getter(module: Module) -> Iterator[tuple[int, str]]:
    """Find names that hide what a call costs."""
    for function in functions_of(module.tree):
        if function.name.lstrip("_").startswith("get_"):
            yield (
                function.lineno,
                f"{function.name}: say what it costs: read_, parse_, find_ are pure; load_, send_, "
                "open_ wait",
            )


def patched(module: Module) -> Iterator[tuple[int, str]]:
    """Find tests that replace a part from outside instead of passing another one in."""
    for node in ast.walk(module.tree):
        match node:
            case ast.ImportFrom(module="unittest.mock" | "mock") | ast.arg(arg="monkeypatch"):
                yield node.lineno, "pass another part in: the patch budget is zero"
            case ast.ImportFrom(module="unittest", names=names) | ast.Import(names=names):
                if any(name.name in {"mock", "unittest.mock"} for name in names):
                    yield node.lineno, "pass another part in: the patch budget is zero"
            case _:
                pass


# Rules by the name an excuse has to spell; the second mapping holds for tests and benchmarks too.
CODE_RULES: Final[Mapping[str, Rule]] = {
    "long-function": long_function,
    "long-module": long_module,
    "float": float_money,
    "async": async_pricing,
    "clock": wall_clock,
    "mint": minted_elsewhere,
    "todo": unfinished,
    "print": printed,
    "local-import": local_import,
    "lazy-import": lazy_import,
    "broad-except": broad_except,
    "sleep": sleep,
    "get": getter,
}
TEST_RULES: Final[Mapping[str, Rule]] = {
    "long-function": long_function,
    "long-module": long_module,
    "todo": unfinished,
    "sleep": sleep,
    "patch": patched,
}


def find_all(module: Module, rules: Mapping[str, Rule]) -> Iterator[Finding]:
    """Apply rules to a file.

    Args:
        module: Any parsed file.
        rules: Rules by name.

    Yields:
        Every finding, excused or not.
    """
    for name, rule in rules.items():
        for line, say in sorted(set(rule(module))):
            yield Finding(path=module.path, line=line, rule=name, say=say)


def unexcused(module: Module, rules: Mapping[str, Rule]) -> list[str]:
    """List what a file has to mend.

    Args:
        module: Any parsed file.
        rules: Rules by name.

    Returns:
        One sentence per finding without an excuse, and per excuse without a finding.
    """
    findings = list(find_all(module, rules))
    excused = {(line, escape.rule) for escape in module.escapes for line in escape.covers}
    found = {(finding.line, finding.rule) for finding in findings}
    idle = [
        f"{escape.path}:{escape.line}: the excuse for {escape.rule!r} excuses nothing: remove it"
        for escape in module.escapes
        if not any((line, escape.rule) in found for line in escape.covers)
    ]
    return [str(f) for f in findings if (f.line, f.rule) not in excused] + idle
