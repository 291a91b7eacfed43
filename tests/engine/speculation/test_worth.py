"""What a draft spares and what it costs, and when it is left alone."""

from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest

from app.engine.base import Sequence
from app.engine.mlx.batch.engine import MLXEngine
from app.engine.mlx.speculate.drafter import FIRST, LONGEST_PAUSE, MOST, OPENING, PAUSE, ROUNDS, Worth
from tests.engine.test_engine import GREEDY, ids, prompt, run
from tests.support.speculation import SEEDED, same, verified

pytestmark = pytest.mark.not_on_cuda("drafts are not loaded there")


async def test_a_draft_that_is_right_spares_passes_of_the_target(
    right: MLXEngine, plain: MLXEngine, passes: list[Any]
) -> None:
    for sampling in (GREEDY, SEEDED):
        passes.clear()
        before = right.work()
        await run(right, Sequence(prompt(7, 5), sampling, max_tokens=100))
        target = sum(layers == 4 for layers, _ in passes)
        proposed, accepted = right.work().proposed - before.proposed, right.work().accepted - before.accepted
        assert accepted == proposed if sampling is GREEDY else accepted > 0.9 * proposed
        assert target < 25
        passes.clear()
        await run(plain, Sequence(prompt(7, 5), sampling, max_tokens=100))
        assert sum(layers == 4 for layers, _ in passes) >= 100


async def test_a_draft_that_is_wrong_costs_no_pass_of_the_target(wrong: MLXEngine, passes: list[Any]) -> None:
    await run(wrong, Sequence(prompt(7, 5), GREEDY, max_tokens=100))
    assert sum(layers == 4 for layers, _ in passes) <= 102
    assert max(width for layers, width in passes if layers == 4 and width > 4) <= FIRST + 1


async def test_rounds_that_do_not_pay_are_followed_by_longer_and_longer_pauses(
    load: Callable[..., Awaitable[MLXEngine]], plain: MLXEngine, passes: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await load("wrong")
    costs = {4: 1.0, 1: 0.5}
    engine._batch._drafter.clock = lambda: sum(costs[layers] for layers, _ in passes)
    await same(engine, plain, Sequence(prompt(8, 5), GREEDY, max_tokens=400))
    proposed = engine.work().proposed
    assert 0 < proposed < 40
    speculation = engine._batch._drafter
    speculation.clock = lambda: 0.0
    await run(engine, Sequence(prompt(8, 5), GREEDY, max_tokens=400))
    assert engine.work().proposed - proposed > 300
    await engine.close()


def test_drafts_grow_while_they_are_accepted_and_shrink_while_they_are_not() -> None:
    worth = Worth()
    sizes = [worth.size]
    for accepted in (4, 6, 8, 3, 2, 1, 1, 1, 1, 1, 0, 1):
        worth.judge(sizes[-1], accepted, 0.0, plain=1.0, said=10)
        sizes.append(worth.size)
    assert sizes == [4, 6, 8, 8, 7, 6, 5, 4, 3, 2, 1, 1, 3]


def test_pauses_double_until_rounds_pay_again() -> None:
    worth, said, pauses = Worth(), 3, []
    assert worth.paused(OPENING - 1)
    for seconds in (1.1,) * 7 + (0.9, 1.1):
        for _ in range(ROUNDS):
            assert not worth.paused(said)
            worth.judge(2, 0, seconds, plain=1.0, said=said)
        start = said
        while worth.paused(said):
            said += 1
        pauses.append(said - start)
    assert pauses == [PAUSE, 64, 128, 256, 512, LONGEST_PAUSE, LONGEST_PAUSE, 0, PAUSE]


async def test_it_is_off_while_rows_run_together(right: MLXEngine, plain: MLXEngine, passes: list[Any]) -> None:
    sequences = [Sequence(prompt(seed, 12 + seed), GREEDY, max_tokens=30) for seed in range(3)]
    before = right.work().proposed
    await same(right, plain, *sequences)
    made, _ = await run(right, Sequence(prompt(1, 12), SEEDED, max_tokens=20, rows=2))
    assert len(made) == 2
    assert right.work().proposed == before
    assert not verified([it for it in passes if it[1] < 10])


async def test_a_beginning_seen_before_is_computed_by_neither_model(
    load: Callable[..., Awaitable[MLXEngine]], plain: MLXEngine, passes: list[Any]
) -> None:
    engine = await load("right")
    begin = prompt(80, 150)
    await same(engine, plain, Sequence((*begin, 9, 10), SEEDED, max_tokens=20))
    passes.clear()
    made, prefilled = await run(engine, Sequence((*begin, 11, 12, 13), SEEDED, max_tokens=20))
    assert prefilled[0].cached_tokens == 150
    assert all(width < 20 for _, width in passes)
    assert any(layers == 2 for layers, _ in passes)
    expected, _ = await run(plain, Sequence((*begin, 11, 12, 13), SEEDED, max_tokens=20))
    assert ids(made[0, 0]) == ids(expected[0, 0])
    await engine.close()


async def test_a_long_prompt_is_computed_for_the_draft_in_slices_beside_the_first_tokens(
    load: Callable[..., Awaitable[MLXEngine]], plain: MLXEngine, passes: list[Any]
) -> None:
    engine = await load("right")
    passes.clear()
    await same(engine, plain, Sequence(prompt(90, 700), SEEDED, max_tokens=60))
    drafts = [place for place, (layers, width) in enumerate(passes) if layers == 2 and width > MOST]
    assert len(drafts) > 3
    assert all(passes[place][1] <= 64 for place in drafts)
    for before, after in pairwise(drafts):
        assert (4, 1) in passes[before:after], "a token of the target between two slices"
    assert (4, 1) in passes[: drafts[0]], "the first token waits for none"
    await engine.close()
