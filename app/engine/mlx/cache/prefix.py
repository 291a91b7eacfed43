"""The prefix cache: KV caches of sequences seen before, so that their common beginnings are not computed again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from app.engine.ids import WIDTH, pack
from app.engine.mlx.cache.adoption import Adopting, any_appends
from app.engine.mlx.cache.arrangement import STEP
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.cache.spacing import Spacing
from app.engine.mlx.cache.tree import PIECE, Checkpoint, Node, Tree

SHORTEST = 16
"""Tokens; copying a shorter beginning costs more than computing it."""
SHORTEST_ON_CUDA = 128
"""There a slice takes as long for 16 tokens as for a thousand, and longer behind a beginning of a new length."""

Entry = Node | Checkpoint


class PrefixPool:
    """What is held for all models, least recently used first, within ``limit`` bytes. Changed on the MLX thread only.

    A node stands before its parent: ends go first, beginnings after what stands on them. Any thread reads ``nbytes``.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
        self._entries: OrderedDict[Entry, tuple[PrefixCache, int]] = OrderedDict()

    def trim(self, limit: int) -> None:
        """Forget the least recently used until at most ``limit`` bytes are held."""
        while self.nbytes > limit:
            entry, (owner, _) = next(iter(self._entries.items()))
            owner.let_go(entry)

    def book(self, owner: PrefixCache, entry: Entry, nbytes: int) -> None:
        """It holds so much now; a new one is the most recently used."""
        self.nbytes += nbytes - self._entries.get(entry, (owner, 0))[1]
        self._entries[entry] = owner, nbytes

    def use(self, entry: Entry) -> None:
        """Make it the most recently used."""
        self._entries.move_to_end(entry)

    def strike(self, entry: Entry) -> None:
        """It holds nothing any more."""
        self.nbytes -= self._entries.pop(entry)[1]

    def of(self, owner: PrefixCache) -> list[Entry]:
        """One model's, the least recently used first."""
        return [entry for entry, (whose, _) in self._entries.items() if whose is owner]


class _Usable(NamedTuple):
    """How much of a beginning can be gone on from, and from which checkpoint, if one is needed."""

    tokens: int
    nodes: Sequence[Node] = ()
    checkpoint: Checkpoint | None = None


class Apart:
    """One model's prefix caches, one for each owner, within one pool; ``make`` makes one. MLX thread only."""

    def __init__(self, make: Callable[[], PrefixCache]) -> None:
        self._make = make
        self.shared = make()
        """Of those who are nobody's."""
        self._owned: dict[bytes, PrefixCache] = {b"": self.shared}

    def of(self, owner: bytes) -> PrefixCache:
        """What was computed for one owner."""
        if owner not in self._owned:
            self._owned[owner] = self._make()
        return self._owned[owner]

    def clear(self) -> None:
        """Forget everybody's sequences."""
        for each in self._owned.values():
            each.clear()


