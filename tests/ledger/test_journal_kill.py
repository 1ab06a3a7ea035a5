"""A journal whose process is really killed, at random moments, again and again."""

import os
import random
import select
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

import pytest

from gateway.ledger.journal import Journal
from gateway.ledger.recovery import recover_journal
from tests.contracts.records import NOON_US
from tests.ledger.journal_kit import MemorySink

# Tells after each append, in one write, what is now promised: "i id", or "r id seq".
WRITER = """
import asyncio, os, random, sys
from pathlib import Path
from gateway.ledger.journal import Journal
from tests.ledger.journal_kit import make_intent, settle

directory, seed, fsync = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
chance = random.Random(seed)
journal = Journal.open(directory, fsync=fsync, segment_bytes_max=20_000)
still_open = []

async def main():
    while True:
        if chance.random() < 0.55 or not still_open:
            intent = make_intent(user="u" * chance.randrange(1000))
            journal.append_intent(intent)
            still_open.append(intent)
            told = f"i {intent.id}\\n"
        else:
            intent = still_open.pop(chance.randrange(len(still_open)))
            record = journal.append_record(settle(intent))
            told = f"r {record.id} {record.seq}\\n"
        if chance.random() < 0.2:
            await journal.synced()
        os.write(1, told.encode())

asyncio.run(main())
"""


@dataclass
class Promises:
    """What killed processes had told before they died.

    Attributes:
        opened: Ids of calls written down.
        settled: Sequence number of each record, by id.
    """

    opened: set[str] = field(default_factory=set)
    settled: dict[str, int] = field(default_factory=dict)

    def hear(self, text: str) -> None:
        """Take in the whole lines of one process."""
        for line in text.splitlines():
            kind, name, *seq = line.split()
            if kind == "i":
                self.opened.add(name)
            else:
                self.settled[name] = int(seq[0])


def run_until_killed(directory: Path, seed: int, fsync: str) -> str:
    """Start a writer, kill it after a random amount of output; return all it told."""
    chance = random.Random(seed)
    command = [sys.executable, "-c", WRITER, str(directory), str(seed), fsync]
    with Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        fd = process.stdout.fileno()
        enough = chance.randrange(1, 40_000)
        told = b""
        while len(told) < enough:
            part = os.read(fd, 4096)
            assert part, "the writer died by itself"
            told += part
        process.send_signal(signal.SIGKILL)
        while select.select([fd], [], [], 20)[0] and (part := os.read(fd, 65536)):
            told += part
        assert -signal.SIGKILL == process.wait()
    return told.decode()


@pytest.mark.parametrize(("seed", "fsync"), [(1, "normal"), (2, "normal"), (3, "full")])
def test_a_killed_process_loses_nothing(tmp_path, seed, fsync):
    """After every kill each promised record is there with its number, each open call has one."""
    promises = Promises()
    sink = MemorySink()
    for round_ in range(4):
        promises.hear(run_until_killed(tmp_path, 100 * seed + round_, fsync))
        if round_ % 2:
            continue  # the next writer inherits the open calls
        with closing(Journal.open(tmp_path, segment_bytes_max=20_000)) as journal:
            report = recover_journal(journal, sink, now_us=NOON_US)
            assert () == journal.open_intents()
            assert () == report.damaged_files
            assert report.store_trouble is None
            assert list(range(1, journal.position().seq + 1)) == sink.seqs(journal.writer)
            assert [journal.position().segment] == [e.number for e in journal.extents()]
        assert promises.opened <= sink.records.keys()
        assert promises.settled == {name: sink.records[name].seq for name in promises.settled}
        ends = {name: record.outcome for name, record in sink.records.items()}
        # Each writer may have died between its last append and telling of it.
        untold = {n for n, end in ends.items() if end == "ok"} - promises.settled.keys()
        assert len(untold) <= round_ + 1
        assert all("ok" == ends[name] for name in promises.settled)
        assert all("aborted" == ends[n] for n in promises.opened - promises.settled.keys() - untold)
