"""Leases: given out, queued for and taken back, as the policy decides.

Every change of state is synchronous and ends in :meth:`Dispatcher._turn`, which asks the policy about all who wait.
What takes time is a task of :class:`Lifecycle`.
"""

import asyncio
from collections.abc import Callable
from copy import copy
from functools import partial
from math import inf

from app.engine.base import Engine, EngineLoader, MemoryGauge
from app.errors import EngineLost, SwitchyardError
from app.registry import refusals
from app.registry.admission import Admission
from app.registry.budget import Budget, PrefixCaches
from app.registry.changes import Changes
from app.registry.lease import ModelLease
from app.registry.lifecycle import Fetch, Lifecycle
from app.registry.losses import Losses
from app.registry.memory_claims import claims, cramped, idle_adapters, overgrown, unbooked
from app.registry.queue import Queue
from app.registry.residency import Resident, Turns
from app.registry.schedule import Schedule, schedule
from app.registry.slot import Sizes, Slot
from app.registry.sources import Source
from app.registry.trimmer import RECLAIM_SECONDS, Trimmer
from app.registry.yielding import Yielding


class Dispatcher:
    """Who has which model. Everything runs on one event loop. ``rows`` are the places in a model's batch."""

    def __init__(
        self,
        fetch: Fetch,
        loader: EngineLoader,
        gauge: MemoryGauge,
        caches: PrefixCaches,
        *,
        budget: Callable[[], Budget],
        turns: Turns,
        queue: Queue,
        rows: int,
        changes: Changes | None = None,
    ) -> None:
        self._lifecycle = Lifecycle(fetch, loader, lease=self._lease_base, changed=self._changed, failed=self._failed)
        self._changes = Changes() if changes is None else changes
        self._trimmer = Trimmer(caches, self._turn)
        self._unbooked: Callable[[int], int] = lambda booked: unbooked(booked, budget(), gauge, caches)
        self._yielding = Yielding(self._turn)
        self._turns = turns
        self._drained: frozenset[str] = frozenset()
        self._alarm: asyncio.TimerHandle | None = None
        self._closed = False
        self.budget = budget
        self.counts = self._lifecycle.counts
        self.queue, self._rows = queue, rows
        self.losses = Losses()
        self.slots, self._sizes = dict[str, Slot](), Sizes()
        turn, check, tell = self._turn, self._check_open, self._changes.tell
        self.memory = Admission(
            self.slots, queue, budget, self._unbooked, turn=turn, check=check, changed=tell, rows=rows
        )

    async def acquire(self, source: Source, keep_alive: float) -> ModelLease:
        """A lease, at once if the model is resident and it is its turn; see :class:`Queue` for what else may be."""
        self._check_open()
        slot = self.slots.get(source.id)
        if slot is None or slot.engine is None:
            self.losses.check(source.id, _now())
            slot = self.slots.setdefault(source.id, Slot(source, keep_alive, self._sizes))
        if self._grants(slot):
            self.queue.check(1 + len(slot.leases) - self._rows)
            return self._grant(slot, keep_alive)
        waiter = self.queue.join(slot.model, keep_alive=keep_alive)
        self._turn()
        try:
            return await self.queue.hold(waiter, lambda: refusals.waits_for(slot), self._turn)
        except asyncio.CancelledError:
            if waiter.granted is not None:
                waiter.granted.end()
            raise

    def release(self, lease: ModelLease) -> None:
        """Take a lease back."""
        slot = self.slots[lease.model]
        slot.leases.discard(lease)
        slot.last_used = _now()
        self._idle(slot)
        self._let_go_of_bases()
        self._turn()

    async def unload(self, model: str) -> None:
        """Evict a model and return when its memory is free; raises :class:`app.errors.Conflict` while it is used."""
        slot = self.slots.get(model)
        if slot is not None:
            if slot.phase != "resident" or slot.leases:
                raise refusals.in_use(slot)
            going = self._lifecycle.evict(slot)
            self._changes.tell()
            await asyncio.shield(going)

    def pin(self, model: str, *, pinned: bool) -> None:
        """Keep a resident model until it is unloaded by name, or let it be evicted again; raises Conflict if absent."""
        slot = self.slots.get(model)
        if slot is None or slot.phase != "resident":
            raise refusals.not_resident(model)
        slot.rest()
        slot.pinned = pinned
        self._idle(slot)
        self._turn()

    async def close(self) -> None:
        """Send away who waits, let loads finish, close every engine, whoever uses it."""
        self._closed = True
        self._set_alarm(inf)
        for waiter in self.queue:
            self.queue.fail(waiter, refusals.stopping())
        for slot in tuple(self.slots.values()):
            for lease in tuple(slot.leases):
                lease.end()
            self._lifecycle.let_go(slot)
        await self._lifecycle.settle()

    def residents(self) -> list[Resident]:
        """Everything that has memory."""
        return [resident for slot in self.slots.values() if (resident := slot.resident()) is not None]

    def _turn(self) -> None:
        """Ask the policy about everybody who waits, and do what it says."""
        self._changes.tell()
        self._lifecycle.evict_all(overgrown(self.slots, self.budget()))
        self._lifecycle.tidy(self.slots, {waiter.model for waiter in self.queue}, fetch=not self._closed)
        if self._closed or not len(self.queue):
            self._drained = frozenset()
            return self._set_alarm(inf)
        asked, residents, now = claims(self.queue, self.slots, self.budget()), self.residents(), _now()
        booked = sum(resident.nbytes for resident in residents)
        unaccounted = self._unbooked(booked)
        if self._trimmer.works_on(booked + unaccounted + sum(claim.nbytes for claim in asked) - self.budget().limit):
            return None
        limit, host = self.budget().limit, self.budget().host
        decided = schedule(residents, asked, limit, now=now, turns=self._turns, unaccounted=unaccounted, host=host)
        self._carry_out(decided)
        reclaim = now + RECLAIM_SECONDS if unaccounted and len(decided.start) < len(asked) else inf
        return self._set_alarm(min(reclaim, decided.until))

    def _carry_out(self, decided: Schedule) -> None:
        self._drained = decided.drain
        for claim, refusal in decided.refuse:
            for waiter in self.queue.of(claim.model) if claim.holds is None else [self.queue[claim.ticket]]:
                self.queue.fail(waiter, refusals.too_large(claim, refusal, self.budget()))
        if decided.yields is not None and not self._yielding.busy:
            if decided.yields.running and decided.yields.holds:
                self._yielding.begin(self.queue[decided.yields.ticket])
            else:
                self.queue.fail(self.queue[decided.yields.ticket], refusals.no_memory_now(decided.yields.model))
        self._lifecycle.evict_all(self.slots[model] for model in decided.evict)
        for claim in decided.start:
            if claim.holds is None:
                self._lifecycle.load(self.slots[claim.model])
            elif (lease := self.queue[claim.ticket].lease) is not None:
                lease.kv, lease.host = lease.kv + claim.nbytes, lease.host + claim.host
                self.queue.answer(self.queue[claim.ticket], lease)
        self._serve()
        self._let_go_of_bases()
        if decided.refuse or (decided.yields is not None and not self._yielding.busy):
            asyncio.get_running_loop().call_soon(self._turn)

    async def _lease_base(self, source: Source) -> ModelLease:
        """For an adapter, as long as it is in memory or about to be."""
        slot = self.slots.get(source.id)
        return await self.acquire(source, -1.0 if slot is None else slot.keep_alive)

    def _let_go_of_bases(self) -> None:
        """Adapters that nobody uses keep no base that has ended or that others wait for."""
        bases = self._drained | {slot.model for slot in self.slots.values() if slot.broken}
        for slot in idle_adapters(self.slots, bases):
            self._lifecycle.let_go(slot)

    def _serve(self) -> None:
        for waiter in self.queue:
            if waiter.lease is None and self._grants(slot := self.slots[waiter.model]):
                self.queue.answer(waiter, self._grant(slot, waiter.keep_alive))

    def _grants(self, slot: Slot) -> bool:
        if cramped(self.slots, slot, self.budget()) or (slot.base and not self._grants(self.slots[slot.base.model])):
            return False
        return slot.engine is not None and not slot.broken and slot.model not in self._drained

    def _grant(self, slot: Slot, keep_alive: float) -> ModelLease:
        if slot.engine is None:
            raise RuntimeError(slot.model)
        slot.rest()
        slot.last_used, slot.keep_alive = _now(), keep_alive
        lease = ModelLease(self, slot.model, slot.engine, arrived=slot.since, load_seconds=slot.load_seconds)
        slot.leases.add(lease)
        self._changes.tell()
        return lease

    def _lost(self, slot: Slot, engine: Engine, error: EngineLost) -> None:
        """The process of a model in memory has ended: nobody is given it any more, and it goes with its last lease."""
        if slot.engine is engine:
            slot.broken = True
            self.losses.note(slot.model, error, _now())
            self._idle(slot)
            self._let_go_of_bases()
            self._turn()

    def _changed(self, slot: Slot) -> None:
        if slot.engine is not None:
            slot.engine.when_lost(partial(self._lost, slot, slot.engine))
        self._lifecycle.evict_all(overgrown(self.slots, self.budget(), slot))
        if slot.phase == "resident" and self._closed:
            self._lifecycle.evict(slot)
        self._serve()  # before the policy can take it for idle
        self._turn()
        self._idle(slot)

    def _failed(self, slot: Slot, error: SwitchyardError) -> None:
        if isinstance(error, EngineLost):
            self.losses.note(slot.model, error, _now())
        for waiter in self.queue.of(slot.model):
            self.queue.fail(waiter, copy(error))
        self._turn()

    def _idle(self, slot: Slot) -> None:
        """Begin to count the time that a model may stay unused, or let it go at once."""
        if slot.phase != "resident" or slot.leases:
            pass
        elif slot.broken or (slot.keep_alive == 0 and not slot.pinned):
            self._lifecycle.evict(slot)
        elif slot.keep_alive > 0 and not slot.pinned:
            slot.rest()
            slot.expiry = asyncio.get_running_loop().call_later(slot.keep_alive, self._lifecycle.evict, slot)

    def _set_alarm(self, when: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None if when == inf else asyncio.get_running_loop().call_at(when, self._turn)

    def _check_open(self) -> None:
        if self._closed:
            raise refusals.stopping()


def _now() -> float:
    return asyncio.get_running_loop().time()