class PrefixCache(Adopting):
    """One model's sequences in the pool. MLX thread only.

    Where all layers append, any beginning that is known serves. Where some do not, only those at which their states
    were kept, and the nearest of these does.

    ``fresh`` makes an empty cache. ``shortest`` is the least that is worth sharing, ``worth_keeping`` the least that a
    prompt must add to what is known of it.
    """

    def __init__(self, pool: PrefixPool, fresh: Callable[[], KV], shortest: int = SHORTEST) -> None:
        self._pool = pool
        self._fresh = fresh
        self._tree = Tree()
        empty = fresh()
        self.cuts, self.appends = empty.plain, any_appends(empty)
        """Whether all layers append, and whether any does."""
        self.noted: Callable[[bytes], None] = lambda _: None
        self.shortest, self.worth_keeping = shortest, 2 * shortest
        self._spacing = Spacing(self.worth_keeping)

    def stops(self, boundaries: Sequence[int], known: int, end: int) -> list[int]:
        """Positions of a prompt, behind those ``known`` and up to its ``end``, at which its states are to be kept."""
        return [] if self.cuts else self._spacing.places(boundaries, known, end)

    def known(self, packed: bytes) -> int:
        """How many tokens at the beginning of a prompt :meth:`find` would spare."""
        return self._usable(packed).tokens

    def find(self, packed: bytes) -> tuple[KV, int] | None:
        """The longest beginning of a prompt that serves, lazily, and its length; the last token is no part of it."""
        found = self._usable(packed)
        if not found.tokens:
            return None
        self._use(found.nodes[-1])
        states, surplus = None, 0
        if found.checkpoint is not None:
            self._pool.use(found.checkpoint)
            states, surplus = found.checkpoint.states, found.checkpoint.position - found.tokens
        kv = self._fresh()
        cuts = [node.held for node in found.nodes if node.held is not None]
        room = -(-len(packed) // WIDTH // STEP) * STEP
        kv.restore(cuts, found.tokens, states, surplus, room)
        return kv, found.tokens

    def nearest(self, packed: bytes) -> tuple[int, int]:
        """Where a prompt begins to differ from all that is kept, and how many tokens more that has."""
        return self._tree.nearest(packed)

    def put(self, tokens: Sequence[int], kv: KV, row: int = 0) -> None:
        """Keep what a row of ``kv`` holds of these tokens, which it has just computed."""
        kv.settle(self.keep(pack(tokens), kv, row))

    def keep(
        self, packed: bytes, kv: KV, row: int = 0, taken: Sequence[tuple[int, KV]] = (), *, checkpoint: bool = True
    ) -> list[KV]:
        """Keep what a row of ``kv`` holds of a sequence, as far as it is not known yet; what is to be settled for it.

        The row must hold no more than that where its states are to serve as a ``checkpoint``; those of places before
        were ``taken``, and settled, likewise. :meth:`KV.settle` comes before the cache is written to.
        """
        tokens = len(packed) // WIDTH
        if tokens < self.shortest or not self._pool.limit:
            return []
        match = self._tree.match(packed)
        node, changed = match.nodes[-1] if match.nodes else self._tree.root, list[Node]()
        if match.tokens < min(tokens, node.end):
            changed.append(node)
            node = self._split(node, match.tokens)
            changed.append(node)
        if match.tokens < tokens:
            node = self._grow(node, packed, partial(kv.cut, row), changed)
        self._use(node)
        for position, states in taken:
            self._check(next(it for it in reversed(node.path) if it.start < position), position, states)
        made = [] if self.cuts or not checkpoint else self._check(node, tokens, kv.states(row))
        self._pool.trim(self._pool.limit)
        self.noted(packed)
        return [*made, *(it.held for it in changed if it.parent is not None and it.held is not None)]

    def clear(self) -> None:
        """Forget this model's sequences."""
        for entry in self._pool.of(self):
            self._pool.strike(entry)
        self._tree = Tree()

    def let_go(self, entry: Entry) -> None:
        """The pool needs its place."""
        if isinstance(entry, Checkpoint):
            self._pool.strike(entry)
            del entry.node.states[entry.position]
            return
        for each in list[Entry]((*entry.children.values(), *entry.states.values())):
            self.let_go(each)
        self._pool.strike(entry)
        self._tree.remove(entry)

    def _usable(self, packed: bytes) -> _Usable:
        match = self._tree.match(packed[:-WIDTH])
        tokens, checkpoint = (match.tokens, None) if self.cuts else _nearest(match.nodes, match.tokens)
        if tokens < self.shortest:
            return _Usable(0)
        return _Usable(tokens, [node for node in match.nodes if node.start < tokens], checkpoint)

    def _use(self, node: Node) -> None:
        """It is used, and so is all that it stands on."""
        for each in reversed(node.path):
            self._pool.use(each)

    def _split(self, node: Node, position: int) -> Node:
        upper = self._tree.split(node, position)
        for part in (node, upper):
            self._place(part)
        return upper

    def _place(self, node: Node) -> None:
        """Book it; ids alone count where no layer appends, so that there is an end of them."""
        held = 0 if node.held is None else node.held.nbytes
        self._pool.book(self, node, held or len(node.ids))

    def _grow(self, node: Node, packed: bytes, cut: Callable[[int, int], KV], changed: list[Node]) -> Node:
        """What ``packed`` has behind ``node``: more tokens in it as long as it is a short end, then new nodes."""
        at, tokens = node.end, len(packed) // WIDTH
        if node.parent is not None and not node.children and at - node.start < PIECE:
            at = min(node.start + PIECE, tokens)
            node.ids, node.held = packed[node.start * WIDTH : at * WIDTH], cut(node.start, at)
            changed.append(node)
            self._place(node)
        while at < tokens:
            end = min(at + PIECE, tokens)
            node = self._tree.add(node, packed[at * WIDTH : end * WIDTH], cut(at, end))
            changed.append(node)
            self._place(node)
            at = end
        return node

    def _check(self, node: Node, position: int, states: KV) -> list[KV]:
        """Keep the states of ``position``, among the tokens of ``node``; what has to be evaluated."""
        if position in node.states:
            return []
        made = node.states[position] = Checkpoint(node, position, states)
        self._pool.book(self, made, states.nbytes)
        held = [it for each in node.path if each.states for _, it in sorted(each.states.items())]
        cuts = 0 if node.held is None else node.held.nbytes * position // (node.end - node.start)
        self._spacing.kept(position, states.nbytes, cuts)
        for number in self._spacing.surplus([it.position for it in held], position, states.nbytes, cuts):
            self.let_go(held[number])
        return [states]


def _nearest(nodes: Sequence[Node], tokens: int) -> tuple[int, Checkpoint | None]:
    """The furthest position, at most ``tokens``, that a checkpoint serves; one further on may be trimmed to it."""
    for node in nodes[-1:]:
        for further in (node, *node.children.values()):
            for position, checkpoint in further.states.items():
                if position > tokens and checkpoint.states.layers[0].trimmable:
                    return tokens, checkpoint
    for node in reversed(nodes):
        known = [position for position in node.states if position <= tokens]
        if known:
            return max(known), node.states[max(known)]
    return 0, None
