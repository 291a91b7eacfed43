"""Files found by what they follow say what a look at all of them says."""

from collections.abc import Sequence
from itertools import takewhile

from hypothesis import given
from hypothesis import strategies as st

from app.engine.disk.form import Facts, Kind
from app.engine.disk.index import Entry, Index
from app.engine.ids import WIDTH

PARENTS = ("", "a")
KINDS: tuple[Kind, ...] = ("keys", "states")
IDS = st.lists(st.integers(0, 2), max_size=6)


def packed(ids: Sequence[int]) -> bytes:
    return b"".join(each.to_bytes(WIDTH, "little") for each in ids)


def entry(parent: str, kind: Kind, ids: Sequence[int]) -> Entry:
    return Entry(Facts("model", kind, parent, 0, packed(ids)), len(ids) + 1)


def shared(found: Sequence[Entry], ids: bytes) -> int:
    return max(
        (len(list(takewhile(lambda pair: pair[0] == pair[1], zip(it.facts.ids, ids, strict=False)))) for it in found),
        default=-1,
    )


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(PARENTS), st.sampled_from(KINDS), IDS), max_size=40),
    st.sampled_from(PARENTS),
    st.sampled_from(KINDS),
    IDS,
)
def test_an_index_finds_what_a_look_at_all_finds(
    changes: list[tuple[bool, str, Kind, list[int]]], parent: str, kind: Kind, asked: list[int]
) -> None:
    index, there = Index(), dict[str, Entry]()
    for comes, behind_what, of_kind, ids in changes:
        it = entry(behind_what, of_kind, ids)
        if comes:
            index.add(it)
            there[it.facts.name] = it
        else:
            index.forget(it.facts.name)
            there.pop(it.facts.name, None)
    wanted = packed(asked)
    behind = [it for it in there.values() if (it.facts.parent, it.facts.kind) == (parent, kind)]
    near = index.near(parent, kind, wanted)
    assert len(near) <= 2
    assert shared(near, wanted) == shared(behind, wanted)
    assert any(it.facts.ids.startswith(wanted) for it in near) == any(it.facts.ids.startswith(wanted) for it in behind)
    assert index.beginnings(parent, kind, wanted) == sorted(
        (it for it in behind if wanted.startswith(it.facts.ids)), key=lambda it: len(it.facts.ids)
    )
    assert index.nbytes == sum(it.nbytes for it in there.values())
    assert {name: index.find(name) for name in there} == there
