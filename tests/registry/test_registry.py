import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from app.engine.facts import DeviceFacts
from app.engine.options import LoadOptions
from app.errors import Conflict, InvalidRequest, ModelNotFound, ModelUnusable
from app.registry.budget import Budget, NoPrefixCaches, PrefixCaches, budget_of, preflight
from app.registry.catalog import Catalog
from app.registry.footprint import footprint, kv_bytes_per_token
from app.registry.hub import Hub
from app.registry.registry import ModelRegistry
from app.registry.shelf import Shelf
from app.registry.sources import HubRepo
from app.registry.status import ModelStatus
from app.settings import SMOLLM2, ModelEntry, Settings
from tests.registry.models import CONFIG, write_model
from tests.support.scripted import ScriptedLoader, ScriptedMemory, scripted_device

KV = 2 * 2 * 2 * 2 * 16
ALLOWANCE = 1024 * KV


@asynccontextmanager
async def opened(
    tmp_path: Path, caches: PrefixCaches | None = None, **more: Any
) -> AsyncIterator[tuple[ModelRegistry, ScriptedLoader]]:
    """A registry of real directories (tiny-a, tiny-b, the embedded one) and an empty hub cache, offline."""
    root = tmp_path / "root"
    for name in ("tiny-a", "tiny-b"):
        if not (root / name).exists():
            write_model(root / name)
    embedded = tmp_path / "embedded"
    if not embedded.exists():
        write_model(embedded)

    async def provide() -> Path:
        return embedded

    asked: dict[str, Any] = {"model_roots": (root,), "memory_budget": 10_000_000, "offline": True} | more
    settings = Settings(**asked)
    memory = ScriptedMemory()
    loader = ScriptedLoader(memory, sizes=dict.fromkeys(("tiny-a", "tiny-b", SMOLLM2), 400))
    hub = Hub(cache_dir=tmp_path / "cache", offline=True)
    shelf = Shelf(hub, provide, offline=settings.offline, device=scripted_device)
    registry = ModelRegistry(settings, Catalog(settings), shelf, loader, memory, caches=caches)
    registry.start()
    try:
        yield registry, loader
    finally:
        await registry.close()
        await hub.close()
    assert memory.active() == 0


