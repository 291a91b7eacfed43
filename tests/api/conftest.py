from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from litestar import Litestar

from app.main import create_app
from app.registry.registry import ModelRegistry
from app.settings import Settings
from tests.support.events import ScriptedStrategy
from tests.support.house import scripted_memory, scripted_registry
from tests.support.scripted import ScriptedLoader

Serve = Callable[..., Litestar]


@pytest.fixture
def loader() -> ScriptedLoader:
    return ScriptedLoader(scripted_memory())


@pytest.fixture
async def registry(loader: ScriptedLoader, tmp_path: Path) -> AsyncIterator[ModelRegistry]:
    async with scripted_registry(loader, tmp_path) as made:
        yield made


@pytest.fixture
def serve(registry: ModelRegistry) -> Serve:
    """The application: with a strategy that tells these steps, or with the real one where there are none."""

    def serve(strategy: ScriptedStrategy | None = None, settings: Settings | None = None) -> Litestar:
        return create_app(Settings() if settings is None else settings, registry=registry, strategy=strategy)

    return serve
