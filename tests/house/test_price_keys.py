"""The page about prices names every price field of the litellm map, and says what the code does."""

import re
from typing import Final

from pricing.importers.keys import KEYS, KeyRule, Refused, Shaped, Supported
from tests.house.tree import ROOT

_ROW: Final = re.compile(r"^\| `([a-zA-Z0-9_.]+)` \| (\d+) \| (yes|no) \| (.*) \|$", re.MULTILINE)


def _said(rule: KeyRule) -> tuple[str, str]:
    match rule:
        case Refused(reason=reason, whole_model=whole_model):
            return "no", reason + ("; the model is left out" if whole_model else "")
        case Shaped(shape=shape):
            return "yes", shape.value
        case Supported(meter=meter, tier=tier, over=over, variant=variant, beside=beside):
            parts = [
                f"meter `{meter.value}`",
                f"tier `{tier}`" if tier != "standard" else "",
                f"band over {over:,}" if over is not None else "",
                f"variant `{variant}`" if variant is not None else "",
            ]
            text = ", ".join(part for part in parts if part)
            return "yes", text + (" where the model has another price of the meter" * beside)


def test_every_price_field_of_the_map_stands_in_the_docs() -> None:
    """One row for each, no other, and the row says what the importer does with it."""
    text = (ROOT / "docs/pricing.md").read_text("utf-8")
    rows = {key: (answer, how) for key, _, answer, how in _ROW.findall(text)}

    assert {key: _said(rule) for key, rule in KEYS.items()} == rows
