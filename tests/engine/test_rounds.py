"""Prompts are computed by turns: nobody waits for all of another's, and a list of prompts is one request."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.engine.base import Sequence
from app.engine.mlx.prefill import slice_size
from tests.engine.test_classes import LOADED
from tests.support.batches import GREEDY, HandBatch, Stream, greedy

SLICE = slice_size.SHORTEST_SLICE


@pytest.fixture(autouse=True)
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which every slice takes too long, so that each is as short as slices are."""
    monkeypatch.setattr(slice_size, "LONE_SECONDS", 0.0)
    monkeypatch.setattr(slice_size, "SLICE_SECONDS", 0.0)
    monkeypatch.setattr(slice_size, "STEPS", 0.0)
    monkeypatch.setattr(slice_size, "FIRST_SLICE", SLICE)


def prompt(seed: int, length: int) -> tuple[int, ...]:
    return tuple(3 + (seed * 97 + i * i * (seed + 1) + 13 * i) % 240 for i in range(length))


def ask(batch: HandBatch, *lengths: int, seed: int = 0, max_tokens: int = 2) -> Stream:
    given_ = [prompt(seed * 1000 + i, length) for i, length in enumerate(lengths)]
    return batch.submit(*(Sequence(it, GREEDY, max_tokens=max_tokens) for it in given_))


def until(batch: HandBatch, stream: Stream, most: int) -> int:
    """How many steps it took until something of it was computed."""
    for steps in range(1, most + 1):
        batch.step()
        if stream.prefilled:
            return steps
    raise AssertionError(f"nothing was computed in {most} steps")


@pytest.mark.not_on_cuda("a slice is larger there")
def test_a_short_prompt_that_comes_behind_a_long_one_waits_for_a_slice_of_it() -> None:
    batch = HandBatch(LOADED, slice_tokens=512)
    long = ask(batch, 1500, seed=1)
    batch.step(3)
    short = ask(batch, 8, seed=2)
    assert until(batch, short, 2) <= 2
    assert not long.prefilled
    batch.finish()
    assert long.ids() == greedy(LOADED.model, prompt(1000, 1500), 2)[0]


def test_a_list_of_prompts_is_one_request() -> None:
    batch = HandBatch(LOADED, slice_tokens=64)
    many = ask(batch, *[30] * 200, seed=3)
    batch.step(2)
    other = ask(batch, 3, seed=4)
    assert until(batch, other, 3) <= 3
    assert len(many.prefilled) < 20
    batch.finish()
    assert len(many.prefilled) == 200


def test_long_prompts_share_the_time_and_shorter_ones_end_sooner() -> None:
    batch = HandBatch(LOADED, slice_tokens=64)
    streams = [ask(batch, length, seed=5 + i) for i, length in enumerate((640, 160, 320))]
    ended: list[Any] = []
    while len(ended) < 3:
        batch.step()
        ended += [i for i, stream in enumerate(streams) if stream.prefilled and i not in ended]
    assert ended == [1, 2, 0]
    batch.finish()


@pytest.mark.not_on_cuda("a slice is larger there")
def test_what_nobody_wants_any_more_has_no_further_slice() -> None:
    batch = HandBatch(LOADED, slice_tokens=64)
    gone = ask(batch, 1500, seed=9)
    batch.step(2)
    gone.cancel()
    assert batch.batch.step() is False
    assert not gone.prefilled
    assert batch.batch.work().waiting_tokens == 0


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_long_prompt_is_not_overtaken_for_ever_where_there_are_few_rows(rows: int) -> None:
    batch = HandBatch(LOADED, slice_tokens=64, max_rows=rows)
    for number in range(rows):
        ask(batch, 5, seed=20 + number, max_tokens=4)
    batch.step(2)
    long, number = ask(batch, 150, seed=30), 0
    while not long.prefilled:
        ask(batch, 4 + number % 5, seed=40 + number, max_tokens=6)
        batch.step()
        number += 1
        assert number < 60
    assert batch.batch._queue.sequences, "others waited all the while"


requests = st.lists(
    st.tuples(st.integers(0, 12), st.lists(st.integers(1, 200), min_size=1, max_size=12)), min_size=1, max_size=6
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests)
def test_every_request_has_its_first_prompt_within_a_bounded_number_of_rounds(
    asked: list[tuple[int, list[int]]],
) -> None:
    batch = HandBatch(LOADED, slice_tokens=64, max_rows=128)
    most = (200 // SLICE + 2) * (len(asked) + 1)
    waits: list[list[Any]] = []
    for seed, (steps, lengths) in enumerate(asked):
        waits.append([0, ask(batch, *lengths, seed=seed, max_tokens=1)])
        for _ in range(steps):
            batch.step()
            count(waits)
    while batch.batch.step():
        count(waits)
    assert all(len(stream.prefilled) == len(lengths) for (_, stream), (_, lengths) in zip(waits, asked, strict=True))
    assert max(steps for steps, _ in waits) <= most


def count(waits: list[list[Any]]) -> None:
    for wait in waits:
        wait[0] += not wait[1].prefilled
