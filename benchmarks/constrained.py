"""``python -m benchmarks.constrained``: what a grammar costs per token, with the engine in this process.

Free and guided turns alternate; figures are medians over the turns. Two models: one whose step takes about as long as
a small real model's, and one so small that little hides the cost. ``--vocabulary 151936`` widens both tokenizers' end
of the matter to Qwen's size. The grammar is a JSON schema with an endless list, so rows never end early.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

from app.engine.base import Sequence, Token
from app.engine.grammar import Grammar
from app.engine.mlx.batch.engine import MLXEngine
from app.engine.mlx.batch.thread import MLXThread
from app.engine.mlx.cache.prefix import PrefixPool
from app.engine.mlx.load.loader import MLXLoader
from app.engine.options import Batching
from app.schemas.sampling import Sampling
from tests.support.tiny import make_tiny

LIST = {
    "type": "array",
    "minItems": 100000,
    "items": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "tags": {"type": "array"}},
        "required": ["name", "age", "tags"],
        "additionalProperties": False,
    },
}
FORCED = Grammar("json_schema", json.dumps(LIST))


async def turn(engine: MLXEngine, guided: int, rows: int, tokens: int, temperature: float) -> tuple[float, float]:
    """Seconds per step, of the clock and of the processor, with ``guided`` of ``rows`` rows held to the grammar."""

    async def one(number: int) -> list[float]:
        sequence = Sequence(
            tuple(range(5, 25)),
            Sampling(temperature=temperature, seed=number),
            max_tokens=tokens,
            grammar=FORCED if number < guided else None,
        )
        times: list[float] = []
        async for items in engine.stream((sequence,)):
            times += [time.perf_counter() for it in items if isinstance(it, Token)]
        return times

    spent = time.process_time()
    made = await asyncio.gather(*(one(number) for number in range(rows)))
    begun, ended = max(times[0] for times in made), min(times[-1] for times in made)
    return (ended - begun) / (tokens - 1), (time.process_time() - spent) / tokens


async def measure(engine: MLXEngine, name: str, tokens: int, turns: int) -> None:
    for temperature in (0.0, 1.0):
        for rows, guided in ((1, 1), (16, 8), (16, 16)):
            cases = {"free": 0, "guided": guided}
            taken: dict[str, list[tuple[float, float]]] = {case: [] for case in cases}
            for number in range(turns + 1):
                for case in sorted(cases, reverse=number % 2 == 1):
                    figures = await turn(engine, cases[case], rows, tokens, temperature)
                    if number:
                        taken[case].append(figures)
            costs = []
            for which in (0, 1):
                free, held = (statistics.median(it[which] for it in taken[case]) * 1e3 for case in ("free", "guided"))
                costs.append(f"{free:7.2f} {held:7.2f} ms {held / free:5.2f}")
            cost = "  | processor ".join(costs)
            print(f"{name:24} t={temperature:.0f} {guided:2} of {rows:2} rows: {cost}", flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--model", type=Path, action="append", help="a model directory instead of the random ones")
    given = parser.parse_args()
    thread = MLXThread(asyncio.get_running_loop())
    loader = MLXLoader(thread, PrefixPool(64 << 20), Batching(64, 512))
    print(f"{'model':24}     guided of all     free  guided (per step)  ratio")
    with tempfile.TemporaryDirectory() as root:
        models = given.model or [
            make_tiny(Path(root) / "width 64", seed=0, vocabulary="smollm2"),
            make_tiny(Path(root) / "width 512, 8 layers", seed=0, width=512, layers=8, vocabulary="smollm2"),
        ]
        for path in models:
            engine = await loader.load(path, name=path.name)
            await engine.prepare(FORCED)
            await measure(engine, path.name, given.tokens, given.turns)
            await engine.close()
    await loader.close()


if __name__ == "__main__":
    asyncio.run(main())
