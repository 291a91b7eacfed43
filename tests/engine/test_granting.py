"""Rows of another process wait for memory there, and nobody takes that for a hang."""

import asyncio

import pytest

from app.engine.base import Sequence, Token
from app.engine.client.engine import ProcessEngine
from app.engine.client.process import Watch
from app.engine.client.processes import Processes, ProcessLoader
from app.engine.client.stream import ProcessStream
from app.engine.host.setup import Folders
from app.engine.options import Batching
from app.errors import ModelUnusable
from app.schemas.sampling import Sampling
from tests.support.tiny import tiny

GREEDY = Sampling(temperature=0.0)
TIMEOUT = 2.0


async def read(stream: ProcessStream, tokens: list[int], most: int | None = None) -> None:
    """Until that many tokens are there, or the end."""
    async for items in stream:
        tokens += [item.id for item in items if isinstance(item, Token)]
        if most is not None and len(tokens) >= most:
            return


async def freed(engine: ProcessEngine) -> None:
    """What is told of the books is a moment old."""
    for _ in range(100):
        if engine.books().kv == 0:
            return
        stream = engine.generate((Sequence((5, 6), GREEDY, max_tokens=1),))
        await read(stream, [])
        await asyncio.sleep(0.05)
    raise AssertionError(f"{engine.books()} are held")


@pytest.mark.not_on_cuda("kernels are compiled there for longer than its watchdog waits")
async def test_rows_of_a_process_wait_are_put_back_and_go_on() -> None:
    watch = Watch(Folders(read=(str(tiny()),)), Batching(8), timeout=TIMEOUT)
    loader = ProcessLoader(Processes(watch=watch, prefixes=8 << 20, spare=False), lambda: 4 << 30)
    loader.start()
    engine = await loader.load(tiny(), name="tiny")
    asked = Sequence((5, 6, 7, 8, 9) * 10, GREEDY, max_tokens=60)
    expected: list[int] = []
    await read(engine.generate((asked,)), expected)
    assert len(expected) == 60

    held: list[int] = []
    stream = engine.generate((Sequence(asked.prompt, GREEDY, max_tokens=60, granted=10),))
    await read(stream, held, 10)
    await asyncio.sleep(TIMEOUT + 1.3)
    assert engine.books().kv > 0
    stream.grant(0, 0, 20)
    await read(stream, held, 20)
    await stream.put_back()
    await freed(engine)
    assert held == expected[:20]
    stream.grant(0, 0, 60)
    await read(stream, held)
    assert held == expected

    refused = engine.generate((Sequence(asked.prompt, GREEDY, max_tokens=60, granted=5),))
    await read(refused, [], 5)
    refused.abort(ModelUnusable("It needs more than there is."))
    try:
        await read(refused, [])
    except ModelUnusable:
        pass
    else:
        raise AssertionError("who reads is not told")
    await freed(engine)
    assert abs(engine.books().error) < 1 << 20
    await loader.close()
