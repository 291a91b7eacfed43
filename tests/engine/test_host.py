"""What a process tells the service unasked."""

import asyncio

import pytest

from app.engine import messages as wire
from app.engine.host import host as host_module
from app.engine.host.host import Host
from app.engine.messages import FromEngine
from app.engine.options import Batching


async def test_who_computes_for_long_tells_what_is_held_by_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long prompt has nothing to report for seconds, in which other rows' KV caches may have gone."""
    monkeypatch.setattr(host_module, "STATE_SECONDS", 0.1)
    host, sent = Host(asyncio.get_running_loop(), Batching(4), urgent=False), list[FromEngine]()
    monkeypatch.setattr(host.channel, "send", sent.append)
    for _ in range(3):
        host.progress()
        host.progress()
        await asyncio.sleep(0)
        host.progress()
        assert [type(it) for it in sent] == [wire.Step, wire.Progress]
        sent.clear()
        await asyncio.sleep(0.15)
    await host._importing
    await host._thread.close()
