"""``draft_model``: found, fetched and counted with the model that it drafts for, or refused by its name."""

from pathlib import Path

import pytest

from app.engine.base import Sequence
from app.engine.options import DraftOptions, LoadOptions
from app.errors import Conflict, ModelUnusable, Unavailable
from app.main import model_registry
from app.registry.catalog import Catalog
from app.registry.footprint import Footprint
from app.registry.hub.hub import Hub
from app.registry.registry import ModelRegistry
from app.registry.shelf import Shelf
from app.schemas.sampling import Sampling
from app.settings import SMOLLM2, ModelEntry, Settings
from tests.registry.conftest import IMPATIENT, REPO
from tests.registry.models import write_adapter, write_model
from tests.registry.test_registry import ALLOWANCE, opened
from tests.support.hub import INFO, Faults, LocalHub
from tests.support.scripted import ScriptedLoader, ScriptedMemory, scripted_device
from tests.support.tiny import make_tiny


def footprints(registry: ModelRegistry) -> dict[str, Footprint]:
    slots = registry._dispatcher.slots.values()
    return {slot.model: slot.footprint for slot in slots if slot.footprint is not None}


async def _nothing_embedded() -> Path:
    raise AssertionError("nobody asks for the embedded model")


async def test_the_draft_reaches_the_loader_as_its_own_entry_says_and_its_bytes_are_counted(tmp_path: Path) -> None:
    write_model(tmp_path / "root" / "large", weights=4000)
    models = {
        "large": ModelEntry(draft_model="small", kv_bits=8),
        "tiny-a": ModelEntry(aliases=("small",), quantize=4, draft_model="tiny-b"),
    }
    async with opened(tmp_path, models=models) as (registry, loader):
        await registry.load("large")
        path = tmp_path / "root" / "tiny-a"
        draft = DraftOptions(name="small", path=path, quantize=4)
        assert loader.options == {"large": LoadOptions(kv_bits=8, draft=draft)}
        found = footprints(registry)["large"]
        assert (found.weights, found.draft) == (4000 + 400, draft)
        assert found.allowance == 2 * ALLOWANCE


async def test_the_embedded_model_drafts_and_so_does_one_for_an_adapter(tmp_path: Path) -> None:
    write_adapter(tmp_path / "root" / "lora")
    models = {"tiny-a": ModelEntry(draft_model="smollm2"), "tiny-b:lora": ModelEntry(draft_model="tiny-a")}
    async with opened(tmp_path, models=models) as (registry, loader):
        for name in ("tiny-a:lora", "tiny-b:lora"):
            await registry.load(name)
        drafts = {name: options.draft and options.draft.path.name for name, options in loader.options.items()}
        assert drafts == {"tiny-a": "embedded", "tiny-a:lora": "embedded", "tiny-b": None, "tiny-b:lora": "tiny-a"}
        assert footprints(registry)["tiny-b:lora"].weights == 400 + 400
        for name in ("tiny-a:lora", "tiny-b:lora"):
            await registry.unload(name)


@pytest.mark.parametrize(
    ("draft", "why"),
    [
        ("tiny-a", "is the model itself"),
        ("itself", "is the model itself"),
        ("absent", "cannot be had: There is no model 'absent' here"),
        ("org/absent", "cannot be had: org/absent is not on this machine, and the server is offline"),
        ("tiny-b:lora", "cannot be had: "),
        ("broken", "cannot be had: "),
    ],
)
async def test_a_draft_that_cannot_be_had_is_refused_by_its_name(tmp_path: Path, draft: str, why: str) -> None:
    broken = write_model(tmp_path / "root" / "broken")
    (broken / "model.safetensors").write_bytes(b"1234")
    models = {"tiny-a": ModelEntry(draft_model=draft, aliases=("itself",))}
    async with opened(tmp_path, models=models, allow_models=()) as (registry, loader):
        with pytest.raises(ModelUnusable) as refused:
            await registry.load("tiny-a")
        assert f"draft_model = '{draft}' of tiny-a {why}" in refused.value.message
        assert refused.value.message.endswith("Name another draft_model in its entry in models.toml, or take it out.")
        assert loader.diary == []
        await registry.load("tiny-b")


async def test_an_adapters_draft_is_not_its_base(tmp_path: Path) -> None:
    write_adapter(tmp_path / "root" / "lora")
    models = {"tiny-a:lora": ModelEntry(draft_model="tiny-a"), "tiny-b": ModelEntry(draft_model="tiny-a:lora")}
    async with opened(tmp_path, models=models) as (registry, _):
        with pytest.raises(ModelUnusable, match="is the model itself"):
            await registry.load("tiny-a:lora")
        with pytest.raises(ModelUnusable, match="An adapter cannot draft"):
            await registry.load("tiny-b")


async def test_a_draft_of_the_hub_is_fetched_with_its_target_and_kept_while_it_is_used(
    tmp_path: Path, hub: Hub, server: LocalHub
) -> None:
    write_model(tmp_path / "root" / "large")
    models = {"large": ModelEntry(draft_model=REPO)}
    settings = Settings(model_roots=(tmp_path / "root",), memory_budget=10_000_000, allow_models=(), models=models)

    memory = ScriptedMemory()
    loader = ScriptedLoader(memory)
    shelf = Shelf(hub, _nothing_embedded, offline=False, device=scripted_device)
    registry = ModelRegistry(settings, Catalog(settings), shelf, loader, memory)
    server.faults[INFO] = Faults(status=503, times=IMPATIENT.attempts)
    with pytest.raises(Unavailable, match=f"draft_model = '{REPO}' of large: "):
        await registry.load("large")
    await registry.load("large")
    assert server.count("model.safetensors") == 1
    draft = loader.options["large"].draft
    assert draft.path == await hub.local(REPO, None)
    assert footprints(registry)["large"].weights == 400 + 600_000
    with pytest.raises(Conflict):
        await registry.delete(REPO)
    await registry.unload("large")
    assert await registry.delete(REPO) > 600_000
    await registry.close()


async def test_what_models_toml_says_speeds_up_a_real_engine(tmp_path: Path) -> None:
    make_tiny(tmp_path / "large", seed=4, layers=2)
    make_tiny(tmp_path / "small", seed=4, layers=1)
    models = {"large": ModelEntry(draft_model="small")}
    settings = Settings(model_roots=(tmp_path,), memory_budget=4 << 30, offline=True, models=models)
    async with model_registry(settings) as registry:
        async with registry.lease("small") as lease:
            small = lease.engine.nbytes, lease.engine.law.token
        async with registry.lease("large") as lease:
            found, engine = footprints(registry)["large"], lease.engine
            assert found.weights == engine.nbytes
            assert engine.law.token == 3 * small[1]
            stream = engine.generate((Sequence((5, 6, 7), Sampling(temperature=0.0), max_tokens=40),))
            async for _ in stream:
                pass
            assert engine.work().proposed > 0
        memory = registry.memory()
        assert memory.weights == engine.nbytes + small[0]


def test_a_draft_that_the_settings_name_may_be_fetched() -> None:
    catalog = Catalog(Settings(allow_models=(), models={SMOLLM2: ModelEntry(draft_model="org/small@v1")}))
    assert catalog.allows("org/small")
    assert not catalog.allows("org/other")
