"""The composition root: the only module that knows every room.

Importing it imports no MLX; starting the application imports its memory gauge, the first load the rest.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from pathlib import Path

from litestar import Litestar
from litestar.di import Provide

from app.api import routes
from app.api.document import openapi
from app.api.errors import exception_handlers
from app.api.middleware_stack import Front
from app.api.observe.feed import Feed
from app.api.observe.journal import Journal
from app.api.read.body import StrictRequest
from app.api.seal import Seal
from app.engine.base import Engine, EngineLoader, PrefixPool
from app.engine.options import AS_IT_IS, LoadOptions
from app.engine.watchdog import watch
from app.errors import EngineFailed, Unavailable
from app.generation.strategy import GenerationStrategy
from app.observability import configure_logging
from app.registry.budget import budget_of, preflight
from app.registry.registry import ModelRegistry
from app.settings import Settings
from app.store.responses import ResponseStore


def create_app(
    settings: Settings, *, registry: ModelRegistry | None = None, strategy: GenerationStrategy | None = None
) -> Litestar:
    """The service. A ``registry`` that is given stays its giver's to close; else one with MLX is built at the start."""
    resident = registry
    generation = GenerationStrategy() if strategy is None else strategy
    journal = Journal()
    live = Feed(journal, settings.default_model)
    store = ResponseStore(settings.response_store, settings.response_lifetime, settings.response_file)

    def provide_registry() -> ModelRegistry:
        if resident is None:
            raise Unavailable("The service is starting; try again.", retry_after=1.0)
        return resident

    front = Front(settings, provide_registry, lambda: resident, journal)

    @asynccontextmanager
    async def lifespan(_app: Litestar) -> AsyncGenerator[None, None]:
        nonlocal resident
        configure_logging(settings.log_level, settings.log_format)
        async with AsyncExitStack() as stack:
            stack.callback(front.close)
            stack.push_async_callback(store.close)
            if registry is None:
                resident = await stack.enter_async_context(mlx_registry(settings, front.vitals.fail))
            yield

    app = Litestar(
        route_handlers=routes(front.access.guard),
        dependencies={
            "registry": Provide(provide_registry, sync_to_thread=False),
            "strategy": _always(generation),
            "settings": _always(settings),
            "live": _always(live),
            "vitals": _always(front.vitals),
            "metrics": _always(front.metrics),
            "seal": _always(Seal(settings.signing_keys)),
            "store": _always(store),
        },
        exception_handlers=exception_handlers(),
        lifespan=[lifespan],
        logging_config=None,
        openapi_config=openapi(),
        request_class=StrictRequest,
        request_max_body_size=settings.max_body_bytes,
    )
    front.stand_before(app)
    app.state.live, app.state.front = live, front
    return app


def _always(value: object) -> Provide:
    return Provide(lambda: value, sync_to_thread=False)


@asynccontextmanager
async def mlx_registry(settings: Settings, lost: Callable[[EngineFailed], None]) -> AsyncGenerator[ModelRegistry, None]:
    """The registry over MLX and the hub, for the running loop; its parts are closed after it.

    ``lost`` is called if the engine's thread dies or hangs.
    """
    from app.engine.mlx.memory import MLXGauge, half_bytes, limit  # noqa: PLC0415  MLX is imported here first
    from app.registry.catalog import Catalog  # noqa: PLC0415  so is the hub
    from app.registry.hub import Hub  # noqa: PLC0415
    from app.registry.shelf import Shelf  # noqa: PLC0415

    gauge = MLXGauge()
    budget = budget_of(settings, gauge)
    catalog = Catalog(settings, spelled=lambda repo: hub.spelled(repo))  # noqa: PLW0108  the hub asks the catalog, too
    limit(budget.total)
    loader = LazyLoader(settings)
    hub = Hub(
        offline=settings.offline,
        preflight=lambda info: preflight(budget, info.repo, info.weight_bytes, catalog.entry(info.repo).quantize),
    )
    shelf = Shelf(hub, loader.embedded, offline=settings.offline, half_bytes=half_bytes())
    registry = ModelRegistry(settings, catalog, shelf, loader, gauge, caches=loader)
    async with AsyncExitStack() as closing:
        closing.push_async_callback(loader.close)
        closing.push_async_callback(hub.close)
        closing.push_async_callback(registry.close)
        registry.start()
        watchdog = asyncio.create_task(watch(loader.thread, settings.watchdog_timeout, lost))
        closing.callback(watchdog.cancel)
        yield registry


class LazyLoader:
    """The MLX loader and its thread; mlx-lm takes seconds to import, so the thread does it when a model is wanted."""

    def __init__(self, settings: Settings) -> None:
        from app.engine.mlx.batch.thread import MLXThread  # noqa: PLC0415

        self._settings = settings
        self.thread = MLXThread(asyncio.get_running_loop())
        self._loader: asyncio.Future[EngineLoader] | None = None
        self._pool: PrefixPool | None = None

    async def load(self, path: Path, *, name: str, options: LoadOptions = AS_IT_IS) -> Engine:
        """See :class:`app.engine.base.EngineLoader`."""
        return await (await self._imported()).load(path, name=name, options=options)

    async def adapt(self, base: Engine, path: Path, *, name: str, options: LoadOptions = AS_IT_IS) -> Engine:
        """See :class:`app.engine.base.EngineLoader`."""
        return await (await self._imported()).adapt(base, path, name=name, options=options)

    async def _imported(self) -> EngineLoader:
        if self._loader is None:
            self._loader = self.thread.call(self._import_loader)
        return await asyncio.shield(self._loader)

    async def embedded(self) -> Path:
        """The directory of the embedded default model, converted on first use."""
        return await self.thread.call(self._embedded)

    def nbytes(self) -> int:
        """What prefix caches hold; see :class:`app.registry.budget.PrefixCaches`."""
        return 0 if self._pool is None else self._pool.nbytes

    async def trim(self, nbytes: int) -> None:
        """Free at least that many bytes of prefix caches, or all there are."""
        pool = self._pool
        if pool is not None:
            await self.thread.call(lambda: pool.trim(max(0, pool.nbytes - nbytes)))

    async def close(self) -> None:
        """End the thread."""
        await self.thread.close()

    def _import_loader(self) -> EngineLoader:
        self._pool = import_module("app.engine.mlx.cache.prefix").PrefixPool(self._settings.prefix_cache)
        loader: EngineLoader = import_module("app.engine.mlx.load.loader").MLXLoader(
            self.thread,
            self._pool,
            max_rows=self._settings.max_batch_rows,
            slice_tokens=self._settings.prefill_slice,
        )
        return loader

    def _embedded(self) -> Path:
        from app.engine.mlx.load.smollm2 import ensure_smollm2  # noqa: PLC0415

        home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        return ensure_smollm2(Path(home).expanduser() / "switchyard")
