"""What a small model of each architecture says alone and in company, beside what mlx-lm's model says itself."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlx.core as mx
import msgspec
import numpy as np
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models.cache import make_prompt_cache

from app.engine.base import Sequence
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.load import self_check
from app.engine.mlx.loaded import Loaded
from tests.engine.families.configs import config
from tests.engine.families.parts import VOCABULARY
from tests.support.batches import GREEDY, HandBatch, Stream, greedy, run_steps

COUNT = 8
CLOSE = 1e-3
"""Logits that are this close may change places by rounding."""
Prompt = tuple[int, ...]


def prompt(seed: int, length: int) -> Prompt:
    return tuple(int(i) for i in np.random.default_rng(seed).integers(3, VOCABULARY, length))


def build(family: str, dtype: mx.Dtype = mx.float32) -> Any:
    """A model of random weights; RuntimeError where this machine cannot run it."""
    described = config(family)
    module = importlib.import_module(f"mlx_lm.models.{family}")
    mx.random.seed(1)
    model = module.Model(module.ModelArgs.from_dict(described))
    rng = np.random.default_rng(7)

    def livelier(value: mx.array) -> mx.array:
        if not mx.issubdtype(value.dtype, mx.floating) or value.ndim < 2:
            return value
        return mx.array(rng.standard_normal(value.shape, dtype=np.float32) * np.float32(1.5 / value.shape[-1] ** 0.5))

    model.update(tree_map(livelier, model.parameters()))
    model.set_dtype(dtype)
    mx.eval(model.parameters())
    return model


def loaded(family: str, model: Any) -> Loaded:
    """As the loader has it, with what the check at load finds it able to do."""
    nbytes = sum(array.nbytes for _, array in tree_flatten(model.parameters()))
    described = msgspec.json.encode(config(family))
    with TemporaryDirectory() as kept:
        steps = self_check.checked(model, VOCABULARY, None, config=described, load_seconds=1000, cache=Path(kept))
        return Loaded(model, nbytes, 1, VOCABULARY, VOCABULARY, abilities=run_steps(steps))


class Bench:
    """One family's answers; each scenario says what was wrong, or None."""

    def __init__(self, family: str, made: Loaded | None = None) -> None:
        self.family = family
        self.loaded = loaded(family, build(family)) if made is None else made
        self._close = max(CLOSE, 3 * self._rounding())
        self._texts: dict[Prompt, tuple[list[int], list[float]]] = {}

    def _rounding(self) -> float:
        """How far the logits of one prompt lie apart when it is computed in slices and when it is not."""
        model, given = self.loaded.model, mx.array([prompt(9, 70)])
        whole, parts = make_prompt_cache(model), make_prompt_cache(model)
        for start in range(0, 64, 16):
            mx.eval(model(given[:, start : start + 16], cache=parts))
        made = [model(tokens, cache=cache)[0, -1] for tokens, cache in ((given, whole), (given[:, 64:], parts))]
        return float(mx.max(mx.abs(mx.nan_to_num(made[0], neginf=0) - mx.nan_to_num(made[1], neginf=0))).item())

    def batch(self, **given: Any) -> HandBatch:
        return HandBatch(self.loaded, **given)

    def wrong(self, stream: Stream, *prompts: Prompt) -> str | None:
        if stream.failure is not None:
            return f"failed: {stream.failure}"
        for i, each in enumerate(prompts):
            if each not in self._texts:
                self._texts[each] = greedy(self.loaded.model, each, COUNT)
            told = self._different(stream.ids(i), *self._texts[each])
            if told:
                return f"{len(each)} tokens: {told}"
        return None

    def _different(self, made: list[int], expected: list[int], margins: list[float]) -> str | None:
        for place, (mine, its, margin) in enumerate(zip(made, expected, margins, strict=False)):
            if mine != its:
                return None if margin < self._close else f"token {place} is {mine}, not {its} (by {margin:.3g})"
        return None if len(made) == len(expected) else f"{len(made)} tokens"

    def alone(self) -> str | None:
        for length in (1, 2, 30, 70):
            given = prompt(length, length)
            told = self.wrong(self.batch(slice_tokens=16).run(given), given)
            if told:
                return told
        return None

    def group(self) -> str | None:
        given = [prompt(100 + n, n) for n in (41, 9, 70, 23)]
        return self.wrong(self.batch(slice_tokens=1024).run(*given), *given)

    def slices(self) -> str | None:
        batch = self.batch(slice_tokens=256)
        first = batch.submit(Sequence(prompt(5, 7), GREEDY, max_tokens=COUNT + 40))
        batch.step(2)
        given = [prompt(150 + n, n) for n in (40, 70)]
        stream = batch.submit(*(Sequence(each, GREEDY, max_tokens=COUNT) for each in given))
        batch.finish()
        return self.wrong(stream, *given) or (str(first.failure) if first.failure else None)

    def short(self) -> str | None:
        given = [(5, 6), (7,), (8, 9, 10)]
        return self.wrong(self.batch().run(*given), *given)

    def six(self) -> str | None:
        given = [prompt(200 + n, n) for n in (3, 17, 18, 33, 50, 64)]
        return self.wrong(self.batch(slice_tokens=1024).run(*given), *given)

    def prefix(self) -> str | None:
        batch, begin = self.batch(slice_tokens=1024), prompt(300, 60)
        batch.run((*begin, 5, 6))
        given = [(*begin, 7, 8, 9), (*begin[:40], 10, 11, 12, 13)]
        for each in given:
            told = self.wrong(batch.run(each), each)
            if told:
                return told
        return self.wrong(batch.run(*given), *given)

    def joins(self) -> str | None:
        batch = self.batch(slice_tokens=1024)
        given = [prompt(400 + n, n) for n in (20, 55, 8, 33)]
        streams = []
        for each in given:
            streams.append(batch.submit(Sequence(each, GREEDY, max_tokens=COUNT)))
            batch.step(2)
        batch.finish()
        for each, stream in zip(given, streams, strict=True):
            told = self.wrong(stream, each)
            if told:
                return told
        return None

    def mixed(self) -> str | None:
        batch = self.batch(slice_tokens=1024)
        given = [prompt(500 + n, n) for n in (600, 5, 250, 260)]
        streams = []
        for each in given:
            streams.append(batch.submit(Sequence(each, GREEDY, max_tokens=COUNT)))
            batch.step()
        batch.finish()
        told = [self.wrong(stream, each) for each, stream in zip(given, streams, strict=True)]
        return next((it for it in told if it), None)

    def scenarios(self) -> Iterator[tuple[str, Callable[[], str | None]]]:
        for name in ("alone", "short", "group", "slices", "six", "prefix", "joins", "mixed"):
            yield name, getattr(self, name)


def kinds(model: Any) -> str:
    """The caches of its layers, for the table."""
    return ", ".join(dict.fromkeys(type(layer).__name__ for layer in KV.fresh(model).layers))
