"""Memory for requests that hold a model: reserved before they begin, and more as their rows grow."""

from collections.abc import Callable, Mapping
from math import inf

from app.engine.grammar import Grammar
from app.registry import refusals
from app.registry.budget import Budget
from app.registry.lease import ModelLease, PutBack
from app.registry.memory_claims import attainable
from app.registry.queue import Queue
from app.registry.slot import Slot


class Admission:
    """Reserves KV cache at once where nobody who goes before needs it, else by the ``queue``.

    ``unbooked`` tells the bytes that are in use beside those that are booked, ``turn`` has the policy asked, ``check``
    raises once nobody is admitted any more, ``changed`` is told of what was reserved. ``rows`` of one model are
    generated together.
    """

    def __init__(
        self,
        slots: Mapping[str, Slot],
        queue: Queue,
        budget: Callable[[], Budget],
        unbooked: Callable[[int], int],
        *,
        turn: Callable[[], None],
        check: Callable[[], None],
        changed: Callable[[], None],
        rows: int,
    ) -> None:
        self._slots = slots
        self._queue = queue
        self._budget = budget
        self._unbooked = unbooked
        self._turn = turn
        self._check = check
        self._changed = changed
        self.rows = rows

    async def admit(self, lease: ModelLease, nbytes: int) -> None:
        """Reserve bytes for a lease."""
        await self._reserve(lease, nbytes)

    async def prepare(self, lease: ModelLease, grammar: Grammar) -> None:
        """Reserve what a model's first grammar has its process hold, until that is in its books.

        Grammars that come meanwhile wait for the first one: each would reserve the same.
        """
        engine, slot = lease.engine, self._slots[lease.model]
        if engine.first_grammar:
            async with slot.first_grammar:
                if engine.first_grammar:
                    return await self._grow_by_grammar(lease, slot, grammar)
        return await engine.prepare(grammar)

    async def _grow_by_grammar(self, lease: ModelLease, slot: Slot, grammar: Grammar) -> None:
        apart = self._budget().host < inf
        nbytes, host = (0, lease.engine.first_grammar) if apart else (lease.engine.first_grammar, 0)
        await self._reserve(lease, nbytes, host=host, grammar=True)
        slot.growing = True
        try:
            await lease.engine.prepare(grammar)
        finally:
            slot.growing = False
            lease.kv, lease.host = lease.kv - nbytes, lease.host - host
            self._turn()

    async def grow(self, lease: ModelLease, nbytes: int, put_back: PutBack) -> bool:
        """The same for rows that run, however long it takes; whether they had to be put back meanwhile."""
        return await self._reserve(lease, nbytes, put_back=put_back)

    def most(self, lease: ModelLease) -> int:
        """Bytes of KV cache that a lease could have if no other had any."""
        return attainable(self._slots, self._slots[lease.model], self._budget())

    async def _reserve(
        self, lease: ModelLease, nbytes: int, *, host: int = 0, grammar: bool = False, put_back: PutBack | None = None
    ) -> bool:
        self._check()
        if not len(self._queue) and self._free(nbytes, host):
            lease.kv, lease.host = lease.kv + nbytes, lease.host + host
            self._changed()
            return False
        waiter = self._queue.join(
            lease.model, lease=lease, nbytes=nbytes, host=host, grammar=grammar, put_back=put_back
        )
        self._turn()
        await self._queue.hold(waiter, lambda: refusals.waits_for_memory(lease.model), self._turn)
        self._changed()
        return waiter.back

    def _free(self, nbytes: int, host: int) -> bool:
        slots, budget = self._slots.values(), self._budget()
        booked = sum(slot.booked for slot in slots)
        beside = not host or host + sum(slot.host for slot in slots) <= budget.host
        return beside and booked + self._unbooked(booked) + nbytes <= budget.limit
