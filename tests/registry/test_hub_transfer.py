"""Transfers that go wrong: cut, reset, stalled, spoiled, killed, out of disk."""

import asyncio
import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from app.errors import ModelUnusable, Unavailable
from app.registry.hub import Hub
from tests.registry.conftest import IMPATIENT, REPO
from tests.support.hub import Faults, LocalHub

WEIGHTS = "model.safetensors"


async def sent(server: LocalHub, count: int) -> None:
    async with asyncio.timeout(10):
        while server.sent[WEIGHTS] < count:  # noqa: ASYNC110 - counted by another thread
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("fault", ["cut_after", "reset_after", "stall_after"])
async def test_a_transfer_that_breaks_three_times_goes_on_where_it_was(
    hub: Hub, server: LocalHub, files: dict[str, bytes], fault: str
) -> None:
    server.faults[WEIGHTS] = msgspec.convert({fault: 100_000, "times": 3}, Faults)
    path = await hub.download(REPO).wait()
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert server.count(WEIGHTS) == 4
    assert server.sent[WEIGHTS] == len(files[WEIGHTS])


async def test_a_transfer_that_gains_nothing_is_given_up_and_taken_up_by_the_next_download(
    hub: Hub, server: LocalHub, files: dict[str, bytes]
) -> None:
    server.faults[WEIGHTS] = Faults(cut_after=300_000, times=1)
    first = asyncio.create_task(hub.download(REPO).wait())
    await sent(server, 300_000)
    server.faults[WEIGHTS] = Faults(status=502)
    with pytest.raises(Unavailable, match="status 502"):
        await first
    del server.faults[WEIGHTS]
    path = await hub.download(REPO).wait()
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert server.sent[WEIGHTS] == len(files[WEIGHTS])


async def test_a_hub_without_ranges_is_served_from_the_start(
    hub: Hub, server: LocalHub, files: dict[str, bytes]
) -> None:
    server.faults[WEIGHTS] = Faults(cut_after=300_000, times=1)
    server.faults["*"] = Faults(ignore_range=True)
    path = await hub.download(REPO).wait()
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]


async def test_a_spoiled_file_is_fetched_again_once(hub: Hub, server: LocalHub, files: dict[str, bytes]) -> None:
    server.faults[WEIGHTS] = Faults(spoil=True, times=1)
    server.faults["config.json"] = Faults(spoil=True, times=1)
    path = await hub.download(REPO).wait()
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert (path / "config.json").read_bytes() == files["config.json"]
    assert server.count(WEIGHTS) == server.count("config.json") == 2


async def test_a_file_that_stays_spoiled_is_named(hub: Hub, server: LocalHub, tmp_path: Path) -> None:
    server.faults[WEIGHTS] = Faults(spoil=True)
    with pytest.raises(ModelUnusable, match=r"model\.safetensors of org/model arrived damaged twice"):
        await hub.download(REPO).wait()
    assert server.count(WEIGHTS) == 2
    assert await hub.local(REPO) is None
    assert not list(tmp_path.rglob("*.incomplete"))


@pytest.mark.parametrize("difference", [-1000, 1000])
async def test_a_size_that_is_not_what_the_hub_promised(
    hub: Hub, server: LocalHub, files: dict[str, bytes], difference: int
) -> None:
    server.faults[WEIGHTS] = Faults(promise=len(files[WEIGHTS]) + difference)
    with pytest.raises((ModelUnusable, Unavailable), match=r"model\.safetensors of org/model"):
        await hub.download(REPO).wait()
    assert await hub.local(REPO) is None


async def test_weights_that_are_broken_on_the_hub_itself_are_named(
    hub: Hub, server: LocalHub, files: dict[str, bytes]
) -> None:
    server.add(REPO, files | {WEIGHTS: files[WEIGHTS][:-4]})
    with pytest.raises(ModelUnusable, match=r"model\.safetensors is truncated or corrupt"):
        await hub.download(REPO).wait()
    assert await hub.local(REPO) is None


async def test_what_was_damaged_on_disk_is_repaired(hub: Hub, server: LocalHub, files: dict[str, bytes]) -> None:
    path = await hub.download(REPO).wait()
    blob = (path / WEIGHTS).resolve()
    with blob.open("r+b") as stream:
        stream.seek(-4, os.SEEK_END)
        stream.write(b"rust")
    assert await hub.local(REPO) == path
    await hub.download(REPO, refresh=True).wait()
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]

    os.truncate(blob, 1000)
    assert await hub.local(REPO) is None
    await hub.download(REPO).wait()
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]


