"""Speech, transcripts, pictures and forms: what is read of them, and what is not touched."""

import json
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from functools import cache
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.facts import Asked, BadRequest, RequestFacts, StreamLane
from gateway.wire.multipart import PARTS_MAX, field_of, scan_form, text_of
from gateway.wire.openai_audio import OpenAISpeech, OpenAITranscription
from gateway.wire.openai_images import OpenAIImages
from gateway.wire.openai_text import OpenAICompletions, OpenAIEmbeddings, OpenAIRerank, OpenAIScore
from pricing.book import load_book
from pricing.meters import Meter
from pricing.rates import RateCard
from pricing.usage import Basis
from tests.path.world import AT
from tests.wire.chat import OK, Head

BOUNDARY: Final = "b0undary"
KIND: Final = f"multipart/form-data; boundary={BOUNDARY}"
SPEECH: Final = OpenAISpeech()
HEARD: Final = OpenAITranscription("openai.transcriptions")
PICTURES: Final = OpenAIImages("openai.images")
EVENTS: Final = Head(headers=[("content-type", "text/event-stream")])
MP3: Final = Head(headers=[("content-type", "audio/mpeg")])


def form(*fields: tuple[str, bytes], file: bytes | None = b"ID3" * 1000) -> bytes:
    """Write a form."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value
        for name, value in fields
    ]
    if file is not None:
        head = 'Content-Disposition: form-data; name="file"; filename="a.mp3"'
        parts.append(f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + file)
    return b"\r\n".join([*parts, f"--{BOUNDARY}--\r\n".encode()])


def of_form(body: bytes, content_type: str = KIND) -> Asked:
    """Ask with a form."""
    return Asked(body=body, headers=[("content-type", content_type)])


def of_json(**fields: Any) -> Asked:
    """Ask with JSON."""
    return Asked(body=json.dumps(fields).encode())


def sold(facts: RequestFacts, model: str) -> RequestFacts:
    """Leave what the model of OpenAI's is sold by."""
    return facts.sold_by(_card(model))


@cache
def _card(model: str) -> RateCard:
    card = load_book("2026-11-23.2").find_card("openai", model, AT)
    assert card is not None
    return card


# -- forms ---------------------------------------------------------------------------------------


@given(value=st.binary(max_size=50), file=st.binary(max_size=200))
def test_a_form_is_read_where_it_lies(value: bytes, file: bytes) -> None:
    """Every field is found again, whatever its bytes, and the offsets are those of the body."""
    line = f"\r\n--{BOUNDARY}".encode()
    if line in value or line in file:
        return
    body = form(("model", b"whisper-1"), ("x", value), file=file)
    parts = scan_form(body, KIND)

    assert ["model", "x", "file"] == [part.name for part in parts]
    assert [False, False, True] == [part.is_file for part in parts]
    assert [b"whisper-1", value, file] == [body[part.start : part.end] for part in parts]


@given(body=st.binary(max_size=300), head=st.text(max_size=60))
def test_no_form_raises_anything_but_a_refusal(body: bytes, head: str) -> None:
    """Garbage is refused in words."""
    for content_type in (KIND, head, None):
        for one in (body, f"--{BOUNDARY}".encode() + body):
            with suppress(BadRequest):
                scan_form(one, content_type)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form(("model", b"a"), ("model", b"b")), KIND),
        (form(("model", b"a"), file=None), KIND),
        (form(("prompt", b"a")), KIND),
        (form(("model", b"\xff")), KIND),
        (form(("model", b"a")), "application/json"),
        (form(("model", b"a"))[:-10], KIND),
        (form(*[(f"f{n}", b"") for n in range(PARTS_MAX + 1)]), KIND),
        (b'{"model":"whisper-1"}', "application/json"),
    ],
)
def test_a_form_two_readers_could_read_differently_is_refused(
    body: bytes, content_type: str
) -> None:
    """Given twice, without a model, a file or an end, or no form at all."""
    with pytest.raises(BadRequest):
        HEARD.read_facts(of_form(body, content_type))


