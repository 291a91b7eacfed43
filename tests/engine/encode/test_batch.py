"""Texts of all requests share the device in slices that are about as long as each other."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.engine.mlx.batch.thread import MLXThread
from app.engine.mlx.encode.batch import BUSY_SECONDS, FEWEST, FREE, FREE_ON_CPU, MOST, PADDING, EncodeBatch, EncodeJob
from app.engine.mlx.encode.encoders import Piece
from app.engine.work import Work
from app.errors import EngineFailed, Unavailable


class Counting:
    """A computer that answers with each piece's first token, and takes its time for each token of a slice."""

    def __init__(self, seconds_per_token: float = 0.0) -> None:
        self.seconds = seconds_per_token
        self.slices: list[Any] = []
        self.failure: BaseException | None = None

    def compute(self, pieces: Sequence[Piece]) -> mx.array:
        lengths = [len(piece.ids) for piece in pieces]
        self.slices.append(lengths)
        time.sleep(self.seconds * max(lengths) * len(lengths))
        if self.failure is not None:
            raise self.failure
        return mx.array([[piece.ids[0]] for piece in pieces], dtype=mx.float32)


@pytest.fixture
async def thread() -> AsyncIterator[MLXThread]:
    thread = MLXThread(asyncio.get_running_loop())
    yield thread
    await thread.close()


def job(lengths: list[int], first: int = 0) -> EncodeJob:
    pieces = [Piece((first + at,) * length) for at, length in enumerate(lengths)]
    return EncodeJob(pieces, asyncio.get_running_loop().create_future())


async def run(thread: MLXThread, batch: EncodeBatch, *jobs: EncodeJob) -> list[list[NDArray[Any]] | BaseException]:
    for it in jobs:
        thread.post(partial(batch.submit, it))
    return await asyncio.gather(*(it.future for it in jobs), return_exceptions=True)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=40), min_size=1, max_size=4))
async def test_every_text_is_answered_in_its_place_and_slices_hold_little_padding(requests: list[list[int]]) -> None:
    thread = MLXThread(asyncio.get_running_loop())
    computer = Counting()
    batch = EncodeBatch(thread, computer)
    jobs = [job(lengths, 1000 * at) for at, lengths in enumerate(requests)]
    answers = await run(thread, batch, *jobs)
    await thread.close()
    for at, (lengths, rows) in enumerate(zip(requests, answers, strict=True)):
        assert [float(row[0]) for row in rows] == [1000 * at + i for i in range(len(lengths))]
    free = FREE_ON_CPU if mx.default_device() == mx.Device(mx.cpu) else FREE
    for lengths in computer.slices:
        tokens = max(lengths) * len(lengths)
        assert tokens <= free or tokens - sum(lengths) <= PADDING * tokens
        assert len(lengths) == 1 or tokens <= MOST
    assert sorted(chain(*computer.slices)) == sorted(chain(*requests))
    assert batch.work() == Work(0, 0)


async def test_a_small_request_does_not_wait_for_a_large_one(thread: MLXThread) -> None:
    computer = Counting(1e-4)
    batch = EncodeBatch(thread, computer)
    large, small = job([100] * 400), job([10])
    thread.post(lambda: batch.submit(large))
    await asyncio.sleep(0.1)
    thread.post(lambda: batch.submit(small))
    await small.future
    assert not large.future.done()
    assert batch.work().waiting_tokens > 0
    await large.future


async def test_beside_other_models_slices_are_short(thread: MLXThread) -> None:
    computer = Counting(1e-4)
    batch = EncodeBatch(thread, computer)
    thread.busy_elsewhere = True
    await run(thread, batch, job([10] * 300))
    tokens = [max(lengths) * len(lengths) for lengths in computer.slices]
    assert max(tokens[1:]) <= max(FEWEST, 1.5 * BUSY_SECONDS / computer.seconds)
    thread.busy_elsewhere = False
    computer.slices.clear()
    await run(thread, batch, job([10] * 300))
    assert max(len(lengths) for lengths in computer.slices[1:]) * 10 > max(tokens[1:])


async def test_what_nobody_waits_for_is_not_computed(thread: MLXThread) -> None:
    computer = Counting(1e-4)
    batch = EncodeBatch(thread, computer)
    left, stays = job([100] * 400), job([20] * 5)
    left_soon = asyncio.get_running_loop().create_task(run(thread, batch, left))
    await asyncio.sleep(0.05)
    left.future.cancel()
    await run(thread, batch, stays)
    await left_soon
    assert sum(map(len, computer.slices)) < 400


@pytest.mark.parametrize(
    ("failure", "kind"),
    [(RuntimeError("odd"), EngineFailed), (MemoryError(), Unavailable), (SystemExit(1), EngineFailed)],
)
async def test_a_failure_is_told_to_those_that_it_hit_and_the_next_are_served(
    thread: MLXThread, failure: RuntimeError | MemoryError | SystemExit, kind: type[EngineFailed | Unavailable]
) -> None:
    computer = Counting()
    batch = EncodeBatch(thread, computer)
    computer.failure = failure
    (told,) = await run(thread, batch, job([5, 6]))
    assert type(told) is kind
    computer.failure = None
    (rows,) = await run(thread, batch, job([5], 7))
    np.testing.assert_array_equal(rows, [[7]])
