"""What each process may take beside the others."""

import asyncio
from collections.abc import Callable, Mapping

import psutil

from app.engine.client.process import EngineProcess
from app.engine.facts import Limits
from app.engine.messages import SetLimits

DELAY = 0.05
"""Seconds for which changes of who computes are gathered."""
POOL = 32
"""Processes keep at most this part of the budget in freed buffers, together."""
STEPS = 64
"""What prefix caches may hold is told in so many parts of the budget."""


class Shares:
    """Tells the processes of ``residents``, which hold so many bytes each, what they may take; event loop only.

    ``budget`` gives the bytes that models may have in all, ``prefixes`` are the most that prefix caches share, None:
    whatever they are allowed, and ``wired`` those that may be kept from being paged out.
    """

    def __init__(
        self, residents: Mapping[EngineProcess, int], budget: Callable[[], int], *, prefixes: int | None, wired: int
    ) -> None:
        self._residents = residents
        self._budget = budget
        self._prefixes = prefixes
        self._allowed: int | None = None
        self._wired = wired
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.sent: dict[EngineProcess, Limits] = {}

    def changed(self, process: EngineProcess) -> None:
        """``process`` has something to do, or has no more: what it begins with cannot wait, the others' part can."""
        if process.busy and process in self._residents:
            self._tell(process)
        self._tell_soon()

    def allow(self, nbytes: int) -> None:
        """Prefix caches may hold so much from now on; what is less is told at once, and small differences never."""
        step = max(1, self._budget() // STEPS)
        allowed = max(0, nbytes) // step * step
        before, self._allowed = self._allowed, allowed
        if before is None or allowed < before:
            self.tell()
        elif allowed > before:
            self._tell_soon()

    def _for_prefixes(self) -> int:
        bounds = [it for it in (self._prefixes, self._allowed) if it is not None]
        return min(bounds, default=0) // len(self._residents)

    def tell(self) -> None:
        """Tell each process what is new to it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.sent = {process: limits for process, limits in self.sent.items() if process in self._residents}
        for process in self._residents:
            self._tell(process)

    def _tell_soon(self) -> None:
        if self._timer is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(DELAY, self.tell)

    def _tell(self, process: EngineProcess) -> None:
        """Tell it, if there is anything new; who computes beside it concerns it only while it computes itself."""
        budget, nbytes = self._budget(), self._residents[process]
        before = self.sent.get(process)
        limits = Limits(
            memory=max(nbytes, budget - (sum(self._residents.values()) - nbytes)),
            pool=budget // POOL // len(self._residents),
            prefixes=self._for_prefixes(),
            busy=sum(other.busy for other in self._residents if other is not process)
            if process.busy or before is None
            else before.busy,
            wired=self._wired // len(self._residents),
        )
        if before != limits:
            self.sent[process] = limits
            process.send(SetLimits(limits))

    def close(self) -> None:
        """Tell nobody anything any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()


def wired_share(wanted: int) -> int:
    """Of the bytes ``wanted``, those that leave the larger of 8 GB and 35 % of the memory to everything else."""
    memory = int(psutil.virtual_memory().total)
    return max(0, min(wanted, memory - max(8 * 10**9, memory * 35 // 100)))
