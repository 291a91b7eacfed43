"""Which files of a repo an MLX model needs, and what the hub says of each. Pure: no disk, no network."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from msgspec import Struct

from app.errors import ModelUnusable

_WEIGHTS = ("model*.safetensors", "adapters.safetensors")
_WORDS = ("*.json", "*.jsonl", "*.txt", "*.jinja", "*.tiktoken", "tokenizer.model", "tiktoken.model")
_TEMPLATES = "additional_chat_templates"
_STEP = re.compile(r"\d+_\w+")
"""Folders of sentence-transformers' steps behind a transformer: ``1_Pooling``, ``2_Dense``, ``2_Normalize``."""
_STEP_FILES = {"config.json", "model.safetensors"}
_FORMATS = {
    ".gguf": "gguf",
    ".bin": "bin",
    ".pt": "pt",
    ".pth": "pt",
    ".ckpt": "ckpt",
    ".onnx": "onnx",
    ".h5": "h5",
    ".msgpack": "msgpack",
    ".npz": "npz",
    ".tflite": "tflite",
    ".mlmodel": "mlmodel",
    ".safetensors": "safetensors under other names than model*.safetensors",
}


class RepoFile(Struct, frozen=True):
    """One file of a repo at one commit.

    ``size`` is bytes. ``blob`` is its name in the cache's ``blobs`` directory: the hub's ETag, which is the
    sha256 for files in large-file storage and git's blob id (a sha1) for the others. ``sha256`` is None for those.
    """

    name: str
    size: int
    blob: str
    sha256: str | None = None

    @property
    def is_weights(self) -> bool:
        """Whether this is one of the files that make a model large."""
        return self.name.endswith(".safetensors")


class RepoInfo(Struct, frozen=True):
    """A repo at one commit: the files that are needed to serve it, and no others."""

    repo: str
    commit: str
    files: tuple[RepoFile, ...]

    @property
    def total_bytes(self) -> int:
        """What a complete download weighs."""
        return sum(file.size for file in self.files)

    @property
    def weight_bytes(self) -> int:
        """What the weights weigh, before anything is on disk; :func:`weight_bytes` is exact afterwards."""
        return sum(file.size for file in self.files if file.is_weights)


def is_needed(name: str) -> bool:
    """Whether a file is one that loading may read: weights, configuration, tokenizer, template or how to pool.

    Never Python, pickles or other formats, and never a name that could leave a directory.
    """
    if not is_safe(name):
        return False
    path = PurePosixPath(name)
    if len(path.parts) == 2 and _STEP.fullmatch(path.parts[0]):
        return path.name in _STEP_FILES
    if path.parent.name:
        return path.parts[:-1] == (_TEMPLATES,) and path.suffix == ".jinja"
    return any(fnmatchcase(name, pattern) for pattern in (*_WEIGHTS, *_WORDS))


def is_safe(name: str) -> bool:
    """Whether a name given by the hub stays inside the directory it is joined to, on any system."""
    if not name or "\\" in name or ":" in name or not name.isprintable():
        return False
    return not name.startswith(("/", "~")) and not any(part in {"", ".", ".."} for part in name.split("/"))


def require_loadable(repo: str, names: Iterable[str]) -> None:
    """Refuse a repo without weights that MLX can load, naming the formats that are among all its ``names``.

    Raises :class:`app.errors.ModelUnusable`.
    """
    names = tuple(names)
    if not any(is_needed(name) and name.endswith(".safetensors") and "/" not in name for name in names):
        suffixes = {PurePosixPath(name).suffix.lower() for name in names}
        formats = sorted({_FORMATS[suffix] for suffix in suffixes if suffix in _FORMATS})
        found = f"only {', '.join(formats)}" if formats else "no weights at all"
        raise ModelUnusable(
            f"{repo} has no weights that MLX can load (model*.safetensors): {found}. "
            "Name a repo with safetensors weights, for example its conversion under mlx-community.",
            code="model_format_unsupported",
        )
    if "config.json" not in names and "adapter_config.json" not in names:
        raise ModelUnusable(
            f"{repo} has weights but no config.json, so its architecture is unknown. Name a complete model repo.",
            code="model_format_unsupported",
        )
