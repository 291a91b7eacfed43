"""The hub as the registry sees it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from app.errors import ModelNotFound, QueueFull
from app.registry.hub.cache import Cache, Installed, default_root
from app.registry.hub.download import Download
from app.registry.hub.fetch import Fetch, Preflight
from app.registry.hub.files import RepoInfo
from app.registry.hub.names import check_repo, check_revision, fold
from app.registry.hub.policy import Policy
from app.registry.hub.search import Found
from app.registry.hub.source import Source
from app.registry.hub.thread import HubThread


class Hub:
    """Models on disk and on the Hugging Face hub; what is on disk never waits for the hub.

    Made and used on one event loop; network, hashing and disk work happen on a thread of its own. ``HF_ENDPOINT``,
    ``HF_HOME``, ``HF_HUB_CACHE``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` mean what huggingface_hub says; ``cache_dir``,
    ``endpoint`` and ``offline`` override them. ``preflight`` is called on the hub's thread with what a download would
    bring, before it begins, and raises a :class:`app.errors.SwitchyardError` to refuse it.
    A ``revision`` is a branch, a tag or a commit; None is ``main``. Every method raises
    :class:`app.errors.ModelNotFound` for names that cannot be a repo's or a revision's.
    """

    def __init__(
        self,
        *,
        cache_dir: Path | None = None,
        endpoint: str | None = None,
        offline: bool = False,
        preflight: Callable[[RepoInfo], None] | None = None,
        policy: Policy | None = None,
    ) -> None:
        self.root = default_root() if cache_dir is None else cache_dir
        self._cache = Cache(self.root)
        self._endpoint = endpoint
        self._offline = offline
        self._preflight = preflight
        self._policy = Policy() if policy is None else policy
        self._thread = HubThread()
        self._source: Source | None = None
        self._downloads: list[Download] = []

    async def local(self, repo: str, revision: str | None = None) -> Path | None:
        """The directory of a complete model on disk, whichever tool has put it there; None if anything is missing.

        Asks nobody. Weights whose headers show them cut short count as missing.
        """
        check_repo(repo)
        return await asyncio.to_thread(self._cache.local, repo, check_revision(revision))

    async def spelled(self, repo: str) -> str:
        """The name of a repo as it stands on disk, or is being downloaded; ``repo`` itself if there is none alike."""
        check_repo(repo)
        for download in self.downloads():
            if fold(download.repo) == fold(repo):
                return download.repo
        return await asyncio.to_thread(self._cache.spelled, repo)

    async def installed(self) -> tuple[Installed, ...]:
        """Every complete model on disk, by name; reads a few files of each."""
        return await asyncio.to_thread(self._cache.installed)

    async def resolve(self, repo: str, revision: str | None = None) -> RepoInfo:
        """Ask the hub for the commit, the needed files and their sizes; downloads nothing.

        Raises :class:`app.errors.ModelNotFound`, :class:`app.errors.Forbidden` (gated, or a bad token),
        :class:`app.errors.ModelUnusable` (no weights for MLX) or :class:`app.errors.Unavailable` (hub away).
        """
        check_repo(repo)
        return await self._thread.call(self._info(repo, check_revision(revision)))

    async def ask(self) -> None:
        """Return if the hub answers at all; raises :class:`app.errors.Unavailable`, saying why not."""
        await self._thread.call(self._answer())

    async def search(self, words: str, limit: int, *, every: bool = False) -> tuple[Found, ...]:
        """Models of the hub for MLX with ``words`` in their names, most downloaded first; ``every``: others, too.

        Raises :class:`app.errors.Unavailable` (hub away, or offline).
        """
        return await self._thread.call(self._search(words, limit, every=every))

    def download(self, repo: str, revision: str | None = None, *, refresh: bool = False) -> Download:
        """The download of a model: the one that runs already, or a new one.

        A complete model on disk is taken as it is, without asking the hub. With ``refresh`` the hub is asked for the
        revision's present commit, and what is on disk is verified against the hub's checksums and repaired.
        Raises :class:`app.errors.QueueFull` when too many run; other failures come from :meth:`Download.wait`.
        """
        check_repo(repo)
        revision = check_revision(revision)
        running = self.downloads()
        for download in running:
            if fold(download.repo) == fold(repo) and revision in {download.revision, download.progress.commit}:
                return download
        if len(running) >= self._policy.max_downloads:
            raise QueueFull(
                f"{len(running)} models are being downloaded already. Try again when one is done.", retry_after=10.0
            )
        download = Download(repo, revision)
        download.follow(self._thread.submit(self._fetch(download, refresh)))
        self._downloads = [*running, download]
        return download

    def downloads(self) -> tuple[Download, ...]:
        """The downloads that are running."""
        return tuple(download for download in self._downloads if not download.finished)

    async def delete(self, repo: str) -> int:
        """Remove every revision of a repo and its partial files from disk, cancelling its downloads; bytes freed.

        The caller makes sure that nobody uses it. Raises :class:`app.errors.ModelNotFound` if nothing is there.
        """
        check_repo(repo)
        for download in self.downloads():
            if fold(download.repo) == fold(repo):
                download.cancel()
        freed = await self._thread.call(self._delete(repo))
        if freed is None:
            raise ModelNotFound(f"{repo} is not on this machine.")
        return freed

    async def close(self) -> None:
        """Cancel what runs, close connections and end the thread; partial files stay. Safe to call twice."""
        for download in self.downloads():
            download.cancel()
        if self._source is not None:
            await self._thread.call(self._source.aclose())
            self._source = None
        await self._thread.close()

    async def _info(self, repo: str, revision: str) -> RepoInfo:
        return await self._open().info(repo, revision)

    async def _search(self, words: str, limit: int, *, every: bool) -> tuple[Found, ...]:
        return await self._open().search(words, limit, every=every)

    async def _answer(self) -> None:
        await self._open().answer()

    async def _fetch(self, download: Download, refresh: bool) -> Path:
        preflight: Preflight = (lambda _: None) if self._preflight is None else self._preflight
        return await Fetch(download, self._open, self._cache, self._policy, preflight).run(refresh=refresh)

    async def _delete(self, repo: str) -> int | None:
        return await asyncio.to_thread(self._cache.delete, repo)

    def _open(self) -> Source:
        """The client, made on the hub's thread when it is first needed: importing huggingface_hub takes a while."""
        if self._source is None:
            from app.registry.hub.client import HubClient  # noqa: PLC0415 - slow to import

            self._source = HubClient(endpoint=self._endpoint, offline=self._offline, policy=self._policy)
        return self._source
