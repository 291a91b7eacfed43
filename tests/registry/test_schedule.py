from typing import Any

from app.registry.residency import Claim, Resident, Turns
from app.registry.schedule import Schedule, schedule

NOW = 100.0


def resident(model: str, weights: int = 100, **more: Any) -> Resident:
    return Resident(model=model, weights=weights, **more)


def load(ticket: int, model: str, nbytes: int = 100) -> Claim:
    return Claim(ticket=ticket, model=model, nbytes=nbytes)


def request(ticket: int, model: str, nbytes: int, holds: int = 0) -> Claim:
    return Claim(ticket=ticket, model=model, nbytes=nbytes, holds=holds)


def decide(residents: list[Resident], claims: list[Claim], limit: int, **more: Any) -> Schedule:
    return schedule(residents, claims, limit, now=NOW, turns=Turns(), **more)


def names(claims: tuple[Claim, ...]) -> list[str]:
    return [claim.model for claim in claims]


def test_claims_that_fit_start_together_in_the_order_of_their_tickets() -> None:
    decided = decide([], [load(2, "b"), load(1, "a"), load(3, "c")], 200)
    assert names(decided.start) == ["a", "b"]


def test_a_small_claim_does_not_take_what_an_earlier_large_one_waits_for() -> None:
    decided = decide([resident("x", 100, leases=1)], [load(1, "large", 150), load(2, "small", 60)], 200)
    assert decided.start == ()
    assert decided.drain == {"x"}


def test_a_small_claim_goes_ahead_where_it_delays_nobody() -> None:
    decided = decide([resident("x", 100, leases=1)], [load(1, "large", 110), load(2, "small", 90)], 200)
    assert names(decided.start) == ["small"]


def test_two_claims_drain_two_models() -> None:
    residents = [resident("x", leases=1, since=1.0), resident("y", leases=1, since=2.0)]
    assert decide(residents, [load(1, "a"), load(2, "b")], 200).drain == {"x", "y"}


def test_a_request_on_a_drained_model_goes_before_the_load_that_waits_for_it() -> None:
    decided = decide([resident("x", 100, leases=1)], [load(1, "a"), request(2, "x", 20)], 150)
    assert names(decided.start) == ["x"]


def test_a_request_on_a_pinned_model_waits_behind_an_earlier_load() -> None:
    residents = [resident("p", 50, pinned=True, leases=1), resident("x", 100, leases=1)]
    decided = decide(residents, [load(1, "a", 140), request(2, "p", 60)], 240)
    assert decided.start == ()
    assert names(decide(residents, [request(2, "p", 60)], 240).start) == ["p"]


def test_requests_that_wait_for_each_other_are_untied_by_the_youngest() -> None:
    residents = [resident("a", 80, leases=1), resident("b", 80, leases=1)]
    decided = decide(residents, [request(1, "a", 100), request(2, "b", 100)], 200)
    assert decided.start == ()
    assert decided.yields == request(2, "b", 100)


def test_a_request_that_can_go_on_breaks_the_tie_by_itself() -> None:
    residents = [resident("a", 80, leases=1), resident("b", 80, leases=1)]
    decided = decide(residents, [request(1, "a", 100), request(2, "b", 30)], 200)
    assert names(decided.start) == ["b"]
    assert decided.yields is None


def test_requests_that_hold_nothing_hide_no_deadlock() -> None:
    residents = [
        resident("p", 15, pinned=True, leases=1),
        resident("a", 10, leases=1),
        resident("b", 30, leases=1),
    ]
    claims = [load(1, "large", 70), request(2, "p", 21), request(3, "b", 46), request(4, "a", 59)]
    assert decide(residents, claims, 100).yields == request(4, "a", 59)


def test_stray_memory_postpones_and_refuses_nobody() -> None:
    decided = decide([], [load(1, "a", 100)], 100, unaccounted=10)
    assert decided.start == ()
    assert decided.refuse == ()


def test_the_next_moment_to_ask_is_when_the_first_turn_ends() -> None:
    residents = [resident("x", leases=1, since=99.5), resident("y", leases=1, since=99.0)]
    assert decide(residents, [load(1, "a")], 200).until == 101.0
