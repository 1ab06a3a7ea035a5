"""One attempt to tell a receiver, and when the next one is due."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.alerts.message import write_test_facts
from gateway.alerts.once import OneShot
from gateway.alerts.sending import (
    ATTEMPTS_MAX,
    DELAY_S_MAX,
    Receiver,
    Sent,
    read_retry_after,
    retry_delay_s,
    send_alert,
)
from gateway.budgets.alerting import AlertKind
from gateway.clock import SystemClock
from gateway.upstream import HttpUpstream, Upstream
from tests.alerts.kit import take
from tests.upstream import (
    CutIn,
    Garbage,
    HangUp,
    Reply,
    Script,
    ScriptedUpstream,
    Silence,
    StallBefore,
    closed_port,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
RECEIVER = Receiver(
    id="ops",
    url="",
    secret="s" * 16,
    form="json",
    kinds=frozenset(AlertKind),
    budgets=("*",),
    scope=frozenset(),
    timeout_s=0.5,
)
CLIENTS: list[Callable[[float], Upstream]] = [HttpUpstream, OneShot]


def send(client: Callable[[float], Upstream], port: int) -> Sent:
    """Send a test message."""
    receiver = replace(RECEIVER, url=f"http://127.0.0.1:{port}/hook?a=b")
    facts = write_test_facts("01T", "acme", NOON)

    async def go() -> Sent:
        return await send_alert(receiver, facts, client(receiver.timeout_s), SystemClock(), "1.2")

    return asyncio.run(go())


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("script", "error", "retry_after_s"),
    [
        (Reply(status=200, body=b"ok"), None, None),
        (Reply(status=204, headers=()), None, None),
        (Reply(status=200, body=b"x" * 400, write_bytes=9, ending=CutIn(piece=4)), None, None),
        (Reply(body=b"x" * 400, write_bytes=9, ending=StallBefore(piece=4)), None, None),
        (Reply(status=404, body=b"no_service"), "answered 404", None),
        (
            Reply(status=307, headers=(("Location", "http://127.0.0.1:1/"),)),
            "answered 307, a redirect, which is not followed",
            None,
        ),
        (Reply(status=429, headers=(("Retry-After", "7"),)), "answered 429", 7.0),
        (Silence(), "no answer within 0.5 s", None),
        (HangUp(), "not reached: ", None),
        (Garbage(), "not reached: ", None),
    ],
)
def test_a_receiver_has_taken_what_it_answers_with_200_to_299(
    client, script: Script, error: str | None, retry_after_s: float | None
) -> None:
    """The head of its answer decides; everything else is an error that shows nothing it said."""
    with ScriptedUpstream(lambda _: script) as receiver:
        sent = send(client, receiver.port)
        request = receiver.exchanges[0].received

    assert 1 == len(receiver.exchanges)
    assert (error or "") == (sent.error or "")[: len(error or "")]
    assert (error is None, retry_after_s) == (sent.error is None, sent.retry_after_s)
    assert ("POST", "/hook?a=b") == (request.method, request.target)
    assert "taximeter/1.2" == request.header("user-agent")


@pytest.mark.parametrize("client", CLIENTS)
def test_nobody_there_is_said_so(client) -> None:
    """In words without the address."""
    sent = send(client, closed_port())

    assert sent.error is not None
    assert sent.error.startswith("not reached: ")
    assert "127.0.0.1" not in sent.error


def test_a_receiver_without_a_secret_gets_no_signature() -> None:
    """Nothing would be proven by one."""
    with ScriptedUpstream(take) as receiver:
        bare = replace(RECEIVER, secret=None, url=f"http://127.0.0.1:{receiver.port}/")
        facts = write_test_facts("01T", "acme", NOON)
        asyncio.run(send_alert(bare, facts, OneShot(5), SystemClock(), "1.2"))

    assert receiver.last().header("x-taximeter-signature") is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30.0),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0.0),
        ("Mon, 23 Nov 2026 12:00:30", None),
        ("soon", None),
        ("-3", None),
        ("", None),
        ("²", None),
    ],
)
def test_retry_after_is_read_in_seconds_or_as_a_date(text: str, seconds: float | None) -> None:
    """Anything else asks for nothing."""
    assert seconds == read_retry_after([("retry-after", text)], NOON)


def test_without_the_header_nothing_is_asked() -> None:
    """Other headers do not count."""
    assert None is read_retry_after([("date", "120")], NOON)


@given(st.integers(1, ATTEMPTS_MAX - 1), st.floats(0, 1), st.none() | st.floats(0, 10**9))
def test_delays_grow_and_stay_within_an_hour(attempts, share, retry_after_s) -> None:
    """At least what the receiver asks for, up to an hour; at most half is left to chance."""
    delay = retry_delay_s(attempts, share, retry_after_s)

    assert delay is not None
    assert min(retry_after_s or 0, DELAY_S_MAX) <= delay <= DELAY_S_MAX
    assert delay >= min(DELAY_S_MAX, 2 ** (attempts - 2)) / 2
    if not retry_after_s:
        assert delay <= 2 ** (attempts - 2)


def test_the_last_attempt_is_the_last() -> None:
    """About three hours after the first."""
    delays = [retry_delay_s(n, 0.0, None) or 0 for n in range(1, ATTEMPTS_MAX)]

    assert None is retry_delay_s(ATTEMPTS_MAX, 0.5, 1.0)
    assert 10_000 < sum(delays) < 4 * 3600


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("host", ["256.256.256.256", "a..b", "%", "x" * 70 + ".example"])
def test_an_address_that_nobody_can_read_is_not_reached(
    client: Callable[[float], Upstream], host: str
) -> None:
    """It fails like one that nobody answers at, and holds up no other receiver."""
    receiver = replace(RECEIVER, url=f"http://{host}/hook", timeout_s=5)
    facts = write_test_facts("01T", "acme", NOON)

    async def go() -> Sent:
        return await send_alert(receiver, facts, client(5), SystemClock(), "1.2")

    sent = asyncio.run(go())

    assert sent.error is not None
    assert sent.error.startswith(("not reached: ", "no answer"))
    assert host not in sent.error


@pytest.mark.parametrize("zone", ["+9999", "+" + "9" * 15, "+" + "9" * 4000, "-0000", "XYZ"])
def test_a_retry_after_beyond_all_bounds_is_no_wish(zone: str) -> None:
    """A receiver that writes nonsense is asked again in its turn, and stops nobody."""
    header = ("retry-after", f"Mon, 23 Nov 2026 12:00:07 {zone}")

    assert read_retry_after([header], NOON) in (None, 7.0)
