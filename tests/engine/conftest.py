"""One engine on a random-weight model, shared by the tests of this folder; each leaves its books true."""

import asyncio
from collections.abc import AsyncIterator

import mlx.core as mx
import pytest

from app.engine.host.audit import is_off
from app.engine.mlx.batch.engine import MLXEngine
from app.engine.mlx.batch.thread import MLXThread
from app.engine.mlx.cache.prefix import PrefixPool
from app.engine.mlx.load.loader import MLXLoader
from app.engine.mlx.memory import release
from app.engine.options import Batching
from tests.support.tiny import tiny

PREFIXES = PrefixPool(8 << 20)


@pytest.fixture(scope="session")
async def loader() -> AsyncIterator[MLXLoader]:
    thread = MLXThread(asyncio.get_running_loop())
    loader = MLXLoader(thread, PREFIXES, Batching(16, 64))
    yield loader
    await loader.close()


@pytest.fixture(scope="session")
async def shared_engine(loader: MLXLoader) -> AsyncIterator[MLXEngine]:
    engine = await loader.load(tiny(), name="tiny")
    yield engine
    await engine.close()


@pytest.fixture
async def engine(shared_engine: MLXEngine) -> AsyncIterator[MLXEngine]:
    before = await unbooked(shared_engine)
    yield shared_engine
    for _ in range(100):
        if not (work := shared_engine.work()).rows and not work.waiting_tokens:
            break
        await asyncio.sleep(0.05)
    error = await unbooked(shared_engine) - before
    assert not is_off(error, shared_engine.nbytes), f"at rest {error} bytes more are held than are booked"


async def unbooked(engine: MLXEngine) -> int:
    """Bytes of arrays in this process for which the engine's books have no place.

    Garbage that a load has taken for long-lived would go once the process rests, whichever test runs then.
    """

    def look() -> int:
        release()
        return mx.get_active_memory() - engine.books().weights - engine.books().kv - PREFIXES.nbytes

    return await engine._thread.call(look)
