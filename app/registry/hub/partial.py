"""Contents that are still arriving: ``<name>.incomplete`` beside their place, kept between attempts and processes."""

import asyncio
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from app.registry.hub import durable
from app.registry.hub.claim import claimed
from app.registry.hub.files import RepoFile

_STEP = 8 * 1024 * 1024
_LOCK_POLL = 0.1
_GIT_SHA1_LENGTH = 40


class Checksum:
    """What the hub has named a file's contents by: a sha256, else git's blob id, else nothing but their size."""

    def __init__(self, file: RepoFile) -> None:
        self._file = file
        self.restart()

    def restart(self) -> None:
        """Begin at the first byte again."""
        self.done = 0
        if self._file.sha256 is None:
            self._digest = hashlib.sha1(f"blob {self._file.size}\0".encode(), usedforsecurity=False)
        else:
            self._digest = hashlib.sha256()

    def update(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._digest.update(chunk)
        self.done += len(chunk)

    async def follow(self, descriptor: int, size: int) -> None:
        """Take what an open file has and was not taken yet, in steps, so that a cancelled download ends with one."""
        while self.done < size:
            chunk = await asyncio.to_thread(os.pread, descriptor, min(_STEP, size - self.done), self.done)
            if not chunk:
                return
            await asyncio.to_thread(self.update, chunk)

    @property
    def is_right(self) -> bool:
        """Whether the bytes that were taken are the contents that the hub has named."""
        if self.done != self._file.size:
            return False
        named = self._file.sha256 or (self._file.blob if len(self._file.blob) == _GIT_SHA1_LENGTH else None)
        return named is None or self._digest.hexdigest() == named


class Partial:
    """The bytes of a file so far. Its owner holds an exclusive lock, which the system drops if the process dies.

    Bytes are hashed as they come: weights may be larger than the memory that would keep them for a second reading.
    """

    def __init__(self, descriptor: int, path: Path, place: Path, file: RepoFile) -> None:
        self._descriptor = descriptor
        self.path = path
        self._place = place
        self._file = file
        self._checksum = Checksum(file)
        self.size = os.fstat(descriptor).st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.size == 0:
            self.path.unlink(missing_ok=True)

    def cut(self, size: int) -> None:
        """Forget everything after ``size`` bytes."""
        if size < self.size:
            os.ftruncate(self._descriptor, size)
            self.size = size
            if size < self._checksum.done:
                self._checksum.restart()

    def append(self, chunk: bytes) -> None:
        """Write at the end; raises OSError if the disk is full."""
        start, view = self.size, memoryview(chunk)
        while view:
            written = os.pwrite(self._descriptor, view, self.size)
            self.size += written
            view = view[written:]
        if self._checksum.done == start:
            self._checksum.update(chunk)

    async def read_what_is_there(self) -> None:
        """Hash the bytes of earlier attempts; those that come from now on need no reading."""
        await self._checksum.follow(self._descriptor, self.size)

    async def is_right(self) -> bool:
        """Whether the contents are whole and what the hub has named."""
        await self.read_what_is_there()
        return self.size == self._file.size and self._checksum.is_right

    async def commit(self) -> None:
        """Put it in its place, once it is safely on disk."""
        await asyncio.to_thread(durable.publish, self._descriptor, self.path, self._place)


@asynccontextmanager
async def hold(place: Path, file: RepoFile, *, locks: bool = True) -> AsyncIterator[Partial]:
    """The partial file of a place, waiting for whoever else, in any process, is filling it now.

    ``locks`` says whether the disk knows them.
    """
    path = place.with_name(f"{place.name}.incomplete")
    async with AsyncExitStack() as owned:
        if not locks:
            await owned.enter_async_context(claimed(path))
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                if not locks or (_lock(descriptor) and _is_at(descriptor, path)):
                    with Partial(descriptor, path, place, file) as partial:
                        yield partial
                    return
            finally:
                os.close(descriptor)
            await asyncio.sleep(_LOCK_POLL)


async def drop_unless(place: Path, file: RepoFile) -> bool:
    """Whether contents are in their place and right; what is there and wrong is removed."""
    if not await asyncio.to_thread(place.exists):
        return False
    if await _matches(place, file):
        return True
    await asyncio.to_thread(place.unlink)
    return False


async def _matches(path: Path, file: RepoFile) -> bool:
    checksum = Checksum(file)
    with await asyncio.to_thread(path.open, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size == file.size:
            await checksum.follow(stream.fileno(), size)
    return size == file.size and checksum.is_right


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file still has that name: another process may have moved it into place meanwhile."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
