"""Prefill: computing the KV cache of prompts, in slices between decode steps.

All but the last token of each prompt are computed here; the last one is the row's first input to the decode batch,
whose logits are the only ones that anybody needs (the cache alone is evaluated, so the output layer never runs). A
short lone prompt is computed whole where nothing decodes, since a step takes as long as a slice of few tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from app.engine.base import PromptScore
from app.engine.mlx.cache.kv import KV, merge
from app.engine.mlx.draw.logprobs import Scores
from app.engine.mlx.prefill.backbone import Backbone
from app.engine.mlx.prefill.slice_size import SHORTEST_SLICE, Slice

SCORE_TOKENS = 64
"""Positions scored at once: no more logits than a step of as many rows has."""
SCORE_BYTES = 32 << 20
"""Most bytes of logits held at once while prompt log probabilities are computed."""


SHORTEST_PADDED = 2
"""Positions; a sliding window's cache takes a single one for the next token of rows without padding."""


UNPLANNED = 128
"""Positions of a slice up to which its attention needs no plan, however many rows there are."""


class Prefill:
    """Prompts computed side by side, right-padded to the longest. MLX thread only.

    ``prompts`` are the tokens to compute, ``caches`` what is already known before each of them. With ``few_shapes``
    widths are those of :func:`width_of`: CUDA plans the attention of long slices anew, for a tenth of a second, for
    every shape that it has not seen, and looks for products that suit one for some thousandths.
    ``stops`` are places in each of ``prompts`` at which a slice ends.
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        caches: list[KV],
        *,
        few_shapes: bool,
        stops: Sequence[Sequence[int]] = (),
    ) -> None:
        self.kv = caches[0] if len(caches) == 1 else merge(caches)
        self._model = model
        self._width = max(len(prompt) for prompt in prompts)
        if few_shapes and (self.kv.merged or self.kv.plain):
            self._width = width_of(self._width)
        self.done = 0
        """Positions that are computed of each row, unless it has fewer."""
        self.logits: mx.array | None = None
        """What is said behind a prompt that :meth:`close` has computed, ``[1, vocabulary]`` float32."""
        self._lengths = [len(prompt) for prompt in prompts]
        self._rolls = self.kv.merged and any(length < self._width for length in self._lengths)
        if self._rolls:
            self._width = max(self._width, SHORTEST_PADDED)
        padding = [self._width - length for length in self._lengths]
        self._spare = 0 if self.kv.merged else padding[0]
        if self._rolls:
            self.kv.prepare(self._lengths, padding)
        self._stops = self._usable(stops)
        padded = [[*prompt, *([0] * pad)] for prompt, pad in zip(prompts, padding, strict=True)]
        self._tokens = mx.array(padded, dtype=mx.uint32)

    @property
    def left(self) -> int:
        """Tokens still to compute, per row."""
        return self._width - self.done

    @property
    def reached(self) -> list[int]:
        """Rows that have a stop where the latest slice has ended."""
        return self._stops.get(self.done, [])

    def step(self, tokens: int) -> Slice:
        """Compute some ``tokens`` tokens of all rows together; what was computed. Waits for the device."""
        size, before = self._next(tokens), self.kv.positions
        if size:
            if self._rolls:
                self.kv.prepare_slice([min(length - self.done, size) for length in self._lengths])
            self.kv.fill(self._model, self._tokens[:, self.done : self.done + size])
            self.done += size
        if not self.left:
            self._take_padding_off()
        return Slice(self.kv.rows, before, size)

    def close(self, last: int, backbone: Backbone) -> Slice:
        """Compute all that is left of a lone prompt without padding, with its ``last`` token and what is said then."""
        before, tokens = self.kv.positions, mx.array([[last]], dtype=mx.uint32)
        tokens = mx.concatenate([self._tokens[:, self.done :], tokens], axis=1)
        self.logits = backbone.last_logits(tokens, self.kv.layers)
        self.kv.computed(self.logits)
        self.done = self._width
        return Slice(1, before, tokens.shape[1])

    def _next(self, tokens: int) -> int:
        """Positions of the next slice; of padded rows never so many that one alone is left."""
        left = min((at for at in self._stops if at > self.done), default=self._width) - self.done
        size = min(max(min(SHORTEST_SLICE, tokens), tokens // self.kv.rows), left)
        return size - 1 if self._rolls and left - size == 1 else size

    def _usable(self, stops: Sequence[Sequence[int]]) -> dict[int, list[int]]:
        """The rows that stop at each place; of padded ones no places that leave a single position between them."""
        rows: dict[int, list[int]] = {}
        for row, its in enumerate(stops):
            for at in its:
                if 0 < at < self._lengths[row]:
                    rows.setdefault(at, []).append(row)
        apart = SHORTEST_PADDED if self._rolls else 1
        before, usable = 0, {}
        for at in sorted(rows):
            if at - before >= apart and self._width - at >= apart:
                before, usable[at] = at, rows[at]
        return usable

    def _take_padding_off(self) -> None:
        if self._rolls:
            self.kv.finalize()
        self.kv.trim(self._spare)
        self._rolls, self._spare = False, 0

    def scores(self) -> tuple[PromptScore, ...]:
        """Log probabilities of the prompt's tokens: none were asked for here."""
        return ()


