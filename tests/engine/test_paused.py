"""A row beyond what it was granted waits, also without its KV cache, and goes on as if it never had."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.engine.base import Sequence
from app.engine.mlx.batch import delivery
from app.schemas.sampling import Sampling
from tests.engine.families.bench import prompt
from tests.engine.test_ledger import FAMILIES, loaded
from tests.support.batches import GREEDY, HandBatch, Stream

MOST = 40
DRAWS = (
    GREEDY,
    Sampling(temperature=0.9, seed=5),
    Sampling(temperature=0.7, seed=6, frequency_penalty=0.8, presence_penalty=0.3, repetition_penalty=1.3),
)


def sequences(granted: int) -> list[Sequence]:
    lengths = (3, 30, 300)
    return [
        Sequence(prompt(i, length), sampling, max_tokens=MOST, granted=granted, rows=1 + i % 2)
        for i, (length, sampling) in enumerate(zip(lengths, DRAWS, strict=True))
    ]


def said(stream: Stream) -> dict[tuple[int, int], list[int]]:
    return {key: [token.id for token in tokens] for key, tokens in stream.tokens.items()}


def undisturbed(family: str, known: dict[str, Any] = {}) -> dict[tuple[int, int], list[int]]:  # noqa: B006  computed once a family
    if family not in known:
        batch = HandBatch(loaded(family))
        stream = batch.submit(*sequences(MOST))
        batch.finish()
        known[family] = said(stream)
    return known[family]


def rest(batch: HandBatch) -> None:
    """Until nothing can be done."""
    for _ in range(2000):
        if not batch.batch.step():
            return
    raise AssertionError("it does not come to rest")


def test_a_row_waits_where_its_grant_ends_while_others_go_on() -> None:
    batch = HandBatch(loaded("llama"))
    held = batch.submit(Sequence(prompt(1, 20), GREEDY, max_tokens=MOST, granted=7))
    free = batch.submit(Sequence(prompt(2, 20), GREEDY, max_tokens=MOST))
    rest(batch)
    assert (len(held.ids()), len(free.ids())) == (7, MOST)
    assert batch.batch.waits
    assert batch.batch.ledger.books().kv <= loaded("llama").law.nbytes(27)
    for granted in (8, 30, MOST):
        held.rows[0].granted = granted
        rest(batch)
        assert len(held.ids()) == granted
    assert not batch.batch.waits
    alone = HandBatch(loaded("llama")).run(prompt(1, 20), max_tokens=MOST)
    assert held.ids() == alone.ids()


@settings(deadline=None, max_examples=15)
@given(st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=3), min_size=1, max_size=4))
def test_all_that_was_made_is_told_before_a_batch_rests_however_fast_it_is(parts: list[list[int]]) -> None:
    with pytest.MonkeyPatch.context() as instant:
        instant.setattr(delivery, "time", SimpleNamespace(perf_counter=lambda: 0.0))
        batch = HandBatch(loaded("llama"))
        streams = [
            batch.submit(Sequence(prompt(i, 20), GREEDY, max_tokens=MOST, granted=own[0]))
            for i, own in enumerate(parts)
        ]
        for turn in range(3):
            for stream, own in zip(streams, parts, strict=True):
                stream.rows[0].granted = sum(own[: turn + 1])
            rest(batch)
            assert [len(it.ids()) for it in streams] == [sum(own[: turn + 1]) for own in parts]


def test_a_prompt_without_a_grant_is_not_begun_and_keeps_nobody_waiting() -> None:
    batch = HandBatch(loaded("llama"))
    held = batch.submit(Sequence(prompt(1, 20), GREEDY, max_tokens=4, granted=-1))
    free = batch.submit(Sequence(prompt(2, 20), GREEDY, max_tokens=4))
    rest(batch)
    assert not held.prefilled
    assert len(free.ids()) == 4
    held.rows[0].granted = 4
    batch.batch.go_on()
    rest(batch)
    assert len(held.ids()) == 4


@pytest.mark.parametrize("granted", [-1, 5])
def test_who_leaves_while_it_waits_leaves_nothing(granted: int) -> None:
    batch = HandBatch(loaded("llama"), prefix_bytes=0)
    stream = batch.submit(Sequence(prompt(1, 500), GREEDY, max_tokens=MOST, granted=granted))
    rest(batch)
    stream.cancel()
    batch.batch.go_on()
    rest(batch)
    assert batch.batch.ledger.books().kv == 0
    assert not batch.batch.waits


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.integers(0, 25), st.booleans(), st.integers(1, 30)), min_size=1, max_size=4),
    st.sampled_from([0, 64 << 20]),
)
def test_what_is_put_back_and_paused_at_any_time_says_what_it_says_undisturbed(
    family: str, times: list[tuple[int, bool, int]], kept: int
) -> None:
    batch = HandBatch(loaded(family), prefix_bytes=kept)
    stream, granted = batch.submit(*sequences(3)), 3
    for steps, back, more in times:
        batch.step(steps)
        if back:
            batch.put_back(stream)
            assert batch.batch.ledger.books().kv == 0
            rest(batch)
            assert batch.batch.ledger.books().kv == 0, "nothing is computed for what has no memory"
        granted = min(MOST, granted + more)
        for row in stream.rows:
            row.granted = granted
        batch.batch.go_on()
    rest(batch)
    for row in stream.rows:
        row.granted = MOST
    batch.batch.go_on()
    rest(batch)
    assert stream.failure is None
    assert said(stream) == undisturbed(family)
    assert len(stream.prefilled) == 3
    assert batch.batch.ledger.books().kv == 0
