"""HTTP as clients speak it: HEAD, lines, URLs that are nearly right, a model without a name."""

from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.signpost import PEERS, advice
from app.api.write.sse import unbroken
from app.generation.events import Delta, Finished
from app.settings import Settings
from tests.api.conftest import Serve
from tests.support.asgi import events, exchange, request
from tests.support.events import COMPLETED, STARTED, ScriptedStrategy

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}
HERE = "http://localhost"
BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
"""Where ``str.splitlines`` cuts; readers of other languages cut at some of these."""


async def test_head_is_wherever_get_is(serve: Serve) -> None:
    app = serve()
    gets = [route for route in app.routes if "GET" in route.methods and not route.path_parameters]
    paths = [route.path for route in gets if route.path != "/admin/events"]
    assert {"/", "/v1/models", "/health", "/metrics", "/schema/openapi.json", "/admin/models"} <= set(paths)
    for path in [*paths, "/v1/models/org/tiny", "/page/style.css", "/v1/models/nothing", "/nothing"]:
        got, head = await request(app, "GET", path), await request(app, "HEAD", path)
        assert (head.status, head.body) == (got.status, b""), path
        assert head.headers["content-type"] == got.headers["content-type"]
        if "x-request-id" not in got.body.decode():
            assert head.headers.get("content-length", "").isdigit()


async def test_head_of_an_endless_stream_ends(serve: Serve) -> None:
    async with exchange(serve(), "HEAD", "/admin/events") as client:
        answer = await client.answer()
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")


async def test_head_of_what_only_takes_post_is_a_405_that_says_so(serve: Serve) -> None:
    answer = await request(serve(), "HEAD", "/v1/completions")
    assert (answer.status, answer.headers["allow"], answer.body) == (405, "OPTIONS, POST", b"")


@pytest.mark.parametrize("text", [BREAKS, f"a{BREAKS}b", "é\u2028", "…\u0085\u00c2"])
async def test_no_frame_can_be_cut_within(serve: Serve, text: str) -> None:
    app = serve(ScriptedStrategy(STARTED, Delta(0, text, reasoning=text), Finished(0, "stop"), COMPLETED))
    answer = await request(app, "POST", "/v1/chat/completions", {**CHAT, "stream": True})
    told = [event for event in events(answer.body) if event != "[DONE]"]
    assert "".join(event["choices"][0]["delta"].get("content") or "" for event in told) == text
    lines = [line for line in answer.body.decode().splitlines() if line]
    assert len(lines) == len(told) + 1
    assert all(line.startswith("data: ") for line in lines)
    assert "charset=utf-8" in answer.headers["content-type"]


@given(st.text())
def test_a_frame_is_one_line_whatever_its_text(text: str) -> None:
    frame = unbroken(msgspec.json.encode({"a": text}))
    assert frame.decode().splitlines() == [frame.decode()]
    assert msgspec.json.decode(frame) == {"a": text}


PREFIXES = [
    "",
    "/v1",
    "/v1/v1",
    "/openai",
    "/api",
    "/api/v1",
    "/openai/deployments/tiny",
    "/v1/chat/completions",
    "/v1/",
    "/V1",
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    ("method", "tail"),
    [("POST", "chat/completions"), ("POST", "completions"), ("GET", "models"), ("GET", "models/org/tiny")],
)
async def test_a_base_url_that_is_nearly_right_is_told_what_to_change(
    serve: Serve, prefix: str, method: str, tail: str
) -> None:
    path = f"{prefix}/{tail}"
    answer = await request(serve(), method, path, CHAT if method == "POST" else None)
    if answer.status == 404 and answer.error["code"] == "unknown_url":
        assert f"It is {method} /v1/{tail} here: set the client's base URL to {HERE}/v1." in answer.error["message"]
    else:
        assert path.replace("//", "/") == f"/v1/{tail}" or answer.status == 405


async def test_a_base_url_with_the_endpoint_in_it_is_told_so_too(serve: Serve) -> None:
    answer = await request(serve(), "POST", "/v1/models/chat/completions", CHAT)
    assert answer.status == 405
    assert f"base URL to {HERE}/v1." in answer.error["message"]


@pytest.mark.parametrize(
    ("method", "path", "told"),
    [
        ("POST", "/api/chat", "POST /v1/chat/completions"),
        ("POST", "/api/generate", "POST /v1/completions"),
        ("GET", "/api/tags", "GET /v1/models"),
        ("POST", "/api/show", "GET /v1/models/{id}"),
        ("POST", "/api/pull", "POST /admin/models/{id}/pull"),
        ("DELETE", "/api/delete/", "DELETE /admin/models/{id}"),
        ("GET", "/api/blobs/sha256:0", f"{HERE}/v1"),
        ("POST", "/api", f"{HERE}/v1"),
        ("POST", "/completion", "POST /v1/completions"),
        ("GET", "/v1/health", "GET /health here."),
        ("GET", "/nothing", "GET /schema/openapi.json"),
    ],
)
async def test_paths_of_other_servers_are_told_which_of_ours_does_it(
    serve: Serve, method: str, path: str, told: str
) -> None:
    answer = await request(serve(), method, path)
    assert answer.status == 404
    assert told in answer.error["message"]


def test_only_what_is_served_is_named() -> None:
    for path in PEERS:
        assert not advice("POST", path, HERE, lambda _method, _path: False).startswith("What")


PARTS = st.sampled_from(["v1", "V1", "chat", "completions", "Completions", "models", "a", ""])


@given(st.sampled_from(["GET", "POST", "DELETE"]), st.lists(PARTS))
def test_advice_names_another_path_that_is_served(method: str, parts: list[str]) -> None:
    served = {("POST", "/v1/chat/completions"), ("POST", "/v1/completions"), ("GET", "/v1/models")}
    path = "/" + "/".join(parts)
    told = advice(method, path, HERE, lambda *asked: asked in served)
    if told:
        right = told.split()[3]
        assert (method, right) in served
        assert right != path
        assert urlsplit(right).path == right


@pytest.mark.parametrize("model", ["", " ", None])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
async def test_a_model_without_a_name_is_the_default_one(serve: Serve, path: str, model: str | None) -> None:
    app = serve(settings=Settings(default_model="tiny"))
    answer = await request(app, "POST", path, {**CHAT, "prompt": "x", "model": model})
    assert (answer.status, answer.json()["model"]) == (200, "tiny")


async def test_models_tell_what_clients_ask_before_they_are_loaded(serve: Serve, tmp_path: Path) -> None:
    app = serve()
    config = tmp_path / "models" / "tiny" / "config.json"
    config.write_text('{"model_type": "llama", "max_position_embeddings": 2048}')
    (config.parent / "chat_template.jinja").write_text("{{ tools }}{{ messages }}")
    card = (await request(app, "GET", "/v1/models/tiny")).json()
    assert card["max_model_len"] == card["context_length"] == card["max_output_tokens"] == 2048
    assert card["capabilities"] == {
        "chat": True, "completions": True, "tools": True, "reasoning": False, "images": False, "audio": False,
        "embeddings": False, "rerank": False,
    }  # fmt: skip
    listed = {it["id"]: it for it in (await request(app, "GET", "/v1/models")).json()["data"]}
    assert listed["tiny"] == card
    assert listed["smollm2"]["root"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert (await request(app, "GET", "/v1/models/smollm2")).json() == listed["smollm2"]
    assert listed["org/tiny"]["context_length"] is None
