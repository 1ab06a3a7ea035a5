"""Commitments, shared costs and GPUs in the settings: what they mean, and what is refused."""

from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
import yaml

from gateway.settings import effective
from gateway.settings_costs import to_commitment, to_deployment, to_shared_cost
from pricing.commitments import TOKEN_METERS, MoneyPack, QuantityPack, Throughput
from pricing.meters import Meter
from pricing.months import Month
from pricing.selfhosted import TimeTerms, TokenTerms
from tests.pricing.commitment_kit import units, usd
from tests.settings.test_settings import load, problems_of

EXAMPLE = """\
providers:
  openai: {kind: openai}
  house: {kind: vllm, priced_as: null}
teams: [{id: search, projects: [{id: rag}]}]
commitments:
  - {id: pack, covers: {provider: openai, model: gpt-5, team: search, project: rag},
     amount: "500000000 tokens", fee: "400 USD", starts: 2026-11-01, ends: 2027-01-01,
     timezone: Europe/Berlin}
  - {id: credit, amount: "1000 USD", fee: "900 USD", renews: month, starts: 2026-11-01}
  - {id: searches, covers: {}, amount: "1000 web_search", renews: month, starts: 2026-11-01}
  - {id: ptu, covers: {meters: [input, output]}, tokens_per_minute: 50000,
     fee_per_hour: "12.50 USD", starts: 2026-11-01T06:00:00Z}
shared_costs:
  - {id: platform, amount: "3000 USD", split_by: cost, among: project, provider: house,
     first_month: 2026-11, last_month: 2027-02, timezone: Asia/Kolkata}
self_hosted:
  - {provider: house, model: llama, gpus: 4, gpu_hour: "2.10 USD", tokens_per_s: 1500,
     utilization: "62.5", output_weight: "4", output_share: 20, starts: 2026-11-01}
  - {provider: house, model: llama, aliases: [big], gpu_hour: "2 USD", priced_by: gpu_second,
     starts: 2026-12-01T00:00:00Z, context_tokens_max: 131072}
"""
HEAD = "providers: {house: {kind: vllm, priced_as: null}}\nteams: [{id: search}]\n"


def test_the_example_means_what_it_says(tmp_path) -> None:
    """Every kind of commitment, in its zone; a model by all of its names."""
    settings = load(tmp_path, EXAMPLE)
    pack, credit, searches, ptu = (
        to_commitment(one, lambda provider, model: frozenset({model, f"{provider} alias"}))
        for one in settings.commitments
    )

    assert QuantityPack(quantity_pico=units(5 * 10**8), fee_pico=usd("400"), renews=False) == (
        pack.terms
    )
    assert datetime(2026, 10, 31, 23, tzinfo=UTC) == pack.starts
    assert datetime(2026, 12, 31, 23, tzinfo=UTC) == pack.ends
    assert frozenset({"gpt-5", "openai alias"}) == pack.covers.models
    assert ("openai", "search", "rag", TOKEN_METERS) == (
        pack.covers.provider,
        pack.covers.team,
        pack.covers.project,
        pack.covers.meters,
    )
    assert MoneyPack(amount_pico=usd("1000"), fee_pico=usd("900"), renews=True) == credit.terms
    assert frozenset(Meter) == credit.covers.meters
    assert QuantityPack(quantity_pico=units(1000), fee_pico=0, renews=True) == searches.terms
    assert {Meter.WEB_SEARCH} == searches.covers.meters
    assert searches.ends is None
    assert Throughput(tokens_per_minute=50_000, hour_fee_pico=usd("12.5")) == ptu.terms
    assert {Meter.INPUT, Meter.OUTPUT} == ptu.covers.meters


