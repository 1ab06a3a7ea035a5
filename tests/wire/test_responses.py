"""The Responses API as it is read: bounds of requests, streams cut anywhere, odd answers.

Must never accept a bound that some use could exceed.
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.facts import Answer, Asked, BadRequest, RequestFacts
from gateway.wire.openai_responses import OpenAIResponses
from gateway.wire.openai_responses_answer import read_response
from gateway.wire.openai_responses_usage import (
    fields_of,
    read_charge,
    read_images,
    read_responses_usage,
)
from gateway.wire.tap import Tap
from pricing.meters import INPUT_METERS, OUTPUT_METERS, Meter
from pricing.usage import Basis

GOLDEN: Final = Path(__file__).parent.parent / "golden" / "openai_responses"
STREAMS: Final = sorted(GOLDEN.glob("*/reply.sse"))
FORMAT: Final = OpenAIResponses()
JUNK: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class _Head:
    """The head of an answer."""

    status = 200
    headers: Final = ()


def facts_of(**fields: Any) -> RequestFacts:
    """Read the facts of a request."""
    asked = {"model": "gpt-5", "input": "Hello world", **fields}
    return FORMAT.read_facts(Asked(body=json.dumps(asked).encode()))


def lane_of() -> Tap:
    """Open a stream."""
    return FORMAT.open_stream(facts_of(), _Head())


def fed(pieces: list[bytes]) -> tuple[Answer, bytes]:
    """Feed a stream in pieces."""
    lane = lane_of()
    passed = b"".join([lane.feed(piece) for piece in pieces])
    return lane.answer, passed + lane.finish()


# -- requests ------------------------------------------------------------------------------------


def test_a_text_bounds_its_tokens() -> None:
    """Never fewer than its bytes."""
    facts = facts_of(input="x" * 1000, max_output_tokens=64)

    assert facts.input_tokens_max is not None
    assert facts.input_tokens_max >= 1000
    assert (64, 1) == (facts.output_tokens_max, facts.rounds)


@pytest.mark.parametrize(
    "fields",
    [
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"prompt": {"id": "pmpt_1"}},
        {"context_management": [{"type": "compaction"}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_text", "image_url": "x"}]}]},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"input": [{"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}]},
        {"input": [{"type": "function_call_output", "output": [{"type": "input_image"}]}]},
        {"tools": [{"type": "web_search"}], "max_tool_calls": 1},
        {"tools": [{"type": "computer_use_preview"}]},
    ],
    ids=str,
)
def test_what_its_bytes_do_not_tell_is_not_bounded_by_them(fields: dict[str, Any]) -> None:
    """Earlier turns, files, images, and what tools add."""
    assert facts_of(**fields).input_tokens_max is None


@pytest.mark.parametrize(
    "body",
    [
        b'[{"type":"item_reference","type":"message","id":"m","content":"hi"}]',
        b'[{"content":[{"type":"input_image","file_id":"f"}],"content":"hi","role":"user"}]',
        b'[{"content":[{"type":"input_image","type":"input_text","text":"hi"}],"role":"user"}]',
        b'[{"\\u0074ype":"item_reference","type":"message","content":"hi"}]',
    ],
)
def test_an_item_that_says_two_things_is_not_bounded(body: bytes) -> None:
    """Another reader may take the other one."""
    facts = FORMAT.read_facts(Asked(body=b'{"model":"gpt-5","input":' + body + b"}"))

    assert facts.input_tokens_max is None


def test_a_conversation_of_texts_is_bounded() -> None:
    """Items with parts, calls and their outputs."""
    items = [
        {"role": "user", "content": "Hi\u00e4"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a\nb"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"type": 1}'},
        {"type": "function_call_output", "call_id": "c", "output": "done"},
    ]
    tools = [{"type": "function", "name": "f", "parameters": {"type": "object"}}]
    body = json.dumps({"model": "m", "input": items, "tools": tools}).encode()

    assert FORMAT.read_facts(Asked(body=body)).input_tokens_max == len(body) + 512
    prompt = FORMAT.read_prompt(Asked(body=body))
    assert prompt is not None
    assert {"Hi\u00e4", "a\nb", "f", "done"} <= set(prompt)


@pytest.mark.parametrize(
    ("tools", "limit", "rounds", "searches"),
    [
        (["web_search"], None, None, None),
        (["web_search"], 3, 4, 3),
        (["web_search_preview", "function"], 2, 3, 2),
        (["mcp"], 2, 3, None),
        (["file_search"], 0, 1, None),
        (["image_generation"], 2, None, None),
        (["code_interpreter"], 2, None, None),
        (["something_new"], None, None, None),
        (["function", "custom"], None, 1, None),
    ],
)
def test_tools_of_the_provider_are_bounded_by_their_number_alone(
    tools: list[str], limit: int | None, rounds: int | None, searches: int | None
) -> None:
    """``max_tool_calls`` bounds prompts read and searches; without it nothing does."""
    facts = facts_of(tools=[{"type": kind} for kind in tools], max_tool_calls=limit)

    assert (rounds, searches) == (facts.rounds, facts.fees.get(Meter.WEB_SEARCH))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{", "not JSON"),
        (b"[]", "not a request"),
        (b'{"input":"x"}', "name the model"),
        (b'{"model":"a","model":"b","input":"x"}', "more than once"),
        (b'{"model":"a","input":"x","input":[]}', "more than once"),
        (b'{"model":"a","models":["b"],"input":"x"}', "fall back"),
        (b'{"model":"a","input":7}', "neither a text"),
        (b'{"model":"a","input":"x","tools":"y"}', "not tools"),
        (b'{"model":"%b","input":"x"}' % (b"a" * 300), "longer than"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(body: bytes, told: str) -> None:
    """And what two readers could read differently."""
    with pytest.raises(BadRequest, match=told):
        FORMAT.read_facts(Asked(body=body))


def test_the_model_alone_is_rewritten() -> None:
    """Bytes around it stay."""
    body = b'{ "input":"model", "model" :"openai/gpt-5","x":1e5}'
    asked = Asked(body=body)

    sent = FORMAT.prepare_body(asked, FORMAT.read_facts(asked), "gpt-5")
    assert body.replace(b'"openai/gpt-5"', b'"gpt-5"') == sent


# -- streams -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.parent.name)
@given(cuts=st.lists(st.integers(0, 6000), max_size=8))
def test_a_stream_may_be_cut_anywhere(path: Path, cuts: list[int]) -> None:
    """The same use, the same bytes."""
    body = path.read_bytes()
    edges = [0, *sorted(cut for cut in cuts if cut < len(body)), len(body)]
    pieces = [body[start:end] for start, end in pairwise(edges)]

    answer, passed = fed([piece for piece in pieces if piece])
    whole, _ = fed([body])

    assert body == passed
    assert (whole.usage, whole.text_chars, whole.tier) == (
        answer.usage,
        answer.text_chars,
        answer.tier,
    )


@given(body=st.binary(max_size=400))
def test_garbage_never_raises_and_passes(body: bytes) -> None:
    """Whatever comes."""
    _, passed = fed([body]) if body else (None, body)
    read_response(body)

    assert body == passed


@given(fields=st.dictionaries(st.sampled_from(["id", "usage", "output", "tools"]), JUNK))
def test_odd_fields_hide_nothing_beside_them(fields: dict[str, Any]) -> None:
    """Model and tier are read however odd the rest is."""
    body = json.dumps({**fields, "model": "m", "service_tier": "flex"}).encode()

    answer = read_response(body)

    assert ("m", "flex") == (answer.model, answer.tier)


def test_the_end_of_a_huge_answer_waits_and_is_read() -> None:
    """A terminal event of a megabyte on one line passes in pieces, but for its end."""
    events = (GOLDEN / "streamed" / "reply.sse").read_bytes()
    huge = events.replace(b"Fine, thanks.", b"x" * 1_000_000)
    lane = lane_of()
    pieces = [huge[at : at + 65_536] for at in range(0, len(huge), 65_536)]

    passed = b"".join([lane.feed(piece) for piece in pieces])

    assert not passed.endswith(b"\n\n")
    assert lane.answer.usage is not None
    assert huge == passed + lane.finish()


# -- usage ---------------------------------------------------------------------------------------

COUNTS: Final = st.integers(0, 10**7)


@given(parts=st.tuples(*[COUNTS] * 6))
def test_disjoint_counts_add_up(parts: tuple[int, ...]) -> None:
    """To the provider's own totals, whatever the parts."""
    plain, cached, short, long, shown, thought = parts
    tokens_in, tokens_out = plain + cached + short + long, shown + thought
    usage = read_responses_usage(
        {
            "input_tokens": tokens_in,
            "output_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
            "input_tokens_details": {
                "cached_tokens": cached,
                "cache_write_tokens": short + long,
                "cache_write_tokens_details": {"ttl_30m_tokens": short, "ttl_12h_tokens": long},
            },
            "output_tokens_details": {"reasoning_tokens": thought},
        }
    )

    assert Basis.REPORTED is usage.basis
    assert tokens_in == sum(n for meter, n in usage.counts.items() if meter in INPUT_METERS)
    assert tokens_out == sum(n for meter, n in usage.counts.items() if meter in OUTPUT_METERS)
    assert short == usage.counts.get(Meter.CACHE_WRITE, 0)
    assert long == usage.counts.get(Meter.CACHE_WRITE_12H, 0)


