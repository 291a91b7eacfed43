"""No value of any field makes a 5xx or a hang: seeded mutations of good bodies, through the real strategy."""

import asyncio
import random
from typing import Any

import msgspec
import pytest

from app.api.read import fields
from tests.api.conftest import Serve
from tests.support.asgi import request

BODIES = {
    "/v1/completions": (fields.COMPLETION, {"model": "tiny", "prompt": ["ab", "c"], "max_tokens": 4}),
    "/v1/responses": (
        fields.RESPONSE,
        {"model": "tiny", "input": [{"role": "user", "content": "x"}], "max_output_tokens": 4, "store": False},
    ),
    "/v1/chat/completions": (
        fields.CHAT,
        {"model": "tiny", "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}], "max_tokens": 4},
    ),
}
PLAUSIBLE: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    2,
    0.5,
    "a",
    "5m",
    ["a", "b"],
    [0, 1],
    [[0], [257]],
    {},
    {"1": -100, "01": 5},
)
VALUES: tuple[Any, ...] = (
    *(-1, 3, 5, 20, 257, 258, 4096, 2**31, 2**63, -(2**63), 2**64, 10**30, -0.0, 1.0, 1e-320, 1e308, -1e308),
    *("", "0", "-1", "\x00", "€😀", "{{ 1 }}", "x" * 10_000, [], [[]], [[[]]], [258], [-1], ["a", 0], [None]),
    *({"a": None}, {"type": "text"}, {"type": "json_object"}, {"include_usage": True}, {"tokenize": False}),
    *({"role": "user"}, [{"role": "user", "content": ""}], [{"role": "assistant", "tool_calls": []}]),
)
RAW = (b"NaN", b"-Infinity", b"1e999", b'"\\ud800"', b'"\xff"', b"[" * 70 + b"]" * 70, b'{"a":' * 70 + b"1" + b"}" * 70)


def mutated(rng: random.Random, names: list[str], good: dict[str, Any]) -> bytes:
    body = dict(good)
    for name in rng.sample(names, rng.choice((1, 1, 1, 2, 4))):
        body[name] = rng.choice(rng.choice((PLAUSIBLE, VALUES)))
    if rng.random() < 0.1:
        body.pop(rng.choice(list(body)))
    encoded = msgspec.json.encode(body)
    if rng.random() < 0.2:
        name, raw = rng.choice(names), rng.choice(RAW)
        encoded = encoded[:-1] + b"," + msgspec.json.encode(name) + b":" + raw + b"}"
    if rng.random() < 0.1:
        at = rng.randrange(len(encoded))
        encoded = encoded[:at] + rng.randbytes(1) + encoded[at + rng.randint(0, 2) :]
    return encoded


@pytest.mark.parametrize("url", BODIES)
async def test_no_body_breaks_the_service(serve: Serve, url: str) -> None:
    app = serve()
    table, good = BODIES[url]
    assert (await request(app, "POST", url, good)).status == 200
    rng = random.Random(20)  # noqa: S311
    seen: dict[int, int] = {}
    for _ in range(500):
        body = mutated(rng, [field.name for field in table], good)
        answer = await asyncio.wait_for(request(app, "POST", url, body), 10)
        seen[answer.status] = seen.get(answer.status, 0) + 1
        assert answer.status in {200, 400, 404}, (body, answer.body)
        if answer.status != 200:
            assert set(answer.error) == {"message", "type", "param", "code"}
            assert answer.error["message"]
        else:
            assert b'"error":{' not in answer.body, body
    assert seen[200] > 20
    assert seen[400] > 100
