"""What is kept of sequences and found again. Keys hold their tokens' ids, so that a wrong one shows."""

import time
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, RotatingKVCache

from app.engine.ids import pack
from app.engine.mlx.cache.kv import KV, merge
from app.engine.mlx.cache.layers import parts
from app.engine.mlx.cache.prefix import SHORTEST, SHORTEST_ON_CUDA, PrefixCache, PrefixPool
from app.engine.mlx.cache.tree import PIECE, Node, names

WINDOW = 32
PER_TOKEN = 3 * 2 * 2 * 4 * 4
"""Bytes: layers, keys and values, heads, head size, four bytes each."""


def fresh(kind: str = "plain") -> KV:
    layers = {
        "plain": lambda: [KVCache(), CacheList(KVCache(), KVCache())],
        "sliding": lambda: [KVCache(), RotatingKVCache(WINDOW)],
        "recurrent": lambda: [ArraysCache(2)],
        "hybrid": lambda: [CacheList(ArraysCache(1), KVCache()), KVCache()],
    }[kind]()
    return KV(layers, 1, merged=False)


def compute(kv: KV, tokens: list[int]) -> KV:
    """What a model would do with them: keys are the ids, a recurrent state is their sum and how many there were."""
    tokens = list(tokens)
    if tokens:
        for layer in kv.layers:
            _compute(layer, tokens)
    return kv


def _compute(layer: Any, tokens: list[int]) -> None:
    if isinstance(layer, CacheList):
        for part in layer.caches:
            _compute(part, tokens)
    elif isinstance(layer, ArraysCache):
        before = 0.0 if layer[0] is None else layer[0]
        for i in range(len(layer.cache)):
            layer[i] = mx.full((1, 3), float(sum(tokens))) + before
    else:
        keys = mx.broadcast_to(mx.array(tokens, dtype=mx.float32)[None, None, :, None], (1, 2, len(tokens), 4))
        layer.update_and_fetch(keys, -keys)


def held(tokens: list[int] | range, kind: str = "plain") -> KV:
    """In slices, as prompts are computed."""
    kv, tokens = fresh(kind), list(tokens)
    for start in range(0, len(tokens), 24):
        compute(kv, tokens[start : start + 24])
    return kv


def read(kv: KV) -> list[Any]:
    """All that is held, of each layer."""
    found: list[Any] = []
    for layer in kv.layers:
        for part in layer.caches if isinstance(layer, CacheList) else [layer]:
            if isinstance(part, ArraysCache):
                found.append([np.array(it).tolist() for it in part.cache])
            elif isinstance(part, RotatingKVCache):
                ordered = part._temporal_order(part.keys)[..., -WINDOW:, :]
                found.append((part.offset, np.array(ordered)[0, 0, :, 0].tolist()))
            else:
                keys, values = part.keys_and_values()
                found.append((np.array(keys)[0, 1, :, 2].tolist(), np.array(values)[0, 0, :, 0].tolist()))
    return found


def cache_of(kind: str = "plain", limit: int = 1 << 24, shortest: int = SHORTEST) -> tuple[PrefixCache, PrefixPool]:
    pool = PrefixPool(limit)
    return PrefixCache(pool, lambda: fresh(kind), shortest), pool


def found_in(cache: PrefixCache, tokens: bytes) -> tuple[KV, int]:
    found = cache.find(tokens)
    assert found is not None
    return found


def same_as_computed(found: tuple[KV, int] | None, tokens: list[int], kind: str) -> None:
    assert found is not None
    kv, known = found
    expected = read(held(tokens[:known], kind))
    assert read(kv) == expected
    rest = tokens[known : known + 1] or [7]
    assert read(compute(kv, rest)) == read(compute(held(tokens[:known], kind), rest)), "and it can be gone on from"


@pytest.mark.parametrize("shortest", [SHORTEST, SHORTEST_ON_CUDA])
def test_what_is_shorter_than_the_least_worth_sharing_is_neither_kept_nor_found(shortest: int) -> None:
    cache, _ = cache_of(shortest=shortest)
    cache.put(range(shortest - 1), held(range(shortest - 1)))
    assert cache.find(pack(range(2 * shortest))) is None
    cache.put(range(shortest), held(range(shortest)))
    kv, known = found_in(cache, pack(range(2 * shortest)))
    assert (known, kv.positions) == (shortest, shortest)
    assert cache.known(pack([*range(shortest - 1), 9_999, 9_999])) == 0


