"""Cohere's billed units, turned into disjoint counts.

Must never bill the tokens of a prompt's template, and never turn a missing count into zero.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from gateway.wire.reading import ABSENT, is_given, read_quantity, try_read
from pricing.meters import Meter
from pricing.usage import Basis, Quantity, Usage, unknown_usage


class CohereUsage(msgspec.Struct):
    """The ``usage`` of a v2 chat, and the ``meta`` of everything else.

    Attributes:
        billed_units: What is billed.
        tokens: What the model read and wrote, its template and the text of tools included.
    """

    billed_units: msgspec.Raw = ABSENT
    tokens: msgspec.Raw = ABSENT


class _Units(msgspec.Struct):
    input_tokens: msgspec.Raw = ABSENT
    output_tokens: msgspec.Raw = ABSENT
    text_tokens: msgspec.Raw = ABSENT
    image_tokens: msgspec.Raw = ABSENT
    images: msgspec.Raw = ABSENT
    search_units: msgspec.Raw = ABSENT
    pages: msgspec.Raw = ABSENT
    classifications: msgspec.Raw = ABSENT


decode_usage: Final = msgspec.json.Decoder(CohereUsage).decode
_decode_units: Final = msgspec.json.Decoder(_Units).decode
_decode_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_usage(raw: CohereUsage) -> Usage | None:
    """Turn billed units into disjoint counts.

    Args:
        raw: As Cohere sent it; counts are floats.

    Returns:
        What is billed: the tokens of the model are more, as they hold the template of the prompt,
        and tokens read from the cache are billed like the rest. Basis ``none`` where Cohere says
        that nothing is billed. ``None`` where it says nothing at all.

    Source:
        https://docs.cohere.com/reference/chat and https://docs.cohere.com/docs/rate-limits for
        ``billed_units``; types ``Usage`` and ``ApiMetaBilledUnits`` of Cohere's SDK for their
        names. Checked 2026-11-23.
    """
    units = try_read(_decode_units, raw.billed_units)
    tokens = try_read(_decode_units, raw.tokens)
    if units is None:
        if is_given(raw.billed_units):
            return unknown_usage("the billed units cannot be read")
        return _from_tokens(tokens)
    given = [(name, field) for name, field in _fields_of(units) if is_given(field)]
    odd = [(name, field) for name, field in given if read_quantity(field) is None]
    if odd:
        name, field = odd[0]
        return unknown_usage(f"billed {name} is no usable count: {_shown(field)}")
    if not given:
        return unknown_usage("the billed units are empty")
    return _count(units, tokens, [f"billed {one} is new" for one in _new_units(raw.billed_units)])


def _count(units: _Units, tokens: _Units | None, doubts: list[str]) -> Usage:
    """Count units that can all be read."""
    text = _text_tokens(units, doubts)
    image = read_quantity(units.image_tokens)
    named: tuple[tuple[Meter, Quantity | None], ...] = (
        (Meter.INPUT, text),
        (Meter.INPUT_IMAGE, image),
        (Meter.OUTPUT, read_quantity(units.output_tokens)),
        # Image tokens are the size of the images: one of the two is billed.
        (Meter.IMAGE, None if image else read_quantity(units.images)),
        (Meter.SEARCH_UNIT, read_quantity(units.search_units)),
        (Meter.PAGE, read_quantity(units.pages)),
    )
    classified = read_quantity(units.classifications)
    if classified:
        doubts.append(f"billed classifications {classified} have no price here")
    doubts += _beyond_tokens(units, tokens)
    counts = {meter: count for meter, count in named if count}
    if counts:
        basis = Basis.ESTIMATED if doubts else Basis.REPORTED
        return Usage(counts=counts, basis=basis, flags=tuple(doubts))
    if doubts:
        return unknown_usage(doubts[0])
    return Usage(counts={}, basis=Basis.NONE)


def _fields_of(units: _Units) -> Iterable[tuple[str, msgspec.Raw]]:
    return ((name, getattr(units, name)) for name in units.__struct_fields__)


def _shown(field: msgspec.Raw) -> str:
    return bytes(field)[:40].decode("utf-8", "replace")


def _new_units(billed: msgspec.Raw) -> list[str]:
    """Units of a name this version does not know, above zero."""
    members = try_read(_decode_members, billed) or {}
    known = _Units.__struct_fields__
    return [
        f"{name[:40]} {count}"
        for name, field in members.items()
        if name not in known and (count := read_quantity(field))
    ]


def _text_tokens(units: _Units, doubts: list[str]) -> Quantity | None:
    """Input that is not an image: some answers tell text and images apart, some add them up."""
    total, text = read_quantity(units.input_tokens), read_quantity(units.text_tokens)
    image = read_quantity(units.image_tokens) or 0
    if total is None or text is None:
        return text if total is None else total
    if total not in (text, text + image):
        doubts.append(
            f"billed input_tokens {total} is neither text_tokens {text} nor that and image_tokens "
            f"{image}"
        )
        return max(text, total - image)
    return text


def _beyond_tokens(units: _Units, tokens: _Units | None) -> list[str]:
    """The model's own tokens hold what is billed, and the template."""
    if tokens is None:
        return []
    found = []
    for name in ("input_tokens", "output_tokens"):
        billed = read_quantity(getattr(units, name))
        seen = read_quantity(getattr(tokens, name))
        if billed is not None and seen is not None and billed > seen:
            found.append(f"billed {name} {billed} is more than the model's {seen}")
    return found


def _from_tokens(tokens: _Units | None) -> Usage | None:
    """Without billed units the model's own tokens are the most they can be."""
    if tokens is None:
        return None
    counts = {
        meter: count
        for meter, field in (
            (Meter.INPUT, tokens.input_tokens),
            (Meter.OUTPUT, tokens.output_tokens),
        )
        if (count := read_quantity(field))
    }
    if not counts:
        return unknown_usage("neither billed units nor tokens are told")
    flag = "no billed units are told: the model's tokens are billed at most"
    return Usage(counts=counts, basis=Basis.ESTIMATED, flags=(flag,))
