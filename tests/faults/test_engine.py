"""What breaks in one place of the engine, and who hears of it."""

import asyncio
import threading
import time

import mlx.core as mx
import numpy as np
import pytest

from app.engine.base import Sequence, Token
from app.engine.mlx.batch.stream import MLXTokenStream
from app.engine.mlx.batch.thread import MLXThread
from app.engine.mlx.cache.prefix import PrefixPool
from app.engine.mlx.draw import host as draw_host
from app.engine.mlx.load.loader import MLXLoader
from app.engine.mlx.prefill.prefill import Prefill
from app.engine.mlx.rows import Row
from app.engine.watchdog import watch
from app.errors import EngineFailed, Unavailable
from app.schemas.sampling import Sampling
from tests.support.tiny import tiny

SAMPLED = Sampling(temperature=1, seed=1)
POISON = Sampling(temperature=1, seed=666)


@pytest.fixture(scope="module")
async def engine():
    thread = MLXThread(asyncio.get_running_loop())
    pool = PrefixPool(8 << 20)
    loader = MLXLoader(thread, pool, max_rows=16, slice_tokens=64)
    made = await loader.load(tiny(), name="tiny")
    yield made
    await made.close()
    await loader.close()


async def tokens(stream) -> list[int]:
    return [item.id async for items in stream for item in items if isinstance(item, Token)]


def sequence(sampling: Sampling, count: int = 30, first: int = 5) -> Sequence:
    return Sequence((first, 6, 7, 8), sampling, max_tokens=count)


async def test_a_row_that_cannot_be_drawn_ends_alone(engine, monkeypatch):
    real, drawn = draw_host.draw, []

    def draw(logits, rows, masks):
        values = np.array(logits)
        for place, row in enumerate(rows):
            if row.request.sampling.seed == POISON.seed:
                drawn.append(1)
                if len(drawn) > 5:
                    values[place, 3] = np.nan
        return real(mx.array(values), rows, masks)

    alone = await tokens(engine.generate((sequence(SAMPLED),)))
    monkeypatch.setattr(draw_host, "draw", draw)
    healthy = [engine.generate((sequence(SAMPLED),)) for _ in range(3)]
    poisoned = engine.generate((sequence(POISON),))
    results = await asyncio.gather(*map(tokens, [*healthy, poisoned]), return_exceptions=True)
    assert results[:3] == [alone] * 3
    assert isinstance(results[3], EngineFailed)
    assert results[3].code == "row_failed"


async def test_a_prompt_that_cannot_be_computed_ends_alone(engine, monkeypatch):
    real = Prefill.step

    def step(self, count):
        if 99 in np.array(self._tokens).tolist()[0][:1]:
            raise RuntimeError("made up")
        return real(self, count)

    monkeypatch.setattr(Prefill, "step", step)
    running = asyncio.ensure_future(tokens(engine.generate((sequence(SAMPLED, 200),))))
    await asyncio.sleep(0.05)
    with pytest.raises(EngineFailed):
        await tokens(engine.generate((sequence(SAMPLED, first=99),)))
    assert len(await running) == 200


async def test_memory_that_runs_out_is_a_503_after_which_it_goes_on(engine, monkeypatch):
    raised = []

    def draw(*_given):
        raised.append(1)
        raise RuntimeError("[METAL] Command buffer execution failed: Insufficient Memory")

    cleared = []
    monkeypatch.setattr("app.engine.mlx.draw.logits.LogitsProcessor.process", draw)
    monkeypatch.setattr(mx, "clear_cache", lambda: cleared.append(1))
    with pytest.raises(Unavailable) as failure:
        await tokens(engine.generate((sequence(SAMPLED),)))
    assert failure.value.code == "out_of_memory"
    assert failure.value.retry_after
    assert raised
    assert cleared
    monkeypatch.undo()
    assert len(await tokens(engine.generate((sequence(SAMPLED),)))) == 30


def test_logits_that_are_no_numbers_fail_and_do_not_hang():
    rows = [Row(MLXTokenStream(), 0, i, sequence(Sampling(temperature=1, top_p=0.5, seed=i))) for i in range(3)]
    logits = np.random.default_rng(0).normal(size=(3, 300)).astype(np.float32)
    logits[1, 7] = np.nan
    made = draw_host.draw(mx.array(logits), rows).tolist()
    assert len(made) == 3
    assert [row.failure is not None for row in rows] == [False, True, False]


async def test_a_thread_that_hangs_is_noticed():
    thread, lost, release = MLXThread(asyncio.get_running_loop()), [], threading.Event()
    watching = asyncio.ensure_future(watch(thread, 0.2, lost.append, every=0.02))
    await asyncio.sleep(0.3)
    assert not lost  # idle is not hung
    thread.post(lambda: release.wait(5))
    began = time.perf_counter()
    await asyncio.wait_for(watching, 3)
    assert 0.15 < time.perf_counter() - began < 2
    assert isinstance(lost[0], EngineFailed)
    release.set()
    await thread.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_thread_that_dies_is_noticed():
    thread, lost = MLXThread(asyncio.get_running_loop()), []
    watching = asyncio.ensure_future(watch(thread, 0, lost.append, every=0.02))
    thread.post(lambda: 1 / 0)
    await asyncio.wait_for(watching, 3)
    assert len(lost) == 1
