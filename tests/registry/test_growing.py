"""Rows that run and ask for more wait as long as it takes; where all wait for each other, the youngest go back."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import ModelUnusable
from tests.registry.house import House
from tests.support.virtual_time import VirtualTimeLoop


def run(work: Awaitable[Any]) -> None:
    loop = VirtualTimeLoop()
    try:
        return loop.run_until_complete(asyncio.wait_for(work, 1e5))
    finally:
        loop.close()


def checked(house: House) -> House:
    turn = house.dispatcher._turn

    def checked_turn() -> None:
        turn()
        house.check()

    house.dispatcher._turn = checked_turn  # type: ignore[method-assign]
    return house


def test_two_that_wait_for_each_others_memory_both_come_to_their_ends() -> None:
    async def both() -> None:
        house = checked(House(100, sizes={"a": 20}))
        await asyncio.gather(house.grow("a", [40, 20]), house.grow("a", [40, 20]))
        assert house.put_backs == 1
        house.check_quiet()

    run(both())


def test_what_can_never_fit_is_told_and_nobody_else_is_put_back() -> None:
    async def one() -> None:
        house = checked(House(100, sizes={"a": 20}))
        other = asyncio.ensure_future(house.grow("a", [10, 10]))
        with pytest.raises(ModelUnusable):
            await house.grow("a", [40, 50])
        await other
        assert house.put_backs == 0

    run(one())


def test_rows_that_run_wait_longer_than_the_queue_lets_requests_wait_and_are_in_nobodys_limit() -> None:
    async def long() -> None:
        house = checked(House(100, sizes={"a": 20}, limit=1, timeout=5.0))
        holder = asyncio.ensure_future(house.use("a", seconds=60.0, tokens=50))
        await asyncio.sleep(1.5)
        grown = [asyncio.ensure_future(house.grow("a", [5, 20])) for _ in range(5)]
        await asyncio.gather(holder, *grown)

    run(long())


def test_what_was_put_back_is_not_overtaken_for_ever_by_those_who_come_later() -> None:
    async def stream_of_small_ones() -> None:
        house = checked(House(100, sizes={"a": 20}))
        large = [asyncio.ensure_future(house.grow("a", [38, 30])) for _ in range(2)]
        small = []
        for _ in range(100):
            small.append(asyncio.ensure_future(house.use("a", seconds=1.0, tokens=20)))
            await asyncio.sleep(0.3)
            if all(it.done() for it in large):
                break
        assert all(it.done() for it in large)
        await asyncio.gather(*large, *small)

    run(stream_of_small_ones())


@pytest.mark.parametrize(
    ("large", "small", "seconds", "pause"),
    [
        ([30, 35], [15, 15], 1.0, 0.6),
        ([38, 30], [8, 8, 8], 0.3, 0.3),
        ([38, 30], [5, 15], 1.0, 0.3),
        ([30, 35], [20, 20], 0.3, 0.3),
    ],
)
def test_what_was_put_back_is_not_overtaken_for_ever_by_rows_that_grow(
    large: list[int], small: list[int], seconds: float, pause: float
) -> None:
    async def stream_of_growing_ones() -> None:
        house = checked(House(100, sizes={"a": 20}, timeout=1e6))
        first = [asyncio.ensure_future(house.grow("a", large)) for _ in range(2)]
        others: list[asyncio.Future[float]] = []
        while not all(it.done() for it in first):
            assert len(others) < 60
            others.append(asyncio.ensure_future(house.grow("a", small, seconds)))
            await asyncio.sleep(pause)
        assert house.put_backs
        await asyncio.gather(*first, *others)

    run(stream_of_growing_ones())


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.lists(st.integers(1, 30), min_size=1, max_size=4).filter(lambda parts: sum(parts) <= 60),
            st.floats(0, 3),
            st.floats(0, 3),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_every_mix_that_fits_one_by_one_comes_to_its_end(asked: list[tuple[str, list[int], float, float]]) -> None:
    async def all_of_them() -> None:
        house = checked(House(100, sizes={"a": 20, "b": 20}, timeout=1e6))
        tasks = []
        for model, parts, seconds, pause in asked:
            tasks.append(asyncio.ensure_future(house.grow(model, parts, seconds)))
            await asyncio.sleep(pause)
        await asyncio.gather(*tasks)
        house.check_quiet()

    run(all_of_them())
