"""The folder that files of all models lie in: what of it is ours, and how much it may hold."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

FREE = 10 << 30
"""Bytes of the disk that are left free."""
MOST = 10 << 30
SHARE = 4
"""Where no bound is set it is ``MOST``, or one part in so many of what is free if that is less."""

MODEL = re.compile(r"[0-9a-f]{32}")
FILE = re.compile(r"[0-9a-f]{32}\.(keys|states)")
LOCK_SECONDS = 1.0
"""For how long another process may keep one from writing."""

ASIDE = re.compile(r"\.[0-9a-f]{32}")
"""A file that is being written, or was when its process ended."""


class Kept(NamedTuple):
    """A file of any model: where it is, its bytes, when it was last used, in nanoseconds."""

    path: Path
    nbytes: int
    used: int


def kept(folder: Path) -> Iterator[Kept]:
    """All files of all models in a folder; nothing else that may be there, and nothing that links lead to."""
    for place in scanned(folder):
        if MODEL.fullmatch(place.name) and place.is_dir(follow_symlinks=False):
            for file in scanned(Path(place.path)):
                if FILE.fullmatch(file.name) or ASIDE.fullmatch(file.name):
                    with suppress(OSError):
                        facts = file.stat(follow_symlinks=False)
                        yield Kept(Path(file.path), facts.st_size, facts.st_mtime_ns)


def clear(folder: Path) -> tuple[int, int]:
    """Remove all files of all models; how many there were, and their bytes. Services that run go on without them."""
    files = nbytes = 0
    for it in list(kept(folder)):
        with suppress(OSError):
            it.path.unlink()
            files, nbytes = files + 1, nbytes + it.nbytes
    for place in scanned(folder):
        if MODEL.fullmatch(place.name):
            with suppress(OSError):  # a file is being written there, or something else lies there
                Path(place.path).rmdir()
    return files, nbytes


def bound(folder: Path, *, free: int = FREE) -> int:
    """Bytes that a folder may hold where no setting says so; 0 where the disk has too little room to spare."""
    place = next((it for it in (folder, *folder.parents) if it.exists()), Path("/"))
    try:
        disk = os.statvfs(place)
    except OSError:
        return 0
    room, held = disk.f_bavail * disk.f_frsize, sum(it.nbytes for it in kept(folder))
    return 0 if room < free else min(MOST, (room + held) // SHARE)


def scanned(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in it; nothing where it cannot be read."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return []


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Whether no other process writes to the folder, and none does for as long as this lasts. Raises OSError."""
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield _locked(descriptor)
    finally:
        os.close(descriptor)


def opened(path: Path) -> BinaryIO:
    """A file to read, unless it is a link. Raises OSError."""
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb")


def remove(path: Path) -> None:
    """Let a file go that may be gone already."""
    with suppress(OSError):
        path.unlink()


def _locked(descriptor: int) -> bool:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        else:
            return True
