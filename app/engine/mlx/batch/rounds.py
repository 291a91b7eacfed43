"""Prompts that are computed by turns, a slice each."""

from __future__ import annotations

from collections.abc import Callable

from app.engine.mlx.batch.prefill_task import PrefillTask
from app.engine.mlx.batch.prompt_queue import PromptQueue


class Rounds:
    """In a round each prompt that was begun has one slice, the shortest first; who comes is begun at once.

    So whoever comes waits for one slice of somebody else, and has its own prompt computed in as many rounds as it has
    slices, whatever else there is to compute. MLX thread only.
    """

    def __init__(self, queue: PromptQueue) -> None:
        self.tasks: list[PrefillTask] = []
        self._queue = queue
        self._to_come: list[PrefillTask] = []
        """Those that have a slice yet to come in this round, the next one last."""
        self.current: PrefillTask | None = None
        """What has its slice now."""

    def next(self, free_rows: int, *, idle: bool) -> PrefillTask | None:
        """What has the next slice; what nobody wants any more has none. ``free_rows`` are beside those that decode."""
        self.tasks = [task for task in self.tasks if not task.cancelled]
        begun = self._begin(free_rows, idle=idle)
        self._to_come = [task for task in self._to_come if task in self.tasks] + begun
        if not self._to_come:
            self._to_come = sorted(self.tasks, key=_left, reverse=True)
        self.current = self._to_come.pop() if self._to_come else None
        return self.current

    def sliced(self) -> None:
        """It had its slice, and is done if nothing is left."""
        if self.current is not None and not self.current.work.left:
            self.tasks.remove(self.current)
        self.current = None

    def failed(self) -> PrefillTask | None:
        """What failed, which is let go; None if it was none that had its slice."""
        failed, self.current = self.current, None
        if failed is not None:
            self.tasks.remove(failed)
        return failed

    def drop(self, which: Callable[[PrefillTask], bool]) -> list[PrefillTask]:
        """Let go of some, between two slices."""
        dropped = [task for task in self.tasks if which(task)]
        self.tasks = [task for task in self.tasks if task not in dropped]
        return dropped

    def _begin(self, free_rows: int, *, idle: bool) -> list[PrefillTask]:
        """Begin the prompts that there are rows for, one or a group for each request; the shortest last."""
        begun: list[PrefillTask] = []
        while True:
            rows = free_rows - sum(task.rows for task in self.tasks)
            task = self._queue.next(rows, idle=idle and not self.tasks, begun=self.tasks)
            if task is None:
                return sorted(begun, key=_left, reverse=True)
            self.tasks.append(task)
            begun.append(task)


def _left(task: PrefillTask) -> int:
    return task.work.left
