"""What of the prompts was cached: said once, when it is known of all of them, and never counted twice."""

from itertools import chain

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies._internal.random import ArtificialRandom

from app.engine.base import Found, Prefilled, Sequence
from app.generation.events import Cached
from app.generation.meter import Meter
from app.generation.tally import Tally
from app.schemas.sampling import Sampling


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), min_size=1, max_size=5), st.randoms())
def test_what_was_cached_is_told_once_and_counted_once(
    prompts: list[tuple[int, bool]], random: ArtificialRandom
) -> None:
    sequences = tuple(Sequence(prompt=(1,), sampling=Sampling(), max_tokens=0) for _ in prompts)
    tally = Tally(sequences, Meter())
    announced = [[Found(n, cached)] if early else [] for n, (cached, early) in enumerate(prompts)]
    computed = [Prefilled(n, cached) for n, (cached, _) in enumerate(prompts)]
    random.shuffle(announced)
    random.shuffle(computed)
    items: list[Found | Prefilled] = [*chain.from_iterable(announced), *computed]
    told = [tally.found(item) for item in items]
    total = sum(cached for cached, _ in prompts)
    assert [it for it in told if it is not None] == [Cached(total)]
    if all(early for _, early in prompts):
        assert told[len(prompts) - 1] == Cached(total)
    assert tally.usage().prompt_tokens_details.cached_tokens == total
    assert tally.complete


def test_a_prompts_wait_for_its_turn_is_the_queues() -> None:
    meter = Meter()
    tally = Tally((Sequence(prompt=(1,), sampling=Sampling(), max_tokens=1),) * 2, meter)
    tally.found(Prefilled(0, 0, waited=5.0))
    tally.found(Prefilled(1, 0, waited=7.0))
    times = tally.timings(0.0)
    assert times.queue == 5.0
    assert times.prefill == 0.0
    assert times.decode < 1.0
