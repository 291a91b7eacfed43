import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar import Litestar

from app.main import create_app
from app.registry.catalog import Catalog
from app.registry.hub import Hub
from app.registry.registry import ModelRegistry
from app.registry.shelf import Shelf
from app.settings import ModelEntry, Settings
from tests.api.conftest import Serve
from tests.support.asgi import Exchange, events, exchange, request
from tests.support.house import scripted_memory
from tests.support.hub import Faults, LocalHub
from tests.support.scripted import ScriptedLoader, says, scripted_device

HELLO = {"model": "org/tiny", "prompt": "Hello", "max_tokens": 5}


async def state(app: Litestar, model: str = "org/tiny") -> dict[str, Any]:
    return (await request(app, "GET", f"/admin/models/{model}")).json()


async def test_every_known_model_is_listed_with_its_state(serve: Serve) -> None:
    answer = await request(serve(), "GET", "/admin/models")
    models = {model["id"]: model for model in answer.json()["data"]}
    assert {"tiny", "org/tiny", "org/other"} <= models.keys()
    assert models["tiny"]["state"] == "on_disk"
    assert (models["tiny"]["leases"], models["tiny"]["queued"], models["tiny"]["nbytes"]) == (0, 0, 0)


async def test_a_model_is_loaded_pinned_unpinned_and_unloaded(serve: Serve) -> None:
    app = serve()
    loaded = (await request(app, "POST", "/admin/models/org/tiny/load")).json()
    assert (loaded["state"], loaded["pinned"]) == ("resident", False)
    assert loaded["nbytes"] > 0
    assert loaded["idle_seconds"] >= 0
    assert (await request(app, "POST", "/admin/models/org%2Ftiny/pin")).json()["pinned"] is True
    assert (await request(app, "POST", "/admin/models/org/tiny/unpin")).json()["pinned"] is False
    assert (await request(app, "GET", "/admin/memory")).json()["weights"] == loaded["nbytes"]
    assert (await request(app, "POST", "/admin/models/org/tiny/unload")).json()["state"] == "on_disk"
    memory = (await request(app, "GET", "/admin/memory")).json()
    assert memory["weights"] == 0
    assert memory["process"] > 1 << 20
    assert memory["limit"] == memory["budget"] - memory["margin"]


async def test_a_pinned_model_outlives_its_time(serve: Serve) -> None:
    app = serve()
    await request(app, "POST", "/v1/completions", HELLO | {"keep_alive": 0.2})
    assert 0 < (await state(app))["expires_in"] <= 0.2
    await request(app, "POST", "/admin/models/org/tiny/pin")
    assert (await state(app))["expires_in"] is None
    await asyncio.sleep(0.3)
    assert (await state(app))["state"] == "resident"
    await request(app, "POST", "/admin/models/org/tiny/unpin")
    async with exchange(app, "GET", "/admin/events") as client:
        while (await state(app))["state"] != "on_disk":
            await next_event(client)


async def test_what_is_not_in_memory_cannot_be_pinned(serve: Serve) -> None:
    answer = await request(serve(), "POST", "/admin/models/tiny/pin")
    assert (answer.status, answer.error["message"]) == (409, "tiny is not in memory. Load it first.")


async def test_a_model_in_use_is_neither_unloaded_nor_deleted(
    serve: Serve, registry: ModelRegistry, loader: ScriptedLoader
) -> None:
    app = serve()
    async with registry.lease("org/tiny"):
        assert (await state(app))["leases"] == 1
        answer = await request(app, "POST", "/admin/models/org/tiny/unload")
        assert answer.status == 409
        assert "in use by 1" in answer.error["message"]
    assert (await state(app))["leases"] == 0


async def test_what_is_no_model_of_the_hub_is_not_deleted(serve: Serve) -> None:
    answer = await request(serve(), "DELETE", "/admin/models/tiny")
    assert answer.status == 400
    assert "not a model of the hub" in answer.error["message"]


@pytest.mark.parametrize(
    ("method", "url", "status"),
    [
        ("GET", "/admin/models/gone", 404),
        ("POST", "/admin/models/gone/load", 404),
        ("POST", "/admin/models/tiny/explode", 404),
        ("POST", "/admin/models/load", 404),
        ("POST", "/admin/models/..%2F..%2Fetc/load", 404),
        ("POST", "/admin/models/tiny/pull", 400),
    ],
)
async def test_what_there_is_not_is_refused(serve: Serve, method: str, url: str, status: int) -> None:
    answer = await request(serve(), method, url)
    assert answer.status == status
    assert answer.error["message"]


