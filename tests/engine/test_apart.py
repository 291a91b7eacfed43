"""What was computed for one owner spares another nothing: in memory, in prompts that are computed at once, on disk."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.base import Sequence
from app.engine.disk.form import Facts, Tensor
from app.engine.disk.store import DiskStore
from tests.engine.test_conversations import bench_of, model_of, said
from tests.support.batches import GREEDY, HandBatch, Stream

OWNERS = (b"", b"one", b"two")
MODEL = "0" * 32


def ask(batch: HandBatch, prompt: tuple[int, ...], owner: bytes) -> Stream:
    return batch.submit(Sequence(prompt, GREEDY, max_tokens=20, boundaries=(100,), owner=owner))


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen3_next"])
def test_each_owner_finds_what_is_its_own(family: str) -> None:
    batch, prompt = HandBatch(model_of(family), slice_tokens=128), said(1, 300)
    for owner in OWNERS:
        first = ask(batch, prompt, owner)
        batch.finish()
        assert first.prefilled[0].cached_tokens == 0
        again = ask(batch, (*prompt, *first.ids(), 7), owner)
        batch.finish()
        assert again.prefilled[0].cached_tokens == len(prompt) + 19
        first.tokens[0, 0] = first.tokens[0, 0][:8]
        assert bench_of(family).wrong(first, prompt) is None


@settings(max_examples=5, deadline=None)
@given(asked=st.lists(st.tuples(st.sampled_from(OWNERS), st.integers(0, 2)), min_size=2, max_size=6))
def test_prompts_that_are_asked_at_once_share_among_one_owner_alone(asked: list[tuple[bytes, int]]) -> None:
    """Who is the only one of an owner computes all of a prompt, and so does a stranger who comes later."""
    batch, head = HandBatch(model_of("llama"), slice_tokens=64), said(2, 200)
    streams = [ask(batch, (*head, *said(10 + end, 40)), owner) for owner, end in asked]
    batch.finish()
    whose = [owner for owner, _ in asked]
    alone = [stream for stream, owner in zip(streams, whose, strict=True) if whose.count(owner) == 1]
    assert all(stream.prefilled[0].cached_tokens == 0 for stream in alone)
    stranger = ask(batch, (*head, 9), b"a stranger")
    batch.finish()
    assert stranger.prefilled[0].cached_tokens == 0


def test_files_of_one_owner_are_not_found_by_another(tmp_path: Path) -> None:
    def opened(owner: bytes) -> DiskStore:
        store = DiskStore(tmp_path, MODEL, 1 << 20, free=0).apart(owner)
        store.open()
        return store

    stores = {owner: opened(owner) for owner in OWNERS}
    assert len({store.model for store in stores.values()}) == len(OWNERS)
    for owner, store in stores.items():
        facts = Facts(store.model, "keys", "", 0, owner.ljust(8, b"x"))
        assert store.write(facts, [Tensor("U8", (4,), b"abcd")])
        for other in OWNERS:
            assert (opened(other).index.find(facts.name) is not None) == (other == owner)
    assert opened(b"").model == MODEL, "what is nobody's lies where it lay before"


def test_owners_share_the_bound_of_the_disk(tmp_path: Path) -> None:
    for number in range(6):
        store = DiskStore(tmp_path, MODEL, 2000, free=0).apart(b"%d" % number)
        store.open()
        store.write(Facts(store.model, "keys", "", 0, bytes(8)), [Tensor("U8", (600,), bytes(600))])
    assert sum(file.stat().st_size for file in tmp_path.glob("*/*.keys")) <= 2000
