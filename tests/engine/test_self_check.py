"""What a model is found able to do when it is loaded, and what is spent on it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import mlx.core as mx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.nn.layers.base import Module
from mlx_lm.utils import load_model

from app.engine.mlx.cache.classes import attend_by_class
from app.engine.mlx.cache.padded import PaddedKVCache
from app.engine.mlx.load import self_check
from app.engine.mlx.load.sweep import Sweep
from app.engine.mlx.loaded import ABLE, Abilities
from tests.support.batches import run_steps
from tests.support.tiny import tiny

VOCABULARY = 384


class Faulty:
    """The tiny model with a fault: ``spoil`` is given tokens, caches and logits and returns other logits.

    ``before`` is given tokens and caches before anything is computed.
    """

    def __init__(self, spoil: Callable[..., Any], before: Callable[[mx.array, list[Any]], None] | None = None) -> None:
        self.model, _ = load_model(tiny())
        self.model.set_dtype(mx.float32)
        self.layers = self.model.layers
        self.spoil = spoil
        self.before = before

    def named_modules(self) -> list[tuple[str, Module]]:
        return self.model.named_modules()

    def parameters(self) -> dict[str, dict[str, Any]]:
        return self.model.parameters()

    def __call__(self, tokens: mx.array, cache: list[Any]) -> mx.array:
        if self.before is not None:
            self.before(tokens, cache)
        return self.spoil(tokens, cache, self.model(tokens, cache=cache))


def found(spoil: Callable[..., Any], **given: Any) -> Abilities:
    return run_steps(self_check.checked(Faulty(spoil), VOCABULARY, None, **given))


def swept(model: Any) -> bool:
    """Whether everything is right at the first try."""
    attend_by_class(model)
    return run_steps(Sweep(model, VOCABULARY, None).right(ABLE.mask_axes, ahead=False, classes=True))


@pytest.mark.parametrize(("end", "passes"), [(0.0, 1), (float("inf"), 2)])
def test_the_step_in_a_rectangle_is_left_out_where_there_is_no_time_for_it(end: float, passes: int) -> None:
    seen = []

    def counted(tokens: mx.array, cache: list[Any], logits: mx.array) -> mx.array:
        seen.append(decoding(tokens))
        return logits

    model = Faulty(counted)
    attend_by_class(model)
    assert run_steps(Sweep(model, VOCABULARY, None).right(ABLE.mask_axes, ahead=False, classes=True, end=end))
    assert sum(seen) == passes


def sound(tokens: mx.array, cache: list[Any], logits: mx.array) -> mx.array:
    return logits


def decoding(tokens: mx.array) -> bool:
    """Whether it is a step of several rows."""
    return tokens.shape[0] > 1 and tokens.shape[1] == 1


def test_a_model_that_is_right_is_able_to_do_everything() -> None:
    assert found(sound) == ABLE


def test_rows_that_hear_each_other_do_not_decode_together() -> None:
    def crosstalk(tokens: mx.array, cache: list[Any], logits: mx.array) -> mx.array:
        return logits + 0.5 * mx.mean(logits, axis=0, keepdims=True)

    assert found(crosstalk) == Abilities(group=False, batch=False, empty=False, classes=False)


def test_where_padding_is_seen_prompts_are_computed_apart_and_decode_together() -> None:
    def padded(tokens: mx.array, cache: list[Any], logits: mx.array) -> mx.array:
        """A state of all positions, those of the padding too."""
        if tokens.shape[1] > 1 and tokens.shape[0] > 1:
            cache[0].spoilt = True
        return logits[..., ::-1] if getattr(cache[0], "spoilt", False) else logits

    assert found(padded) == Abilities(group=False)


@pytest.mark.not_on_cuda("tokens are drawn on the device there, so that no graph stands on a buffer")
def test_a_model_that_looks_at_its_tokens_is_given_none_that_are_not_known() -> None:
    def looking(tokens: mx.array, cache: list[Any], logits: mx.array) -> mx.array:
        last = tokens[:, -1].tolist()
        return mx.stack([mx.roll(row, shift, axis=-1) for row, shift in zip(logits, last, strict=True)])

    assert found(looking) == Abilities(ahead=False)


def test_what_raises_in_company_is_not_kept_company() -> None:
    def lonely(tokens: mx.array, cache: list[Any], logits: mx.array) -> mx.array:
        if tokens.shape[0] > 1:
            raise ValueError("one row at a time")
        return logits

    assert found(lonely) == Abilities(group=False, batch=False, empty=False, classes=False)


def test_what_fails_alone_is_raised() -> None:
    def broken(tokens: mx.array, cache: list[Any], logits: mx.array) -> None:
        raise RuntimeError("no kernel")

    with pytest.raises(RuntimeError, match="no kernel"):
        found(broken)


@settings(max_examples=15, deadline=None)
@given(st.floats(1e-7, 1e-3), st.integers(0, 2**31))
def test_rounding_is_no_fault(size: float, seed: int) -> None:
    key = mx.random.key(seed)

    def rounded(tokens: mx.array, cache: list[Any], logits: mx.array) -> mx.array:
        return logits * (1 + size * mx.random.normal(logits.shape, key=key))

    assert found(rounded) == ABLE


@settings(max_examples=15, deadline=None)
@given(st.floats(0.2, 2), st.integers(0, 2**31))
def test_a_fault_of_some_size_in_one_padded_row_is_seen(size: float, seed: int) -> None:
    key = mx.random.key(seed)

    def second(tokens: mx.array, cache: list[Any], logits: mx.array) -> mx.array:
        if tokens.shape[0] == 1:
            return logits
        noise = mx.std(logits[1]) * size * mx.random.normal(logits[1].shape, key=key)
        return mx.concatenate([logits[:1], (logits[1] + noise)[None], logits[2:]])

    assert not found(second).batch


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1), st.integers(0, 3), st.floats(0.5, 2))
def test_a_fault_of_any_row_at_any_step_is_seen(step: int, row: int, size: float) -> None:
    """The steps of the first try: in classes, and in a rectangle behind what was written in them."""
    steps = 0

    def once(tokens: mx.array, cache: list[Any], logits: mx.array) -> mx.array:
        nonlocal steps
        if not decoding(tokens):
            return logits
        steps += 1
        if (steps - 1) % 2 != step:
            return logits
        wrong = logits[row] + mx.std(logits[row]) * size * mx.random.normal(logits[row].shape)
        return mx.stack([wrong if i == row else logits[i] for i in range(len(logits))])

    assert not swept(Faulty(once))


@pytest.mark.parametrize("order", [it for it in permutations(range(4)) if it != (0, 1, 2, 3)])
def test_rows_that_see_the_keys_of_others_are_not_right_together(order: tuple[int, ...]) -> None:
    """Whoever is exchanged with whom, those of one sequence among them."""

    def exchanged(tokens: mx.array, cache: list[Any]) -> None:
        for layer in cache if len(tokens) == 4 else ():
            if isinstance(layer, PaddedKVCache):
                layer.keys, layer.values = layer.keys[mx.array(order)], layer.values[mx.array(order)]

    assert not swept(Faulty(sound, exchanged))


def test_where_a_second_slice_is_wrong_in_company_prompts_are_computed_apart() -> None:
    def beyond(tokens: mx.array, cache: list[Any], logits: mx.array) -> mx.array:
        """It reads behind the end of a slice, where there has been one before."""
        if len(tokens) > 1 and tokens.shape[1] > 1:
            cache[0].spoilt = getattr(cache[0], "spoilt", 0) + 1
        return logits[..., ::-1] if getattr(cache[0], "spoilt", 0) > 1 else logits

    assert found(beyond) == Abilities(group=False)


def test_rows_that_are_wrong_in_classes_are_decoded_in_rectangles() -> None:
    def classed(tokens: mx.array, cache: list[Any], logits: mx.array) -> mx.array:
        return logits if isinstance(cache[0], PaddedKVCache) or len(tokens) == 1 else logits[..., ::-1]

    assert found(classed) == Abilities(classes=False)


@pytest.mark.not_on_cuda("longer prompts are tried there, for what takes time is compiling")
def test_a_sound_model_is_found_sound_in_six_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_check, "TIMES", ())
    model, seen = Faulty(sound), 0
    block = type(model.layers[0])
    forward = block.__call__

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        seen += 1
        return forward(*args, **kwargs)

    monkeypatch.setattr(block, "__call__", counted)
    run_steps(self_check.checked(model, VOCABULARY, None))
    assert seen == 6 * len(model.layers)


def test_what_was_found_is_kept_for_the_next_load(tmp_path: Path) -> None:
    passes = 0

    def counting(tokens: mx.array, cache: list[Any], logits: mx.array) -> mx.array:
        nonlocal passes
        passes += 1
        return logits

    config = b'{"model_type": "llama", "max_position_embeddings": 128}'
    assert found(counting, config=config, cache=tmp_path) == ABLE
    first = passes
    assert found(counting, config=config, cache=tmp_path) == ABLE
    assert passes == first > 0
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(msgspec.json.encode(Abilities(group=False)))
    assert found(counting, config=config, cache=tmp_path) == Abilities(group=False)
    kept.write_bytes(b'{"group": "perhaps"')
    assert found(counting, config=config, cache=tmp_path) == ABLE
    assert found(counting, config=config + b" ", cache=tmp_path) == ABLE
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert found(sound, config=b"{}", cache=tmp_path / "file") == ABLE


@pytest.mark.not_on_cuda("widths of prompts are powers of two there")
def test_no_prompt_is_longer_than_the_model_takes(tmp_path: Path) -> None:
    longest = 0

    def watched(tokens: mx.array, cache: list[Any], logits: mx.array) -> mx.array:
        nonlocal longest
        longest = max(longest, cache[0].size())
        return logits

    config = b'{"n_positions": 100, "text_config": {"max_position_embeddings": 4000}}'
    found(watched, config=config, load_seconds=100, cache=tmp_path)
    assert 70 < longest <= 100