@pytest.mark.parametrize(("short", "long"), [(0, 9), (-1, 3), (1, 3), (9, 9)])
def test_writes_that_contradict_themselves_keep_the_total(short: int, long: int) -> None:
    """And are estimates, with both numbers in a flag."""
    writes = {"ttl_30m_tokens": short, "ttl_12h_tokens": long}
    usage = read_responses_usage(
        {
            "input_tokens": 10,
            "output_tokens": 1,
            "input_tokens_details": {"cache_write_tokens": 5, "cache_write_tokens_details": writes},
        }
    )

    assert Basis.ESTIMATED is usage.basis
    assert 10 == usage.input_total
    assert [flag for flag in usage.flags if f"{long} for 12 h" in flag]


@given(usage=JUNK)
def test_odd_usage_never_raises(usage: Any) -> None:
    """It is unknown or it is a count, never a crash."""
    answer = read_response(json.dumps({"id": "r", "usage": usage, "output": []}).encode())
    read_charge(fields_of(usage))

    assert answer.usage is None or answer.usage.basis in Basis


# -- what tools are billed by --------------------------------------------------------------------


def test_images_are_the_bill_of_another_model() -> None:
    """Apart from the tokens of the model that asked for them."""
    images = {
        "input_tokens": 100,
        "input_tokens_details": {"image_tokens": 60, "text_tokens": 40},
        "output_tokens": 1056,
        "total_tokens": 1156,
    }
    answer = read_response(
        json.dumps(
            {
                "id": "r",
                "status": "completed",
                "output": [],
                "tools": [{"type": "image_generation", "model": "gpt-image-2"}],
                "tool_usage": {"image_gen": images, "web_search": {"num_requests": 0}},
                "usage": {"input_tokens": 5, "output_tokens": 5, "total_tokens": 10},
            }
        ).encode()
    )

    (other,) = answer.others
    assert "gpt-image-2" == other.model
    assert {Meter.INPUT: 40, Meter.INPUT_IMAGE: 60, Meter.OUTPUT_IMAGE: 1056} == other.usage.counts
    assert answer.usage is not None
    assert {Meter.INPUT: 5, Meter.OUTPUT: 5} == answer.usage.counts
    assert answer.tells_fees


