"""What is read of a chat request is never too small, and what is sent is what came."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.counting import count_tokens
from gateway.wire.facts import BadRequest
from pricing.meters import Meter
from tests.wire.chat import Chat

CHAT = Chat()
HELLO: dict[str, Any] = {"model": "gpt-5", "messages": [{"role": "user", "content": "Hi"}]}


def body_of(**fields: Any) -> bytes:
    """Write a request; fields replace those of a plain one."""
    return json.dumps(HELLO | fields).encode()


# -- facts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"model": "gpt-5", "stream": False, "wants_usage": False, "tier": None, "choices": 1}),
        ({"stream": True}, {"stream": True, "wants_usage": False}),
        ({"stream": None, "stream_options": None, "n": None}, {"stream": False, "choices": 1}),
        ({"stream": True, "stream_options": {"include_usage": True}}, {"wants_usage": True}),
        ({"stream": True, "stream_options": {"include_usage": False}}, {"wants_usage": False}),
        ({"max_tokens": 7}, {"output_tokens_max": 7}),
        ({"max_completion_tokens": 9}, {"output_tokens_max": 9}),
        ({"max_tokens": 70, "max_completion_tokens": 9}, {"output_tokens_max": 70}),
        ({"max_tokens": 7, "n": 3}, {"output_tokens_max": 21, "choices": 3}),
        ({"max_tokens": 0}, {"output_tokens_max": None}),
        ({"max_tokens": -5}, {"output_tokens_max": None}),
        ({"service_tier": "auto"}, {"tier": None}),
        ({"service_tier": "default"}, {"tier": "standard"}),
        ({"service_tier": "flex"}, {"tier": "flex"}),
        ({"service_tier": "priority"}, {"tier": "priority"}),
        ({"service_tier": "fast"}, {"tier": "priority"}),
        ({"service_tier": "scale"}, {"tier": "scale"}),
    ],
)
def test_facts_are_read(fields: dict, expected: dict) -> None:
    """Fields are read as the provider's documentation means them."""
    facts = CHAT.read_facts(body_of(**fields))

    assert expected == {name: getattr(facts, name) for name in expected}


def test_a_prediction_may_be_billed_on_top() -> None:
    """Rejected prediction tokens are output beyond any limit."""
    said = "x" * 100
    facts = CHAT.read_facts(body_of(prediction={"type": "content", "content": said}))

    assert facts.extra_output_max >= count_tokens([said], "o200k_base")


def test_a_search_has_a_fee_and_an_open_prompt() -> None:
    """A search adds text nobody can bound beforehand."""
    facts = CHAT.read_facts(body_of(web_search_options={}))

    assert 1 == facts.fees[Meter.WEB_SEARCH]
    assert facts.input_tokens_max is None


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, "medium"),
        ({"search_context_size": "high"}, "high"),
        ({"search_context_size": None, "user_location": {}}, "medium"),
        ({"search_context_size": "gigantic"}, None),  # unheard of: the dearest is held
        ({"search_context_size": 5}, None),
        (5, None),
    ],
    ids=str,
)
def test_a_search_says_how_much_it_reads(options: Any, size: str | None) -> None:
    """Some models charge by it; medium is what the provider takes where nothing is said."""
    facts = CHAT.read_facts(body_of(web_search_options=options))

    assert size == facts.variants.get(Meter.WEB_SEARCH)
    assert facts.variants == facts.reach(frozenset(), None, (1, 1)).variants


def test_a_model_that_always_searches_reads_a_medium_amount() -> None:
    """It is billed for a search nobody asked for."""
    facts = CHAT.read_facts(body_of(model="gpt-4o-search-preview"))

    assert {Meter.WEB_SEARCH: "medium"} == facts.variants


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "something new"},
        # vLLM takes parts whose type is told by their other field.
        {"image_url": {"url": "https://example.com/a.png"}},
        {"text": "x", "type": None},
        "x",
        7,
    ],
    ids=["image", "audio", "file", "new", "untyped image", "null type", "bare text", "number"],
)
def test_parts_that_are_no_text_leave_the_prompt_open(part: dict) -> None:
    """A link of twenty bytes may be an image of two thousand tokens."""
    facts = CHAT.read_facts(body_of(messages=[{"role": "user", "content": [part]}]))

    assert facts.input_tokens_max is None


