"""Snapshots of what the dispatcher and the shelf hold."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import psutil
from msgspec.structs import replace

from app.engine.base import MemoryGauge
from app.engine.facts import Books
from app.registry import contexts
from app.registry.abilities import EMBEDDED, Abilities
from app.registry.budget import PrefixCaches
from app.registry.catalog import Catalog
from app.registry.dispatcher import Dispatcher
from app.registry.hub import Found, Installed, Progress
from app.registry.patterns import is_pattern
from app.registry.shelf import Shelf
from app.registry.slot import Phase, Slot
from app.registry.sources import Adapted, Embedded, HubRepo, LocalDirectory, Source
from app.registry.status import Figures, FoundModel, MemoryStatus, ModelCard, ModelStatus, Origin, State, Transfer

_STATES: dict[Phase, State] = {
    "absent": "absent",
    "fetching": "downloading",
    "stored": "queued",
    "loading": "loading",
    "resident": "resident",
    "leaving": "unloading",
}


def hub_source(installed: Installed) -> HubRepo:
    """The name under which a snapshot on disk is asked for: by its repo if it is ``main``, else by its revision."""
    if "main" in installed.revisions:
        return HubRepo(id=installed.repo, repo=installed.repo)
    revision = installed.revisions[0] if installed.revisions else installed.commit
    return HubRepo(id=f"{installed.repo}@{revision}", repo=installed.repo, revision=revision)


async def known(catalog: Catalog, shelf: Shelf) -> tuple[tuple[Source, ...], dict[str, Path]]:
    """Every known model by id, and the directories of the hub's that are on disk."""
    sources = {source.id: source for source in await catalog.sources()}
    on_disk: dict[str, Path] = {}
    for installed in await shelf.installed():
        source = hub_source(installed)
        if catalog.allows(source.repo):
            id_ = catalog.written(source.id)
            sources.setdefault(id_, source)
            on_disk[id_] = installed.path
    return tuple(sources[id_] for id_ in sorted(sources)), on_disk


def origin(source: Source) -> Origin:
    """Where a model's files come from, in a word."""
    match source:
        case Embedded():
            return "embedded"
        case LocalDirectory() | Adapted():
            return "local"
        case HubRepo():
            return "hub"


def being_pulled(known: Iterable[Source], downloads: Iterable[Progress]) -> dict[str, Source]:
    """Models that are known only because they are being downloaded."""
    repos = {source.repo for source in known if isinstance(source, HubRepo)}
    return {
        source.id: source
        for it in downloads
        if it.repo not in repos
        for source in (hub_source(Installed(it.repo, "", (it.revision,), Path(), 0)),)
    }


def cards(
    source: Source, aliases: tuple[str, ...], abilities: Abilities, started: int, slot: Slot | None = None
) -> list[ModelCard]:
    """What a listing says of a model and its aliases but patterns; ``started`` stands in where no file tells an age."""
    parent = source.base.id if isinstance(source, Adapted) else None
    if source.entry.tool_prompt == "generic":
        abilities = replace(abilities, tools=abilities.chat)
    match source:
        case LocalDirectory():
            created, owner = source.created, "local"
        case Adapted():
            created, owner = int(source.path.stat().st_mtime), "local"
        case Embedded() | HubRepo():
            created, owner = started, source.id.partition("/")[0]
    own = ModelCard(id=source.id, created=created, owned_by=owner, root=source.id, parent=parent, aliases=aliases)
    loaded = None if slot is None or slot.engine is None else slot.source.entry
    own = replace(own, abilities=abilities, entry=source.entry, loaded=loaded)
    return [own, *(replace(own, id=alias, aliases=()) for alias in aliases if not is_pattern(alias))]


def directories(sources: Iterable[Source], installed: Mapping[str, Path], slots: Mapping[str, Slot]) -> dict[str, Path]:
    """Where the files of models lie that are on disk; an adapter's are those of the model that it adapts."""
    found: dict[str, Path] = {}
    for source in sources:
        model = source.base if isinstance(source, Adapted) else source
        slot = slots.get(model.id)
        if isinstance(model, LocalDirectory):
            found[source.id] = model.path
        elif slot is not None and slot.footprint is not None:
            found[source.id] = slot.footprint.path
        elif model.id in installed:
            found[source.id] = installed[model.id]
    return found


def abilities_of(
    source: Source, read: Mapping[str, Abilities], slots: Mapping[str, Slot], most: Mapping[str, int] = {}
) -> Abilities:
    """What a model can do as far as its files say, or its engine where it is resident; ``most`` tokens fit."""
    model = source.base if isinstance(source, Adapted) else source
    known = read.get(source.id, EMBEDDED if isinstance(model, Embedded) else Abilities())
    if source.entry.pooling is not None:
        known = Abilities(kind="embedding", context_length=known.context_length)
    slot = slots.get(source.id)
    if slot is not None and slot.engine is not None:
        known = replace(known, kind=slot.engine.kind, context_length=slot.engine.context_length)
    return contexts.bounded(known, most.get(source.id))


