"""Which model directories there are below a root."""

import os
import unicodedata
from pathlib import Path

from msgspec import Struct

_DEPTH = 6


class ModelDirectory(Struct, frozen=True):
    """``created`` is the age of its config.json, in seconds since 1970."""

    path: Path
    created: int


def scan(root: Path, config: str = "config.json") -> dict[str, ModelDirectory]:
    """Every directory below ``root`` with ``config`` and weights, by its relative path with forward slashes.

    Letters with accents are composed (NFC), whatever the disk makes of them.
    Nothing is looked for inside a model, in hidden directories, or more than six levels down. Directories that
    cannot be read are passed over; links are followed, each target once.
    """
    found: dict[str, ModelDirectory] = {}
    seen: set[Path] = set()
    level = [root]
    for _ in range(_DEPTH + 1):
        below: list[Path] = []
        for directory in level:
            real = directory.resolve()
            if real in seen:
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
                below += inside
        level = sorted(below)
    return found


def _look(directory: Path, config: str) -> tuple[int | None, list[Path]]:
    """When its configuration was made, if it is a model, and the directories in it."""
    created, weights, inside = None, False, list[Path]()
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                inside.append(Path(entry.path))
            elif entry.name == config and entry.is_file():
                created = int(entry.stat().st_mtime)
            else:
                weights |= entry.name.endswith(".safetensors") and entry.is_file()
    return (created if weights else None), inside
