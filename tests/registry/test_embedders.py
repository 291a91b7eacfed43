"""What an embedding model needs of the hub, and what it takes in memory."""

from pathlib import Path

import pytest

from app.errors import ModelUnusable
from app.registry.footprint import footprint
from app.registry.hub.files import is_needed, require_loadable
from tests.support.encoders import WIDTH, add_dense, add_modules, make_bert


@pytest.mark.parametrize(
    "name",
    [
        "modules.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "10_LogitScore/config.json",
    ],
)
def test_the_files_that_say_how_to_pool_are_fetched(name: str) -> None:
    assert is_needed(name)


@pytest.mark.parametrize(
    "name",
    [
        "2_Dense/pytorch_model.bin",
        "1_Pooling/a/config.json",
        "onnx/model.safetensors",
        "openvino/config.json",
        "../1_Pooling/config.json",
        "1_Pooling/model.py",
    ],
)
def test_no_others_below_it_are(name: str) -> None:
    assert not is_needed(name)


def test_a_matrix_behind_the_pooling_is_no_model() -> None:
    with pytest.raises(ModelUnusable, match="bin"):
        require_loadable("org/old", ["config.json", "pytorch_model.bin", "2_Dense/model.safetensors"])


def test_its_footprint_has_the_matrices_in_it(tmp_path: Path) -> None:
    directory = make_bert(tmp_path / "it")
    plain = footprint(directory, half_bytes=4).weights
    pooling = ("Pooling", {"pooling_mode": "mean"})
    add_modules(directory, pooling, ("Dense", {"activation_function": "torch.nn.Identity"}))
    add_dense(directory, "2_Dense", WIDTH, 64, seed=0)
    assert footprint(directory, half_bytes=4).weights == plain + 4 * (WIDTH * 64 + 64)
