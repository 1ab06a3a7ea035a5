"""The boards about how well it runs: allocation quality, budget operations, gateway health.

Must never repeat a number of another board without saying what is done about it here.
"""

from typing import Final

from grafana.generate.model import LESS_IS_BETTER, PLAIN, USED, Board, Panel, Query, Steps, Variable
from grafana.generate.money import CHOSEN, DOLLARS, IN_SPAN, PROJECT, SQL_TEAM, TEAM

_NONE_IS_GOOD: Final[Steps] = ((None, "green"), (1, "red"))
_LAG: Final[Steps] = ((None, "green"), (10, "yellow"), (60, "red"))
_UP: Final[Steps] = ((None, "red"), (1, "green"))
_BUDGET: Final = 'budget=~"$budget"'
BUDGET: Final = Variable(name="budget", query="label_values(llm_budget_limit, budget)")


def _ask(text: str, legend: str | None = None) -> Query:
    return Query(text=text, legend=legend)


def _sql(text: str) -> Query:
    return Query(text=text, is_sql=True)


def _share(title: str, text: str, part: str, whole: str) -> Panel:
    query = _ask(f"sum(increase({part}[$__range])) / sum(increase({whole}[$__range])) or vector(0)")
    return Panel(
        title=title,
        text=text,
        unit="percentunit",
        kind="stat",
        queries=(query,),
        width=6,
        height=4,
        decimals=2,
        steps=LESS_IS_BETTER,
    )


def _lines(title: str, text: str, unit: str, *queries: Query, width: int = 12) -> Panel:
    return Panel(title=title, text=text, unit=unit, kind="timeseries", queries=queries, width=width)


def _one(title: str, text: str, unit: str, query: Query, steps: Steps = PLAIN) -> Panel:
    return Panel(
        title=title,
        text=text,
        unit=unit,
        kind="stat",
        queries=(query,),
        width=4,
        height=4,
        steps=steps,
    )


QUALITY: Final = Board(
    name="quality",
    title="Allocation quality",
    text="How sure are we of what was spent, and of who spent it?",
    since="24h",
    variables=(TEAM, PROJECT),
    panels=(
        _share(
            "Estimated cost",
            "Part of the cost that rests on counts made here.",
            f"llm_estimated_cost_usd_total{{{CHOSEN}}}",
            f"llm_cost_usd_total{{{CHOSEN}}}",
        ),
        _share(
            "Untagged cost",
            "Part of the cost of calls that lack a tag the policy asks for.",
            f"llm_untagged_cost_usd_total{{{CHOSEN}}}",
            f"llm_cost_usd_total{{{CHOSEN}}}",
        ),
        _share(
            "Calls of unknown cost",
            "Unpriced calls and calls whose usage nobody told. Their cost is in no sum.",
            f"llm_unknown_cost_requests_total{{{CHOSEN}}}",
            f'llm_requests_total{{{CHOSEN}, outcome!="refused"}}',
        ),
        _share(
            "Calls counted as other",
            "Calls that fell out of the label sets of metrics; the ledger has them apart.",
            "gateway_metrics_overflow_requests_total",
            "llm_requests_total",
        ),
        _lines(
            "Estimated share by team",
            "Of the last hour's cost.",
            "percentunit",
            _ask('team:llm_estimated_cost:share1h{team=~"$team"}', "{{team}}"),
        ),
        _lines(
            "Untagged share by team",
            "Of the last hour's cost.",
            "percentunit",
            _ask('team:llm_untagged_cost:share1h{team=~"$team"}', "{{team}}"),
        ),
        _lines(
            "Unpriced calls",
            "Share of the last hour's calls without a price, by model. Add a price, then re-rate.",
            "percentunit",
            _ask("model:llm_unpriced_requests:share1h", "{{provider}}/{{model}}"),
        ),
        _lines(
            "What users wrote",
            "Share of the last hour's input tokens that end users wrote, by team.",
            "percentunit",
            _ask('team:llm_user_input_tokens:share1h{team=~"$team"}', "{{team}}"),
        ),
        Panel(
            title="Where the counts come from",
            text="Calls and cost of the span by the basis of their usage.",
            unit="short",
            kind="table",
            queries=(
                _sql(
                    "SELECT basis, cost_status, count(*) AS calls, "
                    f"{DOLLARS} AS spend FROM records WHERE {IN_SPAN} AND {SQL_TEAM} "
                    "GROUP BY 1, 2 ORDER BY 3 DESC"
                ),
            ),
            units=(("spend", "currencyUSD"),),
        ),
        Panel(
            title="Spend by tag env",
            text="Cost of the span by the value of the tag env; calls without it are untagged.",
            unit="short",
            kind="table",
            queries=(
                _sql(
                    "SELECT coalesce(tags ->> 'env', 'untagged') AS env, count(*) AS calls, "
                    f"{DOLLARS} AS spend FROM records WHERE {IN_SPAN} AND {SQL_TEAM} "
                    "GROUP BY 1 ORDER BY 3 DESC NULLS LAST"
                ),
            ),
            units=(("spend", "currencyUSD"),),
        ),
    ),
)


