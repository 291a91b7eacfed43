"""How it stops, how it says so, and what is seen of it."""

import asyncio

import pytest
from litestar import Litestar

from app.registry.registry import ModelRegistry
from app.settings import ModelEntry, Settings
from tests.api.conftest import Serve
from tests.support.asgi import events, exchange, request
from tests.support.scripted import ScriptedLoader

STREAM = b'{"model": "tiny", "prompt": "Hi", "stream": true}'
ASK = {"model": "tiny", "prompt": "Hi", "max_tokens": 3}


async def held_stream(app: Litestar, loader: ScriptedLoader) -> None:
    await request(app, "POST", "/v1/completions", ASK)
    loader.engines["tiny"].may_step.clear()


async def test_stopping_refuses_what_is_new_and_lets_streams_finish(serve: Serve, loader: ScriptedLoader) -> None:
    app = serve()
    await held_stream(app, loader)
    async with exchange(app, "POST", "/v1/completions", STREAM) as running:
        await running.started()
        draining = asyncio.ensure_future(app.state.service_state.drain(10))
        await asyncio.sleep(0.01)
        refused = await request(app, "POST", "/v1/completions", ASK)
        assert (refused.status, refused.error["code"]) == (503, "stopping")
        assert int(refused.headers["retry-after"]) > 0
        ready = await request(app, "GET", "/health/ready")
        assert (ready.status, ready.json()) == (503, {"status": "draining", "models": {"tiny": "ok"}})
        assert (await request(app, "GET", "/health/live")).status == 200
        assert not draining.done()
        loader.engines["tiny"].may_step.set()
        answer = await running.answer()
        assert events(answer.body)[-1] == "[DONE]"
        await asyncio.wait_for(draining, 5)


async def test_what_has_not_finished_in_time_ends_with_an_error(serve: Serve, loader: ScriptedLoader) -> None:
    app = serve()
    await held_stream(app, loader)
    async with exchange(app, "POST", "/v1/completions", STREAM) as running:
        await running.started()
        waiting = asyncio.ensure_future(request(app, "POST", "/v1/completions", ASK))
        await asyncio.sleep(0.05)
        await asyncio.wait_for(app.state.service_state.drain(0.1), 5)
        last = events((await running.answer()).body)[-1]
        assert last["error"]["code"] == "stopping"
        assert (await waiting).status == 503
    assert app.state.service_state.running == 0
    assert not loader.engines["tiny"].streams


async def test_an_answer_may_take_only_so_long(serve: Serve, loader: ScriptedLoader) -> None:
    app = serve(settings=Settings(request_timeout=0.2))
    await request(app, "POST", "/v1/completions", ASK)
    loader.engines["tiny"].may_step.clear()
    late = await request(app, "POST", "/v1/completions", ASK)
    assert (late.status, late.error["code"]) == (503, "request_timeout")
    assert "retry-after" in late.headers
    async with exchange(app, "POST", "/v1/completions", STREAM) as running:
        assert events((await running.answer()).body)[-1]["error"]["code"] == "request_timeout"
    assert not loader.engines["tiny"].streams


async def test_a_lost_engine_fails_its_own_requests_alone(serve: Serve, loader: ScriptedLoader) -> None:
    app = serve()
    await held_stream(app, loader)
    await request(app, "POST", "/v1/completions", ASK | {"model": "org/other"})
    assert (await request(app, "GET", "/health")).json() == {
        "status": "ok",
        "models": {"org/other": "ok", "tiny": "ok"},
    }
    async with exchange(app, "POST", "/v1/completions", STREAM) as running:
        await running.started()
        loader.engines["tiny"].lose()
        loader.engines["tiny"].may_step.set()
        told = events((await running.answer()).body)
        assert told[-1]["error"]["code"] == "engine_lost"
    assert (await request(app, "POST", "/v1/completions", ASK | {"model": "org/other"})).status == 200
    for path in ("/health", "/health/live", "/health/ready"):
        answer = await request(app, "GET", path)
        assert (answer.status, answer.json()) == (200, {"status": "ok", "models": {"org/other": "ok"}})
    assert (await request(app, "POST", "/v1/completions", ASK)).status == 200
    [tiny] = [it for it in (await request(app, "GET", "/admin/models")).json()["data"] if it["id"] == "tiny"]
    assert (tiny["losses"], tiny["pid"]) == (1, 4321)


async def test_a_model_that_ends_again_and_again_is_refused_for_a_while(serve: Serve, loader: ScriptedLoader) -> None:
    app = serve()
    for _ in range(3):
        assert (await request(app, "POST", "/v1/completions", ASK)).status == 200
        loader.engines["tiny"].lose("it was ended by SIGSEGV")
    refused = await request(app, "POST", "/v1/completions", ASK)
    assert (refused.status, refused.error["code"]) == (503, "engine_lost")
    assert "SIGSEGV" in refused.error["message"]
    assert int(refused.headers["retry-after"]) > 60
    assert (await request(app, "GET", "/health")).json() == {"status": "ok", "models": {"tiny": "failing"}}


async def test_loading_is_no_failure_but_not_ready(
    serve: Serve, registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = serve()
    assert (await request(app, "GET", "/health/ready")).status == 200
    monkeypatch.setattr(type(registry), "preloading", True)
    answer = await request(app, "GET", "/health/ready")
    assert (answer.status, answer.json()) == (503, {"status": "loading"})
    assert (await request(app, "GET", "/health/live")).status == 200


async def test_models_are_renamed_without_an_interruption(serve: Serve, loader: ScriptedLoader) -> None:
    app = serve()
    await held_stream(app, loader)
    assert (await request(app, "POST", "/v1/completions", ASK | {"model": "nick"})).status == 404
    async with exchange(app, "POST", "/v1/completions", STREAM) as running:
        await running.started()
        app.state.middleware.reload({"tiny": ModelEntry(aliases=("nick",))})
        loader.engines["tiny"].may_step.set()
        assert (await request(app, "POST", "/v1/completions", ASK | {"model": "nick"})).status == 200
        assert events((await running.answer()).body)[-1] == "[DONE]"
