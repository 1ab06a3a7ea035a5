"""The settings: what the example means, what is refused, and that everything is said at once."""

from contextlib import chdir
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.settings import SettingsBroken, effective, load_settings, warnings_of

EXAMPLE = """\
server:   {host: 127.0.0.1, port: 8080, workers: 1, admin_token: env:TAXIMETER_ADMIN_TOKEN}
storage:  {database_url: "sqlite:///data/taximeter.db", journal_dir: data/journal}
metering: {durability: commit, on_client_disconnect: auto, missing_usage: estimate, unpriced: block}
providers:
  openai:    {kind: openai,    base_url: "https://api.openai.com/v1/",  api_key: env:OPENAI_API_KEY}
  azure:     {kind: azure,     base_url: "https://n.openai.azure.com", deployments: {my-gpt: gpt-5}}
  bedrock:   {kind: bedrock,   region: us-east-1}
  local:     {kind: openai,    base_url: "http://127.0.0.1:11434/v1", priced_as: null}
organization: acme
teams:
  - id: search
    projects:
      - id: rag
        tags: {env: prod}
        keys: [{id: rag-ci, secret: env:RAG_KEY, expires_at: 2027-01-31T00:00:00Z}]
budgets:
  - {id: search-month, scope: {team: search}, limit: "500 USD", window: month,
     timezone: Europe/Berlin, mode: hard, thresholds: [50, 80, 100]}
  - {id: rag-tokens,   scope: {project: rag}, limit: "2000000 tokens", window: day}
tag_policy:
  env: {required: true, values: [prod, staging, no], on_violation: reject}
"""
ENVIRON = {
    "TAXIMETER_ADMIN_TOKEN": "admin-secret-of-the-test",
    "OPENAI_API_KEY": "sk-upstream",
    "RAG_KEY": "sk-tm-of-the-rag-project-1234567890",
}


def load(tmp_path: Path, text: str, **environ: str):
    path = tmp_path / "taximeter.yaml"
    path.write_text(text, "utf-8")
    return load_settings(path, environ)


def problems_of(tmp_path: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(SettingsBroken) as caught:
        load(tmp_path, text, **environ)
    return [str(p).removeprefix(f"{tmp_path}/taximeter.yaml:") for p in caught.value.problems]


def test_the_example_means_what_it_says(tmp_path):
    """The example of the documentation loads, with every reference resolved."""
    settings = load(tmp_path, EXAMPLE, **ENVIRON)

    assert settings.server.admin_token.get_secret_value() == "admin-secret-of-the-test"
    assert settings.storage.journal_dir == Path("data/journal")
    assert settings.providers["openai"].base_url == "https://api.openai.com/v1"
    assert settings.providers["openai"].api_key.get_secret_value() == "sk-upstream"
    assert (
        settings.providers["bedrock"].base_url == "https://bedrock-runtime.us-east-1.amazonaws.com"
    )
    assert settings.organization == "acme"
    key = settings.teams[0].projects[0].keys[0]
    assert (key.id, key.models, key.expires_at) == (
        "rag-ci",
        ("*",),
        datetime(2027, 1, 31, tzinfo=UTC),
    )
    assert settings.teams[0].name == "search"
    assert settings.budgets[0].thresholds == (50, 80, 100)
    assert (settings.budgets[1].mode, settings.budgets[1].timezone) == ("hard", "UTC")


def test_yaml_keeps_words_that_yaml_1_1_would_turn_into_booleans(tmp_path):
    """`no` in a list of tag values is the text, not false."""
    settings = load(tmp_path, EXAMPLE, **ENVIRON)

    assert settings.tag_policy["env"].values == ("prod", "staging", "no")


def test_models_are_priced_as_their_kind_or_under_their_own_id(tmp_path):
    """Not given means the kind's catalog provider; null means the provider's own id."""
    text = """\
providers:
  openai: {kind: openai}
  own: {kind: openai, priced_as: null}
  other: {kind: openai, priced_as: groq}
  azure: {kind: azure, base_url: "https://x.openai.azure.com"}
  vertex: {kind: vertex, region: europe-west1}
  demo: {kind: demo}
"""
    settings = load(tmp_path, text)

    assert {name: p.priced_as for name, p in settings.providers.items()} == {
        "openai": "openai",
        "own": "own",
        "other": "groq",
        "azure": "openai",
        "vertex": "vertex",
        "demo": "demo",
    }


def test_defaults_hold_without_a_file(tmp_path):
    """No file at all is a working configuration with no admin token of its own."""
    with chdir(tmp_path):
        settings = load_settings(None, {})

    assert settings.server.admin_token is None
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8080)
    assert settings.server.body_bytes_max == 33_554_432
    assert settings.storage.database_url == "sqlite:///data/taximeter.db"
    assert (settings.organization, settings.providers) == ("default", {})


