"""The files of every model: found on this machine, or fetched from the hub."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

from app.engine.facts import DeviceFacts
from app.errors import InvalidRequest, ModelNotFound
from app.registry.changes import Changes
from app.registry.footprint import Footprint, adapter_footprint, footprint, ranks_of
from app.registry.hub import Download, Found, Hub, Installed, Progress
from app.registry.sources import Adapted, Embedded, HubRepo, LocalDirectory, Source

_RELIST_SECONDS = 1.0

Device = Callable[[], Awaitable[DeviceFacts]]
"""Tells what models compute on."""

EmbeddedModel = Callable[[], Awaitable[Path]]
"""Gives the directory of the embedded default model, making it first if need be."""


class Shelf:
    """Where sources become directories. Disk work happens in threads.

    ``device`` tells what a weight of 16 bits takes in the engine's memory, and a process beside it.
    """

    def __init__(self, hub: Hub, embedded: EmbeddedModel, *, offline: bool, device: Device) -> None:
        self.changes = Changes()
        self._hub = hub
        self._embedded = embedded
        self._offline = offline
        self.device = device
        self._followed: dict[Download, asyncio.Task[None]] = {}
        self._installed: tuple[Installed, ...] | None = None
        self._listed_at = 0.0

    async def fetch(self, source: Source) -> Footprint:
        """The directory of a complete model and what it will need; may take as long as a download.

        What is on disk never waits for the hub. Raises what :meth:`app.registry.hub.Download.wait` does, and
        :class:`app.errors.ModelNotFound` for what is not on disk when offline.
        """
        match source:
            case Adapted():
                path = source.path
            case Embedded():
                path = await self._embedded()
            case LocalDirectory():
                path = source.path
            case HubRepo():
                path = await self._from_hub(source)
        return await self.measured(source, path, await self.device())

    async def measured(self, source: Source, path: Path, device: DeviceFacts) -> Footprint:
        """What a model at ``path`` needs; raises :class:`app.errors.ModelUnusable` for missing or broken weights."""
        half_bytes = device.half_bytes
        if isinstance(source, Adapted):
            return await asyncio.to_thread(adapter_footprint, path, half_bytes=half_bytes)
        entry, ranks = source.entry, ranks_of(source.entry)
        return await asyncio.to_thread(
            footprint,
            path,
            half_bytes=half_bytes,
            quantize=entry.quantize,
            kv_bits=entry.kv_bits,
            process=device.process,
            host_process=device.host_process * (1 if ranks is None else ranks.spread(one_memory=True)[1]),
            ranks=None if ranks is None else ranks.spread(one_memory=device.kind != "cuda"),
        )

    async def _from_hub(self, source: HubRepo) -> Path:
        path = await self._hub.local(source.repo, source.revision)
        if path is not None:
            return path
        if self._offline:
            raise ModelNotFound(f"{source.id} is not on this machine, and the server is offline. Pull it while online.")
        return await self._follow(self._hub.download(source.repo, source.revision)).wait()

    def pull(self, source: Source) -> Download:
        """Begin, or join, the download that brings a hub model up to date; raises for models that are not the hub's."""
        repo = _of_hub(source)
        if self._offline:
            raise InvalidRequest("The server is offline. Start it without --offline to pull models.", param="model")
        return self._follow(self._hub.download(repo.repo, repo.revision, refresh=True))

    async def delete(self, source: Source) -> int:
        """Remove every revision of a hub model from disk; bytes freed. The caller sees to it that nobody uses it."""
        freed = await self._hub.delete(_of_hub(source).repo)
        self._installed = None
        self.changes.tell()
        return freed

    async def installed(self) -> tuple[Installed, ...]:
        """Every complete hub model on disk; looked for once a second at most, and after every download."""
        now = asyncio.get_running_loop().time()
        self._forget_ended()
        if self._installed is None or now - self._listed_at >= _RELIST_SECONDS:
            self._listed_at = now
            self._installed = await self._hub.installed()
        return self._installed

    async def search(self, words: str, limit: int, *, every: bool) -> tuple[Found, ...]:
        """See :meth:`Hub.search`."""
        return await self._hub.search(words, limit, every=every)

    def downloads(self) -> dict[str, Progress]:
        """The running downloads by repo."""
        return {download.repo: download.progress for download in self._hub.downloads()}

    def _follow(self, download: Download) -> Download:
        """Tell of its changes, as long as it lasts."""
        self._forget_ended()
        if download not in self._followed:
            self._followed[download] = asyncio.get_running_loop().create_task(self._tell_of(download))
        return download

    def _forget_ended(self) -> None:
        for download in [download for download in self._followed if download.finished]:
            del self._followed[download]
            self._installed = None

    async def _tell_of(self, download: Download) -> None:
        async with aclosing(download.watch()) as moments:
            async for _ in moments:
                self.changes.tell()


def _of_hub(source: Source) -> HubRepo:
    if not isinstance(source, HubRepo):
        raise InvalidRequest(
            f"{source.id} is not a model of the hub, so it is not for pulling or deleting.", param="model"
        )
    return source
