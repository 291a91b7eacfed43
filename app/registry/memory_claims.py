"""What the policy is asked, read from the queue and the slots."""

from collections.abc import Collection, Iterable, Mapping

from app.engine.base import MemoryGauge
from app.registry.budget import Budget, PrefixCaches
from app.registry.queue import Waiter
from app.registry.residency import Claim
from app.registry.slot import Slot


def claims(waiters: Iterable[Waiter], slots: Mapping[str, Slot], budget: Budget) -> list[Claim]:
    """One for each model that could be loaded, by the first who waits for it, and one for each request's KV cache.

    A model whose process has grown the last time is given as much again, as far as the ``budget`` goes.
    """
    found: dict[object, Claim] = {}
    for waiter in waiters:
        slot, ticket = slots[waiter.model], waiter.ticket
        if waiter.lease is not None:
            found[ticket] = Claim(
                ticket=ticket,
                model=slot.model,
                nbytes=waiter.nbytes,
                holds=waiter.lease.kv,
                running=waiter.put_back is not None,
                base=slot.needs,
                host=waiter.host,
                grammar=waiter.grammar,
            )
        elif slot.phase == "stored":
            host = 0 if slot.footprint is None else slot.footprint.host
            nbytes = min(slot.needed, max(slot.least, attainable(slots, slot, budget)))
            claim = Claim(ticket=ticket, model=slot.model, nbytes=nbytes, base=slot.needs, host=host)
            found.setdefault(slot.model, claim)
    return list(found.values())


def idle_adapters(slots: Mapping[str, Slot], bases: Collection[str]) -> list[Slot]:
    """Adapters that hold one of ``bases`` though nobody uses them: else their leases would never end."""
    return [slot for slot in slots.values() if slot.base is not None and slot.base.model in bases and not slot.leases]


def unbooked(booked: int, budget: Budget, gauge: MemoryGauge, caches: PrefixCaches) -> int:
    """Bytes that are in use beside those ``booked`` for models: prefix caches, and what is measured beyond both."""
    kept = caches.nbytes()
    return kept + budget.unaccounted(gauge.active(), booked + kept)


def overgrown(slots: Mapping[str, Slot], budget: Budget, arrived: Slot | None = None) -> list[Slot]:
    """Idle models that have to go, the longest unused first, where what processes hold has grown beyond the budget.

    So does one that has become ``cramped``. One that has just ``arrived`` and is larger than estimated goes last,
    though it is pinned, and comes back as a true claim.
    """
    staying = [slot for slot in slots.values() if slot.phase in {"loading", "resident"}]
    over = sum(slot.booked for slot in staying) - budget.limit
    over_host = sum(slot.host for slot in staying) - budget.host
    going: list[Slot] = []
    for slot in sorted(staying, key=lambda it: it.last_used):
        of_use = over > 0 or (over_host > 0 and slot.host) or cramped(slots, slot, budget)
        if of_use and slot.phase == "resident" and not slot.leases and (not slot.pinned or slot is arrived):
            over, over_host = over - slot.booked, over_host - slot.host
            going.append(slot)
    return going


def cramped(slots: Mapping[str, Slot], slot: Slot, budget: Budget) -> bool:
    """Whether an idle model has grown until a first request has no room beside it; made anew it is smaller."""
    if not slot.grown or slot.pinned or slot.leases or slot.footprint is None:
        return False
    return attainable(slots, slot, budget) < slot.footprint.allowance


def attainable(slots: Mapping[str, Slot], slot: Slot, budget: Budget) -> int:
    """Bytes of KV cache that requests of one model could have if no other model had any that can do without."""
    kept = {slot.model, slot.needs}
    return budget.limit - sum(it.weights + it.beside for it in slots.values() if it.pinned or it.model in kept)
