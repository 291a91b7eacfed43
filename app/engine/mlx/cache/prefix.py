"""The prefix cache: KV caches of prompts seen before, so that their common beginnings are not computed again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.engine.mlx.cache.kv import KV

SHORTEST = 16
"""Tokens; copying a shorter beginning costs more than computing it."""
SHORTEST_ON_CUDA = 128
"""There a slice takes as long for 16 tokens as for a thousand, and longer behind a beginning of a new length."""
MOST = 128
"""Prompts held, of all models; each is compared with every new prompt of its model."""

Ids = NDArray[np.int64]


class PrefixPool:
    """The prompts of all models, least recently used first, within ``limit`` bytes. Changed on the MLX thread only.

    ``nbytes`` may be read anywhere.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
        self._entries: OrderedDict[tuple[int, bytes], tuple[Ids, KV]] = OrderedDict()

    def trim(self, limit: int) -> None:
        """Forget the least recently used until at most ``limit`` bytes are held."""
        while self.nbytes > limit:
            self._drop(next(iter(self._entries)))

    def of(self, owner: int) -> list[tuple[tuple[int, bytes], Ids, KV]]:
        """One model's entries, least recently used first."""
        return [(key, ids, kv) for key, (ids, kv) in self._entries.items() if key[0] == owner]

    def use(self, key: tuple[int, bytes]) -> None:
        """Make an entry the most recently used."""
        self._entries.move_to_end(key)

    def put(self, owner: int, ids: Ids, kv: KV) -> None:
        """Keep an entry, at others' expense."""
        key = (owner, ids.tobytes())
        self.drop(key)
        kv.compact()
        self._entries[key] = ids, kv
        self.nbytes += kv.nbytes
        while len(self._entries) > MOST or self.nbytes > self.limit:
            self._drop(next(iter(self._entries)))

    def drop(self, key: tuple[int, bytes]) -> None:
        """Forget an entry, if it is there."""
        if key in self._entries:
            self._drop(key)

    def _drop(self, key: tuple[int, bytes]) -> None:
        self.nbytes -= self._entries.pop(key)[1].nbytes


class PrefixCache:
    """One model's view of the pool. MLX thread only.

    A cache that can be trimmed serves any prompt that shares a beginning with it; one that cannot (a sliding window
    that has slid, a recurrent state) serves only prompts that begin with all of it.

    ``shortest`` is the least that is worth sharing, and ``worth_keeping`` the least that a prompt must add to what is
    known of it; a shorter end is computed again sooner than it is found.
    """

    def __init__(self, pool: PrefixPool, shortest: int = SHORTEST) -> None:
        self._pool = pool
        self._owner = id(self)
        self.shortest = shortest
        self.worth_keeping = 2 * shortest

    def known(self, prompt: Sequence[int]) -> int:
        """How many tokens at the beginning of ``prompt`` :meth:`find` would spare."""
        best = self._best(prompt)
        return best[1] if best else 0

    def find(self, prompt: Sequence[int]) -> tuple[KV, int] | None:
        """A copy of the longest known beginning of ``prompt``, and its length; the last token is never part of it."""
        best = self._best(prompt)
        if best is None:
            return None
        key, length, ids, kv = best
        self._pool.use(key)
        kv = kv.copy()
        kv.trim(len(ids) - length)
        kv.shrink()
        return kv, length

    def put(self, tokens: Sequence[int], kv: KV) -> None:
        """Keep ``kv``, which holds exactly ``tokens`` and belongs to the cache from now on.

        Its beginnings are let go only if it can be trimmed to them: else they serve what it cannot.
        """
        if len(tokens) < self.shortest:
            return
        ids = np.asarray(tokens, dtype=np.int64)
        whole = ids.tobytes()
        for key, _, _ in self._pool.of(self._owner) if kv.trimmable else ():
            if whole.startswith(key[1]):
                self._pool.drop(key)  # the longer one serves all that the shorter one did
        self._pool.put(self._owner, ids, kv)

    def clear(self) -> None:
        """Forget this model's prompts."""
        for key, _, _ in self._pool.of(self._owner):
            self._pool.drop(key)

    def _best(self, prompt: Sequence[int]) -> tuple[tuple[int, bytes], int, Ids, KV] | None:
        wanted = np.asarray(prompt[:-1], dtype=np.int64)
        best = None
        longest = self.shortest - 1
        begins = wanted[: self.shortest].tobytes()
        for key, ids, kv in self._pool.of(self._owner):
            if not key[1].startswith(begins):
                continue
            length = _common(wanted, ids)
            if length > longest and (length == len(ids) or kv.trimmable):
                best, longest = (key, length, ids, kv), length
        return best


def _common(a: Ids, b: Ids) -> int:
    """Length of the common beginning."""
    size = min(len(a), len(b))
    different = np.flatnonzero(a[:size] != b[:size])
    return int(different[0]) if different.size else size