@pytest.mark.parametrize("tokens", [300, 511, 512, 513, 900])
def test_the_rest_of_a_prompt_is_written_behind_what_is_found_without_a_copy(tokens: int) -> None:
    cache, _ = cache_of()
    said = list(range(tokens))
    cache.keep(pack(said[:280]), held(said[:280]))
    kv, known = found_in(cache, pack(said))
    rooms = [part.keys.shape[2] for part in parts(kv.layers)]
    assert all(tokens <= room < tokens + 256 and room % 256 == 0 for room in rooms)
    compute(kv, said[known:])
    assert [part.keys.shape[2] for part in parts(kv.layers)] == rooms
    assert read(kv) == read(held(said))


def test_the_last_token_of_a_prompt_is_never_part_of_what_is_found() -> None:
    cache, _ = cache_of()
    cache.put(range(400), held(range(400)))
    assert cache.find(pack(range(400)))[1] == 399


def test_many_conversations_over_one_beginning_hold_it_once() -> None:
    """Where it ends within a piece, too: that is split where they part."""
    cache, pool = cache_of()
    begin = list(range(1_000, 3_010))
    for number in range(25):
        tokens = [*begin, *range(5_000 + 100 * number, 5_100 + 100 * number)]
        cache.put(tokens, held(tokens))
    assert pool.nbytes == (len(begin) + 25 * 100) * PER_TOKEN
    same_as_computed(cache.find(pack([*begin, *range(5_300, 5_400), 1])), [*begin, *range(5_300, 5_400), 1], "plain")


def test_a_conversation_that_grows_holds_no_token_twice() -> None:
    cache, pool = cache_of()
    tokens = list(range(3_000))
    for end in (100, 101, 300, 900, 3_000, 500):
        cache.put(tokens[:end], held(tokens[:end]))
    assert pool.nbytes == 3_000 * PER_TOKEN
    assert max(len(entry.ids) for entry in pool.of(cache)) == 4 * PIECE


