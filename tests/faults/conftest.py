"""A service that gives up on slow clients soon, over engines that follow a script."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import cast

import pytest
import uvicorn
from litestar import Litestar
from msgspec import Struct, structs

from app.cli.run.protocol import LimitedProtocol, Limits
from app.main import create_app
from app.settings import Settings
from tests.support.house import scripted_memory, scripted_registry
from tests.support.scripted import Script, ScriptedLoader, says

HASTY = Settings(
    header_timeout=0.4, body_timeout=0.5, idle_timeout=1, stall_timeout=0.8, max_connections=400, stop_grace=1
)


class Live(Struct):
    """Where it listens, and what is inside."""

    port: int
    loader: ScriptedLoader
    app: Litestar
    server: uvicorn.Server
    loop: asyncio.AbstractEventLoop


@contextmanager
def scripted_service(
    root: Path, settings: Settings = HASTY, script: Script | None = None, step_seconds: float = 0.0
) -> Iterator[Live]:
    """The application behind the protocol that ``serve`` uses, on a thread of its own."""
    ready, found, failures = threading.Event(), [], []

    async def serve() -> None:
        loader = ScriptedLoader(scripted_memory(), script=script or says("Hello, world."))
        async with scripted_registry(loader, root) as registry:
            app = create_app(structs.replace(settings, default_model="tiny"), registry=registry)
            config = uvicorn.Config(
                app,
                port=0,
                loop="uvloop",
                http=cast("type[asyncio.Protocol]", partial(LimitedProtocol, Limits.of(settings))),
                ws="none",
                lifespan="on",
                log_config=None,
                backlog=2048,
                timeout_keep_alive=int(settings.idle_timeout),
                timeout_graceful_shutdown=3,
            )
            server = _Server(config)
            server.on_start = lambda: (
                found.append(
                    Live(server.servers[0].sockets[0].getsockname()[1], loader, app, server, asyncio.get_running_loop())
                ),
                ready.set(),
            )
            await server.serve()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as failure:  # noqa: BLE001  raised in the test's thread
            failures.append(failure)
        ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(30)
        assert found, failures
        yield found[0]
    finally:
        if found:
            found[0].server.should_exit = True
        thread.join(20)
    assert not failures, failures


class _Server(uvicorn.Server):
    on_start: Callable[[], object]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_start()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with scripted_service(tmp_path_factory.mktemp("hasty")) as live:
        yield live
