"""Contents that are still arriving: ``<name>.incomplete`` beside their place, kept between attempts and processes."""

import asyncio
import fcntl
import hashlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import msgspec

from app import durable
from app.registry.hub.claim import claimed
from app.registry.hub.files import RepoFile
from app.registry.hub.spans import Span, Spans

_STEP = 8 * 1024 * 1024
_LOCK_POLL = 0.1
_RECORD_EVERY = 1.0
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
            step = asyncio.ensure_future(asyncio.to_thread(self._take, descriptor, min(_STEP, size - self.done)))
            try:
                if await asyncio.shield(step) == 0:
                    return
            except asyncio.CancelledError:
                await asyncio.wait([step])  # its thread goes on whatever happens here
                raise

    def _take(self, descriptor: int, length: int) -> int:
        chunk = os.pread(descriptor, length, self.done)
        self.update(chunk)
        return len(chunk)

    @property
    def is_right(self) -> bool:
        """Whether the bytes that were taken are the contents that the hub has named."""
        if self.done != self._file.size:
            return False
        named = self._file.sha256 or (self._file.blob if len(self._file.blob) == _GIT_SHA1_LENGTH else None)
        return named is None or self._digest.hexdigest() == named


class Partial:
    """The bytes of a file so far. Its owner holds an exclusive lock, which the system drops if the process dies.

    ``spans`` are those bytes. Most files arrive from their beginning on; for one that arrives in several places at once
    a record beside it (``.spans``) says which of its bytes are no holes, a second behind at most. Bytes are hashed as
    they come: weights may be larger than the memory that would keep them for a second reading.
    """

    def __init__(self, descriptor: int, path: Path, place: Path, file: RepoFile) -> None:
        self._descriptor = descriptor
        self.path = path
        self._place = place
        self._file = file
        self._checksum = Checksum(file)
        self._record = _record(path)
        self._recorded: float | None = None
        self._grown = asyncio.Event()
        self.spans = _spans(path, os.fstat(descriptor).st_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.path.exists():
            self._record.unlink(missing_ok=True)  # it is in its place
        elif self.spans.total == 0:
            self.path.unlink(missing_ok=True)
            self._record.unlink(missing_ok=True)
        elif self._recorded is not None:
            self.keep_record()

    @property
    def size(self) -> int:
        """Bytes from the beginning without a hole."""
        return self.spans.prefix

    def cut(self, size: int) -> None:
        """Forget everything after ``size`` bytes."""
        os.ftruncate(self._descriptor, min(size, os.fstat(self._descriptor).st_size))
        self.spans.cut(size)
        if self.size < self._checksum.done:
            self._checksum.restart()
        if self.spans.total == self.size:
            self._record.unlink(missing_ok=True)
            self._recorded = None

    def append(self, chunk: bytes) -> None:
        """Write at the end; raises OSError if the disk is full."""
        start = self.size
        self.write(start, chunk)
        if self._checksum.done == start:
            self._checksum.update(chunk)

    def write(self, start: int, chunk: bytes) -> None:
        """Write anywhere, once :meth:`keep_record` was called; raises OSError if the disk is full."""
        view, at = memoryview(chunk), start
        try:
            while view:
                written = os.pwrite(self._descriptor, view, at)
                at += written
                view = view[written:]
        finally:
            self.spans.add(start, at)
        self._grown.set()
        if self._recorded is not None and time.monotonic() - self._recorded > _RECORD_EVERY:
            self.keep_record()

    def keep_record(self) -> None:
        """Write down which bytes are there, from now on at least once a second."""
        self._recorded = time.monotonic()
        aside = self._record.with_name(f"{self._record.name}.{uuid4().hex}")
        aside.write_bytes(msgspec.json.encode(list(self.spans)))
        aside.replace(self._record)

    async def hash_what_comes(self) -> None:
        """Hash the beginning as it grows, until it is the whole."""
        while self.size < self._file.size:
            self._grown.clear()
            await self._checksum.follow(self._descriptor, self.size)
            if self.size < self._file.size:
                await self._grown.wait()

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


def held(place: Path) -> int:
    """Bytes that are there of a file that is to come to that place."""
    path = place.with_name(f"{place.name}.incomplete")
    try:
        return _spans(path, path.stat().st_size).total
    except OSError:
        return 0


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


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.spans")


def _spans(path: Path, size: int) -> Spans:
    """What a partial file holds; all of it where no record says otherwise."""
    try:
        spans = msgspec.json.decode(_record(path).read_bytes(), type=list[Span])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Spans([(0, size)])
    return Spans((start, end) for start, end in spans if 0 <= start < end <= size)


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
