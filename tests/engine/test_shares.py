"""What each process is told of its part."""

import asyncio
from typing import Any, cast

from app.engine.client.process import EngineProcess
from app.engine.client.shares import DELAY, STEPS, Shares
from app.engine.messages import SetLimits

BUDGET = 64 << 20


class Process:
    """Takes note of what it is told."""

    busy = False

    def __init__(self) -> None:
        self.told: list[Any] = []

    def send(self, message: SetLimits) -> None:
        self.told.append(message.limits.prefixes)


def shares_of(prefixes: int | None, *processes: Process) -> Shares:
    held = cast("dict[EngineProcess, int]", dict.fromkeys(processes, 0))
    return Shares(held, lambda: BUDGET, prefixes=prefixes, wired=0)


async def test_prefix_caches_have_what_is_free_and_less_of_it_at_once() -> None:
    a, b = Process(), Process()
    shares = shares_of(None, a, b)
    shares.allow(BUDGET // 2)
    assert a.told == b.told == [BUDGET // 4]
    shares.allow(BUDGET // 4)
    assert a.told[-1] == BUDGET // 8, "a request needs its memory now"
    shares.allow(BUDGET // 4 + BUDGET // STEPS // 2)
    shares.allow(BUDGET // 2)
    assert len(a.told) == 2, "more can wait, and next to nothing more is not told"
    await asyncio.sleep(2 * DELAY)
    assert a.told[2:] == [BUDGET // 4]
    shares.allow(-1)
    assert a.told[-1] == 0


async def test_a_bound_that_is_set_is_never_passed() -> None:
    a = Process()
    shares = shares_of(BUDGET // 8, a)
    shares.allow(BUDGET)
    assert a.told == [BUDGET // 8]
    shares.allow(BUDGET // 16)
    assert a.told[-1] == BUDGET // 16
