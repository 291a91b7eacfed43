"""On whatever this machine computes with: one model's load beside another's stream, and the end of a model's process.

Run from the checkout: ``.venv/bin/python -m tests.faults.two_models``.
"""

import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

from tests.support.process import service
from tests.support.tiny import make_tiny

STREAM = {"model": "smollm2", "prompt": "Once upon a time", "max_tokens": 100, "temperature": 1, "ignore_eos": True}
CAPITAL = {"model": "smollm2", "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}


def frames(client: httpx2.Client, body: dict[str, Any]) -> Iterator[str]:
    """The data of a stream's events as they come."""
    with client.stream("POST", "/v1/completions", json=body | {"stream": True}) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if line.startswith("data:"):
                yield line.removeprefix("data:").strip()


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def beside(client: httpx2.Client) -> None:
    """The largest gap of a stream while another model is loaded, over the largest one alone."""
    gaps = {}
    for kind in ("alone", "beside a load"):
        loading = None
        largest = number = 0.0
        last = None
        told = []
        for number, data in enumerate(frames(client, STREAM)):
            told.append(data)
            now = time.perf_counter()
            largest = max(largest, now - last if last is not None and number > 2 else 0.0)
            last = now
            if number == 20 and kind != "alone":
                load = {"url": "/admin/models/tiny/load"}
                loading = threading.Thread(target=lambda load=load: client.post(**load).raise_for_status())
                loading.start()
        assert told[-1] == "[DONE]", told[-1]
        gaps[kind] = largest
        if loading is not None:
            loading.join()
    say(", ".join(f"largest gap {kind}: {gap * 1000:.0f} ms" for kind, gap in gaps.items()))
    assert gaps["beside a load"] < max(2.0, 3 * gaps["alone"])


def crash(client: httpx2.Client) -> None:
    """One model's process is killed in the middle of a stream: that stream says so, the other model does not notice."""
    models = {model["id"]: model for model in client.get("/admin/models").json()["data"]}
    pid = next(model["pid"] for model in models.values() if "smollm2" in model["aliases"])
    told = []
    for number, data in enumerate(frames(client, STREAM)):
        told.append(data)
        if number == 20:
            os.kill(pid, signal.SIGKILL)
    assert "error" in json.loads(told[-1]), told[-1]
    assert client.post("/v1/completions", json={"model": "tiny", "prompt": "x", "max_tokens": 2}).status_code == 200
    answer = client.post("/v1/completions", json=CAPITAL).raise_for_status().json()["choices"][0]["text"]
    assert "Paris" in answer, answer
    say(f"the stream ended with {json.loads(told[-1])['error']['code']}; the next answer: {answer!r}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_tiny(Path(folder) / "tiny", seed=3)
        with (
            service(SWITCHYARD_MODEL_ROOTS=folder) as running,
            httpx2.Client(base_url=running.url, timeout=180) as client,
        ):
            client.post("/v1/completions", json=CAPITAL).raise_for_status()
            beside(client)
            crash(client)


if __name__ == "__main__":
    main()
