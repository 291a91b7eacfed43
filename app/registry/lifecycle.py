"""The three things that take time in a model's life: fetching its files, loading them, letting it go.

Each is a task of its own that outlives whoever asked for it, and ends in one of two calls on the event loop:
``changed(slot)`` or ``failed(slot, error)``.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable

from app.engine.base import Engine, EngineLoader
from app.engine.options import PROMPT_LOOKUP, LoadOptions
from app.errors import EngineFailed, SwitchyardError
from app.registry.footprint import Footprint, ranks_of
from app.registry.lease import ModelLease
from app.registry.slot import Slot
from app.registry.sources import Adapted, Source
from app.registry.status import Counts

Fetch = Callable[[Source], Awaitable[Footprint]]
LeaseOf = Callable[[Source], Awaitable[ModelLease]]


class Lifecycle:
    """Moves slots from phase to phase; holds no engine longer than it takes to close it."""

    def __init__(
        self,
        fetch: Fetch,
        loader: EngineLoader,
        *,
        lease: LeaseOf,
        changed: Callable[[Slot], None],
        failed: Callable[[Slot, SwitchyardError], None],
    ) -> None:
        self._fetch = fetch
        self._lease = lease
        self._loader = loader
        self.counts = Counts()
        self._changed = changed
        self._failed = failed
        self._tasks: set[asyncio.Task[None]] = set()
        self._fetching: set[asyncio.Task[None]] = set()

    def fetch(self, slot: Slot) -> None:
        """``absent`` to ``stored``: files on disk, their footprint known."""
        slot.phase = "fetching"
        task = self._spawn(self._run_fetch(slot))
        self._fetching.add(task)
        task.add_done_callback(self._fetching.discard)

    def load(self, slot: Slot) -> None:
        """``stored`` to ``resident``; the estimated bytes are booked from now on."""
        slot.begin_load(_now())
        self._spawn(self._run_load(slot))

    def evict(self, slot: Slot) -> "asyncio.Task[None]":
        """``resident`` to ``absent``; the bytes stay booked until the engine has let go of them."""
        return self._spawn(self._run_close(slot, slot.leave()))

    def evict_all(self, slots: Iterable[Slot]) -> None:
        """Several."""
        for slot in slots:
            self.evict(slot)

    def let_go(self, slot: Slot) -> None:
        """To ``absent``, from where that needs nobody's patience."""
        if slot.phase == "resident":
            self.evict(slot)
        elif slot.phase == "stored":
            slot.gone()

    def tidy(self, slots: dict[str, Slot], wanted: Collection[str], *, fetch: bool) -> None:
        """Drop what nobody wants and what has no memory; fetch what somebody wants and has no files."""
        for model, slot in tuple(slots.items()):
            if model not in wanted and slot.phase in {"absent", "stored"}:
                slot.gone()
                del slots[model]
            elif slot.phase == "absent" and fetch:
                self.fetch(slot)

    async def settle(self) -> None:
        """Give up fetching and wait until everything else is done."""
        for task in self._fetching:
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _run_fetch(self, slot: Slot) -> None:
        try:
            slot.footprint = await self._fetch(slot.source)
            if isinstance(slot.source, Adapted):
                slot.base = await self._lease(slot.source.base)
        except asyncio.CancelledError:
            slot.gone()
            raise
        except Exception as error:  # noqa: BLE001 - told to everyone who waits
            self.counts.fetch_failures += 1
            slot.gone()
            self._failed(slot, _shown(error, f"{slot.model} could not be fetched. Try again, or name another model."))
        else:
            self.counts.fetches += 1
            slot.phase = "stored"
            if slot.base is None:
                self._loader.expect()
            self._changed(slot)

    async def _run_load(self, slot: Slot) -> None:
        try:
            if slot.footprint is None:
                raise RuntimeError("A model is loaded only after its files have been found.")
            engine = await self._engine(slot, slot.footprint)
        except Exception as error:  # noqa: BLE001 - told to everyone who waits
            self.counts.load_failures += 1
            slot.gone()
            self._failed(slot, _shown(error, f"{slot.model} could not be loaded. Try again, or name another model."))
        else:
            self.counts.loads += 1
            slot.arrive(engine, _now())
            del engine
            self._changed(slot)

    async def _engine(self, slot: Slot, found: Footprint) -> Engine:
        entry = slot.source.entry
        options = LoadOptions(
            quantize=entry.quantize,
            kv_bits=entry.kv_bits,
            draft=found.draft,
            lookup=entry.draft_model == PROMPT_LOOKUP,
            pooling=entry.pooling,
            dtype=entry.dtype,
            ranks=ranks_of(entry),
        )
        if slot.base is not None:
            return await self._loader.adapt(slot.base.engine, found.path, name=slot.model, options=options)
        return await self._loader.load(found.path, name=slot.model, options=options)

    async def _run_close(self, slot: Slot, engine: Engine) -> None:
        try:
            await engine.close()
        except Exception:
            logging.getLogger(__name__).exception("closing %s failed", slot.model)
        del engine
        self.counts.evictions += 1
        slot.gone()
        self._changed(slot)

    def _spawn(self, work: Coroutine[None, None, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _shown(error: Exception, otherwise: str) -> SwitchyardError:
    """The error as callers may see it; what nobody foresaw is logged and told without its details."""
    if isinstance(error, SwitchyardError):
        return error
    logging.getLogger(__name__).error("%s", otherwise, exc_info=error)
    return EngineFailed(otherwise)


def _now() -> float:
    return asyncio.get_running_loop().time()