def test_an_answer_spoken_before_leaves_the_prompt_open() -> None:
    """An assistant message may name earlier audio by its id, which is input again."""
    spoken = {"role": "assistant", "audio": {"id": "audio_abc"}}
    facts = CHAT.read_facts(
        body_of(messages=[spoken, {"role": "user", "content": "Go on"}], modalities=["text"])
    )

    assert facts.input_tokens_max is None


@pytest.mark.parametrize("content", [{"type": "image_url"}, 7, True])
def test_content_of_an_unknown_shape_leaves_the_prompt_open(content: Any) -> None:
    """The provider may understand what the gateway does not."""
    facts = CHAT.read_facts(body_of(messages=[{"role": "user", "content": content}]))

    assert facts.input_tokens_max is None
    assert Meter.INPUT_IMAGE in facts.meters


def test_an_escaped_type_is_seen() -> None:
    """JSON may spell any letter as an escape."""
    body = b'{"model":"m","messages":[{"content":[{"t\\u0079pe":"image_url"}]}]}'

    assert CHAT.read_facts(body).input_tokens_max is None


def test_spoken_answers_reach_audio_prices() -> None:
    """Audio out is asked for by modality, audio in by a part."""
    facts = CHAT.read_facts(body_of(modalities=["text", "audio"]))

    assert Meter.OUTPUT_AUDIO in facts.meters


texts = st.lists(st.text(max_size=60) | st.text("a \n😀é字{}\"'", max_size=60), max_size=4)


