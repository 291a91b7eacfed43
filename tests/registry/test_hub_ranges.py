"""Large files in ranges side by side: as whole, as resumable and as checked as those that come in one piece."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from app.errors import ModelUnusable, Unavailable
from app.registry.hub import Hub
from app.registry.hub.policy import Policy
from app.registry.hub.spans import Spans
from tests.registry.conftest import IMPATIENT, REPO
from tests.support.hub import Faults, LocalHub

WEIGHTS = "model.safetensors"
RANGED = structs.replace(IMPATIENT, range_bytes=40_000, parallel_ranges=4)
"""The fixtures' 600 kB of weights in sixteen pieces."""


@pytest.fixture
async def hub(server: LocalHub, tmp_path: Path) -> AsyncIterator[Hub]:
    hub = Hub(cache_dir=tmp_path / "cache", endpoint=server.url, policy=RANGED)
    yield hub
    await hub.close()


def left(tmp_path: Path) -> list[str]:
    return [it.name for it in (tmp_path / "cache").rglob("*") if ".incomplete" in it.name]


async def test_a_large_file_comes_in_pieces_and_each_byte_once(
    hub: Hub, server: LocalHub, files: dict[str, bytes], tmp_path: Path
) -> None:
    job = hub.download(REPO)
    amounts = [moment.done async for moment in job.watch()]
    path = await job.wait()
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert server.sent[WEIGHTS] == len(files[WEIGHTS])
    assert server.count(WEIGHTS) >= -(-len(files[WEIGHTS]) // 40_000)
    assert server.count("config.json") == 1
    assert amounts == sorted(amounts)
    assert left(tmp_path) == []


async def test_connections_that_are_slow_each_are_fast_together(hub: Hub, server: LocalHub, tmp_path: Path) -> None:
    server.faults[WEIGHTS] = Faults(bytes_per_second=200_000)
    one = Hub(cache_dir=tmp_path / "one", endpoint=server.url, policy=structs.replace(RANGED, parallel_ranges=1))
    seconds = []
    for each in (hub, one):
        began = time.perf_counter()
        await each.download(REPO).wait()
        seconds.append(time.perf_counter() - began)
    await one.close()
    assert seconds[1] / seconds[0] > 2, seconds


@pytest.mark.parametrize("fault", ["cut_after", "reset_after", "stall_after"])
@pytest.mark.parametrize("times", [1, 9])
async def test_pieces_that_break_go_on_where_they_were(
    hub: Hub, server: LocalHub, files: dict[str, bytes], fault: str, times: int
) -> None:
    server.faults[WEIGHTS] = msgspec.convert({fault: 10_000, "times": times}, Faults)
    path = await hub.download(REPO).wait()
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert server.sent[WEIGHTS] == len(files[WEIGHTS])


async def cancelled_halfway(server: LocalHub, tmp_path: Path) -> None:
    """Four pieces have 30 kB each when the download is cancelled."""
    server.faults[WEIGHTS] = Faults(stall_after=30_000, times=4)
    hub = Hub(cache_dir=tmp_path / "cache", endpoint=server.url, policy=structs.replace(RANGED, stall_timeout=60.0))
    job = hub.download(REPO)
    async with asyncio.timeout(20):
        while server.sent[WEIGHTS] < 120_000:  # noqa: ASYNC110 - counted by another thread
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    job.cancel()
    with pytest.raises(Unavailable, match="cancelled"):
        await job.wait()
    await hub.close()


async def test_cancelling_keeps_every_piece_that_has_come(
    hub: Hub, server: LocalHub, files: dict[str, bytes], tmp_path: Path
) -> None:
    await cancelled_halfway(server, tmp_path)
    assert len(left(tmp_path)) == 2, "the bytes, and which they are"
    path = await hub.download(REPO).wait()
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert server.sent[WEIGHTS] == len(files[WEIGHTS])
    assert left(tmp_path) == []


@pytest.mark.parametrize("policy", [RANGED, IMPATIENT], ids=["in pieces again", "in one piece"])
async def test_a_killed_process_leaves_what_others_go_on_from(
    server: LocalHub, files: dict[str, bytes], tmp_path: Path, policy: Policy
) -> None:
    server.faults[WEIGHTS] = Faults(bytes_per_second=60_000)
    program = (
        "import asyncio, sys; from pathlib import Path; from app.registry.hub import Hub, Policy, partial\n"
        "partial._RECORD_EVERY = 0.1\n"
        "async def main():\n"
        "    policy = Policy(range_bytes=40_000, parallel_ranges=4)\n"
        "    hub = Hub(cache_dir=Path(sys.argv[1]), endpoint=sys.argv[2], policy=policy)\n"
        "    await hub.download('org/model').wait()\n"
        "asyncio.run(main())"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "cache"), server.url])  # noqa: ASYNC220
    async with asyncio.timeout(20):
        while server.sent[WEIGHTS] < 250_000:  # noqa: ASYNC110 - counted by another thread
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    del server.faults[WEIGHTS]
    hub = Hub(cache_dir=tmp_path / "cache", endpoint=server.url, policy=policy)
    path = await hub.download(REPO).wait()
    await hub.close()
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert server.sent[WEIGHTS] < len(files[WEIGHTS]) + 150_000
    assert left(tmp_path) == []


