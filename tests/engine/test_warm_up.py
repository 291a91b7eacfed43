"""What a model does before anybody waits for it."""

import asyncio
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from app.engine.base import Item, Sequence, Token
from app.engine.mlx.batch.delivery import MLXTokenStream
from app.engine.mlx.batch.engine import MLXEngine
from app.engine.mlx.batch.thread import MLXThread
from app.engine.mlx.cache.prefix import PrefixPool
from app.engine.mlx.load import loader as loading
from app.engine.mlx.load import warm_up as warming
from app.engine.mlx.load.loader import MLXLoader
from app.engine.mlx.load.warm_up import DRAWS, PROMPTS, TRIES, Piece, warm_up, warm_up_further
from app.engine.mlx.memory import keep_kernels
from app.engine.mlx.rows import Row
from app.engine.options import Batching
from tests.support.tiny import tiny


async def test_rows_of_every_kind_run_beside_each_other_and_nothing_is_left(
    engine: MLXEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    items, most = [], 0
    deliver = MLXTokenStream.deliver

    def delivered(self: MLXTokenStream, came: list[Item], ended: list[Row]) -> None:
        nonlocal most
        items.extend(came)
        most = max(most, engine.work().rows)
        deliver(self, came, ended)

    monkeypatch.setattr(MLXTokenStream, "deliver", delivered)
    await warm_up(engine)
    tokens = [item for item in items if isinstance(item, Token)]
    assert len(tokens) == len(DRAWS) * sum(size // 8 for size in PROMPTS)
    assert most > len(DRAWS), "they were in one batch"
    await asyncio.sleep(0.05)
    assert engine.work().rows == 0


@pytest.mark.parametrize("cuda", [True, False])
async def test_only_where_kernels_are_compiled_on_their_first_use(monkeypatch: pytest.MonkeyPatch, cuda: bool) -> None:
    warmed = []

    async def noted(engine: MLXEngine) -> None:
        warmed.append(engine)

    monkeypatch.setattr(loading, "warm_up", noted)
    own = MLXLoader(loading_thread(), PrefixPool(8 << 20), Batching(4, 64))
    monkeypatch.setattr(mx.cuda, "is_available", lambda: cuda)
    engine = await own.load(tiny(), name="warmed")
    assert warmed == ([engine] if cuda else [])
    await engine.close()
    await own.close()


async def test_a_model_that_fails_at_it_is_not_left_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    close = MLXEngine.close

    async def failing(engine: MLXEngine, piece: Piece) -> None:
        raise asyncio.CancelledError

    async def noted(self: MLXEngine) -> None:
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


SCRIPT = (Piece(DRAWS[:1], (30, 20)), Piece(DRAWS[1:], (24,), 4, logprobs=1), Piece(DRAWS[:1], (100_000,)))


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Whether each piece that was begun was done."""
    done, run = [], warming._run

    async def noted(engine: MLXEngine, piece: Piece, **how: Any) -> bool:
        done.append((piece, await run(engine, piece, **how)))
        return done[-1][1]

    monkeypatch.setattr(warming, "_run", noted)
    return done


async def test_the_rest_is_done_while_nobody_asks_and_nothing_of_it_is_left(
    engine: MLXEngine, pieces: list[Any]
) -> None:
    await warm_up_further(engine, SCRIPT, quiet=0.01)
    assert pieces == [(SCRIPT[0], True), (SCRIPT[1], True)], "the last one is longer than the context"
    await asyncio.sleep(0.05)
    assert (engine.work().rows, engine.on_asked) == (0, None)


async def test_the_rest_gives_way_at_once_and_is_tried_again(engine: MLXEngine, pieces: list[Any]) -> None:
    long = Piece(DRAWS[:1], (60,) * 8, 1)
    further = asyncio.create_task(warm_up_further(engine, [long], quiet=0.01))
    while engine.work().rows < len(long.sizes):  # noqa: ASYNC110  nobody tells
        await asyncio.sleep(0.001)
    stream = engine.stream((Sequence((1, 2, 3), DRAWS[0], max_tokens=2),))
    assert await anext(stream)
    stream.close()
    await asyncio.sleep(0)
    assert pieces == [(long, False)]
    await further
    assert pieces == [(long, False), (long, True)]


async def test_what_always_comes_in_between_is_not_tried_for_ever(
    engine: MLXEngine, pieces: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupted(engine_: MLXEngine, piece: Piece, **_how: Any) -> bool:
        pieces.append((piece, False))
        return False

    monkeypatch.setattr(warming, "_run", interrupted)
    await warm_up_further(engine, SCRIPT[:1], quiet=0.001)
    assert len(pieces) == TRIES


async def test_it_waits_while_rows_decode(engine: MLXEngine, pieces: list[Any]) -> None:
    stream = engine.stream((Sequence((1, 2, 3), DRAWS[0], max_tokens=40),))
    further = asyncio.create_task(warm_up_further(engine, SCRIPT[:1], quiet=0.001))
    async for _ in stream:
        assert not pieces
    await further
    assert len(pieces) == 1


async def test_it_ends_with_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx.cuda, "is_available", lambda: True)
    own = MLXLoader(loading_thread(), PrefixPool(8 << 20), Batching(4, 64))
    engine = await own.load(tiny(), name="warmed")
    task = engine._further
    assert task is not None
    await engine.close()
    await asyncio.wait([task], timeout=5)
    assert task.done()
    await own.close()


def loading_thread() -> MLXThread:
    return MLXThread(asyncio.get_running_loop())


@pytest.mark.parametrize("named", [None, "/elsewhere"])
def test_kernels_of_cuda_are_kept_in_our_cache_for_each_kind_of_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str | None
) -> None:
    if named:
        monkeypatch.setenv("MLX_PTX_CACHE_DIR", named)
    else:
        monkeypatch.setenv("MLX_PTX_CACHE_DIR", "")  # so that it is put back afterwards
        monkeypatch.delenv("MLX_PTX_CACHE_DIR")
    monkeypatch.setattr(mx.cuda, "is_available", lambda: False)
    keep_kernels(tmp_path)
    assert os.environ.get("MLX_PTX_CACHE_DIR") == named, "a CPU compiles none"
    monkeypatch.setattr(mx.cuda, "is_available", lambda: True)
    monkeypatch.setattr(mx, "device_info", lambda: {"architecture": "sm_90"})
    keep_kernels(tmp_path)
    assert os.environ["MLX_PTX_CACHE_DIR"] == (named or str(tmp_path / "kernels" / f"{version('mlx')}-sm_90"))
