"""How much of a prompt is computed between two decode steps."""

import pytest

from app.engine.mlx.prefill.slice_size import FIRST_SLICE, LONE_SLICE, SHORTEST_SLICE, SLICE_SECONDS, Slice, SliceSize


def measured(size: SliceSize, tokens: int, seconds: float) -> None:
    """A slice; where that matters, of a shape that was planned before."""
    piece = Slice(1, 0, tokens)
    size.prefilled(piece, 1000.0)
    size.prefilled(piece, seconds)


def test_a_prompt_that_stalls_nobody_is_computed_in_large_slices() -> None:
    assert SliceSize(512, steady=False).tokens(decoding=False) == LONE_SLICE


def test_beside_running_streams_a_slice_takes_a_bounded_time() -> None:
    size = SliceSize(512, steady=False)
    measured(size, 128, 0.1)
    assert size.tokens(decoding=True) == SHORTEST_SLICE, "what a shorter slice takes is not known yet"
    measured(size, 16, 0.01)
    assert size.tokens(decoding=True) == 64
    slow = SliceSize(512, steady=False)
    measured(slow, 16, 1.0)
    assert slow.tokens(decoding=True) == SHORTEST_SLICE
    fast = SliceSize(512, steady=False)
    measured(fast, 1000, 0.001)
    assert fast.tokens(decoding=True) == 512


def test_where_steps_are_slow_anyway_slices_are_no_shorter_than_they() -> None:
    size = SliceSize(512, steady=False)
    size.decoded(seconds=0.2)
    measured(size, 16, 0.15)
    assert size.tokens(decoding=True) == 64


def test_a_first_slice_that_built_kernels_does_not_make_slices_small_for_ever() -> None:
    size = SliceSize(512, steady=False)
    for tokens in (256, 128, 64, 32, 16):
        measured(size, tokens, 0.1)
    assert size.tokens(decoding=True) == SHORTEST_SLICE
    for _ in range(8):
        measured(size, size.tokens(decoding=True), 0.005)
    assert size.tokens(decoding=True) == 512


def test_a_machine_that_became_slower_is_noticed() -> None:
    size = SliceSize(512, steady=False)
    measured(size, 512, 0.01)
    for _ in range(200):
        measured(size, size.tokens(decoding=True), 0.5)
    assert size.tokens(decoding=True) < 512


def test_where_times_are_steady_the_latest_slice_says_how_long_the_next_takes() -> None:
    size = SliceSize(512, steady=True)
    measured(size, 64, 0.005)
    assert size.tokens(decoding=True) == 512
    measured(size, 512, 0.3)  # deeper in the prompt there is more to attend to
    assert size.tokens(decoding=True) == 64
    measured(size, 64, 0.02)
    assert size.tokens(decoding=True) == 128


@pytest.mark.parametrize("fixed", [0.001, 0.004, 0.01, 0.02])
@pytest.mark.parametrize("token", [1e-5, 5e-5, 2e-4, 1e-3])
def test_what_any_pass_takes_does_not_make_slices_of_few_tokens_small(fixed: float, token: float) -> None:
    size = SliceSize(512, steady=True)
    for _ in range(5):
        size.decoded(fixed + token)
    for tokens in (40, *[size.tokens(decoding=True)] * 5):
        measured(size, tokens, fixed + token * tokens)
        took = fixed + token * size.tokens(decoding=True)
        assert took <= max(SLICE_SECONDS, fixed + token * SHORTEST_SLICE), "a slice is never longer than it may be"
    best = max((it for it in (16, 32, 64, 128, 256, 512) if fixed + token * it <= SLICE_SECONDS), default=16)
    assert size.tokens(decoding=True) >= best / 2


def test_a_slice_that_was_spent_on_planning_says_nothing() -> None:
    size = SliceSize(512, steady=False)
    size.prefilled(Slice(2, 0, 64), 0.5)
    assert size.tokens(decoding=True) == 512, "nothing is known yet"
    size.prefilled(Slice(2, 0, 64), 0.1)
    assert size.tokens(decoding=True) < 128
    size.prefilled(Slice(1, 64, 64), 0.01)
    assert size.tokens(decoding=True) < 64, "as many tokens behind others are another shape"
    size.prefilled(Slice(1, 64, 64), 0.01)
    assert size.tokens(decoding=True) == 128


def test_a_device_that_is_not_full_is_given_larger_slices_four_times_the_known_at_once() -> None:
    size = SliceSize(2048, steady=False)
    sizes = []
    measured(size, 16, 0.03)
    for _ in range(4):
        sizes.append(size.tokens(decoding=True))
        measured(size, sizes[-1], 0.03 if sizes[-1] < 1024 else 0.06)
    assert sizes == [64, 256, 1024, 256]


@pytest.mark.parametrize(("steady", "shorter", "then"), [(True, 128, LONE_SLICE), (False, SHORTEST_SLICE, 256)])
def test_a_prompt_that_stalls_nobody_is_sliced_too_where_slices_are_slow(steady: bool, shorter: int, then: int) -> None:
    size = SliceSize(512, steady=steady)
    measured(size, 256, 0.6)
    assert size.tokens(decoding=False) == shorter
    measured(size, shorter, 0.01)
    assert size.tokens(decoding=False) == then


def test_where_times_are_steady_and_none_is_known_the_first_slice_is_no_large_one() -> None:
    assert SliceSize(512, steady=True).tokens(decoding=False) == FIRST_SLICE
