"""How much memory there is for models, and how much they hold."""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path

import mlx.core as mx
import psutil

CPU_CACHE = 128 << 20
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux says a container's limit: cgroup v2, then v1."""


class MLXGauge:
    """Unified memory as MLX sees it. Safe to call from any thread."""

    def total(self) -> int:
        """Metal's recommended working set, CUDA's memory, or the system's within its cgroup limit; in bytes."""
        info = mx.device_info()
        for key in ("max_recommended_working_set_size", "total_memory"):
            if key in info:
                return int(info[key])
        return min([int(psutil.virtual_memory().total), *_cgroup_limits()])

    def active(self) -> int:
        """Bytes of live arrays; freed ones that MLX keeps for reuse are not counted."""
        return int(mx.get_active_memory())

    def pool(self) -> int:
        """Bytes of freed arrays that MLX keeps."""
        return int(mx.get_cache_memory())


def half_bytes() -> int:
    """Bytes that a weight of 16 bits takes in memory: CPUs emulate those types, so it is widened there."""
    return 4 if mx.default_device() == mx.Device(mx.cpu) else 2


def limit(budget: int) -> None:
    """Hold MLX to ``budget`` bytes: allocations beyond it first wait for running work, then for freed memory.

    Buffers that MLX keeps for reuse are bounded by a thirty-second of it, and on a CPU, where making them anew costs
    little, by ``CPU_CACHE``. On Metal the budget may be wired, so that weights in use are never paged out.
    """
    mx.set_memory_limit(budget)
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    mx.set_cache_limit(min(budget // 32, CPU_CACHE) if on_cpu else budget // 32)
    if mx.metal.is_available():
        mx.set_wired_limit(min(budget, int(mx.device_info()["max_recommended_working_set_size"])))


def settle() -> None:
    """Collect garbage, and take what is left for long-lived: later collections no longer look through it.

    With transformers and a model that is a hundred thousand objects, and to look through them stops all threads for
    0.1 s, which Python would do once in some three hundred requests. This takes as long; it is for loads and evictions.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def release() -> None:
    """Give freed arrays back to the system. MLX thread only; slow enough to be for evictions, not for steps."""
    settle()
    mx.synchronize()
    give_back()


def give_back() -> None:
    """Give back what is kept for reuse: MLX's buffers, and the free pages that glibc holds between blocks in use.

    glibc alone never lets go of the latter. Other systems' allocators need no such call. MLX thread only.
    """
    mx.clear_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _cgroup_limits() -> list[int]:
    found = []
    for path in CGROUP_LIMITS:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            found.append(int(text))
    return found
