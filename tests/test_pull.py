import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import sleep

import numpy as np
import pytest
from safetensors.numpy import save

from app.cli.exits import Exit
from tests.support.hub import Faults, LocalHub

ROOT = Path(__file__).parents[1]


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        weights = save({"model.norm.weight": np.arange(150_000, dtype=np.float32)}, metadata={"format": "mlx"})
        hub.add("org/model", {"config.json": b'{"model_type": "llama"}', "model.safetensors": weights})
        yield hub


def start(hub: LocalHub, home: Path, *words: str, command: str = "pull") -> subprocess.Popen[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("SWITCHYARD_", "HF_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "app", command, *words],
        cwd=ROOT,
        env=plain | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_pull_fetches_once_and_then_verifies(hub: LocalHub, tmp_path: Path) -> None:
    for _ in range(2):
        out, err = (process := start(hub, tmp_path, "org/model")).communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        commit = out.strip().splitlines()[-1].removeprefix("org/model is complete, at commit ")
        place = tmp_path / "hub" / "models--org--model" / "snapshots" / commit
        assert {path.name for path in place.iterdir()} == {"config.json", "model.safetensors"}
    assert hub.count("model.safetensors") == 1


def test_pull_of_an_unknown_model_says_so(hub: LocalHub, tmp_path: Path) -> None:
    _, err = (process := start(hub, tmp_path, "org/gone")).communicate(timeout=60)
    assert process.returncode == Exit.NOT_FETCHED
    assert "org/gone" in err
    assert err.count("\n") == 1


def test_an_interrupted_pull_says_how_to_go_on(hub: LocalHub, tmp_path: Path) -> None:
    hub.faults["model.safetensors"] = Faults(bytes_per_second=200)
    process = start(hub, tmp_path, "org/model")
    while not hub.count("model.safetensors"):
        assert process.poll() is None
        sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == Exit.INTERRUPTED
    assert "goes on where" in err
    assert "Traceback" not in err


def test_search_lists_models_of_the_hub_with_their_sizes(hub: LocalHub, tmp_path: Path) -> None:
    out, err = (process := start(hub, tmp_path, "MODEL", "org", command="search")).communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert [line.split() for line in out.splitlines()][1] == ["org/model", "2", "kB", "-", "-", "1"]
    out, err = (process := start(hub, tmp_path, "nothing", command="search")).communicate(timeout=60)
    assert (process.returncode, out) == (Exit.REFUSED, "")
    assert "--every" in err
