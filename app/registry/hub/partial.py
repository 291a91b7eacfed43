"""A blob that is still arriving: ``<blob>.incomplete`` beside its place, kept between attempts and processes."""

import asyncio
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from app.registry.hub.files import RepoFile

_STEP = 8 * 1024 * 1024
_LOCK_POLL = 0.1
_GIT_SHA1_LENGTH = 40


class Partial:
    """The bytes of a blob so far. Its owner holds an exclusive lock, which the system drops if the process dies."""

    def __init__(self, descriptor: int, path: Path, blob: Path) -> None:
        self._descriptor = descriptor
        self.path = path
        self._blob = blob
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

    def append(self, chunk: bytes) -> None:
        """Write at the end; raises OSError if the disk is full."""
        view = memoryview(chunk)
        while view:
            written = os.pwrite(self._descriptor, view, self.size)
            self.size += written
            view = view[written:]

    async def commit(self) -> None:
        """Make it the blob, once it is safely on disk."""
        await asyncio.to_thread(os.fsync, self._descriptor)
        self.path.replace(self._blob)


@asynccontextmanager
async def hold(blob: Path) -> AsyncIterator[Partial]:
    """The partial file of a blob, waiting for whoever else, in any process, is filling it now."""
    path = blob.with_name(f"{blob.name}.incomplete")
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if _lock(descriptor) and _is_at(descriptor, path):
                with Partial(descriptor, path, blob) as partial:
                    yield partial
                return
        finally:
            os.close(descriptor)
        await asyncio.sleep(_LOCK_POLL)


async def matches(path: Path, file: RepoFile) -> bool:
    """Whether contents are what the hub has named: by sha256, else by git's blob id, else by size alone."""
    if await asyncio.to_thread(_size, path) != file.size:
        return False
    if file.sha256 is not None:
        return await _digest(path, hashlib.sha256()) == file.sha256
    if len(file.blob) == _GIT_SHA1_LENGTH:
        head = f"blob {file.size}\0".encode()
        return await _digest(path, hashlib.sha1(head, usedforsecurity=False)) == file.blob
    return True


async def drop_unless(blob: Path, file: RepoFile) -> bool:
    """Whether a blob is there and right; one that is there and wrong is removed."""
    if not await asyncio.to_thread(blob.exists):
        return False
    if await matches(blob, file):
        return True
    await asyncio.to_thread(blob.unlink)
    return False


async def _digest(path: Path, digest: "hashlib._Hash") -> str:
    """Hash in steps, so that a cancelled download ends within one of them."""
    offset = 0
    while step := await asyncio.to_thread(_hash_step, path, offset, digest):
        offset += step
    return digest.hexdigest()


def _hash_step(path: Path, offset: int, digest: "hashlib._Hash") -> int:
    with path.open("rb") as stream:
        stream.seek(offset)
        chunk = stream.read(_STEP)
    digest.update(chunk)
    return len(chunk)


def _size(path: Path) -> int:
    return path.stat().st_size


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