async def test_cancelling_ends_everyones_wait_at_once_and_keeps_what_has_come(
    server: LocalHub, files: dict[str, bytes], tmp_path: Path
) -> None:
    server.faults[WEIGHTS] = Faults(stall_after=200_000, times=1)
    patient = msgspec.structs.replace(IMPATIENT, stall_timeout=5.0)  # or a busy machine's next attempt goes on with it
    hub = Hub(cache_dir=tmp_path / "cache", endpoint=server.url, policy=patient)
    job = hub.download(REPO)
    waiters = [asyncio.create_task(job.wait()) for _ in range(3)]
    name = f"{hashlib.sha256(files[WEIGHTS]).hexdigest()}.incomplete"
    while not any(it.stat().st_size >= 200_000 for it in (tmp_path / "cache").rglob(name)):  # noqa: ASYNC110
        await asyncio.sleep(0.01)  # what comes last before a silence is told when more comes
    begun = time.perf_counter()
    job.cancel()
    for waiter in waiters:
        with pytest.raises(Unavailable, match="cancelled"):
            await waiter
    assert time.perf_counter() - begun < 0.1
    assert job.progress.state == "cancelled"
    await hub.download(REPO).wait()
    await hub.close()
    assert server.sent[WEIGHTS] == len(files[WEIGHTS])


async def test_a_cancel_before_the_first_step(hub: Hub) -> None:
    job = hub.download(REPO)
    job.cancel()
    with pytest.raises(Unavailable, match="cancelled"):
        await job.wait()
    assert (await hub.download(REPO).wait()).is_dir()


async def test_closing_the_hub_ends_downloads(hub: Hub, server: LocalHub) -> None:
    server.faults[WEIGHTS] = Faults(stall_after=1000)
    job = hub.download(REPO)
    await asyncio.sleep(0.1)
    begun = time.perf_counter()
    await hub.close()
    assert time.perf_counter() - begun < 0.3
    with pytest.raises(Unavailable, match="cancelled"):
        await job.wait()


async def test_a_disk_too_small_is_found_before_the_download(server: LocalHub, tmp_path: Path) -> None:
    reserve = 1 << 60
    policy = type(IMPATIENT)(disk_reserve=reserve)
    hub = Hub(cache_dir=tmp_path, endpoint=server.url, policy=policy)
    with pytest.raises(Unavailable, match="more bytes on disk") as failure:
        await hub.download(REPO).wait()
    await hub.close()
    assert failure.value.code == "disk_full"
    assert server.count(WEIGHTS) == 0


async def test_a_disk_that_fills_up_on_the_way(
    hub: Hub, server: LocalHub, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        if offset > 300_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data, offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(Unavailable, match="disk filled up") as failure:
            await hub.download(REPO).wait()
    assert failure.value.code == "disk_full"
    assert server.count(WEIGHTS) == 1
    path = await hub.download(REPO).wait()
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]


async def test_a_killed_process_leaves_nothing_to_stumble_over(
    hub: Hub, server: LocalHub, files: dict[str, bytes], tmp_path: Path
) -> None:
    server.faults[WEIGHTS] = Faults(bytes_per_second=1_000_000, times=1)
    program = (
        "import asyncio, sys; from pathlib import Path; from app.registry.hub import Hub\n"
        "async def main():\n"
        "    await Hub(cache_dir=Path(sys.argv[1]), endpoint=sys.argv[2]).download('org/model').wait()\n"
        "asyncio.run(main())"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "cache"), server.url])  # noqa: ASYNC220
    await sent(server, 200_000)
    follower = hub.download(REPO)
    await asyncio.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    path = await follower.wait()
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert server.count(WEIGHTS) == 2
    assert server.sent[WEIGHTS] < len(files[WEIGHTS]) + 300_000


async def test_two_downloads_of_the_same_commit_fetch_each_file_once(
    hub: Hub, server: LocalHub, tmp_path: Path
) -> None:
    other = Hub(cache_dir=tmp_path / "cache", endpoint=server.url, policy=IMPATIENT)
    paths = await asyncio.gather(hub.download(REPO).wait(), other.download(REPO, server.commits[REPO]).wait())
    await other.close()
    assert paths[0] == paths[1]
    assert server.count(WEIGHTS) == 1
