"""Values as Grafana writes them, by unit.

Must never round a value to nothing: small ones keep two digits that count.
"""

from typing import Final

_STEPS: Final = ((1e9, "Bil"), (1e6, "Mil"), (1e3, "K"))


def told(value: object, unit: str, decimals: int | None = None) -> str:
    """Write a value for people.

    Args:
        value: A number; anything else is written as it is, nothing as a dash.
        unit: Grafana's name of it.
        decimals: Digits after the point; ``None`` for as many as count.

    Returns:
        Text.
    """
    if not isinstance(value, int | float):
        return "-" if value is None else str(value)
    match unit:
        case "currencyUSD":
            return f"${_number(value, 2 if decimals is None else decimals)}"
        case "percentunit":
            return f"{_number(value * 100, 1 if decimals is None else decimals)}%"
        case "s":
            return _seconds(value)
        case "reqps":
            return f"{_number(value, 1)} req/s"
        case _:
            pass
    return _number(value, 0 if float(value).is_integer() else decimals)


def _number(value: float, decimals: int | None) -> str:
    for size, name in _STEPS:
        if abs(value) >= size:
            return f"{value / size:.2f} {name}"
    if value and decimals is not None and abs(value) < 0.5 * 10**-decimals:
        return f"{value:.2g}"
    return f"{value:.3g}" if decimals is None else f"{value:.{decimals}f}"


def _seconds(value: float) -> str:
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"), (1e-3, "ms")):
        if abs(value) >= size:
            return f"{value / size:.3g} {name}"
    return f"{value * 1e6:.3g} µs" if value else "0 s"
