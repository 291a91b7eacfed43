"""Where the files of a download go. The disk decides: most know links, exFAT and some network disks do not.

With links it is huggingface_hub's layout: contents in ``blobs/<etag>``, names as relative links in
``snapshots/<commit>/``. Without, as there too, the files themselves stand in the snapshot.
"""

import errno
import fcntl
import os
from pathlib import Path
from shutil import rmtree
from uuid import uuid4

from app import durable
from app.registry.hub.files import RepoFile, RepoInfo

_BUSY = {errno.EWOULDBLOCK, errno.EAGAIN}


class Place:
    """The directory of one repo, for one commit; found out by trying. Everything here blocks on the disk.

    ``links`` and ``locks`` say what the disk knows. Raises OSError where nothing can be written.
    """

    def __init__(self, directory: Path, info: RepoInfo) -> None:
        self._directory = directory
        self._info = info
        self._snapshot = directory / "snapshots" / info.commit
        aside = directory / f".probe-{uuid4().hex}"
        aside.mkdir(parents=True)
        try:
            (aside / "file").write_bytes(b"1")
            self.links = _knows_links(aside)
            self.locks = _knows_locks(aside / "file")
        finally:
            rmtree(aside, ignore_errors=True)

    def path(self, file: RepoFile) -> Path:
        """Where the contents of a file belong; the directory is made."""
        path = self._directory / "blobs" / file.blob if self.links else self._snapshot / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def alike(self, files: list[RepoFile]) -> list[list[RepoFile]]:
        """Files in groups that share one path."""
        groups: dict[Path, list[RepoFile]] = {}
        for file in files:
            groups.setdefault(self.path(file), []).append(file)
        return list(groups.values())

    def publish(self, revision: str) -> Path:
        """Make a snapshot of contents that are all there, weights last, so that half of it never looks complete."""
        if self.links:
            for file in sorted(self._info.files, key=lambda file: file.is_weights):
                link = self._snapshot / file.name
                link.parent.mkdir(parents=True, exist_ok=True)
                _replace_link(link, Path(os.path.relpath(self.path(file), link.parent)))
        if revision != self._info.commit:
            durable.write(self._directory / "refs" / revision, self._info.commit)
        return self._snapshot


def _knows_links(directory: Path) -> bool:
    try:
        (directory / "link").symlink_to("file")
        return (directory / "link").read_bytes() == b"1"
    except OSError:
        return False


def _knows_locks(file: Path) -> bool:
    with file.open("r+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as failure:
            return failure.errno in _BUSY
    return True


def _replace_link(link: Path, target: Path) -> None:
    aside = link.with_name(f".{link.name}.{uuid4().hex}")
    aside.symlink_to(target)
    aside.replace(link)
