"""A live server: uvicorn on a free port of the loopback interface, in a thread of its own."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from litestar import Litestar

from app.main import create_app
from app.settings import Settings
from tests.support.house import scripted_memory, scripted_registry
from tests.support.scripted import ScriptedLoader, says

MakeApp = Callable[[], AbstractAsyncContextManager[Litestar]]


@contextmanager
def live(make: MakeApp) -> Iterator[str]:
    """The base URL of the application that ``make`` builds on the server's own loop."""
    ready = threading.Event()
    urls: list[str] = []
    failures: list[BaseException] = []
    servers: list[uvicorn.Server] = []

    async def serve() -> None:
        async with make() as app:
            config = uvicorn.Config(app, port=0, lifespan="on", ws="none", log_config=None, timeout_graceful_shutdown=3)
            server = _Server(config, urls, ready)
            servers.append(server)
            await server.serve()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as failure:  # noqa: BLE001  raised in the test's thread
            failures.append(failure)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="live")
    thread.start()
    try:
        assert ready.wait(60)
        if failures:
            raise failures[0]
        assert urls, "the server did not start"
        yield urls[0]
    finally:
        for server in servers:
            server.should_exit = True
        thread.join(30)
    if failures:
        raise failures[0]


@contextmanager
def live_saying(text: str, root: Path, **settings: Any) -> Iterator[str]:
    """The base URL of a service with models below ``root`` that all say ``text``."""

    @asynccontextmanager
    async def make() -> AsyncIterator[Litestar]:
        async with scripted_registry(ScriptedLoader(scripted_memory(), script=says(text)), root) as registry:
            yield create_app(Settings(**settings), registry=registry)

    with live(make) as url:
        yield url


class _Server(uvicorn.Server):
    """Leaves the process's signals alone, and says where it listens."""

    def __init__(self, config: uvicorn.Config, urls: list[str], ready: threading.Event) -> None:
        super().__init__(config)
        self._urls = urls
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._urls.append(f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}")
        self._ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
