"""Downloads onto disks that know less than others: no links, no locks, no drive that keeps what fsync() gave it."""

import asyncio
import errno
import fcntl
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download

from app import durable
from app.errors import Unavailable
from app.registry.hub import Hub
from app.registry.hub.claim import claimed
from tests.registry.conftest import IMPATIENT, REPO
from tests.support.hub import Faults, LocalHub

WEIGHTS = "model.safetensors"


def refuse(number: int) -> Callable[..., Any]:
    def refusing(*_args: str | int | Path | object, **_named: Any) -> None:
        raise OSError(number, os.strerror(number))

    return refusing


def write_down(target: str | Path, link: Path, *_args: bool, **_named: Any) -> None:
    """What some network disks make of a link: a file that says where it leads."""
    Path(link).write_text(str(target))


LINKS = {
    "links": None,
    "links are not permitted": refuse(errno.EPERM),
    "links are not supported": refuse(errno.ENOTSUP),
    "links are unknown": refuse(errno.ENOSYS),
    "links lead nowhere": write_down,
}
LOCKS = {
    "locks": None,
    "locks are not supported": refuse(errno.ENOTSUP),
    "locks have run out": refuse(errno.ENOLCK),
    "locks are invalid": refuse(errno.EINVAL),
    "locks are unknown": refuse(errno.ENOSYS),
}
DISKS = [(links, "locks") for links in LINKS] + [("links", locks) for locks in LOCKS if locks != "locks"]
DISKS.append(("links are not permitted", "locks are not supported"))  # exFAT on a network