@pytest.mark.parametrize("used", [None, {}, {"image_gen": None}, {"image_gen": {}}])
def test_no_images_are_no_bill(used: dict[str, Any] | None) -> None:
    """Nor is an empty one."""
    assert read_images(used, None) is None


@pytest.mark.parametrize(
    ("container", "previous", "sold", "basis"),
    [
        ({"type": "auto"}, None, 2, Basis.REPORTED),
        ({"type": "auto"}, "resp_0", 2, Basis.ESTIMATED),
        ("cntr_1", None, 0, None),
    ],
)
def test_containers_that_were_made_are_sold_one_by_one(
    container: Any, previous: str | None, sold: int, basis: Basis | None
) -> None:
    """One that the request names was paid for before."""
    calls = [
        {"type": "code_interpreter_call", "container_id": name, "code": "1"}
        for name in ("cntr_1", "cntr_1", "cntr_2")
    ]
    answer = read_response(
        json.dumps(
            {
                "id": "r",
                "status": "completed",
                "previous_response_id": previous,
                "output": calls,
                "tools": [{"type": "code_interpreter", "container": container}],
                "usage": {"input_tokens": 5, "output_tokens": 5, "total_tokens": 10},
            }
        ).encode()
    )

    assert sold == sum(one.usage.counts[Meter.REQUEST] for one in answer.others)
    assert [basis] * bool(sold) == [one.usage.basis for one in answer.others]


def test_file_searches_are_flagged() -> None:
    """The book has no price for them."""
    body = {"id": "r", "output": [{"type": "file_search_call"}], "usage": None}

    assert ("1 file searches are billed apart and have no price here",) == read_response(
        json.dumps(body).encode()
    ).flags


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        ({"cost_in_usd_ticks": 158500}, "0.00001585"),
        ({"cost": 0.00014}, "0.00014"),
        ({"cost": {"total_cost": 0.006}}, "0.006"),
        ({"cost": 0.01, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.2}}, "0.21"),
        ({"cost": "free"}, "None"),
        ({}, "None"),
    ],
)
def test_what_a_provider_says_it_charges(usage: dict[str, Any], cost: str) -> None:
    """In dollars, exactly as written."""
    assert cost == str(read_charge(usage))


@pytest.mark.parametrize("kind", [{}, {"type": "message"}, {"type": None}], ids=str)
def test_an_item_that_is_an_id_stands_for_one_that_is_kept(kind: dict[str, Any]) -> None:
    """A reference need not say that it is one, and what it stands for may be long."""
    spoken = {**kind, "role": "user", "content": "Hello"}

    assert facts_of(input=[{**kind, "id": "msg_1"}]).input_tokens_max is None
    assert facts_of(input=[{**kind, "id": "msg_1", "content": None}]).input_tokens_max is None
    assert facts_of(input=[{**spoken, "id": "msg_1"}]).input_tokens_max is not None


def test_a_tool_that_could_be_read_in_two_ways_is_refused() -> None:
    """One reader finds a function where another one searches."""
    body = b'{"model":"gpt-5","input":"x","tools":[{"type":"web_search","type":"function"}]}'
    with pytest.raises(BadRequest, match="more than once"):
        FORMAT.read_facts(Asked(body=body))
