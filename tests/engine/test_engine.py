"""The engine on a real MLX model: the same texts alone and together, prompt reuse, cancellation, failures."""

import asyncio
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load_model

from app.engine.base import Prefilled, Sequence, Token
from app.engine.ids import Ids
from app.engine.mlx.batch import delivery
from app.engine.mlx.batch.engine import MLXEngine
from app.engine.mlx.cache.prefix import PrefixPool
from app.engine.mlx.load.loader import MLXLoader
from app.engine.mlx.memory import release
from app.errors import EngineFailed, ModelUnusable, Unavailable
from app.schemas.sampling import Sampling
from tests.support.tiny import make_tiny, tiny

GREEDY = Sampling(temperature=0)


def prompt(seed: int, length: int) -> tuple[int, ...]:
    return tuple(int(i) for i in np.random.default_rng(seed).integers(3, 250, length))


async def run(
    engine: MLXEngine, *sequences: Sequence
) -> tuple[dict[tuple[int, int], list[Token]], dict[int, Prefilled]]:
    """Tokens by (sequence, row), and the prefill events by sequence."""
    tokens: dict[Any, Any] = {}
    prefilled = {}
    async for items in engine.stream(sequences):
        for item in items:
            if isinstance(item, Prefilled):
                prefilled[item.sequence] = item
            elif isinstance(item, Token):
                tokens.setdefault((item.sequence, item.row), []).append(item)
    return tokens, prefilled


def ids(tokens: list[Token]) -> list[int]:
    return [token.id for token in tokens]


def greedy_reference(tokens: Ids, count: int) -> list[int]:
    """mlx-lm's model without cache or batch, on this thread: the plainest way to the same text."""
    model, _ = load_model(tiny())
    model.set_dtype(mx.float32)
    out = list(tokens)
    for _ in range(count):
        out.append(mx.argmax(model(mx.array([out]))[0, -1]).item())
    return out[len(tokens) :]


async def test_greedy_text_is_the_models_own(engine: MLXEngine) -> None:
    made, _ = await run(engine, Sequence(prompt(1, 20), GREEDY, max_tokens=12))
    assert ids(made[0, 0]) == greedy_reference(prompt(1, 20), 12)
    assert [token.finish for token in made[0, 0]] == [None] * 11 + ["length"]


@pytest.mark.parametrize(("seconds", "last"), [(0, 1), (60, 11)])
async def test_streams_of_a_fast_model_are_told_of_several_tokens_at_once(
    engine: MLXEngine, monkeypatch: pytest.MonkeyPatch, seconds: int, last: int
) -> None:
    """But of the first and the last token as soon as they are there."""
    monkeypatch.setattr(delivery, "STREAM_SECONDS", seconds)
    monkeypatch.setattr(delivery, "LONGEST_WAIT", seconds)
    stream = engine.stream((Sequence(prompt(4, 20), GREEDY, max_tokens=12),))
    told = []
    monkeypatch.setattr(stream, "deliver", lambda *given: (told.append(given[0]), type(stream).deliver(stream, *given)))
    made = [item async for items in stream for item in items]
    assert isinstance(made[0], Prefilled)
    assert ids([it for it in made[1:] if isinstance(it, Token)]) == greedy_reference(prompt(4, 20), 12)
    assert len(told[-1]) == last
    assert sum(map(len, told[:-1])) == 13 - last


async def test_nothing_is_held_back_while_a_prompt_is_computed(
    engine: MLXEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "STREAM_SECONDS", 60)
    monkeypatch.setattr(delivery, "LONGEST_WAIT", 60)
    stream = engine.stream((Sequence(prompt(4, 20), GREEDY, max_tokens=200),))
    told, beside = [], None
    async for items in stream:
        told.append(len(items))
        if isinstance(items[-1], Token) and beside is None:
            beside = asyncio.create_task(run(engine, Sequence(prompt(5, 500), GREEDY, max_tokens=1)))
    assert beside is not None
    await beside
    assert sum(told) == 201
    assert len(told) > 6, "its slices of 64 tokens"


async def test_sixteen_at_once_make_the_texts_of_one_by_one(engine: MLXEngine) -> None:
    sequences = [Sequence(prompt(seed, 3 + 9 * seed), GREEDY, max_tokens=5 + seed) for seed in range(16)]
    alone = [(await run(engine, sequence))[0][0, 0] for sequence in sequences]
    together = await asyncio.gather(*(run(engine, sequence) for sequence in sequences))
    assert [ids(made[0, 0]) for made, _ in together] == [ids(made) for made in alone]
    one_stream, _ = await run(engine, *sequences)
    assert [ids(one_stream[i, 0]) for i in range(16)] == [ids(made) for made in alone]


