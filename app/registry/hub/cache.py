"""Models on disk, in huggingface_hub's own layout, so that every tool finds what any tool has downloaded.

``<root>/models--owner--name/`` holds ``blobs/<etag>`` (contents), ``snapshots/<commit>/<file>`` (relative links into
blobs; the files themselves on disks without links) and ``refs/<revision>`` (a text file: the commit that a branch or
tag stood at when it was last asked for).
"""

from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from uuid import uuid4

from msgspec import Struct

from app.errors import SwitchyardError
from app.registry.hub.files import RepoInfo
from app.registry.hub.names import COMMIT, fold
from app.registry.hub.place import Place
from app.registry.hub.snapshot import is_complete
from app.registry.hub.weights import weight_bytes

_PREFIX = "models--"


class Installed(Struct, frozen=True):
    """A complete model on disk. ``revisions`` are the branches and tags that stand at ``commit``."""

    repo: str
    commit: str
    revisions: tuple[str, ...]
    path: Path
    weight_bytes: int


def default_root() -> Path:
    """Where huggingface_hub keeps its downloads, by its own environment variables."""
    from huggingface_hub import constants  # noqa: PLC0415 - this package is imported long before it is used

    return Path(constants.HF_HUB_CACHE)


class Cache:
    """Everything here blocks on the disk and may be called from any thread."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def local(self, repo: str, revision: str) -> Path | None:
        """The snapshot of a revision if it is complete and its weights are whole."""
        commit = self._commit(repo, revision)
        if commit is None:
            return None
        path = self._repo(repo) / "snapshots" / commit
        return path if _whole(path) else None

    def installed(self) -> tuple[Installed, ...]:
        """Every complete snapshot, by name."""
        found = []
        for directory in sorted(self.root.glob(f"{_PREFIX}*")):
            repo = directory.name.removeprefix(_PREFIX).replace("--", "/")
            refs = _refs(directory / "refs")
            for path in sorted((directory / "snapshots").glob("*")):
                size = _whole(path)
                if size:
                    revisions = tuple(name for name, commit in refs.items() if commit == path.name)
                    found.append(Installed(repo, path.name, revisions, path, size))
        return tuple(found)

    def place(self, info: RepoInfo) -> Place:
        """Where the files of a download go."""
        return Place(self._repo(info.repo), info)

    def delete(self, repo: str) -> int | None:
        """Remove a repo; the bytes that were freed, or None if there was nothing. Done or not begun, even if killed."""
        directory = self._repo(repo)
        if not directory.is_dir():
            return None
        held = [*(directory / "blobs").glob("*"), *(directory / "snapshots").rglob("*")]
        freed = sum(
            it.stat().st_size for it in held if it.is_file() and (it.parent.name == "blobs" or not it.is_symlink())
        )
        doomed = self.root / f".deleted-{uuid4().hex}"
        if any(path.is_symlink() for path in (directory / "blobs").glob("*")):
            _release_shared(self.root, directory)
            directory.mkdir(exist_ok=True)
        directory.rename(doomed)
        rmtree(doomed, ignore_errors=True)
        return freed

    def sweep(self) -> None:
        """Remove what a killed :meth:`delete` has left."""
        for doomed in self.root.glob(".deleted-*"):
            rmtree(doomed, ignore_errors=True)

    def spelled(self, repo: str) -> str:
        """A repo's name as its directory has it: the hub knows no two that differ in case alone, nor do some disks.

        ``repo`` itself if it has a directory of exactly that name, or none at all.
        """
        return self._repo(repo).name.removeprefix(_PREFIX).replace("--", "/")

    def _repo(self, repo: str) -> Path:
        wanted = _PREFIX + repo.replace("/", "--")
        names = [path.name for path in self.root.glob(f"{_PREFIX}*")]
        alike = [wanted] if wanted in names else sorted(name for name in names if fold(name) == fold(wanted))
        return self.root / (alike[0] if alike else wanted)

    def _commit(self, repo: str, revision: str) -> str | None:
        if COMMIT.fullmatch(revision):
            return revision
        return _refs(self._repo(repo) / "refs").get(revision)


def _release_shared(root: Path, directory: Path) -> None:
    """Let huggingface_hub delete a repo whose blobs are links into the store that it shares between repos."""
    from huggingface_hub import scan_cache_dir  # noqa: PLC0415 - slow to import, rarely needed

    cache = scan_cache_dir(root)
    commits = [
        revision.commit_hash
        for repo in cache.repos
        if repo.repo_path.name == directory.name
        for revision in repo.revisions
    ]
    cache.delete_revisions(*commits).execute()


def _refs(directory: Path) -> dict[str, str]:
    refs = {}
    for path in sorted(directory.rglob("*")):
        with suppress(OSError, UnicodeDecodeError):
            if path.is_file() and COMMIT.fullmatch(commit := path.read_text("utf-8").strip()):
                refs[path.relative_to(directory).as_posix()] = commit
    return refs


def _whole(snapshot: Path) -> int:
    """Bytes of a snapshot's weights, 0 if it is not complete."""
    try:
        return weight_bytes(snapshot) if is_complete(snapshot) else 0
    except SwitchyardError:
        return 0
