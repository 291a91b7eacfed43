"""Which model directories there are below a root."""

import os
import unicodedata
from fnmatch import fnmatchcase
from operator import itemgetter
from pathlib import Path

from msgspec import Struct

_DEPTH = 6
_REPEATS = 1000
"""Directories that are looked into once more because another link leads to them."""
_WEIGHTS = {"config.json": "model*.safetensors", "adapter_config.json": "adapters.safetensors"}
"""What is loaded beside each configuration: what lies there under another name makes no model."""


class ModelDirectory(Struct, frozen=True):
    """``created`` is the age of its config.json, in seconds since 1970."""

    path: Path
    created: int


def scan(root: Path, config: str = "config.json") -> dict[str, ModelDirectory]:
    """Every directory below ``root`` with ``config`` and weights, by its relative path with forward slashes.

    Letters with accents are composed (NFC), whatever the disk makes of them.
    Nothing is looked for inside a model, in hidden directories, or more than six levels down. What cannot be read is
    passed over. Links are followed, several to one directory too, but none to a directory that it lies in.
    """
    found: dict[str, ModelDirectory] = {}
    seen: set[str] = set()
    repeats = 0
    level: list[tuple[Path, frozenset[str]]] = [(root, frozenset())]
    for _ in range(_DEPTH + 1):
        below: list[tuple[Path, frozenset[str]]] = []
        for directory, around in level:
            real = os.path.realpath(directory)
            repeats += real in seen
            if real in around or repeats > _REPEATS:
                continue
            seen.add(real)
            try:
                created, inside = _look(directory, config)
            except OSError:
                continue
            if created is not None and directory != root:
                name = unicodedata.normalize("NFC", directory.relative_to(root).as_posix())
                found.setdefault(name, ModelDirectory(directory, created))
            else:
                below += [(path, around | {real}) for path in inside]
        level = sorted(below, key=itemgetter(0))
    return found


def _look(directory: Path, config: str) -> tuple[int | None, list[Path]]:
    """When its configuration was made, if it is a model, and the directories in it."""
    created, weights, inside = None, False, list[Path]()
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    inside.append(Path(entry.path))
                elif entry.name == config and entry.is_file():
                    created = int(entry.stat().st_mtime)
                else:
                    weights |= fnmatchcase(entry.name, _WEIGHTS[config]) and entry.is_file()
            except OSError:  # such as a link that leads to itself
                continue
    return (created if weights else None), inside