async def test_a_seed_gives_the_same_text_whatever_runs_beside_it(engine: MLXEngine) -> None:
    def drawn(seed: int, top_p: float = 1.0) -> Sequence:
        return Sequence(prompt(50, 10), Sampling(seed=seed, top_p=top_p), max_tokens=20)

    alone, _ = await run(engine, drawn(7))
    crowd = await asyncio.gather(*(run(engine, drawn(seed, 0.9)) for seed in (3, 5)), run(engine, drawn(7)))
    assert ids(crowd[2][0][0, 0]) == ids(alone[0, 0])
    assert ids(crowd[0][0][0, 0]) != ids(alone[0, 0])


async def test_rows_share_one_prompt_and_draw_differently(engine: MLXEngine) -> None:
    made, prefilled = await run(engine, Sequence(prompt(60, 30), Sampling(seed=1), max_tokens=10, rows=3))
    assert len(prefilled) == 1
    assert len({tuple(ids(made[0, row])) for row in range(3)}) == 3
    single, _ = await run(engine, Sequence(prompt(60, 30), Sampling(seed=1), max_tokens=10))
    assert ids(single[0, 0]) == ids(made[0, 0])


async def test_a_stop_token_ends_a_row_and_is_its_last(engine: MLXEngine) -> None:
    free, _ = await run(engine, Sequence(prompt(1, 20), GREEDY, max_tokens=12))
    stop = ids(free[0, 0])[4]
    first = ids(free[0, 0]).index(stop)
    made, _ = await run(engine, Sequence(prompt(1, 20), GREEDY, max_tokens=12, stop_ids=frozenset({stop})))
    assert ids(made[0, 0]) == ids(free[0, 0])[: first + 1]
    assert made[0, 0][-1].finish == "stop"
    held, _ = await run(engine, Sequence(prompt(1, 20), GREEDY, 12, frozenset({stop}), min_tokens=12))
    assert stop not in ids(held[0, 0])
    assert len(held[0, 0]) == 12


async def test_log_probabilities_are_the_models_own(engine: MLXEngine) -> None:
    model, _ = load_model(tiny())
    model.set_dtype(mx.float32)
    given = prompt(70, 40)
    made, prefilled = await run(engine, Sequence(given, GREEDY, max_tokens=4, logprobs=3, prompt_logprobs=2))
    whole = mx.array([[*given, *ids(made[0, 0])]])
    logits = model(whole)[0]
    expected = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
    scores = prefilled[0].scores
    assert scores[0].logprob is None
    assert scores[0].top == ()
    assert [score.logprob for score in scores[1:]] == pytest.approx(
        [expected[i, token] for i, token in enumerate(given[1:])], abs=1e-3
    )
    assert [entry.id for entry in scores[9].top] == list(np.argsort(-expected[8])[:2])
    for place, token in enumerate(made[0, 0], start=len(given) - 1):
        assert token.logprob == pytest.approx(expected[place, token.id], abs=1e-3)
        assert [entry.id for entry in token.top] == list(np.argsort(-expected[place])[:3])


async def test_scoring_alone_generates_nothing(engine: MLXEngine) -> None:
    made, prefilled = await run(engine, Sequence(prompt(71, 9), GREEDY, max_tokens=0, prompt_logprobs=0))
    assert made == {}
    assert len(prefilled[0].scores) == 9


async def test_a_prompt_of_one_token_needs_no_prefill(engine: MLXEngine) -> None:
    made, _ = await run(engine, Sequence((5,), GREEDY, max_tokens=6), Sequence(prompt(2, 70), GREEDY, max_tokens=6))
    assert ids(made[0, 0]) == greedy_reference((5,), 6)


@pytest.mark.not_on_cuda("prompts of fewer than 256 tokens are not kept there")
async def test_a_beginning_seen_before_is_not_computed_again(engine: MLXEngine) -> None:
    begin = prompt(80, 150)
    _, before = await run(engine, Sequence((*begin, 9, 10), GREEDY, max_tokens=8))
    second, after = await run(engine, Sequence((*begin, 11, 12, 13), GREEDY, max_tokens=8))
    assert before[0].cached_tokens == 0
    assert after[0].cached_tokens == 150
    assert ids(second[0, 0]) == greedy_reference((*begin, 11, 12, 13), 8)


async def test_widths_rounded_up_to_few_shapes_change_no_text(
    loader: MLXLoader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mx.cuda, "is_available", lambda: True)
    engine = await loader.load(make_tiny(tmp_path / "few-shapes", seed=0), name="few-shapes")
    sequences = [Sequence(prompt(seed, 2 + 7 * seed), GREEDY, max_tokens=6) for seed in range(8)]
    made, _ = await run(engine, *sequences)
    alone = [(await run(engine, sequence))[0][0, 0] for sequence in sequences]
    await engine.close()
    assert [ids(made[i, 0]) for i in range(8)] == [ids(it) for it in alone]
    assert [ids(it) for it in alone] == [greedy_reference(sequence.prompt, 6) for sequence in sequences]


