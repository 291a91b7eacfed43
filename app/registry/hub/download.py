"""One download: a job of its own that everyone who asks for the same model shares."""

import asyncio
import errno
import logging
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from contextlib import aclosing
from pathlib import Path

import msgspec

from app.errors import SwitchyardError, Unavailable
from app.registry.hub.files import RepoFile, RepoInfo
from app.registry.hub.progress import FINAL, Board, FileProgress, Progress

_log = logging.getLogger(__name__)
_POST_EVERY = 0.1
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


class Download:
    """A download that runs on the hub's thread until it is done, has failed, or is cancelled.

    It outlives the caller that started it. :meth:`wait` and :meth:`watch` may be used by any number of tasks on
    any event loop; leaving them does not disturb the download.
    """

    def __init__(self, repo: str, revision: str) -> None:
        self.repo = repo
        self.revision = revision
        self._board = Board(Progress(repo, revision))
        self._future: Future[Path] | None = None

    @property
    def progress(self) -> Progress:
        """How far it is now."""
        return self._board.latest

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.progress.state in FINAL

    def watch(self) -> AsyncGenerator[Progress, None]:
        """How far it is, now and after every change (ten times a second at most), ending with the final state."""
        return self._board.watch()

    async def wait(self) -> Path:
        """The directory of the complete model. Raises what the download failed with, anew for each caller."""
        async with aclosing(self._board.watch()) as moments:
            async for _ in moments:
                pass
        if self._future is None or self._future.cancelled():
            raise _cancelled(self.repo)
        error = self._future.exception()
        if error is not None:
            raise _named(self.repo, error)
        return self._future.result()

    def cancel(self) -> None:
        """Stop it for everyone who waits. What has arrived stays on disk, and a later download goes on from there."""
        if self._future is not None:
            self._future.cancel()

    def follow(self, future: Future[Path]) -> None:
        """Take the future that brings the directory; for :class:`app.registry.hub.hub.Hub` alone, once."""
        self._future = future
        future.add_done_callback(self._settle)

    def _settle(self, future: Future[Path]) -> None:
        latest = self._board.latest
        if future.cancelled():
            message = _cancelled(self.repo).message
            self._board.post(msgspec.structs.replace(latest, state="cancelled", message=message))
            return
        error = future.exception()
        if error is None:
            self._board.post(msgspec.structs.replace(latest, state="done", done=latest.total))
            return
        if not isinstance(error, SwitchyardError | OSError):
            _log.error("the download of %s broke", self.repo, exc_info=error)
        message = _named(self.repo, error).message
        self._board.post(msgspec.structs.replace(latest, state="failed", message=message))

    def reporter(self, info: RepoInfo) -> "Reporter":
        """Begin to report the files of ``info``; called on the hub's thread."""
        return Reporter(self._board, info)


class Reporter:
    """Turns bytes of single files into moments of the whole; lives on the hub's thread."""

    def __init__(self, board: Board, info: RepoInfo) -> None:
        self._board = board
        self._info = info
        self._done = dict.fromkeys((file.name for file in info.files), 0)
        self._posted = 0.0
        self._post()

    def of(self, file: RepoFile) -> Callable[[int], None]:
        """A function that takes the number of bytes of ``file`` that are on disk."""

        def report(done: int) -> None:
            self._done[file.name] = done
            now = asyncio.get_running_loop().time()
            if now - self._posted >= _POST_EVERY or done == file.size:
                self._posted = now
                self._post()

        return report

    def _post(self) -> None:
        done = sum(self._done.values())
        total = self._info.total_bytes
        self._board.post(
            msgspec.structs.replace(
                self._board.latest,
                state="downloading" if done < total else "verifying",
                commit=self._info.commit,
                done=done,
                total=total,
                files=tuple(FileProgress(file.name, self._done[file.name], file.size) for file in self._info.files),
            )
        )


def _cancelled(repo: str) -> Unavailable:
    return Unavailable(f"The download of {repo} was cancelled. Ask for it again to go on.", code="download_cancelled")


def _named(repo: str, error: BaseException) -> SwitchyardError:
    """A fresh failure for one caller, so that callers do not share a traceback."""
    if isinstance(error, SwitchyardError):
        kind, code = type(error), error.code
        return kind(error.message, param=error.param, code=code, retry_after=error.retry_after)
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return Unavailable(
            f"The disk filled up while {repo} was downloaded. Free some space and ask again; it goes on from there.",
            code="disk_full",
        )
    if isinstance(error, OSError):
        reason = error.strerror if error.strerror is not None else "an input/output error"
        return Unavailable(
            f"The model cache cannot be written: {reason}. Check the permissions of HF_HOME.", code="cache_unwritable"
        )
    return Unavailable(f"The download of {repo} failed for an unforeseen reason; the server's log has it.")
