from functools import partial
from math import inf
from typing import Any, cast

import pytest

from app.registry.residency import Claim, Evict, Fits, Refuse, Resident, Turns, Wait, plan

TURNS = Turns(min_residency=2.0, patience=0.5)
NOW = 100.0


def resident(model: str, weights: int = 100, **more: Any) -> Resident:
    return Resident(model=model, weights=weights, **more)


def load(nbytes: int, model: str = "new") -> Claim:
    return Claim(ticket=0, model=model, nbytes=nbytes)


def ask(claim: Claim, residents: list[Resident], room: int, turns: Turns = TURNS) -> Any:
    return plan(claim, residents, room, now=NOW, turns=turns)


def test_what_fits_is_started() -> None:
    assert ask(load(100), [resident("a")], 200) == Fits()


def test_the_least_recently_used_idle_model_goes() -> None:
    residents = [resident("a", last_used=9.0), resident("b", last_used=3.0), resident("c", last_used=6.0)]
    assert ask(load(100), residents, 300) == Evict(("b",))
    assert ask(load(150), residents, 300) == Evict(("b", "c"))


def test_no_more_go_than_are_needed() -> None:
    residents = [resident("small", 10, last_used=1.0), resident("large", 200, last_used=2.0)]
    assert ask(load(150), residents, 210) == Evict(("large",))


def test_a_leased_model_is_drained_and_never_evicted() -> None:
    assert ask(load(100), [resident("a", leases=1)], 100) == Wait(drain=("a",))


def test_the_longest_turn_is_drained_first() -> None:
    residents = [resident("a", leases=1, since=5.0), resident("b", leases=1, since=4.0)]
    assert ask(load(100), residents, 200) == Wait(drain=("b",))


def test_plain_lru_waits_for_busy_models_without_draining_them() -> None:
    assert ask(load(100), [resident("a", leases=1)], 100, Turns(drains=False)) == Wait(until=inf)


def test_a_turn_lasts_its_time() -> None:
    assert ask(load(100), [resident("a", leases=1, since=99.0)], 100) == Wait(until=101.0)


def test_an_idle_model_stays_a_share_of_its_load_time() -> None:
    fresh = resident("a", since=99.0, last_used=99.9, load_seconds=1.0)
    assert ask(load(100), [fresh], 100) == Wait(until=cast("float", pytest.approx(100.4)))
    assert ask(load(100), [resident("a", since=99.0, last_used=99.4, load_seconds=1.0)], 100) == Evict(("a",))


def test_pinned_models_and_loads_in_progress_stay() -> None:
    residents = [resident("a", pinned=True), resident("b", stage="loading")]
    assert ask(load(100), residents, 200) == Wait()


def test_what_is_leaving_already_is_waited_for() -> None:
    assert ask(load(100), [resident("a", stage="leaving"), resident("b")], 200) == Wait()


def test_what_can_never_fit_is_refused_with_numbers() -> None:
    assert ask(load(300), [resident("a")], 200) == Refuse(needed=300, attainable=200)
    assert ask(load(150), [resident("a", pinned=True)], 200) == Refuse(needed=150, attainable=100)


def test_room_is_made_in_the_systems_memory_where_models_have_one_of_their_own() -> None:
    claim = Claim(ticket=0, model="new", nbytes=10, host=10)
    old, fat = resident("a", 10, host=5, last_used=1.0), resident("b", 10, host=20, last_used=2.0)
    idle = resident("c", 10, host=2, last_used=3.0)
    told = partial(plan, claim, now=NOW, turns=TURNS)
    assert told([old, fat, idle], 1000, host=37) == Fits()
    assert told([old, fat, idle], 1000, host=32) == Evict(("a",))
    assert told([old, fat, idle], 1000, host=17) == Evict(("b",))
    assert told([old, fat, idle], 20, host=12) == Evict(("a", "b"))
    assert told([], 1000, host=9) == Refuse(10, 9, host=True)
    kv = Claim(ticket=0, model="a", nbytes=10, holds=0)
    assert plan(kv, [old, fat, idle], 1000, now=NOW, turns=TURNS, host=1) == Fits()


def test_a_request_can_have_what_its_own_model_leaves() -> None:
    own = resident("a", leases=1)
    claim = Claim(ticket=0, model="a", nbytes=100, holds=0)
    assert ask(claim, [own, resident("b")], 200) == Evict(("b",))
    assert ask(Claim(ticket=0, model="a", nbytes=101, holds=0), [own], 200) == Refuse(101, 100)
    assert ask(Claim(ticket=0, model="a", nbytes=60, holds=50), [own], 200) == Refuse(60, 100)
