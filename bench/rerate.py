"""``python -m bench.rerate``: how many records a second are priced again, in a dry and a real run.

Must never touch a ledger that is in use: it makes its own.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Final

from gateway.clock import SystemClock, from_epoch_us
from gateway.ids import IdSource
from gateway.ledger.errors import ShippedTo
from gateway.ledger.filters import RecordFilter
from gateway.ledger.lines import to_ledger_lines, to_ledger_usage
from gateway.ledger.migrate import upgrade
from gateway.ledger.record import LedgerRecord
from gateway.ledger.store import LedgerStore, open_engine
from gateway.price_versions import GatewayVersions
from gateway.prices.store import PriceStore
from gateway.rerate_runs import RerateRequest, Rerates
from gateway.settings import Settings
from gateway.settlement import rate_call
from pricing.agreements import Override
from pricing.book import Book, describe_version, load_book
from pricing.meters import Meter
from pricing.served import Served
from pricing.usage import Basis, Usage

_START_US: Final = 1_795_392_000_000_000  # 2026-11-23T00:00:00Z
_STEP_US: Final = 100_000
_BATCH: Final = 5_000
_SEED: Final = 7
_TEAMS: Final = 20
_MODELS: Final = (("openai", "gpt-5"), ("openai", "gpt-4o"), ("gemini", "gemini-2.5-pro"))
_FASTEST_OF: Final = 3


class _DearerVersions(GatewayVersions):
    """The shipped versions, and the newest once more with everything dearer for half the teams.

    Attributes:
        version: The name of that one.
    """

    def __init__(self, store: PriceStore) -> None:
        super().__init__(Settings(), store)
        self._plain = load_book()
        described = self._plain.version
        self.version = f"{described.version}+dearer"
        self._dearer = Book(
            describe_version(self.version, described.manifest, recorded_at=described.recorded_at),
            self._plain.models,
            self._plain.rates,
            [
                Override(
                    id=f"t{number}",
                    team=f"team-{number}",
                    percent=Decimal(10),
                    valid_from=described.recorded_at.replace(year=2020),
                    valid_to=None,
                    why="a benchmark",
                )
                for number in range(0, _TEAMS, 2)
            ],
        )

    def find_book(self, version: str, provider: str) -> Book:
        """Find a version; see ``PriceVersions.find_book``."""
        return self._dearer if version == self.version else super().find_book(version, provider)


def make_records(count: int, book: Book) -> Iterator[LedgerRecord]:
    """Make calls of many sizes, each priced the way the path prices it.

    Args:
        count: How many.
        book: The prices.

    Yields:
        Records in the order of their start.
    """
    chance, ids = random.Random(_SEED), IdSource()
    for number in range(count):
        provider, model = chance.choice(_MODELS)
        at_us = _START_US + number * _STEP_US
        counts = {
            Meter.INPUT: chance.randint(1, 20_000),
            Meter.CACHE_READ: chance.randint(1, 100_000),
            Meter.OUTPUT: chance.randint(1, 4_000),
        }
        usage = Usage(counts=counts, basis=Basis.REPORTED)
        at = from_epoch_us(at_us)
        served = Served(priced_as=provider, asked=model, model=model, tier=None, region=None, at=at)
        bill = rate_call(usage, served, book.find_card(provider, model, at), book)
        tokens_in, tokens_out = usage.totals()
        cost_pico = None if bill.cost is None else bill.cost.pico
        yield LedgerRecord(
            id=ids.mint(at_us // 1000),
            seq=number + 1,
            started_at_us=at_us,
            ended_at_us=at_us + 1,
            outcome="ok",
            http_status=200,
            stream=False,
            api="openai.chat",
            provider=provider,
            model_requested=model,
            model=model,
            organization="acme",
            team=f"team-{number % _TEAMS}",
            project="rag",
            key="ci",
            tags={"env": "prod"},
            usage=to_ledger_usage(usage.counts),
            input_total=tokens_in,
            output_total=tokens_out,
            basis="reported",
            cost_pico=cost_pico,
            list_cost_pico=cost_pico,
            price_version=bill.version,
            cost_status=bill.status,
            lines=to_ledger_lines(bill.lines),
            priced_as=provider,
            priced_model=bill.priced_model,
            tier="standard",
            model_asked=model,
        )


def main(arguments: list[str] | None = None) -> int:
    """Measure and print.

    Args:
        arguments: As on the command line.

    Returns:
        Exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.rerate", description=__doc__)
    parser.add_argument("--records", type=int, default=100_000, help="%(default)s unless given")
    count = parser.parse_args(arguments).records
    with tempfile.TemporaryDirectory(prefix="taximeter-bench-") as folder:
        engine = open_engine(f"sqlite:///{Path(folder)}/ledger.db")
        upgrade(engine)
        store = PriceStore(engine)
        store.record_shipped("bench")
        versions = _DearerVersions(store)
        _fill(LedgerStore(engine), count)
        rerates = Rerates(engine, versions, SystemClock())
        request = RerateRequest(
            version=versions.version,
            as_of_us=None,
            wanted=RecordFilter(from_us=_START_US, to_us=_START_US + count * _STEP_US),
        )
        print(f"{count:,} records, SQLite, half of them change")
        best_s = min(_time_dry(rerates, request) for _ in range(_FASTEST_OF))
        print(f"dry run   {count / best_s:>9,.0f} records/s")
        began_s = time.perf_counter()
        done = rerates.run(request, "bench", "a benchmark", _ignore)
        took_s = time.perf_counter() - began_s
        made = 0 if done.result is None else done.result["corrections"]
        print(f"real run  {count / took_s:>9,.0f} records/s, {made:,} corrections appended")
        best_s = min(_time_dry(rerates, request) for _ in range(_FASTEST_OF))
        print(f"dry again {count / best_s:>9,.0f} records/s, over what was corrected")
        engine.dispose()
    return 0


def _fill(store: LedgerStore, count: int) -> None:
    batch: list[LedgerRecord] = []
    for record in make_records(count, load_book()):
        batch.append(record)
        if len(batch) == _BATCH or record.seq == count:
            store.append("bench", batch, ShippedTo(segment=1, offset=record.seq))
            batch = []


def _time_dry(rerates: Rerates, request: RerateRequest) -> float:
    began_s = time.perf_counter()
    rerates.preview(request, _ignore)
    return time.perf_counter() - began_s


def _ignore(_count: int) -> None:
    """Nobody watches."""


if __name__ == "__main__":
    sys.exit(main())
