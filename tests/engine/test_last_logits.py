"""A first token of the pass that computes its prompt: where it is had that way, and that it is the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx import nn
from mlx_lm.models import llama
from msgspec import structs

from app.engine.base import Sequence
from app.engine.mlx.batch.prefill_task import SHORT_END
from app.engine.mlx.load import self_check
from app.engine.mlx.load.sweep import Sweep
from app.engine.mlx.loaded import ABLE, Abilities
from app.engine.mlx.prefill.backbone import Backbone
from app.engine.mlx.prefill.prefill import Prefill
from app.schemas.sampling import Sampling
from tests.engine.test_classes import LOADED
from tests.support.batches import GREEDY, HandBatch, greedy, run_steps

on_cpu = pytest.mark.not_on_cuda("prompts are padded there to few shapes")


def prompt(seed: int, length: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(3, 300, length).tolist())


def small(**given: Any) -> llama.Model:
    mx.random.seed(7)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "num_attention_heads": 4}
    rest = {"num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 320, "model_type": "llama"}
    return llama.Model(llama.ModelArgs(**(sizes | rest | given)))


class Wrapped(nn.Module):  # type: ignore[misc]  # mlx has no types
    """As models that also see images hold their language model."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = nn.Linear(4, 4)
        self.language_model = small()

    @property
    def layers(self) -> Any:
        return self.language_model.layers

    def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
        return self.language_model(tokens, cache=cache)


class Capped(llama.Model):  # type: ignore[misc]  # mlx has no types
    """With something behind the output layer, which looks at each position by itself."""

    def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
        return mx.tanh(super().__call__(tokens, cache=cache) / 30.0) * 30.0


class Smeared(llama.Model):  # type: ignore[misc]  # mlx has no types
    """What it says at a position depends on what it says before."""

    def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
        logits = super().__call__(tokens, cache=cache)
        return logits + mx.concatenate([logits[:, :1] * 0, logits[:, :-1]], axis=1)


class Strict(llama.Model):  # type: ignore[misc]  # mlx has no types
    """Wants as many hidden states as there are tokens."""

    def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
        return self.lm_head(self.model(tokens, cache).reshape(*tokens.shape, self.args.hidden_size))


class Around(llama.Model):  # type: ignore[misc]  # mlx has no types
    """Calls what holds its layers by another way."""

    def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
        return self.lm_head(self.inner(tokens, cache))

    @property
    def inner(self) -> Any:
        return getattr(self.model, "_inner", self.model)


class Pair(llama.LlamaModel):  # type: ignore[misc]  # mlx has no types
    """Hands on more than an array."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs), 0


class OfPair(llama.Model):  # type: ignore[misc]  # mlx has no types
    def __init__(self, args: llama.ModelArgs) -> None:
        super().__init__(args)
        self.model = Pair(args)

    def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
        return self.lm_head(self.model(tokens, cache)[0])


def made(kind: type[llama.Model]) -> llama.Model:
    return kind(small(tie_word_embeddings=False).args)


MODELS: dict[str, tuple[Callable[[], Any], bool]] = {
    "tied": (lambda: small(tie_word_embeddings=True), True),
    "untied": (lambda: small(tie_word_embeddings=False), True),
    "wrapped": (Wrapped, True),
    "capped": (lambda: made(Capped), True),
    "smeared": (lambda: made(Smeared), False),
    "strict": (lambda: made(Strict), False),
    "around": (lambda: made(Around), False),
    "a pair": (lambda: made(OfPair), False),
}


@pytest.mark.parametrize("name", MODELS)
def test_whether_a_model_can_is_found_at_load(name: str) -> None:
    make, can = MODELS[name]
    mx.eval((model := make()).parameters())
    before = dict(model)
    found: Abilities = run_steps(self_check.checked(model, 320, None))
    assert found.last_logits == can
    if name != "smeared":  # whose answers to a token depend on what is computed with it
        assert structs.replace(found, last_logits=True) == ABLE
        sweep = Sweep(model, 320, None)
        assert run_steps(sweep.right(ABLE.mask_axes, ahead=False, classes=False)), "it costs more than a few passes"
    assert all(model[key] is value for key, value in before.items()), "something still stands in"


@pytest.mark.parametrize("name", [name for name, (_, can) in MODELS.items() if can])
@pytest.mark.parametrize(("rows", "tokens"), [(1, 1), (1, 9), (3, 5)])
def test_they_are_those_of_all_positions(name: str, rows: int, tokens: int) -> None:
    mx.eval((model := MODELS[name][0]()).parameters())
    given = mx.array([prompt(row, tokens) for row in range(rows)])
    backbone = Backbone.of(model)
    assert backbone is not None
    mine, its = backbone.last_logits(given, [None] * 2), model(given)[:, -1]
    assert mine.shape == (rows, 320)
    assert np.allclose(np.array(mine), np.array(its), atol=1e-4)


def test_what_holds_no_layers_has_none() -> None:
    class Bare(nn.Module):  # type: ignore[misc]  # mlx has no types
        def __init__(self) -> None:
            super().__init__()
            self.layers = [nn.Linear(2, 2)]

    assert Backbone.of(Bare()) is None


class Counted:
    """How many prompts were computed whole."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.closed = 0
        close = Prefill.close

        def counted(work: Prefill, last: int, backbone: Backbone) -> Any:
            self.closed += 1
            return close(work, last, backbone)

        monkeypatch.setattr(Prefill, "close", counted)


