"""Checkpoints with something wrong in them: each is loaded, or refused for good in a sentence that says what it is."""

import json
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.engine.kind import kind_of
from app.engine.mlx.batch.engine import MLXEngine
from app.engine.mlx.encode.engine import MLXEncoder
from app.engine.mlx.load.loader import MLXLoader
from app.engine.options import LoadOptions
from app.errors import ModelUnusable
from app.registry.footprint import footprint
from tests.engine.families.configs import OWN
from tests.support.encoders import make_bert
from tests.support.tiny import make_tiny

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d7a' * 16}\nsize 12345\n"
ODD: tuple[Any, ...] = (
    "",
    "x",
    -1,
    0,
    1.5,
    10**12,
    None,
    True,
    [],
    [1],
    {},
    {"type": "x"},
    "full_attention",
    ["x", "y"],
)
TEXTS = ("", "{", "[]", "null", "5", '"x"', "[" * 5000, POINTER, "\x00\x01", "{}")
FIELDS = (
    *("model_type", "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "vocab_size"),
    *("head_dim", "intermediate_size", "rope_scaling", "rope_theta", "rms_norm_eps", "max_position_embeddings"),
    *("quantization", "quantization_config", "text_config", "eos_token_id", "bos_token_id", "tie_word_embeddings"),
    *("layer_types", "sliding_window", "model_file", "architectures", "attention_bias", "torch_dtype"),
)
ARCHITECTURES = ("gear", "olmo", "cache", "base", "switch_layers", "gemma3", "mamba", "gpt_oss", "qwen3_next", "../x")
FILES = (
    *("tokenizer.json", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json", "config.json"),
    *("added_tokens.json", "chat_template.jinja", "model.safetensors.index.json", "model.safetensors", "modules.json"),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("whole")
    return make_tiny(root / "text", seed=1), make_bert(root / "encoder")


async def told(loader: MLXLoader, path: Path, **options: Any) -> str | None:
    """What the refusal of a load says, None if it loads; as the service does it, its own checks first."""
    try:
        footprint(path)
        kind = kind_of(path, name=path.name)
        made = LoadOptions(**options)
        load: Coroutine[Any, Any, MLXEngine | MLXEncoder] = loader.load(path, name="m", options=made)
        if kind != "text":
            load.close()
            load = loader.encoder(path, kind, name="m", options=made)
        engine = await load
    except ModelUnusable as refused:
        said = refused.message
        assert str(path.parent) not in said
        assert "\n" not in said
        assert said.encode()
        assert not said.endswith((": .", "..")), said
        return said
    await engine.close()
    return None


def split(path: Path, gone: str | None = None, *, index: bool = True) -> None:
    """The weights in three shards, one of which may be gone."""
    weights = dict(mx.load(str(path / "model.safetensors")))
    (path / "model.safetensors").unlink()
    names = sorted(weights)
    shards = {f"model-0000{n}-of-00003.safetensors": names[n - 1 :: 3] for n in (1, 2, 3)}
    for file, held in shards.items():
        if file != gone:
            mx.save_safetensors(str(path / file), {name: weights[name] for name in held})
    if index:
        mapped = {name: file for file, held in shards.items() for name in held}
        (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapped}))


def keep(path: Path, wanted: Callable[..., Any]) -> None:
    weights = {name: array for name, array in mx.load(str(path / "model.safetensors")).items() if wanted(name)}
    mx.eval(weights)
    mx.save_safetensors(str(path / "model.safetensors"), weights)


def described(path: Path, **changes: Any) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changes))


@pytest.fixture
def copy(whole: tuple[Path, Path], tmp_path: Path) -> Path:
    return shutil.copytree(whole[0], tmp_path / "m")


@pytest.mark.parametrize("index", [True, False])
async def test_a_missing_shard_is_named(loader: MLXLoader, copy: Path, index: bool) -> None:
    split(copy, "model-00002-of-00003.safetensors", index=index)
    assert "model-00002-of-00003.safetensors, with some of its weights, is not in its" in await told(loader, copy)


async def test_an_index_that_is_of_other_weights_is_no_fault(loader: MLXLoader, copy: Path) -> None:
    (copy / "model.safetensors.index.json").write_text('{"weight_map": {"a": "other-00001-of-00009.safetensors"}}')
    assert await told(loader, copy) is None


async def test_missing_and_needless_parameters_are_named(loader: MLXLoader, copy: Path) -> None:
    keep(copy, lambda name: "mlp" not in name and name != "model.norm.weight")
    said = await told(loader, copy)
    assert "its weights lack what its config.json calls for: model.layers.0.mlp.down_proj.weight, " in said
    assert "and 4 more. Name" in said
    described(copy, num_hidden_layers=1)
    assert "has no place for: model.layers.1." in await told(loader, copy)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json", "tokenizer_config.json"])
