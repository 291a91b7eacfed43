import asyncio
import io
import tomllib
from hashlib import sha256
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar import Litestar
from msgspec import structs

from app.api.protect.access import Access, Caller, Usage
from app.api.protect.cors import USUAL, Cors
from app.api.protect.hosts import Names, same_site
from app.cli.check.key import entry, new_key
from app.errors import Forbidden, QueueFull
from app.observability import configure_logging
from app.schemas.completions import CompletionRequest
from app.settings import Settings
from app.settings.keys import ApiKey, digest_of, read_keys
from app.settings.problem import SettingsProblem
from tests.api.conftest import Serve
from tests.support.asgi import exchange, request
from tests.support.scripted import ScriptedLoader

ASK = {"model": "tiny", "prompt": "Hi", "max_tokens": 3}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def keyed(serve: Serve, tmp_path: Path) -> Litestar:
    """The application with one key of all rights, and these in a file."""
    entries = {
        "infer": "",
        "watcher": 'scopes = ["metrics"]',
        "operator": 'scopes = ["admin"]',
        "narrow": 'models = ["org/*"]',
        "slow": "requests_per_minute = 2",
        "lone": "concurrent_requests = 1",
    }
    lines = [
        f'[keys.{name}]\nhash = "sha256:{sha256(f"sk-{name}".encode()).hexdigest()}"\n{rest}\n'
        for name, rest in entries.items()
    ]
    path = tmp_path / "keys.toml"
    path.write_text("\n".join(lines))
    return serve(settings=Settings(api_keys=("sk-root",), key_file=path))


def test_no_request_waits_for_a_thread_to_be_let_in(keyed: Litestar) -> None:
    handlers = [handler for route in keyed.routes for handler in getattr(route, "route_handlers", ())]
    guards = {guard for handler in handlers for guard in handler.resolve_guards()}
    assert len(guards) == 4
    assert all(iscoroutinefunction(guard) for guard in guards), guards


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-api-key": "sk-infer"}, 200),
        ({"x-api-key": " sk-infer "}, 200),
        ({"X-Api-Key": "sk-wrong"}, 401),
        ({"x-api-key": ""}, 401),
        ({"x-api-key": "Bearer sk-infer"}, 401),
        ({"x-api-key": "sk-watcher"}, 403),
        ({"Authorization": "Bearer sk-wrong", "x-api-key": "sk-infer"}, 200),
        ({"Authorization": "Basic sk-infer"}, 401),
    ],
)
async def test_a_key_may_come_as_anthropics_clients_send_it(
    keyed: Litestar, headers: dict[str, str], status: int
) -> None:
    answer = await request(keyed, "POST", "/v1/completions", ASK, headers)
    assert answer.status == status


@pytest.mark.parametrize(
    ("method", "url", "key", "status"),
    [
        ("POST", "/v1/completions", None, 401),
        ("POST", "/v1/completions", "sk-wrong", 401),
        ("POST", "/v1/completions", "sk-infe", 401),
        ("POST", "/v1/completions", "sk-infer", 200),
        ("POST", "/v1/completions", "sk-root", 200),
        ("POST", "/v1/completions", "sk-watcher", 403),
        ("GET", "/v1/models", "sk-operator", 403),
        ("GET", "/v1/models", "sk-infer", 200),
        ("GET", "/admin/models", None, 401),
        ("GET", "/admin/models", "sk-infer", 403),
        ("GET", "/admin/models", "sk-operator", 200),
        ("GET", "/metrics", None, 401),
        ("GET", "/metrics", "sk-operator", 403),
        ("GET", "/metrics", "sk-watcher", 200),
        ("GET", "/health/ready", None, 200),
        ("GET", "//v1/models", None, 401),
        ("GET", "/v1/models/", None, 401),
        ("GET", "/v1/%6dodels", None, 401),
    ],
)
async def test_a_key_opens_what_its_scopes_say(
    keyed: Litestar, method: str, url: str, key: str | None, status: int
) -> None:
    answer = await request(keyed, method, url, ASK if method == "POST" else None, bearer(key) if key else {})
    assert answer.status == status or (status == 401 and answer.status == 404 and url.startswith("//"))
    if answer.status in {401, 403}:
        assert answer.error["type"] == {401: "authentication_error", 403: "permission_error"}[status]
        assert answer.error["code"] == {401: "invalid_api_key", 403: "permission_denied"}[status]
    if answer.status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_key_reaches_only_its_models_by_whatever_name(keyed: Litestar) -> None:
    for model, status in [("org/tiny", 200), ("tiny", 403), (None, 403)]:
        answer = await request(keyed, "POST", "/v1/completions", ASK | {"model": model}, bearer("sk-narrow"))
        assert answer.status == status
    listed = await request(keyed, "GET", "/v1/models", None, bearer("sk-narrow"))
    assert [card["id"] for card in listed.json()["data"]] == ["org/other", "org/tiny"]
    assert (await request(keyed, "GET", "/v1/models/tiny", None, bearer("sk-narrow"))).status == 404


