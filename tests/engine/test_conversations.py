"""A conversation that goes on, branches, is edited or cut off costs its new tokens, and says what it says without help.

On small models of each kind of cache, with the batch stepped by hand.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.base import Sequence
from app.engine.ids import pack
from app.engine.mlx.batch import keeping
from app.engine.mlx.batch.keeping import Keeper
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.loaded import Loaded
from app.engine.mlx.rows import Row
from tests.engine.families.bench import Bench, build, loaded
from tests.engine.families.parts import VOCABULARY
from tests.engine.families.test_families import NAMED
from tests.support.batches import GREEDY, HandBatch, Stream

KINDS = {
    "llama": 1.05,
    "gemma3_text": 1.15,
    "gpt_oss": 1.15,
    "qwen3_next": 1.15,
    "granitemoehybrid": 1.15,
    "mamba2": 1.15,
    "deepseek_v32": 1.05,
}
"""What may be computed over what is new, by kind of cache: plain, sliding, with sinks, hybrid, recurrent, lists."""
FEW = tuple(KINDS) if NAMED == "all" else ("llama", "gemma3_text", "qwen3_next", "granitemoehybrid")
HEAD, HEADER = 150, (3, 4, 5)
"""Tokens of the system prompt, and those before each answer."""


@cache
def bench_of(family: str) -> Bench:
    return Bench(family, model_of(family))


@cache
def model_of(family: str) -> Loaded:
    return loaded(family, build(family))


def said(seed: int, length: int) -> tuple[int, ...]:
    return tuple(int(i) for i in np.random.default_rng(seed).integers(6, VOCABULARY, length))


class Session:
    """One conversation, as an agent has it; ``new`` and ``computed`` count tokens."""

    def __init__(self, batch: HandBatch, head: tuple[int, ...]) -> None:
        self.batch = batch
        self.head = head
        self.turns: list[Any] = []
        self.known: list[Any] = []
        self.new = self.computed = 0

    def ask(
        self, message: tuple[int, ...], answer: int = 24, *, cancel_after: int | None = None
    ) -> tuple[tuple[int, ...], Stream]:
        self.turns.append(message)
        begin = (*self.head, *(token for turn in self.turns for token in turn))
        prompt = (*begin, *HEADER)
        request = Sequence(prompt, GREEDY, max_tokens=answer, boundaries=(len(self.head), len(begin)))
        stream = self.batch.submit(request)
        if cancel_after is None:
            self.batch.finish()
        else:
            self.batch.step(cancel_after)
            stream.cancel()
            self.batch.finish()
        if 0 not in stream.prefilled:
            del self.turns[-1]
            return prompt, stream
        cached = stream.prefilled[0].cached_tokens
        longest = max((_common(prompt, it) for it in self.known), default=0)
        self.new += len(prompt) - longest
        self.computed += len(prompt) - cached
        ids = tuple(stream.ids())
        self.known.append((*prompt, *ids[:-1]))
        self.turns.append((*HEADER, *ids))
        return prompt, stream


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@pytest.mark.parametrize("family", FEW)
def test_turns_cost_what_is_new_in_them(family: str) -> None:
    batch = HandBatch(model_of(family), slice_tokens=128)
    bench = bench_of(family)
    session = Session(batch, said(1, HEAD))
    for turn in range(4):
        prompt, stream = session.ask(said(10 + turn, 80))
        assert bench.wrong(_first(stream), prompt) is None
    del session.turns[-3:]
    prompt, stream = session.ask(said(30, 80))
    assert bench.wrong(_first(stream), prompt) is None, "a branch"
    session.turns[-1] = (*HEADER, *session.turns[-1][15:])
    session.ask(said(31, 80))
    assert session.computed <= KINDS[family] * session.new
    other = Session(batch, session.head)
    other.ask(said(40, 50))
    assert other.computed - 50 - len(HEADER) <= 0 + (0 if family in ("llama", "deepseek_v32") else 1), (
        "one head for all"
    )


def _first(stream: Stream) -> Stream:
    """The beginning of an answer, as long as the bench has them."""
    for key in stream.tokens:
        stream.tokens[key] = stream.tokens[key][:8]
    return stream


@pytest.mark.parametrize("family", FEW)
def test_an_edit_in_what_was_said_last_costs_little_beside_what_is_new(family: str) -> None:
    batch = HandBatch(model_of(family), slice_tokens=1024)
    session, message = Session(batch, said(1, HEAD)), said(2, 900)
    session.ask(said(3, 600))
    session.ask(message)
    for kept in (700, 400):
        del session.turns[-2:]
        before = session.computed - session.new
        prompt, stream = session.ask((*message[:kept], *said(kept, 60)))
        assert session.computed - session.new - before <= (0 if family == "llama" else 256)
        assert bench_of(family).wrong(_first(stream), prompt) is None


@pytest.mark.parametrize(("together", "at_once"), [(0, True), (1 << 30, False)])
def test_states_come_into_the_tree_together_or_at_once_where_they_are_large(
    together: int, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "TOGETHER", together)
    batch, prompt = HandBatch(model_of("qwen3_next"), slice_tokens=1024), said(5, 2000)
    batch.run(said(6, 600))  # by which it is known what a state takes
    stream = batch.submit(Sequence(prompt, GREEDY, max_tokens=4))
    batch.step()
    (task,), prefixes = batch.batch._rounds.tasks, batch.batch._prefixes.shared
    while (done := task.work.done) < 900:
        batch.step()
    assert done < keeping.PART
    assert prefixes.known(pack(prompt)) == (done if at_once else 0)
    stream.cancel()
    batch.finish()
    assert prefixes.known(pack(prompt)) == done


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen3_next"])
def test_what_was_cut_off_is_gone_on_with(family: str) -> None:
    batch = HandBatch(model_of(family), slice_tokens=64)
    batch.batch._slice_size._lone = 64
    prompt = said(3, 900)
    stream = batch.submit(Sequence(prompt, GREEDY, max_tokens=4))
    batch.step(6)
    assert not stream.prefilled
    stream.cancel()
    batch.finish()
    again = batch.run(prompt)
    assert again.prefilled[0].cached_tokens >= 5 * 64
    assert bench_of(family).wrong(again, prompt) is None


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen3_next"])
def test_an_answer_that_was_cut_off_is_kept(family: str) -> None:
    batch = HandBatch(model_of(family), slice_tokens=1024)
    prompt = said(4, 100)
    stream = batch.submit(Sequence(prompt, GREEDY, max_tokens=200))
    batch.step(60)
    stream.cancel()
    batch.finish()
    told = stream.ids()
    assert len(told) > 40
    again = batch.run((*prompt, *told, 9, 9))
    assert again.prefilled[0].cached_tokens >= len(prompt) + len(told)


def test_what_several_rows_answer_is_kept_of_each() -> None:
    batch = HandBatch(model_of("gemma3_text"), slice_tokens=1024)
    prompts = [said(50 + i, 60 + 20 * i) for i in range(4)]
    stream = batch.run(*prompts, max_tokens=50)
    for i, prompt in enumerate(prompts):
        known = (*prompt, *stream.ids(i)[:-1])
        assert batch.run((*known, 7, 8)).prefilled[0].cached_tokens == len(known)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen3_next"])
@settings(max_examples=2, deadline=None)
@given(st.data())
def test_any_conversation_costs_no_more_than_its_bound(family: str, data: st.DataObject) -> None:
    """With little memory it may cost more, but there is never another text, nor more than the limit."""
    little = data.draw(st.booleans())
    batch = HandBatch(model_of(family), slice_tokens=128, prefix_bytes=(1 << 18) if little else (64 << 20))
    pool, bench = batch.batch._prefixes.shared._pool, bench_of(family)
    sessions = [Session(batch, said(1, HEAD)) for _ in range(2)]
    edited = 0
    for turn in range(data.draw(st.integers(3, 6))):
        session = data.draw(st.sampled_from(sessions))
        kind = data.draw(st.sampled_from(["plain", "plain", "branch", "thoughts", "edit", "cancel"]))
        begin: tuple[int, ...] = ()
        if kind == "branch" and len(session.turns) > 4:
            del session.turns[-4:]
        elif kind == "edit" and len(session.turns) > 1:
            begin = session.turns[-2][: data.draw(st.integers(1, 60))]
            del session.turns[-2:]
            edited += len(begin)
        elif kind == "thoughts" and session.turns:
            session.turns[-1] = (*HEADER, *session.turns[-1][12:])
        size, after = data.draw(st.integers(60, 120)), data.draw(st.integers(1, 6)) if kind == "cancel" else None
        said_now = (*begin, *said(100 + turn, size))
        prompt, stream = session.ask(said_now, data.draw(st.integers(8, 24)), cancel_after=after)
        if kind != "cancel":
            assert bench.wrong(_first(stream), prompt) is None
        assert pool.nbytes <= pool.limit
    for session in sessions if not little else ():
        spare = 0 if family == "llama" else edited
        assert session.computed <= KINDS[family] * session.new + 32 * len(session.turns) + spare


def test_a_long_prompt_of_which_little_is_known_says_where_it_differs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "app.engine.mlx.batch.keeping")
    batch = HandBatch(model_of("llama"), slice_tokens=2048)
    prompt = said(7, 2400)
    batch.run(prompt, max_tokens=1)
    batch.run((*prompt, *said(8, 1100)), max_tokens=1)
    assert not caplog.records, "one that goes on is no miss"
    batch.run((*prompt[:700], 3, *prompt[701:]), max_tokens=1)
    assert "differs at token 700" in caplog.text
    work = batch.batch.work()
    assert (work.hits, work.spared) == (2, 2399 + 700)


@pytest.mark.parametrize("family", FEW)
@pytest.mark.parametrize("lengths", [(40,), (40, 40, 90), (30, 200)])
def test_what_is_kept_of_an_answer_waits_until_its_last_tokens_are_told(
    monkeypatch: pytest.MonkeyPatch, family: str, lengths: tuple[int, ...]
) -> None:
    """Where others still decode, these go first."""
    batch, told = HandBatch(model_of(family), slice_tokens=1024), list[int]()
    keep = Keeper.answered

    def seen(self: Keeper, kv: KV, rows: Mapping[int, Row]) -> None:
        told.extend([sum(len(its) for stream in streams for its in stream.tokens.values())] * len(rows))
        keep(self, kv, rows)

    monkeypatch.setattr(Keeper, "answered", seen)
    streams = [batch.submit(Sequence(said(seed, length), GREEDY, max_tokens=6)) for seed, length in enumerate(lengths)]
    batch.finish()
    assert told[-1] == 6 * len(lengths)
    assert len(told) == len(lengths)
