"""Mistral's further answers: conversations, pages, seconds and batches, however they come."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.facts import Asked, BadRequest, RequestFacts, StreamLane
from gateway.wire.fetched import FetchedLane
from gateway.wire.mistral_batches import MistralFree, MistralResultsFold
from gateway.wire.mistral_conversations import read_conversation_usage
from gateway.wire.mistral_documents import MistralOcr, MistralSpeech, MistralTranscription
from gateway.wire.mistral_text import MistralAgent, MistralFim, MistralJudge
from gateway.wire.table import ENDPOINTS
from pricing.meters import Meter
from pricing.usage import Basis
from tests.wire.chat import OK
from tests.wire.sse_reference import cut
from tests.wire.streams import (
    GOLDEN,
    ODD_VALUES,
    places_of,
    replaced,
    run,
    shown,
    streams_of,
    wholes_of,
)

STREAMS = streams_of("mistral_text", "mistral_conversations", "mistral_documents")
WHOLES = wholes_of("mistral_conversations", "mistral_documents")
JUDGE = MistralJudge("mistral.moderations")


def address_of(name: str) -> str:
    """The address of a golden case."""
    about = json.loads((GOLDEN / name.partition("/")[0] / "about.json").read_text())
    own = GOLDEN / name / "about.json"
    if own.exists():
        about |= json.loads(own.read_text())
    return str(about["path"]).removeprefix("/mistral/v1")


def format_of(name: str) -> Any:
    """The wire format of a golden case."""
    found = None
    for method in ("POST", "GET"):
        try:
            found = found or ENDPOINTS.find("mistral", method, address_of(name))
        except LookupError:
            continue
    assert found is not None
    return found.endpoint.format


def facts_of(**fields: Any) -> RequestFacts:
    """Facts of a request."""
    plain = MistralFim().read_facts(Asked(body=b'{"model":"m","prompt":"p"}'))
    return msgspec.structs.replace(plain, **fields)


def lane_of(name: str) -> StreamLane:
    """A lane for a golden stream."""
    lane: StreamLane = format_of(name).open_stream(facts_of(fees={Meter.CHARACTER: 11}), OK)
    return lane


@pytest.mark.parametrize("name", STREAMS)
@given(borders=st.lists(st.integers(0, 3000)))
def test_a_stream_says_the_same_wherever_it_is_cut(name: str, borders: list[int]) -> None:
    """Bytes passed, bytes held, counts and text."""
    stream = STREAMS[name]
    whole = run(lane_of(name), [stream])

    assert stream == whole[0] + whole[1]
    assert whole == run(lane_of(name), cut(stream, borders))


@pytest.mark.parametrize("name", STREAMS)
@given(garbage=st.binary(max_size=60), at=st.integers(0, 3000))
def test_garbage_in_a_stream_raises_nothing(name: str, garbage: bytes, at: int) -> None:
    """And passes."""
    torn = STREAMS[name][:at] + garbage + STREAMS[name][at:]
    passed, held, _ = run(lane_of(name), cut(torn, [at, at + len(garbage)]))

    assert torn == passed + held


@given(st.sampled_from([*WHOLES]), st.data(), ODD_VALUES)
def test_an_odd_field_never_hides_the_counts_beside_it(
    name: str, data: st.DataObject, odd: Any
) -> None:
    """Whatever one field says, the counts are read unless it is theirs."""
    answer, wire_format, facts = WHOLES[name], format_of(name), facts_of()
    path = data.draw(st.sampled_from([*places_of(answer)]))
    before = wire_format.read_whole(json.dumps(answer).encode(), facts, OK)
    after = wire_format.read_whole(json.dumps(replaced(answer, path, odd)).encode(), facts, OK)

    if path[0] not in ("usage", "usage_info", "outputs"):
        assert before.usage == after.usage


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_counts_of_a_conversation_add_up_to_its_total(
    prompt: int, output: int, extra: int, cached: int
) -> None:
    """What connectors read is input; what came from the cache is part of the prompt."""
    usage = read_conversation_usage(
        json.dumps(  # type: ignore[arg-type]
            {
                "prompt_tokens": prompt,
                "completion_tokens": output,
                "total_tokens": prompt + output + extra,
                "connector_tokens": extra,
                "prompt_tokens_details": {"cached_tokens": min(cached, prompt)},
            }
        ).encode()
    )

    assert (prompt + extra, output) == usage.totals()
    assert min(cached, prompt) == usage.counts.get(Meter.CACHE_READ, 0)
    assert Basis.REPORTED == usage.basis


@pytest.mark.parametrize(
    ("usage", "basis"),
    [
        (b"[]", Basis.UNKNOWN),
        (b"{}", Basis.UNKNOWN),
        (b'{"prompt_tokens": -1, "completion_tokens": 2}', Basis.UNKNOWN),
        (b'{"prompt_tokens": "7", "completion_tokens": 2.0}', Basis.REPORTED),
        (b'{"prompt_tokens": 7, "completion_tokens": 2, "connectors": {"x": 0}}', Basis.REPORTED),
        (b'{"prompt_tokens": 7, "completion_tokens": 2, "connectors": {"x": 1}}', Basis.ESTIMATED),
    ],
)
def test_usage_of_a_conversation_is_read_by_what_it_says(usage: bytes, basis: Basis) -> None:
    """Unknown is never zero, and calls without a price are said."""
    read = read_conversation_usage(usage)  # type: ignore[arg-type]

    assert basis == read.basis
    assert bool(read.flags) == (basis is not Basis.REPORTED)


@given(st.lists(st.integers(0, 2000)))
def test_results_of_a_batch_add_up_wherever_they_are_cut(borders: list[int]) -> None:
    """At the batch tier, once for a file; half a file is a part."""
    results = (GOLDEN / "mistral_batches/results/reply.bin").read_bytes()
    lane, broken = (FetchedLane(MistralResultsFold(), "file_9") for _ in range(2))
    passed = b"".join([lane.feed(chunk) for chunk in cut(results, borders)])
    broken.feed(results[:-5])
    broken.finish(is_broken=True)

    assert results == passed + lane.finish()
    assert {"input": 30, "output": 15} == shown(lane.answer)["counts"]
    assert ("batch", "file_9") == (lane.answer.tier, lane.answer.once)
    assert broken.answer.usage is not None
    assert Basis.PARTIAL is broken.answer.usage.basis


FORMATS: list[tuple[Callable[[Asked], RequestFacts], dict[str, Any]]] = [
    (MistralFim().read_facts, {"model": "m", "prompt": "p"}),
    (MistralAgent().read_facts, {"agent_id": "a", "messages": []}),
    (JUDGE.read_facts, {"model": "m", "input": "x"}),
    (MistralOcr().read_facts, {"model": "m", "document": {}}),
    (MistralSpeech().read_facts, {"model": "m", "input": "x"}),
]


@pytest.mark.parametrize(("read", "asked"), FORMATS)
def test_a_body_that_could_be_read_in_two_ways_is_refused(
    read: Callable[[Asked], RequestFacts], asked: dict[str, Any]
) -> None:
    """Before anything is sent."""
    first = next(iter(asked))
    plain = json.dumps(asked).encode()
    twice = plain[:-1] + b', "%b": "other"}' % first.encode()
    odd = [b"", b"[]", b"{}", b"{", plain.replace(b'"m"', b"7").replace(b'"a"', b"7"), twice]

    assert asked[first] == read(Asked(body=plain)).model
    for body in odd:
        with pytest.raises(BadRequest):
            read(Asked(body=body))


@pytest.mark.parametrize(
    ("fields", "pages", "make"),
    [
        ({}, 1000, "plain"),
        ({"pages": [0, 3, 4]}, 3, "plain"),
        ({"pages": "0-4"}, 1000, "plain"),
        ({"document": {"type": "image_url", "image_url": "x"}}, 1, "plain"),
        ({"bbox_annotation_format": {"type": "json_schema"}}, 1000, "annotated"),
        ({"document_annotation_format": {}}, 1000, "annotated"),
        ({"document_annotation_format": None}, 1000, "plain"),
    ],
)
def test_pages_are_held_as_many_as_there_can_be(
    fields: dict[str, Any], pages: int, make: str
) -> None:
    """And in the make they are asked for."""
    body = json.dumps({"model": "m", "document": {"type": "document_url"}} | fields).encode()
    facts = MistralOcr().read_facts(Asked(body=body))

    assert ({Meter.PAGE: pages}, {Meter.PAGE: make}) == (facts.fees, facts.variants)


def form(**fields: str) -> Asked:
    """A form with a recording of 1,000 bytes, unless that is left out."""
    parts = "".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"'
        f"{'; filename=a' if name == 'file' else ''}\r\n\r\n{value}\r\n"
        for name, value in fields.items()
    )
    return Asked(
        body=f"{parts}--b--\r\n".encode(),
        headers=[("content-type", "multipart/form-data; boundary=b")],
    )


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"file": "x" * 1000}, 8),
        ({"file": "x" * 5_000_000}, 10_800),
        ({"file_url": "https://example.com/a.mp3"}, 10_800),
        ({"file": "x", "file_id": "y"}, 10_800),
        ({}, 10_800),
    ],
)
def test_seconds_are_held_as_many_as_there_can_be(fields: dict[str, str], seconds: int) -> None:
    """By the bytes of the recording, or the longest there is."""
    facts = MistralTranscription().read_facts(form(model="m", stream="true", **fields))

    assert {Meter.AUDIO_SECOND: seconds} == facts.fees
    assert facts.stream
    with pytest.raises(BadRequest, match="model"):
        MistralTranscription().read_facts(form(**fields))


def test_what_is_judged_is_counted_where_nobody_tells() -> None:
    """The reference shows no usage; where there is some it counts, and errors do not."""
    facts = JUDGE.read_facts(Asked(body=b'{"model":"m","input":["a","b"]}'))
    untold = JUDGE.read_whole(b'{"id":"1","model":"m-2411","results":[]}', facts, OK)
    told = JUDGE.read_whole(
        b'{"results":[],"usage":{"prompt_tokens":7,"total_tokens":7}}', facts, OK
    )
    wrong = JUDGE.read_whole(b'{"object":"error"}', facts, OK)

    assert (True, "m-2411", True) == (untold.lacks_input, untold.model, untold.is_readable)
    assert told.usage is not None
    assert ({Meter.INPUT: 7}, False) == (told.usage.counts, told.lacks_input)
    assert (None, False) == (wrong.usage, wrong.is_readable)
    assert ['["a","b"]'] == JUDGE.read_prompt(Asked(body=b'{"model":"m","input":["a","b"]}'))


def test_a_batch_names_its_model() -> None:
    """So that a key reaches only models it may call."""
    free = MistralFree()

    assert "m" == free.read_facts(Asked(body=b'{"model":"m","input_files":["f"]}')).model
    assert "ag" == free.read_facts(Asked(body=b'{"agent_id":"ag"}')).model
    assert "m" == free.read_facts(Asked(names={"model": "m"})).model
    assert "" == free.read_facts(Asked(body=b"--b\r\n")).model
