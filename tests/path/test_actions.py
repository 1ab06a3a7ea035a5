"""A budget can send calls to a cheaper model, and say in headers that it runs low."""

import json
from typing import Any

import pytest

from gateway.budgets.rules import Demand
from tests.budgets.builders import at_once, budget, subject, usd
from tests.path.virtual_time import run
from tests.path.world import (
    AT,
    BOOK,
    EVENTS,
    STREAM,
    WHOLE,
    Address,
    Play,
    World,
    ask,
)

MINI = "fallback:openai/gpt-5-mini"
# A call of gpt-5 with 4,000 tokens of output can come to 0.08 USD, of gpt-5-mini to 0.02.
LONG = ask(max_completion_tokens=4000)


def tight(limit: str = "0.05 USD", action: str = MINI, budget_id: str = "cap") -> Any:
    """A budget with room for the cheaper model."""
    return budget(f"{budget_id} year {limit}", actions=[action])


def world(**fields: Any) -> World:
    """A call that is too dear for its budget."""
    return World(Play(steps=WHOLE), **({"body": LONG, "limits": [tight()]} | fields))


def named(body: bytes, model: str) -> bytes:
    """A request with another model in the place of its own."""
    before = json.dumps(json.loads(body)["model"]).encode()
    return body.replace(b" " + before, json.dumps(model).encode(), 1)


def sent(one: World) -> dict[str, Any]:
    """What the provider got."""
    (request,) = one.upstream.requests
    body: dict[str, Any] = json.loads(request.body)
    return body


def test_a_call_without_room_goes_to_the_cheaper_model() -> None:
    """The provider gets the fallback's name, and the client is told."""
    one = world()
    run(one.call())

    assert 200 == one.client.status
    assert "gpt-5-mini" == sent(one)["model"]
    assert "openai/gpt-5-mini" == one.client.told["x-taximeter-fallback"]
    assert named(LONG, "gpt-5-mini") == one.upstream.requests[0].body
    one.check_books()


def test_the_record_keeps_the_model_that_was_asked_for() -> None:
    """The record says what was asked for, what was called, and why."""
    one = world()
    run(one.call())
    intent = one.journal.intents[0]

    assert ("gpt-5", "gpt-5-mini") == (one.record.model_requested, intent.model_asked)
    assert any(
        flag == "fallback: in place of openai/gpt-5, which budget cap had no room for"
        for flag in one.record.flags
    )


def test_a_call_with_room_stays_where_it_is() -> None:
    """The fallback is for calls the budget has no room for, and no others."""
    one = world(body=ask())
    run(one.call())

    assert "gpt-5" == sent(one)["model"]
    assert "x-taximeter-fallback" not in one.client.told


def test_what_is_held_is_what_the_fallback_can_come_to() -> None:
    """The hold is taken anew: never a call under the hold of another model."""
    one = world()
    run(one.call())
    own = World(Play(steps=WHOLE), body=named(LONG, "gpt-5-mini"))
    run(own.call())
    dear = world(limits=[tight("0.079 USD", "fallback:openai/gpt-5-pro")])
    run(dear.call())

    assert own.journal.intents[0].ceiling_pico == one.journal.intents[0].ceiling_pico
    assert (429, []) == (dear.client.status, dear.upstream.requests)


def test_a_dearer_fallback_is_held_at_its_own_price() -> None:
    """A budget of one model may name a dearer one: it is sent under that one's hold alone."""
    narrow = budget("small year 0.0001 USD", scope={"model": "gpt-5-mini"},
                    actions=["fallback:openai/gpt-5"])  # fmt: skip
    one = world(body=ask(model="gpt-5-mini"), limits=["cap year 100 USD", narrow])
    run(one.call())
    same = World(Play(steps=WHOLE), body=named(ask(model="gpt-5-mini"), "gpt-5"))
    run(same.call())

    assert "gpt-5" == sent(one)["model"]
    assert same.journal.intents[0].ceiling_pico == one.journal.intents[0].ceiling_pico
    one.check_books()


