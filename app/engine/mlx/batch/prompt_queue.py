"""Prompts that wait to be computed, and what is computed next."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, NamedTuple

import mlx.core as mx

from app.engine.ids import WIDTH, common, pack
from app.engine.mlx.batch.prefill_task import PrefillTask
from app.engine.mlx.cache.arrangement import alike
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.cache.prefix import Apart
from app.engine.mlx.loaded import Loaded
from app.engine.mlx.prefill.backbone import Backbone
from app.engine.mlx.prefill.prefill import Prefill, ScoringPrefill, rows_of, width_of
from app.engine.mlx.rows import Waiting

WORTH_AWAITING = 2
"""A prompt waits for another that spares it a part, one in so many, of what that still takes."""


class _Entry(NamedTuple):
    """A sequence in the queue: in which round it is, then shorter ones first, then those that came first."""

    turn: int
    tokens: int
    number: int
    waiting: Waiting


class PromptQueue:
    """Rounds in which each request has one of its prompts computed, shorter ones first. MLX thread only.

    Who comes while a round goes on is in the next one, so nobody is overtaken for ever. Short prompts are computed
    together, shared beginnings once. ``fresh`` gives an empty cache for one row; ``group_tokens`` bounds the padded
    tokens of prompts that are computed together.
    """

    def __init__(self, loaded: Loaded, fresh: Callable[[], KV], prefixes: Apart, *, group_tokens: int) -> None:
        self._model: Any = loaded.model
        self._fresh = fresh
        self._apart = prefixes
        self._prefixes = prefixes.shared
        self._group_tokens = group_tokens
        self._groups = loaded.abilities.group and loaded.abilities.batch and fresh().batchable
        self._few_shapes = bool(mx.cuda.is_available())
        closes = loaded.abilities.last_logits and prefixes.shared.cuts and not self._few_shapes
        self._backbone = Backbone.of(loaded.model) if closes else None
        self.entries: list[_Entry] = []
        """Whatever waits, in order."""
        self.fetches: Callable[[Waiting], bool] = lambda _: False
        """Whether a prompt that is about to be begun leaves the queue instead, until something is read for it."""
        self._turn = 0
        self._turns: dict[object, int] = {}
        self._numbers = count()
        self._tried: Sequence[int] = ()

    @property
    def sequences(self) -> list[Waiting]:
        """What waits, in order."""
        return [entry.waiting for entry in self.entries]

    @property
    def waits(self) -> bool:
        """Whether something could be begun; what waits for memory cannot."""
        return any(not entry.waiting.held for entry in self.entries)

    def add(self, sequences: list[Waiting]) -> None:
        """Wait: the first of each request in the next round, the others in those that follow."""
        for waiting in sequences:
            turn = max(self._turn, self._turns.get(waiting.stream, 0)) + 1
            self._turns[waiting.stream] = turn
            insort(self.entries, _Entry(turn, len(waiting.request.prompt), next(self._numbers), waiting))

    def return_(self, group: list[Waiting]) -> None:
        """Back to the head: what was computed of them is lost."""
        for waiting in group:
            insort(self.entries, _Entry(0, len(waiting.request.prompt), next(self._numbers), waiting))

    def clear(self) -> None:
        """Forget all that waits."""
        self.entries.clear()
        self._turns.clear()

    def next(self, free_rows: int, *, idle: bool, begun: Sequence[PrefillTask] = ()) -> PrefillTask | None:
        """What to begin now, for at most ``free_rows`` rows; one sequence always fits into an idle batch.

        A request of which something is ``begun`` waits for it, and a prompt to which that is about to spare at least
        half of what it still takes.
        """
        self.entries = [entry for entry in self.entries if not entry.waiting.cancelled]
        if not self.entries:
            self._turns.clear()
        ready = self._ready(begun) if free_rows or idle else []
        if not ready or (len(ready[0].waiting.rows) > free_rows and not idle):
            return None
        first = ready[0].waiting.request
        if first.prompt_logprobs is not None:
            work = ScoringPrefill(self._model, first.prompt, first.prompt_logprobs, self._fresh())
            return PrefillTask(work, self._taken(ready[:1]), [0])
        size = self._group_size(ready, free_rows)
        if leaving := [entry for entry in ready[:size] if self.fetches(entry.waiting)]:
            self._taken(leaving)
            return self.next(free_rows, idle=idle, begun=begun)
        shared = self._shared_beginning(ready[:size])
        if shared and shared != self._tried:
            self._tried = shared  # once: the cache may have no room to keep it
            kv, known = self._apart.of(first.owner).find(_followed(pack(shared))) or (self._fresh(), 0)
            return PrefillTask(self._prefill([shared[known:]], [kv]), [], [], shared, owner=first.owner)
        self._tried = ()
        group = self._taken(ready[:size])
        found = [self._apart.of(it.request.owner).find(it.packed) or (self._fresh(), 0) for it in group]
        cached = [known for _, known in found]
        prompts = [it.request.prompt[its:-1] for it, its in zip(group, cached, strict=True)]
        stops = [self._stops(it, its) for it, its in zip(group, cached, strict=True)]
        places = [[at - its for at in each] for each, its in zip(stops, cached, strict=True)]
        prefill = self._prefill(prompts, [kv for kv, _ in found], places)
        return PrefillTask(prefill, group, cached, (), stops, backbone=self._backbone)

    def _stops(self, waiting: Waiting, known: int) -> list[int]:
        request = waiting.request
        return self._apart.of(request.owner).stops(request.boundaries, known, len(request.prompt) - 1)

    def _known(self, waiting: Waiting) -> int:
        return self._apart.of(waiting.request.owner).known(waiting.packed)

    def _ready(self, begun: Sequence[PrefillTask]) -> list[_Entry]:
        busy = {waiting.stream for task in begun for waiting in task.group}
        entries = [it for it in self.entries if it.waiting.stream not in busy and not it.waiting.held]
        return [entry for entry in entries if not self._awaits(entry.waiting, begun)] if begun else entries

    def _taken(self, entries: list[_Entry]) -> list[Waiting]:
        """These leave the queue; their rounds have begun."""
        numbers = {entry.number for entry in entries}
        self.entries = [entry for entry in self.entries if entry.number not in numbers]
        self._turn = max(self._turn, entries[0].turn)
        return [entry.waiting for entry in entries]

    def _awaits(self, waiting: Waiting, begun: Sequence[PrefillTask]) -> bool:
        request = waiting.request
        if request.prompt_logprobs is not None:
            return False
        for task in begun:
            spared = task.spares(waiting.packed, request.owner)
            worth = spared - self._known(waiting) if spared >= self._prefixes.shortest else 0
            if worth >= self._prefixes.shortest and WORTH_AWAITING * worth >= task.work.left:
                return True
        return False

    def _prefill(
        self, prompts: Sequence[Sequence[int]], caches: list[KV], stops: Sequence[Sequence[int]] = ()
    ) -> Prefill:
        """Of few shapes: the last one is repeated until there are rows enough, and nobody asks for the copies."""
        spare = rows_of(len(prompts), width_of(max(map(len, prompts)))) - len(prompts) if self._few_shapes else 0
        caches += [caches[-1].copy() for _ in range(spare)]
        prompts = [*prompts, *([prompts[-1]] * spare)]
        return Prefill(self._model, prompts, caches, few_shapes=self._few_shapes, stops=stops)

    def _group_size(self, entries: Sequence[_Entry], free_rows: int) -> int:
        """How many of those that wait are computed together: as many as fit beside the first."""
        if not self._groups:
            return 1
        size, width, rows = 0, 0, 0
        lengths: list[int] = []
        for entry in entries:
            request = entry.waiting.request
            lengths.append(len(request.prompt))
            width = max(width, len(request.prompt) - self._known(entry.waiting))
            rows += len(entry.waiting.rows)
            wide = width_of(width) if self._few_shapes else width
            tokens = wide * (rows_of(size + 1, wide) if self._few_shapes else size + 1)
            fits = rows <= free_rows and tokens <= self._group_tokens and request.prompt_logprobs is None
            fits = fits and alike(lengths)
            if size and not fits:
                break
            size += 1
        return size

    def _shared_beginning(self, entries: Sequence[_Entry]) -> Sequence[int]:
        """Tokens that all of the next prompts begin with, if enough of them are not known yet."""
        prompts = [entry.waiting.packed[:-WIDTH] for entry in entries]
        owners = {entry.waiting.request.owner for entry in entries}
        if len(prompts) < 2 or len(owners) > 1:
            return ()
        shared = min(common(prompts[0], prompt) for prompt in prompts[1:])
        known = self._apart.of(owners.pop()).known(_followed(prompts[0][: shared * WIDTH]))
        return entries[0].waiting.request.prompt[:shared] if shared >= known + self._prefixes.shortest else ()


def _followed(packed: bytes) -> bytes:
    """With one more token, whichever: all before the last one may be known."""
    return packed + bytes(WIDTH)
