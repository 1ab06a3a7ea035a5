"""What must be true once everything is up again: nothing lost, nothing twice, every sum right.

Must never trust the gateway's word alone: the provider's log and the clients' are the truth.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from tests.chaos.load import Heard, cost_of, kind_of, lane_of, tokens_of
from tests.server import BudgetView, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What each side saw.

    Attributes:
        heard: By the clients.
        reached: Names of the calls that reached the provider, each as often as it did.
        records: The ledger.
    """

    heard: Sequence[Heard]
    reached: Sequence[str]
    records: Sequence[Record]

    def named(self) -> dict[str, list[Record]]:
        """Sort the records of calls that were let in by the calls' names."""
        found = defaultdict(list)
        for record in self.records:
            if record["outcome"] != "refused" and "-" in (record["user"] or ""):
                found[record["user"]].append(record)
        return found


def missing(seen: Seen) -> set[str]:
    """Find calls that reached the provider, or that a client saw answered, without a record."""
    answered = {one.name for one in seen.heard if one.status is not None and one.status < 300}
    return ({*seen.reached} | answered) - seen.named().keys()


def problems_of_records(seen: Seen) -> list[str]:
    """Compare every record with both sides.

    Returns:
        What is wrong, in words; nothing where all is well.
    """
    named = seen.named()
    wrong = [f"lost: {name}" for name in sorted(missing(seen))]
    wrong += [f"twice: {name}" for name, records in named.items() if len(records) > 1]
    wrong += [f"sent twice: {name}" for name, n in Counter(seen.reached).items() if n > 1]
    ids = Counter(record["id"] for record in seen.records)
    wrong += [f"one id, {count} records: {each}" for each, count in ids.items() if count > 1]
    heard = {one.name: one for one in seen.heard}
    reached = frozenset(seen.reached)
    for name, (record, *_) in named.items():
        if name not in heard:
            wrong.append(f"nobody called {name}")
            continue
        wrong += _problems_of_one(heard[name], record, was_sent=name in reached)
    return wrong


def _problems_of_one(heard: Heard, record: Record, *, was_sent: bool) -> list[str]:
    name = heard.name
    told = f"{record['outcome']} {record['basis']} {record['cost']} {record['usage']}"
    wrong = []
    if heard.request_id is not None and heard.request_id != record["id"]:
        wrong.append(f"{name}: the client was told another id")
    is_success = heard.status is not None and heard.status < 300
    if heard.is_whole and is_success:
        tokens_in, tokens_out = tokens_of(name)
        usage = {"input": tokens_in, "output": tokens_out}
        expected = ("ok", "reported", cost_of(name), usage)
        found = (record["outcome"], record["basis"], Decimal(record["cost"] or -1), record["usage"])
        if expected != found:
            wrong.append(f"{name}: answered whole, recorded as {told}")
    is_free = record["cost"] is None or Decimal(record["cost"]) <= 0
    if is_free and record["outcome"] == "aborted" and record["basis"] != "none":
        wrong.append(f"{name}: aborted for nothing: {told}")
    if is_free and was_sent and kind_of(name) not in {"error", "busy"}:
        wrong.append(f"{name}: reached the provider for nothing: {told}")
    return wrong


def problems_of_budgets(
    budgets: Mapping[str, BudgetView], seen: Seen, limits: Mapping[str, str]
) -> list[str]:
    """Compare counters with the ledger, and limits with what was let in.

    Args:
        budgets: What the gateway says.
        seen: The calls.
        limits: Of the lanes.

    Returns:
        What is wrong, in words; nothing where all is well.
    """
    records = [record for found in seen.named().values() for record in found]
    sums = {
        "everybody": sum((Decimal(r["cost"] or 0) for r in records), Decimal(0)),
        "everybody-calls": Decimal(len(records)),
        "calls": Decimal(sum(lane_of(r["user"]) == "calls" for r in records)),
        "money": sum(
            (Decimal(r["cost"] or 0) for r in records if lane_of(r["user"]) == "money"), Decimal(0)
        ),
    }
    wrong = [
        f"budget {name} has spent {budgets[name].spent}, the ledger says {total}"
        for name, total in sums.items()
        if budgets[name].spent != total
    ]
    wrong += [
        f"budget {name} still holds {view.reserved}"
        for name, view in budgets.items()
        if view.reserved
    ]
    hours = Counter(r["started_at"][:13] for r in records if lane_of(r["user"]) == "hour")
    busiest = Decimal(max(hours.values(), default=0))
    most = {"calls": sums["calls"], "money": sums["money"], "hour": busiest}
    wrong += [
        f"budget {name} is overspent: {amount} of {limits[name]}"
        for name, amount in most.items()
        if amount > Decimal(limits[name])
    ]
    return wrong
