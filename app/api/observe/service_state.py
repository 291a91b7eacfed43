"""Whether the service takes requests, and the requests that it is answering."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from app.api.observe.record import record_of
from app.errors import SwitchyardError, Unavailable
from app.generation.events import Events

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


State = Literal["ok", "loading", "draining"]

STOPPING = "The service is stopping. Send the request again once it is back."


class ServiceState:
    """One for each application; everything here runs on its event loop."""

    def __init__(self) -> None:
        self.draining = False
        self._running: set[Deadline] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def running(self) -> int:
        """Answers that are being worked on."""
        return len(self._running)

    def refusal(self) -> SwitchyardError | None:
        """What new requests are told instead of an answer; None: they are welcome."""
        return Unavailable(STOPPING, code="stopping", retry_after=5.0) if self.draining else None

    def begin(self, deadline: Deadline) -> None:
        """An answer is being worked on."""
        self._running.add(deadline)
        self._idle.clear()

    def end(self, deadline: Deadline) -> None:
        """It is no longer."""
        self._running.discard(deadline)
        if not self._running:
            self._idle.set()

    async def drain(self, grace: float) -> None:
        """Take no more requests, give the running ones ``grace`` seconds, and end what is left with an error."""
        self.draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), grace)
        except TimeoutError:
            self._end_all(Unavailable(STOPPING, code="stopping", retry_after=5.0))

    def _end_all(self, failure: SwitchyardError) -> None:
        for deadline in tuple(self._running):
            deadline.expire(failure)


async def watched(
    scope: Any, source: AsyncGenerator[Events, None], service_state: ServiceState, seconds: float
) -> AsyncGenerator[Events, None]:
    """What ``source`` gives until it ends, fails, takes longer than ``seconds`` or the service stops."""
    record, deadline = record_of(scope), Deadline(seconds)
    service_state.begin(deadline)
    try:
        async with aclosing(source):
            with deadline:
                while True:
                    try:
                        events = await deadline.next(source)
                    except StopAsyncIteration:
                        return
                    for event in events:
                        record.see(event)
                    yield events
    except SwitchyardError as failure:
        record.error = failure.code or type(failure).__name__
        raise
    except Exception:
        record.error = "internal_error"
        raise
    finally:
        service_state.end(deadline)
