"""One model on its way from absent to resident and back. Only :mod:`app.registry.dispatcher` changes it."""

import asyncio
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from app.engine.base import Engine
from app.registry.footprint import Footprint
from app.registry.lease import ModelLease
from app.registry.residency import Resident, Stage
from app.registry.sources import Adapted, Source

Phase = Literal["absent", "fetching", "stored", "loading", "resident", "leaving"]

_STAGES: dict[Phase, Stage] = {"loading": "loading", "resident": "resident", "leaving": "leaving"}


class Size(Struct, frozen=True):
    """Bytes that a model of a ``footprint`` took the last time: ``beside`` its weights at first, and when it went."""

    footprint: Footprint
    weights: int
    beside: int
    grown: int


Sizes = dict[str, Size]
"""By model, of all that were ever in memory: a model's next load is booked by them while its files are the same."""


class Slot:
    """``footprint`` is known from ``stored`` on, ``engine`` while ``resident``. Times are the loop's.

    An adapter holds a lease of its ``base`` from ``stored`` on.
    ``weights`` are the bytes set aside: estimated while loading, measured once resident. So are those ``beside`` them,
    which may grow: a tokenizer for grammars is made when it is first wanted.
    """

    def __init__(self, source: Source, keep_alive: float, sizes: Sizes) -> None:
        self.source = source
        self.model = source.id
        self.pinned = source.entry.pin
        self.keep_alive = keep_alive
        self.phase: Phase = "absent"
        self.footprint: Footprint | None = None
        self.engine: Engine | None = None
        self.base: ModelLease | None = None
        self.weights = 0
        self._beside = self._host = 0
        self._sizes = sizes
        self.leases: set[ModelLease] = set()
        self.first_grammar = asyncio.Lock()
        """Held by who has its process make what all grammars need."""
        self.growing = False
        """Whether its process is making that now: reserved, and not booked until it is done."""
        self.since = 0.0
        self.last_used = 0.0
        self.load_seconds = 0.0
        self.broken = False
        self.expiry: asyncio.TimerHandle | None = None

    @property
    def kv(self) -> int:
        """Bytes reserved by its leases."""
        return sum(lease.kv for lease in self.leases)

    @property
    def beside(self) -> int:
        """Bytes for what its process holds beside weights and KV, and for what computing takes."""
        if self.engine is not None and not self.growing:
            self._beside = max(self._beside, self.engine.books().beside)
        return self._beside

    @property
    def host(self) -> int:
        """Bytes of the system's memory for its process, where models have one of their own; they may grow."""
        if self.engine is not None and not self.growing:
            self._host = max(self._host, self.engine.books().apart)
        return self._host + sum(lease.host for lease in self.leases)

    @property
    def booked(self) -> int:
        """Bytes that it has: weights and what is beside them, and what its leases have reserved."""
        return self.weights + self.beside + self.kv

    @property
    def needed(self) -> int:
        """Bytes that must be free before it is loaded; 0 until the footprint is known."""
        if self.footprint is None:
            return 0
        size = self._size
        return self._set_aside + (self.footprint.beside if size is None else size.grown)

    @property
    def least(self) -> int:
        """The same for a process that has not grown yet: what goes to others first where the budget allows no more."""
        if self.footprint is None:
            return 0
        size = self._size
        return self._set_aside + (self.footprint.beside if size is None else size.beside)

    @property
    def grown(self) -> bool:
        """Whether its process has come to hold more than when it was loaded."""
        size = self._size
        return self.phase == "resident" and size is not None and self.beside > size.beside

    @property
    def _size(self) -> Size | None:
        """What it took the last time, if that was of the same files."""
        size = self._sizes.get(self.model)
        return None if size is None or size.footprint != self.footprint else size

    @property
    def _set_aside(self) -> int:
        if self.footprint is None:
            return 0
        size = self._size
        return (self.footprint.weights if size is None else size.weights) + self.footprint.allowance

    def resident(self) -> Resident | None:
        """What the policy sees of it; None if it has no memory."""
        stage = _STAGES.get(self.phase)
        if stage is None:
            return None
        return Resident(
            model=self.model,
            weights=self.weights + self.beside,
            kv=self.kv,
            host=self.host,
            stage=stage,
            leases=len(self.leases),
            pinned=self.pinned,
            since=self.since,
            last_used=self.last_used,
            load_seconds=self.load_seconds,
        )

    def begin_load(self, now: float) -> None:
        """Set the estimated bytes aside."""
        self._beside = self.needed - self._set_aside
        self._host = 0 if self.footprint is None else self.footprint.host
        self.phase, self.weights, self.since = "loading", self._set_aside, now

    def arrive(self, engine: Engine, now: float) -> None:
        """The load is done: what was estimated is now measured."""
        self.phase, self.engine, self.broken = "resident", engine, False
        self.weights, self._beside = engine.nbytes, engine.books().beside
        if self.footprint is not None:
            self._sizes[self.model] = Size(self.footprint, self.weights, self._beside, self._beside)
        self.load_seconds, self.since, self.last_used = now - self.since, now, now

    def leave(self) -> Engine:
        """Begin to go: the engine is handed over to be closed, its bytes stay booked until it is."""
        self.rest()
        if (size := self._size) is not None:
            self._sizes[self.model] = replace(size, grown=self.beside)
        engine, self.engine = self.engine, None
        if engine is None or self.leases:
            raise RuntimeError(f"{self.model} cannot leave while {self.phase} with {len(self.leases)} leases.")
        self.phase = "leaving"
        return engine

    def gone(self) -> None:
        """No memory any more; what is on disk is looked at anew when somebody asks."""
        self.phase, self.footprint, self.weights = "absent", None, 0
        self._beside = self._host = 0
        if self.base is not None:
            asyncio.get_running_loop().call_soon(self.base.end)
            self.base = None

    @property
    def needs(self) -> str | None:
        """The model that an adapter shares weights with."""
        return self.source.base.id if isinstance(self.source, Adapted) else None

    def rest(self) -> None:
        """Stop the clock that would unload it."""
        if self.expiry is not None:
            self.expiry.cancel()
            self.expiry = None
