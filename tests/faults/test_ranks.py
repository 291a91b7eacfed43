"""A model over two ranks: it says what it says on one, and a rank that dies or freezes takes its own model alone."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from signal import Signals
from typing import Any

import httpx2
import msgspec
import openai
import psutil
import pytest
from openai import APIError, AsyncOpenAI

from app.schemas.admin import AdminModel, AdminModels
from tests.support.adapters import make_adapter
from tests.support.process import Service, service
from tests.support.tiny import make_tiny, make_uneven

LONG = {"0": -100, "2": -100}
"""A bias against the tokens that end a text."""
SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["fox", "dog"]}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
ENTRIES = """
[models.two]
ranks = 2
[models.far]
hosts = "far.json"
[models.away]
hosts = "hosts.json"
[models.nowhere]
hosts = "nowhere.json"
[models.behind]
hosts = "behind.json"
"""
ADAPTED = {"self_attn.q_proj": (64, 64), "mlp.down_proj": (128, 64)}
"""A layer that ranks share by its outputs, and one that they share by its inputs."""
HERE = {"ssh": "127.0.0.1", "ips": ["127.0.0.1"]}
HOSTS = [HERE, {"ssh": "no-such-host.invalid", "ips": ["127.0.0.1"]}]
SSH = """#!/bin/sh
# Stands for ssh: only two hosts can be reached, and they are here; one has an MLX that is older.
for last; do :; done
case "$*" in
*far-away*) exec env -i HOME="$HOME" PATH=/usr/bin:/bin sh -c "$last";;
*left-behind*) exec env -i HOME="$HOME" PATH=/usr/bin:/bin sh -c "$(echo "$last" | sed "s#PYTHONPATH=#&${0%/*}:#")";;
esac
exit 255
"""

OLDER = """
import importlib.metadata as metadata
there = metadata.version
metadata.version = lambda name: "0.1" if name == "mlx" else there(name)
"""

LOADS: list[float] = []
"""How long the first load took."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    place = tmp_path_factory.mktemp("ranks")
    for name in ("one", "two", "away", "nowhere", "behind"):
        make_tiny(place / "models" / name, seed=0)
    for name in ("near", "far"):
        make_uneven(place / "models" / name)
    make_adapter(place / "models" / "lora", ADAPTED, spread=0.2)
    (place / "config.toml").write_text(f'default_model = "one"\nmodel_roots = ["{place}/models"]\n')
    (place / "models.toml").write_text(ENTRIES)
    (place / "hosts.json").write_text(json.dumps(HOSTS))
    (place / "far.json").write_text(json.dumps([HERE, {"ssh": "far-away", "ips": ["127.0.0.1"]}]))
    ssh = place / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(SSH)
    ssh.chmod(0o755)
    (ssh.parent / "sitecustomize.py").write_text(OLDER)
    (place / "behind.json").write_text(json.dumps([HERE, {"ssh": "left-behind", "ips": ["127.0.0.1"]}]))
    (place / "nowhere.json").write_text(json.dumps({"hosts": HOSTS, "backend": "jaccl"}))
    path = f"{ssh.parent}:{os.environ['PATH']}"
    with service("--offline", "--config", str(place / "config.toml"), PATH=path) as started:
        yield started


@pytest.fixture
async def client(running: Service) -> AsyncIterator[AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def told(running: Service, name: str = "two") -> AdminModel:
    data = msgspec.json.decode(httpx2.get(f"{running.url}/admin/models").content, type=AdminModels).data
    return next(it for it in data if it.id == name)


async def answers(client: AsyncOpenAI, model: str, *, chat: bool = True) -> tuple[list[str], str, list[Any]]:
    """What must not depend on how many ranks there are: greedy and seeded texts, several at once, held to a schema."""
    prompts = ["Hi", "The quick brown fox", "Numbers: 0 1 2", "A model reads a prompt " * 12]
    asked: list[dict[str, Any]] = [{"prompt": it, "max_tokens": 16, "logprobs": 2, "temperature": 0} for it in prompts]
    asked += [{"prompt": it, "max_tokens": 16, "logprobs": 0, "temperature": 0.8, "seed": 7} for it in prompts]
    completions = await asyncio.gather(*(client.completions.create(model=model, **it) for it in asked))
    choices = [choice for it in completions for choice in it.choices]
    texts, logprobs = [it.text for it in choices], [it.logprobs.token_logprobs for it in choices]
    if not chat:
        return texts, "", logprobs
    held = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Who?"}],
        seed=1,
        max_tokens=60,
        response_format={"type": "json_schema", "json_schema": {"name": "who", "schema": SCHEMA}},
    )
    return texts, str(held.choices[0].message.content), logprobs


