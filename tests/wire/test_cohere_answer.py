"""Cohere's answers: billed units, whatever stands beside them and wherever a stream is cut."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.cohere_answer import ChatFold, V1Fold, read_answer
from gateway.wire.cohere_usage import decode_usage, read_usage
from gateway.wire.cutters import LineCutter, SseCutter, json_of
from gateway.wire.sse import data_of
from gateway.wire.tap import Tap
from pricing.meters import Meter
from pricing.usage import Basis, Usage
from tests.wire.sse_reference import cut
from tests.wire.streams import ODD_VALUES, places_of, replaced, run, streams_of, wholes_of

V2 = streams_of("cohere_chat")
V1 = streams_of("cohere_v1")
WHOLES = wholes_of("cohere_chat", "cohere_v1", "cohere_calls")


def lane_of(name: str) -> Tap:
    """A lane for a golden stream."""
    if name in V2:
        return Tap(SseCutter(), ChatFold())
    is_events = V1[name].startswith(b"event:")
    return Tap(SseCutter(), V1Fold(data_of)) if is_events else Tap(LineCutter(), V1Fold(json_of))


def usage_of(meta: dict[str, Any]) -> Usage | None:
    """Read a usage object."""
    return read_usage(decode_usage(json.dumps(meta).encode()))


@pytest.mark.parametrize("name", [*V2, *V1])
@given(borders=st.lists(st.integers(0, 3000)))
def test_a_stream_says_the_same_wherever_it_is_cut(name: str, borders: list[int]) -> None:
    """Bytes passed, bytes held, units and text."""
    stream = {**V2, **V1}[name]
    whole = run(lane_of(name), [stream])
    again = run(lane_of(name), cut(stream, borders))

    assert stream == whole[0] + whole[1]
    assert whole == again


@pytest.mark.parametrize("name", [*V2, *V1])
@given(garbage=st.binary(max_size=60), at=st.integers(0, 3000))
def test_garbage_in_a_stream_raises_nothing(name: str, garbage: bytes, at: int) -> None:
    """And passes."""
    stream = {**V2, **V1}[name]
    torn = stream[:at] + garbage + stream[at:]
    passed, held, _ = run(lane_of(name), cut(torn, [at, at + len(garbage)]))

    assert torn == passed + held


@given(st.sampled_from([*WHOLES.values()]), st.data(), ODD_VALUES)
def test_an_odd_field_never_hides_the_units_beside_it(
    answer: dict[str, Any], data: st.DataObject, odd: Any
) -> None:
    """Whatever one field says, the units are read unless it is theirs."""
    path = data.draw(st.sampled_from([*places_of(answer)]))
    before = read_answer(json.dumps(answer).encode())
    after = read_answer(json.dumps(replaced(answer, path, odd)).encode())

    if path[0] not in ("usage", "meta"):
        assert before.usage == after.usage


@given(st.sampled_from([*V2]), st.data(), ODD_VALUES)
def test_an_odd_event_never_hides_the_units_of_the_last(
    name: str, data: st.DataObject, odd: Any
) -> None:
    """Every event but the fields of the units themselves may be odd."""
    events = [data_of(event + b"\n\n") or b"" for event in V2[name].split(b"\n\n") if event]
    values = [json.loads(event) for event in events if event.endswith(b"}")]
    number = data.draw(st.integers(0, len(values) - 1))
    path = data.draw(st.sampled_from([*places_of(values[number])]))
    spoilt = [*values]
    spoilt[number] = replaced(values[number], path, odd)
    is_last = values[number]["type"] == "message-end"
    read = run(
        lane_of(name), [b"data: " + json.dumps(value).encode() + b"\n\n" for value in spoilt]
    )[2]
    plain = run(
        lane_of(name), [b"data: " + json.dumps(value).encode() + b"\n\n" for value in values]
    )[2]

    if not (is_last and path[0] in ("type", "delta") and path[1:2] != ("finish_reason",)):
        assert plain["counts"] == read["counts"]


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.integers(0, 10**9) | st.floats(0, 10**9, allow_nan=False)
            for name in ("input_tokens", "output_tokens", "search_units", "pages", "images")
        },
    )
)
def test_counts_are_the_billed_units(units: dict[str, float]) -> None:
    """Each once, whole where it is whole, never rounded."""
    usage = usage_of({"billed_units": units})
    assert usage is not None
    meters = {
        "input_tokens": Meter.INPUT,
        "output_tokens": Meter.OUTPUT,
        "search_units": Meter.SEARCH_UNIT,
        "pages": Meter.PAGE,
        "images": Meter.IMAGE,
    }

    assert {meters[name]: Decimal(json.dumps(n)) for name, n in units.items() if n} == dict(
        usage.counts
    )


@pytest.mark.parametrize(
    ("meta", "counts", "basis"),
    [
        pytest.param({}, None, None, id="nothing said"),
        pytest.param({"billed_units": None}, None, None, id="null"),
        pytest.param({"billed_units": {}}, {}, Basis.UNKNOWN, id="empty"),
        pytest.param({"billed_units": 7}, {}, Basis.UNKNOWN, id="no object"),
        pytest.param({"billed_units": {"input_tokens": -1}}, {}, Basis.UNKNOWN, id="negative"),
        pytest.param({"billed_units": {"input_tokens": "NaN"}}, {}, Basis.UNKNOWN, id="no number"),
        pytest.param({"billed_units": {"input_tokens": 1e300}}, {}, Basis.UNKNOWN, id="huge"),
        pytest.param(
            {"billed_units": {"input_tokens": "12", "output_tokens": 3.0}},
            {Meter.INPUT: 12, Meter.OUTPUT: 3},
            Basis.REPORTED,
            id="text and float",
        ),
        pytest.param({"billed_units": {"output_tokens": 0}}, {}, Basis.NONE, id="nothing billed"),
        pytest.param(
            {"billed_units": {"classifications": 3}}, {}, Basis.UNKNOWN, id="without a price"
        ),
        pytest.param({"billed_units": {"dreams": 3}}, {}, Basis.UNKNOWN, id="of a new kind"),
        pytest.param(
            {"billed_units": {"input_tokens": 2, "dreams": 3}},
            {Meter.INPUT: 2},
            Basis.ESTIMATED,
            id="a new kind beside others",
        ),
        pytest.param(
            {"billed_units": {"text_tokens": 3, "image_tokens": 5}},
            {Meter.INPUT: 3, Meter.INPUT_IMAGE: 5},
            Basis.REPORTED,
            id="text and images",
        ),
        pytest.param(
            {"billed_units": {"input_tokens": 3, "image_tokens": 5}},
            {Meter.INPUT: 3, Meter.INPUT_IMAGE: 5},
            Basis.REPORTED,
            id="images beside the input",
        ),
        pytest.param(
            {"billed_units": {"input_tokens": 8, "text_tokens": 3, "image_tokens": 5, "images": 1}},
            {Meter.INPUT: 3, Meter.INPUT_IMAGE: 5},
            Basis.REPORTED,
            id="images inside the input",
        ),
        pytest.param(
            {"billed_units": {"input_tokens": 9, "text_tokens": 3, "image_tokens": 5}},
            {Meter.INPUT: 4, Meter.INPUT_IMAGE: 5},
            Basis.ESTIMATED,
            id="a sum that is none",
        ),
        pytest.param(
            {"tokens": {"input_tokens": 9}}, {Meter.INPUT: 9}, Basis.ESTIMATED, id="tokens alone"
        ),
        pytest.param({"tokens": {}}, {}, Basis.UNKNOWN, id="empty tokens"),
    ],
)
def test_units_are_read_by_what_they_say(
    meta: dict[str, Any], counts: dict[Meter, int] | None, basis: Basis | None
) -> None:
    """Unknown is never zero, and a contradiction is never settled in silence."""
    usage = usage_of(meta)

    assert counts == (None if usage is None else dict(usage.counts))
    assert basis == (None if usage is None else usage.basis)
    if usage is not None:
        assert bool(usage.flags) == (basis in (Basis.UNKNOWN, Basis.ESTIMATED))


def test_an_error_is_no_answer() -> None:
    """A message that is text says what went wrong; one that is an object is the answer."""
    assert read_answer(b'{"message":"no such model"}').is_error
    assert not read_answer(b'{"message":{"content":[{"type":"text","text":"Hi"}]}}').is_error
    assert not read_answer(b"[]").is_readable
    assert not read_answer(b"\xff").is_readable


def test_a_stream_may_end_with_a_word_of_its_own() -> None:
    """Some send ``[DONE]`` after the last event: it waits with it."""
    lane = Tap(SseCutter(), ChatFold())

    assert b"" == lane.feed(b"data: [DONE]\n\n")
    assert lane.is_holding
