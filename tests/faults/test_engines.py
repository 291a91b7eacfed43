"""Models' processes that crash, hang, are hostile or are left alone: what is one model's stays one model's."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import mlx.core as mx
import msgspec
import openai
import psutil
import pytest
from openai import APIError, AsyncOpenAI

from app.schemas.admin import AdminModel, AdminModels
from tests.support.process import Service, service
from tests.support.tiny import make_tiny

LONG = {"0": -100, "2": -100}
"""A bias against the tokens that end a text."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("a", "b")):
        make_tiny(root / name, seed=seed)
    hostile(root)
    return root


def hostile(root: Path) -> None:
    """Directories that no model comes of, and one whose tokenizer has more ids than its weights have rows."""
    for name in ("narrow", "olmo", "huge", "cut", "noise", "gear"):
        make_tiny(root / name, seed=3)
    narrow = root / "narrow"
    weights = mx.load(str(narrow / "model.safetensors"))
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:300]
    mx.save_safetensors(str(narrow / "model.safetensors"), weights, metadata={"format": "mlx"})
    changed(narrow, vocab_size=300)
    changed(root / "olmo", model_type="olmo")
    changed(root / "huge", hidden_size=1 << 21, intermediate_size=1 << 21, num_attention_heads=1 << 10)
    changed(root / "gear", model_type="gear")
    whole = (root / "cut" / "model.safetensors").read_bytes()
    (root / "cut" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    (root / "noise" / "config.json").write_bytes(bytes(range(256)) * 3)


def changed(directory: Path, **fields: Any) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | fields))


@asynccontextmanager
async def serving(root: Path, *flags: str, **environment: Any) -> AsyncIterator[Any]:
    with service("--offline", "--model-root", str(root), "--default-model", "a", *flags, **environment) as running:
        async with openai.AsyncOpenAI(
            base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=60
        ) as client:
            yield running, client


def models(url: str) -> dict[str, AdminModel]:
    told = httpx2.get(f"{url}/admin/models").content
    return {it.id: it for it in msgspec.json.decode(told, type=AdminModels).data}


def pid_of(url: str, model: str = "a") -> int:
    pid = models(url)[model].pid
    assert pid is not None
    return pid


async def ask(client: AsyncOpenAI, model: str, **more: Any) -> Any:
    asked: dict[str, Any] = {"prompt": "Hi", "max_tokens": 4} | more
    return await client.completions.create(model=model, **asked)


async def streamed(client: AsyncOpenAI, model: str, tokens: int = 1500) -> tuple[list[str], APIError | None]:
    """The pieces of one stream, and the error that ended it."""
    pieces = []
    try:
        stream = await ask(client, model, max_tokens=tokens, stream=True, logit_bias=LONG)
        async with stream:
            async for chunk in stream:
                pieces += [it.text for it in chunk.choices]
    except openai.APIError as error:
        return pieces, error
    return pieces, None


async def test_a_process_that_is_killed_takes_its_own_streams_alone(root: Path) -> None:
    async with serving(root) as (running, client):
        await asyncio.gather(ask(client, "a"), ask(client, "b"))
        doomed = [asyncio.create_task(streamed(client, "a")) for _ in range(8)]
        whole = [asyncio.create_task(streamed(client, "b", tokens=300)) for _ in range(8)]
        await asyncio.sleep(0.5)
        pid = pid_of(running.url)
        assert pid != models(running.url)["b"].pid
        os.kill(pid, signal.SIGKILL)
        for pieces, error in await asyncio.gather(*doomed):
            assert error is not None, pieces
            assert error.body["code"] == "engine_lost"
            assert "SIGKILL" in error.message
        assert all(error is None and len("".join(pieces)) > 300 for pieces, error in await asyncio.gather(*whole))
        assert (await ask(client, "a")).choices[0].text
        told = models(running.url)["a"]
        assert (told.losses, told.state) == (1, "resident")
        assert told.pid != pid
        assert "engine lost" in running.log
        assert "switchyard_engine_losses_total 1.0" in httpx2.get(f"{running.url}/metrics").text


async def test_a_process_that_ends_before_the_first_byte_is_a_503(root: Path) -> None:
    async with serving(root) as (running, client):
        await ask(client, "a")
        os.kill(pid_of(running.url), signal.SIGSTOP)
        waiting = asyncio.create_task(ask(client, "a", stream=False))
        await asyncio.sleep(0.3)
        os.kill(pid_of(running.url), signal.SIGKILL)
        with pytest.raises(openai.APIStatusError) as refusal:
            await waiting
        assert (refusal.value.status_code, refusal.value.body["code"]) == (503, "engine_lost")
        assert int(refusal.value.response.headers["retry-after"]) >= 1


