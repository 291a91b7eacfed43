"""The whole service over a scripted machine: the real registry, the real strategy, engines that follow a script."""

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from app.registry.catalog import Catalog
from app.registry.hub import Hub
from app.registry.registry import ModelRegistry
from app.registry.shelf import Shelf
from app.settings import Settings
from tests.support.scripted import ScriptedLoader, ScriptedMemory, scripted_device

MODELS = ("tiny", "org/tiny", "org/other")


def model_root(root: Path) -> Path:
    """Directories that look like ``MODELS``: a configuration, and weights of 64 bytes."""
    header = b'{"w":{"dtype":"U8","shape":[64],"data_offsets":[0,64]}}'
    for name in MODELS:
        directory = root / name
        directory.mkdir(parents=True)
        (directory / "config.json").write_text('{"model_type": "llama"}')
        (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    return root


def scripted_memory() -> ScriptedMemory:
    """More than any test needs."""
    return ScriptedMemory(total=1 << 40)


@asynccontextmanager
async def scripted_registry(loader: ScriptedLoader, root: Path, **more: Any) -> AsyncIterator[ModelRegistry]:
    """A registry that knows ``MODELS`` and no hub. ``root`` is an empty directory, ``more`` are settings."""
    settings = Settings(model_roots=(model_root(root / "models"),), offline=True, default_model="tiny", **more)
    hub = Hub(cache_dir=root / "hub", offline=True)

    async def no_embedded_model() -> Path:
        raise AssertionError("the embedded model is not for these tests")

    shelf = Shelf(hub, no_embedded_model, offline=True, device=scripted_device)
    registry = ModelRegistry(settings, Catalog(settings), shelf, loader, loader.memory)
    try:
        yield registry
    finally:
        await registry.close()
        await hub.close()
