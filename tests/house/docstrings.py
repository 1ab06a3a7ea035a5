"""Docstrings compared with the code under them: parameters, results, errors and fields.

Must never import the code it reads.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from tests.house.tree import Module, dotted_name

Function = ast.FunctionDef | ast.AsyncFunctionDef

SECTIONS: Final = ("Args", "Returns", "Yields", "Raises", "Attributes", "Source")
_HEADING: Final = re.compile(rf"^({'|'.join(SECTIONS)}):$")
_ENTRY: Final = re.compile(r"^    (\*{0,2}\w+)(?: \([^)]*\))?:(?: |$)")
_SAME_AS: Final = re.compile(r"Attributes are those of ``(\w+)``")
# A method that keeps a promise stated elsewhere points at it instead of saying it again.
_AS_STATED_IN: Final = re.compile(r"\b(?:[Aa]s|[Aa]s in|[Ss]ee) ``\w+\.\w+``")
_ROUTE_METHODS: Final = frozenset({"get", "post", "put", "patch", "delete", "exception_handler"})
_NOTHING: Final = frozenset({"None", "NoReturn", "Never", "Iterator[None]", "AsyncIterator[None]"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What one file alone does not tell.

    Attributes:
        fields: Public fields of every record class, by class name.
        bases: Names of the direct bases of every class, by class name.
    """

    fields: dict[str, list[str]]
    bases: dict[str, set[str]]

    def family_of(self, name: str) -> set[str]:
        """Name a class and everything it derives from.

        Args:
            name: Class name.

        Returns:
            That name and those of its ancestors.
        """
        return {name}.union(*map(self.family_of, self.bases.get(name, ())))


