"""A Mac stays awake while there is work, and a sleep does not count as waiting; both by stand-ins."""

import asyncio
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvicorn
import uvloop
from structlog.testing import capture_logs

from app.awake import awake
from app.cli.run import awake_loop
from app.cli.run.awake_loop import AwakeLoop
from app.main import create_app, is_busy
from app.settings import Settings
from tests.support.house import scripted_memory, scripted_registry
from tests.support.scripted import ScriptedLoader, says

CAFFEINATE = """#!/bin/sh
echo "$$ $*" >>"$DIARY"
trap 'exit 0' TERM
while kill -0 "$3" 2>/dev/null; do sleep 0.05; done
"""


@pytest.fixture
def caffeinate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "caffeinate"
    program.write_text(CAFFEINATE)
    program.chmod(0o755)
    monkeypatch.setenv("DIARY", str(tmp_path / "diary"))
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    return program


def running(tmp_path: Path) -> list[int]:
    """The stand-ins that run now."""
    diary = tmp_path / "diary"
    numbers = [int(line.split()[0]) for line in diary.read_text().splitlines()] if diary.exists() else []
    return [number for number in numbers if is_alive(number)]


def is_alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


async def until(condition: Callable[..., Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  other processes
            await asyncio.sleep(0.01)


async def test_it_is_held_awake_while_there_is_work_and_no_longer(caffeinate: Path, tmp_path: Path) -> None:
    busy = False
    async with awake(lambda: busy, program=str(caffeinate), every=0.01):
        await asyncio.sleep(0.1)
        assert not (tmp_path / "diary").exists()
        for _ in range(2):
            busy = True
            await until(lambda: running(tmp_path))
            await asyncio.sleep(0.1)
            assert len(running(tmp_path)) == 1
            busy = False
            await until(lambda: not running(tmp_path))
        busy = True
        await until(lambda: running(tmp_path))
    assert running(tmp_path) == []
    assert {line.split(" ", 1)[1] for line in (tmp_path / "diary").read_text().splitlines()} == {f"-i -w {os.getpid()}"}


async def test_one_that_was_ended_by_somebody_is_started_again(caffeinate: Path, tmp_path: Path) -> None:
    async with awake(lambda: True, program=str(caffeinate), every=0.01):
        await until(lambda: running(tmp_path))
        first = running(tmp_path)[0]
        os.kill(first, signal.SIGKILL)
        await until(lambda: running(tmp_path) and running(tmp_path) != [first])


async def test_a_machine_without_the_program_works_all_the_same(caffeinate: Path, tmp_path: Path) -> None:
    with capture_logs() as told:
        async with awake(lambda: True, program=str(tmp_path / "none"), every=0.01):
            await asyncio.sleep(0.1)
    assert [line["event"] for line in told] == ["this machine may fall asleep"]


async def test_other_systems_are_let_be(caffeinate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    async with awake(lambda: True, program=str(caffeinate), every=0.01):
        await asyncio.sleep(0.05)
    assert not (tmp_path / "diary").exists()


@pytest.mark.parametrize("stays", [True, False])
async def test_the_service_keeps_its_machine_awake_if_it_is_told_to(
    caffeinate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stays: bool
) -> None:
    asked = []
    monkeypatch.setattr("app.main.awake", lambda busy: (asked.append(busy), awake(busy, program=str(caffeinate)))[1])
    async with scripted_registry(ScriptedLoader(scripted_memory(), script=says("x")), tmp_path / "models") as registry:
        app = create_app(Settings(stay_awake=stays), registry=registry)
        async with app.lifespan():
            service_state = app.state.middleware.service_state
            assert not is_busy(service_state, registry)
            service_state.begin("an answer")
            assert is_busy(service_state, registry)
            assert [busy() for busy in asked] == [stays]
            service_state.end("an answer")
            assert not is_busy(service_state, None)


class Nap:
    """What ``time.monotonic()`` says on a machine that sleeps while libuv's clock goes on."""

    def __init__(self) -> None:
        self.slept = 0.0

    def monotonic(self) -> float:
        return time.monotonic() - self.slept


T = TypeVar("T")


@pytest.fixture
def nap(monkeypatch: pytest.MonkeyPatch) -> Nap:
    nap = Nap()
    monkeypatch.setattr(awake_loop, "time", nap)
    return nap


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=AwakeLoop) as runner:
        return runner.run(coroutine)


def test_a_deadline_does_not_count_the_time_asleep(nap: Nap) -> None:
    async def wait() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(0.2, lambda: setattr(nap, "slept", 1.0))
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.2):
                await asyncio.sleep(60)
        return time.monotonic() - began

    assert 2.15 < run(wait()) < 2.8


def test_without_a_sleep_a_deadline_is_what_it_says(nap: Nap) -> None:
    async def wait() -> float:
        began = time.monotonic()
        await asyncio.sleep(1.1)
        return time.monotonic() - began

    assert 1.08 < run(wait()) < 1.5


def test_a_timer_can_be_cancelled_before_and_after_a_sleep(nap: Nap) -> None:
    async def wait() -> list[str]:
        loop = asyncio.get_running_loop()
        fired: list[Any] = []
        first = loop.call_later(1.05, fired.append, "first")
        second = loop.call_at(loop.time() + 1.05, fired.append, "second")
        third = loop.call_later(1.05, fired.append, "third")
        first.cancel()
        await asyncio.sleep(0.1)
        nap.slept = 0.5
        await asyncio.sleep(0.99)
        await asyncio.sleep(0.05)
        assert fired == []
        second.cancel()
        second.cancel()
        await asyncio.sleep(0.99)
        assert (first.cancelled(), second.cancelled(), third.cancelled()) == (True, True, False)
        return fired

    assert run(wait()) == ["third"]


def test_the_loop_is_uvloop_and_its_clock_the_one_of_python() -> None:
    async def wait() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, uvloop.Loop)
        return abs(loop.time() - time.monotonic())

    assert run(wait()) < 0.01


def test_a_mac_is_served_by_that_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    from app.cli.run import server  # noqa: PLC0415

    made = []
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(uvicorn, "Config", lambda *_, **named: made.append(named["loop"]) or sys.exit())
    with pytest.raises(SystemExit):
        server.run(None, [], Settings(), server.Hooks())
    assert made == ["app.cli.run.awake_loop:AwakeLoop"]
    program = (
        "import uvicorn; print(uvicorn.Config(None, loop='app.cli.run.awake_loop:AwakeLoop').get_loop_factory()())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "AwakeLoop" in done.stdout, done.stderr
