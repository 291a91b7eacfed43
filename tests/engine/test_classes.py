"""No row pays for another's length: what a batch holds is bounded by its tokens, whatever their mix."""

from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.utils import load_model

from app.engine.base import Sequence
from app.engine.mlx.cache.arrangement import CLASS, STEP, allowed, arranged, fits, held, placed
from app.engine.mlx.loaded import ABLE, Abilities, Loaded
from tests.support.batches import GREEDY, HandBatch, greedy
from tests.support.tiny import tiny

POSITION = 2 * 2 * 2 * 16 * 4
"""Bytes of one position of the tiny model: keys and values, layers, heads, head size, float32."""
CLOSE = 1e-3

lengths = st.lists(st.one_of(st.integers(0, 40), st.integers(200, 300), st.integers(0, 9000)), min_size=1, max_size=70)


def rows(groups: list[list[int]]) -> list[int]:
    return sorted(row for group in groups for row in group)


@settings(max_examples=200, deadline=None)
@given(lengths)
def test_an_arrangement_holds_every_row_once_and_no_more_than_is_allowed(given_: list[int]) -> None:
    groups = arranged(given_)
    assert rows(groups) == list(range(len(given_)))
    assert fits(groups, given_)
    assert held(groups, given_) <= 1.25 * sum(given_) + 256 * len(given_)


@settings(max_examples=100, deadline=None)
@given(lengths)
def test_rows_are_placed_one_by_one_within_what_is_allowed_and_in_few_classes(given_: list[int]) -> None:
    groups: list[Any] = []
    for row in range(len(given_)):
        groups = placed(groups, [row], given_[: row + 1])
        assert rows(groups) == list(range(row + 1))
        assert fits(groups, given_[: row + 1])
        assert cost(groups, given_) <= 1.15 * cost(arranged(given_[: row + 1]), given_)


def cost(groups: list[list[int]], given_: list[int]) -> int:
    return sum(len(group) * max(given_[row] for row in group) + CLASS for group in groups)


@given(st.integers(0, 9000), st.integers(1, 70))
def test_equal_lengths_are_one_class(length: int, count: int) -> None:
    assert len(arranged([length] * count)) == 1
    groups = [[0]]
    for row in range(1, count):
        groups = placed(groups, [row], [length] * (row + 1))
    assert len(groups) == 1


@pytest.mark.parametrize("classes", [True, False])
def test_one_long_row_beside_short_ones_costs_them_nothing(classes: bool) -> None:
    batch = HandBatch(model(ABLE if classes else Abilities(classes=False)), slice_tokens=2048)
    batch.submit(*(Sequence(prompt(i, n), GREEDY, max_tokens=40) for i, n in enumerate([1800, *[70] * 15])))
    while batch.batch._queue.sequences or batch.batch._rounds.tasks:
        batch.step()
    batch.step(4)
    running = batch.batch._placed.batches
    assert sum(it.rows for it in running) == 16
    assert sum(it.kv_bytes for it in running) / POSITION <= allowed([n for it in running for n in it.lengths])


def model(abilities: Abilities = ABLE) -> Loaded:
    made, _ = load_model(tiny())
    made.set_dtype(mx.float32)
    return Loaded(made, 1, 1, 384, 384, abilities=abilities)


def prompt(seed: int, length: int) -> tuple[int, ...]:
    return tuple(3 + (seed * 31 + i * i + 7 * i) % 240 for i in range(length))


LOADED = model()
TEXTS: dict[Any, Any] = {}


def text(given_: tuple[int, ...], count: int) -> tuple[list[int], list[float]]:
    if (given_, count) not in TEXTS:
        TEXTS[given_, count] = greedy(LOADED.model, given_, count)
    return TEXTS[given_, count]


deeds = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.sampled_from([1, 5, 60, 240, 250, 300, 520, 1100]), st.integers(1, 40)),
        st.tuples(st.just("step"), st.integers(1, 12), st.just(0)),
        st.tuples(st.just("leave"), st.integers(0, 5), st.just(0)),
    ),
    min_size=4,
    max_size=14,
)


class Company:
    """Whoever comes, one after the other, grows and leaves."""

    def __init__(self) -> None:
        self.batch = HandBatch(LOADED, slice_tokens=512)
        self.running: list[Any] = []
        self.left: list[Any] = []

    def come(self, size: int, count: int) -> None:
        given_ = prompt(len(self.running) % 5, size)
        self.running.append((given_, count, self.batch.submit(Sequence(given_, GREEDY, max_tokens=count))))

    def leave(self, size: int, _: int) -> None:
        if self.running:
            gone = self.running.pop(size % len(self.running))
            gone[2].cancel()
            self.left.append(gone)

    def step(self, times: int, _: int = 0) -> bool:
        more = True
        for _ in range(times):
            more = self.batch.batch.step()
            for it in self.batch.batch._placed.batches:
                assert it.kv_bytes / POSITION <= allowed(it.lengths)
        return more


@pytest.mark.not_on_cuda("widths of prompts are powers of two there")
@settings(max_examples=8, deadline=None)
@given(deeds)
def test_whoever_comes_grows_and_leaves_each_says_its_own_and_no_more_is_held_than_allowed(
    todo: list[tuple[str, int, int]],
) -> None:
    company = Company()
    for deed, size, count in todo:
        getattr(company, deed)(size, count)
    while company.step(1):
        pass
    for given_, count, stream in company.running:
        assert stream.failure is None
        expected, margins = text(given_, count)
        differs = [i for i, pair in enumerate(zip(stream.ids(), expected, strict=True)) if pair[0] != pair[1]]
        assert not differs or margins[differs[0]] < CLOSE
    for given_, count, stream in company.left:
        said = stream.ids()
        assert said == text(given_, count)[0][: len(said)]


def test_a_step_is_what_is_allocated_at_once() -> None:
    assert held([[0]], [0]) == STEP
