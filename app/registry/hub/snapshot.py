"""Whether a model directory has everything that loading needs."""

import re
from pathlib import Path

import msgspec

from app.engine.kind import Module, modules_of
from app.registry.hub.files import is_needed, is_safe

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tiktoken.model", "vocab.json")
_SHARD = re.compile(r"(model.*)-\d+-of-(\d+)\.safetensors")


_DESCRIBED = {"Dense", "LogitScore", "Pooling"}
_OPTIONAL = (".txt", ".jsonl")


class _Listed(msgspec.Struct, frozen=True):
    size: int


class _Tree(msgspec.Struct, frozen=True):
    files: dict[str, _Listed]


class _Index(msgspec.Struct, frozen=True):
    weight_map: dict[str, str]


def is_complete(directory: Path) -> bool:
    """Whether configuration, tokenizer and every weights file are there; contents are not looked at.

    What is missing is told by the listing that huggingface_hub keeps beside its snapshots
    (``trees/<commit>.json``), by the index of the shards, or by their names (``-00001-of-00004``).
    """
    if not all(_has(directory, name, size) for name, size in _listed(directory).items()):
        return False
    if not (directory / "config.json").is_file():
        return False
    if not any((directory / name).is_file() for name in _TOKENIZERS) and not any(directory.glob("*.tiktoken")):
        return False
    if not all(is_safe(step.path) and (directory / step.path / "config.json").is_file() for step in _steps(directory)):
        return False
    present = {path.name for path in directory.glob("model*.safetensors") if path.is_file()}
    promised = _indexed(directory / "model.safetensors.index.json")
    if promised is None:
        return bool(present) and all(_siblings(name, present) for name in present)
    return bool(promised) and all(is_safe(name) and (directory / name).is_file() for name in promised)


def _steps(directory: Path) -> list[Module]:
    """The steps of an embedding model that are described by a file in a folder of their own."""
    return [module for module in modules_of(directory) if module.name in _DESCRIBED and module.path]


def _listed(directory: Path) -> dict[str, int]:
    """The needed files of a snapshot and their sizes, empty if they are not on record."""
    tree = directory.parent.parent / "trees" / f"{directory.name}.json"
    try:
        files = msgspec.json.decode(tree.read_bytes(), type=_Tree).files
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return {name: file.size for name, file in files.items() if is_needed(name) and not name.endswith(_OPTIONAL)}


def _has(directory: Path, name: str, size: int) -> bool:
    try:
        return (directory / name).stat().st_size == size
    except OSError:
        return False


def _indexed(index: Path) -> set[str] | None:
    try:
        return set(msgspec.json.decode(index.read_bytes(), type=_Index).weight_map.values())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _siblings(name: str, present: set[str]) -> bool:
    match = _SHARD.fullmatch(name)
    if match is None:
        return True
    shards = [other for other in present if (found := _SHARD.fullmatch(other)) and found[1] == match[1]]
    return len(shards) == int(match[2])
