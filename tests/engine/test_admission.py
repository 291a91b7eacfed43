"""Prompts that arrive together are computed together."""

import mlx.core as mx
import pytest

from app.engine.base import Sequence
from app.engine.mlx.load.weights import load_in_steps
from app.engine.mlx.loaded import Loaded
from tests.support.batches import GREEDY, HandBatch, greedy, run_steps
from tests.support.tiny import tiny


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return run_steps(load_in_steps(tiny()))


def prompts(count: int) -> list[tuple[int, ...]]:
    return [tuple((7 * i + 3 * n) % 90 + 5 for i in range(9 + 5 * (n % 4))) for n in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 8, 11, 13])
def test_where_shapes_are_to_be_few_any_number_of_prompts_is_one_slice(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    with monkeypatch.context() as cuda:
        cuda.setattr(mx.cuda, "is_available", lambda: True)
        batch = HandBatch(loaded, slice_tokens=2048)
    streams = [batch.submit(Sequence(prompt, GREEDY, max_tokens=6)) for prompt in prompts(count)]
    batch.step()
    assert batch.batch.work().waiting_tokens == 0
    assert batch.batch.work().rows == count
    batch.finish()
    for stream, prompt in zip(streams, prompts(count), strict=True):
        assert stream.ids() == greedy(loaded.model, prompt, 6)[0]


def test_more_prompts_than_a_slice_takes_are_begun_in_few_slices(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as cuda:
        cuda.setattr(mx.cuda, "is_available", lambda: True)
        batch = HandBatch(loaded, slice_tokens=256)
    for prompt in prompts(20):
        batch.submit(Sequence(prompt, GREEDY, max_tokens=30))
    rows = []
    while batch.batch.work().waiting_tokens:
        batch.step()
        rows.append(batch.batch.work().rows)
    assert (len(rows), rows[0], rows[-1]) == (3, 10, 20), "the ten that are no wider than sixteen tokens come first"
    batch.finish()