def test_a_process_beside_a_device_with_its_own_memory_takes_the_systems(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    (model / "tokenizer.json").write_text(" " * 1000)
    cuda, cpu = DeviceFacts("cuda", 1 << 40, 2, 16 << 30), DeviceFacts("cpu", 1 << 40, 4)
    apart, together = (footprint(model, process=it.process, host_process=it.host_process) for it in (cuda, cpu))
    assert (apart.host, apart.beside, apart.needed) == (cuda.host_process + 12_000, 0, 400 + ALLOWANCE)
    assert (together.host, together.beside) == (0, cpu.process + 12_000)
    assert (cuda.host_budget, cpu.host_budget, scripted_gauge(cuda).host) == (12 << 30, 0, 12 << 30)
    assert scripted_gauge(cpu).host == math.inf


def scripted_gauge(device: DeviceFacts) -> Budget:
    return budget_of(Settings(), ScriptedMemory(host=device.host_budget))


async def until(done: Callable[..., Any]) -> None:
    for _ in range(2000):
        if done():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("It does not happen.")


async def test_no_model_named_is_the_embedded_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as (registry, loader):
        async with registry.lease(None) as lease:
            assert lease.model == SMOLLM2
            assert lease.engine is loader.engines[SMOLLM2]
        async with registry.lease("smollm2"):
            pass
        assert loader.diary == [("load", SMOLLM2), ("loaded", SMOLLM2)]


async def test_prefix_caches_may_have_what_models_and_requests_leave_free(tmp_path: Path) -> None:
    class Caches(NoPrefixCaches):
        allowed = None

        def allow(self, nbytes: int) -> None:
            self.allowed = nbytes

    caches = Caches()
    async with opened(tmp_path, caches) as (registry, _):
        async with registry.lease("tiny-a") as lease:
            idle = caches.allowed
            await lease.admit(100)
            assert caches.allowed < idle
            booked = sum(it.nbytes for it in registry._dispatcher.residents())
            limit = registry.memory().limit
            assert caches.allowed + booked == limit - limit // 16
        assert caches.allowed == idle


async def test_a_lease_asks_for_nothing_until_it_is_entered(tmp_path: Path) -> None:
    async with opened(tmp_path) as (registry, loader):
        registry.lease("tiny-a")
        registry.lease("../nonsense")
        await asyncio.sleep(0)
        assert loader.diary == []


async def test_offline_only_what_is_on_disk_exists(tmp_path: Path) -> None:
    async with opened(tmp_path) as (registry, _):
        with pytest.raises(ModelNotFound, match="offline"):
            await registry.load("org/name")
        with pytest.raises(InvalidRequest, match="offline"):
            await registry.pull("org/name")


async def test_a_truncated_model_costs_its_caller_a_clear_answer(tmp_path: Path) -> None:
    async with opened(tmp_path) as (registry, loader):
        await registry.load("tiny-a")
        weights = write_model(tmp_path / "root" / "broken") / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
        registry._catalog._scanned_at = None
        with pytest.raises(ModelUnusable, match=r"model\.safetensors is truncated or corrupt") as refused:
            await registry.load("broken")
        assert str(tmp_path) not in refused.value.message
        assert loader.engines["tiny-a"].closed is False


async def test_lists_and_gets_what_may_be_asked_for(tmp_path: Path) -> None:
    write_model(tmp_path / "cache" / "models--org--here" / "snapshots" / ("0" * 40))
    refs = tmp_path / "cache" / "models--org--here" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    models = {"org/configured": ModelEntry(aliases=("nick",))}
    async with opened(tmp_path, models=models) as (registry, _):
        cards = await registry.list()
        names = [(SMOLLM2, "smollm2"), ("org/configured", "nick"), ("org/here",), ("tiny-a",), ("tiny-b",)]
        assert [card.id for card in cards] == [name for same in names for name in same]
        assert [card.root for card in cards] == [same[0] for same in names for _ in same]
        owners = ["HuggingFaceTB"] * 2 + ["org"] * 3 + ["local"] * 2
        assert [card.owned_by for card in cards] == owners
        assert all(card.created > 1_600_000_000 for card in cards)
        assert (await registry.get("nick")).root == "org/configured"
        assert [(await registry.get(card.id)) for card in cards] == list(cards)
        assert (await registry.get("org/configured")).aliases == ("nick",)
        with pytest.raises(ModelNotFound, match="org/unknown"):
            await registry.get("org/unknown")
        await registry.load("org/here")
    async with opened(tmp_path, allow_models=("other/*",)) as (registry, _):
        assert "org/here" not in {card.id for card in await registry.list()}


async def test_status_tells_every_state(tmp_path: Path) -> None:
    models = {"org/absent": ModelEntry(), "tiny-b": ModelEntry(pin=True, keep_alive=60.0)}
    async with opened(tmp_path, models=models) as (registry, loader):

        async def states() -> dict[str, ModelStatus]:
            return {status.id: status for status in await registry.status()}

        assert (await states())["org/absent"].state == "absent"
        assert (await states())["tiny-a"].state == "on_disk"
        loader.gate.clear()
        loading = asyncio.create_task(registry.load("tiny-a"))
        await until(lambda: ("load", "tiny-a") in loader.diary)
        status = (await states())["tiny-a"]
        assert (status.state, status.nbytes, status.queued) == ("loading", 400 + ALLOWANCE, 1)
        loader.gate.set()
        await loading
        async with registry.lease("tiny-a", keep_alive=30.0) as lease:
            await lease.admit(10)
            status = (await states())["tiny-a"]
            assert (status.state, status.nbytes, status.kv_bytes, status.leases) == ("resident", 400, 10, 1)
            assert status.idle_seconds is None
            assert registry.memory().kv == 10
        status = (await states())["tiny-a"]
        assert status.expires_in is not None
        assert 29.0 < status.expires_in <= 30.0
        assert status.idle_seconds is not None
        assert 0.0 <= status.idle_seconds < 1.0
        await registry.load("tiny-b")
        assert (await states())["tiny-b"].expires_in is None, "a pinned model stays"
        memory = registry.memory()
        assert (memory.budget, memory.weights, memory.active, memory.kv) == (10_000_000, 800, 800, 0)


async def test_preloads_and_reports_failures_without_stopping(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    models = {"tiny-a": ModelEntry(preload=True), "org/absent": ModelEntry(preload=True)}
    async with opened(tmp_path, models=models) as (registry, loader):
        await until(lambda: ("loaded", "tiny-a") in loader.diary and "org/absent was not preloaded" in caplog.text)
        async with registry.lease("tiny-a"):
            pass
        assert loader.diary == [("load", "tiny-a"), ("loaded", "tiny-a")]


async def test_settings_say_how_long_models_stay(tmp_path: Path) -> None:
    models = {"tiny-b": ModelEntry(keep_alive=-1.0)}
    async with opened(tmp_path, keep_alive=0.0, models=models) as (registry, _):
        for name in ("tiny-a", "tiny-b"):
            await registry.load(name)
        await asyncio.sleep(0.01)
        assert registry.memory().weights == 400
        async with registry.lease("tiny-b", keep_alive=0.0):
            pass
        await asyncio.sleep(0.01)
        assert registry.memory().weights == 0


async def test_unload_and_delete_leave_what_is_in_use_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as (registry, _):
        async with registry.lease("tiny-a"):
            with pytest.raises(Conflict):
                await registry.unload("tiny-a")
        await registry.unload("tiny-a")
        with pytest.raises(InvalidRequest, match="not a model of the hub"):
            await registry.delete("tiny-a")
        with pytest.raises(ModelNotFound):
            await registry.delete("org/absent")


async def test_what_is_being_removed_is_given_to_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as (registry, _):
        source = HubRepo(id="org/gone", repo="org/gone", entry=ModelEntry())
        removing, may_end = asyncio.Event(), asyncio.Event()

        async def find(_: str) -> HubRepo:
            return source

        async def delete(_: HubRepo) -> int:
            removing.set()
            await may_end.wait()
            return 7

        monkeypatch.setattr(registry._catalog, "find", find)
        monkeypatch.setattr(registry._shelf, "delete", delete)
        gone = asyncio.ensure_future(registry.delete("org/gone"))
        await removing.wait()
        with pytest.raises(Conflict, match="being removed"):
            async with registry.lease("org/gone"):
                pass
        may_end.set()
        assert await gone == 7
        assert not registry._removed


async def test_a_budget_of_a_share_of_the_machine(tmp_path: Path) -> None:
    async with opened(tmp_path, memory_budget=None, memory_fraction=0.5) as (registry, _):
        assert registry.memory().budget == 500
    async with opened(tmp_path / "auto", memory_budget=None) as (registry, _):
        assert registry.memory().budget == 750


@pytest.mark.parametrize(("kind", "share"), [("metal", 0.95), ("cuda", 0.9), ("cpu", 0.75)])
def test_what_models_have_by_default_is_the_devices(kind: Literal["cpu", "metal", "cuda"], share: float) -> None:
    assert DeviceFacts(kind, 1000, 2).default_budget == 1000 * share


async def test_defaults_ask_nobody(tmp_path: Path) -> None:
    async with opened(tmp_path, models={SMOLLM2: ModelEntry(temperature=0.2)}) as (registry, _):
        assert registry.defaults(None).temperature == registry.defaults("smollm2").temperature == 0.2
        assert registry.defaults("../nonsense") == ModelEntry()


def test_the_footprint_is_read_from_headers(tmp_path: Path) -> None:
    found = footprint(write_model(tmp_path / "m", weights=4000))
    assert (found.weights, found.allowance, found.needed) == (4000, ALLOWANCE, 4000 + ALLOWANCE)


def header(path: Path, **tensors: Any) -> None:
    """A weights file of zeros with tensors by ``name=(dtype, bytes a value, *shape)``."""
    at, told = 0, {}
    for name, (dtype, width, *shape) in tensors.items():
        end = at + width * math.prod(shape)
        told[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(told).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(at))


def test_values_of_16_bits_count_as_the_engine_holds_them(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    header(model / "model.safetensors", a=("BF16", 2, 4, 64), b=("F16", 2, 10), c=("F32", 4, 5), d=("U32", 4, 7))
    assert footprint(model).weights == 512 + 20 + 20 + 28
    assert footprint(model, half_bytes=4).weights == 1024 + 40 + 20 + 28
    assert footprint(model, half_bytes=4).allowance == 2 * footprint(model).allowance


def test_what_is_quantised_on_load_counts_packed(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    header(model / "model.safetensors", a=("BF16", 2, 4, 64), b=("F16", 2, 10), odd=("F16", 2, 4, 10))
    packed = 4 * 64 // 2 + 2 * 2 * 4
    assert footprint(model, quantize=4).weights == packed + 20 + 80
    header(model / "model.safetensors", **{"a.weight": ("U32", 4, 4, 64), "a.scales": ("F16", 2, 4, 64)})
    assert footprint(model, quantize=4).weights == 1024 + 512, "it is quantised already"


def test_what_exceeds_the_budget_is_refused_before_it_is_fetched() -> None:
    budget = Budget(1000, margin=100)
    preflight(budget, "org/fits", 900, None)
    preflight(budget, "org/packed", 7200, 4)
    for weights, quantize in ((901, None), (7208, 4)):
        with pytest.raises(ModelUnusable, match=r"org/large .* 900 bytes of the budget of 1.0 kB"):
            preflight(budget, "org/large", weights, quantize)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (CONFIG, KV),
        ({"text_config": CONFIG}, KV),
        ({**CONFIG, "head_dim": 32}, 2 * KV),
        ({**CONFIG, "num_key_value_heads": None}, 2 * KV),
        ({}, 0),
        ({**CONFIG, "num_hidden_layers": "many"}, 0),
        ({**CONFIG, "num_hidden_layers": -1}, 0),
    ],
)
def test_kv_bytes_follow_from_the_configuration(tmp_path: Path, config: dict[str, Any], expected: int) -> None:
    assert kv_bytes_per_token(write_model(tmp_path / "m", config=config)) == expected


@pytest.mark.parametrize(
    ("width", "bits", "head_bytes"),
    [(64, 4, 32 + 4), (128, 8, 128 + 8), (96, 4, 48 + 12), (32, 3, 12 + 4), (16, 4, 32), (64, None, 128)],
)
def test_a_kv_cache_of_few_bits_counts_packed(tmp_path: Path, width: int, bits: int | None, head_bytes: int) -> None:
    """A scale and a bias of two bytes each for 64 values, or for 32; a head that neither divides stays as it is."""
    model = write_model(tmp_path / "m", config={**CONFIG, "head_dim": width})
    assert kv_bytes_per_token(model, kv_bits=bits) == KV // 32 * head_bytes


async def test_what_an_entry_says_counts_before_the_load_and_reaches_the_loader(tmp_path: Path) -> None:
    models = {"tiny-a": ModelEntry(quantize=8, kv_bits=4)}
    root = tmp_path / "root"
    for name in ("tiny-a", "tiny-b"):
        write_model(root / name, config={**CONFIG, "head_dim": 64})
    async with opened(tmp_path, models=models) as (registry, loader):
        await registry.load("tiny-a")
        await registry.load("tiny-b")
        assert loader.options == {"tiny-a": LoadOptions(quantize=8, kv_bits=4), "tiny-b": LoadOptions()}
        needed = {slot.model: slot.footprint.allowance for slot in registry._dispatcher.slots.values()}
        assert needed == {"tiny-a": ALLOWANCE // 32 * 36, "tiny-b": ALLOWANCE // 32 * 128}


def test_a_broken_configuration_promises_nothing(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    for text in (b"", b"\xff\xfe", b"[" * 100_000, b"[]", b"null"):
        (model / "config.json").write_bytes(text)
        assert kv_bytes_per_token(model) == 0
