"""What a download does, step by step, on the hub's thread."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from app.errors import ModelUnusable, Unavailable
from app.registry.hub.cache import Cache
from app.registry.hub.download import Download, Reporter
from app.registry.hub.files import RepoFile, RepoInfo
from app.registry.hub.partial import held
from app.registry.hub.place import Place
from app.registry.hub.policy import Policy
from app.registry.hub.ranged import first_of
from app.registry.hub.source import Source
from app.registry.hub.transfer import Transfer
from app.registry.hub.weights import tensor_bytes

OBJECTS = frozenset({"config.json", "adapter_config.json", "generation_config.json", "tokenizer_config.json"})
"""What a load reads as JSON objects; other files may be whatever their authors like: data_config.json is a list."""

Preflight = Callable[[RepoInfo], None]


class Fetch:
    """Brings a complete model to disk: small files first, so that a broken repo is found out before its weights."""

    def __init__(
        self, download: Download, source: Callable[[], Source], cache: Cache, policy: Policy, preflight: Preflight
    ) -> None:
        self._download = download
        self._source = source
        self._cache = cache
        self._policy = policy
        self._preflight = preflight

    async def run(self, *, refresh: bool) -> Path:
        """The directory of the complete model."""
        repo, revision = self._download.repo, self._download.revision
        if not refresh:
            path = await asyncio.to_thread(self._cache.local, repo, revision)
            if path is not None:
                return path
        info = await self._source().info(repo, revision)
        self._preflight(info)
        place = await asyncio.to_thread(self._require_disk, info)
        reporter = self._download.reporter(info)
        await self._transfer(info, place, [file for file in info.files if not file.is_weights], reporter)
        await asyncio.to_thread(self._check_config, info, place)
        await self._transfer(info, place, [file for file in info.files if file.is_weights], reporter)
        return await asyncio.to_thread(self._publish, info, place, revision)

    async def _transfer(self, info: RepoInfo, place: Place, files: list[RepoFile], reporter: Reporter) -> None:
        """Fetch files side by side, each content once; the first failure ends the others."""
        slots = asyncio.Semaphore(self._policy.parallel_files)
        connections = asyncio.Semaphore(self._policy.parallel_ranges)

        async def one(files: list[RepoFile]) -> None:
            def report(done: int) -> None:
                for file in files:
                    reporter.of(file)(done)

            async with slots:
                transfer = Transfer(
                    self._source(), info, files[0], policy=self._policy, connections=connections, report=report
                )
                await transfer.run(await asyncio.to_thread(place.path, files[0]), locks=place.locks)

        alike = await asyncio.to_thread(place.alike, files)
        try:
            async with asyncio.TaskGroup() as group:
                for same in alike:
                    group.create_task(one(same))
        except BaseExceptionGroup as failures:
            raise first_of(failures) from None

    def _require_disk(self, info: RepoInfo) -> Place:
        self._cache.root.mkdir(parents=True, exist_ok=True)
        self._cache.sweep()
        place = self._cache.place(info)
        missing = 0
        for path, file in ((place.path(alike[0]), alike[0]) for alike in place.alike(list(info.files))):
            if not path.exists():
                missing += max(0, file.size - held(path))
        free = shutil.disk_usage(self._cache.root).free
        if missing > 0 and missing + self._policy.disk_reserve > free:
            raise Unavailable(
                f"{info.repo} needs {missing:,} more bytes on disk and {free:,} are free, of which "
                f"{self._policy.disk_reserve:,} are kept for others. Free some space and ask again.",
                code="disk_full",
            )
        return place

    def _check_config(self, info: RepoInfo, place: Place) -> None:
        for file in info.files:
            if file.name in OBJECTS:
                try:
                    msgspec.json.decode(place.path(file).read_bytes(), type=dict[str, msgspec.Raw])
                except (msgspec.DecodeError, UnicodeDecodeError):
                    raise ModelUnusable(
                        f"{file.name} of {info.repo} is not a JSON object, so the model cannot be loaded. "
                        "Tell its author, or name another revision.",
                        code="model_corrupt",
                    ) from None

    def _publish(self, info: RepoInfo, place: Place, revision: str) -> Path:
        for file in info.files:
            if file.is_weights:
                tensor_bytes(place.path(file), name=file.name)
        return place.publish(revision)