def test_a_file_in_the_working_directory_is_found(tmp_path):
    """--config wins over TAXIMETER_CONFIG, which wins over ./taximeter.yaml."""
    for name in ("taximeter", "env", "option"):
        (tmp_path / f"{name}.yaml").write_text(f"organization: {name}\n")

    with chdir(tmp_path):
        here = load_settings(None, {})
        named = load_settings(None, {"TAXIMETER_CONFIG": "env.yaml"})
        chosen = load_settings(Path("option.yaml"), {"TAXIMETER_CONFIG": "env.yaml"})

    assert here.organization == "taximeter"
    assert named.organization == "env"
    assert chosen.organization == "option"


def test_a_missing_file_is_a_problem(tmp_path):
    """A file somebody named must exist."""
    with pytest.raises(SettingsBroken, match=r"nowhere\.yaml: cannot be read: No such file"):
        load_settings(tmp_path / "nowhere.yaml", {})


def test_every_problem_is_listed_with_its_line(tmp_path):
    """One run names everything that is wrong."""
    text = """\
server:
  prot: 9000
  workers: 4
storage: {database_url: "mysql://x"}
providers:
  v1: {kind: openai}
  Big: {kind: openai}
  x: {kind: opnai, api_key: env:MISSING}
  ftp: {kind: openai, base_url: "ftp://x"}
  clouds: {kind: bedrock}
teams:
  - id: a
    projects: [{id: p, keys: [{id: k, secret: s3cret}]}]
  - id: a
    projects:
      - {id: p, keys: [{id: k2, secret: s3cret}, {id: 2024, secret: q}]}
budgets:
  - {id: b, scope: {team: aa}, limit: "5 EUR", window: fortnight, timezone: Europe/Berlim}
  - {id: b, scope: {taem: a}, limit: 500, window: day}
colour: red
"""
    problems = problems_of(tmp_path, text)

    found = [p.split(": ", 1) for p in problems]
    lines = [int(line) for line, _ in found]
    assert lines == sorted(lines)
    expected = [
        (2, "server.prot: there is no such setting; did you mean port?"),
        (3, "server.workers: several workers share their budgets over Redis"),
        (4, "storage.database_url: write sqlite:///relative.db"),
        (6, "providers.v1: /v1 is a path of the gateway itself"),
        (7, "providers.Big: an id has 1 to 64 lower-case"),
        (8, "providers.x.api_key: the environment variable MISSING is not set"),
        (8, "providers.x.kind: write one of openai, azure"),
        (9, "providers.ftp.base_url: write an address such as https://"),
        (10, "providers.clouds: needs a region"),
        (14, "teams[1].id: the team 'a' is there already, at teams[0]"),
        (16, "teams[1].projects[0].id: the project 'p' is there already"),
        (16, "teams[1].projects[0].keys[0].secret: key 'k' has the same secret"),
        (16, "teams[1].projects[0].keys[1].id: write text; a number or true needs quotes"),
        (18, "budgets[0].limit: "),
        (18, "budgets[0].scope.team: there is no team 'aa' in this file; did you mean a?"),
        (
            18,
            "budgets[0].timezone: there is no time zone 'Europe/Berlim'; did you mean",
        ),
        (18, "budgets[0].window: "),
        (19, "budgets[1].id: the budget 'b' is there already"),
        (19, "budgets[1].limit: write text; a number or true needs quotes"),
        (19, "budgets[1].scope: unknown scope key 'taem'; did you mean team?"),
        (20, "colour: there is no such setting; there are: "),
    ]
    assert len(expected) == len(problems), problems
    for (line, start), actual in zip(expected, problems, strict=True):
        assert actual.startswith(f"{line}: {start}"), actual


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("server: {port: 1\n", "not YAML: expected ',' or '}'"),
        ("a: 1\na: 2\n", "2: a: is written twice; the first is on line 1"),
        ("server: &x\n  a: *x\n", "an alias leads back to itself"),
        ("server:\n  <<: {port: 1}\n", "2: server: write a plain name as the key; `<<` and lists"),
        ("server: {host: !!python/name:os.system x}\n", "is not understood; leave it out"),
        ("- a\n", "write keys and values at the top"),
        ("server: {port: 80.5}\n", "1: server.port: write a whole number"),
        ("server: {port: true}\n", "1: server.port: write a number, not true or false"),
        ("server: {port: 70000}\n", "1: server.port: must be less than or equal to 65535"),
        ("server: 3\n", "1: server: write keys and values here"),
        ("storage: {fsync: never}\n", "1: storage.fsync: write one of normal or full"),
        ("storage: {redis_url: 'http://x'}\n", "a Redis address starts with redis://"),
        ("storage: {database_url: 'sqlite:///:memory:'}\n", "the ledger needs a file"),
        ("metering: {user_input_tokens: perhaps}\n", "write true or false"),
        ("teams: {id: a}\n", "1: teams: write a list"),
        ("teams: [{projects: []}]\n", "1: teams[0].id: is missing"),
        ("teams: [{id: a, tags: {e: 1}}]\n", "teams[0].tags.e: write text"),
        ("teams: [{id: a, tags: {'e f': x}}]\n", "'e f': a tag name has 1 to 64"),
        ("providers: {a: {kind: azure}}\n", "needs base_url"),
        (
            "providers: {a: {kind: openai, deployments: {a: b}}}\n",
            "deployments are for the kinds azure, bedrock, mistral",
        ),
        ("providers: {a: {kind: openai, base_url: 'http://u:p@h'}}\n", "put the credential into"),
        ("providers: {a: {kind: openai, base_url: 'http://h?q=1'}}\n", "cannot hold ? or #"),
        ("providers: {a: {kind: bedrock, region: 'x.evil.com/'}}\n", "is not a region name"),
        ("providers: {a: {kind: bedrock, base_url: 'http://h'}}\n", "needs a region"),
        (
            "providers: {a: {kind: bedrock, region: us-east-1, aws_access_key_id: k}}\n",
            "needs both aws_access_key_id and aws_secret_access_key",
        ),
        (
            "providers: {a: {kind: bedrock, region: r, api_key: b, aws_access_key_id: k, "
            "aws_secret_access_key: s}}\n",
            "keep the one to use",
        ),
        (
            "providers: {a: {kind: openai, aws_access_key_id: k, aws_secret_access_key: s}}\n",
            "AWS credentials are for kind bedrock",
        ),
        ("providers: {a: {kind: openai, headers: {'a b': c}}}\n", "'a b' is not a header name"),
        ('providers: {a: {kind: openai, headers: {a: "b\\r\\nc: d"}}}\n', "not printable ASCII"),
        ("providers: {a: {kind: openai, timeout_s: 0}}\n", "must be greater than 0"),
        (
            "budgets: [{id: b, scope: {provider: x}, limit: 1 USD, window: day}]\n",
            "no provider 'x'",
        ),
        ("budgets: [{id: b, limit: 1 USD, window: day, mode: firm}]\n", "write one of hard, soft"),
        ("budgets: [{id: b, limit: 1 USD, window: day, thresholds: [0]}]\n", "must be greater"),
        (
            "budgets:\n  - {id: b, limit: 1 USD, window: total, actions: ['throttle:5']}\n",
            "2: budgets[0]: actions: throttle needs a window with an end",
        ),
        (
            "budgets: [{id: b, limit: 1 USD, window: day, actions: [shout]}]\n",
            "write block, warn, fallback:<provider>/<model> or throttle:<seconds>",
        ),
        ("budgets: [{id: b, limit: 1 USD, window: month, anchor: 31}]\n", "write text; a number"),
        (
            "budgets: [{id: b, limit: 1 USD, window: month, anchor: 2026-02-30}]\n",
            "budgets[0].anchor: anchor '2026-02-30' is not accepted",
        ),
        (
            "budgets: [{id: b, limit: 1 USD, window: hour, anchor: 2026-01-31}]\n",
            "does not fit the window 'hour'",
        ),
        ("budgets: [{id: b, limit: 1 USD, window: day, rollover: true}]\n", "needs valid_from"),
        (
            "budgets: [{id: b, limit: 1 USD, window: day, rollover: 5 tokens,"
            " valid_from: 2026-12-01T00:00:00Z}]\n",
            "rollover '5 tokens' is not accepted",
        ),
        (
            "budgets: [{id: b, limit: 1 USD, window: total, rollover: true,"
            " valid_from: 2026-12-01T00:00:00Z}]\n",
            "rollover does not fit the window 'total'",
        ),
        (
            "budgets: [{id: b, limit: 1 USD, window: day, valid_from: 2026-12-01T00:00:00}]\n",
            "budgets[0].valid_from: ",
        ),
        (
            "budgets: [{id: b, limit: 1 USD, window: day, valid_from: 2026-12-01T00:00:00Z,"
            " valid_to: 2026-12-01T00:00:00Z}]\n",
            "valid_to is not after valid_from",
        ),
        ("tag_policy: {env: {values: []}}\n", "tag_policy.env.values"),
        ("tag_policy: {'a b': {}}\n", "tag_policy.a b: a tag name has 1 to 64"),
        ("server: {admin_token: file:none}\n", "cannot read the file"),
        ("server: {admin_token: 'env:'}\n", "write the name of an environment variable"),
        ("server: {admin_token: 'a b'}\n", "printable ASCII without spaces"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, problem):
    """Each kind of mistake has its own sentence."""
    problems = problems_of(tmp_path, text)

    assert any(problem in said for said in problems), problems


