"""What a model does before anybody waits for it."""

import asyncio
import os
from importlib.metadata import version

import mlx.core as mx
import pytest

from app.engine.base import Token
from app.engine.mlx.batch.delivery import MLXTokenStream
from app.engine.mlx.batch.engine import MLXEngine
from app.engine.mlx.cache.prefix import PrefixPool
from app.engine.mlx.load import loader as loading
from app.engine.mlx.load import warm_up as warming
from app.engine.mlx.load.loader import MLXLoader
from app.engine.mlx.load.warm_up import DRAWS, PROMPTS, warm_up
from app.engine.mlx.memory import keep_kernels
from app.engine.options import Batching
from tests.support.tiny import tiny


async def test_rows_of_every_kind_run_beside_each_other_and_nothing_is_left(engine, monkeypatch):
    items, most = [], 0
    deliver = MLXTokenStream.deliver

    def delivered(self, came, ended):
        nonlocal most
        items.extend(came)
        most = max(most, engine.work().rows)
        deliver(self, came, ended)

    monkeypatch.setattr(MLXTokenStream, "deliver", delivered)
    await warm_up(engine)
    tokens = [item for item in items if isinstance(item, Token)]
    assert len(tokens) == len(DRAWS) * sum(size // 8 for size in PROMPTS)
    assert {item.logprob is None for item in tokens} == {True, False}
    assert most > len(DRAWS), "they were in one batch"
    await asyncio.sleep(0.05)
    assert engine.work().rows == 0


@pytest.mark.parametrize("cuda", [True, False])
async def test_only_where_kernels_are_compiled_on_their_first_use(monkeypatch, cuda):
    warmed = []

    async def noted(engine):
        warmed.append(engine)

    monkeypatch.setattr(loading, "warm_up", noted)
    own = MLXLoader(loading_thread(), PrefixPool(8 << 20), Batching(4, 64))
    monkeypatch.setattr(mx.cuda, "is_available", lambda: cuda)
    engine = await own.load(tiny(), name="warmed")
    assert warmed == ([engine] if cuda else [])
    await engine.close()
    await own.close()


async def test_a_model_that_fails_at_it_is_not_left_in_memory(monkeypatch):
    closed = []
    close = MLXEngine.close

    async def failing(engine, sampling, size):
        raise asyncio.CancelledError

    async def noted(self):
        closed.append(self)
        await close(self)

    monkeypatch.setattr(warming, "_run", failing)
    monkeypatch.setattr(MLXEngine, "close", noted)
    own = MLXLoader(loading_thread(), PrefixPool(8 << 20), Batching(4, 64))
    monkeypatch.setattr(mx.cuda, "is_available", lambda: True)
    with pytest.raises(asyncio.CancelledError):
        await own.load(tiny(), name="warmed")
    assert len(closed) == 1
    await own.close()


def loading_thread():
    return loading.MLXThread(asyncio.get_running_loop())


@pytest.mark.parametrize("named", [None, "/elsewhere"])
def test_kernels_of_cuda_are_kept_in_our_cache_for_each_kind_of_gpu(monkeypatch, tmp_path, named):
    if named:
        monkeypatch.setenv("MLX_PTX_CACHE_DIR", named)
    else:
        monkeypatch.setenv("MLX_PTX_CACHE_DIR", "")  # so that it is put back afterwards
        monkeypatch.delenv("MLX_PTX_CACHE_DIR")
    keep_kernels(tmp_path)
    assert os.environ.get("MLX_PTX_CACHE_DIR") == named, "a CPU compiles none"
    monkeypatch.setattr(mx.cuda, "is_available", lambda: True)
    monkeypatch.setattr(mx, "device_info", lambda: {"architecture": "sm_90"})
    keep_kernels(tmp_path)
    assert os.environ["MLX_PTX_CACHE_DIR"] == (named or str(tmp_path / "kernels" / f"{version('mlx')}-sm_90"))
