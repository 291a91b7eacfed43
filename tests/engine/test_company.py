"""Prompts that come together begin to decode together on CUDA, if that is soon."""

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from app.engine.base import Sequence
from app.engine.mlx.batch import placement
from app.engine.mlx.batch.decode import DecodeBatch
from app.engine.mlx.draw.logits import LogitsProcessor
from app.engine.mlx.draw.logprobs import Score
from app.engine.mlx.draw.step import HostStep, step_type
from app.engine.mlx.prefill import slice_size
from app.engine.mlx.rows import Row
from app.schemas.sampling import Sampling
from tests.engine.test_classes import LOADED
from tests.support.batches import GREEDY, HandBatch, Stream

SHORT, LONG = 16, 400


def ask(batch: HandBatch, seed: int, length: int) -> Stream:
    prompt = tuple(3 + (seed * 31 + i * (seed + 7)) % 200 for i in range(length))
    return batch.submit(Sequence(prompt, GREEDY, max_tokens=3))


def told(streams: list[Stream]) -> list[int]:
    return [sum(map(len, it.tokens.values())) for it in streams]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where prompts are computed one by one, so that there are several slices."""
    monkeypatch.setattr(placement, "on_cuda", lambda: True)
    monkeypatch.setattr(placement, "COMPANY_SECONDS", 60.0)
    monkeypatch.setattr(slice_size, "LONE_SLICE", SHORT)


def one_by_one() -> HandBatch:
    """No first token comes of a prompt's own pass on CUDA."""
    abilities = structs.replace(LOADED.abilities, last_logits=False)
    return HandBatch(structs.replace(LOADED, abilities=abilities), slice_tokens=SHORT)


@pytest.mark.usefixtures("cuda")
def test_nobody_decodes_before_the_prompts_that_came_with_it_are_computed() -> None:
    batch = one_by_one()
    streams = [ask(batch, seed, SHORT) for seed in range(3)]
    while batch.batch.work().waiting_tokens:
        assert all(it.rows[0].queued == 0 for it in streams)
        batch.step()
    while batch.batch.step():
        assert len(set(told(streams))) == 1
    assert told(streams) == [3, 3, 3]


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("why", ["a long prompt", "no time", "no CUDA", "a row that was told something"])
def test_nobody_waits_for(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = one_by_one()
    if why == "no time":
        monkeypatch.setattr(placement, "COMPANY_SECONDS", 0.0)
    if why == "no CUDA":
        monkeypatch.setattr(placement, "on_cuda", lambda: False)
    first = ask(batch, 0, SHORT)
    if why == "a row that was told something":
        while not any(told([first])):
            batch.step()
    rest = [ask(batch, seed, LONG if why == "a long prompt" else SHORT) for seed in (1, 2)]
    while batch.batch.step() and not all(it.prefilled for it in (first, *rest)):
        pass
    assert max(it.rows[0].queued for it in (first, *rest)) > 1, "one decoded before the last was computed"


@settings(deadline=None, max_examples=15)
@given(
    lengths=st.lists(st.sampled_from([4, SHORT, 40, LONG]), min_size=1, max_size=5), seconds=st.sampled_from([0, 60])
)
def test_everybody_is_answered_whatever_comes_together(lengths: list[int], seconds: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "on_cuda", lambda: True)
        patch.setattr(placement, "COMPANY_SECONDS", seconds)
        batch = one_by_one()
        streams = [ask(batch, seed, length) for seed, length in enumerate(lengths)]
        while batch.batch.step():
            pass
        assert told(streams) == [3] * len(lengths)


@pytest.mark.skipif(step_type() is not HostStep, reason="elsewhere a step is queued before the last one is read")
@pytest.mark.parametrize("rows", [1, 3])
def test_a_first_token_does_not_wait_for_the_next_steps_graph(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Later ones do on a CPU, where the next graph is built while they are computed."""
    graphs, seen = list[int](), list[int]()
    process, report = LogitsProcessor.process, DecodeBatch._report_token

    def counted(self: LogitsProcessor, logits: mx.array) -> mx.array:
        graphs.append(1)
        return process(self, logits)

    def noted(self: DecodeBatch, row: Row, token: int, score: Score | None) -> None:
        seen.append(len(graphs))
        report(self, row, token, score)

    monkeypatch.setattr(LogitsProcessor, "process", counted)
    monkeypatch.setattr(DecodeBatch, "_report_token", noted)
    batch = HandBatch(LOADED, slice_tokens=64)
    batch.run(*[tuple(range(3, 20))] * rows, max_tokens=3)
    assert seen[0] == 1
    assert seen[rows] == 3


@settings(deadline=None, max_examples=25)
@given(joins=st.integers(0, 6), stays=st.integers(1, 6), logprobs=st.sampled_from([None, 0]))
def test_a_row_says_the_same_whoever_comes_and_goes_that_is_drawn_for_otherwise(
    joins: int, stays: int, logprobs: int | None
) -> None:
    alone = HandBatch(LOADED).run(tuple(range(3, 20)), max_tokens=12)
    batch = HandBatch(LOADED)
    stream = batch.submit(Sequence(tuple(range(3, 20)), GREEDY, max_tokens=12))
    batch.step(joins)
    heat = Sampling(temperature=0.0 if logprobs is not None else 1.0, seed=1)
    other = batch.submit(Sequence(tuple(range(40, 60)), heat, max_tokens=stays, logprobs=logprobs))
    batch.finish()
    assert stream.tokens == alone.tokens
    assert told([other]) == [stays]
