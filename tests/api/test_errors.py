"""Every refusal has OpenAI's shape, whoever refuses."""

import msgspec
import pytest
from litestar import Litestar

from app.settings import Settings
from tests.api.conftest import Serve
from tests.support.asgi import exchange, request
from tests.support.events import COMPLETED, STARTED, ScriptedStrategy, told

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}
SHAPE = {"message", "type", "param", "code"}


@pytest.fixture
def app(serve: Serve) -> Litestar:
    return serve(ScriptedStrategy(STARTED, *told("a"), COMPLETED))


@pytest.mark.parametrize(
    ("method", "url", "status", "code"),
    [
        ("GET", "/nothing", 404, "unknown_url"),
        ("POST", "/", 405, "method_not_allowed"),
        ("GET", "/v1", 404, "unknown_url"),
        ("POST", "/v2/completions", 404, "unknown_url"),
        ("GET", "/schema/swagger", 404, "unknown_url"),
        ("GET", "/v1/models/no/such/model", 404, "model_not_found"),
        ("GET", "/v1/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/chat/completions", 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("PUT", "/v1/models/org/tiny", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
    ],
)
async def test_what_is_not_there_says_so_in_openais_shape(
    app: Litestar, method: str, url: str, status: int, code: str
) -> None:
    answer = await request(app, method, url)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert set(answer.error) == SHAPE
    assert answer.headers["x-request-id"]
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("/v1/completions", "OPTIONS, POST"),
        ("/v1/models/org/tiny", "GET, HEAD, OPTIONS"),
        ("/health/", "GET, HEAD, OPTIONS"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(app: Litestar, url: str, allowed: str) -> None:
    answer = await request(app, "PATCH", url)
    assert (answer.status, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"[]", None),
        (b"{", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
        (b'{"messages":' + b"[" * 100_000, None),
        (b"{}", "messages"),
        (b'{"messages":[{"role":"user","content":"x"}],"temperature":"1"}', "temperature"),
        (b'{"messages":[{"role":"user","content":"x"}],"tools":[{"type":"nonsense"}]}', "tools.0.type"),
        (b'{"messages":[{"role":"user","content":"x"}],"response_format":{"type":"nonsense"}}', "response_format.type"),
        (b'{"messages":[{"role":"user","content":"x"}],"stream_options":{}}', "stream_options"),
    ],
)
async def test_a_wrong_body_is_a_400_that_names_the_field(app: Litestar, body: bytes, param: str | None) -> None:
    answer = await request(app, "POST", "/v1/chat/completions", body)
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert answer.error["param"] == param
    assert set(answer.error) == SHAPE


async def test_any_content_type_is_read_as_json(app: Litestar) -> None:
    body = msgspec.json.encode(CHAT)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        answer = await request(app, "POST", "/v1/chat/completions", body, {"Content-Type": kind})
        assert answer.status == 200, kind


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_that_is_too_large_is_refused(serve: Serve, announced: bool) -> None:
    app = serve(ScriptedStrategy(STARTED), Settings(max_body_bytes=100))
    headers = {"content-length": "101"} if announced else {}
    async with exchange(app, "POST", "/v1/completions", [b"x" * 60, b"x" * 41], headers) as client:
        answer = await client.answer()
    assert (answer.status, answer.error["type"]) == (413, "invalid_request_error")


@pytest.mark.parametrize("sent", [None, "Bearer", "Bearer wrong", "Basic right", "right", "Bearer r\xe9"])
async def test_without_a_valid_key_nothing_under_v1_answers(serve: Serve, sent: str | None) -> None:
    app = serve(ScriptedStrategy(STARTED), Settings(api_keys=("right", "other")))
    headers = {} if sent is None else {"Authorization": sent}
    for method, url in (("POST", "/v1/completions"), ("POST", "/v1/chat/completions"), ("GET", "/v1/models")):
        answer = await request(app, method, url, CHAT, headers)
        assert (answer.status, answer.error["type"], answer.error["code"]) == (
            401,
            "authentication_error",
            "invalid_api_key",
        )
        assert answer.headers["www-authenticate"] == "Bearer"
    assert (await request(app, "GET", "/health")).status == 200


@pytest.mark.parametrize("key", ["right", "other"])
async def test_any_of_the_keys_opens(serve: Serve, key: str) -> None:
    app = serve(ScriptedStrategy(STARTED, *told("a"), COMPLETED), Settings(api_keys=("right", "other")))
    answer = await request(app, "POST", "/v1/chat/completions", CHAT, {"Authorization": f"Bearer {key}"})
    assert answer.status == 200


@pytest.mark.parametrize(
    ("sent", "kept"), [("abc-1.2:3", True), ("", False), ("a b", False), ("x" * 129, False), ("ü", False)]
)
async def test_the_request_id_is_the_clients_where_it_is_a_plain_word(app: Litestar, sent: str, kept: bool) -> None:
    answer = await request(app, "GET", "/health", headers={"X-Request-Id": sent.encode().decode("latin-1")})
    assert (answer.headers["x-request-id"] == sent) is kept
    assert answer.headers["x-request-id"]


async def test_health_and_models_answer(app: Litestar) -> None:
    for url in ("/health", "/health/live", "/health/ready"):
        assert (await request(app, "GET", url)).json() == {"status": "ok"}
    listed = (await request(app, "GET", "/v1/models")).json()
    assert listed["object"] == "list"
    assert {"org/tiny", "tiny"} <= {card["id"] for card in listed["data"]}
    for url in ("/v1/models/org/tiny", "/v1/models/org%2Ftiny"):
        card = (await request(app, "GET", url)).json()
        assert (card["id"], card["object"], card["owned_by"]) == ("org/tiny", "model", "local")
        assert isinstance(card["created"], int)


async def test_a_request_that_names_no_model_gets_the_default(serve: Serve) -> None:
    strategy = ScriptedStrategy(STARTED, *told("a"), COMPLETED)
    answer = await request(serve(strategy, Settings(default_model="tiny")), "POST", "/v1/completions", {"prompt": "x"})
    assert answer.status == 200
