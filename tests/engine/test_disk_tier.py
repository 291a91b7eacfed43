"""What memory holds comes to lie on disk and is found there by who starts later. Keys are ids, so a wrong one shows."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.disk.store import DiskStore
from app.engine.ids import pack
from app.engine.mlx.cache.disk import DiskTier
from app.engine.mlx.cache.prefix import PrefixCache, PrefixPool
from app.engine.mlx.cache.tree import PIECE
from tests.engine.test_prefix_cache import compute, fresh, held, same_as_computed

KINDS = ("plain", "sliding", "recurrent", "hybrid")
MODEL = "c" * 32


class Memory:
    """A model's prefix cache and its disk tier; what is posted runs when the test says."""

    def __init__(
        self, folder: Path, kind: str = "plain", limit: int = 1 << 24, bound: int = 1 << 30, model: str = MODEL
    ) -> None:
        self.kind, self.busy = kind, False
        self.posted: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.cache = PrefixCache(PrefixPool(limit), lambda: fresh(kind))
        self.store = DiskStore(folder, model, bound, free=0)
        self.later: list[Callable[[], None]] = []
        self.tier = DiskTier(
            self.store,
            self.cache,
            lambda: fresh(kind),
            post=self.posted.put,
            later=lambda _, function: self.later.append(function),
            busy=lambda: self.busy,
        )
        self.wait(lambda: self.tier._open)

    def wait(self, done: Callable[..., Any]) -> None:
        deadline = time.monotonic() + 20
        while not done():
            assert time.monotonic() < deadline
            self.posted.get(timeout=20)()

    def keep(self, *sequences: list[int], ends: tuple[int, ...] = ()) -> Self:
        for tokens in sequences:
            kv, at = fresh(self.kind), 0
            for end in (*ends, len(tokens)):
                compute(kv, tokens[at:end])
                self.cache.keep(pack(tokens[:end]), kv)
                at = end
        return self

    def rest(self) -> None:
        """The model comes to rest and stays so for a moment."""
        self.tier.rest()
        later, self.later = self.later, []
        for function in later:
            function()

    def write(self) -> Self:
        settled = []
        self.tier.settle(lambda: settled.append(True))
        self.wait(lambda: settled)
        return self

    def fetch(self, tokens: list[int]) -> int:
        """How many tokens are known once the disk was asked; they are what would have been computed."""
        packed, done = pack(tokens), []
        if self.tier.wanted(packed):
            self.tier.fetch(packed, lambda: done.append(True))
            self.wait(lambda: done)
        found = self.cache.find(packed)
        if found is None:
            return 0
        same_as_computed(found, tokens, self.kind)
        return found[1]


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Callable[..., Memory]]:
    made = []

    def make(*given: Any, folder: Path = tmp_path / "disk", **named: Any) -> Memory:
        made.append(Memory(folder, *given, **named))
        return made[-1]

    yield make
    for each in made:
        each.tier.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [20, PIECE, 3 * PIECE, 3 * PIECE + 100])
def test_a_sequence_is_found_by_who_starts_later(memory: Callable[..., Memory], kind: str, size: int) -> None:
    tokens = list(range(100, 100 + size))
    memory(kind).keep(tokens).write()
    later = memory(kind)
    wanted = 0 if size < later.cache.worth_keeping else size
    assert later.fetch([*tokens, 1]) == wanted
    assert (later.tier.hits, later.tier.spared) == ((1, size) if wanted else (0, 0))
    assert later.fetch([*tokens, 2]) == wanted
    assert later.tier.hits == (1 if wanted else 0), "now memory holds it"


@pytest.mark.parametrize("kind", KINDS)
def test_a_branch_goes_on_from_the_nearest_place(memory: Callable[..., Memory], kind: str) -> None:
    tokens = list(range(100, 1000))
    memory(kind).keep(tokens, ends=(300, 700)).write()
    for cut, known in ((890, 700), (512, 300), (310, 300)):
        assert memory(kind).fetch([*tokens[:cut], 7, 8]) == (cut if kind == "plain" else known)
    assert memory(kind).fetch([5, *tokens]) == 0


