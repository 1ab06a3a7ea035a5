"""The data of genai-prices, read as a file in either of its forms: JSON, or the Python module.

Must never run the module: it is parsed, and only calls that build data are understood.
"""

import ast
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pricing.importers.lists import parse_list
from pricing.manifest import BookBroken

# What the module calls, and the key its JSON form has instead where the two differ.
_KEY_OF: Final[Mapping[str, str]] = MappingProxyType({"or_": "or", "and_": "and"})
# How usage is read from answers; prices need none of it.
_SKIPPED: Final = frozenset({"extractors", "provider_match", "model_match"})
_RECORDS: Final = frozenset(
    [
        "ClauseAnd",
        "ClauseContains",
        "ClauseEndsWith",
        "ClauseEquals",
        "ClauseOr",
        "ClauseRegex",
        "ClauseStartsWith",
        "ConditionalPrice",
        "ModelInfo",
        "ModelPrice",
        "PriceVariant",
        "Provider",
        "StartDateConstraint",
        "Tier",
        "TieredPrices",
        "TimeOfDateConstraint",
    ]
)


class _NotData(ValueError):
    """Something in the module that is not plain data; the text names it."""


def find_genai_data() -> Path | None:
    """Find the data inside the installed package without importing it.

    Returns:
        Its path, or ``None`` when the package is not installed.
    """
    spec = find_spec("genai_prices")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name("data.py")
    return path if path.is_file() else None


def name_genai_data() -> str:
    """Name the installed list and its version, as rates cite it.

    Returns:
        Such as ``genai-prices 0.2.3``.
    """
    return f"genai-prices {version('genai-prices')}"


def parse_genai(text: str, file: str) -> list[object]:
    """Parse the list of providers.

    Args:
        text: Content of ``data.json``, or of the Python module.
        file: Its name; one that ends in ``.py`` is the module.

    Returns:
        Providers in the shape of the JSON form, numbers as ``Decimal`` or whole numbers.

    Raises:
        BookBroken: Neither form.
    """
    parsed = _parse_module(text, file) if file.endswith(".py") else parse_list(text, file)
    if not isinstance(parsed, list) or not parsed:
        raise BookBroken([f"{file}: a list of providers is expected"])
    return parsed


def _parse_module(text: str, file: str) -> object:
    try:
        tree = ast.parse(text)
        for node in tree.body:
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and node.target.id == "providers"
                and node.value is not None
            ):
                return _value_of(node.value)
    except (RecursionError, MemoryError):
        raise BookBroken([f"{file}: nested too deep to be a price list"]) from None
    except (SyntaxError, ValueError) as broken:
        raise BookBroken([f"{file}: {broken}"]) from None
    raise BookBroken([f"{file}: it has no list named providers"])


def _value_of(node: ast.expr) -> object:
    match node:
        case ast.Constant(value=str() | int() | None as value):
            return value
        case ast.List(elts=items):
            return [_value_of(item) for item in items]
        case ast.Dict(keys=keys, values=values):
            return {
                str(_value_of(key)): _value_of(value)
                for key, value in zip(keys, values, strict=True)
                if key is not None
            }
        case ast.Attribute(attr="UTC" | "utc"):
            return "Z"
        case ast.Call():
            return _made_by(node)
        case _:
            raise _NotData(f"line {node.lineno}: {ast.unparse(node)[:60]} is not data")


def _made_by(call: ast.Call) -> object:
    name = ast.unparse(call.func)
    arguments = [_value_of(argument) for argument in call.args]
    match name, arguments:
        case "Decimal", [str() as text]:
            return _decimal(text, call.lineno)
        case "datetime.date", [int() as year, int() as month, int() as day]:
            return f"{year:04}-{month:02}-{day:02}"
        case "datetime.time", [int(), *_] if all(isinstance(part, int) for part in arguments):
            zone = next((_value_of(word.value) for word in call.keywords), "")
            clock = ":".join(f"{part:02}" for part in [*arguments, 0, 0][:3])
            return f"{clock}{zone}"
        case _ if name in _RECORDS and not arguments:
            return {
                _KEY_OF.get(word.arg, word.arg): _value_of(word.value)
                for word in call.keywords
                if word.arg is not None and word.arg not in _SKIPPED
            }
        case _:
            raise _NotData(f"line {call.lineno}: {name} is not a call that builds data")


def _decimal(text: str, line: int) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise _NotData(f"line {line}: {text[:40]!r} is not a number") from None
