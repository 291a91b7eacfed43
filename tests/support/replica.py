"""One of several services: ``python -m tests.support.replica NAME PORT``, whose answers say which one it is.

Its engine follows a script; the server, its signals and the way it stops are the program's own.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import uvicorn

from app.cli.run.server import Hooks, Service
from app.engine.options import AS_IT_IS, LoadOptions
from app.main import create_app
from app.settings import Settings
from tests.support.house import scripted_memory, scripted_registry
from tests.support.scripted import ScriptedEngine, ScriptedLoader, says


class NamedLoader(ScriptedLoader):
    """Engines that say ``letter``; the one of ``org/other`` says it fifty times, 20 ms apart."""

    def __init__(self, letter: str) -> None:
        super().__init__(scripted_memory(), script=says(letter))
        self._letter = letter

    async def load(self, path: Path, *, name: str, options: LoadOptions = AS_IT_IS) -> ScriptedEngine:
        engine = await super().load(path, name=name, options=options)
        if name == "org/other":
            engine.script, engine.step_seconds = says(self._letter * 50), 0.02
        return engine


def _say_ready() -> None:
    os.write(1, b"ready\n")


async def serve(name: str, port: int) -> None:
    """Serve as ``name``, one letter, until a signal; ids of responses begin with the letter, six zeros and a one."""
    with tempfile.TemporaryDirectory() as place:
        async with scripted_registry(NamedLoader(name), Path(place)) as registry:
            app = create_app(Settings(response_mark=f"{name}0000001", log_level="error"), registry=registry)
            config = uvicorn.Config(app, port=port, lifespan="on", ws="none", log_config=None, proxy_headers=False)
            hooks = Hooks(on_ready=_say_ready, drain=app.state.service_state.drain)
            await Service(config, hooks, grace=10).serve()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
