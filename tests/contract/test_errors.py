"""Every failure as the OpenAI SDK raises it, and what plain HTTP clients see."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from app import errors
from app.api.errors import STATUS
from app.errors import SwitchyardError
from app.main import create_app
from app.settings import Settings
from tests.contract.conftest import Server
from tests.support.events import STARTED, ScriptedStrategy
from tests.support.house import scripted_memory, scripted_registry
from tests.support.live import live
from tests.support.scripted import ScriptedLoader

RAISED = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    409: openai.ConflictError,
    429: openai.RateLimitError,
    500: openai.InternalServerError,
    503: openai.InternalServerError,
}


@pytest.mark.parametrize("failure", STATUS, ids=lambda kind: kind.__name__)
def test_every_failure_is_raised_as_the_sdks_own_exception(failure: type[SwitchyardError], tmp_path: Path) -> None:
    error = failure("What to do.", param="prompt")

    @asynccontextmanager
    async def app() -> AsyncIterator[Any]:
        async with scripted_registry(ScriptedLoader(scripted_memory()), tmp_path) as registry:
            yield create_app(Settings(), registry=registry, strategy=ScriptedStrategy(error))

    with live(app) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        with pytest.raises(RAISED[STATUS[failure]]) as raised:
            client.completions.create(model="tiny", prompt="x", stream=True)
        assert isinstance(raised.value, openai.APIStatusError)
        assert isinstance(raised.value.body, dict)
        assert raised.value.body["message"] == "What to do."
        assert (raised.value.param, raised.value.code) == ("prompt", failure.code)
        assert raised.value.request_id


def test_a_failure_in_the_middle_of_a_stream_is_raised(tmp_path: Path) -> None:
    strategy = ScriptedStrategy(STARTED, errors.EngineFailed("Send it again."))

    @asynccontextmanager
    async def app() -> AsyncIterator[Any]:
        async with scripted_registry(ScriptedLoader(scripted_memory()), tmp_path) as registry:
            yield create_app(Settings(), registry=registry, strategy=strategy)

    with live(app) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        stream = client.completions.create(model="tiny", prompt="x", stream=True)
        with pytest.raises(openai.APIError, match="Send it again"):
            list(stream)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_hangs_up_ends_its_job(tmp_path: Path, stream: bool) -> None:
    begun = threading.Event()
    strategy = ScriptedStrategy(STARTED, asyncio.Event(), on_open=begun.set)

    @asynccontextmanager
    async def app() -> AsyncIterator[Any]:
        async with scripted_registry(ScriptedLoader(scripted_memory()), tmp_path) as registry:
            yield create_app(Settings(), registry=registry, strategy=strategy)

    with live(app) as url:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
            asking = asyncio.ensure_future(client.completions.create(model="tiny", prompt="x", stream=stream))
            await asyncio.to_thread(begun.wait, 10)
            if stream:
                await (await asking).close()
            else:
                asking.cancel()
            for _ in range(200):
                if not strategy.open:
                    break
                await asyncio.sleep(0.01)
    assert (strategy.open, strategy.cancelled) == (0, 1)


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.completions.create(model="no/such-model", prompt="x")
    assert raised.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no/such-model")


def test_models_are_listed_and_looked_at(client: openai.OpenAI, server: Server) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert server.model in listed
    assert client.models.retrieve(server.model) == listed[server.model]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 100_000, b'{"prompt": "\xff"}', b'{"prompt": NaN}', b"0"])
def test_bodies_that_are_none_leave_the_server_unharmed(http: httpx2.Client, server: Server, body: bytes) -> None:
    for url in ("/v1/completions", "/v1/chat/completions"):
        answer = http.post(url, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert http.post("/v1/completions", json={"model": server.model, "prompt": "x"}).status_code == 200


def test_plain_http_sees_one_shape(http: httpx2.Client) -> None:
    for method, url, status in [("GET", "/nowhere", 404), ("PUT", "/v1/completions", 405)]:
        answer = http.request(method, url, headers={"x-request-id": "mine"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (status, "mine")
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
