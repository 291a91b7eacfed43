"""How much memory there is for models, and how much they hold."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import psutil

from app.engine.facts import DeviceFacts, Limits

CPU_CACHE = 128 << 20
IDLE_SECONDS = 10.0
"""Of rest, before what is kept for reuse is given back: a turn that comes sooner need not ask for its pages anew."""
EMULATING = ("applegpu_g13", "applegpu_g14")
CUDA_CONTEXT = 560 << 20
ROOM = 8 << 30
"""Bytes beside MLX's arrays that a process on a Linux CPU may take before the system refuses it more."""
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux says a container's limit: cgroup v2, then v1."""


def device() -> DeviceFacts:
    """What this process computes on: Metal's recommended working set, CUDA's memory, or the system's in its cgroup.

    CPUs emulate types of 16 bits, so they are widened there.
    """
    info, system = mx.device_info(), min([int(psutil.virtual_memory().total), *_cgroup_limits()])
    if mx.default_device() == mx.Device(mx.cpu):
        return DeviceFacts("cpu", system, 4)
    if mx.cuda.is_available():
        return DeviceFacts("cuda", int(info["total_memory"]), 2, system)
    return DeviceFacts("metal", int(info["max_recommended_working_set_size"]), 2)


def context_bytes() -> int:
    """What a process takes of the device beside its arrays: on CUDA its context (518 to 554 MiB on an H200)."""
    return CUDA_CONTEXT if mx.cuda.is_available() else 0


def emulates_bfloat16() -> bool:
    """Whether this is an M1 or M2, whose GPUs (families g13 and g14) compute bfloat16 in float32."""
    return mx.metal.is_available() and str(mx.device_info().get("architecture", "")).startswith(EMULATING)


def compiles_kernels() -> bool:
    """Whether the device compiles kernels where they are first needed, as Metal and CUDA do."""
    return bool(mx.metal.is_available() or mx.cuda.is_available())


def keep_kernels(home: Path) -> None:
    """Have MLX keep the CUDA kernels that it compiles below ``home``, apart for each version and kind of GPU.

    By itself it keeps them in the system's folder for temporary files, by names that say nothing of the GPU. To be
    called before anything is computed; where the environment names a folder, that is it.
    """
    if mx.cuda.is_available() and "MLX_PTX_CACHE_DIR" not in os.environ:
        kind = f"{version('mlx')}-{mx.device_info()['architecture']}"
        os.environ["MLX_PTX_CACHE_DIR"] = str(home / "kernels" / kind)


def half_bytes() -> int:
    """Bytes that a weight of 16 bits takes in memory."""
    return 4 if mx.default_device() == mx.Device(mx.cpu) else 2


def limit(limits: Limits) -> None:
    """Hold MLX to ``limits``: allocations beyond them first wait for running work, then for freed memory.

    On a CPU, where making buffers anew costs little, fewer of them are kept for reuse.
    """
    mx.set_memory_limit(limits.memory)
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    mx.set_cache_limit(min(limits.pool, CPU_CACHE) if on_cpu else limits.pool)
    if mx.metal.is_available():
        mx.set_wired_limit(limits.wired)
    if on_cpu and sys.platform == "linux":
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (limits.memory + ROOM, hard))


def settle() -> None:
    """Collect garbage, and take what is left for long-lived: later collections no longer look through it.

    With transformers and a model that is a hundred thousand objects, and to look through them stops all threads for
    0.1 s, which Python would do once in some three hundred requests. What was settled before is not looked through.
    """
    gc.collect()
    gc.freeze()


def release() -> None:
    """Give freed arrays back to the system. MLX thread only; slow enough to be for evictions, not for steps."""
    gc.unfreeze()
    settle()
    mx.synchronize()
    give_back()


def give_back() -> None:
    """Give back what is kept for reuse: MLX's buffers and the heap's free pages. MLX thread only."""
    mx.clear_cache()
    trim_heap()


def trim_heap() -> None:
    """Give back the free pages that glibc holds between blocks in use, and alone never lets go of.

    Other systems' allocators need no such call. Any thread.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


class _Mallinfo(ctypes.Structure):
    """glibc's ``struct mallinfo2``: see mallinfo(3)."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in _names]


def free_blocks() -> int:
    """Bytes that the process holds between blocks in use and takes again before it asks the system; 0 if unknown.

    glibc 2.33 and later say it, in about 0.1 ms. Any thread.
    """
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None) if sys.platform == "linux" else None
    if ask is None:
        return 0
    ask.restype = _Mallinfo
    return int(ask().fordblks)


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