@pytest.fixture(params=DISKS, ids="; ".join)
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The words for what the disk below this test knows."""
    links, locks = request.param
    if LINKS[links] is not None:
        monkeypatch.setattr(os, "symlink", LINKS[links])
    if LOCKS[locks] is not None:
        monkeypatch.setattr(fcntl, "flock", LOCKS[locks])
    return request.param


async def test_a_model_is_fetched_found_and_removed_on_any_disk(
    disk: tuple[str, str], hub: Hub, server: LocalHub, files: dict[str, bytes], tmp_path: Path
) -> None:
    path = await hub.download(REPO).wait()
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert (path / WEIGHTS).is_symlink() == (disk[0] == "links")
    assert await hub.local(REPO) == await hub.local(REPO, server.commits[REPO]) == path
    assert [(it.repo, it.revisions, it.path) for it in await hub.installed()] == [(REPO, ("main",), path)]
    assert await hub.download(REPO, refresh=True).wait() == path
    assert server.count(WEIGHTS) == 1, "what is there is verified, not fetched again"
    left = [it.name for it in (tmp_path / "cache").rglob("*") if "incomplete" in it.name or "probe" in it.name]
    assert left == []
    assert await hub.delete(REPO) >= len(files[WEIGHTS])
    assert list((tmp_path / "cache").iterdir()) == []


async def test_other_tools_find_what_was_fetched(disk: tuple[str, str], hub: Hub, tmp_path: Path) -> None:
    path = await hub.download(REPO).wait()
    assert snapshot_download(REPO, cache_dir=tmp_path / "cache", local_files_only=True) == str(path)
    found = scan_cache_dir(tmp_path / "cache")
    assert [repo.repo_id for repo in found.repos] == [REPO]
    assert found.warnings == []


async def test_a_cut_download_goes_on_where_it_was(
    disk: tuple[str, str], hub: Hub, server: LocalHub, files: dict[str, bytes]
) -> None:
    server.faults[WEIGHTS] = Faults(cut_after=100_000, times=3)
    path = await hub.download(REPO).wait()
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert server.sent[WEIGHTS] == len(files[WEIGHTS])


async def test_what_was_damaged_is_repaired(
    disk: tuple[str, str], hub: Hub, server: LocalHub, files: dict[str, bytes]
) -> None:
    path = await hub.download(REPO).wait()
    os.truncate((path / WEIGHTS).resolve(), 1000)
    assert await hub.local(REPO) is None
    await hub.download(REPO).wait()
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]


async def test_two_downloads_at_once_fetch_each_file_once(
    disk: tuple[str, str], hub: Hub, server: LocalHub, tmp_path: Path
) -> None:
    other = Hub(cache_dir=tmp_path / "cache", endpoint=server.url, policy=IMPATIENT)
    paths = await asyncio.gather(hub.download(REPO).wait(), other.download(REPO, server.commits[REPO]).wait())
    await other.close()
    assert paths[0] == paths[1]
    assert server.count(WEIGHTS) == 1


async def test_the_next_commit_is_a_snapshot_of_its_own(
    disk: tuple[str, str], hub: Hub, server: LocalHub, files: dict[str, bytes]
) -> None:
    first = await hub.download(REPO).wait()
    server.add(REPO, files | {"config.json": b'{"model_type": "llama", "new": 1}'})
    second = await hub.download(REPO, refresh=True).wait()
    assert first != second
    assert (first / "config.json").read_bytes() == files["config.json"]
    assert (second / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert (first / WEIGHTS).samefile(second / WEIGHTS) == (disk[0] == "links")


async def test_two_names_for_the_same_contents_are_both_there(
    disk: tuple[str, str], hub: Hub, server: LocalHub, files: dict[str, bytes]
) -> None:
    server.add(REPO, files | {"generation_config.json": files["config.json"]})
    path = await hub.download(REPO).wait()
    assert (path / "generation_config.json").read_bytes() == (path / "config.json").read_bytes()


async def test_a_disk_that_cannot_be_written_is_found_before_anything_large_is_asked_for(
    hub: Hub, server: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "mkdir", refuse(errno.EROFS))
    with pytest.raises(Unavailable, match="cache cannot be written") as failure:
        await hub.download(REPO).wait()
    assert failure.value.code == "cache_unwritable"
    assert server.count(WEIGHTS) == server.count("config.json") == 0


@pytest.fixture
def named_disk() -> Iterator[Path]:
    """A directory on the disk that ``SWITCHYARD_TEST_DISK`` names, say one with exFAT."""
    disk = os.environ.get("SWITCHYARD_TEST_DISK")
    if not disk:
        pytest.skip("SWITCHYARD_TEST_DISK names no disk to try")
    with tempfile.TemporaryDirectory(dir=disk) as directory:
        yield Path(directory)


async def test_a_real_disk_holds_a_model(named_disk: Path, server: LocalHub, files: dict[str, bytes]) -> None:
    hub = Hub(cache_dir=named_disk, endpoint=server.url, policy=IMPATIENT)
    server.faults[WEIGHTS] = Faults(cut_after=100_000, times=2)
    path = await hub.download(REPO).wait()
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert await hub.local(REPO) == path
    assert await hub.local("ORG/Model") == path
    assert await hub.download(REPO, refresh=True).wait() == path
    assert server.sent[WEIGHTS] == len(files[WEIGHTS])
    assert await hub.delete(REPO) >= len(files[WEIGHTS])
    await hub.close()


class TestClaims:
    """The file that says whose turn it is, where there are no locks."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return tmp_path / "blob.incomplete"

    def owner(self, place: Path, words: str) -> None:
        (place.parent / f"{place.name}.owner").write_text(words)

    async def taken(self, place: Path, *, within: float, stale: float = 60.0) -> bool:
        try:
            async with asyncio.timeout(within), claimed(place, stale=stale):
                return True
        except TimeoutError:
            return False

    async def test_one_at_a_time(self, place: Path) -> None:
        inside, most = 0, 0

        async def work() -> None:
            nonlocal inside, most
            async with claimed(place):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0.01)
                inside -= 1

        await asyncio.gather(*(work() for _ in range(6)))
        assert most == 1
        assert list(place.parent.iterdir()) == []

    async def test_who_lives_is_waited_for_and_who_is_gone_is_not(self, place: Path) -> None:
        gone = subprocess.Popen([sys.executable, "-c", ""])  # noqa: ASYNC220
        gone.wait()
        self.owner(place, f"{socket.gethostname()} {gone.pid} 0")
        assert await self.taken(place, within=2)
        self.owner(place, f"{socket.gethostname()} {os.getpid()} 0")
        assert not await self.taken(place, within=0.4)

    @pytest.mark.parametrize("words", ["elsewhere 1 0", "", "nonsense", f"{socket.gethostname()} x 0"])
    async def test_who_cannot_be_asked_is_waited_for_while_there_are_signs_of_life(
        self, place: Path, words: str
    ) -> None:
        self.owner(place, words)
        assert not await self.taken(place, within=0.4)
        assert await self.taken(place, within=3, stale=0.3)

    async def test_a_sign_of_life_counts_by_the_clock_of_whoever_waits(self, place: Path) -> None:
        self.owner(place, "elsewhere 1 0")
        owner = place.parent / f"{place.name}.owner"
        waiting = asyncio.create_task(self.taken(place, within=5, stale=0.6))
        for age in range(5):
            await asyncio.sleep(0.2)
            os.utime(owner, (age, age))  # a clock that is wrong by decades
        assert not waiting.done()
        assert await waiting


