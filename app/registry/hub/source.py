"""What a download needs of the hub: the other side of it is :mod:`app.registry.hub.client`."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

from app.registry.hub.files import RepoFile, RepoInfo
from app.registry.hub.search import Found


class Body(Struct, frozen=True):
    """Bytes of a file from ``offset`` on, which is the one asked for, or 0 if the hub cannot begin there."""

    offset: int
    chunks: AsyncIterator[bytes]


class Source(Protocol):
    """A hub. Methods raise :class:`app.errors.SwitchyardError`; ``Unavailable`` means that trying again may help."""

    async def answer(self) -> None:
        """Return if the hub answers at all, whatever it says."""

    async def info(self, repo: str, revision: str) -> RepoInfo:
        """Resolve a revision (branch, tag or commit) and list the needed files, or refuse the repo."""

    async def search(self, words: str, limit: int, *, every: bool) -> tuple[Found, ...]:
        """Models with ``words`` in their names that are made for MLX, or ``every`` one with safetensors."""

    def read(
        self, info: RepoInfo, file: RepoFile, start: int, end: int | None = None
    ) -> AbstractAsyncContextManager[Body]:
        """Open a file at ``start`` bytes, up to ``end`` (None: all of it); a hub may send more."""

    async def aclose(self) -> None:
        """Close every connection."""