def test_shared_costs_and_gpus_mean_what_they_say(tmp_path) -> None:
    """Months of a zone; figures by the day they hold from."""
    settings = load(tmp_path, EXAMPLE)
    shared = to_shared_cost(settings.shared_costs[0])
    assumed, timed = (to_deployment(one) for one in settings.self_hosted)

    assert (usd("3000"), "cost", "project", "house", None) == (
        shared.amount_pico,
        shared.measure,
        shared.payers,
        shared.provider,
        shared.model,
    )
    assert (Month(2026, 11), Month(2027, 2)) == (shared.first, shared.last)
    assert ZoneInfo("Asia/Kolkata") == shared.zone
    assert isinstance(assumed.terms, TokenTerms)
    assert (4, Decimal("2.10"), Decimal("62.5")) == (
        assumed.gpus,
        assumed.gpu_hour,
        assumed.terms.utilization,
    )
    assert (TimeTerms(), ("big",), 131072) == (
        timed.terms,
        timed.aliases,
        timed.context_tokens_max,
    )
    assert datetime(2026, 12, 1, tzinfo=UTC) == timed.starts


def test_exact_figures_are_shown_exactly(tmp_path) -> None:
    """What check-config prints can be read by anybody, and is what was written."""
    shown = effective(load(tmp_path, EXAMPLE))

    assert "62.5" == shown["self_hosted"][0]["utilization"]
    assert ["input", "output"] == shown["commitments"][3]["covers"]["meters"]
    assert yaml.safe_load(yaml.safe_dump(shown))["shared_costs"][0]["amount"] == "3000 USD"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{id: c, starts: 2026-11-01}", "give either amount, or tokens_per_minute"),
        ("{id: c, amount: 5 USD, tokens_per_minute: 5, starts: 2026-11-01}", "give either amount"),
        ("{id: c, tokens_per_minute: 5, starts: 2026-11-01}", "give either amount"),
        (
            "{id: c, tokens_per_minute: 5, fee_per_hour: 1 USD, fee: 1 USD, starts: 2026-11-01}",
            "throughput has fee_per_hour",
        ),
        ("{id: c, amount: 5 token, starts: 2026-11-01}", "did you mean tokens?"),
        ("{id: c, amount: 5, starts: 2026-11-01}", "write text"),
        ("{id: c, amount: x USD, starts: 2026-11-01}", "'x' is not a decimal number"),
        ("{id: c, amount: 0 USD, renews: month, starts: 2026-11-01}", "commits nothing"),
        ("{id: c, amount: 5 USD, starts: 2026-11-01}", "needs an end"),
        ("{id: c, amount: 5 USD, starts: 2026-11-01, ends: 2026-10-01}", "ends before it starts"),
        ("{id: c, amount: 5 USD, starts: november, ends: 2026-12-01}", "neither a day"),
        ("{id: c, amount: 5 USD, starts: 2026-11-01T00:00:00, ends: 2027-01-01}", "neither a day"),
        (
            "{id: c, amount: 5 page, covers: {meters: [page]}, renews: month, starts: 2026-11-01}",
            "leave covers.meters out",
        ),
        (
            "{id: c, amount: 5 tokens, covers: {meters: [page]}, starts: 2026-11-01}",
            "names more than those",
        ),
        ("{id: c, amount: 5 USD, fee: 1 EUR, renews: month, starts: 2026-11-01}", "not an amount"),
        ("{id: c, amount: 5 USD, fee: -1 USD, renews: month, starts: 2026-11-01}", "is negative"),
        ("{id: c, amount: 5 USD, renews: week, starts: 2026-11-01}", "write one of month"),
        (
            "{id: c, amount: 5 USD, renews: month, starts: 2026-11-01, timezone: Europe/Berlim}",
            "did you mean Europe/Berlin?",
        ),
        (
            "{id: c, amount: 5 USD, covers: {modle: x}, renews: month, starts: 2026-11-01}",
            "did you mean model?",
        ),
        (
            "{id: c, amount: 5 USD, covers: {team: serch}, renews: month, starts: 2026-11-01}",
            "there is no team 'serch' in this file; did you mean search?",
        ),
        (
            "{id: c, amount: 5 USD, covers: {meters: [tokens]}, renews: month, starts: 2026-11-01}",
            "write one of input",
        ),
    ],
)
def test_commitments_that_make_no_sense_are_refused(tmp_path, row, says) -> None:
    """With the line, and what to write instead."""
    (problem,) = problems_of(tmp_path, f"{HEAD}commitments:\n  - {row}\n")

    assert problem.startswith("4: commitments[0]")
    assert says in problem


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{id: s, amount: 5}", "write text"),
        ("{id: s, amount: 5 USD, split_by: luck}", "write one of tokens or cost"),
        ("{id: s, amount: 5 USD, first_month: 2026-13}", "not a month such as 2026-11"),
        (
            "{id: s, amount: 5 USD, first_month: 2026-11, last_month: 2026-10}",
            "last_month is before first_month",
        ),
        ("{id: s, amount: 5 USD, provider: huose}", "there is no provider 'huose' in this file"),
        ("{id: s, amount: 5 USD, model: ''}", "write a name"),
    ],
)
def test_shared_costs_that_make_no_sense_are_refused(tmp_path, row, says) -> None:
    """With the line, and what to write instead."""
    (problem,) = problems_of(tmp_path, f"{HEAD}shared_costs:\n  - {row}\n")

    assert problem.startswith("4: shared_costs[0]")
    assert says in problem


