"""What is kept of responses, for whom, for how long, and what goes first."""

import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import ResponseNotFound
from app.settings.problem import SettingsProblem
from app.store.ids import item_id, made_by, place_of, response_id
from app.store.responses import ROW_BYTES, Kept, ResponseStore

ME, YOU = b"me", b"you"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(clock: Clock) -> AsyncIterator[ResponseStore]:
    made = ResponseStore(10 * (ROW_BYTES + 100), 60, clock=clock)
    yield made
    await made.close()


def kept(name: str, previous: str | None = None, size: int = 100) -> Kept:
    return Kept(name, previous, b"[]", b"x" * (size - 2))


async def names(store: ResponseStore, name: str, owner: bytes = ME) -> list[str]:
    return [it.id for it in await store.chain(owner, name)]


async def there(store: ResponseStore, name: str, owner: bytes = ME) -> bool:
    try:
        await store.get(owner, name)
    except ResponseNotFound:
        return False
    return True


async def test_a_response_comes_back_after_those_before_it_as_it_was(store: ResponseStore) -> None:
    assert await store.put(ME, kept("a"))
    assert await store.put(ME, kept("b", "a"))
    assert await store.put(ME, kept("c", "b"))
    assert await store.chain(ME, "c") == [kept("a"), kept("b", "a"), kept("c", "b")]
    assert await store.get(ME, "b") == kept("b", "a")


async def test_nobody_else_sees_it_deletes_it_or_goes_on_after_it(store: ResponseStore) -> None:
    await store.put(ME, kept("a"))
    assert not await there(store, "a", YOU)
    with pytest.raises(ResponseNotFound):
        await store.delete(YOU, "a")
    assert not await store.put(YOU, kept("b", "a"))
    assert await there(store, "a")


async def test_one_that_is_deleted_is_gone_but_those_after_it_go_on(store: ResponseStore) -> None:
    await store.put(ME, kept("a"))
    await store.put(ME, kept("b", "a"))
    await store.delete(ME, "a")
    assert not await there(store, "a")
    assert await names(store, "b") == ["a", "b"]
    with pytest.raises(ResponseNotFound):
        await store.delete(ME, "a")
    await store.delete(ME, "b")
    assert not await there(store, "b")
    assert store._fact("bytes") == 0, "nothing needs either any more"


async def test_what_was_not_used_for_longest_makes_room_and_never_what_others_need(
    store: ResponseStore, clock: Clock
) -> None:
    for name, previous in (("a", None), ("b", "a"), ("c", None), ("d", None)):
        clock.now += 1
        await store.put(ME, kept(name, previous))
    clock.now += 1
    await store.get(ME, "b")
    for number in range(7):
        clock.now += 1
        await store.put(ME, kept(f"new{number}"))
    clock.now += 1
    assert [name for name in "abcd" if await there(store, name)] == ["a", "b", "d"], "and now all three are used"
    clock.now += 1
    await store.get(ME, "d")
    for number in range(8):
        clock.now += 1
        await store.put(ME, kept(f"newer{number}"))
    left = [name for name in "abcd" if await there(store, name)]
    assert left == ["a", "d"], "the end of a conversation goes first"


async def test_what_is_not_used_in_time_is_gone_and_use_prolongs_it(store: ResponseStore, clock: Clock) -> None:
    await store.put(ME, kept("a"))
    await store.put(ME, kept("b", "a"))
    await store.put(ME, kept("c"))
    clock.now += 50
    assert await there(store, "b")
    clock.now += 50
    assert await there(store, "a"), "it is used whenever one after it is"
    assert not await there(store, "c")
    clock.now += 61
    assert not await there(store, "b")
    await store.put(ME, kept("d"))
    assert store._fact("bytes") == 100 + ROW_BYTES


