import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from app.errors import Conflict, EngineFailed, EngineLost, ModelNotFound, ModelUnusable, QueueFull, Unavailable
from app.registry.budget import NoPrefixCaches
from app.registry.lease import ModelLease
from app.registry.residency import Turns
from app.registry.slot import Slot
from tests.registry.house import House
from tests.support.virtual_time import run


def scenario(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in virtual time."""

    def in_no_time() -> None:
        run(test())

    in_no_time.__name__ = test.__name__
    return in_no_time


@scenario
async def test_twenty_requests_share_one_load() -> None:
    house = House(100, sizes={"a": 100})
    await asyncio.gather(*(house.use("a", 1.0) for _ in range(20)))
    assert house.loader.diary == [("load", "a"), ("loaded", "a")]
    assert house.fetched == ["a"]
    house.check_quiet()


@scenario
async def test_a_hit_waits_neither_for_a_load_nor_for_a_download() -> None:
    house = House(300, sizes={"a": 100, "b": 100, "c": 100}, load_seconds=50.0)
    await house.use("a")
    house.fetch_seconds["c"] = 100.0
    others = [asyncio.create_task(house.use("b")), asyncio.create_task(house.use("c"))]
    await asyncio.sleep(1.0)
    assert await house.use("a") == 0.0
    await asyncio.gather(*others)


@scenario
async def test_loads_that_fit_side_by_side_run_side_by_side() -> None:
    house = House(200, sizes={"a": 100, "b": 100})
    assert list(await asyncio.gather(house.use("a"), house.use("b"))) == [1.0, 1.0]


@scenario
async def test_a_download_neither_holds_memory_nor_blocks_loads() -> None:
    house = House(100, sizes={"a": 100, "b": 100})
    house.fetch_seconds["a"] = 100.0
    slow = asyncio.create_task(house.use("a"))
    await asyncio.sleep(1.0)
    assert await house.use("b") == 1.0
    await slow


@scenario
async def test_the_old_model_is_gone_before_the_new_one_is_loaded() -> None:
    house = House(100, sizes={"a": 100, "b": 100})
    for model in ("a", "b") * 100:
        await house.use(model)
    assert house.memory.peak == 100
    assert house.loader.diary[:4] == [("load", "a"), ("loaded", "a"), ("closed", "a"), ("load", "b")]
    house.check_quiet()


@scenario
async def test_no_engine_is_remembered_once_it_is_gone() -> None:
    house = House(100, sizes={"a": 100, "b": 100})
    await house.use("a")
    engine = weakref.ref(house.loader.engines.pop("a"))
    await house.use("b")
    gc.collect()
    assert engine() is None


@scenario
async def test_two_models_that_cannot_both_fit_take_turns() -> None:
    house = House(100, sizes={"a": 100, "b": 100})

    async def client(model: str) -> list[float]:
        return [await house.use(model, 0.5) for _ in range(10)]

    waits = await asyncio.gather(*(client(model) for model in ("a", "b") for _ in range(20)))
    assert house.loads("a") + house.loads("b") <= 6, "they do not thrash"
    assert max(wait for client in waits for wait in client) < 8.0, "neither starves"
    house.check_quiet()


@scenario
async def test_what_was_loaded_for_somebody_serves_him_before_it_goes() -> None:
    house = House(100, sizes={"a": 100, "b": 100}, turns=Turns(0.0, 0.0), load_seconds=0.0)
    await asyncio.gather(*(house.use(model) for model in "ab" * 5))
    assert house.loads("a") == house.loads("b") == 1


@scenario
async def test_a_busy_model_finishes_what_runs_and_then_makes_room() -> None:
    house = House(100, sizes={"a": 100, "b": 100})
    running = asyncio.create_task(house.use("a", 10.0))
    await asyncio.sleep(5.0)
    other = asyncio.create_task(house.use("b"))
    await asyncio.sleep(0.1)
    late = asyncio.create_task(house.use("a"))
    await asyncio.sleep(0.1)
    assert not late.done(), "who comes after the other model's request queues behind it"
    await running
    assert await other == pytest.approx(11.0 - 5.0 + 1.0)
    assert await late > 6.0
    assert [name for what, name in house.loader.diary if what == "loaded"] == ["a", "b", "a"]


@scenario
async def test_a_load_that_waits_for_a_busy_model_is_expected_before_its_turn() -> None:
    house = House(100, sizes={"a": 100, "b": 100})
    running = asyncio.create_task(house.use("a", 10.0))
    await asyncio.sleep(5.0)
    assert house.loader.expected == 1
    other = asyncio.create_task(house.use("b"))
    await asyncio.sleep(0.1)
    assert house.loader.expected == 2
    assert house.loads("b") == 0
    await asyncio.gather(running, other)


@scenario
async def test_who_leaves_the_queue_reopens_what_was_drained_for_him() -> None:
    house = House(100, sizes={"a": 100, "b": 100})
    running = asyncio.create_task(house.use("a", 10.0))
    await asyncio.sleep(5.0)
    other = asyncio.create_task(house.use("b"))
    await asyncio.sleep(0)
    late = asyncio.create_task(house.use("a"))
    await asyncio.sleep(0)
    assert not late.done()
    other.cancel()
    assert await late == 0.0
    await running
    house.check_quiet()
    assert house.resident == {"a"}


@scenario
async def test_a_failed_load_is_told_to_all_who_waited_and_to_nobody_after() -> None:
    house = House(100, sizes={"a": 100})
    house.loader.failures["a"] = [ModelUnusable("The weights of a are broken."), ValueError("/secret/path")]
    for kind, text in ((ModelUnusable, "broken"), (EngineFailed, "could not be loaded")):
        results = await asyncio.gather(*(house.use("a") for _ in range(5)), return_exceptions=True)
        assert all(isinstance(result, kind) and text in result.message for result in results)
        assert all("/secret" not in result.message for result in results)
        assert len({id(result) for result in results}) == 5, "each has an error of his own"
    assert await house.use("a") == 1.0
    house.check_quiet()


@scenario
async def test_a_failed_fetch_is_told_to_all_and_tried_again() -> None:
    house = House(100, sizes={"a": 100})
    house.fetch_failures["a"] = [ModelNotFound("There is no such repo.")]
    results = await asyncio.gather(*(house.use("a") for _ in range(5)), return_exceptions=True)
    assert all(isinstance(result, ModelNotFound) for result in results)
    assert house.dispatcher.slots == {}, "a name that leads nowhere leaves nothing behind"
    await house.use("a")


@scenario
async def test_a_load_goes_on_for_the_others_when_the_first_one_leaves() -> None:
    house = House(100, sizes={"a": 100})
    first, second = (asyncio.create_task(house.use("a")) for _ in range(2))
    await asyncio.sleep(0.5)
    first.cancel()
    assert await second == 1.0
    assert house.loads("a") == 1


@scenario
async def test_a_load_that_nobody_waits_for_any_more_stays_resident() -> None:
    house = House(100, sizes={"a": 100})
    only = asyncio.create_task(house.use("a"))
    await asyncio.sleep(0.5)
    only.cancel()
    await asyncio.sleep(2.0)
    assert house.resident == {"a"}
    assert await house.use("a") == 0.0


@scenario
async def test_files_that_nobody_waits_for_any_more_are_not_loaded() -> None:
    house = House(100, sizes={"a": 100}, fetch_seconds=10.0)
    only = asyncio.create_task(house.use("a"))
    await asyncio.sleep(5.0)
    only.cancel()
    await asyncio.sleep(10.0)
    assert house.fetched == ["a"]
    assert house.loader.diary == []
    assert house.dispatcher.slots == {}


@scenario
async def test_a_lease_that_comes_while_its_asker_is_cancelled_is_given_back() -> None:
    house = House(100, sizes={"a": 100})
    asker = asyncio.create_task(house.use("a"))
    await asyncio.sleep(0.5)

    def changed(slot: Slot) -> None:
        house.dispatcher._changed(slot)
        asker.cancel()

    house.dispatcher._lifecycle._changed = changed
    with pytest.raises(asyncio.CancelledError):
        await asker
    house.check_quiet()
    assert house.resident == {"a"}


@scenario
async def test_what_is_larger_than_the_budget_is_refused_and_the_others_go_on() -> None:
    house = House(200, sizes={"a": 100, "huge": 1_500_000_000})
    running = asyncio.create_task(house.use("a", 10.0))
    await asyncio.sleep(2.0)
    with pytest.raises(
        ModelUnusable, match=r"huge needs 1\.5 GB of memory and can have 200 bytes of the budget of 200"
    ):
        await house.use("huge")
    assert await house.use("a") == 0.0
    await running


@scenario
async def test_a_model_that_turns_out_larger_waits_for_its_true_size() -> None:
    house = House(200, sizes={"a": 100, "b": 150}, estimates={"a": 100, "b": 80})
    running = asyncio.create_task(house.use("a", 10.0))
    await asyncio.sleep(3.0)
    await asyncio.gather(house.use("b"), running)
    assert house.loader.diary[2:] == [
        *(("load", "b"), ("loaded", "b"), ("closed", "b"), ("closed", "a"), ("load", "b"), ("loaded", "b"))
    ]
    house.check_quiet()


@scenario
async def test_idle_models_go_before_one_that_turns_out_larger_is_loaded_twice() -> None:
    house = House(300, sizes={"a": 100, "b": 150, "c": 100}, estimates={"a": 100, "b": 80, "c": 100})
    for model in "acb":
        await house.use(model)
    assert house.loader.diary[4:] == [("load", "b"), ("loaded", "b"), ("closed", "a")]
    assert house.resident == {"b", "c"}
    house.check_quiet()


@scenario
async def test_a_pinned_model_that_turns_out_larger_goes_where_no_other_can() -> None:
    house = House(200, sizes={"a": 100, "b": 150}, estimates={"a": 100, "b": 80}, pinned=("b",))
    running = asyncio.create_task(house.use("a", 10.0))
    await asyncio.sleep(3.0)
    await asyncio.gather(house.use("b"), running)
    assert house.loads("b") == 2
    house.check_quiet()


@scenario
async def test_models_in_turns_are_loaded_once_each_time_once_their_size_is_known() -> None:
    house = House(200, sizes={"a": 110, "b": 120}, estimates={"a": 80, "b": 80})
    for _ in range(3):
        await house.use("a")
        await house.use("b")
    assert house.loads("a") == house.loads("b") == 3
    assert house.loader.diary[4:8] == [("closed", "a"), ("closed", "b"), ("load", "a"), ("loaded", "a")]
    house.check_quiet()


@scenario
async def test_a_size_is_forgotten_with_the_files_that_it_was_of() -> None:
    house = House(200, sizes={"a": 110, "b": 120}, estimates={"a": 110, "b": 80})
    for model in "aba":
        await house.use(model)
    house.loader.sizes["b"] = house.sizes["b"] = house.estimates["b"] = 90  # its files are others now
    await house.use("b")
    assert house.resident == {"a", "b"}


@scenario
async def test_a_model_that_turns_out_larger_than_the_budget_is_refused() -> None:
    house = House(100, sizes={"a": 150}, estimates={"a": 80})
    with pytest.raises(ModelUnusable, match="a needs 150 bytes"):
        await house.use("a")
    assert house.memory.active() == 0


@pytest.mark.parametrize("grown", range(0, 90, 5))
@pytest.mark.parametrize("waiting", [False, True])
def test_a_process_that_has_grown_is_made_anew_before_anybody_is_refused(grown: int, waiting: bool) -> None:
    async def served() -> None:
        house = House(100, sizes={"a": 60, "b": 60}, allowance=20)
        for _ in range(3):
            others = []
            async with house.lease("a") as lease:
                await lease.admit(20)
                if waiting:
                    for model in "ba":
                        await asyncio.sleep(10.0)  # longer than a model keeps its place
                        others.append(asyncio.create_task(house.use(model, tokens=20)))
                    await asyncio.sleep(1.0)
                house.loader.engines["a"].beside = grown
            if not waiting:
                house.loader.engines["a"].beside = grown
                await house.use("a", tokens=20)
            await asyncio.gather(*others)
            await house.use("b", tokens=20)
        assert house.loads("a") == (3 if grown <= 20 and not waiting else 6)

    run(served())


@scenario
async def test_what_does_not_grow_is_kept_however_little_room_it_leaves() -> None:
    house = House(100, sizes={"a": 95}, allowance=5)
    for _ in range(3):
        await house.use("a")
    assert house.loads("a") == 1


@scenario
async def test_a_full_queue_says_so_and_forgets_whom_it_refused() -> None:
    house = House(100, sizes={"a": 100}, limit=3)
    waiting = [asyncio.create_task(house.use("a")) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull) as refused:
        await house.use("a")
    assert refused.value.retry_after == 2.0
    assert len(house.queue) == 3
    await asyncio.gather(*waiting)
    house.check_quiet()


@scenario
async def test_waiting_has_an_end() -> None:
    house = House(100, sizes={"a": 100, "b": 100}, timeout=5.0)
    running = asyncio.create_task(house.use("a", 20.0))
    await asyncio.sleep(2.0)
    with pytest.raises(Unavailable, match="b waits for its turn") as refused:
        await house.use("b")
    assert refused.value.retry_after == 2.0
    assert await house.use("a") == 0.0
    await running
    house.check_quiet()


@scenario
async def test_a_process_for_which_the_system_has_no_memory_is_refused_with_numbers_of_that() -> None:
    house = House(100, sizes={"a": 10, "b": 10}, host=8, apart={"a": 9, "b": 8})
    with pytest.raises(ModelUnusable, match=r"9 bytes of this machine's own memory, .* can have 8 bytes"):
        await house.use("a")
    await house.use("b")


@scenario
async def test_requests_wait_for_kv_memory_and_get_it_in_order() -> None:
    house = House(200, sizes={"a": 100})
    waits = await asyncio.gather(*(house.use("a", 1.0, tokens=40) for _ in range(6)))
    assert waits == pytest.approx([1.0, 1.0, 2.0, 2.0, 3.0, 3.0])
    house.check_quiet()


@scenario
async def test_kv_memory_comes_from_idle_models() -> None:
    house = House(200, sizes={"a": 100, "b": 100})
    await house.use("b")
    await asyncio.sleep(5.0)
    await house.use("a", tokens=50)
    assert house.resident == {"a"}


@scenario
async def test_kv_memory_that_can_never_be_is_refused_with_numbers() -> None:
    house = House(200, sizes={"a": 100})
    with pytest.raises(ModelUnusable, match="needs 101 bytes of memory and can have 100 bytes of the budget of 200"):
        await house.use("a", tokens=101)
    house.check_quiet()


@scenario
async def test_requests_that_hold_what_the_other_needs_do_not_wait_for_ever() -> None:
    house = House(200, sizes={"a": 80, "b": 80}, timeout=1000.0)
    results = await asyncio.gather(
        house.use("a", 1.0, tokens=100), house.use("b", 1.0, tokens=100), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["Unavailable", "float"]
    assert next(result for result in results if isinstance(result, Unavailable)).retry_after == 1.0
    house.check_quiet()


@scenario
async def test_keep_alive_zero_unloads_after_the_answer() -> None:
    house = House(100, sizes={"a": 100})
    await house.use("a", keep_alive=0.0)
    await asyncio.sleep(0.01)
    assert house.memory.active() == 0
    assert house.dispatcher.slots == {}


@scenario
async def test_keep_alive_counts_from_the_last_use() -> None:
    house = House(100, sizes={"a": 100})
    await house.use("a", keep_alive=10.0)
    await asyncio.sleep(9.0)
    await house.use("a", 5.0, keep_alive=10.0)
    await asyncio.sleep(9.0)
    assert house.resident == {"a"}
    await asyncio.sleep(1.1)
    assert house.memory.active() == 0


@scenario
async def test_the_latest_request_decides_how_long_a_model_stays() -> None:
    house = House(100, sizes={"a": 100})
    await house.use("a", keep_alive=10.0)
    await house.use("a", keep_alive=-1.0)
    await asyncio.sleep(1000.0)
    assert house.resident == {"a"}


@scenario
async def test_pinned_models_stay_and_the_rest_shares_what_is_left() -> None:
    house = House(200, sizes={"a": 100, "b": 100, "c": 100, "d": 150}, pinned=("a",))
    await house.use("a", keep_alive=0.0)
    for model in ("b", "c", "b"):
        await house.use(model)
    assert house.resident == {"a", "b"}
    with pytest.raises(ModelUnusable, match="can have 100 bytes"):
        await house.use("d")


@scenario
async def test_a_model_whose_process_has_ended_is_loaded_anew_and_others_go_on() -> None:
    house = House(200, sizes={"a": 100, "b": 100})
    await house.use("b")
    async with house.lease("a"):
        house.loader.engines["a"].lose()
        waiting = asyncio.ensure_future(house.use("a"))
        await asyncio.sleep(1)
        assert not waiting.done(), "nobody is given an engine that has ended"
    assert await waiting == 2.0
    assert (house.loads("a"), house.loads("b")) == (2, 1)
    house.check_quiet()


@scenario
async def test_an_idle_model_whose_process_ends_is_gone_at_once() -> None:
    house = House(100, sizes={"a": 100})
    await house.use("a")
    house.loader.engines["a"].lose()
    await asyncio.sleep(0.1)
    assert house.resident == set()
    assert house.dispatcher.losses.count("a") == 1


@pytest.mark.parametrize(("apart", "refused"), [(10.0, True), (400.0, False)])
def test_a_model_that_ends_three_times_within_ten_minutes_is_left_alone_for_a_while(
    apart: float, refused: bool
) -> None:
    async def test() -> None:
        house = House(100, sizes={"a": 100})
        for _ in range(3):
            await house.use("a")
            house.loader.engines["a"].lose("it was ended by SIGSEGV")
            await asyncio.sleep(apart)
        if not refused:
            await house.use("a")
            return
        with pytest.raises(Unavailable, match="SIGSEGV") as refusal:
            await house.use("a")
        assert refusal.value.code == "engine_lost"
        assert refusal.value.retry_after is not None
        await asyncio.sleep(refusal.value.retry_after)
        await house.use("a")

    run(test())


@scenario
async def test_a_process_that_ends_while_it_loads_counts_too() -> None:
    house = House(100, sizes={"a": 100})
    house.loader.failures["a"] = [EngineLost("It has ended.") for _ in range(3)]
    for _ in range(3):
        with pytest.raises(EngineLost):
            await house.use("a")
    with pytest.raises(Unavailable, match="not loaded for now"):
        await house.use("a")
    assert house.dispatcher.losses.total == 3


@scenario
async def test_errors_of_requests_end_no_engine() -> None:
    house = House(100, sizes={"a": 100})
    for error in (ValueError("mine"), EngineFailed("A step failed.")):
        with pytest.raises(type(error)):
            async with house.lease("a"):
                raise error
    assert await house.use("a") == 0.0


@scenario
async def test_leaving_a_lease_waits_for_nothing() -> None:
    house = House(100, sizes={"a": 100})
    lease = house.lease("a")
    await lease.__aenter__()
    leaving = lease.__aexit__(None, None, None)
    with pytest.raises(StopIteration):
        leaving.send(None)
    house.check_quiet()


@scenario
async def test_unload_frees_idle_models_and_refuses_busy_ones() -> None:
    house = House(100, sizes={"a": 100})
    async with house.lease("a"):
        with pytest.raises(Conflict, match="in use by 1"):
            await house.dispatcher.unload("a")
    await house.dispatcher.unload("a")
    assert house.memory.active() == 0
    await house.dispatcher.unload("a")


@scenario
async def test_memory_that_no_book_knows_is_waited_for() -> None:
    house = House(100, sizes={"a": 100})
    house.memory.hold(30)
    asyncio.get_running_loop().call_later(5.0, house.memory.free, 30)
    assert 5.0 < await house.use("a") <= 6.5
    assert house.memory.peak == 100


@scenario
async def test_prefix_caches_go_before_models_do() -> None:
    class Caches(NoPrefixCaches):
        held = 50

        def nbytes(self) -> int:
            return self.held

        async def trim(self, nbytes: int) -> None:
            await asyncio.sleep(0.1)
            freed = min(nbytes, self.held)
            self.held -= freed
            house.memory.free(freed)

    caches = Caches()
    house = House(250, sizes={"a": 100, "b": 100}, caches=caches)
    house.memory.hold(50)
    await house.use("a")
    await house.use("b")
    assert caches.held == 50
    await house.use("a", tokens=20)
    assert caches.held == 30
    assert house.resident == {"a", "b"}


@scenario
async def test_close_sends_everybody_away_and_leaves_nothing() -> None:
    house = House(200, sizes={"a": 100, "b": 100, "c": 100})
    await house.use("a")
    held = house.lease("a")
    await held.__aenter__()
    loading = asyncio.create_task(house.use("b"))
    queued = asyncio.create_task(house.use("c"))
    await asyncio.sleep(0.5)
    await house.dispatcher.close()
    for task in (loading, queued):
        with pytest.raises(Unavailable, match="stopping"):
            await task
    assert house.memory.active() == 0
    with pytest.raises(Unavailable, match="stopping"):
        await house.use("a")
    await held.__aexit__(None, None, None)


@scenario
async def test_requests_beyond_the_batch_wait_up_to_the_limit_and_no_more() -> None:
    house = House(1000, sizes={"a": 100}, limit=3, rows=2)
    await house.use("a")
    running = [asyncio.ensure_future(house.use("a", seconds=10)) for _ in range(5)]
    await asyncio.sleep(0.1)
    with pytest.raises(QueueFull) as refusal:
        await house.use("a")
    assert refusal.value.retry_after
    await asyncio.gather(*running)
    await house.use("a")


@scenario
async def test_what_runs_is_not_turned_away_where_the_queue_is_full() -> None:
    house = House(150, sizes={"a": 100, "b": 100}, limit=1)
    async with house.lease("a") as first, house.lease("a") as second:
        await first.admit(40)
        waiting = asyncio.ensure_future(house.use("b"))
        await asyncio.sleep(0.1)
        with pytest.raises(QueueFull):
            await house.use("b")
        more = asyncio.ensure_future(second.admit(30))
        await asyncio.sleep(0.1)
        assert not more.done()
        assert isinstance(first, ModelLease)
        first.end()
        await more
    await waiting
