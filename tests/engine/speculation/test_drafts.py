"""Drafts as they are loaded: which suit, what they count, what of them comes back."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import RotatingKVCache

from app.engine.base import Sequence
from app.engine.mlx.batch.engine import MLXEngine
from app.engine.mlx.load.loader import MLXLoader
from app.engine.mlx.memory import release
from app.errors import ModelUnusable
from tests.engine.test_engine import GREEDY, prompt, run
from tests.support.speculation import SEEDED, SIZE, held, same
from tests.support.tiny import make_tiny

pytestmark = pytest.mark.not_on_cuda("drafts are not loaded there")


async def test_a_draft_stays_within_its_own_context(
    load: Callable[..., Awaitable[MLXEngine]], models: Path, plain: MLXEngine
) -> None:
    make_tiny(models / "short", seed=4, layers=2, context=64, **SIZE)
    engine = await load("short")
    await same(engine, plain, Sequence(prompt(12, 30), GREEDY, max_tokens=80))
    assert 10 < engine.work().proposed < 34
    before = engine.work().proposed
    await same(engine, plain, Sequence(prompt(13, 70), GREEDY, max_tokens=20))
    assert engine.work().proposed == before
    await engine.close()


async def test_the_draft_counts_and_all_of_it_comes_back(
    loader: MLXLoader, load: Callable[..., Awaitable[MLXEngine]], plain: MLXEngine
) -> None:
    await loader._thread.call(release)
    before = mx.get_active_memory()
    engine = await load("right")
    assert engine.nbytes > plain.nbytes
    assert engine.law.token == plain.law.token * 3 // 2
    assert engine.fingerprint != plain.fingerprint
    await run(engine, Sequence(prompt(14, 100), SEEDED, max_tokens=60))
    assert await held(engine) == 0
    assert mx.get_active_memory() - before >= engine.nbytes
    stream = engine.stream((Sequence(prompt(15, 100), SEEDED, max_tokens=1500),))
    await anext(stream)
    pool = engine._batch._prefixes.shared._pool
    assert pool.nbytes > 100 * engine.law.token, "the target's prompt and the draft's"
    await engine.close()
    assert pool.nbytes == 0
    await loader._thread.call(release)
    assert abs(mx.get_active_memory() - before) < 1 << 16


async def refused(load: Callable[..., Awaitable[MLXEngine]], draft: str) -> str:
    with pytest.raises(ModelUnusable) as raised:
        await load(draft)
    return raised.value.message


async def test_drafts_that_do_not_suit_are_refused_at_the_load(
    loader: MLXLoader, load: Callable[..., Awaitable[MLXEngine]], models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await loader._thread.call(release)
    before = mx.get_active_memory()
    advice = "Take draft_model out of its entry in models.toml, or name another draft there."
    make_tiny(models / "other", seed=4, specials=("<|more|>",), **SIZE)
    assert await refused(load, "other") == (
        "The model 'target' cannot be loaded: draft_model = 'other' has another vocabulary, so its tokens would mean "
        f"other text. {advice}"
    )
    make_tiny(models / "renamed", seed=4, **SIZE)
    renamed = (models / "renamed" / "tokenizer.json").read_text().replace("<|im_start|>", "<|im_begin|>")
    (models / "renamed" / "tokenizer.json").write_text(renamed)
    assert "has another vocabulary" in await refused(load, "renamed")
    said = await refused(load, "absent")
    assert said.startswith("The model 'target' cannot be loaded: draft_model = 'absent' cannot be loaded: ")
    assert str(models) not in said
    assert said.endswith(advice)
    make_tiny(models / "sliding", seed=4, **SIZE | {"config": SIZE["config"] | {
        "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 24
    }})  # fmt: skip
    assert "the KV cache of draft_model = 'sliding' cannot be trimmed" in await refused(load, "sliding")

    def windows(model: Any) -> list[Any]:
        return [RotatingKVCache(max_size=16) for _ in model.layers]

    with monkeypatch.context() as patched:
        patched.setattr("app.engine.mlx.cache.kv.make_prompt_cache", windows)
        assert "its own KV cache cannot be trimmed" in await refused(load, "right")
    await loader._thread.call(release)
    assert abs(mx.get_active_memory() - before) < 1 << 16


async def test_logits_narrower_than_the_vocabulary_are_refused_and_wider_ones_are_not(
    load: Callable[..., Awaitable[MLXEngine]], models: Path, plain: MLXEngine
) -> None:
    for name, more in (("narrow", -8), ("padded", 64)):
        directory = make_tiny(models / name, seed=4, layers=2, **SIZE)
        weights = dict(mx.load(str(directory / "model.safetensors")))
        table = weights["model.embed_tokens.weight"]
        size = table.shape[0] + more
        table = table[:size] if more < 0 else mx.concatenate([table, 10 * table[:more]])
        weights["model.embed_tokens.weight"] = table
        mx.save_safetensors(str(directory / "model.safetensors"), weights, metadata={"format": "mlx"})
        config = (
            (directory / "config.json").read_text().replace(f'"vocab_size": {size - more}', f'"vocab_size": {size}')
        )
        (directory / "config.json").write_text(config)
    assert "needs logits of" in await refused(load, "narrow")
    padded = await load("padded")
    await same(padded, plain, Sequence(prompt(16, 20), GREEDY, max_tokens=60))
    assert padded.work().accepted > 30
    await padded.close()


async def test_on_cuda_the_draft_is_left_out_and_a_warning_says_so(
    load: Callable[..., Awaitable[MLXEngine]],
    plain: MLXEngine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with monkeypatch.context() as cuda:
        cuda.setattr(mx.cuda, "is_available", lambda: True)
        engine = await load("right")
    made, _ = await run(engine, Sequence(prompt(3, 20), GREEDY, max_tokens=30))
    expected, _ = await run(plain, Sequence(prompt(3, 20), GREEDY, max_tokens=30))
    assert made == expected
    assert engine.work().proposed == 0
    assert engine.nbytes == plain.nbytes
    assert "without its draft_model" in caplog.text
