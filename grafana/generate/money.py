"""The boards about what is spent: executive, team and budget, model and price.

Must never show a sum from Prometheus as if it were an invoice: those come from the ledger.
"""

from typing import Final

from grafana.generate.model import LESS_IS_BETTER, PLAIN, USED, Board, Panel, Query, Steps, Variable

# Meters that count tokens; those of other units do not add up with them.
TOKENS: Final = 'meter=~"(input|output|reasoning|cache_read|cache_write)(_.*)?"'
CHOSEN: Final = 'team=~"$team", project=~"$project"'
SOLD: Final = 'provider=~"$provider", model=~"$model"'
IN_SPAN: Final = (
    "started_at_us >= $__unixEpochFrom()::bigint * 1000000 "
    "AND started_at_us < $__unixEpochTo()::bigint * 1000000"
)
# The sums that are kept by day: a month of records takes seconds, a month of days milliseconds.
THIS_MONTH: Final = "day >= date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'"
DAYS_IN_SPAN: Final = (
    "day >= to_timestamp($__unixEpochFrom()) - interval '1 day' "
    "AND day < to_timestamp($__unixEpochTo())"
)
# The sums that are kept by hour: exact, and never more than a month that has the span in it.
HOURS_IN_SPAN: Final = (
    "hour > to_timestamp($__unixEpochFrom()) - interval '1 hour' "
    "AND hour < to_timestamp($__unixEpochTo())"
)
DOLLARS: Final = "(sum(cost_pico::numeric) / 1e12)::float8"
SPENT: Final = "sum(cost)::float8"
SQL_TEAM: Final = (
    "coalesce(team, 'unknown') ~ '^(${team:regex})$' "
    "AND coalesce(project, 'unknown') ~ '^(${project:regex})$'"
)
TEAM: Final = Variable(name="team", query="label_values(llm_requests_total, team)")
PROJECT: Final = Variable(
    name="project", query='label_values(llm_requests_total{team=~"$team"}, project)'
)
PROVIDER: Final = Variable(name="provider", query="label_values(llm_requests_total, provider)")
MODEL: Final = Variable(
    name="model", query='label_values(llm_requests_total{provider=~"$provider"}, model)'
)


def _ask(text: str, legend: str | None = None) -> Query:
    return Query(text=text, legend=legend)


def _sql(text: str) -> Query:
    return Query(text=text, is_sql=True)


def _stat(
    title: str,
    text: str,
    unit: str,
    query: Query,
    *,
    width: int = 4,
    height: int = 4,
    decimals: int = 2,
    steps: Steps = PLAIN,
) -> Panel:
    return Panel(
        title=title,
        text=text,
        unit=unit,
        kind="stat",
        queries=(query,),
        width=width,
        height=height,
        decimals=decimals,
        steps=steps,
    )


