"""No value of any field of Anthropic's makes a 5xx or a hang, and every refusal has its shape."""

import asyncio
import random

from app.api.read import anthropic_fields
from tests.api.conftest import Serve
from tests.api.test_fuzz import mutated
from tests.support.asgi import request

GOOD = {
    "model": "tiny",
    "max_tokens": 4,
    "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}, {"role": "system", "content": "y"}],
}
NAMES = [field.name for field in anthropic_fields.MESSAGES if "." not in field.name]


async def test_no_body_breaks_the_service(serve: Serve) -> None:
    app = serve()
    rng = random.Random(20)  # noqa: S311
    seen: dict[int, int] = {}
    for number in range(500):
        body = mutated(rng, NAMES, GOOD)
        url = "/v1/messages/count_tokens" if number % 5 == 0 else "/v1/messages"
        answer = await asyncio.wait_for(request(app, "POST", url, body), 10)
        seen[answer.status] = seen.get(answer.status, 0) + 1
        assert answer.status in {200, 400, 404}, (body, answer.body)
        if answer.status != 200:
            told = answer.json()
            assert told["type"] == "error"
            assert told["error"]["message"]
        else:
            assert b"event: error" not in answer.body, body
    assert seen[200] > 20
    assert seen[400] > 100
