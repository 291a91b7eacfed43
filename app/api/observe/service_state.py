"""Whether the service takes requests, and the requests that it is answering."""

import asyncio
from typing import Literal

from app.api.protect.deadline import Deadline
from app.errors import SwitchyardError, Unavailable

State = Literal["ok", "loading", "draining"]

STOPPING = "The service is stopping. Send the request again once it is back."


class Vitals:
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
