"""Who may stay in memory: a pure answer to one claim on it. :mod:`app.registry.schedule` answers many.

1. Nothing is started that does not fit, and no model that somebody holds is ever evicted.
2. Idle models go first, the least recently used of them before the others.
3. If those are not enough, the models whose turn has lasted longest are *drained*: who holds one finishes, who asks
   for it queues behind the claim. A turn lasts at least ``Turns.min_residency``.
"""

from collections.abc import Collection, Iterable, Sequence
from math import inf
from typing import Literal

from msgspec import Struct

Stage = Literal["loading", "resident", "leaving"]


class Resident(Struct, frozen=True, kw_only=True):
    """A model that has memory. ``kv`` bytes of it are reserved by its ``leases``; times are a monotonic clock's.

    ``host`` is what it has of the system's memory, where models have one of their own.
    """

    model: str
    weights: int
    kv: int = 0
    host: int = 0
    stage: Stage = "resident"
    leases: int = 0
    pinned: bool = False
    since: float = 0.0
    last_used: float = 0.0
    load_seconds: float = 0.0

    @property
    def nbytes(self) -> int:
        """All that comes free when it goes."""
        return self.weights + self.kv


class Claim(Struct, frozen=True, kw_only=True):
    """``nbytes`` more for ``model``: to load it (``holds`` None), or for a request that has ``holds`` bytes of KV.

    Rows that are ``running`` can be put back, which frees what they hold, and never fail for want of memory. A load,
    or a model's first ``grammar``, takes ``host`` bytes of the system's memory, where models have one of their own.
    """

    ticket: int
    model: str
    nbytes: int
    holds: int | None = None
    running: bool = False
    base: str | None = None
    host: int = 0
    grammar: bool = False

    @property
    def models(self) -> frozenset[str]:
        """What it cannot do without: the model, and the one whose weights it shares."""
        return frozenset({self.model} if self.base is None else {self.model, self.base})


class Turns(Struct, frozen=True):
    """How long a model keeps its place once another wants it.

    ``patience`` is for idle models: the share of the time that loading it took for which one stays after its last
    use, in case the next request is on its way. ``drains`` False leaves busy models alone: plain LRU.
    """

    min_residency: float = 2.0
    patience: float = 0.1
    drains: bool = True

    def end(self, resident: Resident) -> float:
        """The time from which the model may be evicted, if idle, or drained."""
        turn = resident.since + self.min_residency
        if resident.leases:
            return turn if self.drains else inf
        return min(turn, resident.last_used + self.patience * resident.load_seconds)

    def rank(self, resident: Resident, now: float) -> float:  # noqa: ARG002 - for policies that weigh time
        """Of the idle models, the one with the lowest rank goes first: the least recently used."""
        return resident.last_used


class Fits(Struct, frozen=True):
    """There is room now."""


class Evict(Struct, frozen=True):
    """There is room once these idle models are gone."""

    models: tuple[str, ...]


class Wait(Struct, frozen=True):
    """Room will come: from what is leaving, from ``drain`` once its requests end, or ask again at ``until``."""

    drain: tuple[str, ...] = ()
    until: float = inf


class Refuse(Struct, frozen=True):
    """There is never room: at most ``attainable`` bytes, of models' memory or the ``host``'s, can be free."""

    needed: int
    attainable: int
    host: bool = False


Decision = Fits | Evict | Wait | Refuse


def plan(
    claim: Claim, residents: Collection[Resident], room: int, *, now: float, turns: Turns, host: float = inf
) -> Decision:
    """How ``claim`` gets its bytes out of ``room`` and of the ``host``'s memory, which ``residents`` share."""
    if (never := _never(claim, residents, room, host)) is not None:
        return never
    short = _Short(
        claim.nbytes + sum(r.nbytes for r in residents) - room,
        claim.host + sum(r.host for r in residents) - host if claim.host else 0,
    )
    if short.nothing:
        return Fits()
    short = short.without([r for r in residents if r.stage == "leaving"])
    if short.nothing:
        return Wait()
    movable = [r for r in residents if r.stage == "resident" and not r.pinned and r.model not in claim.models]
    ready = [r for r in movable if turns.end(r) <= now]
    idle = sorted((r for r in ready if not r.leases), key=lambda r: turns.rank(r, now))
    if (enough := _enough(idle, short)) is not None:
        return Evict(tuple(r.model for r in enough))
    busy = sorted((r for r in ready if r.leases), key=lambda r: r.since)
    if (enough := _enough([*idle, *busy], short)) is not None:
        return Wait(drain=tuple(r.model for r in enough if r.leases))
    return Wait(until=min((end for r in movable if (end := turns.end(r)) > now), default=inf))


def _never(claim: Claim, residents: Iterable[Resident], room: int, host: float) -> Refuse | None:
    staying = [r for r in residents if r.pinned or r.model in claim.models]
    attainable = room - sum(r.weights for r in staying)
    if claim.nbytes + (claim.holds or 0) > attainable:
        return Refuse(claim.nbytes, attainable)
    left = host - sum(r.host for r in staying)
    return Refuse(claim.host, int(left), host=True) if claim.host > max(0, left) else None


class _Short(Struct, frozen=True):
    """How much is missing of models' memory, and of the host's."""

    device: float
    host: float

    @property
    def nothing(self) -> bool:
        """Whether there is enough."""
        return self.device <= 0 and self.host <= 0

    def without(self, residents: Iterable[Resident]) -> "_Short":
        """Once these are gone."""
        gone = tuple(residents)
        return _Short(self.device - sum(r.nbytes for r in gone), self.host - sum(r.host for r in gone))


def _enough(candidates: Sequence[Resident], short: _Short) -> list[Resident] | None:
    """The first candidates that free what is ``short``, less those that the rest can do without; None if all do not."""
    chosen: list[Resident] = []
    for resident in candidates:
        if short.without(chosen).nothing:
            break
        chosen.append(resident)
    if not short.without(chosen).nothing:
        return None
    for resident in reversed(chosen[:]):
        rest = [it for it in chosen if it is not resident]
        if short.without(rest).nothing:
            chosen = rest
    return chosen
