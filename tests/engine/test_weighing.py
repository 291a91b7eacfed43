"""Bounds instead of exponentials: they hold, and nothing is decided otherwise than by exponentials."""

import numpy as np
import pytest

from app.engine.mlx.weighing import BOUND, Room, Weights
from app.schemas.sampling import Sampling
from tests.engine.test_sampling import SHAPES, reference, row

TEMPERATURES = [0.05, 0.7, 2.0]


def logits_of(shape) -> np.ndarray:
    return SHAPES[shape]().astype(np.float32)


def weigh(logits, *samplings) -> list[Weights]:
    many = np.repeat(logits[None], len(samplings), axis=0)
    return Room(2000, len(samplings)).weigh(many, many.max(axis=1), samplings)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [0, 1e4], ids=["", "forced"])
def test_bounds_lie_above_exponentials_and_not_far(shape, bias):
    """Up to a factor that is the same for all tokens of a row, and that the row knows."""
    logits = logits_of(shape) + np.float32(bias)
    for weights, temperature in zip(
        weigh(logits, *(Sampling(temperature=it) for it in TEMPERATURES)), TEMPERATURES, strict=True
    ):
        made = weights._blocks.reshape(-1)
        exact = np.exp((logits.astype(float) - weights._one) / temperature)
        ratio = made[: logits.size][exact > 1e-37] / exact[exact > 1e-37]
        assert ratio.min() >= 1 - 1e-4
        assert ratio.max() <= BOUND
        assert 0.9 < exact.max() < 1.1
        assert not made[logits.size :].any()


def test_what_is_banned_or_far_below_weighs_nothing():
    logits = np.array([0, -np.inf, -1e30, -200, -1], dtype=np.float32)
    assert weigh(logits, Sampling())[0]._blocks[0, 1:4].tolist() == [0, 0, 0]


def test_where_all_is_banned_something_is_drawn():
    logits = np.full(300, -1e30, dtype=np.float32)
    random = row(seed=3).random
    assert len({weigh(logits, Sampling())[0].propose(random) for _ in range(600)}) > 200


@pytest.mark.parametrize("temperature", [0.001, *TEMPERATURES])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("limit", [{"top_p": 0.3}, {"top_p": 0.9}, {"top_p": 0.999}, {"min_p": 0.2}, {"top_k": 7}])
def test_what_is_allowed_is_what_exponentials_say(shape, limit, temperature, monkeypatch):
    monkeypatch.setattr("app.engine.mlx.weighing.PART", 2)
    logits, sampling = logits_of(shape), Sampling(temperature=temperature, **limit)
    expected = reference(logits, sampling) > 0
    possible = np.flatnonzero(np.exp((logits.astype(float) - logits.max()) / temperature))
    likely = possible[np.argsort(-logits[possible], kind="stable")]
    for token in {*likely[::37], *likely[:60]}:
        assert weigh(logits, sampling)[0].allow(token) == expected[token]


def test_bounds_leave_few_draws_open(monkeypatch):
    """By the tail of the distribution: one draw in a hundred, where the head's mass would leave open one in ten."""
    computed = []
    monkeypatch.setattr(Weights, "_compute", lambda self: computed.append(self) or _compute(self))
    random = row(seed=3).random
    sampling = Sampling(temperature=0.7, top_p=0.9)
    for _ in range(600):
        weights = weigh(logits_of("flat"), sampling)[0]
        weights.allow(weights.propose(random))
    assert 0 < len(computed) < 24


_compute = Weights._compute


def test_refused_tokens_are_not_proposed_again():
    """Also when the exponentials come in between."""
    logits = logits_of("flat")
    order = np.argsort(-logits)
    weights = weigh(logits, Sampling(top_k=3))[0]
    assert not weights.allow(order[500])
    weights._compute()
    random = row(seed=3).random
    assert {weights.propose(random) for _ in range(2000)} <= set(order[:500].tolist())
    assert not weights.allow(order[10])
    assert {weights.propose(random) for _ in range(500)} == set(order[:10].tolist())