async def test_what_two_ranks_say_is_what_one_says_but_for_rounding(running: Service, client: AsyncOpenAI) -> None:
    began = time.monotonic()
    await streamed(client, tokens=1)
    LOADS.append(time.monotonic() - began)
    (texts, held, logprobs), (texts_2, held_2, logprobs_2) = [await answers(client, model) for model in ("one", "two")]
    assert texts == texts_2
    assert held == held_2
    assert set(json.loads(held)) == {"name", "age"}
    for ours, theirs in zip(logprobs, logprobs_2, strict=True):
        assert theirs == pytest.approx(ours, abs=1e-3)
    assert (await answers(client, "two"))[:2] == (texts, held), "from the prefix cache"
    one, two = [await answers(client, f"{model}:lora") for model in ("one", "two")]
    assert one[:2] == two[:2]
    assert one[0] != texts
    state = told(running)
    assert [rank.rank for rank in state.ranks] == [0, 1]
    assert state.ranks[0].pid == state.pid != state.ranks[1].pid
    assert state.process >= sum(rank.resident for rank in state.ranks) * 0.9


async def streamed(client: AsyncOpenAI, model: str = "two", tokens: int = 1800) -> tuple[int, APIError | None]:
    """How many pieces came, and the error that ended them."""
    pieces = 0
    try:
        asked: dict[str, Any] = {"prompt": "Hi", "max_tokens": tokens, "logit_bias": LONG, "stream": True}
        async with await client.completions.create(model=model, **asked) as stream:
            async for _ in stream:
                pieces += 1
    except openai.APIError as error:
        return pieces, error
    return pieces, None


@asynccontextmanager
async def eight_streams(client: AsyncOpenAI, model: str) -> AsyncIterator[Any]:
    streams = [asyncio.create_task(streamed(client, model)) for _ in range(8)]
    await asyncio.sleep(0.4)
    yield streams


async def ended(running: Service, client: AsyncOpenAI, model: str, *, rank: int, how: Signals, words: str) -> None:
    """What eight streams are told when something is done to a rank."""
    async with eight_streams(client, model) as streams:
        began = time.monotonic()
        os.kill(told(running, model).ranks[rank].pid, how)
        ends = await asyncio.gather(*streams)
        assert time.monotonic() - began < (5 if os.getloadavg()[0] < 4 else 15), (
            "on a machine that has nothing else to do"
        )
    for _, error in ends:
        assert error.body["code"] == "engine_lost", error
        assert words in error.message


async def test_a_rank_that_dies_ends_its_group_alone_and_the_next_request_starts_another(
    running: Service, client: AsyncOpenAI
) -> None:
    other = asyncio.create_task(streamed(client, "one", tokens=1500))
    await ended(running, client, "two", rank=1, how=signal.SIGKILL, words="rank 1: it was ended by SIGKILL")
    began = time.monotonic()
    pieces, error = await streamed(client, tokens=3)
    assert (pieces > 0, error) == (True, None)
    assert time.monotonic() - began < LOADS[0] + 10
    assert told(running).losses == 1
    assert (await other)[1] is None


async def test_clients_that_leave_at_any_moment_leave_the_others_alone_until_a_rank_freezes(
    running: Service, client: AsyncOpenAI
) -> None:
    staying = asyncio.create_task(streamed(client, tokens=200))
    for i in range(12):
        leaving = asyncio.create_task(streamed(client, tokens=300))
        await asyncio.sleep(0.013 * i)
        leaving.cancel()
    _, error = await staying
    assert error is None
    assert (await streamed(client, tokens=2))[1] is None
    state = told(running)
    await ended(running, client, "two", rank=1, how=signal.SIGSTOP, words="rank 1 was silent")
    assert told(running).losses == state.losses + 1
    assert not [rank.pid for rank in state.ranks if psutil.pid_exists(rank.pid)]


@pytest.mark.parametrize(
    ("model", "status", "words"),
    [
        ("nowhere", 400, "nowhere.json: jaccl needs an RDMA device"),
        ("away", 503, "no-such-host.invalid"),
        ("behind", 503, "(left-behind) runs mlx 0.1, not "),
    ],
)
async def test_what_cannot_be_divided_or_reached_says_which(
    client: AsyncOpenAI, model: str, status: int, words: str
) -> None:
    with pytest.raises(openai.APIStatusError) as refusal:
        await client.completions.create(model=model, prompt="Hi", max_tokens=2)
    assert refusal.value.status_code == status
    assert words in refusal.value.message


async def test_a_rank_of_another_host_is_started_by_ssh_handed_layers_and_notices_when_rank_0_freezes(
    running: Service, client: AsyncOpenAI
) -> None:
    near, far = [await answers(client, model, chat=False) for model in ("near", "far")]
    assert near[0] == far[0]
    assert [rank.host for rank in told(running, "far").ranks] == ["", "far-away"]
    await ended(running, client, "far", rank=0, how=signal.SIGSTOP, words="rank 0 was silent")