@pytest.mark.parametrize("url", ["/admin/models", "/admin/memory", "/admin/events", "/admin/models/tiny"])
async def test_admin_needs_a_key_as_v1_does(serve: Serve, url: str) -> None:
    app = serve(settings=Settings(api_keys=("sk-right",)))
    assert (await request(app, "GET", url)).status == 401
    assert (await request(app, "GET", url, headers={"Authorization": "Bearer sk-wrong"})).status == 401
    async with exchange(app, "GET", url, headers={"Authorization": "Bearer sk-right"}) as client:
        assert (await client.started()).status == 200


@pytest.mark.parametrize(("origin", "status"), [("http://localhost", 200), ("http://evil.example", 403), ("null", 403)])
async def test_pages_of_other_sites_may_not_act(serve: Serve, origin: str, status: int) -> None:
    answer = await request(serve(), "POST", "/admin/models/tiny/load", headers={"Origin": origin})
    assert answer.status == status


async def next_event(client: Exchange) -> Any:
    while (piece := await client.chunk()) is not None:
        if piece.startswith(b"data: "):
            return events(piece)[-1]
    return None


async def test_the_feed_tells_everything_then_what_changes(serve: Serve, loader: ScriptedLoader) -> None:
    loader.script = says("Hi")
    app = serve()
    async with exchange(app, "GET", "/admin/events") as client:
        first = await next_event(client)
        assert first.keys() == {"service", "models", "memory", "requests"}
        assert first["requests"] == []
        told = asyncio.ensure_future(request(app, "POST", "/v1/completions", HELLO))
        last: list[Any] = []
        seen: dict[str, set[str]] = {"models": set(), "requests": set()}
        while "answered" not in seen["requests"] or "resident" not in seen["models"]:
            event = await next_event(client)
            assert "service" not in event
            seen["models"] |= {model["state"] for model in event.get("models", []) if model["id"] == "org/tiny"}
            seen["requests"] |= {entry["outcome"] for entry in event.get("requests", [])}
            last = event.get("requests", []) or last
        assert (await told).status == 200
    assert (last[0]["model"], last[0]["path"], last[0]["status"]) == ("org/tiny", "/v1/completions", 200)
    assert last[0]["completion_tokens"] == 3
    assert last[0]["first_token_seconds"] is not None


async def entries(app: Litestar) -> list[dict[str, Any]]:
    async with exchange(app, "GET", "/admin/events") as client:
        return (await next_event(client))["requests"]


async def test_refused_failed_and_forsaken_requests_are_told_apart(serve: Serve, loader: ScriptedLoader) -> None:
    app = serve()
    await request(app, "POST", "/v1/completions", HELLO | {"temperature": 9})
    await request(app, "POST", "/v1/completions", HELLO | {"model": "org/none"})
    await request(app, "POST", "/admin/models/org/tiny/load")
    engine = loader.engines["org/tiny"]
    engine.may_step.clear()
    async with exchange(app, "POST", "/v1/completions", msgspec.json.encode(HELLO)) as client:
        await asyncio.sleep(0.05)
        assert (await entries(app))[0]["outcome"] in {"waiting", "running"}
        client.disconnect()
    engine.may_step.set()
    told = await entries(app)
    assert [entry["outcome"] for entry in told] == ["left", "refused", "refused"]
    assert [entry["status"] for entry in told][1:] == [404, 400]
    assert "org/none" in told[1]["message"]
    assert told[1]["model"] == "org/none"


async def test_a_request_tells_its_client_its_stages_and_nothing_of_what_was_said(serve: Serve) -> None:
    app = serve()
    for agent in ("claude-cli/2.1.0 (external, cli)", "Mozilla/5.0 (Macintosh)", "<b>é", "x" * 500):
        await request(app, "POST", "/v1/completions", HELLO, {"User-Agent": agent})
    told = await entries(app)
    assert [it["client"] for it in told] == ["x" * 40, None, None, "claude-cli/2.1.0"]
    for it in told:
        assert 0 < sum(it["timings"].values()) <= it["seconds"] + 0.001
        assert (it["cached_tokens"], it["calls"]) == (0, [])
    assert "Hello" not in msgspec.json.encode(told).decode()


