"""Counters of several workers: taken out, sent, and added up without a loss."""

import json

from gateway.counts import Counts, Row


def counted(calls: int) -> Counts:
    """What a worker has counted that so many calls went through."""
    counts = Counts()
    row = counts.rows[("acme", "search", "rag", "openai", "gpt-5")] = Row()
    for call in range(calls):
        row.requests["openai.chat", "ok"] += 1
        row.tokens["input"] += 10
        # Beyond what a float or 64 bits hold exactly.
        row.cost_pico["input"] += 10**19 + 1
        row.user_tokens = (row.user_tokens or 0) + 3
        row.user_share_tokens += 10
        counts.refusals["search-month", "budget_exceeded"] += 1
        counts.durations.observe(("openai", "gpt-5", "false"), 0.2 + call)
    return counts


def sent(counts: Counts) -> list[tuple[tuple[str, ...], int | float]]:
    """The same, after it went over a line as JSON."""
    return [(tuple(key), count) for key, count in json.loads(json.dumps(list(counts.counts())))]


def shown(counts: Counts) -> list[tuple[str, tuple[str, ...], float]]:
    """Every sample a scrape would see."""
    return [
        (family.name + sample.suffix, sample.labels, sample.value)
        for family in counts.export()
        for sample in family.samples
    ]


def test_counts_of_two_workers_add_up_to_those_of_one():
    """Whole numbers exactly, histograms bucket by bucket."""
    together = Counts()
    together.add(sent(counted(2)))
    together.add(sent(counted(3)))
    row = together.rows[("acme", "search", "rag", "openai", "gpt-5")]

    assert 5 * (10**19 + 1) == row.cost_pico["input"]
    assert (5, 50, 15, 50) == (
        row.requests["openai.chat", "ok"],
        row.tokens["input"],
        row.user_tokens,
        row.user_share_tokens,
    )
    assert {("search-month", "budget_exceeded"): 5} == dict(together.refusals)
    ((labels, buckets),) = together.durations.rows.items()
    assert ("openai", "gpt-5", "false") == labels
    assert 5 == sum(buckets)
    assert (0.2 + 1.2) + (0.2 + 1.2 + 2.2) == together.durations.sums[labels]


def test_what_was_sent_shows_as_what_was_counted():
    """A fleet of one tells what that one would tell alone."""
    alone = counted(4)
    fleet = Counts()
    fleet.add(sent(alone))

    assert shown(alone) == shown(fleet)


def test_what_another_version_counts_is_left_out():
    """Workers are renewed one by one, so two versions may meet."""
    counts = Counts()
    counts.add([(("novelties", "a", "b", "c", "d", "e"), 4)])

    assert [] == [value for _, _, value in shown(counts) if value]
