"""What a request says of itself decides neither its price nor too small a hold."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from unicodedata import normalize

import pytest

from gateway.wire.facts import BadRequest
from gateway.wire.openai_chat import INPUT_TOKENS_SPARE
from pricing.book import Book
from pricing.meters import Meter
from pricing.rates import Rate
from tests.openai_answers import USAGE
from tests.path.virtual_time import run
from tests.path.world import BOOK, Play, World, ask
from tests.wire.chat import Chat

STANDARD, FLEX, PRIORITY = 2_508_000_000, 1_254_000_000, 5_016_000_000


def answer(**fields: Any) -> bytes:
    """An answer with the usage of the public contract."""
    message = {"role": "assistant", "content": "Fine."}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return json.dumps(
        {"id": "c", "model": "gpt-5", "choices": choices, "usage": USAGE} | fields
    ).encode()


def play(world: World) -> World:
    """Make the call; the books balance afterwards."""
    run(world.call())
    world.check_books()
    return world


@pytest.mark.parametrize(
    ("asked", "told", "cost", "status"),
    [
        pytest.param("flex", None, STANDARD, "estimated", id="asked cheaper, nothing told"),
        pytest.param("priority", None, PRIORITY, "estimated", id="asked dearer, nothing told"),
        pytest.param("flex", "flex", FLEX, "final", id="served as asked"),
        pytest.param("flex", "default", STANDARD, "final", id="served dearer than asked"),
        pytest.param("priority", "default", STANDARD, "final", id="served cheaper than asked"),
        pytest.param("batch", None, STANDARD, "estimated", id="no call is a batch"),
        pytest.param(None, None, STANDARD, "final", id="nothing asked, nothing told"),
    ],
)
def test_a_client_does_not_choose_its_price(
    asked: str | None, told: str | None, cost: int, status: str
) -> None:
    """The tier served decides; where nobody says which it was, the dearer one."""
    body = ask(**({} if asked is None else {"service_tier": asked}))
    steps = (answer(**({} if told is None else {"service_tier": told})),)
    record = play(World(Play(steps=steps), body=body)).record
    assert (cost, status) == (record.cost_pico, record.cost_status)
    assert (status == "estimated") is any("tier served" in flag for flag in record.flags)
    assert record.ceiling_pico is not None
    assert record.ceiling_pico >= cost


def test_a_fee_for_the_call_itself_is_held_and_billed() -> None:
    """Twelve dollars for a thousand requests come on top of the tokens."""
    fees = [
        Rate(
            provider="openai",
            model="gpt-5",
            meter=Meter.REQUEST,
            amount=Decimal(12),
            per=1000,
            currency="USD",
            valid_from=datetime(2026, 1, 1, tzinfo=UTC),
            valid_to=None,
            tier=tier,
            source="https://example.com/prices",
            checked_at=date(2026, 11, 23),
        )
        for tier in ("standard", "priority")
    ]
    book = Book(BOOK.version, BOOK.models, [*BOOK.rates, *fees])
    plain = play(World(Play(steps=(answer(),)))).record
    charged = play(World(Play(steps=(answer(),)), book=book)).record
    assert plain.cost_pico is not None
    assert charged.cost_pico == plain.cost_pico + 12 * 10**9
    assert 1 == charged.usage["request"]
    assert plain.ceiling_pico is not None
    assert charged.ceiling_pico == plain.ceiling_pico + 12 * 10**9


def test_what_the_operator_set_no_client_replaces() -> None:
    """A configured header, such as the project that is billed, goes out once and as configured."""
    world = play(
        World(
            Play(steps=(answer(),)),
            headers=[("openai-project", "theirs"), ("x-other", "kept")],
            own_headers=[("openai-project", "ours")],
        )
    )
    sent = world.upstream.requests[0].headers
    assert ["ours"] == [value for name, value in sent if name == "openai-project"]
    assert ["kept"] == [value for name, value in sent if name == "x-other"]


def test_a_published_limit_does_not_lower_what_a_body_can_come_to() -> None:
    """Lists lag behind providers: a prompt longer than the limit in the book is held in full."""
    short = Book(
        BOOK.version,
        [replace(m, context_tokens_max=100) if m.model == "gpt-5" else m for m in BOOK.models],
        BOOK.rates,
    )
    body = ask(messages=[{"role": "user", "content": "word " * 5000}])
    longer = play(World(Play(steps=(answer(),)), body=body, book=short)).record
    usual = play(World(Play(steps=(answer(),)), body=body)).record
    assert usual.ceiling_pico == longer.ceiling_pico


IMAGE = '{"type":"image_url","image_url":{"url":"https://a/b.png"}'
TEXT = '{"type":"text","text":"hi"}'


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(
            '{"role":"user","content":[' + IMAGE + '}],"content":"hi"}', id="content given twice"
        ),
        pytest.param(
            '{"role":"user","content":[' + IMAGE + ',"type":"text","text":"hi"}]}',
            id="type given twice",
        ),
        pytest.param(f'{{"role":"user","content":[{TEXT},{IMAGE}}}]}}', id="an image among text"),
        pytest.param(
            '{"role":"user","content":[{"type":"text","text":"hi","file":{"file_id":"f"}}]}',
            id="a file in a text part",
        ),
    ],
)
def test_what_another_reader_could_see_is_not_bounded_by_its_bytes(raw: str) -> None:
    """A provider may take the first of two values where we take the last."""
    body = '{"model":"gpt-5","messages":[' + raw + "]}"
    assert Chat().read_facts(body.encode()).input_tokens_max is None


@pytest.mark.parametrize(
    ("fields", "bound"),
    [
        pytest.param({"plugins": [{"id": "web"}]}, None, id="plugins"),
        pytest.param({"search_parameters": {"mode": "on"}}, None, id="live search"),
        pytest.param({"plugins": None}, "bytes", id="no plugins"),
    ],
)
def test_fields_of_other_providers_that_add_input(
    fields: dict[str, Any], bound: str | None
) -> None:
    """What is fetched while answering is not in the body."""
    body = ask(**fields)
    expected = None if bound is None else len(body) + INPUT_TOKENS_SPARE
    assert expected == Chat().read_facts(body).input_tokens_max


BROWSER = [{"type": "function", "function": {"name": "f"}}, {"type": "browser_search"}]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"tools": BROWSER}, id="a tool the provider runs"),
        pytest.param({"tools": [{"type": "live_search", "sources": []}]}, id="live search tool"),
        pytest.param({"tools": "odd"}, id="tools nobody can read"),
        pytest.param({"plugins": [{"id": "web"}]}, id="plugins"),
        pytest.param({"search_parameters": {"mode": "on"}}, id="live search"),
        pytest.param({"preset": "lawyer"}, id="stored settings"),
        pytest.param({"data_sources": [{"type": "azure_search"}]}, id="data of one's own"),
        pytest.param({"dataSources": [{"type": "AzureCognitiveSearch"}]}, id="as it was spelt"),
    ],
)
def test_what_a_provider_looks_up_is_bounded_by_nothing(fields: dict[str, Any]) -> None:
    """It reads as much and as often as it likes, so a hard budget refuses the call."""
    facts = Chat().read_facts(ask(**fields))
    world = play(World(Play(steps=(answer(),)), body=ask(**fields)))

    assert (None, None) == (facts.input_tokens_max, facts.rounds)
    assert (429, []) == (world.client.status, world.upstream.requests)
    assert Chat().read_prompt(ask(**fields)) is None


@pytest.mark.parametrize("place", ["extra_body", "google"])
@pytest.mark.parametrize("name", ["cached_content", "cachedContent"])
def test_a_content_kept_at_the_provider_is_part_of_the_prompt(place: str, name: str) -> None:
    """A million tokens may stand behind one name; a setting beside it adds nothing."""
    named = {"google": {name: "cachedContents/1"}}
    kept = ask(**{place: named if place == "extra_body" else named["google"]})
    plain = ask(**{place: {"google": {"thinking_config": {"thinking_budget": 0}}}})

    assert Chat().read_facts(kept).input_tokens_max is None
    assert Meter.CACHE_READ_IMAGE in Chat().read_facts(kept).meters
    assert Chat().read_prompt(kept) is None
    assert len(plain) + INPUT_TOKENS_SPARE == Chat().read_facts(plain).input_tokens_max


def test_tools_of_the_callers_own_are_bounded_by_their_bytes() -> None:
    """Whatever else they hold, and where there are none."""
    own = [{"type": "function", "function": {"name": "f"}}, {"type": "custom", "custom": {}}]
    for tools in (own, [], None):
        body = ask(tools=tools)
        assert len(body) + INPUT_TOKENS_SPARE == Chat().read_facts(body).input_tokens_max


def test_models_to_fall_back_to_are_refused() -> None:
    """A call is held at the price of one model, and no other may answer it."""
    with pytest.raises(BadRequest, match="name the one to call"):
        Chat().read_facts(ask(models=["a/b", "c/d"]))
    with pytest.raises(BadRequest, match="name the one to call"):
        Chat().read_facts(ask(models=["a/b"], web_search_options={}))


def test_every_answer_that_is_generated_counts() -> None:
    """Five candidates are generated for one choice, and billed."""
    assert 5 * 400 == Chat().read_facts(ask(best_of=5)).output_tokens_max


@pytest.mark.parametrize("sign", ["\u0fb9", "\ufb2c", "\u0958", "e\u0301", "\U0001d160"])
def test_text_that_grows_when_it_is_composed(sign: str) -> None:
    """Some tokenizers compose the text first; the bound is that of the longer form."""
    plain = json.loads(ask())
    plain["messages"][0]["content"] = sign * 1000
    body = json.dumps(plain, ensure_ascii=False).encode()
    longest = max(len(body), len(normalize("NFC", body.decode()).encode()))
    assert longest + INPUT_TOKENS_SPARE == Chat().read_facts(body).input_tokens_max


def test_a_crowd_of_fields_is_refused_before_anything_is_held() -> None:
    """It would keep all other calls waiting while it is looked through."""
    crowd = ask().removesuffix(b"}") + b',"":1' * 20_000 + b"}"
    one = World(Play(), body=crowd)
    run(one.call())

    assert 400 == one.client.status
    assert b"more than 16384 fields in one object" in b"".join(one.client.got)
    assert not one.upstream.requests
    one.check_books()
