"""Many odd bodies, a few at a time, against a live service; what came of them."""

import asyncio
import time
from collections import Counter
from itertools import islice

import httpx2
import msgspec

from tests.support.bodies import Bodies

AT_ONCE = 4
SECONDS = 60.0
"""An answer that takes longer hangs."""


class Outcome(msgspec.Struct):
    """``statuses`` by how often, ``broken`` the bodies that were answered wrongly with what was wrong.

    ``slowest`` are the seconds and the body of the answer that took longest.
    """

    statuses: Counter[int]
    broken: list[tuple[str, bytes, str]]
    seconds: float
    slowest: tuple[float, bytes]


async def fuzz(url: str, model: str, *, count: int, seed: int) -> Outcome:
    """Ask ``count`` times; the bodies are made from the document that the service itself serves."""
    outcome = Outcome(Counter(), [], 0.0, (0.0, b""))
    begun = time.monotonic()
    async with httpx2.AsyncClient(base_url=url, timeout=SECONDS) as http:
        document = msgspec.json.decode((await http.get("/schema/openapi.json")).content)
        bodies = islice(Bodies(document, model, seed), count)

        async def work() -> None:
            for path, body in bodies:
                asked = time.monotonic()
                wrong = await _ask(http, outcome, path, body)
                outcome.slowest = max(outcome.slowest, (time.monotonic() - asked, body))
                if wrong:
                    outcome.broken.append((path, body, wrong))

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        after = await http.post("/v1/completions", json={"model": model, "prompt": "Hi", "max_tokens": 2})
    if after.status_code != 200:
        outcome.broken.append(("/v1/completions", b"", f"the service is left harmed: {after.text}"))
    outcome.seconds = time.monotonic() - begun
    return outcome


async def _ask(http: httpx2.AsyncClient, outcome: Outcome, path: str, body: bytes) -> str:
    """What is wrong with the answer; empty if nothing is."""
    try:
        async with asyncio.timeout(SECONDS):
            answer = await http.post(path, content=body, headers={"content-type": "application/json"})
    except (httpx2.HTTPError, TimeoutError) as failure:
        return f"no answer: {failure!r}"
    outcome.statuses[answer.status_code] += 1
    if answer.status_code not in {200, 400, 404}:
        return f"{answer.status_code}: {answer.text[:300]}"
    if answer.headers["content-type"].startswith("text/event-stream"):
        return "" if _ended(path, answer.text) else f"a stream that ends so: {answer.text[-300:]}"
    told = answer.json()
    if answer.status_code == 200:
        return "" if told["output" if path == "/v1/responses" else "choices"] else "no choices"
    error = told["error"]
    if set(error) != {"message", "type", "param", "code"} or not error["message"]:
        return f"an error of another shape: {error}"
    return ""


def _ended(path: str, stream: str) -> bool:
    if path == "/v1/responses":
        last = stream.removesuffix("\n\n").rpartition("\n\n")[2]
        return last.startswith(("event: response.completed\n", "event: response.incomplete\n"))
    return stream.endswith("data: [DONE]\n\n")
