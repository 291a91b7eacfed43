"""Where sequences lie on disk: which files they are made of, which of these are there, which are still to be written.

A sequence is its pieces of 256 tokens, each named by all tokens up to its end, and what is left at its end; beginnings
that sequences share are there once. States of layers that do not append are files of their own, at their positions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from app.engine.disk.form import Facts, File, Kind, chained
from app.engine.disk.index import Entry
from app.engine.disk.store import DiskStore
from app.engine.ids import WIDTH, common
from app.engine.mlx.cache.filed import cut_to, states_to
from app.engine.mlx.cache.prefix import PrefixCache
from app.engine.mlx.cache.tree import PIECE, Checkpoint

STEP = PIECE * WIDTH
"""Bytes of the ids of a piece."""


class Plan(NamedTuple):
    """Files that make the first ``tokens`` of a prompt known: keys in their order, then perhaps states."""

    tokens: int
    files: tuple[Entry, ...]

    @property
    def nbytes(self) -> int:
        """Of all files."""
        return sum(entry.nbytes for entry in self.files)


class Pieces:
    """One model's, in memory and on disk. MLX thread only."""

    def __init__(self, store: DiskStore, prefixes: PrefixCache) -> None:
        self._store = store
        self._there = store.index
        self._prefixes = prefixes

    def plan(self, packed: bytes) -> Plan | None:
        """The files that memory lacks for the longest beginning of a prompt; its last token is never part of it."""
        if not self._there.nbytes:
            return None
        wanted = packed[:-WIDTH]
        parents = self._parents(wanted)
        keys, covered = self._keys(wanted, parents, self._prefixes.match(wanted).tokens)
        plan = Plan(covered, keys) if self._prefixes.cuts else self._with_states(wanted, parents, keys, covered)
        return plan if plan is not None and plan.files else None

    def unwritten(self, packed: bytes, besides: Collection[str]) -> Iterator[File]:
        """What memory holds of a sequence and the disk does not, but for files called ``besides``, beginning first.

        Raises :class:`app.engine.mlx.cache.filed.Unwritable` for states that no file can hold.
        """
        match = self._prefixes.match(packed)
        held, parents = match.tokens * WIDTH, self._parents(packed[: match.tokens * WIDTH])
        states: dict[int, list[tuple[int, Checkpoint]]] = defaultdict(list)
        for at, checkpoint in ((position * WIDTH, it) for node in match.nodes for position, it in node.states.items()):
            if at <= held:
                states[at // STEP].append((at, checkpoint))
        for number, parent in enumerate(parents):
            start, end = number * STEP, min(number * STEP + STEP, held)
            facts = self._facts("keys", parent, start, packed[start:end])
            short = self._prefixes.cuts and (end - start) // WIDTH < self._prefixes.shortest
            if start < end and not short and facts.name not in besides and not self._has(facts):
                cut = self._prefixes.cut(packed[:end], start // WIDTH)
                if cut.arrays:
                    tensors, more = cut_to(cut)
                    yield self._facts("keys", parent, start, facts.ids, more), tensors
            for at, checkpoint in states.get(number, ()):
                facts = self._facts("states", parent, start, packed[start:at])
                if facts.name not in besides and not self._has(facts):
                    tensors, more = states_to(checkpoint.states.layers[0])
                    yield self._facts("states", parent, start, facts.ids, more), tensors

    def names(self, packed: bytes) -> list[str]:
        """All files of a sequence's beginnings, in the order of their tokens."""
        found: list[str] = []
        for number, parent in enumerate(self._parents(packed)):
            rest = packed[number * STEP :]
            behind = self._there.beginnings(parent, "keys", rest) + self._there.beginnings(parent, "states", rest)
            found += [it.facts.name for it in sorted(behind, key=lambda it: it.facts.end)]
        return found

    def _has(self, facts: Facts) -> bool:
        """Whether a file, or one that is longer, is there."""
        if self._there.find(facts.name) is not None:
            return True
        near = self._there.near(facts.parent, "keys", facts.ids) if facts.kind == "keys" else []
        return len(facts.ids) < STEP and any(it.facts.ids.startswith(facts.ids) for it in near)

    def _facts(self, kind: Kind, parent: str, start: int, ids: bytes, more: str = "") -> Facts:
        return Facts(self._store.model, kind, parent, start // WIDTH, ids, more)

    def _parents(self, packed: bytes) -> list[str]:
        """The name of nothing, then those of each whole number of pieces."""
        names = [chained("", self._store.model.encode())]
        for start in range(0, len(packed) - STEP + 1, STEP):
            names.append(chained(names[-1], packed[start : start + STEP]))
        return names

    def _keys(self, wanted: bytes, parents: Sequence[str], held: int) -> tuple[tuple[Entry, ...], int]:
        """Files that go on from the first ``held`` tokens, which memory has, and how many there are with them."""
        found: list[Entry] = []
        for number, parent in enumerate(parents):
            start = number * STEP
            rest = wanted[start : start + STEP]
            if held * WIDTH >= start + len(rest):
                continue
            near = self._there.near(parent, "keys", rest)
            best = max(near, key=lambda it: common(it.facts.ids, rest), default=None)
            same = 0 if best is None else common(best.facts.ids, rest)
            if best is None or start // WIDTH + same <= held:
                break
            found.append(best)
            held = start // WIDTH + same
            if same < PIECE:
                break
        return tuple(found), held

    def _with_states(self, wanted: bytes, parents: Sequence[str], keys: Sequence[Entry], covered: int) -> Plan | None:
        """With the states of the furthest position up to which there are keys, and no keys behind it."""
        for number in reversed(range(len(parents))):
            rest = wanted[number * STEP :]
            states = self._there.beginnings(parents[number], "states", rest)
            fits = [it for it in states if it.facts.end <= covered or not self._prefixes.appends]
            if fits:
                best = fits[-1]
                return Plan(best.facts.end, (*(it for it in keys if it.facts.start < best.facts.end), best))
        return None