def test_patterns_are_matched_with_the_id_behind_an_alias() -> None:
    usage = Usage(ApiKey("k", b"", frozenset({"infer"}), ("org/*",)))
    caller = Caller(usage, {"nick": "org/tiny", "org/fake": "other/large", None: "org/tiny"}.__getitem__)
    for allowed in ("nick", None):
        caller.check(CompletionRequest(model=allowed))
    with pytest.raises(Forbidden):
        caller.check(CompletionRequest(model="org/fake"))


async def test_a_rate_is_kept_and_told_when_to_come_back(keyed: Litestar) -> None:
    statuses = [(await request(keyed, "POST", "/v1/completions", ASK, bearer("sk-slow"))).status for _ in range(2)]
    refused = await request(keyed, "POST", "/v1/completions", ASK, bearer("sk-slow"))
    assert statuses == [200, 200]
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert refused.error["type"] == "rate_limit_error"
    assert 25 <= int(refused.headers["retry-after"]) <= 30
    assert (await request(keyed, "POST", "/v1/completions", ASK, bearer("sk-infer"))).status == 200


async def test_a_key_runs_so_many_requests_at_once_and_gets_its_place_back(
    keyed: Litestar, loader: ScriptedLoader
) -> None:
    await request(keyed, "POST", "/v1/completions", ASK, bearer("sk-lone"))
    loader.engines["tiny"].may_step.clear()
    body = b'{"model": "tiny", "prompt": "Hi", "stream": true}'
    async with exchange(keyed, "POST", "/v1/completions", body, bearer("sk-lone")) as first:
        await first.started()
        refused = await request(keyed, "POST", "/v1/completions", ASK, bearer("sk-lone"))
        assert (refused.status, refused.error["code"]) == (429, "concurrency_limit_exceeded")
        assert refused.headers["retry-after"] == "1"
    loader.engines["tiny"].may_step.set()
    for _ in range(3):  # those that were refused, too, hold nothing
        assert (await request(keyed, "POST", "/v1/completions", ASK, bearer("sk-lone"))).status == 200


async def test_a_rate_fills_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("app.api.protect.access.monotonic", lambda: now)
    usage = Usage(ApiKey("k", b"", frozenset({"infer"}), requests_per_minute=60))
    for _ in range(60):
        usage.take()
    with pytest.raises(QueueFull):
        usage.take()
    now = 1.0
    usage.take()
    with pytest.raises(QueueFull):
        usage.take()


def test_keys_that_are_read_again_keep_what_they_have_used() -> None:
    key = ApiKey("k", digest_of("sk"), frozenset({"infer"}), concurrent_requests=1)
    access = Access((key,), str)
    access._usages[key.digest].take()
    access.replace((key, ApiKey("new", digest_of("other"), frozenset())))
    assert access._usages[key.digest].running == 1
    access.replace((structs.replace(key, concurrent_requests=2),))
    assert access._usages[key.digest].running == 0


async def test_neither_keys_nor_prompts_are_logged(keyed: Litestar) -> None:
    stream, secret = io.StringIO(), "the-prompt-nobody-may-see"
    configure_logging("debug", "json", stream)
    try:
        for body in (ASK | {"prompt": secret}, ASK | {"prompt": secret, "stop": 5}, {"prompt": secret, "n": 999}):
            await request(keyed, "POST", "/v1/completions", body, bearer("sk-root"))
            await request(keyed, "POST", "/v1/completions", body, bearer("sk-wrong-key"))
    finally:
        configure_logging("info", "console")
    assert stream.getvalue().count('"event":"request"') == 6
    for word in (secret, "sk-root", "sk-wrong-key", sha256(b"sk-root").hexdigest()):
        assert word not in stream.getvalue()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[keys.a]\nhash = 'sha256:12'", "keys"),
        ("[keys.a]\nhash = 'sha256:" + "a" * 64 + "'\nscopes = ['root']", "keys"),
        ("[keys.a]\nhash = 'sha256:" + "a" * 64 + "'\ncolour = 1", "keys"),
        ("[keys", "TOML"),
    ],
)
def test_a_wrong_key_file_is_said_in_one_line_without_its_hashes(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(SettingsProblem) as problem:
        read_keys(Settings(key_file=path))
    assert said in str(problem.value)
    assert str(path) in str(problem.value)
    assert "aaaa" not in str(problem.value)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("header", "known"),
    [
        ("localhost", True),
        ("localhost:8000", True),
        ("LOCALHOST.:8000", True),
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("192.168.1.7", True),
        ("app.localhost", True),
        ("api.example.com", True),
        ("x.lan.example", True),
        ("host.docker.internal:8000", True),
        ("host.containers.internal", True),
        ("evil.docker.internal", False),
        ("host.docker.internal.evil.example", False),
        ("lan.example", False),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("evil.example/localhost", False),
        ("localhost@evil.example", False),
        ("evil.example:localhost", False),
        ("", False),
        ("127.0.0.1.evil.example", False),
        ("0x7f000001.evil", False),
    ],
)
def test_only_own_names_are_known(header: str, known: bool) -> None:
    assert Names("127.0.0.1", ("api.example.com", "*.lan.example")).known(header) is known


