"""Prompts that wait to be computed, and what is computed next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

import mlx.core as mx

from app.engine.mlx.cache.arrangement import alike
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.cache.prefix import PrefixCache
from app.engine.mlx.loaded import Loaded
from app.engine.mlx.prefill.prefill import Prefill, ScoringPrefill
from app.engine.mlx.rows import Waiting


class PrefillTask:
    """One piece of prefill: the sequences it is for (none for a beginning that several share) and the work.

    ``cached`` are the tokens of each sequence that were known before, ``prefix`` the shared beginning.
    """

    def __init__(
        self, work: Prefill | ScoringPrefill, group: list[Waiting], cached: list[int], prefix: Sequence[int] = ()
    ) -> None:
        self.work = work
        self.group = group
        self.cached = cached
        self.prefix = prefix

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
        return bool(self.group) and all(waiting.cancelled for waiting in self.group)


class PromptQueue:
    """First come, first served; short prompts are computed together, shared beginnings once. MLX thread only.

    ``fresh`` gives an empty cache for one row; ``group_tokens`` bounds the padded tokens of prompts that are computed
    together.
    """

    def __init__(self, loaded: Loaded, fresh: Callable[[], KV], prefixes: PrefixCache, *, group_tokens: int) -> None:
        self._model: Any = loaded.model
        self._fresh = fresh
        self._prefixes = prefixes
        self._group_tokens = group_tokens
        self._groups = loaded.abilities.group and loaded.abilities.batch and fresh().batchable
        self._few_shapes = bool(mx.cuda.is_available())
        self._waiting: deque[Waiting] = deque()
        self._tried: Sequence[int] = ()

    @property
    def sequences(self) -> list[Waiting]:
        """What waits, in order."""
        return list(self._waiting)

    def add(self, sequences: list[Waiting]) -> None:
        """Wait behind what waits already."""
        self._waiting += sequences

    def return_(self, group: list[Waiting]) -> None:
        """Back to the head: what was computed of them is lost."""
        self._waiting.extendleft(reversed(group))

    def clear(self) -> None:
        """Forget all that waits."""
        self._waiting.clear()

    def next(self, free_rows: int, *, idle: bool) -> PrefillTask | None:
        """What to compute now, for at most ``free_rows`` rows; one sequence always fits into an idle batch."""
        self._waiting = deque(waiting for waiting in self._waiting if not waiting.cancelled)
        if not self._waiting or (len(self._waiting[0].rows) > free_rows and not idle):
            return None
        first = self._waiting[0].request
        if first.prompt_logprobs is not None:
            work = ScoringPrefill(self._model, first.prompt, first.prompt_logprobs, self._fresh())
            return PrefillTask(work, [self._waiting.popleft()], [0])
        size = self._group_size(free_rows)
        shared = self._shared_beginning(size)
        if shared and shared != self._tried:
            self._tried = shared  # once: the cache may have no room to keep it
            kv, known = self._prefixes.find([*shared, -1]) or (self._fresh(), 0)
            return PrefillTask(self._prefill([shared[known:]], [kv]), [], [], shared)
        self._tried = ()
        group = [self._waiting.popleft() for _ in range(size)]
        found = [self._prefixes.find(it.request.prompt) or (self._fresh(), 0) for it in group]
        cached = [known for _, known in found]
        prompts = [it.request.prompt[known:-1] for it, known in zip(group, cached, strict=True)]
        return PrefillTask(self._prefill(prompts, [kv for kv, _ in found]), group, cached)

    def _prefill(self, prompts: Sequence[Sequence[int]], caches: list[KV]) -> Prefill:
        return Prefill(self._model, prompts, caches, few_shapes=self._few_shapes)

    def _group_size(self, free_rows: int) -> int:
        """How many of those that wait are computed together: as many as fit beside the first."""
        if not self._groups:
            return 1
        size, width, rows = 0, 0, 0
        lengths: list[int] = []
        for waiting in self._waiting:
            request = waiting.request
            lengths.append(len(request.prompt))
            width = max(width, len(request.prompt) - self._prefixes.known(request.prompt))
            rows += len(waiting.rows)
            fits = rows <= free_rows and width * (size + 1) <= self._group_tokens and request.prompt_logprobs is None
            fits = fits and alike(lengths)
            if size and not fits:
                break
            size += 1
        return 1 << (size.bit_length() - 1) if self._few_shapes else size

    def _shared_beginning(self, size: int) -> Sequence[int]:
        """Tokens that all of the next ``size`` prompts begin with, if enough of them are not known yet."""
        prompts = [waiting.request.prompt[:-1] for waiting in list(self._waiting)[:size]]
        if size < 2:
            return ()
        same = takewhile(lambda column: len(set(column)) == 1, zip(*prompts, strict=False))
        shared = tuple(column[0] for column in same)
        return shared if len(shared) >= self._prefixes.known([*shared, -1]) + self._prefixes.shortest else ()
