"""Word that something has changed, for whoever shows it: no polling, and never a backlog."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Changes:
    """Watchers' events, set together. Everything here runs on one event loop, and :meth:`tell` costs next to nothing.

    What has changed is not said: a watcher takes a new snapshot when it is ready for one.
    """

    def __init__(self) -> None:
        self._watchers: set[asyncio.Event] = set()
        self._listeners: list[Callable[[], None]] = []

    def tell(self) -> None:
        """Something has changed."""
        for event in self._watchers:
            event.set()
        for listener in self._listeners:
            listener()

    def follow(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` at every change from now on; it must cost next to nothing as well."""
        self._listeners.append(listener)

    @contextmanager
    def wake(self, event: asyncio.Event) -> Iterator[None]:
        """Set ``event`` at every change for as long as the context is entered."""
        self._watchers.add(event)
        try:
            yield
        finally:
            self._watchers.discard(event)
