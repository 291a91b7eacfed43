"""An answer's end of time: one timer for the whole of it, however many pieces it is made of."""

import asyncio
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Any, Self, TypeVar

from app.errors import SwitchyardError, Unavailable

T = TypeVar("T")


class Deadline:
    """Runs while it is entered; :meth:`next` raises once it has run ``seconds``, or :meth:`expire` was called."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._failure: SwitchyardError | None = None
        self._waiting: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        late = Unavailable(
            f"The answer took longer than {self._seconds:g} seconds. Ask for fewer tokens, or try again later.",
            code="request_timeout",
            retry_after=1.0,
        )
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self.expire, late)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def expire(self, failure: SwitchyardError) -> None:
        """Raise ``failure`` in place of what would come next; who waits for that is woken."""
        if self._failure is None:
            self._failure = failure
            if self._waiting is not None:
                self._waiting.cancel()

    async def next(self, items: AsyncGenerator[T, None]) -> T:
        """The next of ``items``, which has ended if this raises; StopAsyncIteration after the last."""
        self._check()
        self._waiting = task = asyncio.current_task()
        try:
            return await anext(items)
        except asyncio.CancelledError:
            if task is not None and self._failure is not None:
                task.uncancel()
            self._check()
            raise
        finally:
            self._waiting = None

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure from None
