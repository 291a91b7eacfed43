"""Conversations with quantised caches, adapters and drafts say with a prefix cache what they say without one.

By seeds: messages and answers of any length, edits and branches, two conversations beside each other.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from app.engine.base import Sequence, Token
from app.engine.mlx.batch.engine import MLXEngine
from app.engine.mlx.cache.prefix import PrefixPool
from app.engine.mlx.load.loader import MLXLoader
from app.engine.options import Batching, DraftOptions, LoadOptions
from tests.engine.test_engine import GREEDY, ids, prompt, run
from tests.engine.test_kv_bits import HEADS_OF_32
from tests.support.adapters import make_adapter
from tests.support.tiny import make_tiny

VARIANTS = ("kv_bits 8", "kv_bits 4", "lookup", "lookup, kv_bits 8", "draft", "adapter", "adapter, kv_bits 8")
CLOSE = 0.05
"""Where the likeliest tokens lie no further apart, rounding may choose."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("variants")
    make_tiny(made / "draft", seed=5, width=128, config=HEADS_OF_32)
    make_tiny(made / "model", seed=4, width=128, config=HEADS_OF_32)
    make_adapter(made / "adapter", {"self_attn.q_proj": (128, 128)}, spread=0.7)
    return made


@pytest.fixture(scope="module", params=VARIANTS)
async def pair(
    request: pytest.FixtureRequest, loader: MLXLoader, home: Path
) -> AsyncIterator[tuple[MLXEngine, MLXEngine]]:
    """The same model with a prefix cache and without."""
    variant = request.param
    bits = next((int(word) for word in variant.split() if word.isdigit()), None)
    draft = DraftOptions(name="draft", path=home / "draft") if variant == "draft" else None
    options = LoadOptions(kv_bits=bits, lookup="lookup" in variant, draft=draft)
    made: list[MLXEngine] = []
    for room in (8 << 20, 0):
        own = MLXLoader(loader._thread, PrefixPool(room), Batching(16, 64))
        engine = await own.load(home / "model", name="model", options=options)
        if "adapter" in variant:
            made.insert(0, engine)
            engine = await own.adapt(engine, home / "adapter", name="model:adapter", options=options)
        made.append(engine)
    yield made[-2], made[-1]
    for engine in reversed(made):
        await engine.close()


async def said(engine: MLXEngine, tokens: list[int], count: int) -> tuple[list[Token], int]:
    """An answer, and how much of the prompt was known."""
    made, prefilled = await run(engine, Sequence(tuple(tokens), GREEDY, max_tokens=count, logprobs=2))
    return made[0, 0], prefilled[0].cached_tokens


def same(a: list[Token], b: list[Token]) -> bool:
    """Up to the first place where rounding may choose."""
    for one, other in zip(a, b, strict=True):
        if abs(one.top[0].logprob - one.top[1].logprob) < CLOSE:
            return True
        if one.id != other.id:
            return False
    return True


@pytest.mark.parametrize("seed", range(3))
async def test_turns_say_what_they_say_without_a_cache(pair: tuple[MLXEngine, MLXEngine], seed: int) -> None:
    numbers, (kept, bare) = np.random.default_rng(seed), pair
    sessions, spared = [list(prompt(seed, 150)), list(prompt(seed, 150))], 0
    for turn in range(8):
        session = sessions[int(numbers.integers(2))]
        if turn and not numbers.integers(4):
            del session[len(session) - int(numbers.integers(1, 60)) :]
        session += prompt(1000 * seed + turn, int(numbers.integers(5, 120)))
        count = int(numbers.integers(4, 40))
        answer, known = await said(kept, session, count)
        wanted, nothing = await said(bare, session, count)
        assert nothing == 0
        assert same(answer, wanted), (turn, known)
        spared += known
        session += ids(answer)
    assert spared > 600, "or there was nothing to go wrong"
