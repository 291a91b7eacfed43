"""The files of one model, within a bound that all models of all services share which are given the same folder.

``FOLDER/MODEL/NAME``, where MODEL stands for everything that a KV cache depends on. A name is there once its file is
whole: it is written aside, synced, renamed, and the folder is synced. Whatever goes wrong is counted and costs what
the file would have spared: nothing here raises, and no answer depends on a file that has not been checked.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from uuid import uuid4

from msgspec import Struct

from app.durable import publish
from app.engine.disk.folder import ASIDE, FILE, FREE, Kept, alone, kept, opened, remove
from app.engine.disk.form import Facts, Header, Tensor, Unusable, read_header, read_tensors, written
from app.engine.disk.index import Entry, Index

CENSUS_SECONDS = 2.0
"""For how long it is believed what other processes have written."""


log = logging.getLogger(__name__)


class Counts(Struct):
    """Since the start: files written, read and let go of, bytes of both, and what went wrong."""

    writes: int = 0
    written: int = 0
    reads: int = 0
    read: int = 0
    read_seconds: float = 0.0
    evictions: int = 0
    faults: int = 0


class DiskStore:
    """Any thread. :meth:`open` must have returned before anything is found.

    ``limit`` bounds the bytes of all files in ``folder``, ``free`` is what is left of the disk to everybody else.
    """

    def __init__(self, folder: Path, model: str, limit: int, *, free: int = FREE) -> None:
        self.counts = Counts()
        self.index = Index()
        """This model's files, as far as they are known."""
        self._folder = folder
        self.model = model
        self._place = folder / model
        self._limit = limit
        self._free = free
        self._census: dict[Path, Kept] = {}
        self._counted = -CENSUS_SECONDS

    def apart(self, owner: bytes) -> DiskStore:
        """The files of the same model that are one owner's and nobody else's; counted together."""
        if not owner:
            return self
        model = blake2b(self.model.encode(), key=owner, digest_size=16).hexdigest()
        store = DiskStore(self._folder, model, self._limit, free=self._free)
        store.counts = self.counts
        return store

    def open(self) -> None:
        """Look what is there, by names and headers; what cannot be used is removed."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._place.mkdir(mode=0o700, exist_ok=True)
            self._place.chmod(0o700)
            found = [Path(each.path) for each in os.scandir(self._place)]
        except OSError as failure:
            self._failed("the disk cache cannot be used", failure)
            return
        for path in found:
            if FILE.fullmatch(path.name):
                self._look_at(path)
            elif not ASIDE.fullmatch(path.name):
                remove(path)
        if any(ASIDE.fullmatch(path.name) for path in found):
            with suppress(OSError), alone(self._folder) as held:
                for path in found if held else ():  # whoever writes holds the lock
                    if ASIDE.fullmatch(path.name):
                        remove(path)

    def read(self, entry: Entry) -> list[Tensor] | None:
        """The tensors of a file; None, and no such file any more, if anything is wrong with it."""
        path, begun = self._place / entry.facts.name, time.perf_counter()
        try:
            with opened(path) as stream:
                header = read_header(stream, os.fstat(stream.fileno()).st_size)
                if header.facts != entry.facts:
                    raise Unusable("it is another file")
                tensors = read_tensors(stream, header)
        except FileNotFoundError:  # another service has let it go
            self.index.forget(entry.facts.name)
            return None
        except (OSError, Unusable, MemoryError) as failure:
            self._failed(f"{path.name} cannot be read", failure)
            remove(path)
            self.index.forget(entry.facts.name)
            return None
        self.counts.reads += 1
        self.counts.read += entry.nbytes
        self.counts.read_seconds += time.perf_counter() - begun
        return tensors

    def write(self, facts: Facts, tensors: Sequence[Tensor]) -> bool:
        """Keep a file, at the expense of those that have not been used for longest; whether it is there."""
        if self.index.find(facts.name) is not None:
            return True
        pieces = written(facts, tensors)
        nbytes = sum(map(len, pieces))
        try:
            with alone(self._folder) as held:
                if not held or not self._make_room(nbytes):
                    return False
                path = self._place / facts.name
                self._write(path, pieces)
                self._census[path] = Kept(path, nbytes, time.time_ns())
        except OSError as failure:
            self._failed(f"{facts.name} cannot be written", failure)
            return False
        self.index.add(Entry(facts, nbytes))
        self.counts.writes += 1
        self.counts.written += nbytes
        return True

    def drop(self, names: Iterable[str]) -> None:
        """Let files go that others have made needless."""
        for name in names:
            path = self._place / name
            self._census.pop(path, None)
            remove(path)
            self.index.forget(name)

    def use(self, names: Sequence[str]) -> None:
        """These have been used, the first of them last of all: what others stand on goes after them."""
        now = time.time_ns()
        for number, name in enumerate(names):
            path, used = self._place / name, now - 1000 * number
            with suppress(OSError):
                os.utime(path, ns=(used, used))
            if path in self._census:
                self._census[path] = self._census[path]._replace(used=used)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _write(self, path: Path, pieces: Sequence[bytes | memoryview]) -> None:
        aside = path.with_name(f".{uuid4().hex}")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            for piece in pieces:
                rest = memoryview(piece).cast("B")
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            publish(descriptor, aside, path)
        except BaseException:
            with suppress(OSError):
                aside.unlink()
            raise
        finally:
            os.close(descriptor)

    def _make_room(self, nbytes: int) -> bool:
        """Bytes are reserved before they are written: by whoever holds the lock, so that nobody else takes them."""
        disk = os.statvfs(self._place)
        if nbytes > self._limit or disk.f_bavail * disk.f_frsize < self._free + nbytes:
            return False
        now = time.monotonic()
        if now - self._counted > CENSUS_SECONDS:
            self._census, self._counted = {it.path: it for it in kept(self._folder)}, now
        total = sum(it.nbytes for it in self._census.values())
        for oldest in sorted(self._census.values(), key=lambda it: it.used) if total + nbytes > self._limit else ():
            if total + nbytes <= self._limit:
                break
            with suppress(FileNotFoundError):
                oldest.path.unlink()
            del self._census[oldest.path]
            total -= oldest.nbytes
            self.counts.evictions += 1
            if oldest.path.parent == self._place:
                self.index.forget(oldest.path.name)
        return True

    def _look_at(self, path: Path) -> None:
        try:
            with opened(path) as stream:
                header = read_header(stream, os.fstat(stream.fileno()).st_size)
            self._believe(path, header)
        except FileNotFoundError:
            return
        except (OSError, Unusable, MemoryError) as failure:
            self._failed(f"{path.name} is of no use", failure)
            remove(path)

    def _believe(self, path: Path, header: Header) -> None:
        if header.facts.name != path.name or header.facts.model != self.model:
            raise Unusable("it says that it is another file")
        self.index.add(Entry(header.facts, header.nbytes))

    def _failed(self, what: str, failure: BaseException) -> None:
        self.counts.faults += 1
        log.warning("%s: %s", what, failure)
