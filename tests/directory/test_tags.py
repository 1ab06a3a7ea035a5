"""The tags of one call."""

from dataclasses import dataclass
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.tags import merge_tags, parse_tags


@dataclass(frozen=True)
class Rule:
    """One rule of a policy."""

    required: bool = False
    values: tuple[str, ...] | None = None
    on_violation: str = "reject"


def test_the_request_wins_over_what_the_key_inherits():
    """The header is the most specific thing there is."""
    decision = merge_tags({"b": "key", "c": "key"}, "b=request, a=request", {})

    assert {"a": "request", "b": "request", "c": "key"} == decision.tags
    assert ["a", "b", "c"] == list(decision.tags)
    assert not decision.is_refused


def test_without_a_header_nothing_is_copied():
    """The common case costs nothing."""
    inherited = {"a": "b"}

    assert merge_tags(inherited, None, {}).tags is inherited


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", ()),
        (" , ,", ()),
        ("k=v", (("k", "v"),)),
        (" k = v ,k2=v2,", (("k", "v"), ("k2", "v2"))),
        ("k=a=b", (("k", "a=b"),)),
        ("k=a%2Cb%20c", (("k", "a,b c"),)),
        ("k=%C3%A9", (("k", "\u00e9"),)),
        ("k=a+b", (("k", "a+b"),)),
        ("k=1,k=2", (("k", "1"), ("k", "2"))),
    ],
)
def test_what_can_be_read(text: str, pairs: tuple[tuple[str, str], ...]):
    """Blanks and stray commas do not matter; values may be percent-encoded."""
    assert (pairs, ()) == parse_tags(text)


@pytest.mark.parametrize(
    ("text", "tag", "words"),
    [
        ("k", "k", "name=value"),
        ("=v", "", "1 to 64"),
        ("K=v", "K", "1 to 64"),
        ("k" * 65 + "=v", "k" * 64, "1 to 64"),
        ("k=", "k", "empty"),
        ("k=%zz", "k", "%25"),
        ("k=100%", "k", "%25"),
        ("k=%ff", "k", "UTF-8"),
        ("k=%00", "k", "printable"),
        ("k=\u00e9", "k", "percent-encode"),
        ("k=" + "v" * 257, "k", "256"),
        ("k=" + "v" * 100_000, "k", "256"),
        (",".join(f"k{n}=v" for n in range(33)), "", "32"),
        (",".join(f"k{n}=v" for n in range(5000)), "", "32"),
    ],
)
def test_what_cannot_be_read_refuses_the_call(text: str, tag: str, words: str):
    """Cost never lands on a guessed tag."""
    decision = merge_tags({}, text, {})

    assert decision.is_refused
    assert tag == decision.violations[0].tag
    assert words in decision.violations[0].reason


def test_inherited_tags_count_towards_the_bound():
    """A record never has more than 32 tags."""
    inherited = {f"a{n}": "x" for n in range(32)}

    assert merge_tags(inherited, "z=1", {}).is_refused
    assert not merge_tags(inherited, "a1=1", {}).is_refused


@pytest.mark.parametrize(
    ("rule", "header", "refused"),
    [
        (Rule(required=True), None, [True]),
        (Rule(required=True), "env=x", []),
        (Rule(required=True, on_violation="warn"), None, [False]),
        (Rule(values=("prod", "dev")), "env=prod", []),
        (Rule(values=("prod", "dev")), "env=qa", [True]),
        (Rule(values=("prod",), on_violation="warn"), "env=qa", [False]),
        (Rule(values=("prod",)), None, []),
    ],
)
def test_the_policy_decides(rule: Rule, header: str | None, refused: list[bool]):
    """A broken rule refuses or is only flagged, as it says; a tag keeps its value either way."""
    decision = merge_tags({}, header, {"env": rule})

    assert refused == [violation.is_refusal for violation in decision.violations]
    assert any(refused) == decision.is_refused
    if header is not None:
        assert header.removeprefix("env=") == decision.tags["env"]


@given(
    st.dictionaries(
        st.text("abcz09._-", min_size=1, max_size=64),
        st.text(min_size=1, max_size=40).filter(str.isprintable),
        max_size=32,
    )
)
def test_encoded_tags_come_back(tags: dict[str, str]):
    """Any printable value survives the way through the header."""
    text = ",".join(f"{name}={quote(value, safe='')}" for name, value in tags.items())

    assert (tuple(tags.items()), ()) == parse_tags(text)


@given(st.text(max_size=200))
def test_no_header_breaks_the_parser(text: str):
    """Whatever a client sends, the answer is tags and violations."""
    pairs, violations = parse_tags(text)

    assert all(name and value for name, value in pairs)
    assert all(violation.is_refusal for violation in violations)
