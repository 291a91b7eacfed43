"""Safetensors headers and snapshots on disk."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from app.errors import ModelUnusable
from app.registry.hub import weight_bytes
from app.registry.hub.snapshot import is_complete


def pack(header: bytes | list[int] | dict[str, dict[str, Any]], data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_the_bytes_of_all_shards_are_counted_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(save({"a": np.zeros((3, 5), np.float32)}))
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(
        save({"b": np.zeros(7, np.float16), "empty": np.zeros((0, 4), np.int8)}, metadata={"format": "mlx"})
    )
    (tmp_path / "consolidated.safetensors").write_bytes(save({"c": np.zeros(100, np.float32)}))
    assert weight_bytes(tmp_path) == 3 * 5 * 4 + 7 * 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08\0\0",
        struct.pack("<Q", 1 << 62) + b"{}",
        pack(b"not json"),
        pack([1, 2]),
        pack({"a": {"dtype": "F32"}}),
        pack({"a": tensor([2], 0, 8)}, b"1234567"),
        pack({"a": tensor([2], 0, 8)}, b"123456789"),
        pack({"a": tensor([2], 0, 8), "b": tensor([2], 4, 12)}, bytes(12)),
        pack({"a": tensor([1], 0, 4), "b": tensor([1], 8, 12)}, bytes(12)),
        pack({"a": tensor([3], 0, 8)}, bytes(8)),
        pack({"a": tensor([-2], 0, -8)}),
        pack({"a": tensor([2], 0, 8)}, bytes(8))[:-3],
    ],
)
def test_a_file_that_cannot_be_whole_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelUnusable, match=r"model\.safetensors is truncated or corrupt") as failure:
        weight_bytes(tmp_path)
    assert str(tmp_path) not in failure.value.message


def test_no_weights_at_all(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match=r"no model\*\.safetensors"):
        weight_bytes(tmp_path)


@pytest.mark.parametrize(
    ("names", "complete"),
    [
        ("config.json tokenizer.json model.safetensors", True),
        ("config.json tokenizer.model model-00001-of-00002.safetensors model-00002-of-00002.safetensors", True),
        ("config.json tokenizer.model model-00001-of-00002.safetensors", False),
        ("tokenizer.json model.safetensors", False),
        ("config.json model.safetensors", False),
        ("config.json tokenizer.json", False),
        ("config.json tokenizer.json model.safetensors.index.json x.safetensors", False),
        ("config.json tokenizer.json model.safetensors.index.json x.safetensors y.safetensors", True),
    ],
)
def test_when_a_directory_is_complete(tmp_path: Path, names: str, complete: bool) -> None:
    for name in names.split():
        (tmp_path / name).write_text('{"weight_map": {"a": "x.safetensors", "b": "y.safetensors"}}')
    assert is_complete(tmp_path) is complete


def test_an_index_cannot_point_outside(tmp_path: Path) -> None:
    inside = tmp_path / "model"
    inside.mkdir()
    for name in ("config.json", "tokenizer.json", "../x.safetensors"):
        (inside / name).write_text("{}")
    (inside / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x.safetensors"}}')
    assert not is_complete(inside)


def test_the_listing_of_other_tools_is_believed(tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "trees").mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (snapshot / name).write_text("{}")
    listed = {name: {"size": 2, "blob_id": "x"} for name in ("config.json", "tokenizer.json", "model.safetensors")}
    tree = tmp_path / "trees" / "abc.json"
    tree.write_text(json.dumps({"format_version": 1, "files": listed | {"README.md": {"size": 9, "blob_id": "y"}}}))
    assert is_complete(snapshot)
    tree.write_text(json.dumps({"format_version": 1, "files": listed | {"chat_template.jinja": {"size": 9}}}))
    assert not is_complete(snapshot)
    tree.write_text(json.dumps({"format_version": 1, "files": listed | {"tokenizer.json": {"size": 3}}}))
    assert not is_complete(snapshot)
