"""What the tests of speculative decoding ask for, and what they compare."""

from collections.abc import Iterable
from typing import Any

from app.engine.base import Sequence, Token
from app.engine.mlx.batch.engine import MLXEngine
from app.engine.mlx.speculate.drafter import MOST
from app.schemas.sampling import Sampling
from tests.engine.test_engine import GREEDY, ids, run

SEEDED = Sampling(temperature=0.7, top_p=0.9, seed=5)
SAMPLINGS = {"greedy": GREEDY, "seeded": SEEDED, "whole": Sampling(seed=6), "cut": Sampling(seed=7, top_k=5, min_p=0.1)}
SIZE: dict[str, Any] = {"width": 128, "config": {"num_attention_heads": 4, "num_key_value_heads": 2}}


def verified(passes: Iterable[tuple[int, int]]) -> int:
    """How often the target computed several positions at once after a prompt of fewer than ``MOST`` tokens."""
    return sum(layers == 4 and 1 < width <= MOST + 1 for layers, width in passes)


async def held(engine: MLXEngine) -> int:
    """Bytes of the draft's KV cache once the step that told the last token is over."""

    def told() -> int:
        assert engine._batch is not None
        assert engine._batch._drafter is not None
        return engine._batch._drafter.kv_bytes

    return await engine._thread.call(told)


async def same(drafted: MLXEngine, plain: MLXEngine, *sequences: Sequence) -> dict[tuple[int, int], list[Token]]:
    made, _ = await run(drafted, *sequences)
    expected, _ = await run(plain, *sequences)
    assert {key: ids(it) for key, it in made.items()} == {key: ids(it) for key, it in expected.items()}
    assert {key: it[-1].finish for key, it in made.items()} == {key: it[-1].finish for key, it in expected.items()}
    return made
