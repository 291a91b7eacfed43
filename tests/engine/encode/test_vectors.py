"""Vectors are those that a plain reading of the checkpoint's files gives, whatever stands beside a text."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.engine.kind import kind_of
from app.engine.mlx.encode.engine import MLXEncoder
from app.engine.mlx.encode.recipe import ORDER
from app.engine.mlx.load.loader import MLXLoader
from app.engine.options import LoadOptions
from app.engine.vectors import Embedding, Vectors
from app.errors import InvalidRequest, ModelUnusable
from tests.engine.encode import reference
from tests.support.encoders import WIDTH, WORDS, add_dense, add_modules, make_bert, make_decoder, make_modernbert, read

TEXTS = (
    "the quick brown fox",
    "dog",
    "what is the capital of france in one two three four five words",
    "",
    "red , blue .",
)
NORMALIZE: tuple[Any, ...] = ("Normalize", {})


def pooling(*modes: str, **more: Any) -> tuple[str, dict[str, int]]:
    flags = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens", "mean_sqrt_len": "mean_sqrt_len_tokens"}
    flags |= {"weightedmean": "weightedmean_tokens", "lasttoken": "lasttoken"}
    named = {f"pooling_mode_{flag}": mode in modes for mode, flag in flags.items()}
    return ("Pooling", {"word_embedding_dimension": WIDTH} | named | more)


def vectors(told: Vectors) -> NDArray[Any]:
    return np.frombuffer(told.values, "<f4").reshape(-1, told.width)


async def embedded(engine: MLXEncoder, texts: tuple[str | tuple[int, ...], ...] = TEXTS, **how: Any) -> NDArray[Any]:
    return vectors(await engine.embed(texts, Embedding(**how)))


def make(directory: Path, family: str, *steps: tuple[str, dict[str, Any]], **more: Any) -> Path:
    if family == "modernbert":
        return add_modules(make_modernbert(directory), *steps, **more)
    made = make_bert if family in {"bert", "roberta"} else make_decoder
    return add_modules(made(directory, family=family), *steps, **more)


def hidden(directory: Path, engine: MLXEncoder, text: str) -> NDArray[Any]:
    """The last layer by numpy."""
    config = json.loads((directory / "config.json").read_text())
    weights, ids = read(directory / "model.safetensors"), engine.encode(text)
    if config["model_type"] in {"bert", "xlm-roberta"}:
        return reference.bert(weights, config, ids)
    if config["model_type"] == "modernbert":
        return reference.modernbert(weights, config, ids)
    named = {it if it.startswith("model.") else f"model.{it}": array for it, array in weights.items()}
    return reference.decoder(named, config, ids)


@pytest.fixture
async def load(loader: MLXLoader) -> AsyncIterator[Callable[..., Awaitable[MLXEncoder]]]:
    """Loads directories, and unloads what was loaded."""
    engines = []

    async def loaded(directory: Path, **options: Any) -> MLXEncoder:
        assert kind_of(directory, name="it", pooling=options.get("pooling")) == "embedding"
        engines.append(await loader.encoder(directory, "embedding", name="it", options=LoadOptions(**options)))
        return engines[-1]

    yield loaded
    for engine in engines:
        await engine.close()


@pytest.mark.parametrize(("family", "mode"), list(product(("bert", "roberta", "modernbert", "qwen3", "gemma"), ORDER)))
async def test_every_family_and_pooling_is_what_numpy_makes_of_the_files(
    load: Callable[..., Awaitable[MLXEncoder]], tmp_path: Path, family: str, mode: str
) -> None:
    directory = make(tmp_path / "it", family, pooling(mode))
    engine = await load(directory)
    found = await embedded(engine)
    for text, vector in zip(TEXTS, found, strict=True):
        wanted = reference.pooled(hidden(directory, engine, text), mode)
        np.testing.assert_allclose(vector, wanted, rtol=1e-4, atol=1e-4)


async def test_several_modes_stand_one_behind_the_other(
    load: Callable[..., Awaitable[MLXEncoder]], tmp_path: Path
) -> None:
    directory = make(tmp_path / "it", "bert", pooling("mean", "cls"), NORMALIZE)
    engine = await load(directory)
    layer = hidden(directory, engine, TEXTS[0])
    wanted = reference.unit(np.concatenate([reference.pooled(layer, it) for it in ("cls", "mean")]))
    np.testing.assert_allclose((await embedded(engine))[0], wanted, atol=1e-5)


async def test_matrices_behind_the_pooling_are_followed(
    load: Callable[..., Awaitable[MLXEncoder]], tmp_path: Path
) -> None:
    identity = {"activation_function": "torch.nn.modules.linear.Identity", "bias": False}
    steps = (
        pooling("mean"),
        ("Dense", {"activation_function": "torch.nn.modules.activation.Tanh"}),
        ("Dense", identity),
    )
    directory = make(tmp_path / "it", "gemma", *steps, NORMALIZE, package="sentence_transformers.base.modules.some")
    add_dense(directory, "2_Dense", WIDTH, 48, seed=1)
    add_dense(directory, "3_Dense", 48, 16, seed=2, bias=False)
    engine = await load(directory)
    x = reference.pooled(hidden(directory, engine, TEXTS[0]), "mean")[None]
    x = np.tanh(reference.linear(x, read(directory / "2_Dense/model.safetensors"), "linear"))
    wanted = reference.unit((x @ read(directory / "3_Dense/model.safetensors")["linear.weight"].T)[0])
    found = await embedded(engine)
    assert found.shape == (len(TEXTS), 16)
    np.testing.assert_allclose(found[0], wanted, atol=1e-5)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join), min_size=1, max_size=12))
@pytest.mark.parametrize("family", ["bert", "modernbert", "gemma"])
async def test_a_text_beside_others_is_what_it_is_alone(
    loader: MLXLoader, tmp_path_factory: pytest.TempPathFactory, family: str, texts: list[str]
) -> None:
    directory = tmp_path_factory.mktemp("beside") / "it"
    engine = await loader.encoder(make(directory, family, pooling("mean"), NORMALIZE), "embedding", name="it")
    together = await embedded(engine, tuple(texts))
    alone = [(await embedded(engine, (text,)))[0] for text in texts]
    await engine.close()
    np.testing.assert_allclose(together, alone, atol=2e-6)


async def test_dimensions_are_cut_and_made_of_length_one_again(
    load: Callable[..., Awaitable[MLXEncoder]], tmp_path: Path
) -> None:
    engine = await load(make(tmp_path / "it", "bert", pooling("mean")))
    whole, cut = await embedded(engine), await embedded(engine, dimensions=5)
    np.testing.assert_allclose(cut, [reference.unit(row[:5]) for row in whole], atol=1e-6)
    assert (await embedded(engine, dimensions=WIDTH)).shape == (len(TEXTS), WIDTH)
    with pytest.raises(InvalidRequest, match=f"{WIDTH} at most") as refused:
        await embedded(engine, dimensions=WIDTH + 1)
    assert refused.value.param == "dimensions"


async def test_token_ids_are_taken_as_they_are(load: Callable[..., Awaitable[MLXEncoder]], tmp_path: Path) -> None:
    engine = await load(make(tmp_path / "it", "roberta", pooling("cls")))
    ids = tuple(tuple(engine.encode(text)) for text in TEXTS)
    np.testing.assert_allclose(await embedded(engine, ids), await embedded(engine), atol=1e-6)
    with pytest.raises(InvalidRequest, match="has no row"):
        await embedded(engine, ((2, engine.width, 3),))
    with pytest.raises(InvalidRequest, match="no tokens"):
        await embedded(engine, ((),))


async def test_prompts_are_the_checkpoints_own(load: Callable[..., Awaitable[MLXEncoder]], tmp_path: Path) -> None:
    directory = make(tmp_path / "it", "bert", pooling("mean"))
    told = {"prompts": {"query": "search query: ", "document": "", "other": "one "}, "default_prompt_name": "other"}
    (directory / "config_sentence_transformers.json").write_text(json.dumps(told))
    engine = await load(directory)
    (plain,) = await embedded(engine, ("fox",), input_type="document")
    asked = {"query": "search query: fox", "other": "one fox", "document": "fox"}
    for name, text in asked.items():
        (wanted,) = await embedded(engine, (tuple(engine.encode(text)),))
        np.testing.assert_allclose(await embedded(engine, ("fox",), prompt_name=name), [wanted], atol=1e-6)
    np.testing.assert_allclose(await embedded(engine, ("fox",)), await embedded(engine, ("fox",), prompt_name="other"))
    np.testing.assert_allclose(plain, reference.pooled(hidden(directory, engine, "fox"), "mean"), atol=1e-4)
    with pytest.raises(InvalidRequest, match="document, other, query"):
        await embedded(engine, ("fox",), prompt_name="nothing")


async def test_a_prompt_that_is_not_pooled_is_read_all_the_same(
    load: Callable[..., Awaitable[MLXEncoder]], tmp_path: Path
) -> None:
    directory = make(tmp_path / "it", "bert", pooling("mean", include_prompt=False))
    (directory / "config_sentence_transformers.json").write_text('{"prompts": {"query": "search query: "}}')
    engine = await load(directory)
    (found,) = await embedded(engine, ("brown fox",), prompt_name="query")
    layer = hidden(directory, engine, "search query: brown fox")
    np.testing.assert_allclose(found, layer[4:].mean(0), atol=1e-4)


async def test_a_text_that_is_too_long_is_refused_or_cut_where_that_is_asked_for(
    load: Callable[..., Awaitable[MLXEncoder]], tmp_path: Path
) -> None:
    directory = make(tmp_path / "it", "bert", pooling("mean"))
    (directory / "sentence_bert_config.json").write_text('{"max_seq_length": 6}')
    engine = await load(directory)
    assert engine.context_length == 6
    long = "one two three four five"
    with pytest.raises(InvalidRequest, match="1 tokens longer") as refused:
        await embedded(engine, ("fox", long))
    assert (refused.value.param, refused.value.code) == ("input.1", "context_length_exceeded")
    np.testing.assert_allclose(
        await embedded(engine, (long, long[8:]), truncate="start"),
        await embedded(engine, (long[4:], long[8:])),
        atol=1e-6,
    )
    np.testing.assert_allclose(
        await embedded(engine, (long,), truncate="end"), await embedded(engine, ("one two three four",)), atol=1e-6
    )


async def test_a_checkpoint_that_does_not_say_how_is_no_embedder_until_the_settings_say_it(
    loader: MLXLoader, load: Callable[..., Awaitable[MLXEncoder]], tmp_path: Path
) -> None:
    directory = make_bert(tmp_path / "it")
    with pytest.raises(ModelUnusable, match=r"set pooling in its entry of models\.toml"):
        await load(directory)
    found = await embedded(await load(directory, pooling="cls"))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    decoder = make_decoder(tmp_path / "chat")
    assert kind_of(decoder, name="org/chat") == "text"
    assert (await embedded(await load(decoder, pooling="lasttoken"))).shape == (len(TEXTS), WIDTH)


@pytest.mark.parametrize("prefix", ["bert.", ""])
async def test_tensors_are_found_under_the_names_that_files_have(
    load: Callable[..., Awaitable[MLXEncoder]], tmp_path: Path, prefix: str
) -> None:
    plain = await load(add_modules(make_bert(tmp_path / "plain"), pooling("mean")))
    named = await load(add_modules(make_bert(tmp_path / "named", prefix=prefix), pooling("mean")))
    np.testing.assert_array_equal(await embedded(plain), await embedded(named))
    headless = await load(add_modules(make_decoder(tmp_path / "headless", headless=True), pooling("lasttoken")))
    whole = await load(add_modules(make_decoder(tmp_path / "whole"), pooling("lasttoken")))
    np.testing.assert_array_equal(await embedded(headless), await embedded(whole))


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ((pooling(),), "names no mode"),
        ((("WordWeights", {}), pooling("mean")), "WordWeights"),
        ((NORMALIZE, pooling("mean")), "Normalize"),
        ((("Pooling", {"pooling_mode": "first"}),), "not understood"),
        ((pooling("mean"), ("Dense", {"activation_function": "torch.nn.Softsign"})), "Softsign"),
        ((pooling("mean"), ("Dense", {})), "weights of its step 2_Dense are missing"),
    ],
)
async def test_what_cannot_be_followed_to_the_letter_is_not_guessed(
    load: Callable[..., Awaitable[MLXEncoder]],
    tmp_path: Path,
    steps: tuple[tuple[str, dict[str, Any]], ...],
    reason: str,
) -> None:
    directory = make(tmp_path / "it", "bert", *steps)
    with pytest.raises(ModelUnusable, match=reason):
        await load(directory)


async def test_newer_files_name_the_mode(load: Callable[..., Awaitable[MLXEncoder]], tmp_path: Path) -> None:
    directory = make(tmp_path / "it", "bert", ("Pooling", {"embedding_dimension": WIDTH, "pooling_mode": "max"}))
    engine = await load(directory)
    wanted = reference.pooled(hidden(directory, engine, TEXTS[0]), "max")
    np.testing.assert_allclose((await embedded(engine))[0], wanted, atol=1e-4)


async def test_quantised_on_load_it_says_nearly_the_same_in_less_memory(
    load: Callable[..., Awaitable[MLXEncoder]], tmp_path: Path
) -> None:
    # wider than a group, as real ones are: else MLX 0.32 takes a kernel on Hopper that seems not to be for float32
    made = make_bert(tmp_path / "it", hidden_size=128, intermediate_size=256)
    directory = add_modules(made, pooling("mean"), NORMALIZE)
    whole, less = await load(directory), await load(directory, quantize=8)
    assert less.nbytes < whole.nbytes / 2
    assert (await embedded(whole) * await embedded(less)).sum(1).min() > 0.99


async def test_long_texts_are_computed_in_blocks_and_say_the_same(
    load: Callable[..., Awaitable[MLXEncoder]], tmp_path: Path
) -> None:
    directory = add_modules(make_bert(tmp_path / "it", max_position_embeddings=1400), pooling("mean"))
    engine = await load(directory)
    text = " ".join(WORDS[at * 7 % len(WORDS)] for at in range(1200))
    (found, _) = await embedded(engine, (text, "fox"))
    np.testing.assert_allclose(found, hidden(directory, engine, text).mean(0), atol=1e-4)
