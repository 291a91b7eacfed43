"""What was found of models at earlier loads, kept on disk: what they are able to do, and what computing takes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, TypeVar

import mlx.core as mx
import msgspec
from mlx.utils import tree_flatten

from app.engine.mlx.cache.journal import SharedModel
from app.engine.paths import cache_home

T = TypeVar("T")
log = logging.getLogger(__name__)


class Findings(Generic[T]):
    """Where one ``kind`` of struct about one model, described by ``config``, is kept: below ``folder``, or the cache.

    Whatever may change it is part of the name: the types of the model's weights, ``kv_bits``, the device, the versions
    of MLX and mlx-lm, the number of its ranks where there are several, and the ``revision`` of what finds it.
    """

    def __init__(  # noqa: PLR0917  what the name is made of
        self,
        kind: type[T],
        model: Any,
        config: bytes,
        kv_bits: int | None,
        revision: int,
        folder: Path | None = None,
    ) -> None:
        self._kind = kind
        dtypes = list(dict.fromkeys(str(array.dtype) for _, array in tree_flatten(model.parameters())))
        versions = [version("mlx"), version("mlx-lm"), revision]
        ranks = [model.journal.ranks] if isinstance(model, SharedModel) else []
        parts = [hashlib.sha256(config).hexdigest(), dtypes, kv_bits, str(mx.default_device()), *versions, *ranks]
        name = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
        folder = cache_home() / kind.__name__.lower() if folder is None else folder
        self._file = folder / f"{name}.json"

    def read(self) -> T | None:
        """What was found, if it can be read."""
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=self._kind)
        except (OSError, msgspec.MsgspecError):
            return None

    def write(self, found: T) -> None:
        """Keep it; where that cannot be done it is found again at the next load."""
        part = self._file.with_suffix(f".{os.getpid()}.part")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(msgspec.json.encode(found))
            part.replace(self._file)
        except OSError as failure:
            log.debug("what was found of a model could not be kept: %s", failure)
