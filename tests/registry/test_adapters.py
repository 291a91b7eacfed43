"""Adapters in memory beside the bases whose weights they share."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from app.errors import Conflict, ModelNotFound, Unavailable
from app.registry.catalog import Catalog
from app.registry.lease import AskedLease
from app.registry.residency import Turns
from app.registry.sources import Adapted, HubRepo, LocalDirectory
from app.settings import ModelEntry, Settings
from tests.registry.house import House
from tests.registry.models import write_adapter, write_model
from tests.support.virtual_time import run

SIZES = {"a": 100, "b": 100, "a:x": 10, "a:y": 10, "b:x": 10}


def house(budget: int = 250, **more: Any) -> House:
    return House(budget, sizes=SIZES, turns=Turns(2.0, 0.0), **more)


async def use(house: House, name: str, seconds: float = 0.0, keep_alive: float = -1.0) -> None:
    base = HubRepo(id=name[0], repo=name[0])
    source = Adapted(id=name, base=base, path=Path(name)) if ":" in name else base
    async with AskedLease(lambda: house.dispatcher.acquire(source, keep_alive)) as lease:
        assert lease.model == name
        assert not house.loader.engines[name].closed
        assert not house.loader.engines[name[0]].closed, "the base is there as long as its adapter"
        await asyncio.sleep(seconds)
        assert not house.loader.engines[name[0]].closed
    house.check()


def test_an_adapter_brings_its_base_and_keeps_it() -> None:
    async def work() -> None:
        it = house()
        await use(it, "a:x")
        await use(it, "a:y")
        await use(it, "a")
        assert it.resident == {"a", "a:x", "a:y"}
        assert it.loads("a") == 1
        assert sum(resident.nbytes for resident in it.dispatcher.residents()) == 120
        with pytest.raises(Conflict, match="in use"):
            await it.dispatcher.unload("a")
        await it.dispatcher.unload("a:x")
        await it.dispatcher.unload("a:y")
        await asyncio.sleep(0)
        await it.dispatcher.unload("a")
        assert it.memory.active() == 0

    run(work())


def test_idle_adapters_go_when_their_base_is_wanted_gone() -> None:
    async def work() -> None:
        it = house(budget=125)
        for name in ("a:x", "a:y", "b:x", "a", "b", "a:x", "b:x"):
            await use(it, name)
        assert it.resident == {"b", "b:x"}
        assert len(it.queue) == 0

    run(work())


def test_bases_and_adapters_alternate_and_nobody_starves() -> None:
    async def work() -> None:
        it = house(budget=125)
        names = [name for name in SIZES for _ in range(5)]
        await asyncio.gather(*(use(it, name, seconds=0.5) for name in names))
        await asyncio.sleep(1)
        it.check()
        assert len(it.queue) == 0
        assert all(not slot.kv for slot in it.dispatcher.slots.values())

    run(work())


def test_a_base_that_fails_to_load_fails_its_adapter_and_leaves_nothing() -> None:
    async def work() -> None:
        it = house()
        it.loader.failures["a"] = [Unavailable("no")]
        with pytest.raises(Unavailable, match="no"):
            await use(it, "a:x")
        it.loader.failures["a:x"] = [Unavailable("not this")]
        with pytest.raises(Unavailable, match="not this"):
            await use(it, "a:x")
        await asyncio.sleep(0)
        assert it.resident == {"a"}
        await it.dispatcher.unload("a")
        assert it.memory.active() == 0

    run(work())


def test_who_leaves_while_the_base_is_loaded_leaves_no_lease() -> None:
    async def work() -> None:
        it = house()
        asked = asyncio.create_task(use(it, "a:x"))
        await asyncio.sleep(0.5)
        asked.cancel()
        await asyncio.sleep(5)
        assert it.resident == {"a"}
        await it.dispatcher.unload("a")

    run(work())


def adapters(tmp_path: Path, **models: ModelEntry) -> Catalog:
    write_model(tmp_path / "base")
    write_adapter(tmp_path / "lora" / "mine")
    return Catalog(Settings(model_roots=(tmp_path,), allow_models=("org/*",), models=models))


def test_names_of_adapters(tmp_path: Path) -> None:
    catalog = adapters(tmp_path, base=ModelEntry(temperature=0.5, pin=True))
    found = run(catalog.find("base:lora/mine"))
    assert isinstance(found, Adapted)
    assert isinstance(found.base, LocalDirectory)
    assert (found.path, found.entry) == (tmp_path / "lora" / "mine", ModelEntry(temperature=0.5))
    hub = run(catalog.find("org/name@v2:lora/mine"))
    assert hub.base == HubRepo(id="org/name@v2", repo="org/name", revision="v2")
    for name in (
        "base:",
        "base:lora",
        "base:../lora/mine",
        "base:/etc",
        "other/name:lora/mine",
        ":lora/mine",
        "base:base",
    ):
        with pytest.raises(ModelNotFound):
            run(catalog.find(name))


def test_entries_name_adapters(tmp_path: Path) -> None:
    entries = {
        "base": ModelEntry(adapter="lora/mine", aliases=("bot",)),
        "org/x:short": ModelEntry(adapter="lora/mine"),
    }
    catalog = adapters(tmp_path, **entries)
    for name in ("base", "bot", "base:lora/mine"):
        found = run(catalog.find(name))
        assert (found.id, found.base.id) == ("base:lora/mine", "base")
        assert found.entry == entries["base"]
    assert run(catalog.find("org/x:short")).id == "org/x:short"
    assert {"base:lora/mine", "org/x:short"} <= {source.id for source in run(catalog.sources())}
