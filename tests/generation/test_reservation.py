from typing import Any

import pytest

from app.errors import ModelUnusable
from app.generation.events import Started
from app.generation.reservation import AHEAD, LEFT
from app.generation.strategy import GenerationStrategy
from tests.generation.test_strategy import Leased, completion
from tests.support.scripted import ScriptedEngine

PROMPT = 3


def talks(tokens: int) -> ScriptedEngine:
    return ScriptedEngine(lambda *_: b"a" * tokens, context_length=5000)


async def run(engine: ScriptedEngine, **decoding: Any) -> list[int]:
    held = Leased(engine)
    async for _ in GenerationStrategy().run(held.lease(), completion("Hi", **decoding)):
        pass
    return held.admitted


async def test_a_small_limit_is_reserved_at_once_and_a_large_one_a_part_at_a_time() -> None:
    assert await run(talks(3000), max_tokens=900) == [PROMPT + 900]
    assert await run(talks(3000), max_tokens=2500) == [PROMPT + AHEAD, AHEAD, 2500 - 2 * AHEAD]
    assert await run(talks(5), max_tokens=32_000) == [PROMPT + AHEAD]


async def test_what_is_left_open_is_reserved_as_it_grows() -> None:
    assert await run(talks(AHEAD - LEFT - 1), max_tokens=None) == [PROMPT + AHEAD]
    assert await run(talks(AHEAD - LEFT + 1), max_tokens=None) == [PROMPT + AHEAD, AHEAD]
    assert await run(talks(AHEAD + 500), max_tokens=None, n=2, best_of=2) == [2 * (PROMPT + AHEAD), AHEAD, AHEAD]


async def test_no_more_is_reserved_than_the_context_holds() -> None:
    assert sum(await run(talks(6000), max_tokens=None)) == 5000


@pytest.mark.parametrize(("limit", "rows"), [(900, 1), (2500, 1), (None, 2), (4000, 3)])
async def test_no_row_is_granted_more_than_is_booked_for_it(limit: int | None, rows: int) -> None:
    engine, looks = talks(1500), 0
    held = Leased(engine)
    async for _ in GenerationStrategy().run(held.lease(), completion("Hi", max_tokens=limit, n=rows, best_of=rows)):
        for stream in engine.streams:
            granted = [stream._rows_granted.get(key, stream._granted[key[0]]) for key in stream.rows]
            assert sum(PROMPT + it for it in granted) <= sum(held.admitted)
            looks += 1
    assert looks > 100


async def test_what_can_never_fit_ends_the_stream() -> None:
    class Full(Leased):
        async def admit(self, tokens: int) -> None:
            await super().admit(tokens)
            if len(self.admitted) > 1:
                raise ModelUnusable("It needs more than there is.", code="memory_budget_exceeded")

    held = Full(talks(3000))
    told = GenerationStrategy().run(held.lease(), completion("Hi", max_tokens=None))
    assert isinstance((await anext(told))[0], Started)
    with pytest.raises(ModelUnusable, match="more than there is"):
        async for _ in told:
            pass
    assert not held.open
    assert not held.engine.streams