def test_a_shared_beginning_is_on_disk_once_and_a_conversation_that_grows_leaves_no_old_ends(
    memory: Callable[..., Memory],
) -> None:
    system = list(range(1900))
    one = memory().keep(*([*system, *range(5000 + 50 * i, 5050 + 50 * i)] for i in range(8))).write()
    tails = 1900 % PIECE + 50
    ids = [len(it.facts.ids) // 4 for it in one.store.index._entries.values()]
    assert sorted(ids) == sorted([tails] * 8 + [PIECE] * (1900 // PIECE))
    grows = memory(folder=one.store._folder / "other")
    for end in (100, 150, 300, 900):
        grows.keep(list(range(end))).write()
    assert sum(len(it.facts.ids) // 4 for it in grows.store.index._entries.values()) == 900


def test_only_what_memory_lacks_is_read_and_two_that_want_the_same_read_it_once(memory: Callable[..., Memory]) -> None:
    tokens = list(range(3000))
    memory().keep(tokens).write()
    later = memory().keep(tokens[:1000])
    assert later.fetch([*tokens, 1]) == 3000
    assert later.store.counts.reads == 3000 // PIECE + 1 - 1000 // PIECE
    both, done = memory(), []
    for last in (1, 2):
        both.tier.fetch(pack([*tokens, last]), lambda: done.append(True))
    both.wait(lambda: len(done) == 2)
    assert both.store.counts.reads == 3000 // PIECE + 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("held", [PIECE, 2 * PIECE, 700])
def test_what_memory_holds_of_a_prompt_that_is_read_goes_last(
    memory: Callable[..., Memory], kind: str, held: int
) -> None:
    tokens = list(range(100, 1100))
    memory(kind).keep(tokens, ends=(held,)).write()
    one, done = memory(kind).keep(tokens[:held]), list[bool]()
    beginning = one.cache._pool.nbytes
    one.keep(list(range(5000, 5900)))
    one.tier.fetch(pack([*tokens, 1]), lambda: done.append(True))
    one.cache._pool.trim(beginning)  # somebody needs the room before it is read
    one.wait(lambda: done)
    assert one.fetch([*tokens, 1]) == 1000
    assert one.store.counts.reads <= 1000 // PIECE + 2, "nothing was read twice"


def test_nothing_is_written_while_the_model_works_and_the_newest_goes_first(
    memory: Callable[..., Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engine.mlx.cache.ahead.AT_ONCE", 1)
    one = memory()
    old, new = list(range(600)), list(range(5000, 5600))
    one.keep(old, new)
    one.busy = True
    one.tier.rest()
    assert one.posted.empty()
    assert one.store.counts.writes == 0
    one.busy = False
    one.rest()
    one.wait(lambda: one.store.counts.writes == 1)
    assert [it.facts.ids[:4] for it in one.store.index._entries.values()] == [pack(new[:1])]
    one.write()
    assert one.store.counts.writes == 6


def test_who_comes_back_soon_does_not_wait_for_a_disk(memory: Callable[..., Memory]) -> None:
    one = memory().keep(list(range(600)))
    one.tier.rest()
    one.tier.rest()
    assert len(one.later) == 1, "once it has rested for a moment"
    assert one.posted.empty()
    one.busy = True
    one.tier.rest()
    one.rest()
    assert one.posted.empty(), "it has come back"
    one.busy = False
    one.rest()
    one.wait(lambda: one.store.counts.writes == 3)
    one.keep(list(range(5000, 5600))).tier.rest()
    one.write()
    assert one.store.counts.writes == 6, "what has to be settled does not wait"


def test_what_memory_is_about_to_let_go_of_is_written_as_soon_as_the_model_rests(memory: Callable[..., Memory]) -> None:
    one = memory(limit=1 << 18).keep(*(list(range(5000 * i, 5000 * i + 600)) for i in range(6)))
    one.tier.rest()
    assert not one.later
    one.wait(lambda: one.store.counts.writes)


def test_what_memory_is_about_to_let_go_of_is_written_while_the_model_works(
    memory: Callable[..., Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engine.mlx.cache.ahead.BETWEEN", 1)
    one, sequences = memory(limit=1 << 18), [list(range(5000 * i, 5000 * i + 600)) for i in range(1, 7)]
    one.busy = True
    for tokens in sequences:
        one.keep(tokens)
        writes = -1
        while writes < one.store.counts.writes or one.tier._ahead._writing:
            writes = one.store.counts.writes
            one.tier.rest()
            if one.tier._ahead._writing:
                one.posted.get(timeout=20)()
    assert one.cache.known(pack([*sequences[0], 1])) < 600, "memory has let go of it"
    one.busy = False
    one.write()
    for tokens in sequences:
        assert memory().fetch([*tokens, 1]) == 600


def test_taking_what_is_written_leaves_a_working_model_most_of_its_time(
    memory: Callable[..., Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, clock = memory(limit=1 << 18), [100.0]
    monkeypatch.setattr("app.engine.mlx.cache.ahead.time.perf_counter", lambda: clock[0])
    taken = one.tier._ahead._pieces.unwritten

    def slow(*given: Any) -> Any:
        clock[0] += 0.01
        return taken(*given)

    monkeypatch.setattr(one.tier._ahead._pieces, "unwritten", slow)
    one.keep(*(list(range(9000 * i, 9000 * i + 3000)) for i in range(1, 4)))
    one.busy = True
    for _ in range(1000):
        clock[0] += 0.001
        one.tier.rest()
        while one.tier._ahead._writing:
            one.posted.get(timeout=20)()
    assert 3 <= one.store.counts.writes <= 1000 * 0.001 / 0.01 / 20 * 2 + 1


def test_a_read_that_takes_longer_than_computing_is_not_made(memory: Callable[..., Memory]) -> None:
    tokens = list(range(1000))
    memory().keep(tokens).write()
    later = memory()
    later.tier.computed(1000, 1e-6)
    assert not later.tier.wanted(pack([*tokens, 1]))
    later.tier.computed(1000, 1e9)
    assert later.tier.wanted(pack([*tokens, 1]))


def test_nothing_is_read_that_memory_has_no_room_for(memory: Callable[..., Memory]) -> None:
    tokens = list(range(1000))
    memory().keep(tokens).write()
    assert memory(limit=2000).fetch([*tokens, 1]) == 0
    assert memory(limit=0).fetch([*tokens, 1]) == 0


def test_other_models_find_nothing(memory: Callable[..., Memory]) -> None:
    tokens = list(range(1000))
    memory().keep(tokens).write()
    assert memory(model="d" * 32).fetch([*tokens, 1]) == 0
    assert memory("hybrid").fetch([*tokens, 1]) == 0, "nor does one that has other caches, whatever it is called"


@pytest.mark.parametrize("kind", ["plain", "hybrid"])
def test_a_fault_costs_what_lies_behind_it_and_nothing_else(memory: Callable[..., Memory], kind: str) -> None:
    tokens = list(range(1000))
    first = memory(kind).keep(tokens, ends=(300,)).write()
    third = next(it for it in first.store.index._entries.values() if it.facts.start == 512 and it.facts.kind == "keys")
    path = first.store._place / third.facts.name
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    later = memory(kind)
    path.write_bytes(raw)
    assert later.fetch([*tokens, 1]) == (512 if kind == "plain" else 0)
    assert later.store.counts.faults == 1
    assert not path.exists()
    assert later.fetch([*tokens, 1]) == (512 if kind == "plain" else 300), "what is left is found"


def test_a_disk_without_room_is_asked_again_with_the_next_sequence_only(memory: Callable[..., Memory]) -> None:
    one = memory(bound=10)
    one.keep(list(range(1000))).write()
    assert one.store.counts.writes == 0
    assert memory().fetch([*range(1000), 1]) == 0


def test_what_waits_to_be_written_is_bounded_and_the_oldest_goes(memory: Callable[..., Memory]) -> None:
    one = memory()
    for number in range(100):
        one.keep(list(range(1000 * number, 1000 * number + 40)))
    assert len(one.tier._ahead._pending) == 64
    one.write()
    assert one.store.index.find(next(iter(one.store.index._entries))) is not None
    assert memory().fetch([*range(99_000, 99_040), 1]) == 40
    assert memory().fetch([*range(40), 1]) == 0


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(),
    kind=st.sampled_from(KINDS),
    limit=st.integers(5_000, 200_000),
    bound=st.integers(3_000, 300_000),
)
def test_conversations_survive_any_mix_of_rests_evictions_and_restarts(
    data: st.DataObject, kind: str, limit: int, bound: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever is found, in memory or on disk, is what would have been computed."""
    folder = tmp_path_factory.mktemp("disk")
    said, now = [list(range(20))], Memory(folder, kind, limit, bound)
    for _ in range(data.draw(st.integers(2, 8))):
        base = data.draw(st.sampled_from(said))
        first = data.draw(st.integers(0, 3)) * 1_000
        tokens = [*base[: data.draw(st.integers(0, len(base)))], *range(first, first + data.draw(st.integers(1, 600)))]
        now.fetch([*tokens, 1])
        now.cache.put(tokens, held(tokens, kind))
        said.append(tokens)
        for event in data.draw(st.lists(st.sampled_from(["rest", "evict", "restart"]), max_size=3)):
            if event == "rest":
                now.write()
            elif event == "evict":
                now.cache._pool.trim(now.cache._pool.nbytes // 3)
            else:
                now.tier.close()
                now = Memory(folder, kind, limit, bound)
    assert sum(it.nbytes for it in now.store._census.values()) <= bound
    assert now.store.counts.faults == 0
    now.tier.close()