async def test_a_process_that_hangs_is_ended_and_the_service_goes_on(root: Path) -> None:
    async with serving(root, "--watchdog-timeout", "1.5") as (running, client):
        await asyncio.gather(ask(client, "a"), ask(client, "b"))
        streaming = asyncio.create_task(streamed(client, "a"))
        await asyncio.sleep(0.3)
        os.kill(pid_of(running.url), signal.SIGSTOP)
        began = time.monotonic()
        _, error = await streaming
        assert "no step for 1.5 seconds" in error.message
        assert time.monotonic() - began < 8
        assert (await ask(client, "b")).choices[0].text
        assert (await ask(client, "a")).choices[0].text
        await asyncio.sleep(3)
        assert models(running.url)["b"].losses == 0, "idle is not hung"


@pytest.mark.parametrize(
    ("model", "prompt", "status", "words"),
    [
        ("narrow", [350], 400, "350"),
        ("narrow", "日本語 Grüße", 400, "row"),
        ("olmo", "Hi", 400, "olmo"),
        ("huge", "Hi", 400, "huge"),
        ("cut", "Hi", 400, "truncated"),
        ("noise", "Hi", 400, "noise"),
        ("gear", "Hi", 400, "gear"),
    ],
)
async def test_hostile_directories_are_a_clear_refusal_and_nobody_elses(
    shared: tuple[Service, AsyncOpenAI], model: str, prompt: str | list[int], status: int, words: str
) -> None:
    running, client = shared
    await ask(client, "a")
    before = models(running.url)["a"].pid
    with pytest.raises(openai.APIStatusError) as refusal:
        await ask(client, model, prompt=prompt)
    assert refusal.value.status_code == status, refusal.value.message
    assert words in refusal.value.message
    assert (await ask(client, "a")).choices[0].text
    assert models(running.url)["a"].pid == before
    memory = httpx2.get(f"{running.url}/admin/memory").json()
    assert memory["unaccounted"] == 0


@pytest.fixture(scope="module")
def shared_service(root: Path) -> Iterator[Service]:
    with service("--offline", "--model-root", str(root), "--default-model", "a") as running:
        yield running


@pytest.fixture
async def shared(shared_service: Service) -> AsyncIterator[tuple[Service, AsyncOpenAI]]:
    async with openai.AsyncOpenAI(
        base_url=f"{shared_service.url}/v1", api_key="none", max_retries=0, timeout=60
    ) as client:
        yield shared_service, client


async def test_ids_that_no_row_belongs_to_never_reach_the_device(shared: tuple[Service, AsyncOpenAI]) -> None:
    _, client = shared
    for more in ({"prompt": [300]}, {"logit_bias": {"300": 5}}, {"extra_body": {"stop_token_ids": [300]}}):
        with pytest.raises(openai.BadRequestError) as refusal:
            await ask(client, "narrow", **more)
        assert "300" in refusal.value.message
    assert (await ask(client, "narrow", prompt=[299])).usage.completion_tokens


async def test_a_killed_service_leaves_no_process(root: Path) -> None:
    async with serving(root) as (running, client):
        await ask(client, "a")
        children = psutil.Process(running.process.pid).children(recursive=True)
        assert children
        running.process.kill()
        _, alive = psutil.wait_procs(children, timeout=5)
        assert not alive, [it.cmdline() for it in alive]


async def test_engines_have_no_secrets_and_no_connection_but_to_the_service(root: Path) -> None:
    secrets = {"HF_TOKEN": "hf_secret", "SWITCHYARD_API_KEYS": "", "AWS_SECRET_ACCESS_KEY": "x", "MLX_API_KEY": "y"}
    async with serving(root, **secrets) as (running, client):
        await ask(client, "a")
        pid = pid_of(running.url)
        names = psutil.Process(pid).environ().keys()
        assert not names & {*secrets, "OPENAI_API_KEY"}
        assert "HF_HUB_OFFLINE" in names
        service_maps = psutil.Process(running.process.pid).memory_maps()
        assert not [it.path for it in service_maps if "mlx" in it.path or "/tokenizers/" in it.path]
        assert [it.path for it in psutil.Process(pid).memory_maps() if "libmlx" in it.path]
        kinds = {it.family for it in psutil.Process(pid).net_connections("all")}
        assert kinds <= {socket.AF_UNIX}


def test_a_service_with_few_open_files_loads_models(root: Path) -> None:
    script = 'ulimit -n 256; exec "$@"'
    command = [sys.executable, "-m", "app", "serve", "--port", "0", "--offline", "--model-root", str(root)]
    process = subprocess.Popen(
        ["/bin/bash", "-c", script, "bash", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        for line in process.stdout:
            if "serves http" in line:
                url = line.split("serves ")[1].split()[0]
                break
        answer = httpx2.post(f"{url}/v1/completions", json={"model": "b", "prompt": "Hi", "max_tokens": 2}, timeout=60)
        assert answer.status_code == 200, answer.text
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
        process.stdout.close()
