"""One piece of prefill on its way through the device."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import mlx.core as mx

from app.engine.ids import WIDTH, common, pack
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.prefill.backbone import Backbone
from app.engine.mlx.prefill.prefill import Prefill, ScoringPrefill
from app.engine.mlx.prefill.slice_size import Slice
from app.engine.mlx.rows import Waiting

LONG_REST = 256
"""What a prompt lacks in the cache is computed so soon, if it is no more, that nothing need be said of it before."""
SHORT_END = 64
"""Tokens of a last slice up to which computing what is said behind it, for all of them, takes less time than a step."""


class PrefillTask:
    """One piece of prefill: the sequences it is for (none for a beginning that several share) and the work.

    ``cached`` are the tokens of each sequence that were known before, ``prefix`` the beginning that some of one
    ``owner`` share. ``stops`` are where each one's states are kept, ``kept`` how much of all is by now, and ``states``
    what of each row was taken since, with its places. With a ``backbone`` a lone row's first token need not wait
    for a step of its own.
    """

    def __init__(
        self,
        work: Prefill | ScoringPrefill,
        group: list[Waiting],
        cached: list[int],
        prefix: Sequence[int] = (),
        stops: Sequence[Sequence[int]] = (),
        *,
        owner: bytes = b"",
        backbone: Backbone | None = None,
    ) -> None:
        self.work = work
        self.owner = owner
        self.group = group
        self.cached = cached
        self.prefix = prefix
        self.stops = stops or [[len(waiting.request.prompt) - 1] for waiting in group]
        self.kept, self.states = 0, dict[int, list[tuple[int, KV]]]()
        self._backbone = backbone
        self.begun = perf_counter()
        self.announced = False
        """Whether it was said what of it was known."""

    def step(self, tokens: int, *, idle: bool) -> Slice:
        """Compute some ``tokens`` tokens; in an ``idle`` batch the ``logits`` may come of the last slice."""
        work, rows = self.work, [row for waiting in self.group for row in waiting.rows]
        lone = idle and len(rows) == 1 and not rows[0].over and 0 < work.left <= min(tokens, SHORT_END)
        if lone and self._backbone is not None and isinstance(work, Prefill):
            return work.close(self.group[0].request.prompt[-1], self._backbone)
        return work.step(tokens)

    @property
    def logits(self) -> mx.array | None:
        """What the model says behind the whole prompt, ``[1, vocabulary]``, which all lies in the cache then."""
        return self.work.logits if isinstance(self.work, Prefill) else None

    @property
    def is_long(self) -> bool:
        """Whether what is known of it is said before the rest is computed."""
        return self.work.left > LONG_REST and not any(it.resumed for it in self.group)

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
        return bool(self.group) and all(waiting.cancelled for waiting in self.group)

    @property
    def tried(self) -> bool:
        """Whether the device has given up on one of the prompts before."""
        return any(waiting.tried for waiting in self.group)

    def again(self) -> list[Waiting]:
        """The sequences, which are tried once more."""
        for waiting in self.group:
            waiting.tried = True
        return self.group

    @property
    def rows(self) -> int:
        """Rows that it will decode."""
        return sum(len(waiting.rows) for waiting in self.group)

    def spares(self, packed: bytes, owner: bytes) -> int:
        """How many tokens at the beginning of a prompt of this owner will be known when it is done."""
        begun = [(self.owner, pack(self.prefix))] if self.prefix else []
        begun += [(it.request.owner, it.packed[:-WIDTH]) for it in self.group]
        lengths = [common(packed[:-WIDTH], its) if whose == owner else 0 for whose, its in begun]
        if self.work.kv.trimmable:
            return max(lengths, default=0)
        stops = self.stops or [[len(self.prefix)]]
        known = [at for its, length in zip(stops, lengths, strict=True) for at in its if at <= length]
        return max(known, default=0)
