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
                bar = show(board, bar, found)


def show(board: Progress, bar: TaskID | None, model: AdminModel) -> TaskID:
    """Draw one moment on ``bar``, or on one of its own: what is known of a download's end is not known of a load's."""
    download = model.download if model.download is not None and model.download.total else None
    total = None if download is None else download.total
    if bar is not None and next(task.total for task in board.tasks if task.id == bar) != total:
        board.remove_task(bar)
        bar = None
    bar = board.add_task("", total=total) if bar is None else bar
    held = f", {size(model.nbytes)}" if download is None and model.nbytes else ""
    words = f"{model.id} {STATES[model.state]}{held}"
    board.update(bar, description=words, completed=0 if download is None else download.done)
    return bar
