"""Attention of slices on a CPU is MLX's, whatever the shapes, masks and sinks, in bounded memory."""

from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.mlx.cache import cpu_slices
from app.engine.mlx.cache.kv import KV
from tests.engine.test_conversations import model_of, said

pytestmark = pytest.mark.not_on_cuda("it is for CPUs")


def some(*shape: int, key: int) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(key))


def mask_of(kind: str, rows: int, tokens: int, positions: int) -> Any:
    """As mlx-lm's caches make them: of a window two axes, of padded rows four."""
    if kind in {"none", "causal"}:
        return None if kind == "none" else kind
    at, seen = mx.arange(positions - tokens, positions)[:, None], mx.arange(positions)
    causal = at >= seen
    if kind == "window":
        return causal & (at < seen + max(2, positions // 3))
    if kind == "keys":
        return (seen % 3 != 1)[None, None, None]
    padding = mx.arange(rows)[:, None, None, None] * positions // (2 * rows)
    padded = causal[None, None] & (seen >= padding)
    return padded if kind == "padded" else mx.where(padded, 0.0, -mx.inf)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 3),
    groups=st.sampled_from([1, 2, 3]),
    each=st.sampled_from([1, 2, 4]),
    tokens=st.integers(2, 70),
    before=st.integers(0, 400),
    sizes=st.sampled_from([(16, 16), (64, 64), (24, 16), (96, 128)]),
    kind=st.sampled_from(["none", "causal", "window", "keys", "padded", "added"]),
    sinks=st.booleans(),
    bounds=st.sampled_from([(1 << 17, 4096), (1 << 12, 64), (512, 33), (1, 1)]),
)
def test_it_says_what_mlx_says(  # noqa: PLR0917
    rows: int,
    groups: int,
    each: int,
    tokens: int,
    before: int,
    sizes: tuple[int, int],
    kind: str,
    *,
    sinks: bool,
    bounds: tuple[int, int],
) -> None:
    positions, (size, width) = before + tokens, sizes
    if bounds == (1, 1):
        positions, tokens = min(positions, 20), min(tokens, 9)
    queries = some(rows, groups * each, tokens, size, key=0)
    keys, values = some(rows, groups, positions, size, key=1), some(rows, groups, positions, width, key=2)
    sunk = some(groups * each, key=3) if sinks else None
    mask = mask_of(kind, rows, tokens, positions)
    wanted = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=0.2, mask=mask, sinks=sunk)
    if kind in {"padded", "added"}:  # a query that sees nothing hears nothing that is defined
        first = max(0, rows * positions // (2 * rows) - (positions - tokens))
        wanted = wanted[:, :, first:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_slices, "SCORES", bounds[0])
        patch.setattr(cpu_slices, "KEYS", bounds[1])
        heard = cpu_slices.attend(queries, keys, values, 0.2, mask, sunk)
    heard = heard[:, :, heard.shape[2] - wanted.shape[2] :]
    assert heard.shape == wanted.shape
    assert not heard.size or mx.abs(heard - wanted).max().item() < 2e-5
    assert not cpu_slices.suits(queries.astype(mx.bfloat16), keys, mask)
    assert cpu_slices.suits(queries, keys, mask) == (rows * groups * each * tokens * positions >= cpu_slices.FEWEST)


@pytest.mark.parametrize("mask", ["heads", "other keys"])
def test_a_mask_of_another_kind_is_left_to_mlx(mask: str) -> None:
    queries, keys = some(1, 4, 64, 16, key=0), some(1, 2, 128, 16, key=1)
    shape = (1, 4, 64, 128) if mask == "heads" else (64, 1)
    assert cpu_slices.suits(queries, keys, mx.zeros((64, 128)))
    assert not cpu_slices.suits(queries, keys, mx.zeros(shape))


def test_what_nobody_reads_is_left_to_mlx_which_leaves_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a prompt the last layer's keys and values are wanted alone; of a prompt that is scored all of it."""
    made, attended = model_of("llama"), list[int]()
    real = cpu_slices.attend

    def attend(queries: mx.array, *rest: Any) -> mx.array:
        attended.append(queries.shape[2])
        return real(queries, *rest)

    monkeypatch.setattr(cpu_slices, "FEWEST", 0)
    monkeypatch.setattr(cpu_slices, "attend", attend)
    tokens = mx.array([said(1, 60)], dtype=mx.uint32)
    kv = KV.fresh(made.model)
    kv.fill(made.model, tokens)
    layers = len(kv.layers)
    assert attended == [60] * (layers - 1)
    made.model(tokens, cache=KV.fresh(made.model).layers)
    assert attended == [60] * (2 * layers - 1)


SHAPES = [
    (1, 9, 3, 512, 4096, 64),
    (1, 32, 8, 256, 4096, 64),
    (1, 16, 16, 256, 2048, 64),
    (8, 8, 8, 64, 2048, 32),
    (1, 2, 1, 512, 16384, 16),
]
"""Rows, heads, heads of keys, tokens, positions, head size."""


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["causal", "window"])
def test_what_is_held_does_not_grow_with_the_context(shape: tuple[int, ...], kind: str) -> None:
    rows, heads, groups, tokens, positions, size = shape
    queries = some(rows, heads, tokens, size, key=0)
    keys, values = some(rows, groups, positions, size, key=1), some(rows, groups, positions, size, key=2)
    mask = mask_of(kind, rows, tokens, positions)
    mx.eval(queries, keys, values, [] if isinstance(mask, str) else mask)
    mx.synchronize()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(cpu_slices.attend(queries, keys, values, 0.2, mask))
    mx.synchronize()
    held = mx.get_peak_memory() - before
    assert held < cpu_slices.HELD + 2 * queries.nbytes