@pytest.mark.not_on_cuda("prompts of fewer than 256 tokens are not kept there")
async def test_prompts_that_arrive_together_share_their_beginning(engine: MLXEngine) -> None:
    begin = prompt(81, 100)
    sequences = [Sequence((*begin, 20 + i, 30 + i), GREEDY, max_tokens=6) for i in range(5)]
    made, prefilled = await run(engine, *sequences)
    assert sum(event.cached_tokens >= 100 for event in prefilled.values()) >= 4
    for i, sequence in enumerate(sequences):
        assert ids(made[i, 0]) == greedy_reference(sequence.prompt, 6)


async def test_a_shared_beginning_that_the_cache_has_no_room_for_holds_nobody_up(
    loader: MLXLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "_prefixes", PrefixPool(0))
    engine = await loader.load(tiny(), name="no-room")
    begin = prompt(82, 40)
    made, _ = await asyncio.wait_for(run(engine, *(Sequence((*begin, i, i), GREEDY, 4) for i in (7, 8, 9))), 60)
    await engine.close()
    assert ids(made[2, 0]) == greedy_reference((*begin, 9, 9), 4)


async def test_a_reader_that_leaves_frees_its_rows_and_disturbs_nobody(engine: MLXEngine) -> None:
    other = asyncio.create_task(run(engine, Sequence(prompt(3, 10), GREEDY, max_tokens=60)))
    stream = engine.stream((Sequence(prompt(4, 10), GREEDY, max_tokens=2000, rows=8),))
    seen = 0
    async for items in stream:
        seen += sum(isinstance(item, Token) for item in items)
        if seen > 20:
            break
    stream.close()
    stream.close()
    made, _ = await other
    assert ids(made[0, 0]) == greedy_reference(prompt(3, 10), 60)
    # Sixteen rows are all there are: eight that were not freed would leave no room for these.
    made, _ = await asyncio.wait_for(run(engine, Sequence(prompt(5, 10), GREEDY, max_tokens=3, rows=16)), 30)
    assert len(made) == 16


async def test_one_row_can_be_cancelled_among_others(engine: MLXEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "LONGEST_WAIT", 0)
    stream = engine.stream((Sequence(prompt(6, 10), Sampling(seed=3), max_tokens=40, rows=2),))
    tokens = {0: 0, 1: 0}
    async for items in stream:
        for item in items:
            if isinstance(item, Token):
                tokens[item.row] += 1
        if tokens[0] >= 5:
            stream.cancel(0, 0)
    assert tokens[1] == 40
    assert tokens[0] < 12


async def test_more_rows_than_fit_wait_their_turn(engine: MLXEngine) -> None:
    sequences = [Sequence(prompt(90 + i, 5), GREEDY, max_tokens=4, rows=4) for i in range(10)]
    made, _ = await run(engine, *sequences)
    assert len(made) == 40
    assert all(len(row) == 4 for row in made.values())


async def test_a_failure_in_the_engine_ends_its_requests_and_not_the_service(
    loader: MLXLoader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await loader.load(make_tiny(tmp_path / "broken", seed=9), name="broken")
    monkeypatch.setattr("app.engine.mlx.draw.logits.LogitsProcessor.process", lambda *_: 1 / 0)
    with pytest.raises(EngineFailed):
        await run(engine, Sequence((5, 6), GREEDY, max_tokens=3))
    monkeypatch.undo()
    made, _ = await run(engine, Sequence((5, 6), GREEDY, max_tokens=3))
    assert len(made[0, 0]) == 3
    await engine.close()


async def test_closing_fails_what_runs_and_gives_the_memory_back(loader: MLXLoader, tmp_path: Path) -> None:
    await loader._thread.call(release)
    before = mx.get_active_memory()
    engine = await loader.load(make_tiny(tmp_path / "closing", seed=9, width=256), name="closing")
    assert mx.get_active_memory() - before > 0.8 * engine.nbytes > 1 << 20
    stream = engine.stream((Sequence(prompt(7, 10), GREEDY, max_tokens=2000),))
    async for _ in stream:
        break
    await engine.close()
    with pytest.raises(Unavailable):
        async for _ in stream:
            pass
    with pytest.raises(Unavailable):
        await run(engine, Sequence((5,), GREEDY, max_tokens=1))
    assert mx.get_active_memory() <= before + (1 << 16)


@pytest.mark.parametrize("spoil", ["config.json", "tokenizer.json", "model.safetensors"])
async def test_a_broken_model_is_named_without_its_place_on_disk(loader: MLXLoader, tmp_path: Path, spoil: str) -> None:
    directory = make_tiny(tmp_path / "spoilt", seed=1)
    (directory / spoil).write_text('{"nonsense": ')
    with pytest.raises(ModelUnusable, match="'some/model'") as refused:
        await loader.load(directory, name="some/model")
    assert str(tmp_path) not in refused.value.message
