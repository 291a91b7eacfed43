"""One file from the hub to its place: resumed, retried, verified."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.errors import ModelUnusable, Unavailable
from app.registry.hub.files import RepoFile, RepoInfo
from app.registry.hub.partial import Partial, drop_unless, hold
from app.registry.hub.policy import Patience, Policy
from app.registry.hub.ranged import NoRanges, RangedFill
from app.registry.hub.source import Source


class Transfer:
    """Makes a place hold the contents that the hub names for ``file``, whatever is there already.

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
        self._connections = connections
        self._ranged = RangedFill(source, info, file, policy=policy, connections=connections, report=report)
        self._source = source
        self._info = info
        self._file = file
        self._policy = policy
        self._report = report

    async def run(self, place: Path, *, locks: bool = True) -> None:
        """Return once the contents are in their place and verified; ``locks`` says whether the disk knows them.

        Raises :class:`app.errors.Unavailable` when the hub fails too often in a row,
        :class:`app.errors.ModelUnusable` for contents that arrive damaged twice, and OSError for the disk's failures.
        """
        async with hold(place, self._file, locks=locks) as partial:
            if await drop_unless(place, self._file):
                self._report(self._file.size)
                return
            await partial.read_what_is_there()
            for _ in range(2):
                await self._fill(partial)
                if await partial.is_right():
                    await partial.commit()
                    return
                partial.cut(0)
        raise ModelUnusable(
            f"{self._name} arrived damaged twice: its contents are not those that the hub's checksum names. "
            "Try again later, or name another revision.",
            code="model_corrupt",
        )

    @property
    def _name(self) -> str:
        return f"{self._file.name} of {self._info.repo}"

    async def _fill(self, partial: Partial) -> None:
        """Go on until the file has its full size, through any number of cuts that each bring something."""
        partial.cut(self._file.size)
        self._report(partial.spans.total)
        if self._file.size - partial.spans.total > self._policy.range_bytes:
            with suppress(NoRanges):
                await self._ranged.run(partial)
        partial.cut(partial.size)
        patience = Patience(self._policy, partial.size)
        while partial.size < self._file.size:
            self._report(partial.size)
            try:
                async with self._connections:
                    await self._receive(partial)
            except Unavailable as error:
                await asyncio.sleep(patience.wait(error, partial.size))
        self._report(self._file.size)

    async def _receive(self, partial: Partial) -> None:
        """One request; ends at the file's size, however much more the hub would send."""
        size = self._file.size
        async with self._source.read(self._info, self._file, partial.size) as body:
            partial.cut(body.offset)
            if body.offset > partial.size:
                raise Unavailable(f"The hub skipped a part of {self._name}. Try again later.", code="hub_away")
            async for chunk in body.chunks:
                partial.append(chunk[: size - partial.size])
                self._report(partial.size)
                if partial.size == size:
                    return
        raise Unavailable(
            f"The hub ended {self._name} after {partial.size:,} of {size:,} bytes. Try again later.", code="hub_away"
        )
