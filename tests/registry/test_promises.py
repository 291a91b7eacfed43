"""The registry's promises under any sequence of requests, failures and cancellations.

A machine of random steps drives the real dispatcher on a loop with virtual time. After every step the budget is kept
and no leased model has lost its engine; at the end everybody has been served, and nothing is left over.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, ClassVar, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.errors import EngineFailed, EngineLost, ModelUnusable, QueueFull, Unavailable
from app.registry.losses import REST
from tests.registry.house import House
from tests.support.virtual_time import VirtualTimeLoop

SIZES = {"tiny": 10, "small": 30, "middle": 45, "large": 70, "pinned": 15, "huge": 101, "liar": 60}
ESTIMATES = {**SIZES, "liar": 20}
SERVABLE = tuple(model for model in SIZES if model != "huge")
T = TypeVar("T")
models = st.sampled_from(tuple(SIZES))


class Promises(RuleBasedStateMachine):
    MORE: ClassVar[dict[str, Any]] = {}
    """What else the house is built with."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.asked: list[asyncio.Task[Any]] = []
        self.house = self.do(self.build())
        self.watch()

    async def build(self) -> House:
        return House(
            100,
            sizes=SIZES,
            estimates=ESTIMATES,
            pinned=("pinned",),
            load_seconds=1.0,
            fetch_seconds=0.5,
            timeout=1e6,
            **self.MORE,
        )

    def do(self, work: Awaitable[T]) -> T:
        return self.loop.run_until_complete(work)

    def watch(self) -> None:
        """Check at every change of state, not only between the steps of the machine."""
        turn = self.house.dispatcher._turn

        def checked_turn() -> None:
            turn()
            self.house.check()

        self.house.dispatcher._turn = checked_turn  # type: ignore[method-assign]

    @rule(
        model=models, seconds=st.floats(0, 5), tokens=st.integers(0, 60), keep_alive=st.sampled_from((-1.0, 0.0, 1.0))
    )
    def ask(self, model: str, seconds: float, tokens: int, keep_alive: float) -> None:
        self.asked.append(self.loop.create_task(self.house.use(model, seconds, tokens, keep_alive)))

    @rule(model=models, parts=st.lists(st.integers(1, 25), min_size=2, max_size=5), seconds=st.floats(0, 2))
    def ask_and_grow(self, model: str, parts: list[int], seconds: float) -> None:
        self.asked.append(self.loop.create_task(self.house.grow(model, parts, seconds)))

    @rule(model=models)
    def ask_and_lose(self, model: str) -> None:
        async def losing() -> None:
            async with self.house.lease(model):
                if not (engine := self.house.loader.engines[model]).closed and engine.failure is None:
                    engine.lose()
                raise EngineLost("It has ended.")

        self.asked.append(self.loop.create_task(losing()))

    @rule(model=models, count=st.integers(0, 10))
    def go_on(self, model: str, count: int) -> None:
        async def turns() -> None:
            for _ in range(count):
                await asyncio.sleep(0)

        self.do(turns())

    @rule(seconds=st.floats(0.01, 3.0))
    def let_time_pass(self, seconds: float) -> None:
        self.do(asyncio.sleep(seconds))

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        running = [task for task in self.asked if not task.done()]
        if running:
            data.draw(st.sampled_from(running)).cancel()

    @rule(model=models)
    def spoil_next_load(self, model: str) -> None:
        self.house.loader.failures.setdefault(model, []).append(RuntimeError("no"))

    @rule(model=models)
    def spoil_next_fetch(self, model: str) -> None:
        self.house.fetch_failures.setdefault(model, []).append(Unavailable("The hub is away."))

    @invariant()
    def promises_hold(self) -> None:
        self.house.check()

    def teardown(self) -> None:
        try:
            self.keep_all_promises()
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.do(asyncio.sleep(0))
            self.loop.close()

    def keep_all_promises(self) -> None:
        waiting = [task for task in self.asked if not task.done()]
        if self.asked:
            # Bounded: every turn of at most five seconds' use, two of residency and two of loading serves somebody.
            limit = 60.0 + 10.0 * len(waiting)
            self.do(asyncio.wait_for(asyncio.gather(*self.asked, return_exceptions=True), limit))
        for task in self.asked:
            if not task.cancelled() and (error := task.exception()) is not None:
                assert isinstance(error, ModelUnusable | Unavailable | EngineFailed | QueueFull), error
        self.do(asyncio.sleep(5.0))
        self.house.check_quiet()
        self.house.loader.failures.clear()
        self.house.fetch_failures.clear()
        self.do(asyncio.sleep(REST))  # a model that was lost again and again is left alone until then
        for model in SERVABLE:
            self.do(asyncio.wait_for(self.house.use(model), 20.0))
        self.do(self.house.dispatcher.close())
        assert self.house.memory.active() == 0


Promises.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestPromises = Promises.TestCase


class PromisesOfTwoMemories(Promises):
    """The same on a device with a memory of its own, beside one for processes in which two or three have room."""

    MORE: ClassVar[dict[str, Any]] = {
        "host": 30,
        "apart": {"tiny": 9, "small": 9, "middle": 14, "large": 5, "pinned": 4, "liar": 12},
    }


PromisesOfTwoMemories.TestCase.settings = settings(Promises.TestCase.settings, max_examples=30)
TestPromisesOfTwoMemories = PromisesOfTwoMemories.TestCase
