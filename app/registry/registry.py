"""Which models exist, are resident, are in use: the one object that controllers are given."""

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

from msgspec import structs

from app.engine.base import EngineLoader, MemoryGauge
from app.engine.leases import PendingLease
from app.errors import Conflict, ModelNotFound, SwitchyardError
from app.registry import drafts, report
from app.registry.abilities import Abilities, AbilityReader
from app.registry.budget import NoPrefixCaches, PrefixCaches, budget_of
from app.registry.catalog import Catalog
from app.registry.contexts import Contexts
from app.registry.dispatcher import Dispatcher
from app.registry.hub import Download
from app.registry.lease import AskedLease, ModelLease
from app.registry.queue import Queue
from app.registry.residency import Turns
from app.registry.shelf import Shelf
from app.registry.sources import HubRepo, Source
from app.registry.status import Figures, FoundModel, MemoryStatus, ModelCard, ModelStatus
from app.settings import ModelEntry, Settings


class ModelRegistry:
    """Leases of models by name, and what there is to lease.

    Made anywhere, used on one event loop. The loader and the gauge stay their maker's: close the registry first.
    ``turns`` are by default those of ``settings.min_residency``.
    """

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        shelf: Shelf,
        loader: EngineLoader,
        gauge: MemoryGauge,
        *,
        caches: PrefixCaches | None = None,
        turns: Turns | None = None,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._shelf = shelf
        self._gauge = gauge
        self._caches: PrefixCaches = NoPrefixCaches() if caches is None else caches
        self.changes = shelf.changes
        self._started = int(time.time())
        self._abilities = AbilityReader()
        self._reading = asyncio.Lock()
        self._removed: set[str] = set()
        self._preloads: set[asyncio.Task[None]] = set()
        self._dispatcher = Dispatcher(
            lambda source: drafts.fetch(source, catalog, shelf),
            loader,
            gauge,
            self._caches,
            budget=lambda: budget_of(self._settings, gauge),
            turns=Turns(settings.min_residency) if turns is None else turns,
            changes=shelf.changes,
            rows=settings.max_batch_rows,
            queue=Queue(settings.queue_limit, settings.queue_timeout, max(1.0, settings.min_residency)),
        )
        self._contexts = Contexts(shelf, self._dispatcher.slots, self._dispatcher.budget)
        self.changes.follow(lambda: self._caches.allow(report.spare(self._dispatcher)))

    def start(self) -> None:
        """Begin to load the models that are marked ``preload``; a failure is logged and tried again on request."""
        for name, entry in self._settings.models.items():
            if entry.preload:
                task = asyncio.get_running_loop().create_task(self._preload(name))
                self._preloads.add(task)
                task.add_done_callback(self._preloads.discard)

    def reload(self, models: dict[str, ModelEntry]) -> None:
        """Take other entries: names and sampling defaults count at once, the rest from a model's next load on."""
        self._settings = structs.replace(self._settings, models=models)
        self._catalog.reload(self._settings)
        self.changes.tell()

    async def close(self) -> None:
        """Send away who waits and unload everything; streams that still run end with an error."""
        for task in self._preloads:
            task.cancel()
        await self._dispatcher.close()

    def defaults(self, model: str | None) -> ModelEntry:
        """What the settings say of a model (None: the default one); asks neither disk nor hub, and never fails."""
        return self._catalog.entry(model)

    def lease(self, model: str | None, *, keep_alive: float | None = None) -> PendingLease:
        """The right to use a model (None: the default one), still to be entered.

        Entering may wait for a download, for others' turns and for a load; it raises
        :class:`app.errors.ModelNotFound`, :class:`app.errors.ModelUnusable`, :class:`app.errors.QueueFull`,
        :class:`app.errors.Unavailable` or what the hub or the loader failed with. Leaving waits for nothing.
        ``keep_alive`` seconds after its last use the model is unloaded (0: at once, negative: when its memory is
        needed); None is what the settings say. The latest request decides.
        """
        return AskedLease(lambda: self._acquire(model, keep_alive))

    async def load(self, model: str) -> None:
        """Return once a model is resident; raises as :meth:`lease` does."""
        async with self.lease(model):
            pass

    async def unload(self, model: str) -> None:
        """Return once a model is not resident; raises :class:`app.errors.Conflict` while it is in use."""
        await self._dispatcher.unload((await self._catalog.find(model)).id)

    async def pin(self, model: str, *, pinned: bool) -> None:
        """Keep a resident model in memory, or no longer; raises :class:`app.errors.Conflict` if it is not resident."""
        self._dispatcher.pin((await self._catalog.find(model)).id, pinned=pinned)

    async def pull(self, model: str) -> Download:
        """The download of a hub model, begun now or running already; see :meth:`Shelf.pull`."""
        return self._shelf.pull(await self._catalog.find(model))

    async def search(self, words: str, limit: int, *, every: bool = False) -> tuple[FoundModel, ...]:
        """Models of the hub that may be asked for, which of them are here and which fit; see :meth:`Hub.search`."""
        found = await self._shelf.search(words, limit, every=every)
        allowed = [it for it in found if self._catalog.allows(it.repo)]
        return report.found(
            allowed, (await report.known(self._catalog, self._shelf))[1], budget_of(self._settings, self._gauge).limit
        )

    async def delete(self, model: str) -> int:
        """Remove a hub model, all revisions, from disk; bytes freed. :class:`app.errors.Conflict` while in use."""
        source = await self._catalog.find(model)
        for slot in self._dispatcher.slots.values():
            if isinstance(source, HubRepo) and source.repo in drafts.repos(slot.source, self._catalog):
                raise Conflict(f"{slot.model} is in memory or asked for. Unload it first.")
        repo = source.repo if isinstance(source, HubRepo) else source.id
        self._removed.add(repo)  # from here on nobody begins to use it
        try:
            return await self._shelf.delete(source)
        finally:
            self._removed.discard(repo)

    async def list(self) -> tuple[ModelCard, ...]:
        """Every name of a known model: embedded, local, configured, and hub models on disk that may be asked for.

        By id, each with its aliases after it.
        """
        sources, on_disk = await report.known(self._catalog, self._shelf)
        slots, ids = self._dispatcher.slots, {source.id for source in sources}
        read, most = await self._read(sources, on_disk)
        return tuple(
            card
            for source in sources
            for card in report.cards(
                source,
                tuple(alias for alias in self._catalog.aliases(source.id) if alias not in ids),
                report.abilities_of(source, read, slots, most),
                self._started,
                slots.get(source.id),
            )
        )

    async def get(self, model: str) -> ModelCard:
        """One of :meth:`list`, by id or alias; raises :class:`app.errors.ModelNotFound`."""
        cards = {card.id: card for card in await self.list()}
        for name in (model, self._catalog.name(model)):
            if name in cards:
                return cards[name]
        raise ModelNotFound(f"There is no model {model!r} on this machine. GET /v1/models lists those that there are.")

    async def status(self) -> tuple[ModelStatus, ...]:
        """Where every known model stands, by id."""
        sources, on_disk = await report.known(self._catalog, self._shelf)
        dispatcher, downloads = self._dispatcher, self._shelf.downloads()
        known = {source.id: source for source in sources}
        known |= {slot.model: slot.source for slot in dispatcher.slots.values()}
        known |= report.being_pulled(known.values(), downloads.values())
        read, most = await self._read(known.values(), on_disk)
        queued = report.queued_by_model(dispatcher)
        return tuple(
            report.model_status(
                source,
                dispatcher.slots.get(id_),
                on_disk=id_ in on_disk or not isinstance(source, HubRepo),
                queued=queued[id_],
                aliases=self._catalog.aliases(id_),
                downloads=downloads,
                losses=dispatcher.losses.count(id_),
                abilities=report.abilities_of(source, read, dispatcher.slots, most),
            )
            for id_, source in sorted(known.items())
        )

    def memory(self) -> MemoryStatus:
        """The budget and what it is used for."""
        return report.memory_status(self._dispatcher, self._gauge, self._caches)

    def figures(self) -> Figures:
        """What resident models have to do, and what has happened since the start."""
        return report.figures(self._dispatcher)

    def health(self) -> dict[str, Literal["ok", "failing"]]:
        """Models in memory, and those that are left alone because their processes ended again and again."""
        return report.health(self._dispatcher)

    @property
    def fetching(self) -> bool:
        """Whether models are being downloaded."""
        return bool(self._shelf.downloads())

    @property
    def preloading(self) -> bool:
        """Whether models that are marked ``preload`` are still on their way."""
        return bool(self._preloads)

    def canonical(self, model: str | None) -> str:
        """The id that a name stands for, whether there is such a model or not; None: the default one."""
        return self._catalog.name(model)

    async def _read(
        self, sources: Collection[Source], on_disk: Mapping[str, Path]
    ) -> tuple[dict[str, Abilities], dict[str, int]]:
        """What the files of models on disk say that they can do, and how many tokens there is memory for."""
        paths = report.directories(sources, on_disk, self._dispatcher.slots)
        async with self._reading:
            return await asyncio.to_thread(self._abilities.all, paths), await self._contexts.fit(sources, paths)

    async def _acquire(self, model: str | None, keep_alive: float | None) -> ModelLease:
        slot = self._dispatcher.slots.get(self._catalog.name(model))  # a hit looks at no disk
        source = await self._catalog.find(model) if slot is None else slot.source
        await self._gauge.known()
        if self._removed & drafts.repos(source, self._catalog):
            raise Conflict(f"{source.id} is being removed from disk. Ask for it again to fetch it anew.")
        configured = self._settings.keep_alive if source.entry.keep_alive is None else source.entry.keep_alive
        return await self._dispatcher.acquire(source, configured if keep_alive is None else keep_alive)

    async def _preload(self, model: str) -> None:
        try:
            await self.load(model)
        except SwitchyardError as error:
            logging.getLogger(__name__).warning("%s was not preloaded: %s", model, error.message)