def test_an_aliased_value_is_read_in_both_places(tmp_path):
    """Anchors and aliases work; only loops and merges are refused."""
    text = "teams: [{id: a, tags: &t {env: prod}}, {id: b, tags: *t}]\n"

    settings = load(tmp_path, text)

    assert settings.teams[1].tags == {"env": "prod"}


def test_a_bomb_of_aliases_is_refused(tmp_path):
    """A few lines cannot unfold into gigabytes."""
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]

    problems = problems_of(tmp_path, "\n".join(rows))

    assert any("unfolds into too much" in said for said in problems)


def test_secret_files_are_read_relative_to_the_config(tmp_path):
    """file:PATH drops the newline editors add."""
    (tmp_path / "token").write_text("from-a-file\n")

    settings = load(tmp_path, "server: {admin_token: file:token}\n")

    assert settings.server.admin_token.get_secret_value() == "from-a-file"


def test_the_environment_overrides_the_file(tmp_path):
    """TAXIMETER_<SECTION>__<KEY> wins, and rescues a reference that cannot be resolved."""
    (tmp_path / "t").write_text("tok")
    settings = load(
        tmp_path,
        "server: {port: 1, admin_token: env:GONE}\nproviders: {my-ai: {kind: openai}}\n",
        TAXIMETER_SERVER__PORT="9000",
        TAXIMETER_SERVER__ADMIN_TOKEN="file:" + str(tmp_path / "t"),
        TAXIMETER_STORAGE__DATABASE_URL="postgresql://u:pw@db:5432/x",
        TAXIMETER_STORAGE__REDIS_URL="redis://a:1,redis://b:2",
        TAXIMETER_METERING__USER_INPUT_TOKENS="false",
        TAXIMETER_ORGANIZATION="acme",
        TAXIMETER_PROVIDERS__MY_AI__BASE_URL="http://127.0.0.1:9",
        TAXIMETER_PROVIDERS__GROQ__KIND="groq",
    )

    assert settings.server.port == 9000
    assert settings.server.admin_token.get_secret_value() == "tok"
    assert settings.storage.database_url == "postgresql://u:pw@db:5432/x"
    assert settings.storage.redis_url == ("redis://a:1", "redis://b:2")
    assert settings.metering.user_input_tokens is False
    assert settings.organization == "acme"
    assert settings.providers["my-ai"].base_url == "http://127.0.0.1:9"
    assert settings.providers["groq"].base_url == "https://api.groq.com/openai/v1"


