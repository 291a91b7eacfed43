"""An engine that may keep no prompts."""

import asyncio

from app.engine.base import Sequence, Token
from app.engine.mlx.batch.thread import MLXThread
from app.engine.mlx.cache.prefix import PrefixPool
from app.engine.mlx.load.loader import MLXLoader
from app.engine.options import Batching
from app.schemas.sampling import Sampling
from tests.support.tiny import tiny


async def test_prompts_that_begin_alike_are_computed_though_nothing_can_be_kept() -> None:
    thread = MLXThread(asyncio.get_running_loop())
    loader = MLXLoader(thread, PrefixPool(0), Batching(16, 64))
    engine = await loader.load(tiny(), name="tiny")
    asked = tuple(Sequence((*range(3, 33), 40 + i), Sampling(temperature=0), max_tokens=3) for i in range(3))
    made = 0
    async with asyncio.timeout(30):
        async for items in engine.stream(asked):
            made += sum(isinstance(item, Token) for item in items)
    assert made == 9
    await engine.close()
    await loader.close()
