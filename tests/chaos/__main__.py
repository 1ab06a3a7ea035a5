"""Run seeds: ``python -m tests.chaos --seeds 50``, or one of them again: ``--seed 17``."""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import Outcome, run_seed
from tests.chaos.schedule import plan_of
from tests.postgres import running_postgres

# What a commit has said stays said, whoever is killed.
DURABLE = {"synchronous_commit": "on"}


def main() -> int:
    """Run them and print a table.

    Returns:
        Exit code: 1 when one found something.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seeds", type=int, default=50, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one, and show its plan")
    parser.add_argument("--steps", type=int, default=12, help="how much goes wrong in each")
    parser.add_argument("--logs", type=Path, help="where to keep what gateways said that failed")
    args = parser.parse_args()
    # An end that was asked for leaves nothing running or mounted either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    seeds = [args.seed] if args.seed is not None else range(args.first, args.first + args.seeds)
    outcomes = []
    with running_postgres(DURABLE) as postgres:
        for seed in seeds:
            plan = plan_of(seed, args.steps)
            if args.seed is not None:
                print(plan, flush=True)
            with tempfile.TemporaryDirectory(prefix="tm-chaos-") as folder:
                outcome = run_seed(
                    plan, Path(folder), postgres, print if args.seed is not None else _nothing
                )
            outcomes.append(outcome)
            print(_line(outcome), flush=True)
            if outcome.problems:
                print(plan, *outcome.problems, sep="\n  ", flush=True)
                if args.logs is not None:
                    args.logs.mkdir(parents=True, exist_ok=True)
                    (args.logs / f"seed-{seed}.log").write_text(outcome.said)
    bad = [str(one.plan.seed) for one in outcomes if one.problems]
    calls = sum(one.told.total() for one in outcomes)
    reached = sum(one.reached for one in outcomes)
    print(f"\n{len(outcomes)} seeds, {calls} calls, {reached} at the provider")
    if not all(one.has_clock for one in outcomes):
        print("no clock jumped: no C compiler (cc) works here")
    print(f"seeds that found something: {', '.join(bad)}" if bad else "nothing lost, nothing twice")
    return 1 if bad else 0


def _nothing(_: str) -> None:
    pass


def _line(outcome: Outcome) -> str:
    plan = outcome.plan
    told = " ".join(f"{what}:{count}" for what, count in sorted(outcome.told.items()))
    return (
        f"seed {plan.seed:4d}  {plan.workers} {plan.database:8s} {plan.fsync:6s} "
        f"{'redis' if plan.has_redis else '-':5s} {outcome.seconds:5.1f} s  "
        f"reached {outcome.reached:4d}  aborted {outcome.aborted:3d}  "
        f"{'ok ' if not outcome.problems else 'BAD'}  {told}"
    )


if __name__ == "__main__":
    sys.exit(main())
