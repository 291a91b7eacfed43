"""A registry of scripted models with a budget of plain numbers: margin 0, no disk, no hub."""

import asyncio
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path

from app.errors import QueueFull, Unavailable
from app.registry.budget import Budget, NoPrefixCaches, PrefixCaches
from app.registry.dispatcher import Dispatcher
from app.registry.footprint import Footprint
from app.registry.lease import AskedLease, ModelLease
from app.registry.queue import Queue
from app.registry.residency import Turns
from app.registry.sources import HubRepo, Source
from app.settings import ModelEntry
from tests.support.scripted import ScriptedLoader, ScriptedMemory


class House:
    """A dispatcher and the stand-ins around it. ``sizes`` are true bytes, ``estimates`` what is known before."""

    def __init__(
        self,
        budget: int,
        *,
        sizes: Mapping[str, int],
        estimates: Mapping[str, int] | None = None,
        pinned: tuple[str, ...] = (),
        load_seconds: float = 1.0,
        fetch_seconds: float = 0.0,
        turns: Turns | None = None,
        limit: int = 256,
        timeout: float = 300.0,
        margin: int = 0,
        caches: PrefixCaches | None = None,
        rows: int = 1 << 30,
        host: float = inf,
        apart: Mapping[str, int] | None = None,
        allowance: int = 0,
    ) -> None:
        self.memory = ScriptedMemory(budget)
        self.apart = {} if apart is None else dict(apart)
        self.loader = ScriptedLoader(self.memory, sizes=sizes, seconds=load_seconds, apart=self.apart)
        self.sizes = dict(sizes)
        self.estimates = dict(sizes if estimates is None else estimates)
        self.allowance = allowance
        self.pinned = pinned
        self.fetch_seconds: dict[str, float] = dict.fromkeys(sizes, fetch_seconds)
        self.fetch_failures: dict[str, list[Exception]] = {}
        self.fetched: list[str] = []
        self.put_backs = 0
        self.queue = Queue(limit, timeout, retry_after=2.0)
        self.dispatcher = Dispatcher(
            self._fetch,
            self.loader,
            self.memory,
            NoPrefixCaches() if caches is None else caches,
            budget=lambda: Budget(budget, margin, host),
            turns=Turns() if turns is None else turns,
            queue=self.queue,
            rows=rows,
        )

    def lease(self, model: str, keep_alive: float = -1.0) -> AskedLease:
        source = HubRepo(id=model, repo=model, entry=ModelEntry(pin=model in self.pinned))
        return AskedLease(lambda: self.dispatcher.acquire(source, keep_alive))

    async def use(self, model: str, seconds: float = 0.0, tokens: int = 0, keep_alive: float = -1.0) -> float:
        """Take a model for a while; how long that was waited for."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        async with self.lease(model, keep_alive) as lease:
            assert lease.model == model
            assert not self.loader.engines[model].closed
            if tokens:
                await lease.admit(tokens)
            waited = loop.time() - asked
            await asyncio.sleep(seconds)
            assert not self.loader.engines[model].closed
        return waited

    async def grow(self, model: str, parts: Sequence[int], seconds: float = 0.1) -> float:
        """Take a model and a part of memory after the other, each after ``seconds``; how long that took in all.

        What is waiting for others' memory is put back when it has to be, which takes a moment. It never fails, but
        where it could never fit, or where two models that are used leave no room for either's rows.
        """
        loop = asyncio.get_running_loop()
        asked = loop.time()
        async with self.lease(model) as lease:
            assert isinstance(lease, ModelLease)

            async def put_back() -> None:
                self.put_backs += 1
                await asyncio.sleep(0.01)

            await lease.admit(parts[0])
            for taken, part in enumerate(parts[1:], start=1):
                await asyncio.sleep(seconds)
                try:
                    await lease.grow(part, put_back)
                except (Unavailable, QueueFull) as failure:
                    if {slot.model for slot in self.dispatcher.slots.values() if slot.leases} == {model}:
                        raise AssertionError(
                            f"no other model was in the way of rows that failed: {failure}"
                        ) from failure
                    raise
                assert lease.kv == sum(parts[: taken + 1])
            await asyncio.sleep(seconds)
        return loop.time() - asked

    @property
    def resident(self) -> set[str]:
        return {slot.model for slot in self.dispatcher.slots.values() if slot.phase == "resident"}

    def loads(self, model: str) -> int:
        return self.loader.diary.count(("loaded", model))

    def check(self) -> None:
        """What is true at any moment. One larger than estimated may stand over the budget while something leaves."""
        residents = self.dispatcher.residents()
        staying = [resident for resident in residents if resident.stage != "leaving"]
        excess = sum(self.sizes[resident.model] - self.estimates[resident.model] for resident in residents)
        allowed = 0 if len(staying) == len(residents) else excess
        assert sum(resident.nbytes for resident in staying) <= self.dispatcher.budget().limit
        assert sum(resident.nbytes for resident in residents) <= self.dispatcher.budget().limit + allowed
        assert self.memory.active() <= sum(resident.weights for resident in residents)
        held = sum(self.apart.get(slot.model, 0) for slot in self.dispatcher.slots.values() if slot.resident())
        assert held <= sum(resident.host for resident in residents) <= self.dispatcher.budget().host
        for slot in self.dispatcher.slots.values():
            assert not slot.leases or slot.engine is not None

    def check_quiet(self) -> None:
        """Nobody waits and nobody holds anything: what is left is resident, and exactly that is in memory."""
        assert len(self.queue) == 0
        slots = self.dispatcher.slots.values()
        assert all(slot.phase == "resident" and not slot.leases and slot.kv == 0 for slot in slots)
        assert self.memory.active() == sum(slot.weights for slot in slots)

    async def _fetch(self, source: Source) -> Footprint:
        await asyncio.sleep(self.fetch_seconds.get(source.id, 0.0))
        if self.fetch_failures.get(source.id):
            raise self.fetch_failures[source.id].pop(0)
        self.fetched.append(source.id)
        host = self.apart.get(source.id, 0)
        return Footprint(Path(source.id), self.estimates[source.id], self.allowance, host=host)
