"""What a tier below asks of a prefix cache, and gives to it: parts of sequences, by the places of their tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import mlx.core as mx
from mlx_lm.models.cache import KVCache

from app.engine.ids import WIDTH
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.cache.layers import parts
from app.engine.mlx.cache.segments import Cut, States
from app.engine.mlx.cache.tree import PIECE, Match, Node, Tree

CROWDED = 0.75
"""Of what may be held."""


class Pool(Protocol):
    """What bounds what is held."""

    limit: int
    nbytes: int

    def trim(self, limit: int) -> None:
        """Let go of what is beyond that."""


class Adopting(Protocol):
    """The part of a prefix cache that others may look into. MLX thread only."""

    _tree: Tree
    _pool: Pool
    appends: bool
    """Whether any layer appends."""
    noted: Callable[[bytes], None]
    """Told of every sequence that is kept."""

    def _split(self, node: Node, position: int) -> Node: ...
    def _place(self, node: Node) -> None: ...
    def _use(self, node: Node) -> None: ...
    def _check(self, node: Node, position: int, states: KV) -> list[KV]: ...

    @property
    def limit(self) -> int:
        """Bytes that may be held, of all models."""
        return self._pool.limit

    @property
    def crowded(self) -> bool:
        """Whether little more may be kept before something has to go."""
        return self._pool.nbytes > CROWDED * self._pool.limit

    def match(self, packed: bytes) -> Match:
        """What is held of a sequence's beginning, whether or not it serves."""
        return self._tree.match(packed)

    def touch(self, packed: bytes) -> None:
        """What is held of a sequence's beginning goes after all else: more of it is about to come."""
        if nodes := self._tree.match(packed).nodes:
            self._use(nodes[-1])

    def cut(self, packed: bytes, start: int) -> Cut:
        """The tokens from ``start`` on of a sequence all of which is held, as one. Nothing is computed yet."""
        taken: list[tuple[Cut, int, int]] = []
        for node in self._tree.match(packed).nodes:
            if node.end > start and node.held is not None:
                end = min(node.end, len(packed) // WIDTH)
                taken.append((node.held.layers[0], max(0, start - node.start), end - node.start))
        columns = zip(*([array[:, :, first:last] for array in cut.arrays] for cut, first, last in taken), strict=True)
        arrays = [mx.concatenate(column, axis=2) for column in columns]
        return Cut(arrays, len(packed) // WIDTH - start, taken[0][0].layout)

    def adopt(self, packed: bytes, cuts: Sequence[tuple[int, Cut]], states: tuple[int, States] | None) -> None:
        """Keep what was computed of a sequence elsewhere: ``cuts`` and where each begins, ``states`` and where.

        The sequence ends with the last of them. What memory holds already is left as it is.
        """
        match, made = self._tree.match(packed), list[KV]()
        node = match.nodes[-1] if match.nodes else self._tree.root
        if match.tokens < min(len(packed) // WIDTH, node.end):
            node = self._split(node, match.tokens)
        for start, cut in cuts if self.appends else _nothing(node.end, 0 if states is None else states[0]):
            at, end = node.end, start + cut.tokens
            if start <= at < end:  # a gap is what memory has let go of meanwhile
                made.append(KV([cut if start == at else cut.part(at - start, cut.tokens)], 1, merged=False))
                node = self._tree.add(node, packed[at * WIDTH : end * WIDTH], made[-1])
                self._place(node)
        for each in made[-1:]:
            each.settle(made)
        if node.parent is None:
            return
        self._use(node)
        if states is not None and states[0] <= node.end:
            while node.start >= states[0] and node.parent is not None:
                node = node.parent
            self._check(node, states[0], KV([states[1]], 1, merged=False))
        self._pool.trim(self._pool.limit)


def any_appends(kv: KV) -> bool:
    """Whether any layer does."""
    return any(type(part) is KVCache for part in parts(kv.layers))


def _nothing(start: int, end: int) -> list[tuple[int, Cut]]:
    """Tokens of a model none of whose layers appends."""
    return [(at, Cut((), min(PIECE, end - at), ())) for at in range(start, end, PIECE)]
