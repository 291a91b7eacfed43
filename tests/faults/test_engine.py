"""What breaks in one place of the engine, and who hears of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from app.engine.base import Sequence, Token
from app.engine.mlx.batch.delivery import MLXTokenStream
from app.engine.mlx.batch.engine import MLXEngine
from app.engine.mlx.batch.thread import MLXThread, Watcher
from app.engine.mlx.cache.prefix import PrefixPool
from app.engine.mlx.draw import step as draw_host
from app.engine.mlx.draw.logits import LogitsProcessor
from app.engine.mlx.load.loader import MLXLoader
from app.engine.mlx.prefill.prefill import Prefill
from app.engine.mlx.prefill.slice_size import Slice
from app.engine.mlx.rows import Row
from app.engine.options import Batching
from app.errors import EngineFailed, Unavailable
from app.schemas.sampling import Sampling
from tests.support.batches import UNSPELT
from tests.support.tiny import tiny

SAMPLED = Sampling(temperature=1, seed=1)
POISON = Sampling(temperature=1, seed=666)


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[MLXEngine]:
    thread = MLXThread(asyncio.get_running_loop())
    pool = PrefixPool(8 << 20)
    loader = MLXLoader(thread, pool, Batching(16, 64))
    made = await loader.load(tiny(), name="tiny")
    yield made
    await made.close()
    await loader.close()


async def tokens(stream: MLXTokenStream) -> list[int]:
    return [item.id async for items in stream for item in items if isinstance(item, Token)]


def sequence(sampling: Sampling, count: int = 30, first: int = 5) -> Sequence:
    return Sequence((first, 6, 7, 8), sampling, max_tokens=count)


async def test_a_row_that_cannot_be_drawn_ends_alone(engine: MLXEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    real, drawn = draw_host.draw, []

    def draw(logits: mx.array, rows: list[Row], masks: dict[Row, Any]) -> NDArray[Any]:
        values = np.array(logits)
        for place, row in enumerate(rows):
            if row.request.sampling.seed == POISON.seed:
                drawn.append(1)
                if len(drawn) > 5:
                    values[place, 3] = np.nan
        return real(mx.array(values), rows, masks)

    alone = await tokens(engine.stream((sequence(SAMPLED),)))
    monkeypatch.setattr(draw_host, "draw", draw)
    healthy = [engine.stream((sequence(SAMPLED),)) for _ in range(3)]
    poisoned = engine.stream((sequence(POISON),))
    results = await asyncio.gather(*map(tokens, [*healthy, poisoned]), return_exceptions=True)
    assert results[:3] == [alone] * 3
    assert isinstance(results[3], EngineFailed)
    assert results[3].code == "row_failed"


async def test_a_prompt_that_cannot_be_computed_ends_alone(engine: MLXEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Prefill.step

    def step(self: Prefill, count: int) -> Slice:
        if 99 in np.array(self._tokens).tolist()[0][:1]:
            raise RuntimeError("made up")
        return real(self, count)

    monkeypatch.setattr(Prefill, "step", step)
    running = asyncio.ensure_future(tokens(engine.stream((sequence(SAMPLED, 200),))))
    await asyncio.sleep(0.05)
    with pytest.raises(EngineFailed):
        await tokens(engine.stream((sequence(SAMPLED, first=99),)))
    assert len(await running) == 200


async def test_memory_that_runs_out_is_a_503_after_which_it_goes_on(
    engine: MLXEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised = []

    def draw(*_given: LogitsProcessor | mx.array) -> None:
        raised.append(1)
        raise RuntimeError("[METAL] Command buffer execution failed: Insufficient Memory")

    cleared = []
    monkeypatch.setattr("app.engine.mlx.draw.logits.LogitsProcessor.process", draw)
    monkeypatch.setattr(mx, "clear_cache", lambda: cleared.append(1))
    with pytest.raises(Unavailable) as failure:
        await tokens(engine.stream((sequence(SAMPLED),)))
    assert failure.value.code == "out_of_memory"
    assert failure.value.retry_after
    assert raised
    assert cleared
    monkeypatch.undo()
    assert len(await tokens(engine.stream((sequence(SAMPLED),)))) == 30


def test_logits_that_are_no_numbers_fail_and_do_not_hang() -> None:
    rows = [
        Row(MLXTokenStream(), 0, i, sequence(Sampling(temperature=1, top_p=0.5, seed=i)), UNSPELT) for i in range(3)
    ]
    logits = np.random.default_rng(0).normal(size=(3, 300)).astype(np.float32)
    logits[1, 7] = np.nan
    made = draw_host.draw(mx.array(logits), rows).tolist()
    assert len(made) == 3
    assert [row.failure is not None for row in rows] == [False, True, False]


class Watching(Watcher):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lost_because: list[Any] = []

    def lost(self, reason: str) -> None:
        self.lost_because.append(reason)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_thread_that_dies_says_so() -> None:
    watching = Watching()
    thread = MLXThread(asyncio.get_running_loop(), watching)
    thread.post(cast("Callable[[], None]", lambda: 1 / 0))
    for _ in range(300):
        await asyncio.sleep(0.01)
        if watching.lost_because:
            break
    assert "division by zero" in watching.lost_because[0]


@pytest.mark.parametrize(
    ("failure", "times", "given_up"),
    [
        (RuntimeError("made up"), 1, False),
        (RuntimeError("made up"), 3, True),
        (SystemExit(3), 3, True),
        (RuntimeError("[METAL] Ignored (for causing prior/excessive GPU errors)"), 1, True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), 1, True),
    ],
)
async def test_steps_that_keep_failing_and_devices_that_are_lost_end_the_process(
    engine: MLXEngine, monkeypatch: pytest.MonkeyPatch, failure: RuntimeError, times: int, given_up: bool
) -> None:
    def draw(*_given: LogitsProcessor | mx.array) -> None:
        raise failure

    watching = Watching()
    monkeypatch.setattr(engine._thread, "_watcher", watching)
    monkeypatch.setattr("app.engine.mlx.draw.logits.LogitsProcessor.process", draw)
    for _ in range(times):
        with pytest.raises(EngineFailed):
            await tokens(engine.stream((sequence(SAMPLED),)))
    monkeypatch.undo()
    assert bool(watching.lost_because) == given_up
    assert len(await tokens(engine.stream((sequence(SAMPLED),)))) == 30


async def test_a_failed_step_is_forgotten_once_one_succeeds(engine: MLXEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*_given: LogitsProcessor | mx.array) -> None:
        raise RuntimeError("made up")

    watching = Watching()
    monkeypatch.setattr(engine._thread, "_watcher", watching)
    for _ in range(4):
        with monkeypatch.context() as patched:
            patched.setattr("app.engine.mlx.draw.logits.LogitsProcessor.process", draw)
            with pytest.raises(EngineFailed):
                await tokens(engine.stream((sequence(SAMPLED),)))
        await tokens(engine.stream((sequence(SAMPLED, count=3),)))
    assert not watching.lost_because
