"""The command `python -m tests.fuzz KIND`, from the root of the repository."""

from __future__ import annotations

import argparse
import sys

from . import KINDS, harness


def main() -> int:
    """Exit status 1 if there was a fault."""
    options = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    options.add_argument("kind", nargs="+", choices=[*KINDS, "all"])
    options.add_argument("--count", type=int, default=200, help="cases of each kind (200)")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--start", type=int, default=0, help="number of the first case (0)")
    options.add_argument("--only", type=int, help="one case, in this process, with its traceback")
    options.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    names = list(KINDS) if "all" in given.kind else given.kind
    status = 0
    for name in names:
        kind = KINDS[name]()
        if given.only is not None:
            numbers = range(given.only, given.only + 1)
            for outcome in harness.run_cases(kind, name, given.seed, numbers):
                print(outcome.words, outcome.trace, f"{outcome.name}: {outcome.detail}", sep="\n")
                status |= outcome.name == harness.FAULT
            continue
        if given.worker:
            numbers = range(given.start, given.start + given.count)
            harness.work(kind, name, given.seed, numbers)
            continue
        silence_s = 2 * harness.MOST_SLOW * kind.limit_s
        outcomes = harness.supervise(name, given.seed, given.start, given.count, silence_s)
        counts, faults, took_s = harness.count(outcomes)
        print(harness.table(name, given.seed, counts, faults, took_s), flush=True)
        status |= bool(faults)
    return status


if __name__ == "__main__":
    sys.exit(main())
