"""How much of a prompt is computed between two decode steps."""

from app.engine.mlx.pace import LONE_SLICE, SHORTEST_SLICE, Pace


def test_a_prompt_that_stalls_nobody_is_computed_in_large_slices():
    assert Pace(512).slice(decoding=False) == LONE_SLICE


def test_beside_running_streams_a_slice_takes_a_bounded_time():
    pace = Pace(512)
    pace.prefilled(100, seconds=0.1)
    assert pace.slice(decoding=True) == 50
    pace.prefilled(1000, seconds=0.001)
    assert pace.slice(decoding=True) == 512
    pace.prefilled(1, seconds=1.0)
    assert pace.slice(decoding=True) == SHORTEST_SLICE


def test_where_steps_are_slow_anyway_slices_are_no_shorter_than_they():
    pace = Pace(512)
    pace.decoded(seconds=0.2)
    pace.prefilled(100, seconds=1.0)
    assert pace.slice(decoding=True) == 30
