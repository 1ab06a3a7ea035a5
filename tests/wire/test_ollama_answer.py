"""Ollama's answers: what it counted, wherever its lines are cut, and what it left out."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.cutters import LineCutter
from gateway.wire.facts import Asked, BadRequest
from gateway.wire.ollama import ENDPOINTS, Lines, OllamaEmbed, OllamaFree, OllamaText, read_answer
from gateway.wire.tap import Tap
from pricing.usage import Basis
from tests.wire.sse_reference import cut
from tests.wire.streams import ODD_VALUES, places_of, replaced, run, shown, streams_of, wholes_of

STREAMS = streams_of("ollama")
WHOLES = wholes_of("ollama")
CHAT = OllamaText("ollama.chat")


def ask(**fields: Any) -> Asked:
    """Write a request; fields replace those of a plain one."""
    usual = {"model": "llama3", "messages": [{"role": "user", "content": "Hello world"}]}
    return Asked(body=json.dumps(usual | fields).encode())


def lane() -> Tap:
    """A lane of lines."""
    return Tap(LineCutter(), Lines())


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
@given(borders=st.lists(st.integers(0, 2000)))
def test_a_stream_says_the_same_wherever_it_is_cut(stream: bytes, borders: list[int]) -> None:
    """Bytes passed, bytes held, counts and text."""
    whole = run(lane(), [stream])

    assert stream == whole[0] + whole[1]
    assert whole == run(lane(), cut(stream, borders))


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
@given(garbage=st.binary(max_size=60), at=st.integers(0, 2000))
def test_garbage_in_a_stream_raises_nothing(stream: bytes, garbage: bytes, at: int) -> None:
    """And passes."""
    torn = stream[:at] + garbage + stream[at:]
    passed, held, _ = run(lane(), cut(torn, [at, at + len(garbage)]))

    assert torn == passed + held


@given(st.sampled_from([*WHOLES.values()]), st.data(), ODD_VALUES)
def test_an_odd_field_never_hides_the_counts_beside_it(
    answer: dict[str, Any], data: st.DataObject, odd: Any
) -> None:
    """Whatever one field says, the counts are read unless it is theirs or the end."""
    path = data.draw(st.sampled_from([*places_of(answer)]))
    before = read_answer(json.dumps(answer).encode())
    after = read_answer(json.dumps(replaced(answer, path, odd)).encode())

    its_own = ("done", "done_reason", "prompt_eval_count", "eval_count", "error")
    if path[0] not in (*its_own, "embedding", "embeddings"):
        assert before.usage == after.usage


@given(
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.sampled_from(["stop", "length", None]),
    st.booleans(),
)
def test_counts_are_those_of_ollama(
    tokens_in: int, tokens_out: int, reason: str | None, is_float: bool
) -> None:
    """Whole numbers, however they are written."""
    said = {"prompt_eval_count": tokens_in, "eval_count": tokens_out}
    if is_float:
        said = {name: float(count) for name, count in said.items()}  # type: ignore[misc]
    answer = read_answer(json.dumps({"done": True, "done_reason": reason, **said}).encode())

    assert answer.usage is not None
    assert (tokens_in, tokens_out) == answer.usage.totals()
    assert not answer.lacks_input
    assert answer.is_complete


@pytest.mark.parametrize(
    ("said", "basis", "lacks_input"),
    [
        ({"eval_count": 4}, Basis.REPORTED, True),
        ({"eval_count": 4, "prompt_eval_count": None}, Basis.REPORTED, True),
        ({"eval_count": 4, "prompt_eval_count": -1}, Basis.REPORTED, True),
        ({"prompt_eval_count": 4}, Basis.UNKNOWN, False),
        ({"prompt_eval_count": 4, "eval_count": "many"}, Basis.UNKNOWN, False),
        ({"done_reason": "load"}, Basis.NONE, False),
        ({"done_reason": "unload"}, Basis.NONE, False),
    ],
)
def test_a_count_that_is_missing_is_not_zero(
    said: dict[str, Any], basis: Basis, lacks_input: bool
) -> None:
    """A prompt read from the cache was read all the same; loading a model generates nothing."""
    answer = read_answer(json.dumps({"done": True, **said}).encode())

    assert answer.usage is not None
    assert (basis, lacks_input) == (answer.usage.basis, answer.lacks_input)


def test_half_a_sign_in_the_text_hides_nothing() -> None:
    """Models write them, where a sign falls between two tokens."""
    line = b'{"done":true,"response":"\\ud83d \\\\ud83d","prompt_eval_count":3,"eval_count":2}\n'

    assert {"input": 3, "output": 2} == run(lane(), [line])[2]["counts"]


def test_it_streams_unless_told_otherwise() -> None:
    """As Ollama does."""
    assert CHAT.read_facts(ask()).stream
    assert CHAT.read_facts(ask(stream=None)).stream
    assert not CHAT.read_facts(ask(stream=False)).stream


@pytest.mark.parametrize(
    ("fields", "inputs", "outputs"),
    [
        ({"options": {"num_predict": 40}}, 8192, 40),
        ({"options": {"num_predict": -1, "num_ctx": 4096}}, 4096, None),
        ({"options": {"num_predict": 0}}, 8192, None),
        ({"images": ["aGk="]}, None, None),
        ({"images": []}, 8192, None),
        ({"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}, None, None),
    ],
)
def test_bounds_are_never_too_small(
    fields: dict[str, Any], inputs: int | None, outputs: int | None
) -> None:
    """Images are bounded by the context alone."""
    asked = ask(**fields)
    facts = CHAT.read_facts(asked)

    extra = len(asked.body) if inputs == 8192 else 0
    assert (None if inputs is None else inputs + extra) == facts.input_tokens_max
    assert outputs == facts.output_tokens_max


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"model": 7}',
        b'{"model": "a", "model": "b"}',
        b'{"model": "a", "stream": true, "stream": false}',
        b'{"model": "a", "m\\u006fdel": "b"}',
        b'{"model": "\xff"}',
        b'{"model": "' + b"x" * 300 + b'"}',
        b'{"model": "a", "messages": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
@pytest.mark.parametrize("wire_format", [CHAT, OllamaEmbed("ollama.embed")])
def test_a_body_that_could_be_read_in_two_ways_is_refused(
    wire_format: OllamaText, body: bytes
) -> None:
    """Before anything is sent."""
    with pytest.raises(BadRequest):
        wire_format.read_facts(Asked(body=body))


def test_texts_of_a_prompt_are_counted_where_it_is_all_text() -> None:
    """Images and the tokens of an earlier answer are not text."""
    tools = [{"type": "function", "function": {"name": "look"}}]
    asked = ask(tools=tools, system="Be brief.")

    assert ["Be brief.", "Hello world", json.dumps(tools)] == CHAT.read_prompt(asked)
    assert ["a", "b"] == CHAT.read_prompt(Asked(body=b'{"model":"m","input":["a","b"]}'))
    for fields in ({"images": ["x"]}, {"context": [1]}, {"messages": 7}):
        assert CHAT.read_prompt(ask(**fields)) is None


def test_the_keeping_of_models_is_free_and_names_the_model() -> None:
    """So that a key reaches only models it may call."""
    free = OllamaFree()

    assert "llama3" == free.read_facts(Asked(body=b'{"model":"llama3"}')).model
    assert "llama3" == free.read_facts(Asked(body=b'{"name":"llama3","stream":false}')).model
    assert "" == free.read_facts(Asked(body=b"\0\1\2")).model
    assert all(free.read_facts(Asked(body=body)).is_free for body in (b"", b"[]", b"{}", b"{"))
    assert {"/api/chat", "/api/blobs/{digest}"} <= {one.path for one in ENDPOINTS}
    assert shown(free.read_whole(b"{}", free.read_facts(Asked()), None))["counts"] is None  # type: ignore[arg-type]