class ScoringPrefill:
    """One prompt, with the log probability of each of its tokens, computed into an empty cache. MLX thread only.

    A slice's logits are reduced to scores before the next slice is computed, so a long prompt never needs a
    ``[tokens, vocabulary]`` matrix.
    """

    def __init__(self, model: Any, prompt: Sequence[int], top: int, kv: KV) -> None:
        self.kv = kv
        self._model = model
        self._top = top
        self._prompt = mx.array(list(prompt), dtype=mx.uint32)
        self._size = 1
        self._scores = [PromptScore(None)]

    @property
    def left(self) -> int:
        """Tokens still to compute."""
        return int(self._prompt.size) - len(self._scores)

    def step(self, tokens: int) -> Slice:
        """Compute and score at most ``tokens`` positions; what was computed. Waits for the device."""
        start = len(self._scores) - 1
        size = min(tokens, self._size, self.left)
        if not size:
            return Slice(1, start, 0)
        logits = self._model(self._prompt[None, start : start + size], cache=self.kv.layers)[0].astype(mx.float32)
        scores = Scores(logits, self._prompt[start + 1 : start + size + 1], min(self._top, logits.shape[-1]))
        mx.eval(scores.arrays, self.kv.arrays)
        self._scores += [PromptScore(logprob, top) for logprob, top in scores.read()]
        self._size = max(1, min(SCORE_TOKENS, SCORE_BYTES // (4 * logits.shape[-1])))
        return Slice(1, start, size)

    def scores(self) -> tuple[PromptScore, ...]:
        """One per prompt token; the first token of a prompt has no log probability."""
        return tuple(self._scores)


def width_of(tokens: int) -> int:
    """The next of few widths, if there is anything: a power of two, or what lies halfway to the next."""
    if not tokens:
        return 0
    whole = max(SHORTEST_SLICE, 1 << (tokens - 1).bit_length())
    return max(SHORTEST_SLICE, whole * 3 // 4 if tokens <= whole * 3 // 4 else whole)


def rows_of(prompts: int, width: int) -> int:
    """The next of few numbers of rows of a ``width`` that :func:`width_of` gives.

    Their tokens are as many as it may give, so that few products have to be found; of long ones, whose attention is
    planned, the rows are powers of two.
    """
    whole = 1 << (prompts - 1).bit_length()
    halfway = width <= UNPLANNED and width & (width - 1) == 0 and 2 < prompts <= whole * 3 // 4
    return whole * 3 // 4 if halfway else whole