@on_cpu
@pytest.mark.parametrize(
    ("sequence", "beside", "closes"),
    [
        (Sequence(prompt(1, 20), GREEDY, max_tokens=9), (), True),
        (Sequence(prompt(1, 2), GREEDY, max_tokens=9), (), True),
        (Sequence(prompt(1, SHORT_END + 1), GREEDY, max_tokens=9), (), True),
        (Sequence(prompt(1, 20), GREEDY, max_tokens=1), (), True),
        (Sequence(prompt(1, 20), Sampling(temperature=1.0, seed=5), max_tokens=9), (), True),
        (Sequence(prompt(1, 20), GREEDY, max_tokens=9, logprobs=3), (), True),
        (Sequence(prompt(1, 1), GREEDY, max_tokens=9), (), False),
        (Sequence(prompt(1, SHORT_END + 2), GREEDY, max_tokens=9), (), False),
        (Sequence(prompt(1, 20), GREEDY, max_tokens=0), (), False),
        (Sequence(prompt(1, 20), GREEDY, max_tokens=9, rows=2), (), False),
        (Sequence(prompt(1, 20), GREEDY, max_tokens=9, prompt_logprobs=0), (), False),
        (Sequence(prompt(1, 20), GREEDY, max_tokens=9), (Sequence(prompt(2, 9), GREEDY, max_tokens=30),), False),
    ],
)
def test_only_lone_short_prompts_are_computed_whole(
    sequence: Sequence, beside: tuple[Sequence, ...], closes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = HandBatch(LOADED)
    for other in beside:
        batch.submit(other)
        batch.step(2)
    counted = Counted(monkeypatch)
    batch.submit(sequence)
    batch.finish()
    assert counted.closed == closes


@on_cpu
@settings(deadline=None, max_examples=30)
@given(st.data())
def test_texts_are_those_of_the_model_alone(data: st.DataObject) -> None:
    """Whatever was asked before, kept of it, and comes while it answers."""
    batch, seeds = HandBatch(LOADED), st.integers(0, 3)
    for _ in range(data.draw(st.integers(1, 4))):
        ids = prompt(data.draw(seeds), 64)[: data.draw(st.integers(1, 64))] + prompt(9, data.draw(st.integers(1, 40)))
        stream = batch.submit(Sequence(ids, GREEDY, max_tokens=(count := data.draw(st.integers(1, 12)))))
        batch.step(data.draw(st.integers(0, 3)))
        other = batch.submit(Sequence(prompt(data.draw(seeds), 30), GREEDY, max_tokens=5))
        batch.finish()
        said, margins = greedy(LOADED.model, ids, count)
        near = next((i for i, margin in enumerate(margins) if margin < 1e-4), count)
        assert stream.ids()[:near] == said[:near]
        assert len(stream.ids()) == count
        assert len(other.ids()) == 5