def test_a_quoted_boundary_and_a_bare_name_are_read() -> None:
    """As RFC 2046 allows them."""
    body = b"--a b\r\ncontent-disposition:form-data;name=model\r\n\r\nm\r\n--a b--"
    parts = scan_form(body, 'Multipart/Form-Data; Boundary="a b"')

    assert "m" == text_of(body, parts, "model")
    assert field_of(body, parts, "file") is None


def test_another_model_name_is_written_into_the_form() -> None:
    """Nothing else of it changes."""
    asked = of_form(form(("model", b"openai/whisper-1")))
    facts = HEARD.read_facts(asked)

    expected = asked.body.replace(b"openai/whisper-1", b"whisper-1")
    assert expected == HEARD.prepare_body(asked, facts, "whisper-1")
    assert asked.body is HEARD.prepare_body(asked, facts, "openai/whisper-1")


# -- what a model is sold by ---------------------------------------------------------------------


def test_a_model_is_held_for_what_it_is_sold_by() -> None:
    """One request, and the price book says whether it is characters or tokens."""
    facts = SPEECH.read_facts(of_json(model="m", input="Hello", voice="alloy"))
    by_character, by_token = sold(facts, "tts-1"), sold(facts, "gpt-4o-mini-tts")

    assert {Meter.CHARACTER: 5} == by_character.fees
    assert (0, 0) == (by_character.input_tokens_max, by_character.output_tokens_max)
    assert not by_token.fees
    assert by_token.output_tokens_max is not None
    assert by_token.output_tokens_max > 100


def test_what_nothing_is_sold_by_stays() -> None:
    """Then the call has no price, and says so."""
    facts = SPEECH.read_facts(of_json(model="m", input="Hello", voice="alloy"))

    assert facts is sold(facts, "sora-2")


def test_a_recording_is_held_at_more_than_it_can_be() -> None:
    """A kilobit a second is less than any speech has."""
    facts = sold(HEARD.read_facts(of_form(form(("model", b"whisper-1")))), "whisper-1")

    assert {Meter.AUDIO_SECOND: 25} == facts.fees
    assert not facts.meters


def test_a_link_is_held_for_a_day() -> None:
    """Nobody knows what it leads to."""
    asked = of_form(form(("model", b"m"), ("url", b"https://x/a.mp3"), file=None))

    assert 86_400 == HEARD.read_facts(asked).fees[Meter.AUDIO_SECOND]


@pytest.mark.parametrize("n", ["x", "-1", "1.5", "9999999"])
def test_a_number_of_pictures_that_is_none_is_refused(n: str) -> None:
    """It decides what is held."""
    body = form(("model", b"gpt-image-1"), ("prompt", b"A hat"), ("n", n.encode()))
    with pytest.raises(BadRequest):
        PICTURES.read_facts(of_form(body))


@pytest.mark.parametrize(
    ("size", "quality", "make"),
    [
        ("1024x1024", "hd", "1024x1024/hd"),
        ("1024x1024", None, "1024x1024"),
        ("1024x1024", "auto", "1024x1024"),
        ("auto", "high", None),
        (None, None, None),
    ],
)
def test_the_make_of_a_picture(size: str | None, quality: str | None, make: str | None) -> None:
    """As the price book names it, where the request decides it."""
    facts = PICTURES.read_facts(of_json(model="m", prompt="A", size=size, quality=quality, n=2))

    assert ({} if make is None else {Meter.IMAGE: make}) == facts.variants
    assert {Meter.IMAGE: 2} == facts.fees


def test_another_models_work_on_a_picture_is_told_apart() -> None:
    """``svg_usage`` is billed at its own model's price."""
    facts = sold(PICTURES.read_facts(of_json(model="gpt-image-1", prompt="A")), "gpt-image-1")
    used = {"model": "gpt-5", "input_tokens": 5, "output_tokens": 9, "reasoning_tokens": 4}
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    body = json.dumps({"data": [{}], "usage": usage, "svg_usage": {**used, "total_tokens": 14}})
    answer = PICTURES.read_whole(body.encode(), facts, OK)

    assert answer.usage is not None
    assert {Meter.INPUT: 1, Meter.OUTPUT_IMAGE: 2} == answer.usage.counts
    (other,) = answer.others
    assert "gpt-5" == other.model
    assert {Meter.INPUT: 5, Meter.OUTPUT: 5, Meter.REASONING: 4} == other.usage.counts


