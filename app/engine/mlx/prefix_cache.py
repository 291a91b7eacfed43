"""The prefix cache: KV caches of prompts seen before, so that their common beginnings are not computed again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.engine.mlx.kv import KV

SHORTEST = 16
"""Tokens; copying a shorter beginning costs more than computing it."""

Ids = NDArray[np.int64]


class PrefixCache:
    """Prompts of one model, least recently used first, within ``limit`` bytes. MLX thread only.

    A cache that can be trimmed serves any prompt that shares a beginning with it; one that cannot (a sliding window
    that has slid, a recurrent state) serves only prompts that begin with all of it.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
        self._entries: OrderedDict[bytes, tuple[Ids, KV]] = OrderedDict()

    def known(self, prompt: Sequence[int]) -> int:
        """How many tokens at the beginning of ``prompt`` :meth:`find` would spare."""
        return self._best(prompt)[1]

    def find(self, prompt: Sequence[int]) -> tuple[KV, int] | None:
        """A copy of the longest known beginning of ``prompt``, and its length; the last token is never part of it."""
        key, length = self._best(prompt)
        if key is None:
            return None
        self._entries.move_to_end(key)
        ids, kv = self._entries[key]
        kv = kv.copy()
        kv.trim(len(ids) - length)
        return kv, length

    def put(self, tokens: Sequence[int], kv: KV) -> None:
        """Keep ``kv``, which holds exactly ``tokens`` and belongs to the cache from now on."""
        if len(tokens) < SHORTEST or kv.nbytes > self.limit:
            return
        ids = np.asarray(tokens, dtype=np.int64)
        for key, (other, held) in list(self._entries.items()):
            if _common(ids, other) == len(other) and (held.trimmable or len(other) == len(ids)):
                self._drop(key)  # the longer one serves all that the shorter one did
        self._entries[ids.tobytes()] = ids, kv
        self.nbytes += kv.nbytes
        self.trim(self.limit)

    def trim(self, limit: int) -> None:
        """Forget the least recently used until at most ``limit`` bytes are held."""
        while self.nbytes > limit:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        self.nbytes -= self._entries.pop(key)[1].nbytes

    def _best(self, prompt: Sequence[int]) -> tuple[bytes | None, int]:
        ids = np.asarray(prompt[:-1], dtype=np.int64)
        best: tuple[bytes | None, int] = None, SHORTEST - 1
        for key, (other, kv) in self._entries.items():
            length = _common(ids, other)
            if length > best[1] and (length == len(other) or kv.trimmable):
                best = key, length
        return best if best[0] is not None else (None, 0)


def _common(a: Ids, b: Ids) -> int:
    """Length of the common beginning."""
    size = min(len(a), len(b))
    different = np.flatnonzero(a[:size] != b[:size])
    return int(different[0]) if different.size else size
