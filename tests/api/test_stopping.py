"""How it stops, how it says so, and what is seen of it."""

import asyncio
import subprocess
import sys

from app.cli.exits import Exit
from app.errors import EngineFailed
from app.settings import ModelEntry, Settings
from tests.support.asgi import events, exchange, request
from tests.test_server import PROGRAM, ROOT

STREAM = b'{"model": "tiny", "prompt": "Hi", "stream": true}'
ASK = {"model": "tiny", "prompt": "Hi", "max_tokens": 3}


async def held_stream(app, loader):
    await request(app, "POST", "/v1/completions", ASK)
    loader.engines["tiny"].may_step.clear()


async def test_stopping_refuses_what_is_new_and_lets_streams_finish(serve, loader):
    app = serve()
    await held_stream(app, loader)
    async with exchange(app, "POST", "/v1/completions", STREAM) as running:
        await running.started()
        draining = asyncio.ensure_future(app.state.vitals.drain(10))
        await asyncio.sleep(0.01)
        refused = await request(app, "POST", "/v1/completions", ASK)
        assert (refused.status, refused.error["code"]) == (503, "stopping")
        assert int(refused.headers["retry-after"]) > 0
        ready = await request(app, "GET", "/health/ready")
        assert (ready.status, ready.json()) == (503, {"status": "draining"})
        assert (await request(app, "GET", "/health/live")).status == 200
        assert not draining.done()
        loader.engines["tiny"].may_step.set()
        answer = await running.answer()
        assert events(answer.body)[-1] == "[DONE]"
        await asyncio.wait_for(draining, 5)


async def test_what_has_not_finished_in_time_ends_with_an_error(serve, loader):
    app = serve()
    await held_stream(app, loader)
    async with exchange(app, "POST", "/v1/completions", STREAM) as running:
        await running.started()
        waiting = asyncio.ensure_future(request(app, "POST", "/v1/completions", ASK))
        await asyncio.sleep(0.05)
        await asyncio.wait_for(app.state.vitals.drain(0.1), 5)
        last = events((await running.answer()).body)[-1]
        assert last["error"]["code"] == "stopping"
        assert (await waiting).status == 503
    assert app.state.vitals.running == 0
    assert not loader.engines["tiny"].streams


async def test_an_answer_may_take_only_so_long(serve, loader):
    app = serve(settings=Settings(request_timeout=0.2))
    await request(app, "POST", "/v1/completions", ASK)
    loader.engines["tiny"].may_step.clear()
    late = await request(app, "POST", "/v1/completions", ASK)
    assert (late.status, late.error["code"]) == (503, "request_timeout")
    assert "retry-after" in late.headers
    async with exchange(app, "POST", "/v1/completions", STREAM) as running:
        assert events((await running.answer()).body)[-1]["error"]["code"] == "request_timeout"
    assert not loader.engines["tiny"].streams


async def test_a_lost_engine_fails_everybody_and_readiness(serve, loader):
    app, told = serve(), []
    app.state.vitals.on_failure = lambda: told.append(1)
    await held_stream(app, loader)
    async with exchange(app, "POST", "/v1/completions", STREAM) as running:
        await running.started()
        app.state.vitals.fail(EngineFailed("The engine has stopped answering."))
        assert events((await running.answer()).body)[-1]["error"]["code"] == "engine_failed"
    assert (await request(app, "POST", "/v1/completions", ASK)).status == 503
    for path in ("/health", "/health/live", "/health/ready"):
        answer = await request(app, "GET", path)
        assert (answer.status, answer.json()) == (503, {"status": "failed"})
    assert told == [1]


async def test_loading_is_no_failure_but_not_ready(serve, registry, monkeypatch):
    app = serve()
    assert (await request(app, "GET", "/health/ready")).status == 200
    monkeypatch.setattr(type(registry), "preloading", True)
    answer = await request(app, "GET", "/health/ready")
    assert (answer.status, answer.json()) == (503, {"status": "loading"})
    assert (await request(app, "GET", "/health/live")).status == 200


def test_a_lost_engine_ends_the_process_with_a_code_of_its_own():
    program = PROGRAM.replace(
        "server.Hooks(on_ready=lambda:", "server.Hooks(on_ready=lambda: server.lost() or"
    ).replace("settings = ", "server.LAST_WORDS = 0.2; settings = ")
    done = subprocess.run(
        [sys.executable, "-c", program, "5", "sound"], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == Exit.ENGINE_LOST
    assert "lost" in done.stderr
    assert "Traceback" not in done.stderr


async def test_models_are_renamed_without_an_interruption(serve, loader):
    app = serve()
    await held_stream(app, loader)
    assert (await request(app, "POST", "/v1/completions", ASK | {"model": "nick"})).status == 404
    async with exchange(app, "POST", "/v1/completions", STREAM) as running:
        await running.started()
        app.state.front.reload({"tiny": ModelEntry(aliases=("nick",))})
        loader.engines["tiny"].may_step.set()
        assert (await request(app, "POST", "/v1/completions", ASK | {"model": "nick"})).status == 200
        assert events((await running.answer()).body)[-1] == "[DONE]"
