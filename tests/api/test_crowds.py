"""More requests at once than are generated together and may wait: the rest is turned away, in its dialect's words."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar import Litestar

from app.main import create_app
from app.settings import Settings
from tests.support.asgi import Answer, request
from tests.support.house import scripted_registry
from tests.support.scripted import ScriptedLoader

CROWD, ROWS, LIMIT = 150, 64, 8
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
DIALECTS: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "Hi", "max_tokens": 4},
    "/v1/chat/completions": CHAT,
    "/v1/responses": {"input": "Hi"},
    "/v1/messages": CHAT,
}
REFUSED = {"/v1/responses": (503, "2", "server_error"), "/v1/messages": (529, "2", "overloaded_error")}
"""Where a client of the dialect comes again after these alone."""


@pytest.fixture
async def app(loader: ScriptedLoader, tmp_path: Path) -> AsyncIterator[Litestar]:
    async with scripted_registry(loader, tmp_path, queue_limit=LIMIT, max_batch_rows=ROWS) as registry:
        yield create_app(Settings(), registry=registry)


async def crowd(
    app: Litestar, path: str, body: dict[str, Any], places: int, let_go: Callable[[], object]
) -> tuple[list[Answer], list[Answer]]:
    """The answers to so many requests at once, of which none ends before ``let_go`` is called."""
    sent = msgspec.json.encode({"model": "tiny", **body})
    asked = [asyncio.ensure_future(request(app, "POST", path, sent)) for _ in range(CROWD)]
    for _ in range(400):
        await asyncio.sleep(0.005)
        if len([it for it in asked if it.done()]) >= CROWD - places:
            break
    await asyncio.sleep(0.05)
    early = [it.result() for it in asked if it.done()]
    let_go()
    return early, [it for it in await asyncio.gather(*asked) if it not in early]


def check_refused(path: str, answers: list[Answer]) -> None:
    told = {(it.status, it.headers["retry-after"], it.json()["error"]["type"]) for it in answers}
    assert told == {REFUSED.get(path, (429, "2", "rate_limit_error"))}
    assert all("8 requests are waiting" in it.json()["error"]["message"] for it in answers)


@pytest.mark.parametrize("path", DIALECTS)
async def test_a_crowd_before_a_model_in_memory_waits_as_far_as_the_limit_lets_it(
    app: Litestar, loader: ScriptedLoader, path: str
) -> None:
    warm = await request(app, "POST", path, msgspec.json.encode({"model": "tiny", **DIALECTS[path]}))
    assert warm.status == 200
    may_step = loader.engines["tiny"].may_step
    may_step.clear()
    refused, served = await crowd(app, path, DIALECTS[path], ROWS + LIMIT, may_step.set)
    assert len(served) == ROWS + LIMIT
    assert {it.status for it in served} == {200}
    check_refused(path, refused)


async def test_a_crowd_before_a_model_that_is_loaded_waits_as_far_as_the_limit_lets_it(
    app: Litestar, loader: ScriptedLoader
) -> None:
    loader.gate.clear()
    refused, served = await crowd(app, "/v1/chat/completions", CHAT, LIMIT, loader.gate.set)
    assert [it.status for it in served] == [200] * LIMIT
    check_refused("/v1/chat/completions", refused)


async def test_a_list_of_prompts_is_one_request(app: Litestar, loader: ScriptedLoader) -> None:
    long: dict[str, Any] = {"prompt": ["Hi"] * 20, "max_tokens": 1}
    body = msgspec.json.encode({"model": "tiny", **long})
    assert (await request(app, "POST", "/v1/completions", body)).status == 200
    may_step = loader.engines["tiny"].may_step
    may_step.clear()
    refused, served = await crowd(app, "/v1/completions", long, ROWS + LIMIT, may_step.set)
    assert len(served) == ROWS + LIMIT
    check_refused("/v1/completions", refused)