def _of_budget(metric: str) -> str:
    return f"max by (budget, unit) ({metric}{{{_BUDGET}}})"


BUDGETS: Final = Board(
    name="budgets",
    title="Budget operations",
    text="Which budget is going to break, when, and whom does it refuse?",
    since="24h",
    variables=(BUDGET,),
    panels=(
        Panel(
            title="Budgets",
            text="Every budget in its own unit: limit, counters, and where a straight line ends.",
            unit="short",
            kind="table",
            queries=(
                _ask(_of_budget("llm_budget_limit"), "limit"),
                _ask(_of_budget("llm_budget_spent"), "spent"),
                _ask(_of_budget("llm_budget_reserved"), "reserved"),
                _ask(_of_budget("llm_budget_parked"), "parked"),
                _ask(f"budget:llm_budget_used:ratio{{{_BUDGET}}}", "used"),
                _ask(f"budget:llm_budget_elapsed:ratio{{{_BUDGET}}}", "elapsed"),
                _ask(f"budget:llm_budget_projected:window_end{{{_BUDGET}}}", "projected"),
            ),
            units=(("used", "percentunit"), ("elapsed", "percentunit")),
            width=24,
        ),
        Panel(
            title="Used",
            text="Spent over limit of the window that holds now.",
            unit="percentunit",
            kind="bargauge",
            queries=(_ask(f"budget:llm_budget_used:ratio{{{_BUDGET}}}", "{{budget}}"),),
            steps=USED,
            decimals=1,
            width=8,
        ),
        _lines(
            "Used over time",
            "The same in time: falls to nothing where a window begins.",
            "percentunit",
            _ask(f"budget:llm_budget_used:ratio{{{_BUDGET}}}", "{{budget}}"),
            width=16,
        ),
        _lines(
            "Burn rate of an hour",
            "1 spends the limit exactly by the window's end. 14.4 raises an alarm at once.",
            "none",
            _ask(f"budget:llm_budget_burn_rate:1h{{{_BUDGET}}}", "{{budget}}"),
        ),
        _lines(
            "Burn rate of six hours",
            "1 spends the limit exactly by the window's end. 6 raises an alarm.",
            "none",
            _ask(f"budget:llm_budget_burn_rate:6h{{{_BUDGET}}}", "{{budget}}"),
        ),
        _lines(
            "Held by open calls",
            "Part of the limit that calls under way have set aside.",
            "percentunit",
            _ask(
                f"{_of_budget('llm_budget_reserved')} / {_of_budget('llm_budget_limit')}",
                "{{budget}}",
            ),
            width=8,
        ),
        _lines(
            "Refused and cut",
            "Calls a second that a budget refused, and streams it ended, by reason.",
            "reqps",
            _ask(
                f"sum by (budget, reason) (rate(llm_budget_refusals_total{{{_BUDGET}}}[$__rate_interval]))",
                "{{budget}} {{reason}}",
            ),
            width=8,
        ),
        _lines(
            "Alerts of the gateway itself",
            "Raised, and how telling their receivers went, within an hour.",
            "short",
            _ask(
                "sum by (outcome) (increase(llm_budget_alerts_total[1h])) or vector(0)",
                "{{outcome}}",
            ),
            width=8,
        ),
    ),
)


