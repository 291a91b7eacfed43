"""The composition root: the only module that knows every room.

No MLX is imported here at all: models live in processes of their own.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from litestar import Litestar
from litestar.di import Provide

from app.api import routes
from app.api.document import openapi
from app.api.errors import exception_handlers
from app.api.middleware_stack import MiddlewareStack
from app.api.observe.feed import Feed
from app.api.observe.journal import Journal
from app.api.observe.service_state import ServiceState
from app.api.read.body import StrictRequest
from app.api.seal import Seal
from app.awake import awake
from app.engine.options import Batching, DiskRoom
from app.errors import Unavailable
from app.generation.strategy import GenerationStrategy
from app.observability import configure_logging
from app.registry.budget import Budget, budget_of, preflight
from app.registry.registry import ModelRegistry
from app.settings import Settings
from app.store.responses import ResponseStore


def create_app(
    settings: Settings, *, registry: ModelRegistry | None = None, strategy: GenerationStrategy | None = None
) -> Litestar:
    """The service. A ``registry`` that is given stays its giver's to close; else one with MLX is built at the start."""
    resident = registry
    journal = Journal()
    live = Feed(journal, settings.default_model, offline=settings.offline)
    store = response_store(settings)

    def provide_registry() -> ModelRegistry:
        if resident is None:
            raise Unavailable("The service is starting; try again.", retry_after=1.0)
        return resident

    middleware = MiddlewareStack(settings, provide_registry, lambda: resident, journal)

    @asynccontextmanager
    async def lifespan(_app: Litestar) -> AsyncGenerator[None, None]:
        nonlocal resident
        configure_logging(settings.log_level, settings.log_format)
        busy = partial(is_busy, middleware.service_state)
        async with AsyncExitStack() as stack, awake(lambda: settings.stay_awake and busy(resident)):
            stack.callback(middleware.close)
            stack.push_async_callback(store.close)
            if registry is None:
                resident = await stack.enter_async_context(model_registry(settings))
            yield

    app = Litestar(
        route_handlers=routes(middleware.access.guard),
        dependencies={
            "registry": Provide(provide_registry, sync_to_thread=False),
            "strategy": _always(GenerationStrategy() if strategy is None else strategy),
            "settings": _always(settings),
            "live": _always(live),
            "service_state": _always(middleware.service_state),
            "metrics": _always(middleware.metrics),
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
    middleware.stand_before(app)
    app.state.live, app.state.middleware = live, middleware
    return app


def response_store(settings: Settings) -> ResponseStore:
    """Where responses are kept. Raises :class:`SettingsProblem`."""
    where, mark = settings.response_file, settings.response_mark
    return ResponseStore(settings.response_store, settings.response_lifetime, where, mark=mark)


def is_busy(service_state: ServiceState, registry: ModelRegistry | None) -> bool:
    """Whether there is work for which the machine has to stay awake: answers, downloads, loads at the start."""
    return service_state.running > 0 or (registry is not None and (registry.fetching or registry.preloading))


def _always(value: object) -> Provide:
    return Provide(lambda: value, sync_to_thread=False)


def disk_room(settings: Settings) -> DiskRoom | None:
    """Where prefixes are kept on disk, and how much of it; None where they are not, or the folder cannot be made."""
    from app.engine.disk.folder import bound  # noqa: PLC0415
    from app.engine.paths import prefixes_home  # noqa: PLC0415

    folder = prefixes_home() if settings.disk_cache_dir is None else settings.disk_cache_dir
    nbytes = bound(folder) if settings.disk_cache is None else settings.disk_cache
    if nbytes:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as failure:
            logging.getLogger(__name__).warning("no prefixes are kept on disk: %s", failure)
            return None
    return DiskRoom(str(folder), nbytes) if nbytes else None


@asynccontextmanager
async def model_registry(settings: Settings) -> AsyncGenerator[ModelRegistry, None]:
    """The registry over models' processes and the hub, for the running loop; its parts are closed after it."""
    from app.engine.client.process import Watch  # noqa: PLC0415
    from app.engine.client.processes import Processes, ProcessLoader  # noqa: PLC0415
    from app.engine.host.setup import Folders  # noqa: PLC0415
    from app.engine.paths import cache_home  # noqa: PLC0415
    from app.registry.catalog import Catalog  # noqa: PLC0415
    from app.registry.hub import Hub  # noqa: PLC0415
    from app.registry.shelf import Shelf  # noqa: PLC0415

    catalog = Catalog(settings, spelled=lambda repo: hub.spelled(repo))  # noqa: PLW0108  the hub asks the catalog, too
    hub = Hub(
        offline=settings.offline,
        preflight=lambda info: preflight(budget(), info.repo, info.weight_bytes, catalog.entry(info.repo).quantize),
    )
    cache_home().mkdir(parents=True, exist_ok=True)
    disk = disk_room(settings)
    watch = Watch(
        folders=Folders(
            read=tuple(str(place) for place in (*settings.model_roots, hub.root)),
            write=(str(cache_home()), *([] if disk is None else [disk.folder])),
        ),
        batching=Batching(settings.max_batch_rows, settings.prefill_slice, disk),
        timeout=settings.watchdog_timeout,
        log_level=settings.log_level,
        log_format=settings.log_format,
    )
    caches, wired = settings.prefix_cache, settings.wired_limit
    processes = Processes(watch=watch, prefixes=caches, wired=wired, spare=settings.spare_process)
    loader = ProcessLoader(processes, lambda: budget().total)

    def budget() -> Budget:
        return budget_of(settings, loader)

    shelf = Shelf(hub, loader.embedded, offline=settings.offline, device=loader.device)
    registry = ModelRegistry(settings, catalog, shelf, loader, loader, caches=loader)
    async with AsyncExitStack() as closing:
        closing.push_async_callback(loader.close)
        closing.push_async_callback(hub.close)
        closing.push_async_callback(registry.close)
        closing.callback(loader.stopping, settings.stop_grace)
        loader.start()
        registry.start()
        yield registry
