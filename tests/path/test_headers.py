"""Which headers pass: everything but credentials, framing and the gateway's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.headers import CREDENTIALS, TO_CLIENT, TO_UPSTREAM

HOP_BY_HOP = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
]
FRAMING = ["host", "content-length", "expect", "accept-encoding"]
METHODS = ["x-http-method-override", "x-http-method", "x-method-override"]
OWN = ["x-taximeter-tags", "x-taximeter-user", "x-taximeter-anything"]
PASS_UP = [
    "content-type",
    "accept",
    "user-agent",
    "openai-organization",
    "openai-project",
    "idempotency-key",
    "x-stainless-retry-count",
    "x-should-retry",
    "traceparent",
    "x-custom",
]
PASS_DOWN = [
    "content-type",
    "x-request-id",
    "openai-processing-ms",
    "x-ratelimit-remaining-tokens",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "content-encoding",
    "set-cookie",
    "location",
]


@pytest.mark.parametrize("name", [*CREDENTIALS, *HOP_BY_HOP, *FRAMING, *METHODS, *OWN])
@pytest.mark.parametrize("spell", [str.lower, str.upper, str.title])
def test_these_never_reach_a_provider(name, spell) -> None:
    """The virtual key least of all, however the name is spelt."""
    asked = [(spell(name), "x"), ("accept", "y")]

    assert [("accept", "y")] == TO_UPSTREAM.choose(asked)
    assert [("accept", "y")] == TO_UPSTREAM.choose(asked), "remembered wrongly"


@pytest.mark.parametrize("name", PASS_UP)
def test_these_reach_the_provider(name: str) -> None:
    """Repeated names are kept, in order."""
    asked = [(name, "a\xe9"), (name, "b")]

    assert asked == TO_UPSTREAM.choose(asked)


@pytest.mark.parametrize("name", [*HOP_BY_HOP, "content-length", *OWN])
def test_these_never_reach_a_client(name: str) -> None:
    """A provider cannot speak in the gateway's name."""
    assert [] == TO_CLIENT.choose([(name, "x"), (name.title(), "x")])


@pytest.mark.parametrize("name", PASS_DOWN)
def test_these_reach_the_client(name: str) -> None:
    """Repeated names are kept, in order."""
    told = [(name, "a\xe9"), (name, "b")]

    assert told == TO_CLIENT.choose(told)


token = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12)


@given(st.lists(st.tuples(token | st.sampled_from([*CREDENTIALS, *OWN, *HOP_BY_HOP]), token)))
def test_order_and_values_of_what_passes_stay(headers: list[tuple[str, str]]) -> None:
    """What passes is what came, less what must not."""
    denied = {*CREDENTIALS, *HOP_BY_HOP, *FRAMING}
    kept = [h for h in headers if h[0] not in denied and not h[0].startswith("x-taximeter-")]

    assert kept == TO_UPSTREAM.choose(headers)


def test_a_flood_of_names_still_passes_and_is_still_filtered() -> None:
    """The memory of verdicts has a bound; the verdicts do not change beyond it."""
    for number in range(5000):
        one = [(f"x-flood-{number}", "v")]
        assert one == TO_UPSTREAM.choose(one) == TO_CLIENT.choose(one)

    assert [] == TO_UPSTREAM.choose([("x-taximeter-new", "v"), ("Api-Key", "v")])
    assert [] == TO_CLIENT.choose([("x-taximeter-new", "v")])