@pytest.mark.parametrize(
    ("figures", "says"),
    [
        ("gpu_hour: 2 USD", "needs tokens_per_s"),
        ("gpu_hour: 2 USD, tokens_per_s: 1.5", "put quotes around the number"),
        ("gpu_hour: 2 USD, tokens_per_s: true", "write a number such as"),
        ("gpu_hour: 2 USD, tokens_per_s: 0", "must be more than 0"),
        ("gpu_hour: 2 USD, tokens_per_s: 5, utilization: 101", "percentage above 0"),
        ("gpu_hour: 2 USD, tokens_per_s: 5, output_weight: 4", "needs output_share"),
        ("gpu_hour: 2 USD, priced_by: gpu_second, output_share: 4", "needs no output_share"),
        ("gpu_hour: 2 EUR, tokens_per_s: 5", "not an amount"),
        ("gpu_hour: 2 USD, tokens_per_s: 5, gpus: 0", "must be greater than or equal to 1"),
    ],
)
def test_gpus_no_price_follows_from_are_refused(tmp_path, figures, says) -> None:
    """With the line, and what to write instead."""
    row = f"{{provider: house, model: m, starts: 2026-11-01, {figures}}}"
    (problem,) = problems_of(tmp_path, f"{HEAD}self_hosted:\n  - {row}\n")

    assert problem.startswith("4: self_hosted[0]")
    assert says in problem


def test_every_problem_of_every_section_is_listed(tmp_path) -> None:
    """One run names them all, those between rows and sections too."""
    text = """\
providers: {house: {kind: vllm}, own: {kind: openai}}
commitments:
  - {id: a, amount: 5 USD, renews: month, starts: 2026-11-01, covers: {provider: hose}}
  - {id: a, amount: 5 USD, renews: month, starts: 2026-11-01}
shared_costs:
  - {id: s, amount: 5 USD}
  - {id: s, amount: 5 USD}
self_hosted:
  - {provider: own, model: m, starts: 2026-11-01, gpu_hour: 2 USD, priced_by: gpu_second}
  - {provider: elsewhere, model: m, starts: 2026-11-01, gpu_hour: 2 USD, priced_by: gpu_second}
  - {provider: own, model: m, starts: 2026-11-01, gpu_hour: 3 USD, priced_by: gpu_second}
"""

    assert [
        "3: commitments[0].covers.provider: there is no provider 'hose' in this file; did you mean "
        "house?",
        "4: commitments[1].id: the commitment 'a' is there already, at commitments[0]",
        "7: shared_costs[1].id: the shared cost 's' is there already, at shared_costs[0]",
        "9: self_hosted[0].provider: own is priced as openai: write priced_as: null there",
        "10: self_hosted[1].provider: there is no provider 'elsewhere' in this file; there are: "
        "house, own",
        "11: self_hosted[2].provider: own is priced as openai: write priced_as: null there",
        "11: self_hosted[2].starts: the same model starts then, at self_hosted[0]",
    ] == problems_of(tmp_path, text)