@given(texts, texts, st.booleans())
def test_the_prompt_is_never_larger_than_its_bound(
    said: list[str], parts: list[str], is_ascii: bool
) -> None:
    """Whatever the text, its tokens and the framing of its messages fit under the bound."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": text} for text in said]
    messages.append({"role": "user", "content": [{"type": "text", "text": text} for text in parts]})
    spelt = json.dumps(HELLO | {"messages": messages}, ensure_ascii=is_ascii)
    bound = CHAT.read_facts(spelt.encode()).input_tokens_max

    assert bound is not None
    assert bound >= count_tokens([*said, *parts], "o200k_base") + 4 * len(messages) + 3


# -- what is refused -----------------------------------------------------------------------------


def doubled(name: str, first: str, second: str, *, escape: bool = False) -> bytes:
    """Write a request that gives a field twice, the second time with an escape if asked."""
    again = f"\\u{ord(name[0]):04x}{name[1:]}" if escape else name
    rest = "".join(
        f',"{other}":{json.dumps(value)}' for other, value in HELLO.items() if other != name
    )
    return f'{{"{name}":{first},"{again}":{second}{rest}}}'.encode()


@pytest.mark.parametrize("escape", [False, True], ids=["plain", "escaped"])
@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("model", '"gpt-5"', '"gpt-5-pro"'),
        ("messages", "[]", "[]"),
        ("stream", "false", "true"),
        ("stream_options", "null", '{"include_usage":false}'),
        ("n", "1", "128"),
        ("max_tokens", "1", "100000"),
        ("max_completion_tokens", "1", "100000"),
        ("service_tier", '"flex"', '"priority"'),
        ("modalities", '["text"]', '["audio"]'),
        ("web_search_options", "null", "{}"),
        ("prediction", "null", '{"type":"content","content":"x"}'),
    ],
)
def test_a_field_given_twice_is_refused(name: str, first: str, second: str, escape: bool) -> None:
    """Two readers could read two values: a cheap call to us, a dear one to the provider."""
    with pytest.raises(BadRequest, match="more than once"):
        CHAT.read_facts(doubled(name, first, second, escape=escape))


SAID = b'[{"role":"user","content":"Hi"}]'


@pytest.mark.parametrize(
    "body",
    [
        b'{"x":{"messages":%b},"messages":%b,"model":"a","model":"b"}' % (SAID, SAID),
        b'{"messages":%b,"model":"a","messages":%b}' % (SAID, SAID),
        b'{"messages":[],"model":"a","messages":%b}' % SAID,
        b'{"messages":%b,"model":"a","m\\u0065ssages":%b}' % (SAID, SAID),
        b'{"m\\u0065ssages":[],"model":"a","messages" :\n%b}' % SAID,
    ],
    ids=["nested first", "same twice", "other first", "escaped last", "escaped first"],
)
def test_messages_given_twice_are_seen_beside_like_ones(body: bytes) -> None:
    """What is left out of a closer look is never the thing looked for."""
    with pytest.raises(BadRequest, match="more than once"):
        CHAT.read_facts(body)


def test_nested_names_do_not_confuse() -> None:
    """A tool may have parameters called model, n and stream_options."""
    names = ["model", "stream", "stream_options", "n", "max_tokens", "type", "messages"]
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in names}}
    tool = {"type": "function", "function": {"name": "model", "parameters": schema}}
    body = body_of(tools=[tool, tool], max_tokens=3, stream=True)
    facts = CHAT.read_facts(body)

    assert ("gpt-5", 3, 1) == (facts.model, facts.output_tokens_max, facts.choices)
    assert facts.input_tokens_max is not None
    sent = json.loads(CHAT.prepare_body(body, facts, "other"))
    assert json.loads(body) | {"model": "other", "stream_options": {"include_usage": True}} == sent


NOT_REQUESTS = {
    "nothing": b"",
    "no JSON": b"model=gpt-5",
    "broken": b'{"model":"gpt-5","messages":[',
    "more than one": b'{"model":"a","messages":[]}{}',
    "a list": b"[]",
    "null": b"null",
    "no model": b'{"messages":[]}',
    "null model": b'{"model":null,"messages":[]}',
    "no messages": b'{"model":"a"}',
    "text for a number": b'{"model":"a","messages":[],"max_tokens":"7"}',
    "text for a flag": b'{"model":"a","messages":[],"stream":"true"}',
    "options that are none": b'{"model":"a","messages":[],"stream":true,"stream_options":[]}',
    "bad UTF-8 in the model": b'{"model":"\xff","messages":[]}',
    "nested beyond reason": b'{"model":"a","messages":[],"x":' + b"[" * 10**5 + b"]" * 10**5 + b"}",
    "nested messages": b'{"model":"a","messages":' + b"[" * 10**5 + b"]" * 10**5 + b"}",
    "a number beyond reason": b'{"model":"a","messages":[],"max_tokens":%b}' % (b"9" * 5000),
    "messages that are none": b'{"model":"a","messages":{"type":1,"role":"type"}}',
}


@pytest.mark.parametrize("body", NOT_REQUESTS.values(), ids=NOT_REQUESTS.keys())
def test_what_is_no_request_is_refused_by_name(body: bytes) -> None:
    """Nonsense ends as a 400 that says what is wrong, never as a crash."""
    with pytest.raises(BadRequest, match=r"request body|messages"):
        CHAT.read_facts(body)


# -- what is sent --------------------------------------------------------------------------------

extra_names = st.sampled_from(
    ["tools", "metadata", "x", "user", "stop", "mödel", 'a"b', "stream_option"]
)
scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8)
extras = st.dictionaries(
    extra_names,
    st.recursive(
        scalars | st.sampled_from(["model", "stream_options", '"stream_options":{', "\\"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["model", "stream_options", "include_usage", "n"]), inner
            )
        ),
        max_leaves=6,
    ),
    max_size=3,
)
option_sets = st.none() | st.fixed_dictionaries(
    {}, optional={"include_usage": st.none() | st.booleans(), "include_obfuscation": st.booleans()}
)
spellings: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "ensure_ascii": st.booleans(),
        "indent": st.sampled_from([None, 2]),
        "separators": st.sampled_from([(",", ":"), (" , ", " : ")]),
    }
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Spell a valid request in some way, members in some order."""
    fields = draw(extras) | {
        "model": draw(st.sampled_from(["gpt-5", "a/é", 'q"\\'])),
        "messages": [],
    }
    if draw(st.booleans()):
        fields["stream"] = draw(st.booleans())
    if draw(st.booleans()):
        fields["stream_options"] = draw(option_sets)
    ordered = dict(draw(st.permutations(list(fields.items()))))
    return (draw(st.sampled_from(["", "\n "])) + json.dumps(ordered, **draw(spellings))).encode()


@given(requests(), st.booleans())
def test_what_is_sent_says_the_same_but_for_two_things(body: bytes, is_renamed: bool) -> None:
    """Only the model's name and the wish for usage differ, and only where they must."""
    facts = CHAT.read_facts(body)
    model = "provider's own nämé" if is_renamed else facts.model
    sent = CHAT.prepare_body(body, facts, model)
    expected = json.loads(body) | {"model": model}
    if facts.stream and not facts.wants_usage:
        options = expected.get("stream_options") or {}
        expected["stream_options"] = options | {"include_usage": True}

    assert expected == json.loads(sent)
    assert len(expected) == len(json.loads(sent, object_pairs_hook=list))
    if not is_renamed and (not facts.stream or facts.wants_usage):
        assert sent is body


