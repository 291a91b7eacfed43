"""The texts are those without a draft, whatever the draft says."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import mlx.core as mx
import pytest

from app.engine.base import Sequence, Token
from app.engine.grammar import Grammar
from app.engine.mlx.batch.engine import MLXEngine
from app.engine.mlx.draw.step import DeviceStep
from app.engine.mlx.prefill.slice_size import SHORTEST_SLICE
from app.engine.mlx.speculate.drafter import MOST, OPENING
from app.schemas.sampling import Sampling
from tests.engine.test_engine import GREEDY, ids, prompt, run
from tests.support.speculation import SAMPLINGS, SEEDED, held, same

pytestmark = pytest.mark.not_on_cuda("drafts are not loaded there")


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("length", [1, 2, 40, 150])
async def test_the_text_is_that_without_a_draft(
    drafted: MLXEngine, plain: MLXEngine, sampling: str, length: int
) -> None:
    before = drafted.work().proposed
    await same(drafted, plain, Sequence(prompt(length, length), SAMPLINGS[sampling], max_tokens=60))
    assert drafted.work().proposed > before


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 30, 31])
async def test_an_answer_ends_at_its_length(drafted: MLXEngine, plain: MLXEngine, most: int, passes: list[Any]) -> None:
    made = await same(drafted, plain, Sequence(prompt(1, 60), SEEDED, max_tokens=most))
    assert len(made[0, 0]) == most
    assert all(width <= max(1, most - OPENING - 1) for layers, width in passes if layers == 4 and width < 20)


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED])
async def test_a_stop_token_inside_an_accepted_run_is_the_last(
    drafted: MLXEngine, plain: MLXEngine, sampling: Sampling
) -> None:
    free, _ = await run(plain, Sequence(prompt(2, 20), sampling, max_tokens=30))
    for place in range(OPENING, OPENING + 7):
        stops = frozenset({ids(free[0, 0])[place]})
        made, _ = await run(drafted, Sequence(prompt(2, 20), sampling, 60, stops))
        assert ids(made[0, 0]) == ids(free[0, 0])[: len(made[0, 0])]
        assert [token.id in stops for token in made[0, 0]] == [False] * (len(made[0, 0]) - 1) + [True]
        assert [token.finish for token in made[0, 0]] == [None] * (len(made[0, 0]) - 1) + ["stop"]


@pytest.mark.parametrize("least", [1, 5, 6, 7, 8, 20])
async def test_no_stop_token_comes_before_min_tokens(drafted: MLXEngine, plain: MLXEngine, least: int) -> None:
    free, _ = await run(plain, Sequence(prompt(3, 20), SEEDED, max_tokens=30))
    stops = frozenset(ids(free[0, 0])[:9])
    made = await same(drafted, plain, Sequence(prompt(3, 20), SEEDED, 40, stops, min_tokens=least))
    assert not stops & set(ids(made[0, 0])[:least])


@pytest.mark.parametrize(
    "more",
    [
        {"logit_bias": ((70, 3.0), (80, -100.0), (90, 2.0))},
        {"repetition_penalty": 1.3},
        {"frequency_penalty": 0.7, "presence_penalty": 0.4},
    ],
)
@pytest.mark.parametrize("temperature", [0.0, 0.7])
async def test_what_is_done_to_logits_is_done_to_those_of_a_verification(
    drafted: MLXEngine, plain: MLXEngine, more: dict[str, Any], temperature: float
) -> None:
    before = drafted.work().proposed
    await same(drafted, plain, Sequence(prompt(4, 25), Sampling(temperature=temperature, seed=3, **more), 50))
    assert drafted.work().proposed > before


async def test_log_probabilities_are_of_the_tokens_they_stand_by(drafted: MLXEngine, plain: MLXEngine) -> None:
    asked = Sequence(prompt(5, 30), SEEDED, max_tokens=30, logprobs=2)
    made, _ = await run(drafted, asked)
    expected, _ = await run(plain, asked)
    for mine, its in zip(made[0, 0], expected[0, 0], strict=True):
        assert mine.id == its.id
        assert mine.logprob == pytest.approx(its.logprob, abs=1e-3)
        assert [top.id for top in mine.top] == [top.id for top in its.top]


async def test_an_answer_is_held_to_its_form(drafted: MLXEngine, plain: MLXEngine) -> None:
    grammar = Grammar("regex", "[a-f0-9 ]{40}")
    for engine in (drafted, plain):
        await engine.prepare(grammar)
    before = drafted.work().proposed
    stops = plain.tokenizer.eos_ids
    made = await same(drafted, plain, Sequence(prompt(6, 12), SEEDED, 60, stops, grammar=grammar))
    assert drafted.work().proposed > before
    text = "".join(plain.tokenizer.token_bytes(token.id).decode() for token in made[0, 0])
    assert len(text.removesuffix("<|im_end|>")) == 40


@pytest.mark.parametrize("sampling", ["greedy", "seeded"])
async def test_another_stream_joins_in_the_middle_and_leaves_again(
    drafted: MLXEngine, plain: MLXEngine, sampling: str, passes: list[Any]
) -> None:
    alone = Sequence(prompt(20, 40), SAMPLINGS[sampling], max_tokens=300)
    expected, _ = await run(plain, alone)
    other = Sequence(prompt(21 if sampling == "greedy" else 22, 400), SAMPLINGS[sampling], max_tokens=40)
    beside, _ = await run(plain, other)
    passes.clear()
    told, proposed, joined = [], [drafted.work().proposed], None
    async for items in drafted.stream((alone,)):
        told += [item.id for item in items if isinstance(item, Token)]
        if len(told) >= 60 and joined is None:
            proposed.append(drafted.work().proposed)
            begun = len(passes)
            joined = asyncio.create_task(run(drafted, other))
    assert joined is not None
    made, _ = await joined
    proposed.append(drafted.work().proposed)
    assert told == ids(expected[0, 0])
    assert ids(made[0, 0]) == ids(beside[0, 0])
    assert proposed[0] < proposed[1] < proposed[2]
    slices = [place for place, it in enumerate(passes) if place >= begun and it[0] == 4 and it[1] >= SHORTEST_SLICE]
    assert len(slices) > 2
    assert {it for it in passes[slices[0] : slices[-1]] if it[1] <= MOST + 1} <= {(4, 1)}, "nor beside a prompt"


async def test_a_row_that_is_cancelled_in_the_middle_leaves_nothing_behind(
    drafted: MLXEngine, plain: MLXEngine
) -> None:
    stream = drafted.stream((Sequence(prompt(30, 40), SEEDED, max_tokens=2000),))
    told = 0
    async for items in stream:
        told += len(items)
        if told > 30:
            stream.close()
    await same(drafted, plain, Sequence(prompt(31, 40), SEEDED, max_tokens=30))
    assert await held(drafted) == 0


@pytest.mark.parametrize(("bits", "draft_bits"), [(8, None), (4, 8), (None, 4)])
async def test_caches_of_few_bits_are_trimmed_as_well(
    load: Callable[..., Awaitable[MLXEngine]], bits: int | None, draft_bits: int | None
) -> None:
    """A prompt by which no value lies between two of its steps: of 40 texts one differed where it was rounded."""
    plain, right = await load(kv_bits=bits), await load("right", kv_bits=bits, draft_bits=draft_bits)
    for sampling in SAMPLINGS.values():
        await same(right, plain, Sequence(prompt(10, 70), sampling, max_tokens=60))
    assert right.work().accepted > 20
    for engine in (plain, right):
        await engine.close()


@pytest.mark.parametrize("sampling", SAMPLINGS)
async def test_tokens_drawn_on_the_device_are_those_without_a_draft(
    load: Callable[..., Awaitable[MLXEngine]], monkeypatch: pytest.MonkeyPatch, sampling: str
) -> None:
    """Metal and CUDA draw in the graph; so does a CPU that takes itself for one."""
    plain, right, wrong = await load(), await load("right"), await load("wrong")
    device = mx.default_device

    class Other:
        def __eq__(self, _other: object) -> bool:
            return False

        def __hash__(self) -> int:
            return 0

    monkeypatch.setattr("app.engine.mlx.batch.decode.mx.default_device", Other)
    for engine in (right, wrong):
        engine._batch._drafter._step = DeviceStep
    for request in (
        Sequence(prompt(10, 30), SAMPLINGS[sampling], max_tokens=50),
        Sequence(prompt(11, 30), SAMPLINGS[sampling], max_tokens=50, logprobs=1),
    ):
        await same(right, plain, request)
        await same(wrong, plain, request)
    assert right.work().accepted > 50
    monkeypatch.setattr("app.engine.mlx.batch.decode.mx.default_device", device)
    for engine in (plain, right, wrong):
        await engine.close()
