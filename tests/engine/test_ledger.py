"""The books: what is booked for a row is what it holds or more, whatever its model; at rest that is all there is."""

import ctypes
import gc
from functools import cache
from typing import Any

import mlx.core as mx
import psutil
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import RotatingKVCache
from msgspec.structs import replace

from app.engine.base import Sequence
from app.engine.facts import Books, Law
from app.engine.host import audit
from app.engine.host.audit import Audit
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.cache.law import SLICE
from app.engine.mlx.cache.layers import parts
from app.engine.mlx.load.scratch import BEFORE, BEYOND, FEW, MORE, MOST, law_of_peaks
from app.engine.mlx.load.weights import measured
from app.engine.mlx.loaded import Loaded, ScratchLaw
from app.engine.mlx.memory import free_blocks
from app.engine.mlx.prefill.prefill import Prefill
from tests.engine.families import bench
from tests.engine.families.bench import prompt
from tests.support.batches import GREEDY, HandBatch, run_steps

FAMILIES = {
    "llama": (False, True, False),
    "gemma3_text": (False, True, True),
    "mamba2": (True, False, False),
    "falcon_h1": (True, True, False),
}
"""Whether a row of it has a state, keys and values of all its tokens, and windows."""


@cache
def loaded(family: str) -> Loaded:
    model = bench.build(family)
    made = bench.loaded(family, model)
    known = run_steps(measured(model, made.nbytes, None))
    return replace(made, law=known.law, scratch=known.scratch)


def test_a_law_says_what_grows_what_ends_and_what_is_there_from_the_first_token_on() -> None:
    laws = {family: loaded(family).law for family in FAMILIES}
    has = {family: (bool(law.row), bool(law.token), bool(law.windows)) for family, law in laws.items()}
    assert has == FAMILIES
    for law in laws.values():
        assert law.nbytes(0) <= law.nbytes(10) <= law.nbytes(100_000)
    window = laws["gemma3_text"].windows[0][1] - SLICE
    grown = laws["gemma3_text"].nbytes(100_000 + window) - laws["gemma3_text"].nbytes(100_000)
    assert grown == laws["gemma3_text"].token * int(1.25 * window), "a full window grows no more"


def test_a_window_is_booked_with_the_slice_that_is_computed_behind_it() -> None:
    made, kv = loaded("gemma3_text"), KV.fresh(loaded("gemma3_text").model)
    booked = sum(each * most for each, most in made.law.windows)
    held: list[int] = []
    for size in (SLICE, SLICE, 1):
        kv.fill(made.model, mx.zeros((1, size), dtype=mx.uint32))
        held.append(sum(it.nbytes for it in parts(kv.layers) if isinstance(it, RotatingKVCache)))
    assert booked // 2 < max(held) <= booked


def test_two_models_side_by_side_take_what_both_take() -> None:
    one, other = Law(1, 10, ((5, 20),), 1.25, 384), Law(2, 3)
    for tokens in (0, 7, 1000):
        assert one.beside(other).nbytes(tokens) >= one.nbytes(tokens) + other.nbytes(tokens)


deeds = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.sampled_from([1, 2, 9, 60, 250, 300, 700]), st.integers(1, 40)),
        st.tuples(st.just("step"), st.integers(1, 12), st.just(0)),
        st.tuples(st.just("leave"), st.integers(0, 5), st.just(0)),
    ),
    min_size=4,
    max_size=12,
)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(deeds)
@example([("step", 1, 0), ("come", 1, 3), ("come", 250, 2), ("come", 1, 1)])
def test_whoever_comes_and_goes_no_more_is_held_than_is_booked(family: str, todo: list[tuple[str, int, int]]) -> None:
    made = loaded(family)
    batch = HandBatch(made, slice_tokens=256)
    streams: list[Any] = []

    def step() -> bool:
        rows = [row for stream in streams for row in stream.rows if not row.over]
        more = batch.batch.step()
        assert batch.batch.ledger.books().kv <= sum(made.law.nbytes(row.length) for row in rows)
        return more

    for deed, size, count in todo:
        if deed == "come":
            streams.append(batch.submit(Sequence(prompt(len(streams) % 5, size), GREEDY, max_tokens=count)))
        elif deed == "leave" and streams:
            streams[size % len(streams)].cancel()
        for _ in range(size if deed == "step" else 1):
            step()
    while step():
        pass
    assert batch.batch.ledger.books().kv == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_slice_takes_no_more_than_was_measured_at_the_load(family: str) -> None:
    made = loaded(family)
    ledger = HandBatch(made).batch.ledger
    work = Prefill(made.model, [prompt(3, 6000)], [KV.fresh(made.model)], few_shapes=False)
    for wanted in (64, 2048, 32, 2048, 2048, 16):
        size = ledger.slice(wanted, work.kv.positions)
        mx.synchronize()
        mx.reset_peak_memory()
        work.step(size)
        mx.synchronize()
        taken = mx.get_peak_memory() - mx.get_active_memory()
        held = work.kv.nbytes // 2  # a layer's is copied where it grows
        assert taken <= ledger.room + held, (size, work.kv.positions)


