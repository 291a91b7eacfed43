"""Attention of one token a row on a CPU, where MLX computes exponentials one at a time.

Of a step of many rows behind long contexts those are half. Here they are computed by a polynomial, in loops that a
compiler makes vectors of, a mask is added and not chosen by, and keys that heads share are read once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import mlx.core as mx

FEWEST = 3000
"""Scores of a layer from which on this is faster: it has twice as many operations as MLX's own attention, each of which
takes some microseconds to hand over. Measured for head sizes of 16 to 128.
"""
LOWEST = -3.4028234e38
"""float32's."""
LOG2_E = 1.4426950408889634
POWERS = (1.5403530e-4, 1.3333558e-3, 9.6181291e-3, 5.5504109e-2, 0.24022651, 0.69314718, 1.0)
"""Taylor's coefficients of two to the power of x, the highest first: enough for float32 between -0.5 and 0.5."""
BIAS, MANTISSA = 127, 23
"""Of float32: what is added to an exponent, and the bits behind it."""


@cache
def on_cpu() -> bool:
    """Whether that is what is computed on."""
    return bool(mx.default_device() == mx.Device(mx.cpu))


def suits(queries: mx.array, keys: object, mask: object, sinks: mx.array | None) -> bool:
    """Whether :func:`attend` takes this and gains: a token a row, in float32, with a mask that is one for all heads."""
    if not (isinstance(keys, mx.array) and on_cpu() and sinks is None):
        return False
    if queries.shape[0] * queries.shape[1] * keys.shape[2] < FEWEST:
        return False
    one = queries.shape[2] == 1 and queries.dtype == keys.dtype == mx.float32
    return one and (mask is None or (isinstance(mask, mx.array) and mask.ndim == 4 and mask.shape[1] == 1))


def as_added(mask: mx.array) -> mx.array:
    """A mask to be added to scores, of one that says which are seen; one that is added already stays."""
    return mx.where(mask, 0.0, LOWEST) if mask.dtype == mx.bool_ else mask


def attend(queries: mx.array, classes: Sequence[tuple[mx.array, mx.array, mx.array | None]], scale: float) -> mx.array:
    """``[rows, heads, 1, head size]`` of ``queries`` alike, whose rows lie in ``classes`` one after the other.

    Each class is its keys and values, ``[rows, key heads, positions, head size]``, and a mask to be added, if any.
    """
    rows, heads, _, _ = queries.shape
    keys = classes[0][0].shape[1]
    folded = (queries * scale).reshape(rows, keys, heads // keys, -1)
    made, sums, row = [], [], 0
    for k, v, mask in classes:
        scores = folded[row : (row := row + k.shape[0])] @ k.swapaxes(-1, -2)
        scores = scores if mask is None else scores + mask
        weights = exponentials(scores - mx.max(scores, axis=-1, keepdims=True))
        made.append(weights @ v)
        sums.append(weights @ mx.ones((weights.shape[-1], 1)))
    if len(classes) == 1:
        return (made[0] / sums[0]).reshape(rows, heads, 1, -1)
    return (mx.concatenate(made) / mx.concatenate(sums)).reshape(rows, heads, 1, -1)


def exponentials(x: mx.array) -> mx.array:
    """Those of float32 values that are not above 0; 0 below -88, and no number of what is none."""
    fractions, exponents = _split()(x)
    result: mx.array = fractions * exponents.view(mx.float32)
    return result


@cache
def _split():  # type: ignore[no-untyped-def]  # noqa: ANN202  what mx.compile returns has no type
    """One compiled function for all shapes, which a view of other bits would not let it be."""

    def split(x: mx.array) -> tuple[mx.array, mx.array]:
        """Two to the power of a fraction, and float32's bits of two to the power of a whole number."""
        wanted = mx.maximum(x * LOG2_E, -BIAS)
        whole = (wanted + (BIAS + 0.5)).astype(mx.int32)
        rest = wanted - (whole - BIAS).astype(mx.float32)
        power = POWERS[0] * rest + POWERS[1]
        for factor in POWERS[2:]:
            power = power * rest + factor
        return power, whole << MANTISSA

    return mx.compile(split, shapeless=True)