def test_a_fallback_that_does_not_fit_is_not_used() -> None:
    """The refusal is that of the call as it was asked, and so is its record."""
    one = world(limits=[tight("0.001 USD")])
    run(one.call())
    error = json.loads(one.client.got[0])["error"]

    assert (429, "budget_exceeded", []) == (one.client.status, error["code"], one.upstream.requests)
    assert ("gpt-5", "gpt-5") == (one.record.model_requested, one.record.model)
    assert "x-taximeter-fallback" not in one.client.told
    assert 0 == one.budgets.open_holds


def test_the_fallback_of_any_budget_without_room_is_tried() -> None:
    """The first that refuses names none, or one that does not fit: then that of the next one is."""
    plain = budget("plain year 0.05 USD")
    dear = tight(budget_id="dear", action="fallback:openai/gpt-5-pro")
    roomy = budget("roomy year 100 USD", actions=["fallback:openai/gpt-5-nano"])
    one = world(limits=[plain, dear, roomy, tight()])
    run(one.call())

    assert "gpt-5-mini" == sent(one)["model"]
    assert "openai/gpt-5-mini" == one.client.told["x-taximeter-fallback"]
    # The budget that is named is the one whose fallback it is.
    assert ["fallback: in place of openai/gpt-5, which budget cap had no room for"] == [
        flag for flag in one.record.flags if flag.startswith("fallback")
    ]
    assert [] == one.watcher.said_no
    one.check_books()


def test_where_no_fallback_fits_the_first_budget_without_room_is_named() -> None:
    """As it is without any."""
    limits = [tight("0.001 USD", budget_id=name) for name in ("first", "second")]
    one = world(limits=limits)
    run(one.call())

    assert 429 == one.client.status
    assert "'first'" in json.loads(one.client.got[0])["error"]["message"]
    assert [("first", "budget_exceeded")] == one.watcher.said_no


def test_a_fallback_without_a_limit_is_capped_at_need() -> None:
    """Where the cheaper model fits with a shorter answer alone, it gets one."""
    one = world(body=ask(max_completion_tokens=...), limits=[tight("0.05 USD")])
    run(one.call())

    assert "gpt-5-mini" == sent(one)["model"]
    assert sent(one)["max_completion_tokens"] == int(one.client.told["x-taximeter-output-cap"])
    one.check_books()


def test_a_key_that_may_not_call_the_fallback_is_refused() -> None:
    """A budget gives no key a model it was not given."""
    one = world(models=["openai/gpt-5"])
    run(one.call())

    assert (429, []) == (one.client.status, one.upstream.requests)


def test_fallbacks_end() -> None:
    """Two budgets that name each other's model send a call around once at most."""
    first = budget("first year 0.0001 USD", scope={"model": "gpt-5"}, actions=[MINI])
    second = budget("second year 0.0001 USD", scope={"model": "gpt-5-mini"},
                    actions=["fallback:openai/gpt-5"])  # fmt: skip
    one = world(limits=[first, second])
    run(one.call())

    assert (429, []) == (one.client.status, one.upstream.requests)
    assert "'first'" in json.loads(one.client.got[0])["error"]["message"]


def test_a_fallback_to_itself_is_a_refusal() -> None:
    """The model that was asked for is no other model."""
    one = world(limits=[tight(action="fallback:openai/gpt-5")])
    run(one.call())

    assert 429 == one.client.status


def test_an_unknown_fallback_is_a_refusal() -> None:
    """A model nobody serves, or nobody has a price for, is no way out."""
    for name in ("openai/no-such-model", "nobody/gpt-5"):
        one = world(limits=[tight(action=f"fallback:{name}")])
        run(one.call())

        assert 429 == one.client.status


def test_a_model_in_the_address_is_exchanged_there() -> None:
    """Google's models stand in the address, and so does the fallback."""
    body = json.dumps(
        {"contents": [{"parts": [{"text": "Hi"}]}], "generationConfig": {"maxOutputTokens": 4000}}
    ).encode()
    one = World(
        Play(status=500),
        body=body,
        address=Address(
            kind="gemini",
            path="/gemini/v1beta/models/gemini-2.5-pro:generateContent",
            base_url="http://provider",
        ),
        limits=[tight("0.03 USD", "fallback:gemini/gemini-2.5-flash")],
    )
    run(one.call())

    assert one.upstream.requests[0].url.endswith("/models/gemini-2.5-flash:generateContent")
    assert body == one.upstream.requests[0].body