def test_any_name_may_be_allowed() -> None:
    assert Names("127.0.0.1", ("*",)).known("evil.example")


def test_a_site_is_scheme_name_and_port() -> None:
    assert same_site("http://localhost:8000", "localhost:8000")
    assert not same_site("http://localhost:9000", "localhost:8000")
    assert not same_site("null", "")
    assert not same_site("file://localhost", "localhost")


async def test_a_host_of_another_name_is_refused(serve: Serve) -> None:
    app = serve()
    for url in ("/v1/models", "/health", "/", "/metrics"):
        answer = await request(app, "GET", url, headers={"Host": "evil.example"})
        assert answer.status == 400  # two Host headers
    async with exchange(app, "GET", "/v1/models", host="evil.example") as client:
        answer = await client.answer()
    assert (answer.status, answer.error["code"]) == (403, "host_not_allowed")
    assert answer.headers["x-request-id"]


async def test_pages_of_other_sites_are_refused_unless_they_are_allowed(serve: Serve) -> None:
    app, open_app = serve(), serve(settings=Settings(cors_origins=("https://chat.example",)))
    evil = {"Origin": "https://chat.example"}
    refused = await request(app, "POST", "/v1/completions", ASK, evil)
    assert (refused.status, refused.error["code"]) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in refused.headers
    asked = await request(app, "OPTIONS", "/v1/completions", headers=evil | {"Access-Control-Request-Method": "POST"})
    assert asked.status == 403
    answered = await request(open_app, "POST", "/v1/completions", ASK, evil)
    assert answered.status == 200
    assert answered.headers["access-control-allow-origin"] == "https://chat.example"
    before = await request(
        open_app, "OPTIONS", "/v1/completions", headers=evil | {"Access-Control-Request-Method": "POST"}
    )
    assert before.status == 204
    allowed = before.headers["access-control-allow-headers"].split(", ")
    assert {"authorization", "x-api-key", "anthropic-version"} <= set(allowed)
    assert "authorization" in before.headers["access-control-allow-headers"]
    assert "HEAD" in before.headers["access-control-allow-methods"]
    assert (await request(open_app, "GET", "/v1/models", headers={"Origin": "https://evil.example"})).status == 403
    own = await request(app, "POST", "/v1/completions", ASK, {"Origin": "http://localhost"})
    assert own.status == 200


@given(st.lists(st.from_regex(r"\A[A-Za-z0-9-]{1,24}\Z"), min_size=1, max_size=12))
def test_an_allowed_site_may_send_whatever_headers_it_asks_for(names: list[str]) -> None:
    assert asked_headers(", ".join(names)) == ", ".join(names)


@given(st.text(st.characters(max_codepoint=255), max_size=40))
def test_what_is_no_list_of_headers_is_not_echoed(text: str) -> None:
    told = asked_headers(text)
    assert told in {text.strip(), USUAL}
    assert "\n" not in told
    assert "\r" not in told


def asked_headers(wanted: str) -> str:
    """What a preflight that asks for ``wanted`` is told."""
    sent = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"headers": [(b"access-control-request-headers", wanted.encode("latin-1"))]}
    asyncio.run(Cors(("https://chat.example",)).preflight(scope, send))
    return dict(sent[0]["headers"])[b"access-control-allow-headers"].decode()


async def test_the_description_can_be_switched_off(serve: Serve) -> None:
    assert (await request(serve(), "GET", "/schema/openapi.json")).status == 200
    hidden = await request(serve(settings=Settings(docs=False)), "GET", "/schema/openapi.json")
    assert (hidden.status, hidden.error["code"]) == (404, "unknown_url")


def test_what_the_key_command_writes_can_be_read(tmp_path: Path) -> None:
    key = new_key()
    path = tmp_path / "keys.toml"
    path.write_text(entry("laptop", key, scopes=("infer", "admin"), models=("org/*",), rate=60, concurrent=4))
    (read,) = read_keys(Settings(key_file=path))
    assert read == ApiKey("laptop", digest_of(key), frozenset({"infer", "admin"}), ("org/*",), 60, 4)
    assert len(key) > 40
    assert key not in path.read_text()
    assert tomllib.loads(path.read_text())
