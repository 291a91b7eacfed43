"""A pull through a running service while the hub cuts the transfer again and again."""

from collections.abc import Iterator
from pathlib import Path

import httpx2

from tests.support.hub import Faults, LocalHub
from tests.support.process import service
from tests.support.tiny import make_tiny

REPO = "org/model"
WEIGHTS = "model.safetensors"


def cut_pull(place: Path, *, cuts: int, width: int) -> Iterator[str]:
    """What was told meanwhile, a line a moment. Raises AssertionError if a byte was sent twice or one is wrong."""
    model = make_tiny(place / "model", seed=0, width=width, layers=4)
    weights = (model / WEIGHTS).read_bytes()
    part = len(weights) // (cuts + 1)
    with LocalHub() as hub:
        hub.add(REPO, model)
        hub.faults[WEIGHTS] = Faults(cut_after=part, times=cuts)
        with service("--log-level", "warning", HF_ENDPOINT=hub.url, HF_HOME=str(place / "home")) as running:
            url = f"{running.url}/admin/models/{REPO}"
            with httpx2.stream("POST", f"{url}/pull", timeout=60) as response:
                assert response.status_code == 200
                last = ""
                for line in response.iter_lines():
                    if line.startswith("data: {"):
                        last = line.removeprefix("data: ")
                        yield last
            assert '"state":"done"' in last, last
            state = httpx2.get(url).raise_for_status().json()["state"]
            asked = {"model": REPO, "prompt": "Go on", "max_tokens": 4}
            answer = httpx2.post(f"{running.url}/v1/completions", json=asked, timeout=60).raise_for_status().json()
        stored = next((place / "home").rglob(f"snapshots/*/{WEIGHTS}")).read_bytes()
        assert stored == weights
        assert hub.count(WEIGHTS) == cuts + 1
        yield (
            f"asked for {hub.count(WEIGHTS)} times, {hub.sent[WEIGHTS]:,} bytes sent of a file of {len(weights):,}; "
            f"the model is {state} and its bytes are the hub's"
        )
        assert state == "on_disk"
        assert answer["usage"]["completion_tokens"] > 0
        assert hub.sent[WEIGHTS] == len(weights), "nothing is fetched twice"