@settings(deadline=None)  # machines are slow at times
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "put", "put", "get", "delete", "wait"]), st.integers(0, 30), st.integers(2, 900)
        ),
        max_size=40,
    )
)
async def test_the_bound_holds_and_no_conversation_loses_its_beginning(steps: list[Any]) -> None:
    clock, limit = Clock(), 3000
    store, parents, number = ResponseStore(limit, 60, clock=clock), {}, 0
    try:
        for step, which, size in steps:
            clock.now += 1
            name = f"r{which}"
            try:
                match step:
                    case "put":
                        previous = name if name in parents else None
                        if await store.put(ME, kept(f"r{number}", previous, size)):
                            parents[f"r{number}"] = previous
                        number += 1
                    case "get":
                        await store.get(ME, name)
                    case "delete":
                        await store.delete(ME, name)
                    case _:
                        clock.now += size / 20
            except ResponseNotFound:
                pass
            assert 0 <= int(store._fact("bytes")) <= limit
            for known in parents:
                if await there(store, known):
                    chain = await names(store, known)
                    assert parents[chain[0]] is None
                    assert [parents[it] for it in chain[1:]] == chain[:-1]
    finally:
        await store.close()


async def test_a_conversation_larger_than_the_store_is_not_kept(store: ResponseStore) -> None:
    await store.put(ME, kept("a", size=3000))
    await store.put(ME, kept("other"))
    assert not await store.put(ME, kept("b", "a", size=3000))
    assert await there(store, "a")
    assert await there(store, "other"), "nothing made room in vain"


async def test_without_bytes_nothing_is_kept_and_the_refusal_says_so() -> None:
    store = ResponseStore(0, 60)
    assert not store.keeps
    assert not await store.put(ME, kept("a"))
    with pytest.raises(ResponseNotFound, match="not kept here"):
        await store.get(ME, "a")
    await store.close()


async def test_a_file_survives_the_service_and_is_shared(tmp_path: Path) -> None:
    file = tmp_path / "responses.db"
    first, second = ResponseStore(1 << 20, 60, file), ResponseStore(1 << 20, 60, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert first.id == second.id
    await first.put(ME, kept("a"))
    await second.put(ME, kept("b", "a"))
    assert await names(first, "b") == ["a", "b"]
    await first.close()
    await second.close()
    third = ResponseStore(1 << 20, 60, file)
    assert await names(third, "b") == ["a", "b"]
    await third.close()


async def test_a_mark_that_was_chosen_begins_every_id_also_in_an_old_file(tmp_path: Path) -> None:
    file = tmp_path / "responses.db"
    plain = ResponseStore(1 << 20, 60, file)
    await plain.put(ME, kept("a"))
    await plain.close()
    marked = ResponseStore(1 << 20, 60, file, mark="0000000a")
    assert marked.new_id().startswith("resp_0000000a")
    assert await names(marked, "a") == ["a"]
    await marked.close()


async def test_what_is_deleted_is_not_left_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "responses.db"
    store = ResponseStore(1 << 20, 60, file)
    await store.put(ME, Kept("a", None, b"[]", b"a great secret"))
    await store.delete(ME, "a")
    await store.close()
    assert b"a great secret" not in b"".join(it.read_bytes() for it in tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"no database at all" * 100, None])
def test_a_file_that_is_no_store_is_said_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "other"
    if content is None:
        file = tmp_path / "missing" / "other"
    else:
        file.write_bytes(content)
    with pytest.raises(SettingsProblem, match=r"response_file: .* is no store of responses"):
        ResponseStore(1 << 20, 60, file)


async def test_who_made_an_unknown_response_is_told() -> None:
    store = ResponseStore(1 << 20, 60)
    with pytest.raises(ResponseNotFound, match="another service"):
        await store.get(ME, response_id("0" * 8))
    for unknown in (response_id(store.id), "resp_1", "", "\x00", "é" * 300):
        with pytest.raises(ResponseNotFound, match="There is no response"):
            await store.get(ME, unknown)
    await store.close()


@settings(deadline=None)  # machines are slow at times
@given(st.integers(0, 999_999), st.booleans())
def test_an_item_says_where_it_is(number: int, of_input: bool) -> None:
    response = response_id("0123abcd")
    place = place_of(item_id("msg", response, number, of_input=of_input))
    assert (place.response, place.number, place.of_input) == (response, number, of_input)
    assert made_by(response) == "0123abcd"


@settings(deadline=None)  # machines are slow at times
@given(st.text(max_size=60))
def test_other_ids_belong_nowhere(text: str) -> None:
    assert place_of(text) is None
    assert made_by(text) is None
