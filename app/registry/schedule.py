"""Every claim on memory answered together: who starts, who goes, who waits for whom.

Claims are served by ticket. A later one goes ahead only if that delays no earlier one, or if the earlier one waits
for it: requests that hold a model go before loads, and requests that hold a drained model go before all.
Requests that wait for each other's memory are a deadlock; the youngest gives way. If its rows run they are put back,
and wait without memory; nobody of their model who comes later goes before them.
"""

from collections.abc import Collection, Iterable, Sequence
from math import inf

from msgspec import Struct
from msgspec.structs import replace

from app.registry.residency import Claim, Decision, Evict, Fits, Refuse, Resident, Turns, Wait, plan


class Schedule(Struct, frozen=True, kw_only=True):
    """What happens next. ``drain`` models take no new requests; ``until`` is when to ask again if nothing changes."""

    start: tuple[Claim, ...] = ()
    evict: tuple[str, ...] = ()
    drain: frozenset[str] = frozenset()
    refuse: tuple[tuple[Claim, Refuse], ...] = ()
    yields: Claim | None = None
    until: float = inf


def schedule(
    residents: Sequence[Resident],
    claims: Iterable[Claim],
    limit: int,
    *,
    now: float,
    turns: Turns,
    unaccounted: int = 0,
    host: float = inf,
) -> Schedule:
    """Answer every claim. ``limit`` bytes are for models and KV; ``unaccounted`` of them cannot be used now.

    ``host`` bytes of the system's memory are for their processes, where models have a memory of their own.
    """
    turn = _Planning(residents, limit - unaccounted, host, now, turns)
    refused = []
    answerable = []
    for claim in claims:
        never = plan(claim, residents, limit, now=now, turns=turns, host=host)
        if isinstance(never, Refuse):
            refused.append((claim, never))
        else:
            answerable.append(claim)
    holders = _holders(residents, answerable)
    stuck = _stuck(residents, holders, limit)
    behind = _behind(holders, stuck)
    first = holders - stuck - behind
    for claim in sorted(answerable, key=lambda c: (0 if c in first else 1 if c in holders else 2, c.ticket)):
        turn.answer(claim)
    deadlock = stuck and not first and not holders.intersection(turn.start)
    return Schedule(
        start=tuple(turn.start),
        evict=tuple(turn.evict),
        drain=frozenset(turn.drain),
        refuse=tuple(refused),
        yields=_youngest(stuck) if deadlock else None,
        until=turn.until,
    )


class _Planning:
    """The state of one pass over the claims: what earlier ones were given, and what is kept for them."""

    def __init__(self, residents: Sequence[Resident], room: int, host: float, now: float, turns: Turns) -> None:
        self.residents = residents
        self.room, self.host = room, host
        self.now = now
        self.turns = turns
        self.kept = self.kept_of_host = 0
        self.promised: set[str] = set()
        self.start: list[Claim] = []
        self.evict: list[str] = []
        self.drain: set[str] = set()
        self.until = inf

    def answer(self, claim: Claim) -> None:
        decision = self._decide(claim)
        match decision:
            case Fits():
                self.start.append(claim)
                self.room -= claim.nbytes
                self.host -= claim.host
                return
            case Evict(models):
                self.evict += models
                self.promised.update(models)
            case Wait(drain, until):
                self.drain.update(drain)
                self.promised.update(drain)
                self.until = min(self.until, until)
            case Refuse():  # for now only: what is unaccounted, or kept for others, will come free
                pass
        self.kept += claim.nbytes
        self.kept_of_host += claim.host

    def _decide(self, claim: Claim) -> Decision:
        if claim.models & self.drain:  # an earlier claim waits for this one, so nothing is kept from it
            here = [replace(r, stage="leaving") if r.model in self.evict else r for r in self.residents]
            return plan(claim, here, self.room, now=self.now, turns=self.turns, host=self.host)
        others = [r for r in self.residents if r.model not in self.promised]
        room, host = self.room - self.kept, self.host - self.kept_of_host
        decision = plan(claim, others, room, now=self.now, turns=self.turns, host=host)
        if isinstance(decision, Fits):
            device = claim.nbytes + sum(r.nbytes for r in self.residents) <= self.room
            beside = not claim.host or claim.host + sum(r.host for r in self.residents) <= self.host
            return decision if device and beside else Wait()
        return decision


def _holders(residents: Iterable[Resident], claims: Iterable[Claim]) -> frozenset[Claim]:
    """The requests that hold what others may be waiting for: they go before the rest.

    A pinned model is nothing that others could have, so a request that holds no more than one waits its turn.
    """
    pinned = {resident.model for resident in residents if resident.pinned}
    return frozenset(c for c in claims if c.holds is not None and (c.holds > 0 or c.model not in pinned))


def _stuck(residents: Iterable[Resident], holders: Collection[Claim], limit: int) -> frozenset[Claim]:
    """Those of the holders that cannot go on for as long as the others hold what they hold; they go after those."""
    models = {model for claim in holders for model in claim.models}
    held = sum(r.weights for r in residents if r.pinned or r.model in models)
    held += sum(claim.holds for claim in holders if claim.holds is not None)
    return frozenset(claim for claim in holders if claim.nbytes + held > limit)


def _behind(holders: Collection[Claim], stuck: Collection[Claim]) -> frozenset[Claim]:
    """Those that hold nothing and came after rows of their model that were put back."""
    parked = [claim for claim in stuck if claim.running and not claim.holds]
    return frozenset(
        claim
        for claim in holders
        if claim not in stuck
        and not claim.holds
        and any(it.ticket < claim.ticket and claim.models <= it.models for it in parked)
    )


def _youngest(stuck: Collection[Claim]) -> Claim:
    """Who gives way: rows that run and hold something, then those that have not begun."""
    for some in ([c for c in stuck if c.running and c.holds], [c for c in stuck if not c.running]):
        if some:
            return max(some, key=lambda c: c.ticket)
    return max(stuck, key=lambda c: c.ticket)
