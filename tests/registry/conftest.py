from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from app.registry.hub import Hub, Policy
from tests.support.hub import LocalHub

REPO = "org/model"
IMPATIENT = Policy(answer_timeout=1.5, stall_timeout=0.6, attempts=3, backoff=0.01, backoff_limit=1.5, disk_reserve=0)


@pytest.fixture
def files() -> dict[str, bytes]:
    """A repo with 600 kB of weights in one file, and things beside it that no one needs."""
    weights = save({"model.norm.weight": np.arange(150_000, dtype=np.float32)}, metadata={"format": "mlx"})
    return {
        "config.json": b'{"model_type": "llama"}',
        "tokenizer.json": b'{"version": "1.0"}',
        "tokenizer_config.json": b"{}",
        "chat_template.jinja": b"{{ messages }}",
        "model.safetensors": weights,
        "README.md": b"# Model",
        "modeling_evil.py": b"raise SystemExit",
        "pytorch_model.bin": b"pickled",
    }


@pytest.fixture
def server(files: dict[str, bytes]) -> Iterator[LocalHub]:
    with LocalHub() as server:
        server.add(REPO, files)
        yield server


@pytest.fixture
async def hub(server: LocalHub, tmp_path: Path) -> AsyncIterator[Hub]:
    hub = Hub(cache_dir=tmp_path / "cache", endpoint=server.url, policy=IMPATIENT)
    yield hub
    await hub.close()
