"""What a terminal sees while a model is loaded."""

import io
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from app.cli.client import Client
from app.cli.look import loading
from app.main import create_app
from app.schemas.admin import AdminModel, AdminTransfer
from app.settings import Settings
from tests.support.house import scripted_memory, scripted_registry
from tests.support.live import live
from tests.support.scripted import ScriptedLoader

MODEL = AdminModel(
    id="org/tiny",
    source="hub",
    state="loading",
    aliases=(),
    pinned=False,
    download=None,
    nbytes=4_200_000_000,
    kv_bytes=0,
    leases=0,
    queued=1,
    idle_seconds=None,
    expires_in=None,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_load_moves_and_a_download_has_its_share() -> None:
    with Progress(console=Console(file=io.StringIO())) as board:
        bar = loading.show(board, None, MODEL)
        (task,) = board.tasks
        assert (task.description, task.total) == ("org/tiny loading, 4.2 GB", None)
        coming = AdminModel(
            **{name: getattr(MODEL, name) for name in MODEL.__struct_fields__}
            | {
                "state": "downloading",
                "download": AdminTransfer(250, 1000),
                "nbytes": 0,
            }
        )
        bar = loading.show(board, bar, coming)
        (task,) = board.tasks
        assert (task.description, task.percentage) == ("org/tiny downloading", 25.0)
        loading.show(board, loading.show(board, bar, MODEL), MODEL)
        (task,) = board.tasks
        assert (task.description, task.total, task.completed) == ("org/tiny loading, 4.2 GB", None, 0)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_sees_the_load_and_a_pipe_nothing(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    @asynccontextmanager
    async def make() -> AsyncIterator[Any]:
        loader = ScriptedLoader(scripted_memory(), seconds=1.0)
        async with scripted_registry(loader, tmp_path) as registry:
            yield create_app(Settings(), registry=registry)

    monkeypatch.setattr(loading, "SECONDS", 0.05)
    seen = Terminal() if terminal else io.StringIO()
    with live(make) as url:
        client = Client(url, None)
        monkeypatch.setattr(sys, "stderr", seen)
        with loading.watched(client, "org/tiny"):
            client.ask("POST", "/admin/models/org/tiny/load", AdminModel)
        monkeypatch.undo()
    assert ("org/tiny loading" in seen.getvalue()) is terminal