class TestSync:
    """On macOS the drive is told to keep what is published; fsync() alone leaves it in the drive's cache."""

    FULL = 51

    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        calls = []
        replace, fsync = Path.replace, os.fsync
        monkeypatch.setattr(Path, "replace", lambda path, to: (calls.append(("name", to.name)), replace(path, to))[1])
        monkeypatch.setattr(os, "fsync", lambda descriptor: (calls.append(("fsync", descriptor)), fsync(descriptor))[1])
        monkeypatch.setattr(fcntl, "F_FULLFSYNC", self.FULL, raising=False)
        return calls

    @pytest.mark.parametrize(("system", "supported"), [("darwin", True), ("darwin", False), ("linux", True)])
    def test_a_name_is_given_once_the_drive_has_the_contents(
        self, calls: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, system: str, supported: bool
    ) -> None:
        monkeypatch.setattr(sys, "platform", system)
        full = refuse(errno.ENOTSUP) if not supported else lambda *given: calls.append(("full", *given))
        monkeypatch.setattr(fcntl, "fcntl", full)
        durable.write(tmp_path / "refs" / "main", "c" * 40)
        assert (tmp_path / "refs" / "main").read_text() == "c" * 40
        kinds = [kind for kind, *_ in calls]
        assert kinds[:2] == [("full" if system == "darwin" and supported else "fsync"), "name"]
        if "full" in kinds:
            assert calls[0][2] == self.FULL

    async def test_everything_that_a_download_publishes_was_synced(self, calls: list[Any], hub: Hub) -> None:
        path = await hub.download(REPO).wait()
        given = [name for kind, name in calls if kind == "name" and not str(name).startswith(".")]
        names = {it.resolve().name for it in path.iterdir()} | {"main"}
        assert names <= set(given)
        for place, (kind, name) in enumerate(calls):
            if kind == "name" and name in names:
                assert "fsync" in [earlier for earlier, _ in calls[:place]]


@pytest.mark.parametrize("cut", [0, 1, 250_000])
async def test_weights_are_read_again_only_as_far_as_an_earlier_attempt_had_come(
    hub: Hub, server: LocalHub, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    if cut:
        server.faults[WEIGHTS] = Faults(cut_after=cut, times=1)
        server.faults["*"] = Faults()
        with pytest.raises(Unavailable):
            await _given_up(hub, server, cut)
        del server.faults[WEIGHTS]
    read = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *given: (chunk := pread(*given), read.append(len(chunk)))[0])
    path = await hub.download(REPO).wait()
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]
    small = sum(len(files[name]) for name in files if name.endswith(("json", "jinja")))
    assert cut <= sum(read) <= cut + (small if cut else 0)


async def _given_up(hub: Hub, server: LocalHub, cut: int) -> None:
    waiting = asyncio.create_task(hub.download(REPO).wait())
    async with asyncio.timeout(10):
        while server.sent[WEIGHTS] < cut:  # noqa: ASYNC110 - counted by another thread
            await asyncio.sleep(0.005)
    server.faults[WEIGHTS] = Faults(status=502)
    await waiting
