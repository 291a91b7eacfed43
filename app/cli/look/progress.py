"""Progress bars of a download, one for each file; nothing moves where the output is no terminal."""

from types import TracebackType
from typing import Protocol, Self

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from app.registry.hub import Download
from app.schemas.admin import PullFile


class File(Protocol):
    """Bytes on disk of one file."""

    @property
    def name(self) -> str:
        """Its path in the repo."""

    @property
    def done(self) -> int:
        """Bytes that are here."""

    @property
    def size(self) -> int:
        """Bytes in all."""


class Bars:
    """Bars for files as they become known; to be entered."""

    def __init__(self) -> None:
        self._bars: dict[str, TaskID] = {}
        self._board = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=False),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )

    def __enter__(self) -> Self:
        self._board.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._board.__exit__(kind, error, trace)

    def draw(self, files: "tuple[File, ...] | tuple[PullFile, ...]") -> None:
        """Show how far each file is."""
        for file in files:
            if file.name not in self._bars:
                self._bars[file.name] = self._board.add_task(file.name, total=file.size)
            self._board.update(self._bars[file.name], completed=file.done)


async def show(download: Download) -> None:
    """Draw ``download`` until nothing more will happen; its failure is left to whoever waits for it."""
    with Bars() as bars:
        async for moment in download.watch():
            bars.draw(moment.files)
