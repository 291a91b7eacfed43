"""What a job has taken, however it ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from app.errors import ModelUnusable
from app.generation.events import Completed, Delta, Started
from app.generation.meter import Meter
from app.generation.strategy import GenerationStrategy
from tests.generation.test_strategy import Leased, completion
from tests.support.scripted import ScriptedEngine, says

PAUSE = 0.05


class Slow(Leased):
    """Its model and its memory are waited for."""

    load_seconds = PAUSE

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[Any]:
        await asyncio.sleep(3 * PAUSE)
        async with super().lease() as held:
            yield held

    async def admit(self, tokens: int) -> None:
        await super().admit(tokens)
        await asyncio.sleep(PAUSE)


async def test_tokens_are_counted_as_they_come_and_stay_when_the_reader_leaves() -> None:
    meter = Meter()
    engine = ScriptedEngine(says("a long answer"))
    async with aclosing(GenerationStrategy().run(Leased(engine).lease(), completion(n=2, best_of=2), meter)) as told:
        seen = [0]
        async for events in told:
            seen.append(meter.completion_tokens)
            if sum(isinstance(event, Delta) for event in events) and meter.completion_tokens >= 6:
                break
    assert seen == sorted(seen)
    assert meter.completion_tokens == seen[-1] == 6


@pytest.mark.parametrize("fields", [{"n": 2, "best_of": 3}, {"stop": ("wor",)}, {"max_tokens": 4}, {"max_tokens": 0}])
async def test_in_the_end_it_says_what_the_usage_says(fields: dict[str, Any]) -> None:
    meter = Meter()
    run = GenerationStrategy().run(Leased(ScriptedEngine(says("Hello, world."))).lease(), completion(**fields), meter)
    *_, last = [event async for together in run for event in together]
    assert isinstance(last, Completed)
    assert last.usage.completion_tokens == meter.completion_tokens


async def test_every_wait_is_the_queues_and_a_load_is_not() -> None:
    meter = Meter()
    held = Slow(ScriptedEngine(lambda *_: b"a" * 2000))
    run = GenerationStrategy().run(held.lease(), completion(max_tokens=1500), meter)
    events = [event async for together in run for event in together]
    assert isinstance(events[0], Started)
    assert len(held.admitted) == 2
    assert isinstance(events[-1], Completed)
    begun, done = events[0].timings, events[-1].timings
    assert 3 * PAUSE <= begun.queue + 0.01 < 3 * PAUSE + 0.2
    assert begun.load == PAUSE
    assert done.queue >= begun.queue + PAUSE - 0.01
    assert done.queue == meter.queue


async def test_a_wait_that_ends_badly_is_one_too() -> None:
    class Full(Slow):
        async def admit(self, tokens: int) -> None:
            await super().admit(tokens)
            raise ModelUnusable("It needs more than there is.")

    meter = Meter()
    with pytest.raises(ModelUnusable):
        await anext(GenerationStrategy().run(Full(ScriptedEngine()).lease(), completion(), meter))
    assert meter.queue >= 3 * PAUSE - 0.01
    given_up = Meter()
    waiting = asyncio.ensure_future(
        anext(GenerationStrategy().run(Slow(ScriptedEngine()).lease(), completion(), given_up))
    )
    await asyncio.sleep(PAUSE)
    assert given_up.queue > 0
    waiting.cancel()
    await asyncio.wait([waiting])
    assert PAUSE / 2 < given_up.queue < 3 * PAUSE
