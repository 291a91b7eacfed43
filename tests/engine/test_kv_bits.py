"""A KV cache in few bits: the texts of a lone row in every company, its bytes, where it comes from, who cannot have it.

The reference is mlx-lm's own quantised cache, which holds one row.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models import llama
from mlx_lm.models.base import scaled_dot_product_attention
from mlx_lm.models.cache import QuantizedKVCache, RotatingKVCache
from mlx_lm.utils import load_model

from app.engine.base import Sequence, Token
from app.engine.ids import Ids
from app.engine.mlx.batch.engine import MLXEngine
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.cache.prefix import PrefixPool
from app.engine.mlx.load.loader import MLXLoader
from app.engine.mlx.memory import release
from app.engine.options import Batching, LoadOptions
from app.errors import ModelUnusable
from app.main import model_registry
from app.registry.footprint import footprint
from app.settings import ModelEntry, Settings
from tests.engine.test_engine import GREEDY, ids, prompt, run
from tests.support.adapters import make_adapter
from tests.support.tiny import make_tiny, tiny

LAYERS, KV_HEADS, HEAD = 2, 2, 32
HEADS_OF_32 = {"num_attention_heads": 4, "num_key_value_heads": KV_HEADS}
BITS = [8, 4]


def bytes_per_token(bits: int) -> int:
    """Keys and values: packed, and a scale and a bias of 4 bytes for each head's one group."""
    return 2 * LAYERS * KV_HEADS * (HEAD * bits // 8 + 2 * 4)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("heads") / "of-32", seed=4, width=128, config=HEADS_OF_32)


@pytest.fixture(scope="module", params=BITS)
def bits(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(scope="module")
async def own(loader: MLXLoader) -> MLXLoader:
    """A loader on the session's thread with a prefix pool of its own."""
    return MLXLoader(loader._thread, PrefixPool(8 << 20), Batching(16, 64))


@pytest.fixture(scope="module")
async def few(own: MLXLoader, directory: Path, bits: int) -> AsyncIterator[MLXEngine]:
    """An engine whose KV cache has few bits."""
    engine = await own.load(directory, name="few", options=LoadOptions(kv_bits=bits))
    yield engine
    await engine.close()


def reference(directory: Path, bits: int, tokens: Ids, count: int) -> list[int]:
    """mlx-lm's model with mlx-lm's cache for one row, on this thread: greedy text."""
    model, _ = load_model(directory)
    cache = [QuantizedKVCache(group_size=HEAD, bits=bits) for _ in range(LAYERS)]
    out, given = [], list(tokens)
    for _ in range(count):
        given = [mx.argmax(model(mx.array([given]), cache=cache)[0, -1]).item()]
        out += given
    return out


@pytest.mark.not_on_cuda("mlx-lm's quantised cache, the reference, multiplies packed values")
async def test_greedy_text_is_that_of_mlx_lms_quantised_cache(few: MLXEngine, directory: Path, bits: int) -> None:
    made, _ = await run(few, Sequence(prompt(1, 150), GREEDY, max_tokens=16))
    assert ids(made[0, 0]) == reference(directory, bits, prompt(1, 150), 16)


async def test_sixteen_at_once_make_the_texts_of_one_by_one(few: MLXEngine) -> None:
    sequences = [Sequence(prompt(seed, 3 + 9 * seed), GREEDY, max_tokens=5 + seed) for seed in range(16)]
    alone = [(await run(few, sequence))[0][0, 0] for sequence in sequences]
    together = await asyncio.gather(*(run(few, sequence) for sequence in sequences))
    assert [ids(made[0, 0]) for made, _ in together] == [ids(made) for made in alone]
    one_stream, _ = await run(few, *sequences)
    assert [ids(one_stream[i, 0]) for i in range(16)] == [ids(made) for made in alone]


@pytest.mark.not_on_cuda("mlx-lm's quantised cache, the reference, multiplies packed values")
async def test_rows_that_join_and_leave_while_another_decodes_change_no_text(
    few: MLXEngine, directory: Path, bits: int
) -> None:
    stream = few.stream((Sequence(prompt(20, 40), GREEDY, max_tokens=300),))
    leaving = few.stream((Sequence(prompt(21, 90), GREEDY, max_tokens=2000, rows=3),))
    late: list[Any] = []
    told = []
    async for items in stream:
        told += [item.id for item in items if isinstance(item, Token)]
        if len(told) >= 10 and not late:
            late = [asyncio.create_task(run(few, Sequence(prompt(22 + i, 15 + 50 * i), GREEDY, 30))) for i in range(3)]
        if len(told) >= 20:
            leaving.cancel(0, 1)
        if len(told) >= 150:
            leaving.close()
    leaving.close()
    assert told == reference(directory, bits, prompt(20, 40), 300)
    for i, task in enumerate(late):
        made, _ = await task
        assert ids(made[0, 0]) == reference(directory, bits, prompt(22 + i, 15 + 50 * i), 30)


@pytest.mark.not_on_cuda("prompts of fewer than 256 tokens are not kept there")
async def test_a_beginning_seen_before_is_not_computed_again(few: MLXEngine, directory: Path, bits: int) -> None:
    begin = prompt(80, 150)
    _, before = await run(few, Sequence((*begin, 9, 10), GREEDY, max_tokens=8))
    second, after = await run(few, Sequence((*begin, 11, 12, 13), GREEDY, max_tokens=8))
    assert (before[0].cached_tokens, after[0].cached_tokens) == (0, 150)
    assert ids(second[0, 0]) == reference(directory, bits, (*begin, 11, 12, 13), 8)


@pytest.mark.not_on_cuda("prompts of fewer than 256 tokens are not kept there")
async def test_prompts_that_arrive_together_share_their_beginning(few: MLXEngine, directory: Path, bits: int) -> None:
    begin = prompt(81, 100)
    sequences = [Sequence((*begin, 20 + i, 30 + i), GREEDY, max_tokens=6) for i in range(5)]
    made, prefilled = await run(few, *sequences)
    assert sum(event.cached_tokens >= 100 for event in prefilled.values()) >= 4
    for i, sequence in enumerate(sequences):
        assert ids(made[i, 0]) == reference(directory, bits, sequence.prompt, 6)


@pytest.mark.not_on_cuda("mlx-lm's quantised cache, the reference, multiplies packed values")
async def test_prompt_scores_are_of_the_same_cache(few: MLXEngine, directory: Path, bits: int) -> None:
    given = prompt(70, 40)
    _, prefilled = await run(few, Sequence(given, GREEDY, max_tokens=0, prompt_logprobs=0))
    model, _ = load_model(directory)
    cache = [QuantizedKVCache(group_size=HEAD, bits=bits) for _ in range(LAYERS)]
    logits = model(mx.array([given]), cache=cache)[0]
    expected = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
    scores = [score.logprob for score in prefilled[0].scores[1:]]
    assert scores == pytest.approx([expected[i, token] for i, token in enumerate(given[1:])], abs=1e-3)


@pytest.mark.not_on_cuda("mlx-lm's quantised cache, the reference, multiplies packed values")
async def test_widths_rounded_up_to_few_shapes_change_no_text(
    own: MLXLoader, directory: Path, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mx.cuda, "is_available", lambda: True)
    engine = await own.load(directory, name="few-shapes", options=LoadOptions(kv_bits=bits))
    sequences = [Sequence(prompt(seed, 2 + 21 * seed), GREEDY, max_tokens=6) for seed in range(5)]
    made, _ = await run(engine, *sequences)
    alone = [(await run(engine, sequence))[0][0, 0] for sequence in sequences]
    await engine.close()
    expected = [reference(directory, bits, sequence.prompt, 6) for sequence in sequences]
    assert [ids(made[i, 0]) for i in range(5)] == expected
    assert [ids(it) for it in alone] == expected


async def test_a_token_takes_the_bytes_of_its_bits_and_of_one_scale_and_bias_a_group(
    few: MLXEngine, directory: Path, bits: int
) -> None:
    assert few.law.token == bytes_per_token(bits)
    assert footprint(directory, half_bytes=4, kv_bits=bits).allowance == 1024 * bytes_per_token(bits)


@pytest.mark.not_on_cuda("prompts of fewer than 256 tokens are not kept there")
async def test_prompts_that_are_kept_count_with_their_few_bytes(loader: MLXLoader, directory: Path, bits: int) -> None:
    pool = PrefixPool(8 << 20)
    own = MLXLoader(loader._thread, pool, Batching(4, 64))
    engine = await own.load(directory, name="kept", options=LoadOptions(kv_bits=bits))
    await run(engine, Sequence(prompt(5, 101), GREEDY, max_tokens=2))
    assert pool.nbytes == 100 * bytes_per_token(bits)
    await engine.close()


def test_a_quantised_layer_only_appends(directory: Path) -> None:
    model, _ = load_model(directory)
    kv = KV.fresh(model, 8)
    assert kv.quantised_layers == LAYERS
    assert kv.plain
    assert kv.trimmable
    assert kv.batchable


async def test_what_models_toml_says_reaches_the_engine(tmp_path: Path) -> None:
    for seed, name in enumerate(("few", "plain")):
        make_tiny(tmp_path / name, seed=seed, width=128, config=HEADS_OF_32)
    for name in ("same", "other"):
        make_adapter(tmp_path / name, {"self_attn.q_proj": (128, 128)}, spread=0.0)
    models = {"few": ModelEntry(kv_bits=4), "few:other": ModelEntry(kv_bits=8), "plain:other": ModelEntry(kv_bits=2)}
    settings = Settings(model_roots=(tmp_path,), memory_budget=4 << 30, offline=True, models=models)
    expected = {"few": 4, "plain": 32, "few:same": 4, "few:other": 8, "plain:same": 32, "plain:other": 2}
    found, fingerprints = {}, {}
    async with model_registry(settings) as registry:
        for name in expected:
            async with registry.lease(name) as lease:
                found[name] = lease.engine.law.token
                fingerprints[name] = lease.engine.fingerprint
    plain = 2 * LAYERS * KV_HEADS * HEAD * 4
    assert found == {name: plain if bits == 32 else bytes_per_token(bits) for name, bits in expected.items()}
    assert len(set(fingerprints.values())) == len(expected)


async def test_what_changes_the_answers_changes_the_fingerprint(
    own: MLXLoader, few: MLXEngine, directory: Path, bits: int
) -> None:
    for other in (None, 6):
        engine = await own.load(directory, name="other", options=LoadOptions(kv_bits=other))
        assert engine.fingerprint != few.fingerprint
        await engine.close()
    again = await own.load(directory, name="again", options=LoadOptions(kv_bits=bits))
    assert again.fingerprint == few.fingerprint
    await again.close()


async def test_other_layers_stay_as_they_are_and_the_log_says_so(
    own: MLXLoader, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = HEADS_OF_32 | {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 24}
    mixed = make_tiny(tmp_path / "mixed", seed=4, width=128, config=config)
    with caplog.at_level(logging.INFO, logger="app.engine.mlx.load.loader"):
        engine = await own.load(mixed, name="org/mixed", options=LoadOptions(kv_bits=8))
    told = [record.getMessage() for record in caplog.records if record.name == "app.engine.mlx.load.loader"]
    assert told == [
        "org/mixed holds the KV cache of 1 of its 2 layers in 8 bits per value; any others stay as they are"
    ]
    sequences = [Sequence(prompt(seed, 5 + 20 * seed), GREEDY, max_tokens=8) for seed in range(4)]
    alone = [(await run(engine, sequence))[0][0, 0] for sequence in sequences]
    together, _ = await run(engine, *sequences)
    assert [ids(together[i, 0]) for i in range(4)] == [ids(it) for it in alone]
    await engine.close()


async def refused(loader: MLXLoader, directory: Path, bits: int = 4) -> str:
    with pytest.raises(ModelUnusable) as raised:
        await loader.load(directory, name="m", options=LoadOptions(kv_bits=bits))
    return raised.value.message


async def test_heads_that_no_group_divides_are_refused_at_the_load(own: MLXLoader) -> None:
    await own._thread.call(release)
    before = mx.get_active_memory()
    assert await refused(own, tiny()) == (
        "The model 'm' cannot be loaded: kv_bits = 4 does not suit it: its heads have 16 values, which groups of 32 do "
        "not divide. Take kv_bits out of its entry in models.toml, or name another one."
    )
    await own._thread.call(release)
    assert abs(mx.get_active_memory() - before) < 1 << 16


@pytest.mark.not_on_cuda("any attention takes the plain keys and values that are made there")
async def test_attention_that_takes_no_quantised_cache_is_refused_at_the_load(
    own: MLXLoader, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sinking(*given: tuple[mx.array, ...] | mx.array, **more: Any) -> mx.array:
        return scaled_dot_product_attention(*given, **more, sinks=mx.zeros(4))

    monkeypatch.setattr(llama, "scaled_dot_product_attention", sinking)
    said = await refused(own, directory)
    assert "kv_bits = 4 does not suit it: Quantized SDPA does not support attention sinks. Take kv_bits out" in said


async def test_a_model_without_a_plain_layer_is_refused_at_the_load(
    own: MLXLoader, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def windows(model: Any) -> list[Any]:
        return [RotatingKVCache(max_size=16) for _ in model.layers]

    monkeypatch.setattr("app.engine.mlx.cache.kv.make_prompt_cache", windows)
    assert "kv_bits = 4 does not suit it: none of its layers keeps all keys and values" in await refused(own, directory)


async def test_what_fails_without_kv_bits_as_well_is_not_laid_to_it(
    own: MLXLoader, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: tuple[mx.array, ...] | mx.array, **__: Any) -> None:
        raise ValueError("broken anyway")

    monkeypatch.setattr(llama, "scaled_dot_product_attention", broken)
    assert await refused(own, directory) == (
        "The model 'm' cannot be loaded: broken anyway. Name another one or repair it."
    )
