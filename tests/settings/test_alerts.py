"""Receivers of alerts in the settings: what they mean, and what is refused."""

import pytest

from gateway.budgets.alerting import AlertKind
from gateway.settings import effective, warnings_of
from tests.settings.test_settings import load, problems_of

EXAMPLE = """\
teams: [{id: search}]
alerts:
  - {id: finops, url: "https://hooks.example.com:8443/T0/B1?sig=s3cr3t", format: slack}
  - id: pager
    url: http://127.0.0.1:9/
    secret: a-secret-of-24-letters-x
    on: [refusal]
    budgets: ["search-*"]
    scope: {team: search, tag.env: prod}
    timeout_s: 2.5
"""


def test_the_example_means_what_it_says(tmp_path) -> None:
    """Defaults: every kind, every budget, ten seconds, no signature."""
    finops, pager = load(tmp_path, EXAMPLE).alerts

    assert ("slack", tuple(AlertKind), ("*",), {}, 10, None) == (
        finops.format,
        finops.on,
        finops.budgets,
        finops.scope,
        finops.timeout_s,
        finops.secret,
    )
    assert ("json", (AlertKind.REFUSAL,), 2.5, {"team": "search", "tag.env": "prod"}) == (
        pager.format,
        pager.on,
        pager.timeout_s,
        pager.scope,
    )


def test_the_address_is_shown_without_its_path(tmp_path) -> None:
    """For many receivers it is the secret."""
    shown = effective(load(tmp_path, EXAMPLE))["alerts"]

    assert "https://hooks.example.com:8443/********" == shown[0]["url"]
    assert "********" == shown[1]["secret"]
    assert "s3cr3t" not in str(shown)
    assert "s3cr3t" not in repr(load(tmp_path, EXAMPLE))


def test_a_program_that_cannot_tell_who_writes_is_warned_of(tmp_path) -> None:
    """JSON without a secret; Slack does not look at signatures."""
    settings = load(tmp_path, EXAMPLE.replace("secret: a-secret-of-24-letters-x", "format: json"))

    assert ["alert receiver pager: has no secret"] == [
        warning.partition(",")[0] for warning in warnings_of(settings)
    ]


@pytest.mark.parametrize(
    ("row", "where", "said"),
    [
        ("url: https://a.example/", "alerts[0].id", "is missing"),
        ("id: A!, url: https://a.example/", "alerts[0].id", "is not an id"),
        ("id: a", "alerts[0].url", "is missing"),
        ('id: a, url: "ftp://a.example/"', "alerts[0].url", "write an address such as"),
        ('id: a, url: "file:///etc/passwd"', "alerts[0].url", ""),
        ('id: a, url: "https:///x"', "alerts[0].url", "write an address such as"),
        ('id: a, url: "https://u:p@a.example/"', "alerts[0].url", "cannot hold a user name"),
        ('id: a, url: "https://a.example/#x"', "alerts[0].url", "after #"),
        ('id: a, url: "https://a.example/ x"', "alerts[0].url", "without spaces"),
        ('id: a, url: "https://a.example:x/"', "alerts[0].url", "cannot be read"),
        ("id: a, url: https://a.example/, secret: short", "alerts[0].secret", "16 or more"),
        ("id: a, url: https://a.example/, format: xml", "alerts[0].format", "write one of"),
        ("id: a, url: https://a.example/, on: [spent]", "alerts[0].on[0]", "write one of"),
        ("id: a, url: https://a.example/, on: []", "alerts[0].on", "never be told"),
        ("id: a, url: https://a.example/, timeout_s: 61", "alerts[0].timeout_s", "60"),
        ("id: a, url: https://a.example/, timeout_s: true", "alerts[0].timeout_s", "a number"),
        ("id: a, url: https://a.example/, scope: {tier: x}", "alerts[0].scope", "is not known"),
        (
            "id: a, url: https://a.example/, scope: {team: serch}",
            "alerts[0].scope.team",
            "did you mean search?",
        ),
        ("id: a, url: https://a.example/, window: day", "alerts[0].window", "no such setting"),
        ('id: a, url: "env:NO_SUCH_HOOK"', "alerts[0].url", "NO_SUCH_HOOK is not set"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path, row, where, said) -> None:
    """File, line and place; never the address or the secret."""
    text = f"teams: [{{id: search}}]\nalerts:\n  - {{{row}}}\n"
    problems = problems_of(tmp_path, text)

    assert 1 == len(problems), problems
    assert problems[0].startswith(f"3: {where}: ")
    assert said in problems[0]
    assert "a.example" not in problems[0]


def test_two_receivers_cannot_share_an_id(tmp_path) -> None:
    """What was not delivered is kept under it."""
    text = "alerts:\n" + "  - {id: a, url: https://a.example/}\n" * 2
    (problem,) = problems_of(tmp_path, text)

    assert "3: alerts[1].id: the alert receiver 'a' is there already, at alerts[0]" == problem