def read_known(modules: Iterable[Module]) -> Known:
    """Collect the classes of many files.

    Args:
        modules: Parsed files.

    Returns:
        Their fields and bases.
    """
    classes = [n for m in modules for n in ast.walk(m.tree) if isinstance(n, ast.ClassDef)]
    return Known(
        fields={node.name: public_fields(node) for node in classes if is_record(node)},
        bases={
            node.name: {dotted_name(base).rsplit(".", 1)[-1] for base in node.bases} - {node.name}
            for node in classes
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Docstring:
    """A docstring cut into its sections.

    Attributes:
        text: All of it.
        entries: Names listed in each section that is there.
    """

    text: str
    entries: dict[str, list[str]]

    @property
    def summary(self) -> str:
        """The first line."""
        return self.text.partition("\n")[0]


def read_docstring(node: Function | ast.ClassDef | ast.Module) -> Docstring | None:
    """Cut a docstring into its sections.

    Args:
        node: What may carry one.

    Returns:
        The docstring, or ``None`` when there is none.
    """
    text = ast.get_docstring(node)
    if text is None:
        return None
    entries: dict[str, list[str]] = {}
    section = None
    for line in text.splitlines():
        heading = _HEADING.match(line)
        if heading:
            section = entries.setdefault(heading[1], [])
        elif line and not line.startswith(" "):
            section = None
        elif section is not None and (entry := _ENTRY.match(line)):
            section.append(entry[1].lstrip("*"))
    return Docstring(text=text, entries=entries)


def problems_of(module: Module, known: Known) -> Iterator[str]:
    """Find public names whose docstring is missing or says something else than the code.

    Args:
        module: A parsed file of the packages.
        known: Every class of the packages.

    Yields:
        One sentence each.
    """
    if read_docstring(module.tree) is None:
        yield f"{module.path}:1: say what the module is for and what it must never do"
    for node in module.tree.body:
        yield from _problems_of_node(module, node, known, inside="")


def _problems_of_node(module: Module, node: ast.stmt, known: Known, inside: str) -> Iterator[str]:
    """A protocol may say in one line what its user needs; the implementation says the rest."""
    if not isinstance(node, ast.ClassDef | Function) or node.name.startswith("_"):
        return
    name = f"{inside}{node.name}"
    docstring = read_docstring(node)
    where = f"{module.path}:{node.lineno}: {name}"
    if docstring is None:
        yield f"{where}: has no docstring"
        return
    if isinstance(node, ast.ClassDef):
        yield from (f"{where}: {p}" for p in _class_problems(node, docstring, known.fields))
        for inner in node.body:
            yield from _problems_of_node(module, inner, known, inside=f"{name}.")
    elif docstring.entries or not _is_stub(node):
        yield from (f"{where}: {p}" for p in _function_problems(node, docstring, known))


def _function_problems(function: Function, docstring: Docstring, known: Known) -> Iterator[str]:
    listed = docstring.entries
    if _is_route(function):
        return  # its docstring is published in the OpenAPI document; parameters describe themselves
    if not listed and _AS_STATED_IN.search(docstring.text):
        return
    names = _parameters(function)
    if "Args" in listed and listed["Args"] != names:
        yield f"Args lists {listed['Args']}, the parameters are {names}"
    if "Args" not in listed and names:
        yield f"no Args section for {names}"
    returned = ast.unparse(function.returns) if function.returns else "None"
    if names and returned not in _NOTHING and not {"Returns", "Yields"} & listed.keys():
        yield f"no Returns section; it returns {returned}"
    if returned in _NOTHING and "Returns" in listed:
        yield "has a Returns section and returns nothing"
    for error in sorted(_raised(function)):
        if not known.family_of(error) & set(listed.get("Raises", ())):
            yield f"raises {error} and does not say so under Raises"


def _class_problems(
    node: ast.ClassDef, docstring: Docstring, fields_of: dict[str, list[str]]
) -> Iterator[str]:
    if node.name not in fields_of or not is_record(node):
        return
    listed = list(docstring.entries.get("Attributes", ()))
    fields = fields_of[node.name]
    same_as = _SAME_AS.search(docstring.text)
    if same_as:
        shared = [name for name in fields if name in fields_of[same_as[1]]]
        fields = [name for name in fields if name not in shared]
    if listed != fields:
        yield f"Attributes lists {listed}, the fields are {fields}"


def is_record(node: ast.ClassDef) -> bool:
    """Tell whether a class is a record whose fields are its interface.

    Args:
        node: Any class.

    Returns:
        True for dataclasses, msgspec structs and named tuples.
    """
    decorators = {dotted_name(d).rsplit(".", 1)[-1] for d in node.decorator_list}
    bases = {dotted_name(base).rsplit(".", 1)[-1] for base in node.bases}
    return "dataclass" in decorators or bool({"Struct", "NamedTuple"} & bases)


def public_fields(node: ast.ClassDef) -> list[str]:
    """List the public fields of a record.

    Args:
        node: A record class.

    Returns:
        Names in their order.
    """
    return [
        item.target.id
        for item in node.body
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and not item.target.id.startswith("_")
        and "ClassVar" not in ast.unparse(item.annotation)
    ]


def _is_stub(function: Function) -> bool:
    """Whether a function has no body of its own, as in a protocol."""
    return isinstance(function.body[-1], ast.Expr) and ast.unparse(function.body[-1]) == "..."


def _parameters(function: Function) -> list[str]:
    arguments = function.args
    listed = [*arguments.posonlyargs, *arguments.args]
    if listed and listed[0].arg in {"self", "cls"}:
        listed = listed[1:]
    if arguments.vararg:
        listed.append(arguments.vararg)
    listed += arguments.kwonlyargs
    if arguments.kwarg:
        listed.append(arguments.kwarg)
    return [argument.arg for argument in listed]


def _raised(function: Function) -> set[str]:
    """Names of the errors a function makes itself, apart from those it also catches."""
    found = set()
    caught = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            found.add(dotted_name(node.exc.func).rsplit(".", 1)[-1])
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            types = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            caught |= {dotted_name(t).rsplit(".", 1)[-1] for t in types}
    return {n for n in found - caught if n[:1].isupper() and n != "AssertionError"}


def _is_route(function: Function) -> bool:
    return any(
        isinstance(decorator, ast.Call)
        and dotted_name(decorator.func).rsplit(".", 1)[-1] in _ROUTE_METHODS
        for decorator in function.decorator_list
    )