EXECUTIVE: Final = Board(
    name="executive",
    title="Executive",
    text="What did we spend, who, on what, will it break the budget, and how sure are we?",
    since="24h",
    panels=(
        _stat(
            "Spend this month",
            "Known cost of this calendar month, UTC, corrections included.",
            "currencyUSD",
            _sql(f"SELECT coalesce({SPENT}, 0) AS spend FROM usage_by_day WHERE {THIS_MONTH}"),
        ),
        _stat(
            "Projected month end",
            "A straight line through this month's spend to its last day, UTC.",
            "currencyUSD",
            _sql(
                f"SELECT coalesce({SPENT}, 0) * extract(epoch FROM month + interval '1 month' "
                "- month) / greatest(extract(epoch FROM now() AT TIME ZONE 'UTC' - month), 1) "
                "AS projected FROM date_trunc('month', now() AT TIME ZONE 'UTC') AS month "
                f"LEFT JOIN usage_by_day ON {THIS_MONTH} GROUP BY month"
            ),
        ),
        _stat(
            "Spend in the span",
            "Known cost of the hours that the span touches.",
            "currencyUSD",
            _sql(f"SELECT coalesce({SPENT}, 0) AS spend FROM usage_by_hour WHERE {HOURS_IN_SPAN}"),
        ),
        _stat(
            "Price of a million tokens",
            "Cost of tokens over tokens, all models together.",
            "currencyUSD",
            _ask(
                f"1e6 * sum(increase(llm_cost_usd_total{{{TOKENS}}}[$__range])) "
                f"/ sum(increase(llm_tokens_total{{{TOKENS}}}[$__range]))"
            ),
        ),
        _stat(
            "Cost of a request",
            "Cost over calls that were let in.",
            "currencyUSD",
            _ask(
                "sum(increase(llm_cost_usd_total[$__range])) "
                '/ sum(increase(llm_requests_total{outcome!="refused"}[$__range]))'
            ),
            decimals=4,
        ),
        _stat(
            "Estimated share",
            "How sure the cost is: the part that rests on counts made here.",
            "percentunit",
            _ask(
                "sum(increase(llm_estimated_cost_usd_total[$__range])) "
                "/ sum(increase(llm_cost_usd_total[$__range]))"
            ),
            steps=LESS_IS_BETTER,
            decimals=1,
        ),
        Panel(
            title="Spend an hour, by team",
            text="How fast money is spent, averaged over the scrapes around each moment.",
            unit="currencyUSD",
            kind="timeseries",
            queries=(
                _ask(
                    "3600 * sum by (team) (rate(llm_cost_usd_total[$__rate_interval]))", "{{team}}"
                ),
            ),
            is_stacked=True,
        ),
        Panel(
            title="Spend an hour, by model",
            text="How fast money is spent, averaged over the scrapes around each moment.",
            unit="currencyUSD",
            kind="timeseries",
            queries=(
                _ask(
                    "3600 * sum by (model) (rate(llm_cost_usd_total[$__rate_interval]))",
                    "{{model}}",
                ),
            ),
            is_stacked=True,
        ),
        Panel(
            title="Budgets now",
            text="Spent over limit of the window that holds now.",
            unit="percentunit",
            kind="bargauge",
            queries=(_ask("budget:llm_budget_used:ratio", "{{budget}}"),),
            steps=USED,
            decimals=1,
            width=8,
        ),
        Panel(
            title="Budgets at the end of their window",
            text="Where a straight line through the window's spending ends, over the limit.",
            unit="percentunit",
            kind="bargauge",
            queries=(
                _ask(
                    "budget:llm_budget_projected:window_end "
                    "/ max by (budget, unit) (llm_budget_limit)",
                    "{{budget}}",
                ),
            ),
            steps=USED,
            decimals=1,
            width=8,
        ),
        _stat(
            "Saved by caches",
            "What reading caches saved in the span, less what writing them cost.",
            "currencyUSD",
            _ask(
                "sum(avg_over_time(model:llm_cache_savings_usd:1h[$__range])) "
                "* $__range_s / 3600 or vector(0)"
            ),
            height=8,
        ),
        _stat(
            "Saved by agreements",
            "Published less agreed prices, of the hours that the span touches.",
            "currencyUSD",
            _sql(
                "SELECT coalesce(sum(list_cost) - sum(cost), 0)::float8 AS saved "
                f"FROM usage_by_hour WHERE {HOURS_IN_SPAN}"
            ),
            height=8,
        ),
        Panel(
            title="Spend by day",
            text="Known cost by UTC day and team, of 30 days.",
            unit="currencyUSD",
            kind="timeseries",
            queries=(
                _sql(
                    f"SELECT day AS time, coalesce(team, 'unknown') AS metric, {SPENT} AS spend "
                    f"FROM usage_by_day WHERE {DAYS_IN_SPAN} GROUP BY 1, 2 ORDER BY 1"
                ),
            ),
            is_stacked=True,
            is_bars=True,
            since="30d",
        ),
        Panel(
            title="Teams this month",
            text="Who spent what since the month began, with what it would have cost at list price.",
            unit="short",
            kind="table",
            queries=(
                _sql(
                    f"SELECT coalesce(team, 'unknown') AS team, {SPENT} AS spend, "
                    "sum(list_cost)::float8 AS list, sum(calls)::bigint AS calls, "
                    "sum(calls_of_unknown_cost)::bigint AS unknown "
                    f"FROM usage_by_day WHERE {THIS_MONTH} GROUP BY 1 ORDER BY 2 DESC NULLS LAST"
                ),
            ),
            units=(("spend", "currencyUSD"), ("list", "currencyUSD")),
        ),
    ),
)

_OF_TEAM: Final = (
    '* on (budget, unit) group_left () max by (budget, unit) (llm_budget_info{team=~"$team|"})'
)

