"""1,000 seeded odd bodies against the service as people start it: ``python -m benchmarks.fuzz [--count N] [--seed S]``.

The bodies are made from the OpenAPI document that the service serves. The exit code is 1 if any was answered with
anything but 200, 400 or 404, in a wrong shape, with a stream that does not end, or not within a minute.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.support.fuzz import fuzz
from tests.support.process import service
from tests.support.tiny import make_tiny


def main() -> int:
    """Fuzz, and tell what came of it."""
    parser = argparse.ArgumentParser(prog="benchmarks.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="bodies")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        make_tiny(Path(place) / "tiny", seed=0, context=256)
        with service("--offline", "--model-root", place, "--default-model", "tiny", HF_HOME=f"{place}/hf") as running:
            outcome = asyncio.run(fuzz(running.url, "tiny", count=given.count, seed=given.seed))
            traced = "Traceback" in running.log
    told = ", ".join(f"{times} x {status}" for status, times in sorted(outcome.statuses.items()))
    print(f"{given.count} bodies from seed {given.seed} in {outcome.seconds:.0f} s: {told}")
    print(
        f"slowest answer {outcome.slowest[0]:.2f} s, answered wrongly {len(outcome.broken)}, traceback logged: {traced}"
    )
    print(f"the slowest was asked by {outcome.slowest[1][:300]!r}")
    for path, body, wrong in outcome.broken[:20]:
        print(f"\n{path} {body[:2000]!r}\n  {wrong}")
    return 1 if outcome.broken or traced else 0


if __name__ == "__main__":
    sys.exit(main())