def _late(share: str, metric: str, by: str) -> str:
    return (
        f"histogram_quantile({share}, sum by ({by}, le) (rate({metric}_bucket[$__rate_interval])))"
    )


HEALTH: Final = Board(
    name="gateway",
    title="Gateway health",
    text="Does the gateway keep up, and does it lose nothing?",
    since="6h",
    panels=(
        _one(
            "Stores",
            "1 while the journal, the ledger and the budgets answer.",
            "short",
            _ask("min(gateway_store_up)"),
            _UP,
        ),
        _one(
            "Ledger behind",
            "Age of the oldest record that is not in the database yet.",
            "s",
            _ask("max(gateway_ledger_lag_seconds)"),
            _LAG,
        ),
        _one(
            "Journal behind",
            "Age of the oldest entry that is not as safe as storage.fsync asks.",
            "s",
            _ask("max(gateway_journal_lag_seconds)"),
            _LAG,
        ),
        _one("Open calls", "Calls under way.", "short", _ask("sum(gateway_open_requests)")),
        _one(
            "Holds beyond calls",
            "Holds without a call to own them, for a quarter of an hour: a leak.",
            "short",
            _ask(
                "sum(clamp_min(min_over_time(gateway_reservations_open[15m]) "
                "- max_over_time(gateway_open_requests[15m]), 0))"
            ),
            _NONE_IS_GOOD,
        ),
        _one(
            "Age of the price book",
            "Since the book in use was recorded.",
            "s",
            _ask("max(llm_price_book_age_seconds)"),
            ((None, "green"), (20 * 86_400, "yellow"), (30 * 86_400, "red")),
        ),
        _lines(
            "Calls",
            "Calls a second, by how they ended.",
            "reqps",
            _ask("sum by (outcome) (rate(llm_requests_total[$__rate_interval]))", "{{outcome}}"),
        ),
        _lines(
            "The gateway's own work",
            "What half of the calls and one in a hundred take longer than, before sending and after.",
            "s",
            _ask(_late("0.5", "gateway_overhead_seconds", "phase"), "{{phase}} p50"),
            _ask(_late("0.99", "gateway_overhead_seconds", "phase"), "{{phase}} p99"),
        ),
        _lines(
            "Duration of calls",
            "What one call in twenty takes longer than, by provider; dots are single calls.",
            "s",
            _ask(_late("0.95", "llm_request_duration_seconds", "provider"), "{{provider}}"),
        ),
        _lines(
            "Failing providers",
            "Share of calls that ended in an error of the provider.",
            "percentunit",
            _ask(
                'sum by (provider) (rate(llm_requests_total{outcome="upstream_error"}[$__rate_interval])) '
                "/ sum by (provider) (rate(llm_requests_total[$__rate_interval])) "
                "or 0 * sum by (provider) (rate(llm_requests_total[$__rate_interval]))",
                "{{provider}}",
            ),
        ),
        _lines(
            "Open calls and holds",
            "They rise and fall together.",
            "short",
            _ask("sum(gateway_open_requests)", "calls"),
            _ask("sum(gateway_reservations_open)", "holds"),
            width=8,
        ),
        _lines(
            "Lag",
            "Of the journal behind its promise, and of the ledger behind the journal.",
            "s",
            _ask("max(gateway_journal_lag_seconds)", "journal"),
            _ask("max(gateway_ledger_lag_seconds)", "ledger"),
            width=8,
        ),
        _lines(
            "Stores by name",
            "1 while it answers.",
            "short",
            _ask("min by (store) (gateway_store_up)", "{{store}}"),
            width=8,
        ),
        Panel(
            title="Journals in the ledger",
            text="Records of the span from each journal, and the newest of them.",
            unit="short",
            kind="table",
            queries=(
                _sql(
                    "SELECT writer, count(*) AS records, max(seq) AS last, "
                    "to_timestamp(max(ended_at_us) / 1000000) AS newest "
                    f"FROM records WHERE {IN_SPAN} GROUP BY 1 ORDER BY 1"
                ),
            ),
            width=24,
        ),
    ),
)
