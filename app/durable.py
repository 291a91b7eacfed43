"""What must be on the medium before a name stands for it: after a power cut a file is whole, or it is not there."""

import fcntl
import os
import sys
from contextlib import suppress
from pathlib import Path
from uuid import uuid4


def sync(descriptor: int) -> None:
    """Have the drive itself keep an open file. On macOS fsync() ends at the drive's cache, as fsync(2) there says."""
    if sys.platform == "darwin":
        with suppress(OSError):  # network disks and some foreign ones know no more than fsync()
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def sync_path(path: Path) -> None:
    """The same for a file, or a directory and the names in it, that is not open."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def publish(descriptor: int, aside: Path, path: Path) -> None:
    """Give ``aside``, which is open as ``descriptor``, the name ``path``, in place of whatever has it."""
    sync(descriptor)
    aside.replace(path)
    with suppress(OSError):  # some disks do not open directories
        sync_path(path.parent)


def write(path: Path, text: str) -> None:
    """Write a small file as a whole; its directory is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid4().hex}")
    with aside.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        publish(stream.fileno(), aside, path)
