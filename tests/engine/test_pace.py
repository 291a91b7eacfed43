"""How much of a prompt is computed between two decode steps."""

import pytest

from app.engine.mlx.prefill.pacing import FIRST_SLICE, LONE_SLICE, SHORTEST_SLICE, Pace, Slice


def measured(pace: Pace, tokens: int, seconds: float) -> None:
    """A slice; where that matters, of a shape that was planned before."""
    piece = Slice(1, 0, tokens)
    pace.prefilled(piece, 1000.0)
    pace.prefilled(piece, seconds)


def test_a_prompt_that_stalls_nobody_is_computed_in_large_slices() -> None:
    assert Pace(512, steady=False).slice(decoding=False) == LONE_SLICE


def test_beside_running_streams_a_slice_takes_a_bounded_time() -> None:
    pace = Pace(512, steady=False)
    measured(pace, 128, 0.1)
    assert pace.slice(decoding=True) == SHORTEST_SLICE, "what a shorter slice takes is not known yet"
    measured(pace, 16, 0.01)
    assert pace.slice(decoding=True) == 64
    slow = Pace(512, steady=False)
    measured(slow, 16, 1.0)
    assert slow.slice(decoding=True) == SHORTEST_SLICE
    fast = Pace(512, steady=False)
    measured(fast, 1000, 0.001)
    assert fast.slice(decoding=True) == 512


def test_where_steps_are_slow_anyway_slices_are_no_shorter_than_they() -> None:
    pace = Pace(512, steady=False)
    pace.decoded(seconds=0.2)
    measured(pace, 16, 0.15)
    assert pace.slice(decoding=True) == 64


def test_a_first_slice_that_built_kernels_does_not_make_slices_small_for_ever() -> None:
    pace = Pace(512, steady=False)
    for size in (256, 128, 64, 32, 16):
        measured(pace, size, 0.1)
    assert pace.slice(decoding=True) == SHORTEST_SLICE
    for _ in range(8):
        measured(pace, pace.slice(decoding=True), 0.005)
    assert pace.slice(decoding=True) == 512


def test_a_machine_that_became_slower_is_noticed() -> None:
    pace = Pace(512, steady=False)
    measured(pace, 512, 0.01)
    for _ in range(200):
        measured(pace, pace.slice(decoding=True), 0.5)
    assert pace.slice(decoding=True) < 512


def test_where_times_are_steady_the_latest_slice_says_how_long_the_next_takes() -> None:
    pace = Pace(512, steady=True)
    measured(pace, 64, 0.005)
    assert pace.slice(decoding=True) == 512
    measured(pace, 512, 0.3)  # deeper in the prompt there is more to attend to
    assert pace.slice(decoding=True) == 64
    measured(pace, 64, 0.02)
    assert pace.slice(decoding=True) == 128


def test_a_slice_that_was_spent_on_planning_says_nothing() -> None:
    pace = Pace(512, steady=False)
    pace.prefilled(Slice(2, 0, 64), 0.5)
    assert pace.slice(decoding=True) == 512, "nothing is known yet"
    pace.prefilled(Slice(2, 0, 64), 0.1)
    assert pace.slice(decoding=True) < 128
    pace.prefilled(Slice(1, 64, 64), 0.01)
    assert pace.slice(decoding=True) < 64, "as many tokens behind others are another shape"
    pace.prefilled(Slice(1, 64, 64), 0.01)
    assert pace.slice(decoding=True) == 128


def test_a_device_that_is_not_full_is_given_larger_slices_four_times_the_known_at_once() -> None:
    pace = Pace(2048, steady=False)
    sizes = []
    measured(pace, 16, 0.03)
    for _ in range(4):
        sizes.append(pace.slice(decoding=True))
        measured(pace, sizes[-1], 0.03 if sizes[-1] < 1024 else 0.06)
    assert sizes == [64, 256, 1024, 256]


@pytest.mark.parametrize(("steady", "shorter", "then"), [(True, 128, LONE_SLICE), (False, SHORTEST_SLICE, 256)])
def test_a_prompt_that_stalls_nobody_is_sliced_too_where_slices_are_slow(steady: bool, shorter: int, then: int) -> None:
    pace = Pace(512, steady=steady)
    measured(pace, 256, 0.6)
    assert pace.slice(decoding=False) == shorter
    measured(pace, shorter, 0.01)
    assert pace.slice(decoding=False) == then


def test_where_times_are_steady_and_none_is_known_the_first_slice_is_no_large_one() -> None:
    assert Pace(512, steady=True).slice(decoding=False) == FIRST_SLICE