TEAMS: Final = Board(
    name="team",
    title="Team and budget",
    text="What does a team spend, on what, and how far is its budget?",
    since="24h",
    variables=(TEAM, PROJECT),
    panels=(
        _stat(
            "Spend",
            "Known cost of the hours that the span touches.",
            "currencyUSD",
            _sql(
                f"SELECT coalesce({SPENT}, 0) AS spend FROM usage_by_hour "
                f"WHERE {HOURS_IN_SPAN} AND {SQL_TEAM}"
            ),
            width=6,
        ),
        _stat(
            "Calls",
            "Calls of the span, refused ones included.",
            "short",
            _ask(f"sum(increase(llm_requests_total{{{CHOSEN}}}[$__range]))"),
            width=6,
            decimals=0,
        ),
        _stat(
            "Cost of a call",
            "Cost over calls that were let in.",
            "currencyUSD",
            _ask(
                f"sum(increase(llm_cost_usd_total{{{CHOSEN}}}[$__range])) "
                f'/ sum(increase(llm_requests_total{{{CHOSEN}, outcome!="refused"}}[$__range]))'
            ),
            width=6,
            decimals=4,
        ),
        _stat(
            "What users wrote",
            "Share of input tokens that end users wrote; the rest is scaffold.",
            "percentunit",
            _ask(
                f"sum(increase(llm_user_input_tokens_total{{{CHOSEN}}}[$__range])) "
                f"/ sum(increase(llm_user_counted_input_tokens_total{{{CHOSEN}}}[$__range]))"
            ),
            width=6,
            decimals=1,
        ),
        Panel(
            title="Budget used",
            text="Spent over limit, of the team's budgets and of those for everybody.",
            unit="percentunit",
            kind="bargauge",
            queries=(_ask(f"budget:llm_budget_used:ratio {_OF_TEAM}", "{{budget}}"),),
            steps=USED,
            decimals=1,
            width=8,
        ),
        Panel(
            title="Budget used over time",
            text="Spent over limit, window after window: a line that falls is a new window.",
            unit="percentunit",
            kind="timeseries",
            queries=(_ask(f"budget:llm_budget_used:ratio {_OF_TEAM}", "{{budget}}"),),
            decimals=0,
            width=16,
        ),
        Panel(
            title="Spend an hour, by project",
            text="How fast money is spent, averaged over the scrapes around each moment.",
            unit="currencyUSD",
            kind="timeseries",
            queries=(
                _ask(
                    f"3600 * sum by (project) (rate(llm_cost_usd_total{{{CHOSEN}}}[$__rate_interval]))",
                    "{{project}}",
                ),
            ),
            is_stacked=True,
        ),
        Panel(
            title="Spend an hour, by model",
            text="How fast money is spent, averaged over the scrapes around each moment.",
            unit="currencyUSD",
            kind="timeseries",
            queries=(
                _ask(
                    f"3600 * sum by (model) (rate(llm_cost_usd_total{{{CHOSEN}}}[$__rate_interval]))",
                    "{{model}}",
                ),
            ),
            is_stacked=True,
        ),
        Panel(
            title="Tokens by meter",
            text="Tokens a second; meters are disjoint.",
            unit="short",
            kind="timeseries",
            queries=(
                _ask(
                    f"sum by (meter) (rate(llm_tokens_total{{{CHOSEN}, {TOKENS}}}[$__rate_interval]))",
                    "{{meter}}",
                ),
            ),
            is_stacked=True,
        ),
        Panel(
            title="Calls by outcome",
            text="Calls a second, by how they ended.",
            unit="reqps",
            kind="timeseries",
            queries=(
                _ask(
                    f"sum by (outcome) (rate(llm_requests_total{{{CHOSEN}}}[$__rate_interval]))",
                    "{{outcome}}",
                ),
            ),
            is_stacked=True,
        ),
        Panel(
            title="Keys and models",
            text="The twenty that cost most in the span.",
            unit="short",
            kind="table",
            queries=(
                _sql(
                    "SELECT coalesce(project, 'unknown') AS project, coalesce(key, 'unknown') AS key, "
                    "coalesce(priced_model, model, 'unknown') AS model, "
                    f"{DOLLARS} AS spend, count(*) AS calls, sum(input_total)::bigint AS input, "
                    "sum(output_total)::bigint AS output "
                    f"FROM records WHERE {IN_SPAN} AND {SQL_TEAM} "
                    "GROUP BY 1, 2, 3 ORDER BY 4 DESC NULLS LAST LIMIT 20"
                ),
            ),
            units=(("spend", "currencyUSD"),),
        ),
        Panel(
            title="Spend by day",
            text="Known cost by UTC day and project, of 30 days.",
            unit="currencyUSD",
            kind="timeseries",
            queries=(
                _sql(
                    f"SELECT day AS time, coalesce(project, 'unknown') AS metric, "
                    f"{SPENT} AS spend FROM usage_by_day WHERE {DAYS_IN_SPAN} AND {SQL_TEAM} "
                    "GROUP BY 1, 2 ORDER BY 1"
                ),
            ),
            is_stacked=True,
            is_bars=True,
            since="30d",
        ),
    ),
)

