"""Models made of others: quantised on load, and adapted by LoRA."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from app.engine.base import Sequence, Token
from app.engine.mlx.batch.engine import MLXEngine
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.cache.prefix import PrefixPool
from app.engine.mlx.load import weights
from app.engine.mlx.load.loader import MLXLoader
from app.engine.mlx.load.scratch import scratch_of
from app.engine.mlx.memory import release
from app.engine.options import Batching, LoadOptions
from app.errors import ModelUnusable
from app.registry.footprint import footprint
from app.schemas.sampling import Sampling
from tests.support.adapters import make_adapter
from tests.support.tiny import make_tiny, tiny

WIDTH = 64
KEYS = {"self_attn.q_proj": (WIDTH, WIDTH), "mlp.down_proj": (2 * WIDTH, WIDTH)}


@pytest.fixture
async def making(loader: MLXLoader, tmp_path: Path) -> MLXLoader:
    """A loader on the session's thread that keeps what it makes below ``tmp_path``."""
    return MLXLoader(loader._thread, PrefixPool(0), Batching(4, 64), cache=tmp_path / "cache")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "adapter", KEYS, dropout=0.1)


async def said(engine: MLXEngine, tokens: int = 12) -> list[int]:
    sampling = Sampling(temperature=0.0)
    stream = engine.stream((Sequence(prompt=tuple(range(5, 25)), sampling=sampling, max_tokens=tokens),))
    out = []
    async for items in stream:
        out += [item.id for item in items if isinstance(item, Token)]
    stream.close()
    return out


async def held_now(making: MLXLoader) -> int:
    """Bytes of all arrays of this process, once what nobody uses is gone."""
    await making._thread.call(release)
    return mx.get_active_memory()


async def test_an_adapter_takes_its_own_bytes_and_gives_them_back(making: MLXLoader, adapter: Path) -> None:
    """Models of other tests of this process may be at work meanwhile, but not in every try."""
    base, tried = await making.load(tiny(), name="base"), list[tuple[int, int]]()
    own = sum(array.nbytes for array in mx.load(str(adapter / "adapters.safetensors")).values())
    for _ in range(20):
        before = await held_now(making)
        engine = await making.adapt(base, adapter, name="base:adapter")
        assert engine.nbytes == own
        grown = abs(await held_now(making) - before - own)
        await engine.close()
        tried.append((grown, abs(await held_now(making) - before)))
        if grown < base.nbytes // 4 and tried[-1][1] < 1 << 16:
            break
        await asyncio.sleep(0.2)
    else:
        raise AssertionError(f"an adapter of {own} bytes beside a base of {base.nbytes}: {tried}")
    await base.close()


async def test_an_adapter_shares_its_base(making: MLXLoader, adapter: Path) -> None:
    base = await making.load(tiny(), name="base")
    before = await said(base)
    engine = await making.adapt(base, adapter, name="base:adapter")
    mine, shared = (dict(tree_flatten(it.loaded.model.parameters())) for it in (engine, base))
    assert mine["model.layers.0.self_attn.q_proj.linear.weight"] is shared["model.layers.0.self_attn.q_proj.weight"]
    after = await said(engine)
    assert after != before
    assert after == await said(engine), "nothing is dropped at random"
    assert await said(base) == before
    assert engine.fingerprint != base.fingerprint
    await engine.close()
    assert await said(base) == before
    await base.close()


async def test_an_adapter_of_another_shape_is_refused(making: MLXLoader, adapter: Path, tmp_path: Path) -> None:
    base = await making.load(make_tiny(tmp_path / "wide", seed=1, width=128), name="wide")
    before = await said(base)
    with pytest.raises(ModelUnusable, match="'wide:adapter' cannot be loaded") as refused:
        await making.adapt(base, adapter, name="wide:adapter")
    assert str(tmp_path) not in refused.value.message
    assert await said(base) == before
    await base.close()


async def test_quantising_on_load_is_kept_and_counted(making: MLXLoader, tmp_path: Path) -> None:
    dense = make_tiny(tmp_path / "dense", seed=2, width=128)
    engine = await making.load(dense, name="dense", options=LoadOptions(quantize=4))
    (kept,) = (tmp_path / "cache").iterdir()
    assert json.loads((kept / "config.json").read_text())["quantization"]["bits"] == 4
    assert engine.nbytes == footprint(dense, quantize=4).weights
    assert engine.nbytes < footprint(dense).weights / 5
    first = await said(engine)
    await engine.close()
    written = {file.name: file.stat().st_mtime_ns for file in kept.iterdir()}
    again = await making.load(dense, name="dense", options=LoadOptions(quantize=4))
    assert {file.name: file.stat().st_mtime_ns for file in kept.iterdir()} == written
    assert await said(again) == first
    await again.close()
    made = await making.load(kept, name="kept", options=LoadOptions(quantize=8))
    assert made.nbytes == engine.nbytes, "what is quantised already stays as it is"
    await made.close()


async def test_a_quantisation_that_fails_leaves_nothing(
    making: MLXLoader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: str | dict[str, mx.array], **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mx, "save_safetensors", full)
    with pytest.raises(ModelUnusable, match="No space left"):
        await making.load(tiny(), name="tiny", options=LoadOptions(quantize=4))
    assert list((tmp_path / "cache").iterdir()) == []


async def test_what_computing_takes_is_measured_at_the_first_load_alone(
    making: MLXLoader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured = []

    def counted(model: Any, kv: KV) -> Iterator[Any]:
        measured.append(model)
        return scratch_of(model, kv)

    monkeypatch.setattr(weights, "scratch_of", counted)
    laws = []
    for _ in range(2):
        engine = await making.load(tiny(), name="tiny")
        laws.append(engine.loaded.scratch)
        await engine.close()
    assert len(measured) == 1
    assert laws[0] == laws[1]
    assert laws[0].nbytes(64, 0) > 0
    for file in (tmp_path / "switchyard" / "scratchlaw").iterdir():
        file.write_bytes(b"not what was written")
    await (await making.load(tiny(), name="tiny")).close()
    assert len(measured) == 2