laws = st.builds(ScratchLaw, st.floats(0, 1e6), st.floats(1, 1e4), st.floats(0, 300), st.floats(0, 300))
SHAPES = ((FEW, 0), (MORE, 0), (MOST, 0), (MORE, BEFORE))


@given(laws)
def test_a_law_is_found_from_its_peaks(law: ScratchLaw) -> None:
    found = law_of_peaks({shape: law.nbytes(*shape) for shape in SHAPES})
    for tokens, before in (*SHAPES, (128, 4096), (2048, 0), (1, 30_000)):
        taken = law.nbytes(tokens, before)
        assert found.nbytes(tokens, before) == pytest.approx(taken, rel=0.01, abs=0.01 * tokens * (tokens + before) + 2)


@given(laws.filter(lambda it: it.own == 0), st.sampled_from((MORE, MOST, BEYOND)), st.floats(1e6, 1e8))
def test_what_a_library_takes_once_is_not_taken_for_a_square(law: ScratchLaw, above: int, room: float) -> None:
    shapes = (*SHAPES, (BEYOND, 0))
    found = law_of_peaks({(tokens, it): law.nbytes(tokens, it) + room * (tokens >= above) for tokens, it in shapes})
    most = law.nbytes(2048, 0) + room
    assert found.nbytes(2048, 0) <= 1.1 * most + 2048 * room / (BEYOND - MOST) * (above == BEYOND) + 1e4
    assert all(found.nbytes(*shape) >= law.nbytes(*shape) for shape in shapes)


@given(law=laws, tokens=st.integers(1, 4096), before=st.integers(0, 100_000))
def test_what_a_slice_takes_is_room_for_all_of_it(law: ScratchLaw, tokens: int, before: int) -> None:
    assert law.most(law.nbytes(tokens, before), before) >= tokens


@given(laws, st.integers(0, 200_000), st.integers(0, 1 << 30))
def test_the_most_that_fits_fits_and_one_more_does_not(law: ScratchLaw, before: int, room: int) -> None:
    most = law.most(room, before)
    assert most == 0 or law.nbytes(most, before) <= room
    assert law.nbytes(most + 2, before) > room - 1


@given(
    st.builds(
        Law,
        st.integers(0, 500),
        st.integers(0, 90),
        st.lists(st.tuples(st.integers(1, 50), st.integers(1, 900)), max_size=2).map(tuple),
        st.sampled_from([1.0, 1.25]),
        st.integers(0, 384),
    ),
    st.integers(0, 100_000),
    st.integers(1, 5000),
)
def test_the_longest_context_that_fits_fits_and_one_token_more_does_not(law: Law, room: int, tokens: int) -> None:
    most = law.most(room, tokens)
    assert most == 0 or law.nbytes(most) <= room
    assert most == tokens or law.nbytes(most + 1) > room


LENGTHS = (0, 4_000, 40_000, 4_000_000)


def test_slices_shrink_where_attention_holds_all_scores_and_never_vanish() -> None:
    made = replace(loaded("llama"), scratch=ScratchLaw(fixed=1e4, token=2e3, pair=20.0))
    ledger = HandBatch(made).batch.ledger
    sizes = [ledger.slice(2048, before) for before in LENGTHS]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[2] >= sizes[3] == 1
    for before in LENGTHS[:3]:
        assert ledger._scratch.nbytes(ledger.slice(2048, before), before) <= ledger.room