def test_an_unknown_override_is_a_problem(tmp_path):
    """A typo in the environment is as bad as one in the file; the variable is named."""
    problems = problems_of(
        tmp_path,
        "teams: [{id: a, projects: [{id: p, keys: [{id: k, secret: env:TAXIMETER_RAG}]}]}]\n",
        TAXIMETER_RAG="named-by-the-file-so-known",
        TAXIMETER_SERVER__PROT="1",
        TAXIMETER_SERVER__HOST="",
        TAXIMETER_KEY="of the client",
        TAXIMETER_SERVICE_HOST="10.0.0.1",
        TAXIMETER_PORT_8080_TCP="tcp://10.0.0.1:8080",
    )

    assert problems == [
        "TAXIMETER_SERVER__HOST: server.host: must have at least 1 character",
        "TAXIMETER_SERVER__PROT: no setting has this name (TAXIMETER_<SECTION>__<KEY>); "
        "did you mean TAXIMETER_SERVER__PORT?",
    ]


def test_no_secret_is_ever_shown(tmp_path):
    """Neither the effective settings nor an error nor a repr holds a secret."""
    text = EXAMPLE.replace("sqlite:///data/taximeter.db", "postgresql://u:hidden-pw@db/x").replace(
        "region: us-east-1", "region: us-east-1, headers: {x-key: hidden-header}"
    )
    settings = load(tmp_path, text, **ENVIRON)

    shown = effective(settings)

    assert shown["storage"]["database_url"] == "postgresql://u:********@db/x"
    assert shown["server"]["admin_token"] == "********"
    for secret in [*ENVIRON.values(), "hidden-pw", "hidden-header"]:
        assert secret not in str(shown)
    for secret in ENVIRON.values():
        assert secret not in repr(settings)


