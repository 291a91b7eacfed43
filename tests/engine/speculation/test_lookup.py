"""Prompt lookup: what a text has said before is proposed again, and the texts are those without it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.models.cache import RotatingKVCache

from app.engine.base import Sequence, Token
from app.engine.grammar import Grammar
from app.engine.mlx.batch.delivery import MLXTokenStream
from app.engine.mlx.batch.engine import MLXEngine
from app.engine.mlx.cache.prefix import PrefixPool
from app.engine.mlx.draw.step import DeviceStep
from app.engine.mlx.load.loader import MLXLoader
from app.engine.mlx.rows import Row
from app.engine.mlx.speculate.drafter import FIRST, MOST
from app.engine.mlx.speculate.lookup import LEAST_ALIKE, LONGEST_ALIKE, MOST_ROWS, Lookup, Text
from app.engine.options import Batching, LoadOptions
from app.errors import ModelUnusable
from app.schemas.sampling import Sampling
from tests.engine.test_engine import GREEDY, ids, prompt, run
from tests.support.batches import UNSPELT
from tests.support.speculation import SEEDED, same

pytestmark = pytest.mark.not_on_cuda("lookups are left out there")

LOOKUP = LoadOptions(lookup=True)
FEW = ((70, 30.0), (80, 30.0), (90, 30.0))
"""Biases that leave three tokens to say, so that most of a text stood there before; the model decides which of them."""
SAMPLINGS = {
    "greedy": Sampling(temperature=0, logit_bias=FEW),
    "seeded": Sampling(temperature=0.7, top_p=0.9, seed=5, logit_bias=FEW),
    "free": Sampling(temperature=0.7, seed=6),
}
ALL_THE_SAME = Sampling(temperature=0, logit_bias=((70, 100.0),))


def said_before(seed: int, length: int = 40, times: int = 2) -> tuple[int, ...]:
    """A prompt whose end stood in it before."""
    return prompt(seed, length) * times


@pytest.fixture(scope="module")
async def looking(loader: MLXLoader, models: Path) -> AsyncIterator[MLXEngine]:
    """The target with lookups, which cost no time."""
    own = MLXLoader(loader._thread, PrefixPool(8 << 20), Batching(16, 64))
    engine = await own.load(models / "target", name="target", options=LOOKUP)
    engine._batch._drafter.clock = lambda: 0.0
    yield engine
    await engine.close()


def text(*tokens: int) -> tuple[Row, Text]:
    row = Row(MLXTokenStream(), 0, 0, Sequence(tuple(tokens), GREEDY, 10), UNSPELT)
    made = Text(row)
    made.follow()
    return row, made


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 9))
def test_what_is_proposed_followed_the_longest_end_that_stood_there_before(tokens: list[int], most: int) -> None:
    _, made = text(*tokens)
    alike = {}
    for place in range(len(tokens) - 1):
        back = 0
        while back < LONGEST_ALIKE and back <= place and tokens[place - back] == tokens[-1 - back]:
            back += 1
        alike[place] = back
    longest = max(alike.values(), default=0)
    if longest < LEAST_ALIKE:
        assert made.continuation(most) == []
        return
    place = max(it for it, back in alike.items() if back == longest)
    expected = list(tokens)
    while len(expected) < len(tokens) + most:
        expected.append(expected[place + 1 + len(expected) - len(tokens)])
    assert made.continuation(most) == expected[len(tokens) :][:most]


def test_a_text_is_followed_as_it_grows() -> None:
    row, made = text(1, 2, 3, 4, 5)
    assert made.continuation(8) == []
    row.said += [1, 2, 3]
    made.follow()
    assert made.continuation(3) == [4, 5, 1]


def test_places_that_led_astray_must_be_alike_for_longer() -> None:
    _, made = text(9, 1, 2, 3, 7, 8, 1, 2, 3)
    assert made.continuation(2) == [7, 8]
    made.judge(2, 0)
    assert made.continuation(2) == []
    made.judge(2, 2)
    assert made.continuation(2) == [7, 8]


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("length", [1, 40])
async def test_the_text_is_that_without_lookups(
    looking: MLXEngine, plain: MLXEngine, sampling: str, length: int
) -> None:
    await same(looking, plain, Sequence(said_before(length, length), SAMPLINGS[sampling], max_tokens=80))


async def test_a_text_that_repeats_takes_fewer_passes(looking: MLXEngine, plain: MLXEngine, passes: list[Any]) -> None:
    text = Sequence(said_before(3), ALL_THE_SAME, max_tokens=200)
    await same(looking, plain, text)
    before = looking.work()
    passes.clear()
    await run(looking, text)
    assert looking.work().accepted - before.accepted > 150
    assert sum(width <= MOST + 1 for _, width in passes) < 40


@pytest.mark.parametrize("rows", [3, MOST_ROWS])
@pytest.mark.parametrize("sampling", ["greedy", "seeded"])
async def test_several_rows_are_drafted_for_at_once_and_say_what_they_say_without(
    looking: MLXEngine, plain: MLXEngine, passes: list[Any], rows: int, sampling: str
) -> None:
    sequences = [
        Sequence(said_before(seed, 10 + 7 * seed), SAMPLINGS[sampling], max_tokens=50 + 10 * seed)
        for seed in range(rows)
    ]
    before = looking.work().accepted
    await same(looking, plain, *sequences)
    if sampling == "greedy":
        assert looking.work().accepted - before > 20 * rows


async def test_more_rows_than_that_are_left_alone(looking: MLXEngine, plain: MLXEngine) -> None:
    before = looking.work().proposed
    sequences = [Sequence(said_before(seed, 20), GREEDY, max_tokens=30) for seed in range(MOST_ROWS + 1)]
    await same(looking, plain, *sequences)
    assert looking.work().proposed == before


async def test_rows_come_and_go_while_others_are_drafted_for(looking: MLXEngine, plain: MLXEngine) -> None:
    alone = Sequence(said_before(7), SAMPLINGS["greedy"], max_tokens=200)
    expected, _ = await run(plain, alone)
    others = [Sequence(said_before(20 + it, 30), SAMPLINGS["seeded"], max_tokens=30 + 20 * it) for it in range(3)]
    beside = [ids((await run(plain, other))[0][0, 0]) for other in others]
    told = []
    joined: list[Any] = []
    async for items in looking.stream((alone,)):
        told += [item.id for item in items if isinstance(item, Token)]
        if len(told) > 30 * (len(joined) + 1) and len(joined) < len(others):
            joined.append(asyncio.create_task(run(looking, others[len(joined)])))
    assert told == ids(expected[0, 0])
    assert [ids((await it)[0][0, 0]) for it in joined] == beside


@pytest.mark.parametrize(
    "more",
    [
        {"logit_bias": (*FEW, (80, -100.0))},
        {"repetition_penalty": 1.3, "logit_bias": FEW},
        {"frequency_penalty": 0.1, "presence_penalty": 0.4, "logit_bias": FEW},
    ],
)
@pytest.mark.parametrize("rows", [1, 3])
async def test_what_is_done_to_logits_is_done_to_those_of_a_verification(
    looking: MLXEngine, plain: MLXEngine, more: dict[str, Any], rows: int
) -> None:
    sequences = [Sequence(said_before(4 + it, 25), Sampling(temperature=0, **more), 50) for it in range(rows)]
    await same(looking, plain, *sequences)


async def test_stops_lengths_least_lengths_log_probabilities_and_forms_hold(
    looking: MLXEngine, plain: MLXEngine
) -> None:
    few = SAMPLINGS["greedy"]
    stops = frozenset({90})
    grammar = Grammar("regex", "(ab ){40}")
    for engine in (looking, plain):
        await engine.prepare(grammar)
    before = looking.work().proposed
    await same(
        looking,
        plain,
        Sequence(said_before(2), few, 60, stops),
        Sequence(said_before(2), few, 60, stops, min_tokens=40),
        Sequence(said_before(6), few, 60),
        Sequence(said_before(8), SEEDED, 90, plain.tokenizer.eos_ids, grammar=grammar),
    )
    assert looking.work().proposed > before


async def test_on_a_device_the_draws_of_all_rows_are_one_operation_and_the_texts_the_same(
    loader: MLXLoader, models: Path, plain: MLXEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other:
        def __eq__(self, _other: object) -> bool:
            return False

        def __hash__(self) -> int:
            return 0

    monkeypatch.setattr("app.engine.mlx.batch.decode.step_type", lambda: DeviceStep)
    engine = await MLXLoader(loader._thread, PrefixPool(8 << 20), Batching(16, 64)).load(
        models / "target", name="target", options=LOOKUP
    )
    engine._batch._drafter.clock = lambda: 0.0
    for sampling in (SAMPLINGS["greedy"], SAMPLINGS["seeded"]):
        await same(engine, plain, *(Sequence(said_before(it, 20), sampling, 60) for it in range(3)))
    assert engine.work().accepted > 0
    await engine.close()


async def test_lookups_that_do_not_pay_are_left_alone_for_a_while(
    looking: MLXEngine, plain: MLXEngine, passes: list[Any]
) -> None:
    drafter = looking._batch._drafter
    drafter._plain = {}
    drafter.clock = lambda: sum(1.0 if width == 1 else 20.0 for _, width in passes)
    before = looking.work().proposed
    text = Sequence(said_before(3), ALL_THE_SAME, max_tokens=120)
    await same(looking, plain, text)
    spent = looking.work().proposed - before
    drafter.clock, drafter._plain = lambda: 0.0, {}
    await same(looking, plain, text)
    assert 0 < spent < 70, "two times four rounds, and a pause behind each"
    assert looking.work().proposed - before - spent > 90
    assert not drafter._texts, "nothing is held of rows that have ended"


async def test_a_cache_that_cannot_be_trimmed_is_refused_with_lookups(
    loader: MLXLoader, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def windows(model: Any) -> list[Any]:
        return [RotatingKVCache(max_size=16) for _ in model.layers]

    monkeypatch.setattr("app.engine.mlx.cache.kv.make_prompt_cache", windows)
    with pytest.raises(ModelUnusable, match="as draft_model = 'prompt-lookup' needs"):
        await loader.load(models / "target", name="target", options=LOOKUP)


async def test_on_cuda_lookups_are_left_out_and_a_warning_says_so(
    loader: MLXLoader, models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as cuda:
        cuda.setattr(mx.cuda, "is_available", lambda: True)
        engine = await loader.load(models / "target", name="target", options=LOOKUP)
    assert engine._batch._drafter is None
    assert "without its draft_model" in caplog.text
    await engine.close()


def test_a_lookup_is_for_few_rows() -> None:
    rows = [
        Row(MLXTokenStream(), 0, it, Sequence((1,), Sampling(presence_penalty=it % 2), 10), UNSPELT) for it in range(9)
    ]
    lookup = Lookup()
    assert lookup.suits(rows[:1])
    assert lookup.suits(rows[1:2])
    assert not lookup.suits(rows[:2])
    assert lookup.suits(rows[::2])
    assert not Lookup(most_rows=1).suits(rows[::2])


def test_no_more_is_proposed_than_a_row_is_granted_and_wants() -> None:
    request = Sequence((1, 2, 3, 4, 5) * 4, GREEDY, max_tokens=6)
    for granted, most in ((100, 4), (5, 3), (4, 2), (2, 0)):
        row = Row(MLXTokenStream(), 0, 0, request, UNSPELT)
        row.granted, row.queued, row.said = granted, 1, [1]
        lookup = Lookup()
        lookup.stepped([row], 1.0)
        lookup.ready([row])
        proposed = lookup.propose([row])
        assert (0 if proposed is None else len(proposed.known()[0])) == min(most, FIRST)
