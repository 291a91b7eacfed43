"""What a process holds, compared with its models' books whenever nothing is computed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

import mlx.core as mx
import psutil
from msgspec.structs import replace

from app.engine.facts import Books
from app.engine.mlx.memory import free_blocks

TOLERANCE, LEAST = 0.02, 1 << 20
"""How far both may be apart: a part of what is booked, or so many bytes if that is more."""
REFRESH = 0.25
"""Seconds for which books that were read beside the running batch are good."""

log = logging.getLogger(__name__)


def is_off(error: int, booked: int) -> bool:
    """Whether ``error`` bytes are more than what rounding and small tables explain."""
    return abs(error) > max(TOLERANCE * booked, LEAST)


class Audit:
    """One process's. ``each`` gives the books of its models by number, ``prefixes`` the bytes of prefix caches.

    ``helpers`` are the processes that this one has started for itself.
    """

    def __init__(
        self,
        each: Callable[[], Mapping[int, Books]],
        prefixes: Callable[[], int],
        helpers: Callable[[], list[int]],
    ) -> None:
        self._each = each
        self._prefixes = prefixes
        self._helpers = helpers
        self._process = psutil.Process()
        self._bare = self._own = int(self._process.memory_info().rss)
        self._host = self._apart = self._scratch = 0
        self._error = 0
        self._warned = False
        self._books: dict[int, Books] = {}
        self._until = 0.0

    def at_rest(self) -> None:
        """Look at everything; MLX thread, with nothing to step."""
        mx.synchronize()
        books, prefixes, active = self._each(), self._prefixes(), int(mx.get_active_memory())
        self._scratch = sum(it.scratch for it in books.values())
        self._look(active)
        booked = prefixes + sum(it.weights + it.kv for it in books.values())
        self._error, self._until = active - booked if books else 0, 0.0
        off = is_off(self._error, booked)
        if off and not self._warned:
            message = "the process holds %d bytes of arrays where %d are booked: %s, prefixes %d"
            log.warning(message, active, booked, dict(books), prefixes)
        self._warned = off

    def look_beside(self) -> None:
        """Something was made that is no array, such as a tokenizer for grammars. Any thread."""
        self._look(int(mx.get_active_memory()))
        self._until = 0.0

    def books(self) -> dict[int, Books]:
        """As they are now, or were a moment ago; the first model's have what belongs to all of the process."""
        now = time.monotonic()
        if now >= self._until:
            self._until = now + REFRESH
            self._books = dict(self._each())
            if 0 in self._books:
                shared = {"host": self._host, "prefixes": self._prefixes(), "error": self._error, "apart": self._apart}
                self._books[0] = replace(self._books[0], **shared)
        return self._books

    def _look(self, active: int) -> None:
        """See what the process and its helpers hold beside arrays. On CUDA these lie elsewhere, and so do the books.

        What computing has freed and the allocator keeps is taken again by the next slice: scratch, booked already.
        """
        helpers = sum(_resident(pid) for pid in self._helpers())
        if mx.cuda.is_available():
            self._apart = _private(self._process) + helpers
        else:
            held = int(self._process.memory_info().rss) - active - int(mx.get_cache_memory())
            known = max(self._own, held - min(free_blocks(), self._scratch))
            self._own = max(self._bare, min(held, known))  # what a load held for a moment is gone with it
            self._host = self._own + helpers


def _private(process: psutil.Process) -> int:
    """Bytes of a process without those of files, most of them libraries that others have as well."""
    memory = process.memory_info()
    return int(memory.rss) - int(getattr(memory, "shared", 0))


def _resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
