"""``python -m benchmarks [NAME...]``: measure, print tables, write JSON.

Without names everything that a CPU can measure is run; ``gpu`` (or ``gpu:8b``, one shape of it; ``gpu:ranks``, two
GPUs) and ``ranks:w64`` are run by their names alone. A name that is no table of these is run as the program
``benchmarks.NAME``, with the arguments that it knows.
With ``--against`` the tables compare this checkout's service with another's: see :mod:`benchmarks.versions`.
"""

import argparse
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from benchmarks import servers
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
    "two",
    "stall",
    "prefix",
    "lookup",
    "switch",
    "memory",
    "idle",
    "books",
    "mixed",
    "embed",
)
ON_DEMAND = ("gpu", "gpu_beside", "ranks")
VERSIONS = ("startup", "single", "concurrent", "short", "alternated", "stall", "switch", "memory")
"""What can be measured against another version of the service."""
COMPUTING = ("constrained",)
"""Programs that compute in their own process."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="docker-free-run.sh bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(CASES + ON_DEMAND)}, or a program here")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each contender takes")
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout, whose service takes turns")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--home", type=Path, default=Path("build/benchmarks"), help="directory for the models")
    given, more = parser.parse_known_args()
    names = given.names or (CASES if given.against is None else VERSIONS)
    if more and all(map(is_table, names)):
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    if given.against is not None:
        if not (given.against / "app").is_dir():
            parser.error(f"{given.against} is no checkout of this project")
        if other := [name for name in names if name.partition(":")[0] not in VERSIONS]:
            parser.error(f"{', '.join(other)}: only {', '.join(VERSIONS)} can be measured against another version")
    given.home.mkdir(parents=True, exist_ok=True)
    against = None if given.against is None else given.against.resolve()
    bench, report = Bench(given.home.resolve(), given.rounds, against), Report(given.json)
    for name in names:
        if not is_table(name):
            run_program(name, more)
            continue
        case, _, option = name.partition(":")
        module = import_module(f"benchmarks.cases.{case}")
        measure = module.run if against is None else module.against
        for line in measure(bench, *filter(None, [option])):
            report.add(line)
    missed = [line.work for line in report.lines if line.verdict == "miss"]
    if missed:
        print(f"missed: {'; '.join(missed)}")


def is_table(name: str) -> bool:
    """Whether it is one of the cases, perhaps with an option."""
    return name.partition(":")[0] in CASES + ON_DEMAND


def run_program(name: str, arguments: list[str]) -> None:
    """Run ``benchmarks.NAME`` with what this program's own arguments are not, and end as it ends if that is badly."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    ended = subprocess.run(command, env=servers.environment(computes=name in COMPUTING), check=False)  # noqa: S603
    if ended.returncode:
        sys.exit(ended.returncode)


if __name__ == "__main__":
    main()
