"""What the policy is asked, read from the queue and the slots."""

from collections.abc import Collection, Iterable, Mapping

from app.engine.base import MemoryGauge
from app.registry.budget import Budget
from app.registry.queue import Waiter
from app.registry.residency import Claim
from app.registry.slot import Slot


def claims(waiters: Iterable[Waiter], slots: Mapping[str, Slot]) -> list[Claim]:
    """One for each model that could be loaded, by the first who waits for it, and one for each request's KV cache."""
    found: dict[object, Claim] = {}
    for waiter in waiters:
        slot, ticket = slots[waiter.model], waiter.ticket
        if waiter.lease is not None:
            held = waiter.lease.kv
            found[ticket] = Claim(ticket=ticket, model=slot.model, nbytes=waiter.nbytes, holds=held, base=slot.needs)
        elif slot.phase == "stored":
            claim = Claim(ticket=ticket, model=slot.model, nbytes=slot.needed, base=slot.needs)
            found.setdefault(slot.model, claim)
    return list(found.values())


def idle_adapters(slots: Mapping[str, Slot], bases: Collection[str]) -> list[Slot]:
    """Adapters that hold one of ``bases`` though nobody uses them: else their leases would never end."""
    return [slot for slot in slots.values() if slot.base is not None and slot.base.model in bases and not slot.leases]


def has_room(slots: Mapping[str, Slot], nbytes: int, budget: Budget, gauge: MemoryGauge) -> bool:
    """Whether that many more bytes fit as things are."""
    booked = sum(slot.booked for slot in slots.values())
    return booked + budget.unaccounted(gauge.active(), booked) + nbytes <= budget.limit
