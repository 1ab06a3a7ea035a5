"""Every public name says what it promises, and says the same as its code."""

import ast
from pathlib import Path

import pytest

from tests.house.docstrings import problems_of, read_known
from tests.house.tree import functions_of, modules, parse_module


def test_public_names_are_documented_as_they_are() -> None:
    """Args, Returns, Raises and Attributes say what the code under them says."""
    packages = modules("gateway", "pricing")
    known = read_known(packages)
    problems = [problem for module in packages for problem in problems_of(module, known)]

    assert problems == [], "\n".join(problems)


def test_every_test_states_a_promise() -> None:
    """A test nobody can read the promise of cannot be judged when it fails."""
    silent = [
        f"{module.path}:{function.lineno}: {function.name}"
        for module in modules("tests")
        for function in functions_of(module.tree)
        if function.name.startswith("test_") and ast.get_docstring(function) is None
    ]

    assert silent == [], "\n".join(silent)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def f(): ...", "has no docstring"),
        ('def f(a):\n    """Do."""\n    a()', "no Args section for ['a']"),
        (
            'def f(a):\n    """Do.\n\n    Args:\n        b: One.\n    """',
            "Args lists ['b'], the parameters are ['a']",
        ),
        (
            'def f(a) -> int:\n    """Do.\n\n    Args:\n        a: One.\n    """\n    return 1',
            "no Returns section; it returns int",
        ),
        (
            'def f() -> None:\n    """Do."""\n    raise Broken("it")',
            "raises Broken and does not say so under Raises",
        ),
        (
            '@dataclass\nclass A:\n    """A.\n\n    Attributes:\n        b: One.\n    """\n'
            "    a: int",
            "Attributes lists ['b'], the fields are ['a']",
        ),
        ('class A:\n    """A."""\n\n    def f(self): ...', "has no docstring"),
    ],
)
def test_each_disagreement_is_found(source: str, said: str) -> None:
    """A comparison that finds nothing would keep nothing."""
    module = parse_module(Path("gateway/a.py"), f'"""For it."""\n\n{source}\n')
    problems = list(problems_of(module, read_known([module])))

    assert len(problems) == 1
    assert problems[0].endswith(said)
