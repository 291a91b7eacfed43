"""Masks on the device and on the host mean the same."""

import mlx.core as mx
import numpy as np
import pytest

from app.engine.mlx.draw import device as draw_device
from app.engine.mlx.draw import step as draw_host
from app.engine.mlx.guide import guidance
from tests.engine.test_sampling import row


@pytest.mark.parametrize("vocabulary", [64, 1000, 4099])
def test_only_guided_rows_change_and_only_where_nothing_may_come(vocabulary: int) -> None:
    random = np.random.default_rng(vocabulary)
    logits = random.normal(size=(5, vocabulary)).astype(np.float32)
    masks = [(i, random.integers(-(2**31), 2**31 - 1, -(-vocabulary // 32), dtype=np.int32)) for i in (1, 4)]
    masked = np.asarray(guidance.on_device(mx.array(logits), masks))
    assert np.array_equal(masked[[0, 2, 3]], logits[[0, 2, 3]])
    for i, mask in masks:
        allowed = guidance.unpacked(mask, vocabulary)
        assert np.array_equal(masked[i][allowed], logits[i][allowed])
        assert np.all(np.isneginf(masked[i][~allowed]))


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("few", [True, False])
def test_what_a_bias_has_banned_is_the_last_resort(few: bool, temperature: int) -> None:
    """All that the mask allows is banned: it is drawn all the same, by both ways to draw."""
    vocabulary = 512
    allowed = [3, 77] if few else range(100, 400)
    bits = np.zeros(vocabulary, dtype=np.uint8)
    bits[list(allowed)] = 1
    mask = np.packbits(bits, bitorder="little").view(np.int32)
    logits = mx.array(np.where(bits, -np.inf, 1).astype(np.float32)[None])
    drawer = row(temperature=temperature)
    assert draw_host.draw(logits, [drawer], {drawer: mask}).item() in allowed
    held = guidance.on_device(logits, [(0, mask)])
    drawn = draw_device.draw(held, [drawer])[0] if temperature else mx.argmax(held, axis=-1)
    assert drawn.item() in allowed