# -- texts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "count"),
    [("a", 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1], [2], [3]], 3), ([], 1), (None, 1)],
)
def test_every_prompt_has_answers_of_its_own(prompt: Any, count: int) -> None:
    """``max_tokens`` holds for each."""
    asked = of_json(model="m", prompt=prompt, max_tokens=7, n=2, best_of=3)

    assert 7 * 3 * count == OpenAICompletions().read_facts(asked).output_tokens_max


def test_a_query_is_read_with_every_document() -> None:
    """So it counts as often."""
    one = OpenAIRerank().read_facts(of_json(model="m", query="q" * 100, documents=["a"]))
    two = OpenAIRerank().read_facts(of_json(model="m", query="q" * 100, documents=["a", "b"]))
    many = OpenAIScore().read_facts(of_json(model="m", text_1="q" * 100, text_2=["a"] * 50))

    assert one.input_tokens_max is not None
    assert two.input_tokens_max is not None
    assert two.input_tokens_max - one.input_tokens_max > 100
    assert many.input_tokens_max is not None
    assert many.input_tokens_max > 50 * 100
    assert 0 == one.output_tokens_max == many.output_tokens_max


def test_pictures_to_embed_leave_the_input_open() -> None:
    """Their bytes bound nothing."""
    asked = of_json(model="m", input=[{"type": "image_url", "image_url": "https://x"}])

    assert OpenAIEmbeddings().read_facts(asked).input_tokens_max is None


@pytest.mark.parametrize(
    "read", [OpenAICompletions().read_facts, OpenAIEmbeddings().read_facts, SPEECH.read_facts]
)
@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"{}", b'{"model":1}', b'{"model":"a","mod\\u0065l":"b","input":"x"}'],
)
def test_what_is_no_request_is_refused(read: Callable[[Asked], RequestFacts], body: bytes) -> None:
    """In words, before anything is sent."""
    with pytest.raises(BadRequest):
        read(Asked(body=body))


# -- streams -------------------------------------------------------------------------------------

SPOKEN: Final = (
    b'data: {"type":"speech.audio.delta","audio":"SUQz"}\n\n'
    b'data: {"type":"speech.audio.done","usage":{"input_tokens":14,"output_tokens":101,'
    b'"total_tokens":115}}\n\n'
)
WRITTEN: Final = (
    b'data: {"type":"transcript.text.delta","delta":"Hel"}\n\n'
    b'event: transcript.text.done\ndata: {"type":"transcript.text.done","text":"Hello",'
    b'"usage":{"type":"tokens","input_tokens":14,"input_token_details":{"audio_tokens":10},'
    b'"output_tokens":5,"total_tokens":19}}\n\n'
)
DRAWN: Final = (
    b'event: image_generation.partial_image\ndata: {"type":"image_generation.partial_image",'
    b'"b64_json":"iVBO"}\n\nevent: image_generation.completed\n'
    b'data: {"type":"image_generation.completed","b64_json":"iVBORw0KGgo=","usage":'
    b'{"input_tokens":60,"output_tokens":9,"total_tokens":69}}\n\n'
)


def speech_lane(model: str = "gpt-4o-mini-tts", head: Head = EVENTS) -> StreamLane:
    """Open a lane for speech."""
    facts = SPEECH.read_facts(of_json(model="m", input="Hello", voice="v", stream_format="sse"))
    return SPEECH.open_stream(sold(facts, model), head)


def heard_lane() -> StreamLane:
    """Open a lane for a transcript."""
    facts = HEARD.read_facts(of_form(form(("model", b"m"))))
    return HEARD.open_stream(sold(facts, "gpt-4o-transcribe"), EVENTS)


def drawn_lane() -> StreamLane:
    """Open a lane for a picture."""
    facts = PICTURES.read_facts(of_json(model="m", prompt="A", stream=True))
    return PICTURES.open_stream(sold(facts, "gpt-image-1"), EVENTS)


