"""Where states are kept: at all boundaries, and so densely that an edit of what was said last costs little."""

from hypothesis import given
from hypothesis import strategies as st

from app.engine.mlx.cache.spacing import EVERY, FEW, MANY, NEAR, Spacing

APART = 32
PLACES = st.integers(0, 20_000)


def gaps(known: int, places: list[int]) -> list[int]:
    return [after - before for before, after in zip([known, *places], places, strict=False)]


@given(end=st.integers(1, 20_000), share=st.floats(0, 1), boundaries=st.lists(PLACES, max_size=8), kept=st.booleans())
def test_places_hold_all_boundaries_and_leave_no_gap_too_wide(
    end: int, share: float, boundaries: list[int], kept: bool
) -> None:
    spacing, known = Spacing(APART), int(share * (end - 1))
    if kept:
        spacing.kept(4096, 100 * 8, 4096 * 8)  # a state takes as much as a hundred tokens do
    places = spacing.places(boundaries, known, end)
    assert places == sorted(set(places))
    assert all(known < at <= end for at in places)
    assert {at for at in boundaries if known + APART <= at <= end} <= set(places)
    assert end - places[-1] < APART
    assert all(gap <= EVERY + APART for gap in gaps(known, places))
    if kept:
        late = [(at, gap) for at, gap in zip(places, gaps(known, places), strict=True) if at - gap >= end - EVERY]
        assert all(gap <= NEAR * APART for _, gap in late)


def test_states_that_take_as_much_as_many_tokens_are_kept_as_far_apart() -> None:
    spacing = Spacing(APART)
    spacing.kept(30_000, 3000 * 8, 30_000 * 8)
    assert spacing.places((), 0, 30_000) == [*(27_952 * i // 10 for i in range(1, 10)), 27_952, 30_000]
    assert spacing.places((), 28_000, 30_000) == [30_000]


@given(positions=st.sets(PLACES, min_size=1, max_size=80), states=st.integers(1, 4000), cuts=st.integers(0, 60_000))
def test_the_first_and_the_latest_stay_of_those_that_are_too_many(positions: set[int], states: int, cuts: int) -> None:
    held = sorted(positions)
    going = Spacing.surplus(held, held[-1], states, cuts)
    left = [at for number, at in enumerate(held) if number not in going]
    assert len(set(going)) == len(going)
    assert left[0] == held[0]
    assert left[-FEW + 1 :] == held[-FEW + 1 :]
    assert len(left) <= MANY
    assert len(left) <= FEW or not cuts or len(left) * states <= cuts
