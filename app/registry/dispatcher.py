"""Leases: given out, queued for and taken back, as the policy decides.

Every change of state is synchronous and ends in :meth:`Dispatcher._turn`, which asks the policy about everybody who
waits. Nothing waits here while it holds anything; what takes time is a task of :class:`Lifecycle`.
"""

import asyncio
from collections.abc import Collection
from copy import copy
from math import inf

from app.engine.base import EngineLoader, MemoryGauge
from app.errors import EngineFailed, SwitchyardError
from app.registry import refusals
from app.registry.budget import Budget, PrefixCaches
from app.registry.changes import Changes
from app.registry.lease import ModelLease
from app.registry.lifecycle import Fetch, Lifecycle
from app.registry.memory_claims import claims, idle_adapters
from app.registry.queue import Queue, Waiter
from app.registry.residency import Resident, Turns
from app.registry.schedule import Schedule, schedule
from app.registry.slot import Slot
from app.registry.sources import Source
from app.registry.status import Figures
from app.registry.trimmer import RECLAIM_SECONDS, Trimmer


class Dispatcher:
    """Who has which model. Everything runs on one event loop, whose clock is the only one."""

    def __init__(
        self,
        fetch: Fetch,
        loader: EngineLoader,
        gauge: MemoryGauge,
        caches: PrefixCaches,
        *,
        budget: Budget,
        turns: Turns,
        queue: Queue,
        changes: Changes | None = None,
    ) -> None:
        self._lifecycle = Lifecycle(fetch, loader, lease=self._lease_base, changed=self._changed, failed=self._failed)
        self._gauge = gauge
        self._changes = Changes() if changes is None else changes
        self._trimmer = Trimmer(caches, self._turn)
        self._turns = turns
        self._drained: frozenset[str] = frozenset()
        self._alarm: asyncio.TimerHandle | None = None
        self._closed = False
        self.budget = budget
        self.queue = queue
        self.slots: dict[str, Slot] = {}

    async def acquire(self, source: Source, keep_alive: float) -> ModelLease:
        """A lease, at once if the model is resident and it is its turn; see :class:`Queue` for what else may be."""
        self._check_open()
        slot = self.slots.get(source.id)
        if slot is None:
            slot = self.slots[source.id] = Slot(source, keep_alive)
        if self._grants(slot):
            return self._grant(slot, keep_alive)
        waiter = self.queue.join(slot.model, keep_alive=keep_alive)
        self._turn()
        try:
            return await self.queue.hold(waiter, lambda: refusals.waits_for(slot), self._turn)
        except asyncio.CancelledError:
            if waiter.granted is not None:
                waiter.granted.end()
            raise

    async def admit(self, lease: ModelLease, nbytes: int) -> None:
        """Reserve bytes for a lease, at once if nobody who goes before needs them."""
        self._check_open()
        waiter = self.queue.join(lease.model, lease=lease, nbytes=nbytes)
        self._turn()
        await self.queue.hold(waiter, lambda: refusals.waits_for_memory(lease.model), self._turn)

    def release(self, lease: ModelLease, error: BaseException | None) -> None:
        """Take a lease back. An engine that failed as a whole is not given out again."""
        slot = self.slots[lease.model]
        slot.leases.discard(lease)
        slot.last_used = _now()
        slot.broken |= isinstance(error, EngineFailed) and error.code == EngineFailed.code
        self._idle(slot)
        self._let_go_of([it.model for it in self.slots.values() if it.broken])
        self._turn()

    async def unload(self, model: str) -> None:
        """Evict a model and return when its memory is free; raises :class:`app.errors.Conflict` while it is used."""
        slot = self.slots.get(model)
        if slot is None:
            return
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
            if slot.phase == "resident":
                self._lifecycle.evict(slot)
        await self._lifecycle.settle()

    def figures(self) -> Figures:
        """What resident models have to do, and what has happened since the start."""
        work = {model: slot.engine.work() for model, slot in self.slots.items() if slot.engine is not None}
        return Figures(work, self._lifecycle.counts)

    def residents(self) -> list[Resident]:
        """Everything that has memory."""
        return [resident for slot in self.slots.values() if (resident := slot.resident()) is not None]

    def _turn(self) -> None:
        """Ask the policy about everybody who waits, and do what it says."""
        self._changes.tell()
        self._forget()
        if self._closed or not len(self.queue):
            self._drained = frozenset()
            return self._set_alarm(inf)
        asked, residents, now = claims(self.queue, self.slots), self.residents(), _now()
        booked = sum(resident.nbytes for resident in residents)
        stray = self.budget.stray(self._gauge.active(), booked)
        if self._trimmer.works_on(booked + stray + sum(claim.nbytes for claim in asked) - self.budget.limit):
            return None
        decided = schedule(residents, asked, self.budget.limit, now=now, turns=self._turns, stray=stray)
        self._carry_out(decided)
        reclaim = now + RECLAIM_SECONDS if stray and len(decided.start) < len(asked) else inf
        return self._set_alarm(min(reclaim, decided.until))

    def _forget(self) -> None:
        """Drop what nobody waits for and what has no memory; fetch what somebody waits for and has no files."""
        wanted = {waiter.model for waiter in self.queue}
        for model, slot in tuple(self.slots.items()):
            if model not in wanted and slot.phase in {"absent", "stored"}:
                slot.gone()
                del self.slots[model]
            elif slot.phase == "absent" and not self._closed:
                self._lifecycle.fetch(slot)

    def _carry_out(self, decided: Schedule) -> None:
        self._drained = decided.drain
        for claim, refusal in decided.refuse:
            for waiter in self.queue.of(claim.model) if claim.holds is None else [self.queue[claim.ticket]]:
                self.queue.fail(waiter, refusals.too_large(claim, refusal, self.budget))
        if decided.yields is not None:
            self.queue.fail(self.queue[decided.yields.ticket], refusals.no_memory_now(decided.yields.model))
        for model in decided.evict:
            self._lifecycle.evict(self.slots[model])
        for claim in decided.start:
            if claim.holds is None:
                self._lifecycle.load(self.slots[claim.model])
            else:
                self._reserve(self.queue[claim.ticket])
        self._serve()
        self._let_go_of(decided.drain)
        if decided.refuse or decided.yields:
            asyncio.get_running_loop().call_soon(self._turn)

    async def _lease_base(self, source: Source) -> ModelLease:
        """For an adapter, as long as it is in memory or about to be."""
        slot = self.slots.get(source.id)
        return await self.acquire(source, -1.0 if slot is None else slot.keep_alive)

    def _let_go_of(self, bases: Collection[str]) -> None:
        for slot in idle_adapters(self.slots, bases):
            if slot.phase == "resident":
                self._lifecycle.evict(slot)
            elif slot.phase == "stored":
                slot.gone()

    def _serve(self) -> None:
        for waiter in self.queue:
            if waiter.lease is None and self._grants(slot := self.slots[waiter.model]):
                self.queue.answer(waiter, self._grant(slot, waiter.keep_alive))

    def _grants(self, slot: Slot) -> bool:
        if slot.base is not None and not self._grants(self.slots[slot.base.model]):
            return False
        return slot.engine is not None and not slot.broken and slot.model not in self._drained

    def _grant(self, slot: Slot, keep_alive: float) -> ModelLease:
        if slot.engine is None:
            raise RuntimeError(f"{slot.model} is not resident.")
        slot.rest()
        slot.last_used, slot.keep_alive = _now(), keep_alive
        lease = ModelLease(self, slot.model, slot.engine, arrived=slot.since, load_seconds=slot.load_seconds)
        slot.leases.add(lease)
        self._changes.tell()
        return lease

    def _reserve(self, waiter: Waiter) -> None:
        if waiter.lease is not None:
            waiter.lease.kv += waiter.nbytes
            self.queue.answer(waiter, waiter.lease)

    def _changed(self, slot: Slot) -> None:
        over = sum(resident.nbytes for resident in self.residents()) > self.budget.limit
        if slot.phase == "resident" and (over or self._closed):  # larger than estimated: it comes back as a true claim
            self._lifecycle.evict(slot)
        self._serve()  # before the policy can take it for idle
        self._turn()
        self._idle(slot)

    def _failed(self, slot: Slot, error: SwitchyardError) -> None:
        for waiter in self.queue.of(slot.model):
            self.queue.fail(waiter, copy(error))
        self._turn()

    def _idle(self, slot: Slot) -> None:
        """Begin to count the time that a model may stay unused, or let it go at once."""
        if slot.phase != "resident" or slot.leases:
            return
        if slot.broken or (slot.keep_alive == 0 and not slot.pinned):
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
