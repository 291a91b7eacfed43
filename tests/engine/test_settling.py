"""Full collections do not look through what a load has made, and still find it when it has become garbage."""

import asyncio
import gc
import weakref

from app.engine.mlx.batch.thread import MLXThread
from app.engine.mlx.cache.prefix import PrefixPool
from app.engine.mlx.load.loader import MLXLoader
from app.engine.mlx.memory import release
from app.engine.options import Batching
from tests.support.tiny import tiny


class Knot:
    """Refers to itself, so that only a collection ends it."""

    def __init__(self) -> None:
        self.me = self


async def test_a_loaded_model_is_not_looked_through_again() -> None:
    thread = MLXThread(asyncio.get_running_loop())
    loader = MLXLoader(thread, PrefixPool(8 << 20), Batching(4, 64))
    knot = Knot()
    engine = await loader.load(tiny(), name="tiny")
    assert gc.get_freeze_count() > 10 * len(gc.get_objects())
    assert engine.loaded not in gc.get_objects()
    ended = weakref.ref(knot)
    del knot
    gc.collect()
    assert ended() is not None
    await engine.close()
    assert ended() is None
    await loader.close()
    gc.unfreeze()


def test_what_was_settled_is_collected_when_memory_is_released() -> None:
    knot = Knot()
    release()
    ended = weakref.ref(knot)
    del knot
    release()
    assert ended() is None
    gc.unfreeze()
