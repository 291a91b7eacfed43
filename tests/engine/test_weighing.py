"""Bounds instead of exponentials: they hold, and nothing is decided otherwise than by exponentials."""

import numpy as np
import pytest

from app.engine.mlx.weighing import BOUND, Room, Weights
from app.schemas.sampling import Sampling
from tests.engine.test_sampling import SHAPES, reference, row

TEMPERATURES = [0.05, 0.7, 2.0]


def logits_of(shape) -> np.ndarray:
    return SHAPES[shape]().astype(np.float32)


def bounds(logits, temperature, rows=3):
    many = np.repeat(logits[None], rows, axis=0)
    temperatures = np.full(rows, temperature)
    return Room(2000, rows).bounds(many, many.max(axis=1), temperatures)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [0, 1e4, -1e30], ids=["", "forced", "banned"])
def test_bounds_lie_above_exponentials_and_not_far(shape, temperature, bias):
    logits = logits_of(shape) + np.float32(bias)
    exact = np.exp((logits.astype(float) - logits.max()) / temperature)
    for made in bounds(logits, temperature):
        ratio = made.reshape(-1)[: logits.size][exact > 1e-37] / exact[exact > 1e-37]
        assert ratio.min() >= 1 - 1e-4
        assert ratio.max() <= BOUND
        assert not made.reshape(-1)[logits.size :].any()


def test_what_is_banned_or_far_below_weighs_nothing():
    logits = np.array([0, -np.inf, -1e30, -200, -1], dtype=np.float32)
    assert bounds(logits, 1.0)[0, 0, 1:4].tolist() == [0, 0, 0]


@pytest.mark.parametrize("temperature", [0.001, *TEMPERATURES])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("limit", [{"top_p": 0.3}, {"top_p": 0.9}, {"top_p": 0.999}, {"min_p": 0.2}, {"top_k": 7}])
def test_what_is_allowed_is_what_exponentials_say(shape, limit, temperature):
    logits, sampling = logits_of(shape), Sampling(temperature=temperature, **limit)
    expected = reference(logits, sampling) > 0

    def allowed(token: int) -> bool:
        return Weights(logits, logits.max(), bounds(logits, temperature, 1)[0], sampling).allow(token)

    possible = np.flatnonzero(np.exp((logits.astype(float) - logits.max()) / temperature))
    likely = possible[np.argsort(-logits[possible], kind="stable")]
    for token in {*likely[::37], *likely[:60]}:
        assert allowed(token) == expected[token]


def test_refused_tokens_are_not_proposed_again():
    """Also when the exponentials come in between."""
    logits = logits_of("flat")
    order = np.argsort(-logits)
    weights = Weights(logits, logits.max(), bounds(logits, 1.0, 1)[0], Sampling(top_k=3))
    assert not weights.allow(order[500])
    weights._compute()
    random = row(seed=3).random
    assert {weights.propose(random) for _ in range(2000)} <= set(order[:500].tolist())
    assert not weights.allow(order[10])
    assert {weights.propose(random) for _ in range(500)} == set(order[:10].tolist())
