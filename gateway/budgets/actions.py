"""What a budget does beside refusing: warn, send calls to a cheaper model, slow them down. Pure.

Must never decide whether an action is due.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gateway.budgets.windows import WindowRule

THROTTLE_S_MAX: Final = 60
_BLOCK: Final = "block"
_WARN: Final = "warn"
# The model stands in a header of the answer: printable ASCII without spaces.
_FALLBACK: Final = re.compile(r"fallback:([a-z0-9._-]{1,64}/[!-~]{1,256})", re.ASCII)
_THROTTLE: Final = re.compile(r"throttle:([0-9]{1,3})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetActions:
    """What a budget does.

    Attributes:
        texts: As written.
        warns: Whether answers say that the budget is used up, or past a threshold.
        fallback: ``provider/model`` that a call goes to which the budget has no room for; ``None``
            for none.
        throttle_s: How long a call may be delayed at most, so that what is spent stays in step
            with the window; 0 for not at all.
    """

    texts: tuple[str, ...] = ()
    warns: bool = False
    fallback: str | None = None
    throttle_s: int = 0


NO_ACTIONS: Final = BudgetActions()


def parse_actions(texts: Iterable[str], mode: str, window: WindowRule) -> BudgetActions:
    """Read what a budget does.

    Args:
        texts: ``block``, ``warn``, ``fallback:<provider>/<model>`` and ``throttle:<seconds>``.
        mode: Of the budget: ``hard``, ``soft`` or ``observe``. A soft budget always warns.
        window: Of the budget.

    Returns:
        What they say together.

    Raises:
        ValueError: One is not known, is given twice, or does not go with the mode or the window.
    """
    given = tuple(texts)
    fallback: str | None = None
    throttle_s = 0
    kinds = [text.partition(":")[0] for text in given]
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"actions {list(given)} name one kind twice; give each once")
    for text in given:
        if text == _BLOCK and mode != "hard":
            raise ValueError(f"actions: block is what mode hard does, and this is mode {mode}")
        if text in (_BLOCK, _WARN):
            continue
        if found := _FALLBACK.fullmatch(text):
            fallback = _checked_fallback(found[1], mode)
        elif found := _THROTTLE.fullmatch(text):
            throttle_s = _checked_throttle(int(found[1]), window)
        else:
            raise ValueError(
                f"actions: {text!r} is not known; write block, warn, fallback:<provider>/<model> "
                "or throttle:<seconds>"
            )
    return BudgetActions(
        texts=given,
        warns=_WARN in given or mode == "soft",
        fallback=fallback,
        throttle_s=throttle_s,
    )


def _checked_fallback(model: str, mode: str) -> str:
    if mode != "hard":
        raise ValueError(f"actions: only a hard budget refuses and can fall back, not mode {mode}")
    return model


def _checked_throttle(seconds: int, window: WindowRule) -> int:
    if not 1 <= seconds <= THROTTLE_S_MAX:
        raise ValueError(f"actions: throttle is 1 to {THROTTLE_S_MAX} seconds, not {seconds}")
    if window.text == "total" or window.text.startswith("rolling"):
        raise ValueError(
            "actions: throttle needs a window with an end, such as minute or day, "
            f"not {window.text}"
        )
    return seconds
