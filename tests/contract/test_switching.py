"""Models that cannot be in memory together, on the real engine in a process of its own. Figures: docs/memory.md."""

import asyncio
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import httpx2
import msgspec
import openai
import pytest
from openai.types.completion import Completion

from app.schemas.admin import AdminEvent, AdminMemory, AdminModel, AdminModels
from tests.support.cut_pull import cut_pull
from tests.support.process import service
from tests.support.tiny import make_tiny

FOUR = ("a", "b", "c", "d")
ONE, TWO = "260MiB", "480MiB"
"""Each model takes 9.8 MB, 4.2 MB for its first request, some 75 MB for computing, and its process some 125 MB."""
CLIENTS = 20
SWITCHES = 4
SLACK = 1 << 20
GROWTH = 48 << 20
"""What allocators of a process may keep; a leak of weights would be five times as much."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("four")
    for seed, name in enumerate(FOUR):
        make_tiny(root / name, seed=seed, width=256, layers=4)
    return root


@pytest.fixture(scope="module", params=[ONE, TWO])
def url(request: pytest.FixtureRequest, root: Path) -> Iterator[str]:
    flags = ("--offline", "--model-root", str(root), "--memory-budget", request.param, "--log-level", "warning")
    with service(*flags) as running:
        yield running.url


def asking(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120)


def models(url: str) -> dict[str, AdminModel]:
    return {it.id: it for it in msgspec.json.decode(httpx2.get(f"{url}/admin/models").content, type=AdminModels).data}


def memory(url: str) -> AdminMemory:
    return msgspec.json.decode(httpx2.get(f"{url}/admin/memory").content, type=AdminMemory)


def loads(url: str) -> float:
    lines = httpx2.get(f"{url}/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("switchyard_model_loads_total")))


def emptied(url: str) -> AdminMemory:
    for model in models(url).values():
        if model.state == "resident":
            httpx2.post(f"{url}/admin/models/{model.id}/unload", timeout=30).raise_for_status()
    return memory(url)


async def test_twenty_clients_of_each_of_two_models_are_answered(url: str) -> None:
    before = loads(url)
    async with asking(url) as client:

        async def ask(number: int) -> Completion:
            return await client.completions.create(
                model=FOUR[number % 2], prompt=f"Number {number}:", max_tokens=8, temperature=0
            )

        answers = await asyncio.gather(*(ask(number) for number in range(2 * CLIENTS)))
    assert [answer.model for answer in answers] == [FOUR[number % 2] for number in range(2 * CLIENTS)]
    assert all(answer.usage.completion_tokens == 8 or answer.choices[0].finish_reason == "stop" for answer in answers)
    assert loads(url) - before <= 6, "who waits for the same model is served together"
    assert not any(model.leases or model.queued or model.kv_bytes for model in models(url).values())


async def test_switching_leaves_memory_as_it_was(url: str) -> None:
    async with asking(url) as client:

        async def around(times: int) -> AdminMemory:
            for number in range(times):
                await client.completions.create(model=FOUR[number % 4], prompt=f"Switch {number}", max_tokens=2)
            return emptied(url)

        first = await around(len(FOUR))
        last = await around(SWITCHES)
    assert abs(last.active - first.active) < SLACK
    assert last.process - first.process < GROWTH
    assert (last.weights, last.kv, last.unaccounted) == (0, 0, 0)


async def test_a_stream_goes_on_while_another_model_is_loaded(root: Path) -> None:
    with service("--offline", "--model-root", str(root), "--log-level", "warning") as running:
        async with asking(running.url) as client:
            await client.completions.create(model="a", prompt="Warm up", max_tokens=2)
            stream = await client.completions.create(
                model="a", prompt="Go on", max_tokens=1900, stream=True, logit_bias={"0": -100, "2": -100}
            )
            late = None
            times: list[float] = []
            async with stream:
                async for chunk in stream:
                    times += [time.monotonic()] if chunk.choices else []
                    if late is None and len(times) > 20:
                        asked = time.monotonic()
                        late = asyncio.create_task(client.completions.create(model="b", prompt="Now", max_tokens=1))
            answered = late is not None and late.done()
            assert late is not None
            await late
    during = [when for when in times if when >= asked]
    assert answered, "the other model was loaded and asked while the stream ran"
    assert max(after - before for before, after in pairwise(during)) < 1


def test_the_live_feed_tells_every_state(url: str) -> None:
    emptied(url)
    seen: dict[str, list[str]] = {name: [] for name in FOUR}
    with httpx2.stream("GET", f"{url}/admin/events", timeout=30) as feed:
        lines = feed.iter_lines()
        first = next(line for line in lines if line.startswith("data: {"))
        assert '"on_disk"' in first
        httpx2.post(f"{url}/admin/models/c/load", timeout=30).raise_for_status()
        time.sleep(0.5)  # changes that come close together are told together
        httpx2.post(f"{url}/admin/models/c/unload", timeout=30).raise_for_status()
        for line in lines:
            if line.startswith("data: {"):
                event = msgspec.json.decode(line[6:], type=AdminEvent)
                for model in event.models or ():
                    if model.id in seen and model.state not in seen[model.id][-1:]:
                        seen[model.id].append(model.state)
            if seen["c"][-1:] == ["on_disk"] and "resident" in seen["c"]:
                break
    order = [state for state in seen["c"] if state in {"loading", "resident", "unloading", "on_disk"}]
    assert order[-2:] == ["unloading", "on_disk"] or order[-2:] == ["resident", "on_disk"]
    assert "resident" in order
    assert all(set(states) <= {"on_disk"} for name, states in seen.items() if name != "c")


def test_a_pull_that_is_cut_three_times_is_resumed(tmp_path: Path) -> None:
    told = list(cut_pull(tmp_path, cuts=3, width=128))
    assert '"total":' in told[0]