def test_ends_are_let_go_of_before_what_they_stand_on_and_the_latest_last() -> None:
    cache, pool = cache_of()
    old, new = [*range(600), *range(1_000, 1_600)], [*range(600), *range(2_000, 2_600)]
    for tokens in (old, new):
        cache.put(tokens, held(tokens))
    pool.trim(pool.nbytes * 2 // 3)
    assert cache.known(pack([*new, 1])) == 1_200
    assert cache.known(pack([*old, 1])) == 600
    pool.trim(pool.nbytes // 3)
    assert 0 < cache.known(pack([*new, 1])) <= 600
    pool.trim(0)
    assert (pool.nbytes, cache.known(pack(new))) == (0, 0)


def test_one_model_is_told_nothing_of_anothers_and_lets_go_of_its_own_alone() -> None:
    pool = PrefixPool(1 << 24)
    one, other = (PrefixCache(pool, fresh) for _ in range(2))
    one.put(range(40), held(range(40)))
    assert other.find(pack(range(41))) is None
    other.put(range(60), held(range(60)))
    one.clear()
    assert one.find(pack(range(41))) is None
    assert other.known(pack(range(61))) == 60
    assert pool.nbytes == 60 * PER_TOKEN


@pytest.mark.parametrize("kind", ["sliding", "recurrent", "hybrid"])
def test_states_serve_at_their_positions_and_the_nearest_one_does(kind: str) -> None:
    cache, _ = cache_of(kind)
    tokens = list(range(100, 700))
    kv = fresh(kind)
    for start, end in ((0, 200), (200, 450), (450, 600)):
        compute(kv, tokens[start:end])
        cache.keep(pack(tokens[:end]), kv)
    for wanted, known in (([*tokens, 1], 600), ([*tokens[:599], 1, 2], 450), ([*tokens[:300], 1, 2], 200)):
        found = cache.find(pack(wanted))
        assert found[1] == known
        same_as_computed(found, wanted, kind)
    assert cache.find(pack([*tokens[:199], 1, 2])) is None


def test_a_window_that_has_not_slid_serves_any_beginning() -> None:
    cache, _ = cache_of("sliding")
    cache.put(range(30), held(range(30), "sliding"))
    for wanted in ([*range(20), 900, 901], [*range(20), 800, 801]):
        found = cache.find(pack(wanted))
        assert found[1] == 20
        same_as_computed(found, wanted, "sliding")
    cache.put([*range(20), *range(900, 910)], held([*range(20), *range(900, 910)], "sliding"))
    assert cache.find(pack([*range(20), 700, 701]))[1] == 20, "also where what is known has been split there"


def test_what_one_row_of_several_holds_is_kept() -> None:
    cache, _ = cache_of()
    prompts = [list(range(at, at + size)) for at, size in ((0, 300), (1_000, 120), (5_000, 40))]
    for merged in (merge([held(it) for it in prompts]), merge([held(it) for it in prompts]).arranged([[0], [1, 2]])):
        cache.clear()
        for row, tokens in enumerate(prompts):
            cache.keep(pack(tokens), merged, row)
        for tokens in prompts:
            same_as_computed(cache.find(pack([*tokens, 1])), [*tokens, 1], "plain")


def test_what_is_kept_does_not_change_when_it_is_gone_on_from() -> None:
    for kind in ("plain", "sliding", "hybrid"):
        cache, _ = cache_of(kind)
        tokens = list(range(300))
        cache.put(tokens, held(tokens, kind))
        for more in ([1, 2, 3], [4], list(range(900, 1_000))):
            kv, _ = found_in(cache, pack([*tokens, *more, 5]))
            compute(kv, more)
            mx.eval(kv.arrays)
        same_as_computed(cache.find(pack([*tokens, 1])), [*tokens, 1], kind)


def test_finding_among_ten_thousand_conversations_takes_less_than_a_millisecond() -> None:
    cache, _ = cache_of("recurrent", limit=1 << 30)
    begin = list(range(4_000))
    cache.put(begin, held([1], "recurrent"))
    parent = cache._tree.match(pack(begin)).nodes[-1]
    for number in range(10_000):
        assert parent.held is not None
        cache._tree.add(parent, pack(range(number, number + 30)), parent.held)
    wanted = pack([*begin, *range(5_007, 5_037), 1])
    times = []
    for _ in range(20):
        started = time.perf_counter()
        match = cache._tree.match(wanted)
        times.append(time.perf_counter() - started)
    assert match.tokens == 4_030
    assert sorted(times)[len(times) // 2] < 0.001


def test_names_follow_from_all_tokens_before_and_from_what_computed_them() -> None:
    tokens = list(range(3 * PIECE + 5))
    named = list(names(b"model", pack(tokens)))
    assert len(named) == 3
    edited = list(names(b"model", pack([*tokens[: PIECE + 1], 0, *tokens[PIECE + 2 :]])))
    assert [mine == its for mine, its in zip(named, edited, strict=True)] == [True, False, False]
    assert next(names(b"other", pack(tokens))) != named[0]


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(["plain", "sliding", "recurrent", "hybrid"]), st.integers(4_000, 60_000))
def test_conversations_that_grow_branch_and_are_edited_are_found_as_they_were_computed(
    data: st.DataObject, kind: str, limit: int
) -> None:
    """Never more than the limit, books that are true, and never anything but what would have been computed."""
    cache, pool = cache_of(kind, limit)
    said = [list(range(20))]
    for _ in range(data.draw(st.integers(2, 12))):
        base = data.draw(st.sampled_from(said))
        cut = data.draw(st.integers(0, len(base)))
        first = data.draw(st.integers(0, 3)) * 1_000
        tokens = [*base[:cut], *range(first, first + data.draw(st.integers(1, 320)))]
        found = cache.find(pack([*tokens, 1]))
        assert (found[1] if found else 0) == cache.known(pack([*tokens, 1]))
        kv, known = found or (fresh(kind), 0)
        compute(kv, tokens[known:])
        assert read(kv) == read(held(tokens, kind))
        cache.put(tokens, kv)
        said.append(tokens)
        assert pool.nbytes == sum(pool._entries[entry][1] for entry in pool._entries) <= limit
        if data.draw(st.booleans()):
            pool.trim(pool.nbytes // 2)
    nodes = [entry for entry in pool.of(cache) if isinstance(entry, Node)]
    assert sum(0 if it.held is None else it.held.nbytes for it in nodes) <= pool.nbytes
