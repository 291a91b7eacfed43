"""A model's first grammar has its process grow by a tokenizer: memory is reserved for it before, and booked after."""

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.grammar import Grammar
from app.errors import InvalidRequest, ModelUnusable, Unavailable
from tests.registry.house import House
from tests.registry.test_growing import checked, run

GRAMMAR, REFUSED = Grammar("regex", "[0-9]+"), Grammar("regex", "refused", param="regex")


async def ask(house: House, model: str, needs: int, seconds: float = 0.1, grammar: Grammar = GRAMMAR) -> int:
    """Ask with a grammar; bytes that are reserved for the model while its own is made and after it."""
    async with house.lease(model) as lease:
        engine = house.loader.engines[model]
        if not engine.prepared:
            engine.first_grammar, engine.step_seconds = needs, 0.05
        await lease.prepare(grammar)
        assert engine.beside == needs
        await lease.admit(5)
        await asyncio.sleep(seconds)
        return house.dispatcher.slots[model].kv


def test_an_idle_model_makes_room_before_anything_is_made() -> None:
    async def switch() -> None:
        house = checked(House(100, sizes={"a": 40, "b": 40}))
        await house.use("b")
        assert await ask(house, "a", 30) == 5
        assert house.resident == {"a"}
        assert house.dispatcher.slots["a"].booked == 40 + 30
        house.check_quiet()

    run(switch())


def test_many_at_once_reserve_it_once() -> None:
    async def burst() -> None:
        house = checked(House(100, sizes={"a": 40}))
        await asyncio.gather(*(ask(house, "a", 40) for _ in range(4)))
        assert house.dispatcher.slots["a"].booked == 80

    run(burst())


def test_who_holds_memory_is_waited_for() -> None:
    async def wait() -> None:
        house = checked(House(100, sizes={"a": 40}))
        other = asyncio.ensure_future(house.use("a", seconds=20.0, tokens=40))
        await asyncio.sleep(2.0)
        asked = asyncio.get_running_loop().time()
        await ask(house, "a", 40)
        assert asyncio.get_running_loop().time() - asked > 15.0
        await other

    run(wait())


def test_what_never_fits_is_refused_and_other_requests_are_not() -> None:
    async def refuse() -> None:
        house = checked(House(100, sizes={"a": 40}))
        with pytest.raises(ModelUnusable, match="hold answers to a grammar") as refusal:
            await ask(house, "a", 70)
        assert refusal.value.code == "memory_budget_exceeded"
        await house.use("a", tokens=50)
        house.check_quiet()

    run(refuse())


def test_a_grammar_that_is_wrong_gives_back_what_was_reserved() -> None:
    async def wrong() -> None:
        house = checked(House(100, sizes={"a": 40}))
        with pytest.raises(InvalidRequest):
            await ask(house, "a", 30, grammar=REFUSED)
        house.check_quiet()

    run(wrong())


def test_where_models_have_a_memory_of_their_own_it_is_the_systems_that_makes_room() -> None:
    async def apart() -> None:
        house = checked(House(200, sizes={"a": 40, "b": 40}, host=100, apart={"a": 40, "b": 40}))
        await house.use("b")
        async with house.lease("a") as lease:
            engine = house.loader.engines["a"]
            engine.first_grammar = 30
            await lease.prepare(GRAMMAR)
            assert house.resident == {"a"}
            assert house.dispatcher.slots["a"].kv == 0
        async with house.lease("b") as lease:
            house.loader.engines["b"].first_grammar = 70
            with pytest.raises(ModelUnusable, match="own memory"):
                await lease.prepare(GRAMMAR)

    run(apart())


@settings(max_examples=60, deadline=None)
@given(
    st.integers(30, 60),
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 3), st.floats(0, 2)), min_size=1, max_size=12),
)
def test_no_mix_of_first_grammars_holds_more_than_the_budget(needs: int, asked: list[tuple[str, float, float]]) -> None:
    async def mix() -> None:
        house = checked(House(100, sizes={"a": 30, "b": 30, "c": 30}))
        most = 0

        def grown() -> int:
            engines = [slot.engine for slot in house.dispatcher.slots.values() if slot.engine is not None]
            return sum(engine.nbytes + engine.books().beside for engine in engines)

        async def one(model: str, after: float, seconds: float) -> None:
            nonlocal most
            await asyncio.sleep(after)
            with suppress(Unavailable):  # two models that are used leave no room for either's
                await ask(house, model, needs, seconds)
            most = max(most, grown())

        await asyncio.gather(*(one(*each) for each in asked))
        assert most <= 100
        house.check_quiet()

    run(mix())