def test_at_a_providers_own_address_only_its_models_are_a_way_out() -> None:
    """Another provider's words are not translated there."""
    one = World(
        Play(steps=WHOLE),
        body=LONG,
        address=Address(path="/openai/chat/completions"),
        limits=[tight(action="fallback:mistral/mistral-small-latest")],
    )
    run(one.call())

    assert 429 == one.client.status


@pytest.mark.parametrize("streams", [False, True])
def test_a_soft_budget_warns_once_it_is_exceeded(*, streams: bool) -> None:
    """The header comes with answers and with streams, and names the share that is spent."""
    body = ask(stream=streams)
    play = Play(headers=EVENTS, steps=STREAM) if streams else Play(steps=WHOLE)
    one = World(play, body=body, limits=[budget("cap year 0.01 USD", mode="soft")])
    early = World(play, body=body, limits=[budget("cap year 100 USD", mode="soft")])
    demand = Demand(cost_pico=usd("0.0104"), tokens=1)
    held: Any = at_once(one.budgets.reserve("before", subject(), demand, AT))
    one.budgets.settle(held, demand)
    run(one.call())
    run(early.call())

    share = 104 if streams else 129
    assert f"cap={share}%" == one.client.told["x-taximeter-budget-warning"]
    assert "x-taximeter-budget-warning" not in early.client.told


def test_a_hard_budget_warns_from_its_first_threshold_where_it_is_told_to() -> None:
    """With ``warn`` a crossed threshold is told; without it, nothing is."""
    told = {}
    for name, actions in (("loud", ["warn"]), ("quiet", [])):
        limit = budget(f"{name} year 0.1 USD", thresholds=[50, 80], actions=actions)
        one = World(Play(steps=WHOLE), limits=[limit])
        demand = Demand(cost_pico=usd("0.051"), tokens=1)
        held: Any = at_once(one.budgets.reserve("before", subject(), demand, AT))
        one.budgets.settle(held, demand)
        run(one.call())
        told[name] = one.client.told.get("x-taximeter-budget-warning")

    assert {"loud": "loud=53%", "quiet": None} == told


@pytest.mark.parametrize(
    ("window", "mode", "actions", "says"),
    [
        ("day", "soft", ["block"], "block is what mode hard does"),
        ("day", "soft", [MINI], "only a hard budget"),
        ("day", "hard", ["fallback:gpt-5"], "is not known"),
        ("day", "hard", ["shout"], "is not known"),
        ("day", "hard", [MINI, "fallback:openai/gpt-5"], "give each once"),
        ("total", "hard", ["throttle:5"], "needs a window with an end"),
        ("rolling:60", "hard", ["throttle:5"], "needs a window with an end"),
        ("day", "hard", ["throttle:0"], "1 to 60 seconds"),
        ("day", "hard", ["throttle:61"], "1 to 60 seconds"),
    ],
)
def test_an_action_that_makes_no_sense_is_refused(
    window: str, mode: str, actions: list[str], says: str
) -> None:
    """What cannot be done is said when it is written, and what is accepted."""
    with pytest.raises(ValueError, match=says):
        budget(f"b {window} 1 USD", mode=mode, actions=actions)


def test_actions_make_a_round_trip() -> None:
    """The texts come back as they were written."""
    one = budget("b day 1 USD", actions=["block", "warn", MINI, "throttle:5"])

    assert ("openai/gpt-5-mini", 5, True) == (
        one.actions.fallback,
        one.actions.throttle_s,
        one.actions.warns,
    )
    assert BOOK.find_card("openai", "gpt-5-mini", AT) is not None


@pytest.mark.parametrize("model", ["gpt\x00", "gpt\x7f", "gpt\xe9", "gpt\r\nx: y", "gpt 5", ""])
def test_a_fallback_that_no_header_can_hold_is_refused(model: str) -> None:
    """Its name is told to clients in a header: nothing can be smuggled into one."""
    with pytest.raises(ValueError, match="is not known"):
        budget("b day 1 USD", actions=[f"fallback:openai/{model}"])
