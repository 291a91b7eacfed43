"""Prefill: computing the KV cache of prompts, in slices between decode steps.

All but the last token of each prompt are computed here; the last one is the row's first input to the decode batch,
whose logits are the only ones that anybody needs (the cache alone is evaluated, so the output layer never runs).
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from app.engine.base import PromptScore
from app.engine.mlx.kv import KV, merge
from app.engine.mlx.logprobs import Scores
from app.engine.mlx.rows import Waiting

SCORE_BYTES = 32 << 20
"""Most bytes of logits held at once while prompt log probabilities are computed."""


class Prefill:
    """A group of prompts computed side by side, right-padded to the longest. MLX thread only.

    ``caches`` hold what is already known of each prompt: its first ``cached[i]`` tokens.
    """

    def __init__(self, model: Any, group: list[Waiting], caches: list[KV], cached: list[int]) -> None:
        self.group = group
        self.cached = cached
        self._model = model
        prompts = [list(w.request.prompt[known:-1]) for w, known in zip(group, cached, strict=True)]
        self._lengths = [len(prompt) for prompt in prompts]
        self._width = max(self._lengths)
        self._done = 0
        padding = [self._width - length for length in self._lengths]
        self._padded = any(padding)
        self.kv = caches[0] if len(caches) == 1 else merge(caches)
        if self._padded:
            for layer in self.kv.layers:
                layer.prepare(lengths=self._lengths, right_padding=padding)
        self._tokens = mx.array([p + [0] * pad for p, pad in zip(prompts, padding, strict=True)], dtype=mx.uint32)

    @property
    def left(self) -> int:
        """Tokens still to compute, per row."""
        return self._width - self._done

    def step(self, tokens: int) -> int:
        """Compute at most ``tokens`` positions of every row; how many tokens of work that was. Waits for the device."""
        size = min(max(1, tokens // len(self.group)), self.left)
        if size:
            self._model(self._tokens[:, self._done : self._done + size], cache=self.kv.layers)
            mx.eval(self.kv.arrays)
            self._done += size
        if not self.left and self._padded:
            for layer in self.kv.layers:
                layer.finalize()
            mx.eval(self.kv.arrays)
            self._padded = False
        return size * len(self.group)

    def scores(self, _index: int) -> tuple[PromptScore, ...]:
        """Log probabilities of a prompt's tokens: none were asked for here."""
        return ()


class ScoringPrefill:
    """One prompt, with the log probability of each of its tokens. MLX thread only.

    A slice's logits are reduced to scores before the next slice is computed, so a long prompt never needs a
    ``[tokens, vocabulary]`` matrix.
    """

    def __init__(self, model: Any, waiting: Waiting, top: int) -> None:
        self.group = [waiting]
        self.cached = [0]
        self.kv = KV.fresh(model)
        self._model = model
        self._top = top
        self._prompt = mx.array(waiting.request.prompt, dtype=mx.uint32)
        self._size = 1
        self._scores = [PromptScore(None)]

    @property
    def left(self) -> int:
        """Tokens still to compute."""
        return int(self._prompt.size) - len(self._scores)

    def step(self, tokens: int) -> int:
        """Compute and score at most ``tokens`` positions; how many that was. Waits for the device."""
        start = len(self._scores) - 1
        size = min(tokens, self._size, self.left)
        if not size:
            return 0
        logits = self._model(self._prompt[None, start : start + size], cache=self.kv.layers)[0].astype(mx.float32)
        scores = Scores(logits, self._prompt[start + 1 : start + size + 1], min(self._top, logits.shape[-1]))
        mx.eval(scores.arrays, self.kv.arrays)
        self._scores += [PromptScore(logprob, top) for logprob, top in scores.read()]
        self._size = max(1, SCORE_BYTES // (4 * logits.shape[-1]))
        return size

    def scores(self, _index: int) -> tuple[PromptScore, ...]:
        """One per prompt token; the first token of a prompt has no log probability."""
        return tuple(self._scores)
