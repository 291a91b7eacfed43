"""How far a load is, as one bar: bytes of the download, then a bar that moves; nothing where no terminal looks on."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from app.cli.client import Away, Client, Refused, model_path
from app.cli.words import STATES, size
from app.schemas.admin import AdminModel

SECONDS = 0.3
"""Between two looks at the service."""
MOVING = frozenset({"downloading", "queued", "loading", "unloading"})


@contextmanager
def watched(client: Client, model: str) -> Iterator[None]:
    """Show on standard error where ``model`` stands while the block asks for it."""
    if not sys.stderr.isatty():
        yield
        return
    over = Event()
    looking = Thread(target=_look, args=(client, model, over), daemon=True)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join(2 * SECONDS)


def _look(client: Client, model: str, over: Event) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as board:
        bar: TaskID | None = None
        while not over.wait(SECONDS):
            try:
                found = client.ask("GET", model_path(model), AdminModel)
            except (Away, Refused):
                continue  # not known yet, or gone: the command itself says which
            if found.state in MOVING:
                bar = board.add_task("", total=None) if bar is None else bar
                show(board, bar, found)


def show(board: Progress, bar: TaskID, model: AdminModel) -> None:
    """Draw one moment."""
    words = f"{model.id} {STATES[model.state]}"
    if model.download is not None and model.download.total:
        board.update(bar, description=words, total=model.download.total, completed=model.download.done)
    else:
        held = f", {size(model.nbytes)}" if model.nbytes else ""
        board.update(bar, description=words + held, total=None, completed=0)
