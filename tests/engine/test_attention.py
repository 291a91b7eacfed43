"""Attention that asks for no plan, where CUDA would: what it says is what attention is, and where it is taken."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import KVCache

from app.engine.mlx import nvrtc
from app.engine.mlx.cache import attention, classes, cpu_attention
from app.engine.mlx.cache.attention import Form, by_products, parts_of
from app.engine.mlx.cache.padded import PaddedKVCache

SIZE = 64
numbers = np.random.default_rng(31)


def some(*shape: int) -> mx.array:
    return mx.array(numbers.standard_normal(shape).astype(np.float32))


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4)),
    tokens=st.integers(1, 5),
    before=st.integers(0, 6),
    kind=st.sampled_from(["none", "causal", "seen", "added"]),
)
def test_two_products_and_a_softmax_are_attention(shape: tuple[int, ...], tokens: int, before: int, kind: str) -> None:
    rows, groups, each = shape
    queries, positions = some(rows, groups * each, tokens, SIZE), before + tokens
    keys, values = some(rows, groups, positions, SIZE), some(rows, groups, positions, SIZE)
    seen = numbers.random((rows, 1, tokens, positions)) < 0.6
    seen[..., 0] = True
    masks = {
        "none": None,
        "causal": "causal",
        "seen": mx.array(seen),
        "added": mx.array(np.where(seen, 0.5, -1e9).astype(np.float32)),
    }
    wanted = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=0.2, mask=masks[kind])
    np.testing.assert_allclose(by_products(queries, keys, values, 0.2, masks[kind]), wanted, rtol=1e-4, atol=1e-5)


def reference(queries: mx.array, keys: mx.array, values: mx.array, *where: Any) -> mx.array:
    """The kernel's words in numpy: nothing before a row's start and nothing from ``end`` on is read."""
    q, k, v = (np.array(it) for it in (queries, keys, values))
    starts, end, scale = where
    heard = np.zeros_like(q)
    for row, start in enumerate(np.array(starts).tolist()):
        for head in range(q.shape[1]):
            group = head * k.shape[1] // q.shape[1]
            scores = k[row, group, start:end] @ q[row, head, 0] * scale
            weights = np.exp(scores - scores.max())
            heard[row, head, 0] = weights / weights.sum() @ v[row, group, start:end]
    return mx.array(heard)


@contextmanager
def as_on_cuda() -> Iterator[list[tuple[mx.array, Any]]]:
    """As if this were CUDA, with a kernel in numpy; the keys that it is given, and where they end."""
    noted: list[tuple[mx.array, Any]] = []

    def noting(queries: mx.array, keys: mx.array, values: mx.array, *where: Any) -> mx.array:
        noted.append((keys, where[1]))
        return reference(queries, keys, values, *where)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "on_cuda", lambda: True)
        patch.setattr(cpu_attention, "suits", lambda *_given: False)
        patch.setattr(attention, "kernel", lambda _form: noting)
        yield noted


@pytest.fixture
def on_cuda() -> Iterator[list[Any]]:
    with as_on_cuda() as noted:
        yield noted


def stepped(lengths: list[int]) -> tuple[PaddedKVCache, mx.array, mx.array, mx.array | None]:
    """A cache of padded rows after one more token, with what it handed out and the mask of that token."""
    alone = []
    for length in lengths:
        cache = KVCache()
        cache.update_and_fetch(some(1, 2, length, SIZE), some(1, 2, length, SIZE))
        alone.append(cache)
    padded = PaddedKVCache.merge(alone)
    mask = padded.make_mask(1)
    keys, values = padded.update_and_fetch(some(len(lengths), 2, 1, SIZE), some(len(lengths), 2, 1, SIZE))
    return padded, keys, values, mask


@settings(deadline=None, max_examples=25)
@given(lengths=st.lists(st.integers(1, 40), min_size=2, max_size=4))
def test_padded_rows_hear_what_they_hear_with_a_mask_and_nothing_is_copied(lengths: list[int]) -> None:
    with as_on_cuda() as noted:
        cache, keys, values, mask = stepped(lengths)
        queries = some(len(lengths), 4, 1, SIZE)
        heard = classes.scaled_dot_product_attention(queries, keys, values, cache, 0.1, mask)
        wanted = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=0.1, mask=mask)
        np.testing.assert_allclose(heard, wanted, rtol=1e-4, atol=1e-5)
        ((read, end),) = noted
        assert read is cache.keys
        assert end == max(lengths) + 1


def test_keys_that_a_model_has_changed_are_read_as_they_are(on_cuda: list[Any]) -> None:
    cache, keys, values, mask = stepped([3, 9])
    queries = some(2, 4, 1, SIZE)
    heard = classes.scaled_dot_product_attention(queries, keys * 2, values, cache, 0.1, mask)
    wanted = mx.fast.scaled_dot_product_attention(queries, keys * 2, values, scale=0.1, mask=mask)
    np.testing.assert_allclose(heard, wanted, rtol=1e-4, atol=1e-5)
    assert on_cuda[0][0] is not cache.keys


@pytest.mark.parametrize("why", ["another mask", "an older mask", "sinks", "one row", "a lone cache"])
def test_what_is_no_padding_is_left_to_mlx(on_cuda: list[Any], why: str) -> None:
    cache, keys, values, mask = stepped([4] if why == "one row" else [3, 9])
    sinks = mx.zeros(4) if why == "sinks" else None
    if why == "another mask":
        mask = mx.array(np.array(mask))
    if why == "an older mask":
        keys, values = cache.update_and_fetch(some(2, 2, 1, SIZE), some(2, 2, 1, SIZE))
    holder = KVCache() if why == "a lone cache" else cache
    assert attention.attend(some(len(keys), 4, 1, SIZE), keys, values, holder, 0.1, mask, sinks) is None
    assert not on_cuda


def test_nothing_is_otherwise_where_nothing_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "on_cuda", lambda: False)
    cache, keys, values, mask = stepped([3, 9])
    assert attention.attend(some(2, 4, 1, SIZE), keys, values, cache, 0.1, mask, None) is None
    assert attention.scores_bytes() == 0


@pytest.mark.parametrize(("tokens", "short"), [(64, True), (4096, False)])
def test_a_slice_is_planned_only_if_its_scores_are_many(
    monkeypatch: pytest.MonkeyPatch, tokens: int, short: bool
) -> None:
    monkeypatch.setattr(attention, "on_cuda", lambda: True)
    taken = []
    monkeypatch.setattr(attention, "by_products", lambda *given_: taken.append(given_) or mx.zeros(()))
    queries = mx.zeros((1, 4, tokens, SIZE), dtype=mx.bfloat16)
    keys = values = mx.zeros((1, 2, tokens, SIZE), dtype=mx.bfloat16)
    heard = attention.attend(queries, keys, values, KVCache(), 0.1, "causal", None)
    assert (heard is not None) == bool(taken) == short
    with attention.as_planned():
        assert attention.attend(queries, keys, values, KVCache(), 0.1, "causal", None) is None


@pytest.mark.parametrize("right", [True, False])
def test_a_kernel_is_taken_only_if_it_says_what_attention_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, right: bool
) -> None:
    def made(_form: Form) -> Callable[..., Any]:
        return lambda *given_: reference(*given_) * (1 if right else 1.1)

    monkeypatch.setattr(attention, "_made", made)
    attention.kernel.cache_clear()
    taken = attention.kernel(Form(mx.float32, SIZE, 3))
    attention.kernel.cache_clear()
    assert (taken is not None) == right
    assert ("says something else" in caplog.text) == (not right)


@pytest.mark.parametrize("form", [Form(mx.float32, 80, 1), Form(mx.bfloat16, 128, 16), Form(mx.int32, 64, 1)])
def test_what_no_kernel_is_written_for_has_none(form: Form) -> None:
    assert attention.kernel(form) is None


def test_a_machine_without_a_compiler_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(_name: str) -> None:
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", none)
    with pytest.raises(nvrtc.CompilerFailed, match="no libnvrtc"):
        nvrtc.compiled("", "sm_90")
    monkeypatch.setattr(attention, "architecture", lambda: "sm_90")
    attention.kernel.cache_clear()
    with suppress(AttributeError):
        monkeypatch.setattr(mx.fast, "precompiled_cuda_kernel", lambda **_given: None)
    assert attention.kernel(Form(mx.float32, SIZE, 1)) is None
    attention.kernel.cache_clear()
    assert "fails here" in caplog.text


@given(blocks=st.integers(1, 4096), positions=st.integers(1, 200_000))
def test_rows_are_cut_into_no_more_parts_than_they_have_to_offer(blocks: int, positions: int) -> None:
    parts = parts_of(blocks, positions)
    assert 1 <= parts <= attention.MOST_PARTS
    assert parts == 1 or (blocks * parts <= attention.BLOCKS and (parts - 1) * attention.PART < positions)