def test_bytes_beside_the_splice_stay() -> None:
    """Odd spacing, escapes and number formats are the client's business."""
    body = b'{ "model":"a",\n "messages" : [ ] ,"x":1e-05,"caf\\u00e9":"\xc3\xa9","stream":true}'
    facts = CHAT.read_facts(body)

    assert b'{ "model":"b",' + body[14:] == CHAT.prepare_body(
        body.replace(b"true", b"null"), CHAT.read_facts(body.replace(b"true", b"null")), "b"
    ).replace(b"null", b"true")
    assert CHAT.prepare_body(body, facts, "a").endswith(body[1:])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            b'{"x":1e-05, "caf\\u00e9":"\xff"}',
            b'{"include_usage":true,"x":1e-05, "caf\\u00e9":"\xff"}',
        ),
        (b'{"a":0,"include_usage" : false }', b'{"a":0,"include_usage" :true}'),
        (b"{ }", b'{"include_usage":true }'),
        (b"null", b'{"include_usage":true}'),
    ],
    ids=["others", "false", "empty", "null"],
)
def test_bytes_beside_the_option_stay(before: bytes, after: bytes) -> None:
    """Other options are the client's business, down to bytes nobody can read."""
    body = b'{"model":"a","messages":[],"stream":true,"\xff":"\xff","stream_options":%b}' % before
    sent = body.replace(before, after)

    assert sent == CHAT.prepare_body(body, CHAT.read_facts(body), "a")
    assert sent.replace(b'"a",', b'"b",', 1) == CHAT.prepare_body(body, CHAT.read_facts(body), "b")


@pytest.mark.parametrize("model", ["gpt-5", "other"])
@pytest.mark.parametrize("name", ["model", "stream", "stream_options"])
def test_an_escaped_name_is_refused_or_understood(name: str, model: str) -> None:
    """A name with an escape must not give the provider another request than we read."""
    fields = HELLO | {"stream": True, "stream_options": {"include_usage": False}}
    plain = json.dumps(fields).encode()
    escaped = plain.replace(
        b'"%b"' % name.encode(), b'"\\u%04x%b"' % (ord(name[0]), name[1:].encode())
    )
    assert plain != escaped
    assert json.loads(plain) == json.loads(escaped)
    try:
        facts = CHAT.read_facts(escaped)
    except BadRequest:
        return
    sent = CHAT.prepare_body(escaped, facts, model)

    expected = fields | {"model": model, "stream_options": {"include_usage": True}}
    assert expected == json.loads(sent)


# -- what is counted when usage never comes ------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("Hi", ["Hi"]),
        ("", []),
        (None, []),
        ([{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}], ["a", "b"]),
        ([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}], None),
        ({"text": "x"}, None),
        (7, None),
        (["x"], None),
        ([{"text": "x"}], None),
    ],
)
def test_the_texts_of_a_prompt_are_read(content: Any, expected: list[str] | None) -> None:
    """Only a prompt of nothing but text can be counted here."""
    body = body_of(messages=[{"role": "user", "content": content}])

    assert expected == CHAT.read_prompt(body)


@pytest.mark.parametrize(
    "message",
    [
        b'{"role":"user","content":"\xff"}',
        b'{"role":"user","content":"\\ud83d"}',
        b'{"role":"user","content":{"text":"x"}}',
        b'{"role":"user","content":7}',
        b'{"role":"user","content":[{"type":"text","text":7}]}',
        b'{"role":"user","content":["x"]}',
        b'{"role":"assistant","tool_calls":[{"function":{"arguments":"\xff"}}]}',
        b"7",
    ],
)
def test_a_prompt_let_in_can_be_asked_for_its_texts(message: bytes) -> None:
    """Counting is needed when things have gone wrong already: it must not be what crashes."""
    body = b'{"model":"a","messages":[%b]}' % message
    try:
        CHAT.read_facts(body)
    except BadRequest:
        return

    assert CHAT.read_prompt(body) is None or isinstance(CHAT.read_prompt(body), list)


def test_an_answer_spoken_before_cannot_be_counted() -> None:
    """Its tokens are not in the request."""
    assert CHAT.read_prompt(body_of(messages=[{"role": "assistant", "audio": {"id": "a"}}])) is None


@given(texts)
def test_every_text_of_a_prompt_is_counted(said: list[str]) -> None:
    """Nothing the user wrote is left out, whatever it is."""
    body = body_of(messages=[{"role": "user", "content": text} for text in said])

    assert [text for text in said if text] == CHAT.read_prompt(body)
