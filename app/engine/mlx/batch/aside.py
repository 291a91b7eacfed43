"""Rows that wait for memory: with their KV cache, or put back without it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from app.engine.mlx.batch.decode import DecodeBatch
from app.engine.mlx.batch.delivery import RowStream
from app.engine.mlx.batch.prompt_queue import PromptQueue
from app.engine.mlx.batch.rounds import Rounds
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.rows import Row, Waiting


class Aside:
    """What of one model's batch takes part in no step until it is granted more. MLX thread only.

    ``join`` puts a row with its cache into a batch again, ``leaves`` keeps what others may share of one. A row without
    a cache waits in ``queue`` for its turn to be computed anew; what random numbers, grammar and penalties have come to
    is the row's own and stays.
    """

    def __init__(
        self, queue: PromptQueue, join: Callable[[Row, KV], None], leaves: Callable[[KV, Mapping[int, Row]], None]
    ) -> None:
        self._queue = queue
        self._join = join
        self._leaves = leaves
        self.kept: dict[Row, KV | None] = {}
        """They and their caches."""

    @property
    def nbytes(self) -> int:
        """Bytes of KV cache held; any thread."""
        return sum(kv.nbytes for kv in tuple(self.kept.values()) if kv is not None)

    def __bool__(self) -> bool:
        """Whether there are any; any thread."""
        return bool(self.kept) or any(waiting.held for waiting in self._queue.sequences)

    @property
    def ready(self) -> bool:
        """Whether some have been granted more since they were set aside, or have ended."""
        return any(not row.held and (row.over or len(row.said) == row.queued) for row in self.kept)

    @property
    def rows(self) -> list[Row]:
        """Those that have not ended."""
        return [row for row in self.kept if not row.over]

    def take(self, row: Row, kv: KV) -> None:
        """This one has reached what it was granted."""
        self.kept[row] = kv

    def step(self) -> None:
        """Let those go on that may, and forget those that have ended."""
        for row, kv in tuple(self.kept.items()):
            if row.over:
                del self.kept[row]
                if kv is not None:
                    self._leaves(kv, {0: row})
            elif not row.held and len(row.said) == row.queued:
                del self.kept[row]
                if kv is None:
                    self._queue.add([Waiting.again(row)])
                else:
                    self._join(row, kv)

    def put_back(self, stream: RowStream, rounds: Rounds, batches: Collection[DecodeBatch]) -> None:
        """Have all of a request wait without caches; what of them others may share is kept as their prompts are."""
        for task in rounds.drop(lambda task: any(waiting.stream is stream for waiting in task.group)):
            self._queue.return_(task.group)
        for waiting in self._queue.sequences:
            if waiting.stream is stream:
                _hold(waiting.rows)
        for batch in batches:
            batch.set_aside(lambda row: row.stream is stream)
        for row, kv in tuple(self.kept.items()):
            if row.stream is stream and kv is not None:
                self.kept[row] = None
                self._leaves(kv, {0: row})
        _hold([row for row in self.kept if row.stream is stream])

    def clear(self) -> None:
        """Forget everything."""
        self.kept.clear()


def _hold(rows: Collection[Row]) -> None:
    for row in rows:
        row.granted = -1
