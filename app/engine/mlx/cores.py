"""Sharing the machine's cores with the processes of other models."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from app.engine.native import usable_cores

LOW = 10
"""The niceness of what can wait: a tenth of the share of what cannot, where cores are short."""


@contextmanager
def giving_way() -> Iterator[None]:
    """Let other threads and processes go first while this thread works. Linux only; elsewhere nothing changes.

    Without privileges a niceness cannot be taken back, so the work should be the last that the thread does; where it
    can be, it is.
    """
    if sys.platform != "linux":
        yield
        return
    thread = threading.get_native_id()
    before = os.getpriority(os.PRIO_PROCESS, thread)
    os.setpriority(os.PRIO_PROCESS, thread, max(before, LOW))
    try:
        yield
    finally:
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, thread, before)


def share_cores(busy: int) -> None:
    """Have OpenBLAS, where it is loaded, use this process's share of the cores beside ``busy`` other processes.

    Threads that wait for each other at every product lose far more than their share where there are more of them than
    cores. MLX thread.
    """
    if sys.platform != "linux":
        return
    set_threads = getattr(ctypes.CDLL(None), "openblas_set_num_threads", None)
    if set_threads is not None:
        set_threads(max(1, usable_cores() // (1 + busy)))
