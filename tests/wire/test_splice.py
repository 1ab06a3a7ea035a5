"""Members of a JSON object are found by a scan, and only the span named is replaced."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.splice import (
    MEMBERS_MAX,
    SMALL_BYTES,
    STEPS_MAX,
    Crowded,
    refuse_crowds,
    replace_spans,
    scan_members,
)

text = st.text(max_size=12) | st.sampled_from(
    ["model", "stream_options", 'a"b', "\\", '\\"', "{", "}", "[,]", ":", "\u2028", "😀"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=10,
)
blank = st.text(alphabet=" \t\r\n", max_size=2)


@st.composite
def spelt_objects(draw: st.DrawFn) -> bytes:
    """Spell an object as nobody's serialiser would: odd blanks, escapes, repeated names."""
    is_ascii = draw(st.booleans())
    spelt = []
    for name, value in draw(st.lists(st.tuples(text, values), max_size=6)):
        quoted = json.dumps(name, ensure_ascii=is_ascii)
        inside = json.dumps(value, ensure_ascii=is_ascii, indent=draw(st.sampled_from([None, 1])))
        spelt.append(draw(blank) + quoted + draw(blank) + ":" + draw(blank) + inside + draw(blank))
    return (draw(blank) + "{" + (",".join(spelt) or draw(blank)) + "}" + draw(blank)).encode()


@given(spelt_objects())
def test_a_scan_finds_what_a_parser_finds(body: bytes) -> None:
    """Names and values are those of ``json.loads``, in order, repeats included."""
    found = [(m.name, json.loads(body[m.start : m.end])) for m in scan_members(body)]

    assert json.loads(body, object_pairs_hook=_Pairs) == _as_pairs(found)


@given(spelt_objects(), st.data())
def test_a_replacement_changes_its_span_only(body: bytes, data: st.DataObject) -> None:
    """Every other byte stays, and every other member reads the same."""
    members = scan_members(body)
    chosen = [m for m in members if data.draw(st.booleans())]
    edits = data.draw(st.permutations([(m.start, m.end, b'"new"') for m in chosen]))

    changed = replace_spans(body, edits)

    assert [m.name for m in members] == [m.name for m in scan_members(changed)]
    for before, after in zip(members, scan_members(changed), strict=True):
        kept = body[before.start : before.end]
        assert (b'"new"' if before in chosen else kept) == changed[after.start : after.end]
    outside = _outside(body, [(m.start, m.end) for m in chosen])
    spans = [
        (a.start, a.end) for b, a in zip(members, scan_members(changed), strict=True) if b in chosen
    ]
    assert outside == _outside(changed, spans)


@pytest.mark.parametrize("body", [b"{}", b" { } ", b"{\n}\n"])
def test_an_empty_object_has_no_members(body: bytes) -> None:
    """Nothing is found in nothing."""
    assert () == scan_members(body)


def test_braces_and_quotes_in_strings_do_not_count() -> None:
    """Strings are taken whole."""
    body = b'{"a":"}\\"},{","b\\u0063":[{"a":1}],"d":{"a":{"e":"]"}}}'

    assert ["a", "bc", "d"] == [m.name for m in scan_members(body)]


def test_a_long_string_is_scanned_once() -> None:
    """A megabyte of backslashes or of an unclosed string does not take quadratic time."""
    body = b'{"a":"' + b"\\\\" * 500_000 + b'","model":"m"}'

    assert ["a", "model"] == [m.name for m in scan_members(body)]
    assert () == scan_members(b'{"' + b"\\" * 1_000_000)


DEEP = b"[[[[[[1]]]]]],"
CROWDS = {
    "members": b"{" + b'"":1,' * (MEMBERS_MAX + 1) + b'"model":"m"}',
    "levels in levels": b'{"a":[' + DEEP * STEPS_MAX + b"1]}",
    "one deep hole": b'{"a":' + b"[" * STEPS_MAX + b"]" * STEPS_MAX + b"}",
    "members of what is looked into": b'{"generationConfig":{' + b'"":1,' * 20_000 + b'"a":1}}',
    "in the other spelling": b'{"generation_config":{' + b'"":1,' * 20_000 + b'"a":1}}',
}


@pytest.mark.parametrize("body", CROWDS.values(), ids=CROWDS)
def test_a_scan_does_not_take_more_than_so_many_steps(body: bytes) -> None:
    """A body made to keep everybody waiting is refused."""
    with pytest.raises(Crowded, match="more than 16384 fields in one object"):
        refuse_crowds(body)


@pytest.mark.parametrize(
    "body",
    [
        b"{" + b",".join([b'"":1'] * MEMBERS_MAX) + b"}",
        b'{"messages":[' + b'{"role":"user","content":[{"text":"a, b: c"}]},' * 50_000 + b"1]}",
        b'{"logit_bias":{' + b'"1":1,' * 50_000 + b'"2":1}}',
        b'{"input":[' + b"[1,2,3]," * 50_000 + b"[]]}",
        b"--form\r\n" + b'{"":1,' * 50_000,
    ],
    ids=["many members", "many messages", "a large map", "many prompts", "a form"],
)
def test_what_is_only_large_is_not_refused(body: bytes) -> None:
    """Long conversations and lists are no crowds."""
    refuse_crowds(body)


@pytest.mark.parametrize("crowd", [b'"":1,', b'"":,', b"[[[[[[", b",", b'"":{},'])
def test_nothing_small_is_a_crowd(crowd: bytes) -> None:
    """So what was looked at before it was let in is never refused later."""
    scan_members((b"{" + crowd * SMALL_BYTES)[:SMALL_BYTES])


class _Pairs(list[tuple[str, object]]):
    """An object as pairs, so that a repeated name is not lost."""


def _as_pairs(found: list[tuple[str, object]]) -> _Pairs:
    return _Pairs((name, _deep(value)) for name, value in found)


def _deep(value: object) -> object:
    if isinstance(value, dict):
        return _Pairs((name, _deep(inner)) for name, inner in value.items())
    return [_deep(inner) for inner in value] if isinstance(value, list) else value


def _outside(body: bytes, spans: list[tuple[int, int]]) -> list[bytes]:
    places = [0, *(place for span in sorted(spans) for place in span), len(body)]
    return [body[places[i] : places[i + 1]] for i in range(0, len(places), 2)]
