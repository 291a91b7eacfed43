"""CUDA kernels of our own, compiled here: in tenths of a second, where what MLX puts before each takes it five.

MLX keeps what it compiles for itself on disk, but not what others give it to compile.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache

import mlx.core as mx

VERSIONS = (13, 12)
"""Of CUDA, whose compiler MLX has loaded."""


class CompilerFailed(RuntimeError):
    """There is no compiler, or it does not take the text."""


@cache
def on_cuda() -> bool:
    """Whether this process computes on CUDA."""
    return bool(mx.cuda.is_available())


def compiled(source: str, architecture: str) -> bytes:
    """Machine code of kernels that are ``extern "C"``, for GPUs of ``architecture`` as in "sm_90".

    The text includes nothing. Raises :class:`CompilerFailed`. Any thread; others run meanwhile.
    """
    library = _library()
    program = ctypes.c_void_p()
    _check(library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"own.cu", 0, None, None))
    try:
        option = f"--gpu-architecture={architecture}".encode()
        if library.nvrtcCompileProgram(program, 1, (ctypes.c_char_p * 1)(option)):
            log = _taken(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog, program)
            raise CompilerFailed(log.decode(errors="replace").strip("\0")[:500])
        return _taken(library.nvrtcGetCUBINSize, library.nvrtcGetCUBIN, program)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def architecture() -> str:
    """This machine's GPU, as the compiler calls it; raises :class:`CompilerFailed` if it is none of NVIDIA's."""
    info = mx.device_info()
    if "compute_capability_major" not in info:
        raise CompilerFailed("There is no GPU of NVIDIA's here.")
    return f"sm_{info['compute_capability_major']}{info['compute_capability_minor']}"


def _library() -> ctypes.CDLL:
    """The compiler that MLX has brought into this process."""
    names = (f"nvrtc64_{it}0_0.dll" if sys.platform == "win32" else f"libnvrtc.so.{it}" for it in VERSIONS)
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise CompilerFailed("There is no libnvrtc here.")


def _taken(size_of: Callable[..., int], take: Callable[..., int], program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _check(size_of(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(take(program, buffer))
    return buffer.raw


def _check(result: int) -> None:
    if result:
        raise CompilerFailed(f"The compiler answers {result}.")
