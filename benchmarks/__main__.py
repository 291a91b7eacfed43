"""``python -m benchmarks [NAME...]``: measure, print tables, write JSON.

Without names everything that a CPU can measure is run; ``gpu`` (or ``gpu:8b``, one shape of it) is run by its name
alone. A name that is no table of these is run as the program ``benchmarks.NAME``.
"""

import argparse
import runpy
from importlib import import_module
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.report import Report

CASES = (
    "startup",
    "single",
    "concurrent",
    "beside",
    "short",
    "smollm2",
    "alternated",
    "stall",
    "prefix",
    "memory",
)
ON_DEMAND = ("gpu",)


def main() -> None:
    parser = argparse.ArgumentParser(prog="docker-free-run.sh bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(CASES + ON_DEMAND)}, or a program here")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each contender takes")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--home", type=Path, default=Path("build/benchmarks"), help="directory for the models")
    given = parser.parse_args()
    given.home.mkdir(parents=True, exist_ok=True)
    bench, report = Bench(given.home.resolve(), given.rounds), Report(given.json)
    for name in given.names or CASES:
        case, _, option = name.partition(":")
        if case in CASES + ON_DEMAND:
            for line in import_module(f"benchmarks.cases.{case}").run(bench, *filter(None, [option])):
                report.add(line)
        else:
            runpy.run_module(f"benchmarks.{name}", run_name="__main__", alter_sys=True)
    missed = [line.work for line in report.lines if line.verdict == "miss"]
    if missed:
        print(f"missed: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
