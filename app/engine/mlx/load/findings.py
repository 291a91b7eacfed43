"""What was found of models at earlier loads, kept on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import msgspec
from mlx.utils import tree_flatten

from app.engine.mlx.cache.journal import SharedModel
from app.engine.mlx.loaded import Abilities
from app.engine.paths import cache_home

log = logging.getLogger(__name__)


class Findings:
    """Where the abilities of one model, described by ``config``, are kept: below ``folder``, or the user's cache.

    Whatever may change them is part of the name: the types of its weights, ``kv_bits``, the device, the versions of
    MLX and mlx-lm, the number of its ranks where there are several, and the ``revision`` of the check.
    """

    def __init__(self, model: Any, config: bytes, kv_bits: int | None, revision: int, folder: Path | None) -> None:
        dtypes = list(dict.fromkeys(str(array.dtype) for _, array in tree_flatten(model.parameters())))
        versions = [version("mlx"), version("mlx-lm"), revision]
        ranks = [model.journal.ranks] if isinstance(model, SharedModel) else []
        told = [hashlib.sha256(config).hexdigest(), dtypes, kv_bits, str(mx.default_device()), *versions, *ranks]
        name = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]
        self._file = (cache_home() / "abilities" if folder is None else folder) / f"{name}.json"

    def read(self) -> Abilities | None:
        """What was found, if it can be read."""
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Abilities)
        except (OSError, msgspec.MsgspecError):
            return None

    def write(self, abilities: Abilities) -> None:
        """Keep it; where that cannot be done it is found again at the next load."""
        part = self._file.with_suffix(f".{os.getpid()}.part")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(msgspec.json.encode(abilities))
            part.replace(self._file)
        except OSError as failure:
            log.debug("what a model is able to do could not be kept: %s", failure)
