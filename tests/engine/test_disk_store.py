"""Files that hold what was computed: found again as they were written, or not at all."""

import errno
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.disk import folder as module
from app.engine.disk.folder import MOST, alone, bound, clear, kept
from app.engine.disk.form import Facts, Tensor, chained
from app.engine.disk.store import DiskStore

MODEL, OTHER = "0" * 31 + "a", "0" * 31 + "b"
STEPS = ("open", "write", "fsync", "replace", "statvfs", "scandir", "close", "utime")


def facts(number: int = 0, model: str = MODEL, kind: Literal["keys", "states"] = "keys") -> Facts:
    ids = b"".join((number * 1000 + i).to_bytes(4, "little") for i in range(8))
    return Facts(model, kind, chained("", b"root"), 0, ids, more="[0,1]")


def tensors(number: int = 0, size: int = 64) -> list[Tensor]:
    return [Tensor("F32", (size // 4,), bytes([number]) * size), Tensor("U8", (3,), b"abc"), Tensor("BF16", (0,), b"")]


def opened(folder: Path, model: str = MODEL, limit: int = 1 << 20, free: int = 0) -> DiskStore:
    made = DiskStore(folder, model, limit, free=free)
    made.open()
    return made


def found(store: DiskStore, number: int = 0) -> list[Tensor] | None:
    """What a store knows of a file: its tensors, or None."""
    entry = store.index.find(facts(number).name)
    return None if entry is None else store.read(entry)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")


def test_what_is_written_is_found_by_whoever_comes_later(tmp_path: Path) -> None:
    first = opened(tmp_path)
    assert found(first) is None
    assert first.write(facts(), tensors())
    for store in (first, opened(tmp_path)):
        assert found(store) == tensors()
        assert [entry.facts for entry in store.index.near(facts().parent, facts().kind, b"")] == [facts()]
        assert store.index.near("nobody", facts().kind, b"") == []
        assert store.index.nbytes == sum(path.stat().st_size for path in files(tmp_path))
    assert found(opened(tmp_path, OTHER)) is None


def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        opened(tmp_path / "cache").write(facts(), tensors())
    finally:
        os.umask(before)
    modes = {path: path.stat().st_mode & 0o777 for path in (tmp_path / "cache").rglob("*")}
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert set(modes.values()) == {0o700, 0o600}
    assert {path.is_dir() for path, mode in modes.items() if mode == 0o700} == {True}


def test_it_is_safetensors_as_others_read_it(tmp_path: Path) -> None:
    import mlx.core as mx  # noqa: PLC0415

    opened(tmp_path).write(facts(), [Tensor("F32", (2, 2), b"\0\0\x80?" * 4)])
    (path,) = files(tmp_path)
    arrays, metadata = mx.load(str(path), format="safetensors", return_metadata=True)
    assert arrays["0000"].tolist() == [[1, 1], [1, 1]]
    assert set(metadata) == {"check", "facts", "crc32"}


whole = st.sampled_from(["flip", "cut", "zero", "insert", "append", "swap"])


@settings(max_examples=150, deadline=None)
@given(data=st.data(), how=whole)
def test_a_file_that_was_damaged_anywhere_is_a_miss_that_is_counted_and_removed(
    data: st.DataObject, how: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    opened(folder).write(facts(), tensors(7))
    warm = opened(folder)
    (path,) = files(folder)
    raw = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    before = bytes(raw)
    match how:
        case "flip":
            raw[at] ^= data.draw(st.integers(1, 255))
        case "cut":
            del raw[at:]
        case "zero":
            raw[at:] = bytes(len(raw) - at)
        case "insert":
            raw[at:at] = bytes([data.draw(st.integers(0, 255))])
        case "append":
            raw += data.draw(st.binary(min_size=1, max_size=9))
        case "swap":
            other = data.draw(st.integers(0, len(raw) - 1))
            raw[at], raw[other] = raw[other], raw[at]
    path.write_bytes(raw)
    same = bytes(raw) == before
    cold = opened(folder)
    assert (found(cold) == tensors(7)) if same else (found(cold) is None)
    assert cold.counts.faults == (not same)
    if not same:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(raw)
        assert found(warm) is None, "also where its header was read before"
        assert warm.counts.faults == 1
        assert files(folder) == []
        assert warm.index.find(facts().name) is None


@pytest.mark.parametrize("lie", [facts(1), facts(0, OTHER), facts(0, MODEL, "states")])
def test_a_file_under_anothers_name_is_not_believed(tmp_path: Path, lie: Facts) -> None:
    store = opened(tmp_path)
    store.write(facts(), tensors())
    liar = opened(tmp_path, lie.model)
    liar.write(lie, tensors(9))
    path = tmp_path / MODEL / facts().name
    (tmp_path / lie.model / lie.name).replace(path)
    assert found(store) is None
    assert store.counts.faults == 1
    assert not path.exists()
    again = opened(tmp_path)
    assert found(again) is None


def test_temporary_foreign_and_old_files_are_removed_at_the_start_and_nothing_else(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.write(facts(), tensors())
    place = tmp_path / MODEL
    (place / ("." + "f" * 32)).write_bytes(b"half")
    (place / "notes.txt").write_text("foreign")
    (place / ("e" * 32 + ".keys")).write_bytes(b"old")
    (tmp_path / "mine.txt").write_text("somebody's")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / ("e" * 32 + ".keys")).write_text("chapter")
    assert found(opened(tmp_path)) == tensors()
    assert [path.relative_to(tmp_path).parts[0] for path in files(tmp_path)] == [MODEL, "mine.txt", "thesis"]
    assert clear(tmp_path)[0] == 1
    assert [path.relative_to(tmp_path).parts[0] for path in files(tmp_path)] == ["mine.txt", "thesis"]
    assert found(store) is None
    assert store.counts.faults == 0, "what others let go of is no fault"
    assert store.write(facts(1), tensors()) is False or found(store, 1) == tensors()


def test_what_was_not_used_for_longest_makes_room_whosever_it_is(tmp_path: Path) -> None:
    one, other = opened(tmp_path), opened(tmp_path, OTHER)
    for number in range(3):
        one.write(facts(number), tensors(number, 4096))
        other.write(facts(number, OTHER), tensors(number, 4096))
    for age, path in enumerate(files(tmp_path)):
        os.utime(path, (1000 + age, 1000 + age))  # some disks tell times by the hundredth of a second
    one.use([facts(0).name, facts(2).name])
    size = max(it.nbytes for it in kept(tmp_path))
    full = DiskStore(tmp_path, MODEL, 4 * size, free=0)
    full.open()
    assert full.write(facts(9), tensors(9, 4096))
    left = {path.name for path in files(tmp_path)}
    assert facts(9).name in left
    assert {facts(0).name, facts(2).name} <= left
    assert full.counts.evictions == 3
    assert sum(it.nbytes for it in kept(tmp_path)) <= 4 * size
    assert all(found(one, number) == tensors(number, 4096) for number in (0, 2))
    assert not full.write(facts(10), tensors(1, 5 * size)), "larger than all there may be"
    assert facts(9).name in {path.name for path in files(tmp_path)}


def test_what_stands_on_others_goes_first(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for number in range(4):
        store.write(facts(number), tensors(number, 4096))
    store.use([facts(number).name for number in range(4)])
    used = {it.path.name: it.used for it in kept(tmp_path)}
    assert sorted(used, key=lambda name: -used[name]) == [facts(number).name for number in range(4)]


def test_nothing_is_written_where_the_disk_has_no_room_to_spare(tmp_path: Path) -> None:
    store = opened(tmp_path, free=1 << 60)
    assert not store.write(facts(), tensors())
    assert (files(tmp_path), store.counts.faults) == ([], 0)
    assert bound(tmp_path, free=1 << 60) == 0
    assert 0 < bound(tmp_path / "not" / "there", free=0) <= MOST


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_failure_at_any_step_of_a_write_is_no_file_and_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: int
) -> None:
    """The disk is full, or broken, at each call of each kind in turn; what was there before is still read."""
    store = opened(tmp_path)
    store.write(facts(5), tensors(5))
    real, call = getattr(os, step), 0
    for nth in range(1, 12):
        call = 0

        def failing(*given: int | Path | memoryview, nth: int = nth, **named: tuple[int, int]) -> Any:
            nonlocal call
            call += 1
            if call == nth:
                if step == "close":
                    real(*given)
                raise OSError(error, os.strerror(error))
            return real(*given, **named)

        with monkeypatch.context() as patched:
            patched.setattr(os, step, failing)
            store._counted = -10.0
            with suppress(OSError):
                store.write(facts(nth + 20), tensors(nth))
                store.use([facts(5).name])
        for seen in (store, opened(tmp_path)):
            assert found(seen, nth + 20) in (None, tensors(nth))
            assert found(seen, 5) == tensors(5)
        if call < nth:
            break
    assert nth > 1, "it was called"
    assert [path for path in files(tmp_path) if path.name.startswith(".")] == []


@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace", "close"])
def test_a_process_killed_at_any_step_leaves_a_whole_file_or_none(tmp_path: Path, step: str) -> None:
    """kill -9 at the first, second, ... call of each kind: the next start finds what is whole and removes the rest."""
    program = (
        "import os, signal, sys\n"
        "sys.path.insert(0, sys.argv[4])\n"
        "from pathlib import Path\n"
        "from tests.engine.test_disk_store import facts, opened, tensors\n"
        "store = opened(Path(sys.argv[1]))\n"
        "real, left = getattr(os, sys.argv[2]), int(sys.argv[3])\n"
        "def dying(*given, **named):\n"
        "    global left\n"
        "    left -= 1\n"
        "    if not left: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(*given, **named)\n"
        "for nth in range(1, 9):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        left = nth\n"
        "        setattr(os, sys.argv[2], dying)\n"
        "        store.write(facts(nth), tensors(nth, 1 << 16))\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
    )
    root = str(Path(__file__).parents[2])
    subprocess.run([sys.executable, "-c", program, str(tmp_path), step, "1", root], check=True, timeout=60)
    store = opened(tmp_path)
    for nth in range(1, 9):
        assert found(store, nth) in (None, tensors(nth, 1 << 16))
    assert store.counts.faults == 0
    assert [path for path in files(tmp_path) if path.name.startswith(".")] == []
    assert store.write(facts(30), tensors(30)), "and its lock is nobody's"
    assert found(store, 8) == tensors(8, 1 << 16), "who lives to the end writes all"


def test_a_process_killed_between_writes_loses_nothing_that_was_told(tmp_path: Path) -> None:
    program = (
        "import sys\nsys.path.insert(0, sys.argv[2])\nfrom pathlib import Path\n"
        "from tests.engine.test_disk_store import facts, opened, tensors\n"
        "store = opened(Path(sys.argv[1]), limit=1 << 40)\n"
        "for number in range(2000):\n"
        "    store.write(facts(number), tensors(number % 256, 1 << 18))\n"
        "    print(number, flush=True)\n"
    )
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), root], stdout=subprocess.PIPE, text=True
    ) as child:
        said = [int(child.stdout.readline()) for _ in range(3)]
        child.kill()
    store = opened(tmp_path, limit=1 << 40)
    assert all(found(store, number) == tensors(number, 1 << 18) for number in said)
    assert store.counts.faults == 0


def test_two_services_on_one_folder_read_each_others_and_write_each_others_again(tmp_path: Path) -> None:
    one, other = opened(tmp_path), opened(tmp_path)
    one.write(facts(1), tensors(1))
    assert found(other, 1) is None, "it looked before"
    assert other.write(facts(1), tensors(1))
    assert found(other, 1) == found(one, 1) == tensors(1)
    other.drop([facts(1).name])
    assert found(one, 1) is None
    assert (one.counts.faults, other.counts.faults) == (0, 0)


def test_while_another_process_writes_nothing_is_written_and_nothing_waits_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.05)
    one, other = opened(tmp_path), opened(tmp_path)
    with alone(one._folder) as held:
        assert held
        assert not other.write(facts(), tensors())
        (tmp_path / MODEL / ("." + "f" * 32)).write_bytes(b"half")
        opened(tmp_path)
        assert len(files(tmp_path)) == 1, "what another writes is not taken from under its hands"
    assert other.write(facts(), tensors())


@pytest.mark.parametrize("trouble", ["a file", "a link", "unreadable"])
def test_a_folder_that_cannot_be_used_is_a_fault_and_no_more(
    tmp_path: Path, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    if trouble == "a file":
        folder.write_text("in the way")
    elif trouble == "a link":
        folder.symlink_to(tmp_path / "nowhere")
    else:  # root may read everything, so the system's answer is given here
        folder.mkdir()
        monkeypatch.setattr(os, "scandir", _denied)
    store = opened(folder)
    assert store.counts.faults == 1
    assert (found(store), store.index.nbytes) == (None, 0)
    if trouble != "unreadable":
        assert not store.write(facts(), tensors())
    assert clear(folder) == (0, 0)


def test_links_are_neither_read_nor_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    opened(outside).write(facts(), tensors())
    folder = tmp_path / "cache"
    (folder / MODEL).mkdir(parents=True)
    (folder / MODEL / facts().name).symlink_to(outside / MODEL / facts().name)
    assert found(opened(folder)) is None
    assert found(opened(outside)) == tensors()
    (folder / OTHER).symlink_to(outside / MODEL)
    clear(folder)
    assert found(opened(outside)) == tensors()


def _denied(*_: Path) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")
