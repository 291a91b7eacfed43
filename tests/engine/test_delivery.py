"""When what a batch has made is handed over, and that nobody has to wait for the interpreter then."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from app.engine.base import Sequence
from app.engine.mlx.batch import thread as threads
from app.engine.mlx.batch.thread import MLXThread
from app.schemas.sampling import Sampling
from tests.engine.test_classes import LOADED
from tests.support.batches import GREEDY, HandBatch, HandThread

PROMPT = tuple(range(3, 40))


class Noting(HandThread):
    """Notes for whom it gave way."""

    def __init__(self) -> None:
        self.gave_way: list[bool] = []

    def flush(self, *, gives_way: bool = False) -> None:
        self.gave_way.append(gives_way)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=1.0, seed=1)])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("tokens", [1, 2, 9])
def test_a_computed_prompt_comes_with_the_first_tokens(tokens: int, rows: int, sampling: Sampling) -> None:
    batch = HandBatch(LOADED)
    stream = batch.submit(Sequence(PROMPT, sampling, max_tokens=tokens, rows=rows))
    while not stream.prefilled:
        batch.step()
    assert [len(its) for its in stream.tokens.values()] == [1] * rows
    batch.finish()
    assert [len(its) for its in stream.tokens.values()] == [tokens] * rows


def test_a_prompt_that_nothing_is_generated_for_is_told_of_at_once() -> None:
    batch = HandBatch(LOADED)
    stream = batch.submit(Sequence(PROMPT, GREEDY, max_tokens=0))
    batch.step()
    assert stream.prefilled


@pytest.mark.parametrize("tokens", [1, 2, 30])
def test_the_thread_gives_way_for_the_first_and_the_last_token_alone(tokens: int) -> None:
    batch, thread = HandBatch(LOADED), Noting()
    batch.batch._delivery._thread = cast("MLXThread", thread)
    batch.submit(Sequence(PROMPT, GREEDY, max_tokens=tokens))
    batch.finish()
    assert sum(thread.gave_way) == min(tokens, 2)


@pytest.fixture
async def thread(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MLXThread]:
    monkeypatch.setattr(threads, "GIVE_WAY", 60.0)
    thread = MLXThread(asyncio.get_running_loop())
    yield thread
    await thread.close()


async def test_giving_way_lasts_until_what_follows_is_done_too(thread: MLXThread) -> None:
    """As the host writes to the socket only once all streams of a round have been told."""
    done, ended = list[str](), asyncio.Event()

    def told() -> None:
        done.append("told")
        asyncio.get_running_loop().call_soon(done.append, "written")

    def step() -> None:
        thread.notify(told)
        thread.flush(gives_way=True)
        done.append("next step")
        thread.notify(ended.set)

    thread.post(step)
    await asyncio.wait_for(ended.wait(), 60)
    assert done == ["told", "written", "next step"]
