"""Progress bars of a download, one for each file; nothing moves where the output is no terminal."""

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


async def show(download: Download) -> None:
    """Draw ``download`` until nothing more will happen; its failure is left to whoever waits for it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    bars: dict[str, TaskID] = {}
    with Progress(*columns) as board:
        async for moment in download.watch():
            for file in moment.files:
                if file.name not in bars:
                    bars[file.name] = board.add_task(file.name, total=file.size)
                board.update(bars[file.name], completed=file.done)