async def test_a_git_lfs_pointer_is_called_that(loader: MLXLoader, copy: Path, file: str) -> None:
    (copy / file).write_text(POINTER)
    assert f"{file} is a git-lfs pointer" in await told(loader, copy)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "gear"}, "its config.json lacks what a 'gear' needs: head_dim, layer_types"),
        ({"model_type": "olmo"}, "the Python package hf_olmo, which is not here: `pip install ai2-olmo` brings it"),
        ({"model_type": "nosuch"}, "'nosuch' is no architecture that mlx-lm knows"),
        ({"model_type": "switch_layers"}, "'switch_layers' is no architecture that mlx-lm knows"),
        ({"model_type": "\ud800"}, "is no architecture that mlx-lm knows"),
        ({"eos_token_id": "\udfff"}, "its eos_token_id is"),
        ({"model_type": "a\nb\x00"}, "is no architecture that mlx-lm knows"),
        ({"model_type": None}, "has no model_type"),
        ({"num_hidden_layers": "2"}, "does not describe a 'llama' that can be built"),
        ({"quantization": {"bits": 4}}, "quantization in its config.json has no group_size"),
        ({"hidden_size": 128}, "its weights are not of the shapes that its config.json tells (Expected shape"),
        ({"num_hidden_layers": 10**9}, "config.json tells of 1000000000 layers"),
        ({"eos_token_id": "</s>"}, 'its eos_token_id is "</s>"'),
        ({"model_file": "x.py"}, "asks for Python code of its own (model_file), which is never run here"),
    ],
)
async def test_a_configuration_that_describes_no_model_is_told(
    loader: MLXLoader, copy: Path, changes: dict[str, Any], said: str
) -> None:
    described(copy, **changes)
    assert said in await told(loader, copy)


async def test_a_missing_tokenizer_is_told_by_its_files(loader: MLXLoader, copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    assert "it has no tokenizer: none of tokenizer.json, tokenizer.model, " in await told(loader, copy)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"fine_tune_type": "x"}', '{"num_layers": "2", "lora_parameters": 5}']
)
async def test_what_is_wrong_with_an_adapter_is_told_of_the_adapter(
    loader: MLXLoader, whole: tuple[Path, Path], tmp_path: Path, text: str
) -> None:
    (tmp_path / "adapter_config.json").write_text(text)
    mx.save_safetensors(str(tmp_path / "adapters.safetensors"), {"x": mx.zeros(3)})
    base = await loader.load(whole[0], name="m")
    with pytest.raises(ModelUnusable, match=r"'m:a' cannot be loaded: its adapter_config\.json does not describe"):
        await loader.adapt(base, tmp_path, name="m:a")
    await base.close()


@pytest.mark.not_on_cuda("drafts are not loaded there")
async def test_what_is_wrong_with_a_draft_is_told_of_the_draft(
    loader: MLXLoader, whole: tuple[Path, Path], copy: Path
) -> None:
    from app.engine.options import DraftOptions  # noqa: PLC0415

    (copy / "config.json").write_text("{")
    options = LoadOptions(draft=DraftOptions(path=copy, name="small"))
    with pytest.raises(ModelUnusable, match=r"draft_model = 'small' cannot be loaded: its config.json cannot be read"):
        await loader.load(whole[0], name="m", options=options)


LAYER = "model.layers.0.mlp.down_proj"
QUANTISED = st.dictionaries(
    st.sampled_from(("group_size", "bits", "mode", "quant_method", "quantization_config", LAYER, "lm_head", "model")),
    st.one_of(
        st.sampled_from(
            (*ODD, 32, 64, 3, 4, 8, 7, False, "affine", "mxfp4", "nvfp4", "awq", "bitnet", "compressed-tensors")
        ),
        st.dictionaries(st.sampled_from(("group_size", "bits", "mode")), st.sampled_from((32, 64, 4, 8, "4", None))),
    ),
    max_size=5,
)
"""One way for all layers, another for some, none for others, and what is none."""
NESTED = st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(ODD), max_size=4)
changes = st.one_of(
    st.tuples(st.just("field"), st.sampled_from(("quantization", "quantization_config")), QUANTISED),
    st.tuples(
        st.just("field"), st.sampled_from(("text_config", "rope_scaling", "rope_parameters", "llm_config")), NESTED
    ),
    st.tuples(st.just("field"), st.just("model_type"), st.sampled_from(sorted(OWN))),
    st.tuples(st.just("field"), st.sampled_from(FIELDS), st.sampled_from(ODD)),
    st.tuples(st.just("field"), st.just("model_type"), st.sampled_from(ARCHITECTURES)),
    st.tuples(st.just("file"), st.sampled_from(FILES), st.sampled_from(TEXTS)),
    st.tuples(st.just("gone"), st.sampled_from(FILES), st.none()),
    st.tuples(st.just("cut"), st.sampled_from(FILES), st.integers(0, 400)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(made=st.lists(changes, min_size=1, max_size=2), encoder=st.booleans())
async def test_whatever_is_broken_the_model_is_loaded_or_refused_for_good(
    loader: MLXLoader,
    whole: tuple[Path, Path],
    tmp_path: Path,
    made: list[tuple[str, str, Any]],
    encoder: bool,
) -> None:
    path = tmp_path / "m"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(whole[encoder], path)
    described(path, **{name: value for way, name, value in made if way == "field"})
    for way, name, value in made:
        file = path / name
        if way == "file":
            file.write_text(value)
        elif way == "gone":
            file.unlink(missing_ok=True)
        elif way == "cut" and file.is_file():
            file.write_bytes(file.read_bytes()[: -1 - value])
    await told(loader, path)
