"""Broken price lists: every problem at once with file and row, and never another error."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pricing.importers.catalogs import check_candidate
from pricing.importers.genai_model import UNITS
from pricing.importers.keys import KEYS
from pricing.importers.sources import SOURCES, load_candidate
from pricing.manifest import BookBroken
from tests.pricing.importers.lists import DAY, json_text, read_genai, read_map, row_of

GOOD = row_of(input_cost_per_token="=1e-06")
MODEL = {"id": "m", "match": {"equals": "m"}, "prices": {"input_mtok": 1}}


@pytest.mark.parametrize(
    ("text", "say"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[1, 2]", "an object with one entry for each model"),
        ("{}", "an object with one entry for each model"),
        ('{"m": NaN}', "NaN is not a price"),
        ('{"m": -Infinity}', "-Infinity is not a price"),
        ('{"m": 1, "m": 2}', "the same key twice: m"),
        ("[" * 100_000, "nested too deep"),
        ('{"m": 1e99999999999999999999}', "not a number any price has"),
        ('{"m": ' + "9" * 5000 + "}", "Exceeds the limit"),
    ],
    ids=range(10),
)
def test_a_file_that_is_no_map_is_refused_with_its_name(text, say):
    """Whatever is wrong with it."""
    with pytest.raises(BookBroken, match=say) as broken:
        read_map(text, "map.json")

    assert all(problem.startswith("map.json: ") for problem in broken.value.problems)


@pytest.mark.parametrize(
    ("row", "say"),
    [
        (7, "an entry is an object"),
        ({"mode": "chat"}, "litellm_provider is missing"),
        (row_of(input_cost_per_token="=-1e-06"), "input_cost_per_token: -0.000001 is negative"),
        (row_of(input_cost_per_token="=1e15"), "is huge"),
        (row_of(input_cost_per_token="=1e-35"), "finer than any price"),
        (row_of(input_cost_per_token="1e-06"), "'1e-06' is not a number"),
        (row_of(input_cost_per_token=True), "True is not a number"),
        (row_of(input_cost_per_token=[]), r"\[\] is not a number"),
        (row_of(search_context_cost_per_query="=0.01"), "is an object"),
        (row_of(provider_specific_entry=[]), "is an object"),
        (row_of(off_peak_pricing=7), "is an object"),
        (row_of(tiered_pricing={}), "a list of ranges"),
        (row_of(tiered_pricing=[{"range": [5, 9], "input_cost_per_token": 1}]), "does not follow"),
        (row_of(tiered_pricing=[{"range": 5, "input_cost_per_token": 1}]), "two ends"),
        (GOOD | {"max_input_tokens": "many"}, "max_input_tokens is a whole number"),
        (GOOD | {"max_output_tokens": "=1.5"}, "max_output_tokens is a whole number"),
        (GOOD | {"max_output_tokens": -1}, "max_output_tokens is -1"),
    ],
)
def test_a_row_no_list_would_have_refuses_the_whole_map(row, say):
    """A wrong type or an impossible price: the file is not what it says it is."""
    with pytest.raises(BookBroken, match=rf"^map\.json: bad: .*{say}"):
        read_map(json_text({"good": GOOD, "bad": row}))


def test_every_problem_of_a_map_is_reported_at_once():
    """Nobody has to import ten times to find ten slips."""
    rows = {f"m{n}": row_of(input_cost_per_token=f"=-{n + 1}") for n in range(10)}

    with pytest.raises(BookBroken) as broken:
        read_map(json_text(rows | {"good": GOOD}))

    assert [f"map.json: m{n}" for n in range(10)] == [p[:12] for p in broken.value.problems]


@pytest.mark.parametrize(
    ("providers", "say"),
    [
        ({}, "a list of providers"),
        ([], "a list of providers"),
        ([7], "provider 1: an entry is an object"),
        ([{"id": 7}], "provider 1: a provider has an id"),
        ([{"id": "openai", "models": {}}], "a list of models"),
        ([{"id": "openai", "models": [7]}], "openai/model 1: a model is an object with an id"),
        ([{"id": "openai", "models": [MODEL | {"prices": 7}]}], "openai/m: prices is a list"),
        ([{"id": "openai", "models": [MODEL | {"prices": [7]}]}], "prices holds objects"),
        ([{"id": "openai", "models": [MODEL | {"prices": {"input_mtok": -1}}]}], "negative"),
        ([{"id": "openai", "models": [MODEL | {"prices": {"input_mtok": "=1e20"}}]}], "huge"),
        ([{"id": "openai", "models": [MODEL | {"prices": {"input_mtok": "NaN"}}]}], "finite"),
        ([{"id": "openai", "models": [MODEL | {"prices": {"input_mtok": []}}]}], "not a number"),
        ([{"id": "openai", "models": [MODEL | {"context_window": "big"}]}], "context_window is"),
        (
            [{"id": "openai", "models": [MODEL | {"prices": [
                {"constraint": {"start_date": "soon"}, "prices": {"input_mtok": 1}}]}]}],
            "isoformat",
        ),
        (
            [{"id": "openai", "models": [MODEL | {"prices": {"input_mtok": {
                "base": 1, "tiers": [{"start": "=5.5", "price": 1}]}}}]}],
            "a tier has a start and a price",
        ),
    ],
)  # fmt: skip
def test_an_entry_no_list_would_have_refuses_the_whole_list(providers, say):
    """With file, provider and model."""
    with pytest.raises(BookBroken, match=say) as broken:
        read_genai(json_text(providers))

    assert all(problem.startswith("data.json: ") for problem in broken.value.problems)


def test_windows_that_overlap_are_refused_with_the_row():
    """Two prices would hold at one instant."""
    windows = [
        {"constraint": {"start_time": start, "end_time": "05:00:00Z"}, "prices": {"input_mtok": 2}}
        for start in ("01:00:00Z", "03:00:00Z")
    ]
    candidate = read_genai(
        json_text(
            [
                {
                    "id": "openai",
                    "models": [MODEL | {"prices": [{"prices": {"input_mtok": 1}}, *windows]}],
                }
            ]
        )
    )

    with pytest.raises(BookBroken, match=r"^data\.json: openai/m: .*overlap"):
        check_candidate(candidate)


def test_dates_that_run_backwards_are_one_history():
    """The list says which condition wins; no span ends before it starts."""
    prices = [{"prices": {"input_mtok": 1}}] + [
        {"constraint": {"start_date": day}, "prices": {"input_mtok": 2}}
        for day in ("2026-06-01", "2026-03-01")
    ]
    candidate = read_genai(json_text([{"id": "openai", "models": [MODEL | {"prices": prices}]}]))

    assert 2 == len(check_candidate(candidate).rates)


@pytest.mark.parametrize("name", SOURCES)
def test_a_file_that_is_not_there_is_a_problem_of_the_list(name, tmp_path):
    """As is one that is not text."""
    with pytest.raises(BookBroken, match="missing"):
        load_candidate(name, tmp_path / "missing.json", checked_at=DAY)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BookBroken, match=r"binary\.json"):
        load_candidate(name, tmp_path / "binary.json", checked_at=DAY)


def test_a_list_nobody_knows_is_named_with_those_there_are():
    """A slip in the name."""
    with pytest.raises(BookBroken, match="there are: genai-prices, litellm"):
        load_candidate("moon", checked_at=DAY)


# --- whatever is in the file, the answer is a candidate or the documented error

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
)
NUMBERS = st.integers(-1, 10**12) | st.floats(-1, 1e12, allow_nan=False)


def values(keys):
    names = st.sampled_from(sorted(keys)) | st.text(max_size=8)
    return st.recursive(
        SCALARS | NUMBERS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
        max_leaves=12,
    )


MAP_WORDS = {*KEYS, "litellm_provider", "mode", "range", "windows", "hours_utc", "weekdays", "us"}
ROWS = st.dictionaries(
    st.sampled_from(sorted(KEYS)), NUMBERS | values(MAP_WORDS), max_size=5
).flatmap(
    lambda row: st.builds(
        lambda provider, mode: row | {"litellm_provider": provider, "mode": mode},
        st.sampled_from(["openai", "azure", "xai", "bedrock", "ollama", "moon"]),
        st.sampled_from(["chat", "rerank", "audio_transcription", "image_generation", None]),
    )
)
LIST_WORDS = {
    *UNITS, "id", "match", "or", "equals", "prices", "constraint", "start_date", "start_time",
    "end_time", "when", "processing", "base", "tiers", "start", "price", "context_window",
}  # fmt: skip
PRICES = st.dictionaries(st.sampled_from(sorted(UNITS)), NUMBERS | values(LIST_WORDS), max_size=4)
CONDITIONS = st.fixed_dictionaries(
    {"prices": PRICES},
    optional={
        "constraint": st.sampled_from(
            [
                {"start_date": "2026-03-01"},
                {"start_date": "2026-03-99"},
                {"start_time": "01:00:00Z", "end_time": "02:00:00Z"},
                {"start_time": "25:00:00Z", "end_time": "02:00:00Z"},
            ]
        )
        | values(LIST_WORDS)
    },
)
MODELS = st.fixed_dictionaries(
    {"id": st.sampled_from(["a", "b", "c"])},
    optional={
        "prices": PRICES | st.lists(CONDITIONS, max_size=3) | values(LIST_WORDS),
        "price_variants": st.lists(CONDITIONS, max_size=2) | values(LIST_WORDS),
        "match": values(LIST_WORDS),
        "context_window": SCALARS,
    },
)
QUICK = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


def check(read, text):
    """Read and check; the documented error and nothing else."""
    problems = ("none",)
    try:
        check_candidate(read(text))
    except BookBroken as broken:
        problems = broken.problems

    assert problems


@QUICK
@given(st.text() | values(MAP_WORDS).map(json.dumps))
def test_any_text_is_a_map_or_broken(text):
    """As text and as JSON of any shape."""
    check(read_map, text)


@QUICK
@given(
    st.dictionaries(st.sampled_from(["a", "azure/eu/a", "1024-x-1024/a", "x/y"]), ROWS, min_size=1)
)
def test_any_rows_are_a_candidate_or_broken(rows):
    """Known fields with any value."""
    check(read_map, json.dumps(rows))


@QUICK
@given(st.text() | values(LIST_WORDS).map(json.dumps))
def test_any_text_is_a_list_or_broken(text):
    """As text and as JSON of any shape."""
    check(read_genai, text)


@QUICK
@given(st.text() | st.text("[](){}='.,0123456789 \nabDecimalProvidersModelPrice"))
def test_any_text_is_a_module_or_broken(text):
    """Python that does not parse, and Python that does more than build data."""
    check(lambda source: read_genai(f"providers: list[Provider] = [{source}]", "data.py"), text)


@QUICK
@given(st.lists(MODELS, max_size=3))
def test_any_models_are_a_candidate_or_broken(models):
    """Known fields with any value."""
    check(read_genai, json.dumps([{"id": "openai", "models": models}]))
