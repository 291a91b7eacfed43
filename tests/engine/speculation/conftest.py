"""A target and its drafts: ``right`` has the target's own logits at half its layers, ``wrong`` has other weights.

``wrong`` is hardly ever right.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models import llama

from app.engine.mlx.batch.engine import MLXEngine
from app.engine.mlx.cache.prefix import PrefixPool
from app.engine.mlx.load.loader import MLXLoader
from app.engine.options import Batching, DraftOptions, LoadOptions
from tests.support.speculation import SIZE
from tests.support.tiny import make_tiny


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target is its draft and two layers that add nothing."""
    root = tmp_path_factory.mktemp("drafts")
    make_tiny(root / "right", seed=4, layers=2, **SIZE)
    make_tiny(root / "wrong", seed=9, layers=1, **SIZE)
    target = make_tiny(root / "target", seed=4, layers=4, **SIZE)
    weights = dict(mx.load(str(target / "model.safetensors")))
    for layer in (2, 3):
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            weights[f"model.layers.{layer}.{name}.weight"] *= 0
    mx.save_safetensors(str(target / "model.safetensors"), weights, metadata={"format": "mlx"})
    return root


@pytest.fixture(scope="module")
async def load(loader: MLXLoader, models: Path) -> AsyncIterator[Callable[..., Awaitable[MLXEngine]]]:
    """Engines of the target by their draft's name, each with a prefix pool of its own; rounds cost no time.

    None outlives the module: what an engine does while nobody asks would go on beside other modules' tests.
    """
    engines = list[MLXEngine]()

    async def load(
        draft: str | None = None, kv_bits: int | None = None, draft_bits: int | None = None, **more: Any
    ) -> MLXEngine:
        own = MLXLoader(loader._thread, PrefixPool(8 << 20), Batching(16, 64))
        drafts = DraftOptions(name=draft, path=models / draft, kv_bits=draft_bits) if draft else None
        options = LoadOptions(kv_bits=kv_bits, draft=drafts)
        engine = await own.load(models / "target", name="target", options=options, **more)
        if draft and engine._batch._drafter:
            engine._batch._drafter.clock = lambda: 0.0
        engines.append(engine)
        return engine

    yield load
    for engine in engines:
        await engine.close()


@pytest.fixture(scope="module")
async def plain(load: Callable[..., Awaitable[MLXEngine]]) -> AsyncIterator[MLXEngine]:
    engine = await load()
    yield engine
    await engine.close()


@pytest.fixture(scope="module")
async def right(load: Callable[..., Awaitable[MLXEngine]]) -> AsyncIterator[MLXEngine]:
    engine = await load("right")
    yield engine
    await engine.close()


@pytest.fixture(scope="module")
async def wrong(load: Callable[..., Awaitable[MLXEngine]]) -> AsyncIterator[MLXEngine]:
    engine = await load("wrong")
    yield engine
    await engine.close()


@pytest.fixture(params=["right", "wrong"])
def drafted(request: pytest.FixtureRequest, right: MLXEngine, wrong: MLXEngine) -> MLXEngine:
    return {"right": right, "wrong": wrong}[request.param]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Forward passes by the number of the model's layers and of the tokens in each."""
    made = []
    call = llama.Model.__call__

    def counted(self: Any, inputs: mx.array, *given: object, **more: Any) -> mx.array:
        made.append((len(self.layers), inputs.shape[1]))
        return call(self, inputs, *given, **more)

    monkeypatch.setattr(llama.Model, "__call__", counted)
    return made