@pytest.mark.not_on_cuda("attention is another there")
@pytest.mark.parametrize("family", ["llama", "gpt_oss", "qwen3_next", "granitemoehybrid"])
def test_on_a_cpu_slices_are_as_long_behind_any_context(family: str) -> None:
    ledger = HandBatch(loaded(family), slice_tokens=512).batch.ledger
    assert len({ledger.slice(512, before) for before in LENGTHS}) == 1
    assert ledger.slice(512, 0) >= 128


def test_what_is_held_and_booked_by_nobody_is_told(caplog: pytest.LogCaptureFixture) -> None:
    held = [mx.zeros((1 << 20,))]
    mx.eval(held)
    gc.unfreeze()
    gc.collect()
    base = mx.get_active_memory()
    books = {0: Books(weights=base), 1: Books(weights=0)}
    looked = Audit(lambda: books, lambda: 0, list)
    looked.at_rest()
    assert abs(looked.books()[0].error) < 1 << 10
    own = looked.books()[0].apart if mx.cuda.is_available() else looked.books()[0].host
    assert own > 10 << 20, "this very process"
    assert not caplog.messages
    held.append(mx.zeros((4 << 20,)))
    mx.eval(held)
    for _ in range(2):
        looked.at_rest()
    assert looked.books()[0].error == 16 << 20
    assert looked.books()[1] == Books(), "an adapter has only what is its own"
    assert len(caplog.messages) == 1
    assert "booked" in caplog.messages[0]


@pytest.mark.not_on_cuda("what the host holds is a ledger of its own there")
@pytest.mark.skipif(not free_blocks(), reason="needs glibc 2.33 or later, which says what it keeps")
@pytest.mark.parametrize("freed", [True, False])
@pytest.mark.parametrize("scratch", [128 << 20, 16 << 20, 0])
def test_what_computing_gave_back_to_the_allocator_is_booked_as_scratch_alone(scratch: int, freed: bool) -> None:
    libc, count, block = ctypes.CDLL(None), 16 << 10, 4 << 10
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    looked = Audit(lambda: {0: Books(scratch=scratch)}, lambda: 0, list)
    looked.at_rest()
    before, free = looked.books()[0].host, free_blocks()
    *blocks, last = (libc.malloc(block) for _ in range(count))  # where the heap ends in use, all of it stays
    for each in blocks:
        ctypes.memset(each, 1, block)
    new = count * block - max(0, free - free_blocks())
    if freed:
        for each in blocks:
            libc.free(each)
    looked.at_rest()
    grown = looked.books()[0].host - before
    for each in [last, *([] if freed else blocks)]:
        libc.free(each)
    assert abs(grown - max(0, new - (min(scratch, count * block) if freed else 0))) < 8 << 20


@pytest.mark.not_on_cuda("what the host holds is a ledger of its own there")
@pytest.mark.parametrize("scratch", [128 << 20, 0])
def test_what_a_load_held_for_a_moment_is_not_booked_for_good(scratch: int) -> None:
    looked = Audit(lambda: {0: Books(scratch=scratch)}, lambda: 0, list)
    looked.at_rest()
    before, held = looked.books()[0].host, bytearray(b"x" * (256 << 20))
    looked.at_rest()
    assert looked.books()[0].host - before > len(held) // 4
    del held
    looked.at_rest()
    assert looked.books()[0].host - before < 8 << 20


def test_where_models_have_a_memory_of_their_own_the_process_is_booked_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx.cuda, "is_available", lambda: True)
    looked = Audit(lambda: {0: Books(), 1: Books()}, lambda: 0, list)
    looked.look_beside()
    own, other = looked.books()[0], looked.books()[1]
    assert (own.host, own.beside, other) == (0, 0, Books())
    assert 10 << 20 < own.apart < psutil.Process().memory_info().rss
    more = bytearray(b"x" * (256 << 20))  # so much that nothing which other tests let go of meanwhile hides it
    looked.look_beside()
    assert looked.books()[0].apart - own.apart > len(more) // 2


def test_what_rounding_explains_is_not_told() -> None:
    assert not audit.is_off(1 << 20, 0)
    assert audit.is_off((1 << 20) + 1, 0)
    assert not audit.is_off(-(2 << 30) // 101, 1 << 30)
    assert audit.is_off(-(3 << 30) // 100, 1 << 30)
