"""One engine on a random-weight model, shared by the tests of this folder."""

import asyncio

import pytest

from app.engine.mlx.batch.thread import MLXThread
from app.engine.mlx.cache.prefix import PrefixPool
from app.engine.mlx.load.loader import MLXLoader
from app.engine.options import Batching
from tests.support.tiny import tiny


@pytest.fixture(scope="session")
async def loader():
    thread = MLXThread(asyncio.get_running_loop())
    loader = MLXLoader(thread, PrefixPool(8 << 20), Batching(16, 64))
    yield loader
    await loader.close()


@pytest.fixture(scope="session")
async def engine(loader):
    engine = await loader.load(tiny(), name="tiny")
    yield engine
    await engine.close()
