"""One proposal and its judgement, compiled and with numpy: what float64 says, token by token."""

import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy import float32, float64
from numpy.typing import NDArray

from app.engine import compiler
from app.engine.mlx.draw import proposal
from app.engine.mlx.draw import proposal as compiled
from app.engine.mlx.draw.proposal import BLOCK, _Compiled, proposals_for
from app.schemas.sampling import Sampling
from tests.engine.test_sampling import SHAPES, reference

TEMPERATURES = [0.001, 0.05, 0.7, 2.0]


@pytest.fixture(params=["compiled", "numpy"])
def propose(request: pytest.FixtureRequest) -> Callable[..., Any] | _Compiled:
    if request.param == "numpy":
        return proposal.propose
    if compiled.proposer() is proposal.propose:
        pytest.skip("there is no C compiler")
    return compiled.proposer()


def logits_of(shape: str) -> np.ndarray:
    return np.asarray(SHAPES[shape]()).astype(np.float32)


def proposed(
    propose: Callable[..., Any] | _Compiled,
    logits: NDArray[Any],
    uniforms: list[float | float64] | NDArray[Any],
    sampling: Sampling,
    refused: float | float32 = -np.inf,
) -> NDArray[Any]:
    """A proposal for each of ``uniforms``, all for the same row."""
    many = proposals_for([sampling] * len(uniforms), [0] * len(uniforms))
    many["uniform"] = uniforms
    many["refused"] = refused
    propose(logits[None], many)
    return many


def cumulative(logits: NDArray[Any], temperature: float, refused: float = -np.inf) -> NDArray[Any]:
    weights = np.exp((logits.astype(float) - logits.max()) / temperature) * (logits > refused)
    return weights.cumsum() / weights.sum()


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("refused", [-np.inf, 0.5])
def test_the_cumulative_distribution_is_inverted(
    propose: Callable[..., Any] | _Compiled, shape: str, temperature: float, refused: float
) -> None:
    logits = logits_of(shape)
    edges = cumulative(logits, temperature, refused)
    uniforms = np.linspace(0, 1, 500, endpoint=False)
    tokens = proposed(propose, logits, uniforms, Sampling(temperature=temperature), refused)["token"]
    assert (edges[tokens] > uniforms - 1e-5).all()
    assert (np.where(tokens > 0, edges[tokens - 1], 0) < uniforms + 1e-5).all()
    assert (logits[tokens] > refused).all()


@pytest.mark.parametrize("size", [1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_every_token_can_be_drawn_and_none_beyond(propose: Callable[..., Any] | _Compiled, size: int) -> None:
    logits = np.zeros(size, dtype=np.float32)
    middles = (np.arange(size) + 0.5) / size
    assert proposed(propose, logits, middles, Sampling())["token"].tolist() == list(range(size))
    assert proposed(propose, logits, [np.nextafter(1, 0)], Sampling())["token"].tolist() == [size - 1]


def test_what_is_banned_or_far_below_is_never_proposed(propose: Callable[..., Any] | _Compiled) -> None:
    logits = np.array([-np.inf, -1e30, -200, 0, -1, -np.inf, -3e38], dtype=np.float32)
    ends = [0, 1e-300, 0.5, np.nextafter(1, 0)]
    assert set(proposed(propose, logits, ends, Sampling())["token"].tolist()) <= {3, 4}


@pytest.mark.parametrize("bias", [-1e30, 1e4, 3e38])
def test_large_logits_do_not_overflow(propose: Callable[..., Any] | _Compiled, bias: float) -> None:
    logits = np.full(300, bias, dtype=np.float32)
    middles = (np.arange(300) + 0.5) / 300
    assert proposed(propose, logits, middles, Sampling())["token"].tolist() == list(range(300))


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("limit", [{"top_p": 0.3}, {"top_p": 0.9}, {"top_p": 0.999}, {"min_p": 0.2}, {"top_k": 7}])
def test_what_is_allowed_is_what_float64_says(
    propose: Callable[..., Any] | _Compiled, shape: str, limit: dict[str, Any], temperature: float
) -> None:
    logits, sampling = logits_of(shape), Sampling(temperature=temperature, **limit)
    expected = reference(logits, sampling) > 0
    edges = np.concatenate([[0], cumulative(logits, temperature)])
    certain = np.flatnonzero(np.diff(edges) > 1e-5)
    many = proposed(propose, logits, (edges[certain] + edges[certain + 1]) / 2, sampling)
    assert many["token"].tolist() == certain.tolist()
    assert many["allowed"].tolist() == expected[certain].tolist()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 3])
def test_the_top_is_found_and_no_number_among_many_is_too(
    propose: Callable[..., Any] | _Compiled, at: int, wrong: float
) -> None:
    logits = np.random.default_rng(at).normal(size=2 * BLOCK + 4).astype(np.float32)
    (it,) = proposed(propose, logits, [0.5], Sampling())
    assert it["top"] == logits.max()
    logits[at] = wrong
    (it,) = proposed(propose, logits, [0.5], Sampling(top_p=0.9))
    assert np.isfinite(it["top"]) == (wrong == -np.inf)
    assert not it["allowed"] or it["top"] == logits.max()
    (it,) = proposed(propose, np.full(BLOCK + 9, -np.inf, np.float32), [0.5], Sampling())
    assert not np.isfinite(it["top"])
    assert not it["allowed"]


def test_refusals_do_not_change_what_the_whole_is(propose: Callable[..., Any] | _Compiled) -> None:
    """``top_p`` is of all tokens, also of those that are out of the question by now."""
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05])).astype(np.float32)
    (it,) = proposed(propose, logits, [0.99], Sampling(top_p=0.7), refused=logits[2])
    assert (it["token"], it["allowed"]) == (1, 1)
    (it,) = proposed(propose, logits, [0.99], Sampling(top_p=0.7), refused=logits[3])
    assert (it["token"], it["allowed"]) == (2, 0)


@pytest.mark.parametrize("failure", ["no compiler", "it fails", "it cannot be loaded"])
def test_numpy_draws_where_nothing_can_be_compiled(
    failure: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def run(*_: list[str], **__: Any) -> None:
        if failure == "it fails":
            raise subprocess.CalledProcessError(1, "cc")

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(compiler, "which", lambda name: None if failure == "no compiler" else f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "run", run)
    with caplog.at_level(logging.INFO, "app.engine.mlx.draw.proposal"):
        assert compiled.proposer.__wrapped__() is proposal.propose
    assert "drawn with numpy" in caplog.text