def model_status(
    source: Source,
    slot: Slot | None,
    *,
    on_disk: bool,
    queued: int,
    aliases: Iterable[str],
    downloads: Mapping[str, Progress],
    losses: int,
    abilities: Abilities,
) -> ModelStatus:
    """One model now; ``slot`` None if nobody asks for it and it has no memory."""
    progress = downloads.get(source.repo) if isinstance(source, HubRepo) else None
    transfer = None if progress is None else Transfer(progress.done, progress.total)
    if slot is None:
        state: State = "downloading" if transfer else "on_disk" if on_disk else "absent"
        known = ModelStatus(id=source.id, source=origin(source), state=state, pinned=source.entry.pin)
        known = replace(known, aliases=tuple(aliases), download=transfer, queued=queued, losses=losses)
        return replace(known, kind=abilities.kind, abilities=abilities)
    now = asyncio.get_running_loop().time()
    process = None if slot.engine is None else slot.engine.status()
    books = Books() if slot.engine is None else slot.engine.books()
    return ModelStatus(
        id=source.id,
        source=origin(source),
        state=_STATES[slot.phase],
        aliases=tuple(aliases),
        pinned=slot.pinned,
        download=transfer,
        nbytes=slot.weights,
        kv_bytes=slot.kv,
        kv_held=books.kv,
        scratch=books.scratch,
        beside=slot.beside - books.scratch,
        leases=len(slot.leases),
        queued=queued,
        idle_seconds=now - slot.last_used if slot.phase == "resident" and not slot.leases else None,
        expires_in=None if slot.expiry is None else max(0.0, slot.expiry.when() - now),
        pid=None if process is None else process.pid,
        process=0 if process is None else process.resident,
        losses=losses,
        kind=abilities.kind,
        abilities=abilities,
        ranks=() if process is None else process.ranks,
        together=None if slot.engine is None else slot.engine.together,
    )


def found(models: Iterable[Found], on_disk: Mapping[str, Path], limit: int) -> tuple[FoundModel, ...]:
    """What the hub has listed, beside what is here and ``limit`` bytes of the budget."""
    here = {id_.partition("@")[0] for id_ in on_disk}
    return tuple(
        FoundModel(
            id=it.repo,
            nbytes=it.nbytes,
            downloads=it.downloads,
            gated=it.gated,
            fits=None if it.nbytes is None else it.nbytes <= limit,
            on_disk=it.repo in here,
        )
        for it in models
    )


def queued_by_model(dispatcher: Dispatcher) -> Counter[str]:
    """How many requests wait for each model."""
    return Counter(waiter.model for waiter in dispatcher.queue)


def memory_status(dispatcher: Dispatcher, gauge: MemoryGauge, caches: PrefixCaches) -> MemoryStatus:
    """The budget now."""
    budget, active = dispatcher.budget(), gauge.active()
    slots = [slot for slot in dispatcher.slots.values() if slot.resident() is not None]
    books = [slot.engine.books() for slot in slots if slot.engine is not None]
    return MemoryStatus(
        machine=gauge.total(),
        budget=budget.total,
        margin=budget.margin,
        limit=budget.limit,
        weights=sum(slot.weights for slot in slots),
        kv=sum(slot.kv for slot in slots),
        kv_held=sum(it.kv for it in books),
        scratch=(scratch := sum(it.scratch for it in books)),
        processes=sum(slot.beside for slot in slots) - scratch,
        prefix_caches=caches.nbytes(),
        disk_cache=sum(work.on_disk.nbytes for work in figures(dispatcher).work.values()),
        active=active,
        unaccounted=budget.unaccounted(active, sum(slot.booked for slot in slots) + caches.nbytes()),
        queued=len(dispatcher.queue),
        pool=gauge.pool(),
        process=psutil.Process().memory_info().rss + sum(resident_memory(dispatcher).values()),
        books_error=max((it.error for it in books), key=abs, default=0),
        host_budget=gauge.host_budget(),
        host=sum(slot.host for slot in slots),
    )


def resident_memory(dispatcher: Dispatcher) -> dict[int, int]:
    """Bytes of resident memory of models' processes, by process: an adapter shares that of its base."""
    engines = [slot.engine for slot in dispatcher.slots.values() if slot.engine is not None]
    return {status.pid: status.resident for status in (engine.status() for engine in engines)}


def figures(dispatcher: Dispatcher) -> Figures:
    """What resident models have to do, and what has happened since the start."""
    engines = {model: slot.engine for model, slot in dispatcher.slots.items() if slot.engine is not None}
    work = {model: engine.work() for model, engine in engines.items()}
    books = {model: engine.books() for model, engine in engines.items()}
    return Figures(work, books, dispatcher.counts, dispatcher.losses.total)


def health(dispatcher: Dispatcher) -> dict[str, Literal["ok", "failing"]]:
    """Which models are well, and which are left alone for a while."""
    now = asyncio.get_running_loop().time()
    well = [slot.model for slot in dispatcher.slots.values() if slot.phase == "resident" and not slot.broken]
    found: dict[str, Literal["ok", "failing"]] = dict.fromkeys(sorted(well), "ok")
    return found | dict.fromkeys(dispatcher.losses.failing(now), "failing")


def spare(dispatcher: Dispatcher) -> int:
    """Bytes that prefix caches may have: what is free, but for 1/16 of the budget in which requests begin at once."""
    limit, slots = dispatcher.budget().limit, dispatcher.slots.values()
    return limit - limit // 16 - sum(slot.booked for slot in slots)