@given(
    kind=st.sampled_from(["spoken", "written", "drawn"]),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
def test_a_stream_may_be_cut_anywhere(kind: str, cuts: list[int]) -> None:
    """The bytes and the counts are the same."""
    stream, open_lane, expected = {
        "spoken": (SPOKEN, speech_lane, {Meter.INPUT: 14, Meter.OUTPUT: 101}),
        "written": (
            WRITTEN,
            heard_lane,
            {Meter.INPUT: 4, Meter.INPUT_AUDIO: 10, Meter.OUTPUT: 5},
        ),
        "drawn": (DRAWN, drawn_lane, {Meter.INPUT: 60, Meter.OUTPUT_IMAGE: 9}),
    }[kind]
    lane = open_lane()
    places = sorted({0, *(min(c, len(stream)) for c in cuts), len(stream)})
    got = b"".join(lane.feed(stream[a:b]) for a, b in pairwise(places)) + lane.finish()

    assert stream == got
    assert lane.answer.usage is not None
    assert expected == lane.answer.usage.counts
    assert Basis.REPORTED is lane.answer.usage.basis


@given(garbage=st.binary(max_size=200))
def test_garbage_passes_and_raises_nothing(garbage: bytes) -> None:
    """Whatever comes instead of events."""
    marks = (b"speech.audio.done", b"transcript.text.done", b"image_generation.completed")
    for open_lane, mark in zip((speech_lane, heard_lane, drawn_lane), marks, strict=True):
        lane = open_lane()
        stream = b'data: {"type":"' + mark + b'",' + garbage + b"\n\n" + garbage

        assert stream == lane.feed(stream) + lane.finish()


def test_speech_that_breaks_off_is_estimated() -> None:
    """By its characters: never as nothing."""
    lane = speech_lane()
    lane.feed(SPOKEN[:60])
    lane.finish(is_broken=True)

    assert lane.answer.usage is not None
    assert Basis.ESTIMATED is lane.answer.usage.basis
    assert {Meter.INPUT: 5, Meter.OUTPUT: 10} == lane.answer.usage.counts


@given(chunks=st.lists(st.binary(max_size=20), max_size=10))
def test_a_recording_passes_at_once_but_for_its_last_byte(chunks: list[bytes]) -> None:
    """The last byte waits for the settlement."""
    lane = speech_lane("tts-1", MP3)
    body = b"".join(chunks)
    got = b"".join(lane.feed(chunk) for chunk in chunks)

    assert body[:-1] == got
    assert body == got + lane.finish()
    assert not lane.can_append
    assert lane.answer.usage is not None
    assert {Meter.CHARACTER: 5} == lane.answer.usage.counts


def test_an_error_costs_nothing() -> None:
    """No guess is made for it."""
    facts = sold(SPEECH.read_facts(of_json(model="m", input="Hello", voice="v")), "tts-1")

    assert SPEECH.read_whole(b"{}", facts, Head(status=400)).usage is None


# -- seconds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "seconds", "basis"),
    [
        (b'{"text":"x","usage":{"type":"duration","seconds":9}}', 9, Basis.REPORTED),
        (b'{"text":"x","usage":{"type":"duration","seconds":9.5}}', Decimal("9.5"), Basis.REPORTED),
        (b'{"text":"x","duration":"oops"}', Decimal("0.75"), Basis.ESTIMATED),
        (b'{"text":"x","duration":-3}', Decimal("0.75"), Basis.ESTIMATED),
        (b'{"text":"x","usage":{"seconds":-3}}', Decimal("0.75"), Basis.ESTIMATED),
        (b'{"text":"x"', Decimal("0.75"), Basis.ESTIMATED),
        (b"WEBVTT\n\n00:01.000 --> 00:04.250\nx\n", Decimal("4.250"), Basis.ESTIMATED),
        (b"Hello.", Decimal("0.75"), Basis.ESTIMATED),
    ],
)
def test_the_length_of_a_recording(body: bytes, seconds: Any, basis: Basis) -> None:
    """Told, or read off the captions, or guessed by the size; never nothing."""
    facts = sold(HEARD.read_facts(of_form(form(("model", b"whisper-1")))), "whisper-1")
    usage = HEARD.read_whole(body, facts, OK).usage

    assert usage is not None
    assert ({Meter.AUDIO_SECOND: seconds}, basis) == (usage.counts, usage.basis)
