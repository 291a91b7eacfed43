"""What a job has taken so far."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Meter:
    """Written as the job runs and read at any time by whoever watches it, however it ends. Times are seconds.

    ``queue`` is all the time in which nothing was computed for it, a load apart: for its turn, for memory, for its
    prompt to be written, its grammar to be compiled, its turn in the batch. ``completion_tokens`` are those that have
    come.
    """

    def __init__(self) -> None:
        self.load = 0.0
        self.completion_tokens = 0
        self._waited = 0.0
        self._since: float | None = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """What is done in here is a wait. Not to be nested."""
        self._since = perf_counter()
        try:
            yield
        finally:
            self._waited += perf_counter() - self._since
            self._since = None

    def waited(self, seconds: float) -> None:
        """The engine had other work first, for so long."""
        self._waited += seconds

    @property
    def queue(self) -> float:
        """With the wait that lasts at the moment."""
        now = 0.0 if self._since is None else perf_counter() - self._since
        return max(0.0, self._waited + now - self.load)
