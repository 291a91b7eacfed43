"""What operators see: headers, log lines, metrics, traces."""

import asyncio
import io
import json
import re
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar import Litestar
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from prometheus_client.parser import text_string_to_metric_families

from app.api.observe.metrics import MODELS, Metrics
from app.api.observe.record import Record, observed
from app.api.observe.tracing import tracer
from app.engine.work import Work
from app.errors import EngineFailed
from app.observability import configure_logging
from tests.api.conftest import Serve
from tests.support.asgi import exchange, forever, request
from tests.support.events import COMPLETED, STARTED, ScriptedStrategy, told
from tests.support.scripted import ScriptedEngine, ScriptedLoader

ASK = {"model": "org/tiny", "prompt": "Hi", "max_tokens": 5}
OPS = Path(__file__).parents[2] / "docs" / "ops"


async def scraped(app: Litestar) -> dict[str, float]:
    """Every sample by its name and labels."""
    answer = await request(app, "GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        f"{sample.name}{json.dumps(sample.labels, sort_keys=True) if sample.labels else ''}": sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


async def test_every_answer_says_its_id_and_how_long_it_took(serve: Serve) -> None:
    app = serve()
    whole = await request(app, "POST", "/v1/completions", ASK, {"X-Request-ID": "my-id"})
    assert whole.headers["x-request-id"] == "my-id"
    assert whole.headers["openai-processing-ms"].isdigit()
    parts = re.findall(r"(\w+);dur=([0-9.]+)", whole.headers["server-timing"])
    assert [name for name, _ in parts] == ["queue", "load", "prefill", "decode"]
    streamed = await request(app, "POST", "/v1/completions", ASK | {"stream": True})
    assert re.findall(r"(\w+);dur", streamed.headers["server-timing"]) == ["queue", "load"]
    for method, url in (("GET", "/v1/nothing"), ("GET", "/health"), ("POST", "/v1/completions")):
        assert (await request(app, method, url)).headers["x-request-id"]
    forged = await request(app, "GET", "/health", headers={"X-Request-ID": "a b\tc"})
    assert re.fullmatch("[0-9a-f]{32}", forged.headers["x-request-id"])


async def test_one_line_tells_of_a_request(serve: Serve) -> None:
    async def ask(app: Litestar) -> None:
        await request(app, "POST", "/v1/completions", ASK, {"X-Request-ID": "one"})
        await request(app, "POST", "/v1/completions", ASK | {"model": "no/such"}, {"X-Request-ID": "two"})
        await request(app, "GET", "/health")

    first, second = await lines_of(ask, serve())
    assert first["event"] == "request"
    assert (first["request_id"], first["model"], first["outcome"]) == ("one", "org/tiny", "answered")
    assert first["completion_tokens"] == 5
    assert first["prompt_tokens"] == 3
    assert {"queue_ms", "load_ms", "first_token_ms", "tokens_per_second", "ms", "status"} <= first.keys()
    assert (second["request_id"], second["status"], second["outcome"]) == ("two", 404, "refused")
    assert second["error"] == "model_not_found"


async def test_a_failure_that_nobody_foresaw_is_logged_without_the_values_of_variables(serve: Serve) -> None:
    stream = io.StringIO()
    secret = "the-prompt-nobody-may-see"

    class Broken(ScriptedStrategy):
        async def run(self, *_: Any, **__: Any) -> AsyncGenerator[Any]:
            held = secret
            known: dict[int, Any] = {}
            yield known[len(held)]

    app = serve(Broken())
    configure_logging("info", "console", stream)
    try:
        answer = await request(app, "POST", "/v1/completions", ASK)
    finally:
        configure_logging("info", "console")
    assert answer.status == 500
    assert "KeyError" in stream.getvalue()
    assert secret not in stream.getvalue()
    assert "KeyError" not in answer.body.decode()


async def test_metrics_count_requests_tokens_and_failures(serve: Serve) -> None:
    app = serve()
    for _ in range(3):
        await request(app, "POST", "/v1/completions", ASK)
    await request(app, "POST", "/v1/completions", ASK | {"n": 999})
    async with exchange(app, "POST", "/v1/completions", msgspec.json.encode(ASK | {"stream": True})) as client:
        await client.started()
    seen = await scraped(app)
    assert seen['switchyard_requests_total{"model": "org/tiny", "outcome": "answered"}'] == 3
    assert seen['switchyard_requests_total{"model": "none", "outcome": "refused"}'] == 1
    assert seen['switchyard_errors_total{"code": "400"}'] == 1
    assert seen['switchyard_completion_tokens_total{"model": "org/tiny"}'] >= 15
    assert seen['switchyard_prompt_tokens_total{"model": "org/tiny"}'] >= 9
    assert seen['switchyard_time_to_first_token_seconds_count{"model": "org/tiny"}'] >= 3
    assert seen['switchyard_inter_token_seconds_bucket{"le": "+Inf", "model": "org/tiny"}'] >= 12
    assert seen['switchyard_batch_rows{"model": "org/tiny"}'] == 0
    assert seen["switchyard_model_loads_total"] == 1
    assert seen['switchyard_memory_bytes{"kind": "weights"}'] == 100
    assert seen["switchyard_queue_depth"] == 0
    assert seen["switchyard_running_requests"] == 0
    assert seen["switchyard_kv_cache_usage"] == 0


async def test_the_page_on_operations_lists_every_metric_and_no_page_names_another(serve: Serve) -> None:
    app = serve()
    await request(app, "POST", "/v1/completions", ASK)
    answer = await request(app, "GET", "/metrics")
    told = re.findall(r"^# TYPE (switchyard_\w+) \w+$", answer.body.decode(), re.MULTILINE)
    names = {name for name in told if not name.endswith("_created")}
    table = (OPS.parent / "operations.md").read_text().partition("begin with `switchyard_`:")[2].partition("\n\n```")[0]
    rows = "".join(row for row in table.splitlines() if row.startswith("| ") and "`" in row)
    listed = set(re.findall(r"`([a-z_]{7,})`", rows)) - {"outcome"}
    assert {f"switchyard_{name}" for name in listed} == names
    for page in OPS.parent.rglob("*.md"):
        for name in re.findall(r"`(switchyard_\w*[a-z])(?:\*|`)", page.read_text()):
            assert any(it.startswith(name) for it in names), f"{page.name}: {name}"


async def test_balancers_find_what_the_page_on_replicas_names(serve: Serve) -> None:
    app = serve()
    page = (OPS.parent / "replicas.md").read_text()
    named = set(re.findall(r"^\| `(switchyard_\w+)` \|", page, re.MULTILINE))
    assert len(named) >= 3
    asked = msgspec.json.encode(ASK | {"stream": True, "max_tokens": 500})
    async with exchange(app, "POST", "/v1/completions", asked) as client:
        await client.started()
        seen = await scraped(app)
        assert named <= {name.partition("{")[0] for name in seen}
        assert seen["switchyard_running_requests"] == 1
        assert 0 < seen["switchyard_kv_cache_usage"] < 1


async def test_what_prefix_caches_spare_is_counted_by_tier(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    app = serve()
    await request(app, "POST", "/v1/completions", ASK)
    monkeypatch.setattr(ScriptedEngine, "work", lambda _: Work(0, 0, hits=2, spared=900))
    seen = await scraped(app)
    assert seen['switchyard_prefix_hits_total{"model": "org/tiny", "tier": "memory"}'] == 2
    assert seen['switchyard_prefix_tokens_spared_total{"model": "org/tiny", "tier": "memory"}'] == 900


async def test_draft_tokens_are_counted_for_models_that_are_drafted_for(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = serve()
    await request(app, "POST", "/v1/completions", ASK)
    assert not [name for name in await scraped(app) if "draft_tokens" in name]
    monkeypatch.setattr(ScriptedEngine, "work", lambda _: Work(0, 0, proposed=9, accepted=7))
    seen = await scraped(app)
    assert seen['switchyard_draft_tokens_proposed_total{"model": "org/tiny"}'] == 9
    assert seen['switchyard_draft_tokens_accepted_total{"model": "org/tiny"}'] == 7


async def test_a_failure_within_a_stream_is_a_failure(serve: Serve) -> None:
    app = serve(ScriptedStrategy(STARTED, *told("a")[:1], EngineFailed("It broke.")))
    await request(app, "POST", "/v1/completions", ASK | {"stream": True})
    seen = await scraped(app)
    assert seen['switchyard_requests_total{"model": "org/tiny", "outcome": "failed"}'] == 1
    assert seen['switchyard_errors_total{"code": "engine_failed"}'] == 1


def test_labels_are_bounded() -> None:
    metrics = Metrics(lambda: None, lambda: 0)
    for number in range(MODELS + 50):
        record = Record({"method": "POST", "path": "/v1/completions", "headers": [], "state": {}})
        record.model, record.status, record.complete = f"m/{number}", 200, True
        metrics.observe(record)
    (family,) = (it for it in metrics.collectors.collect() if it.name == "switchyard_requests")
    labels = {sample.labels["model"] for sample in family.samples}
    assert len(labels) == MODELS + 1
    assert "other" in labels


class Kept(SpanExporter):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS


async def test_a_request_is_a_trace_with_its_parts() -> None:
    kept = Kept()
    tell = tracer(kept)

    async def app(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        record = scope["state"]["record"]
        for event in (STARTED, *told("a", "b"), COMPLETED):
            record.see(event)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = [(b"traceparent", f"00-{trace}-b7ad6b7169203331-01".encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers, "state": {}}

    async def send(_message: dict[str, Any]) -> None:
        pass

    await observed(app, tell)(scope, forever, send)
    tell.flush()
    (root,) = (span for span in kept.spans if span.name == "chat org/tiny")
    assert f"{root.context.trace_id:032x}" == trace
    assert root.attributes["gen_ai.operation.name"] == "chat"
    assert root.attributes["gen_ai.request.model"] == "org/tiny"
    assert root.attributes["gen_ai.usage.output_tokens"] == 4
    parts = {span.name: span for span in kept.spans if span is not root}
    assert list(parts) == ["queue", "load", "prefill", "decode"]
    assert all(span.parent.span_id == root.context.span_id for span in parts.values())
    assert parts["load"].start_time == parts["queue"].end_time


@pytest.mark.parametrize("name", ["grafana.json", "alerts.yml"])
async def test_dashboards_and_alerts_ask_for_metrics_that_there_are(serve: Serve, name: str) -> None:
    app = serve()
    await request(app, "POST", "/v1/completions", ASK)
    answer = await request(app, "GET", "/metrics")
    known = {
        sample.name for family in text_string_to_metric_families(answer.body.decode()) for sample in family.samples
    } | set(re.findall(r"^# TYPE (\S+) ", answer.body.decode(), re.MULTILINE))
    ours = "switchyard|process" if sys.platform == "linux" else "switchyard"
    asked = set(re.findall(rf"\b(?:{ours})_[a-z_]+\b", (OPS / name).read_text()))
    assert len(asked) >= 5
    assert asked <= known, asked - known


async def lines_of(act: Callable[..., Awaitable[None]], app: Litestar) -> list[dict[str, Any]]:
    """What is logged while ``act`` runs."""
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    try:
        await act(app)
    finally:
        configure_logging("info", "console")
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages"])
async def test_a_client_that_left_has_had_the_tokens_that_were_made(
    serve: Serve, loader: ScriptedLoader, path: str, stream: bool
) -> None:
    loader.script = lambda *_: b"word " * 400
    own = {"/v1/completions": {"prompt": "Hi"}, "/v1/responses": {"input": "Hi"}}
    body = {"model": "tiny", "stream": stream, "max_tokens": 2000}
    body |= own.get(path, {"messages": [{"role": "user", "content": "Hi"}]})

    async def leave(app: Litestar) -> None:
        async with exchange(app, "POST", path, msgspec.json.encode(body)) as client:
            for _ in range(2000):
                await asyncio.sleep(0.001)
                if (engine := loader.engines.get("tiny")) and engine.streams:
                    break
            for _ in range(30):
                await asyncio.sleep(0)
            engine.may_step.clear()
            await asyncio.sleep(0.02)
            client.disconnect()
            await asyncio.sleep(0.02)
            engine.may_step.set()

    app = serve()
    (line,) = await lines_of(leave, app)
    assert line["outcome"] == "left"
    assert 0 < line["completion_tokens"] < 2000
    listed = await request(app, "GET", "/admin/models")
    assert listed.status == 200
    assert app.state.live._journal.entries()[0].completion_tokens == line["completion_tokens"]


async def test_the_wait_of_a_client_that_left_in_the_queue_is_told(serve: Serve, loader: ScriptedLoader) -> None:
    loader.gate.clear()

    async def leave(app: Litestar) -> None:
        body = msgspec.json.encode(ASK)
        async with exchange(app, "POST", "/v1/completions", body) as client:
            for _ in range(2000):
                await asyncio.sleep(0.001)
                if loader.diary:
                    break
            await asyncio.sleep(0.05)
            client.disconnect()

    (line,) = await lines_of(leave, serve())
    loader.gate.set()
    assert line["queue_ms"] >= 40
    assert "completion_tokens" not in line
