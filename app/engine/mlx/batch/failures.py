"""What becomes of a step that fails, and when the process is given up."""

from __future__ import annotations

import gc
from collections.abc import Callable

import mlx.core as mx

from app.engine.mlx.batch.thread import MLXThread
from app.engine.mlx.device_errors import lost, named, out_of_memory
from app.errors import EngineFailed, SwitchyardError

MOST = 3
"""Steps that fail one after the other before the process is given up."""


class Failures:
    """Counts the steps of one batch that failed in a row. MLX thread only; ``forget`` frees what nobody needs."""

    def __init__(self, thread: MLXThread, forget: Callable[[], None]) -> None:
        self._thread = thread
        self._forget = forget
        self._count = 0
        self._before = 0

    def begin_step(self) -> None:
        """Nothing has failed in it yet."""
        self._before = self._count

    def end_step(self) -> None:
        """Where nothing failed the count begins anew."""
        if self._count == self._before:
            self._count = 0

    def named(self, failure: BaseException) -> SwitchyardError:
        """The failure as callers are told; memory that is short is made free, a device that is lost given up."""
        if isinstance(failure, SwitchyardError):
            return failure
        self._count += 1
        reason = lost(failure)
        if reason is not None:
            self._thread.give_up(f"the device reports: {reason}")
        if out_of_memory(failure):
            self._forget()
            gc.collect()
            mx.clear_cache()
        known = named(failure)
        if known is not None:
            return known
        if self._count >= MOST:
            self._thread.give_up(f"{self._count} steps failed one after the other, the last with: {failure!r:.200}")
        return EngineFailed("Generation failed inside the engine; send the request again.")