def test_problems_do_not_quote_secrets(tmp_path):
    """A secret that is refused is not repeated in the refusal."""
    problems = problems_of(
        tmp_path,
        "server: {admin_token: env:T}\nstorage: {database_url: env:D}\n",
        T="very secret",
        D="mysql://u:verysecret@h",
    )

    assert len(problems) == 2
    assert "secret@" not in str(problems)
    assert "very secret" not in str(problems)


def test_warnings_name_what_is_probably_not_meant(tmp_path):
    """A short key can be guessed."""
    settings = load(
        tmp_path,
        "teams: [{id: a, projects: [{id: p, keys: [{id: k, secret: abc}]}]}]\n",
    )

    said = " ".join(warnings_of(settings))

    assert "key k" in said


def test_a_budget_can_say_where_its_windows_lie(tmp_path):
    """Anchors, validity and rollover arrive as written, and problems name the budget's line."""
    text = """\
budgets:
  - id: pay
    limit: 100 USD
    window: month
    timezone: Europe/Berlin
    anchor: 2026-01-31T09:00:00
    rollover: 50 USD
    valid_from: 2026-10-31T09:00:00+01:00
    valid_to: 2027-12-31T00:00:00Z
"""
    file = tmp_path / "taximeter.yaml"
    file.write_text(text)
    (one,) = load_settings(file, {}).budgets

    assert ("2026-01-31T09:00:00", "50 USD") == (one.anchor, one.rollover)
    assert "2026-10-31T09:00:00+01:00" == one.valid_from.isoformat()
    assert "2027-12-31T00:00:00+00:00" == one.valid_to.isoformat()
    lost = text.replace("    valid_from: 2026-10-31T09:00:00+01:00\n", "")
    (problem,) = problems_of(tmp_path, lost)
    assert problem.startswith("2: budgets[0]: rollover needs valid_from")