MODELS: Final = Board(
    name="model",
    title="Model and price",
    text="What does a million tokens cost, which price is in force, and what do caches save?",
    since="24h",
    variables=(PROVIDER, MODEL),
    panels=(
        Panel(
            title="Prices in force",
            text="Standard price of a million, by meter, of the models called so far.",
            unit="currencyUSD",
            kind="table",
            queries=(
                _ask(
                    "max by (provider, model, meter, price_version) "
                    f"(llm_price_usd_per_million{{{SOLD}}})",
                    "a million",
                ),
            ),
            columns=("model", "meter", "provider", "price_version"),
        ),
        Panel(
            title="Prices over time",
            text="The same in time; a line at each change of the price book.",
            unit="currencyUSD",
            kind="timeseries",
            queries=(
                _ask(
                    "max by (provider, model, meter) "
                    f'(llm_price_usd_per_million{{{SOLD}, meter=~"input|output"}})',
                    "{{model}} {{meter}}",
                ),
            ),
        ),
        Panel(
            title="Cost of a million tokens",
            text="What was paid for tokens over tokens, of the last hour.",
            unit="currencyUSD",
            kind="timeseries",
            queries=(
                _ask(
                    f"model:llm_cost_usd_per_million_tokens:1h{{{SOLD}}}", "{{provider}}/{{model}}"
                ),
            ),
        ),
        Panel(
            title="Token mix",
            text="Tokens a second by meter.",
            unit="short",
            kind="timeseries",
            queries=(
                _ask(
                    f"sum by (meter) (rate(llm_tokens_total{{{SOLD}, {TOKENS}}}[$__rate_interval]))",
                    "{{meter}}",
                ),
            ),
            is_stacked=True,
        ),
        Panel(
            title="Input from caches",
            text="Share of input tokens that were read from a cache in the last hour.",
            unit="percentunit",
            kind="timeseries",
            queries=(
                _ask(f"model:llm_cache_read_tokens:share1h{{{SOLD}}}", "{{provider}}/{{model}}"),
            ),
            width=8,
        ),
        Panel(
            title="Saved by caches",
            text="Dollars an hour: reads against the price of input, less what writes cost beyond it.",
            unit="currencyUSD",
            kind="timeseries",
            queries=(_ask(f"model:llm_cache_savings_usd:1h{{{SOLD}}}", "{{provider}}/{{model}}"),),
            width=8,
        ),
        Panel(
            title="Spend by meter",
            text="Dollars of the span by what was sold, units that are no tokens included.",
            unit="currencyUSD",
            kind="bargauge",
            queries=(
                _ask(
                    f"sum by (meter) (increase(llm_cost_usd_total{{{SOLD}}}[$__range]))",
                    "{{meter}}",
                ),
            ),
            width=8,
            decimals=2,
        ),
        Panel(
            title="Time to the first token",
            text="What one stream in twenty takes longer than.",
            unit="s",
            kind="timeseries",
            queries=(
                _ask(
                    "histogram_quantile(0.95, sum by (model, le) (rate("
                    f"llm_time_to_first_token_seconds_bucket{{{SOLD}}}[$__rate_interval])))",
                    "{{model}}",
                ),
            ),
        ),
        Panel(
            title="Duration",
            text="What one call in twenty takes longer than; dots are single calls, by request id.",
            unit="s",
            kind="timeseries",
            queries=(
                _ask(
                    "histogram_quantile(0.95, sum by (model, le) (rate("
                    f"llm_request_duration_seconds_bucket{{{SOLD}}}[$__rate_interval])))",
                    "{{model}}",
                ),
            ),
        ),
        Panel(
            title="Unit prices paid by day",
            text="What a million of each meter came to, by UTC day and model, of 30 days.",
            unit="currencyUSD",
            kind="timeseries",
            queries=(
                _sql(
                    "SELECT day AS time, coalesce(model, 'unknown') || ' ' || meter AS metric, "
                    "(sum(cost) * 1000000 / nullif(sum(quantity), 0))::float8 AS price "
                    f"FROM usage_by_day_and_meter WHERE {DAYS_IN_SPAN} "
                    "AND coalesce(provider, 'unknown') ~ '^(${provider:regex})$' "
                    "GROUP BY 1, 2 ORDER BY 1"
                ),
            ),
            width=24,
            since="30d",
        ),
    ),
)