async def test_a_hub_without_ranges_is_served_in_one_piece(hub: Hub, server: LocalHub, files: dict[str, bytes]) -> None:
    server.faults["*"] = Faults(ignore_range=True)
    path = await hub.download(REPO).wait()
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]


async def test_a_spoiled_piece_is_found(hub: Hub, server: LocalHub, files: dict[str, bytes]) -> None:
    server.faults[WEIGHTS] = Faults(spoil=True, times=1)
    path = await hub.download(REPO).wait()
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]
    server.faults[WEIGHTS] = Faults(spoil=True)
    server.add("org/other", files)
    with pytest.raises(ModelUnusable, match="arrived damaged twice"):
        await hub.download("org/other").wait()


@pytest.mark.parametrize(("status", "times"), [(429, 3), (429, 5), (503, 3)])
async def test_a_hub_that_wants_fewer_connections_gets_fewer(
    hub: Hub, server: LocalHub, files: dict[str, bytes], status: int, times: int
) -> None:
    server.faults[WEIGHTS] = Faults(status=status, times=times)
    path = await hub.download(REPO).wait()
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]


async def test_pieces_that_gain_nothing_are_given_up_soon(hub: Hub, server: LocalHub, files: dict[str, bytes]) -> None:
    server.faults[WEIGHTS] = Faults(status=502)
    began = time.perf_counter()
    with pytest.raises(Unavailable, match="status 502"):
        await hub.download(REPO).wait()
    assert time.perf_counter() - began < 3
    assert server.count(WEIGHTS) <= RANGED.attempts * RANGED.parallel_ranges
    del server.faults[WEIGHTS]
    await hub.download(REPO).wait()
    assert server.sent[WEIGHTS] == len(files[WEIGHTS])


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
        with pytest.raises(Unavailable, match="disk filled up"):
            await hub.download(REPO).wait()
    path = await hub.download(REPO).wait()
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]


@pytest.mark.parametrize(
    "record", [b"", b"nonsense", b"[[0,600000]]", b"[[-5,7],[3,2]]", b'{"a":1}', b"[[0,99999999999]]"]
)
async def test_a_record_that_is_wrong_costs_time_and_never_the_contents(
    hub: Hub, server: LocalHub, files: dict[str, bytes], tmp_path: Path, record: bytes
) -> None:
    await cancelled_halfway(server, tmp_path)
    next((tmp_path / "cache").rglob("*.spans")).write_bytes(record)
    path = await hub.download(REPO).wait()
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert left(tmp_path) == []


SPAN = st.tuples(st.integers(0, 60), st.integers(0, 60))


@given(spans=st.lists(SPAN), size=st.integers(0, 60), cut=st.integers(0, 60), longest=st.integers(1, 20))
def test_spans_are_sets_of_bytes(spans: list[Any], size: int, cut: int, longest: int) -> None:
    made, model = Spans(spans), {at for start, end in spans for at in range(start, end)}
    assert {at for start, end in made for at in range(start, end)} == model
    assert all(after[0] > before[1] for before, after in zip(made, list(made)[1:], strict=False))
    assert made.total == len(model)
    assert made.prefix == next(at for at in range(61) if at not in model)
    missing = list(made.missing(size, longest))
    assert [at for start, end in missing for at in range(start, end)] == [at for at in range(size) if at not in model]
    assert all(0 < end - start <= longest for start, end in missing)
    made.cut(cut)
    assert {at for start, end in made for at in range(start, end)} == {at for at in model if at < cut}
