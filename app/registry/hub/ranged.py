"""A large file in several ranges side by side: one connection to a hub is rarely all that the line can carry."""

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec

from app.errors import SwitchyardError, Unavailable
from app.registry.hub.files import RepoFile, RepoInfo
from app.registry.hub.partial import Partial
from app.registry.hub.policy import Patience, Policy
from app.registry.hub.source import Source


class NoRanges(Exception):
    """The hub does not give parts of this file."""


class _Piece(msgspec.Struct):
    """What one request is for; ``start`` moves on as bytes come."""

    start: int
    end: int


class RangedFill:
    """Fills holes, the first ones first: the beginning grows, and is hashed while the system still has it in memory.

    ``connections`` bounds what runs side by side in the whole download; ``report`` is told the bytes on disk.
    """

    def __init__(
        self,
        source: Source,
        info: RepoInfo,
        file: RepoFile,
        *,
        policy: Policy,
        connections: asyncio.Semaphore,
        report: Callable[[int], None],
    ) -> None:
        self._source = source
        self._info = info
        self._file = file
        self._policy = policy
        self._connections = connections
        self._report = report
        self._pieces: deque[_Piece] = deque()
        self._working = 0

    async def run(self, partial: Partial) -> None:
        """Return once nothing is missing. Raises :class:`NoRanges`, or :class:`app.errors.Unavailable`, or OSError."""
        partial.keep_record()
        missing = partial.spans.missing(self._file.size, self._policy.range_bytes)
        self._pieces = deque(_Piece(start, end) for start, end in missing)
        try:
            async with asyncio.TaskGroup() as group:
                hashing = group.create_task(partial.hash_what_comes())
                async with asyncio.TaskGroup() as working:
                    for _ in range(min(self._policy.parallel_ranges, len(self._pieces))):
                        working.create_task(self._work(partial))
                hashing.cancel()  # what is left of it is done when the whole is looked at
        except BaseExceptionGroup as failures:
            raise first_of(failures) from None

    async def _work(self, partial: Partial) -> None:
        patience = Patience(self._policy, partial.spans.total)
        self._working += 1
        try:
            while self._pieces:
                piece = self._pieces.popleft()
                while piece.start < piece.end:
                    try:
                        async with self._connections:
                            await self._receive(partial, piece)
                    except Unavailable as error:
                        if error.code == "hub_busy" and self._working > 1:
                            self._pieces.appendleft(piece)
                            return  # the hub asks for fewer: the others go on
                        await asyncio.sleep(patience.wait(error, partial.spans.total))
        finally:
            self._working -= 1

    async def _receive(self, partial: Partial, piece: _Piece) -> None:
        async with self._source.read(self._info, self._file, piece.start, piece.end) as body:
            if body.offset != piece.start:
                raise NoRanges
            async for chunk in body.chunks:
                part = chunk[: piece.end - piece.start]
                partial.write(piece.start, part)
                piece.start += len(part)
                self._report(partial.spans.total)
                if piece.start == piece.end:
                    return
        raise Unavailable(f"The hub cut a part of {self._file.name} short. Try again later.", code="hub_away")


def first_of(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """What to tell of several failures: one with a name before any other."""
    flat: list[BaseException] = []
    stack: list[BaseException] = [failures]
    while stack:
        error = stack.pop()
        if isinstance(error, BaseExceptionGroup):
            stack.extend(error.exceptions)
        else:
            flat.append(error)
    named = [error for error in flat if isinstance(error, SwitchyardError)]
    return (named + flat)[0]
