"""How much of a prompt is computed between two decode steps."""

from app.engine.mlx.pace import LONE_SLICE, SHORTEST_SLICE, Pace


def test_a_prompt_that_stalls_nobody_is_computed_in_large_slices():
    assert Pace(512, steady=False).slice(decoding=False) == LONE_SLICE


def test_beside_running_streams_a_slice_takes_a_bounded_time():
    pace = Pace(512, steady=False)
    pace.prefilled(128, seconds=0.1)
    assert pace.slice(decoding=True) == SHORTEST_SLICE, "what a shorter slice takes is not known yet"
    pace.prefilled(16, seconds=0.01)
    assert pace.slice(decoding=True) == 64
    slow = Pace(512, steady=False)
    slow.prefilled(16, seconds=1.0)
    assert slow.slice(decoding=True) == SHORTEST_SLICE
    fast = Pace(512, steady=False)
    fast.prefilled(1000, seconds=0.001)
    assert fast.slice(decoding=True) == 512


def test_where_steps_are_slow_anyway_slices_are_no_shorter_than_they():
    pace = Pace(512, steady=False)
    pace.decoded(seconds=0.2)
    pace.prefilled(16, seconds=0.15)
    assert pace.slice(decoding=True) == 32


def test_a_first_slice_that_built_kernels_does_not_make_slices_small_for_ever():
    pace = Pace(512, steady=False)
    for size in (256, 128, 64, 32, 16):
        pace.prefilled(size, seconds=0.1)
    assert pace.slice(decoding=True) == SHORTEST_SLICE
    for _ in range(8):
        pace.prefilled(pace.slice(decoding=True), seconds=0.005)
    assert pace.slice(decoding=True) == 512


def test_a_machine_that_became_slower_is_noticed():
    pace = Pace(512, steady=False)
    pace.prefilled(512, seconds=0.01)
    for _ in range(200):
        pace.prefilled(pace.slice(decoding=True), seconds=0.5)
    assert pace.slice(decoding=True) < 512


def test_where_times_are_steady_the_latest_slice_says_how_long_the_next_takes():
    pace = Pace(512, steady=True)
    pace.prefilled(64, seconds=0.005)
    assert pace.slice(decoding=True) == 512
    pace.prefilled(512, seconds=0.3)  # deeper in the prompt there is more to attend to
    assert pace.slice(decoding=True) == 64
    pace.prefilled(64, seconds=0.02)
    assert pace.slice(decoding=True) == 128