async def test_the_feed_ends_when_the_service_stops(serve: Serve) -> None:
    app = serve()
    async with exchange(app, "GET", "/admin/events") as client:
        await next_event(client)
        app.state.live.close()
        while await client.chunk() is not None:
            pass


async def test_the_journal_is_bounded(serve: Serve) -> None:
    app = serve()
    for _ in range(60):
        await request(app, "POST", "/v1/completions", {})
    assert len(await entries(app)) == 50


@asynccontextmanager
async def with_hub(tmp_path: Path, local: LocalHub, **more: Any) -> AsyncIterator[Any]:
    hub = Hub(cache_dir=tmp_path / "hub", endpoint=local.url)

    async def none() -> Path:
        raise AssertionError

    loader = ScriptedLoader(scripted_memory())
    settings = Settings(models={"org/model": ModelEntry(aliases=("short",))}, **more)
    shelf = Shelf(hub, none, offline=False, device=scripted_device)
    registry = ModelRegistry(settings, Catalog(settings), shelf, loader, loader.memory)
    try:
        yield create_app(settings, registry=registry)
    finally:
        await registry.close()
        await hub.close()


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[LocalHub]:
    header = b'{"w":{"dtype":"U8","shape":[200000],"data_offsets":[0,200000]}}'
    weights = len(header).to_bytes(8, "little") + header + bytes(200000)
    with LocalHub() as local:
        local.add(
            "org/model",
            {
                "config.json": b'{"model_type": "llama"}',
                "model.safetensors": weights,
                "tokenizer.json": b"{}",
                "tokenizer_config.json": b"{}",
            },
        )
        yield local


async def test_a_pull_tells_its_progress_and_its_end(repo: LocalHub, tmp_path: Path) -> None:
    repo.faults["model.safetensors"] = Faults(bytes_per_second=400_000)
    async with with_hub(tmp_path, repo) as app:
        async with exchange(app, "GET", "/admin/events") as watching:
            await next_event(watching)
            answer = await request(app, "POST", "/admin/models/short/pull")
            moments = events(answer.body)
            assert moments[-1] == "[DONE]"
            assert moments[-2]["state"] == "done"
            done = [moment["done"] for moment in moments[:-1]]
            assert done == sorted(done)
            assert moments[-2]["total"] == done[-1] > 200000
            assert {file["name"] for file in moments[-2]["files"]} >= {"config.json", "model.safetensors"}
            seen = set()
            while "on_disk" not in seen:
                event = await next_event(watching)
                seen |= {model["state"] for model in event.get("models", []) if model["id"] == "org/model"}
            assert "downloading" in seen
        assert (await state(app, "org/model"))["state"] == "on_disk"
        deleted = await request(app, "DELETE", "/admin/models/short")
        assert deleted.json()["freed"] > 200000
        assert (await state(app, "short"))["state"] == "absent"


async def test_a_pull_that_cannot_be_keeps_its_status(repo: LocalHub, tmp_path: Path) -> None:
    async with with_hub(tmp_path, repo) as app:
        answer = await request(app, "POST", "/admin/models/org/none/pull")
        assert (answer.status, answer.error["code"]) == (404, "model_not_found")


async def test_the_hub_is_searched_and_what_may_not_be_asked_for_is_left_out(repo: LocalHub, tmp_path: Path) -> None:
    repo.add("org/large-model", {"config.json": b"{}"})
    repo.add("other/secret-model", {"config.json": b"{}"})
    async with with_hub(tmp_path, repo, allow_models=("org/*",)) as app:
        await request(app, "POST", "/admin/models/org/model/pull")
        found = (await request(app, "GET", "/admin/search?q=MODEL")).json()["data"]
        assert {it["id"]: it["on_disk"] for it in found} == {"org/model": True, "org/large-model": False}
        assert {(it["nbytes"], it["fits"], it["gated"]) for it in found} == {(2040, True, False)}
        assert (await request(app, "GET", "/admin/search?q=nothing")).json()["data"] == []
        for wrong in ("", "?q=", "?q=a&limit=0", "?q=a&limit=99", f"?q={'a' * 201}"):
            assert (await request(app, "GET", f"/admin/search{wrong}")).status == 400
        repo.faults["listing"] = Faults(body=b'{"error": "no list"}')
        assert (await request(app, "GET", "/admin/search?q=model")).status == 503
