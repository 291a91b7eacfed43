"""What a device's words mean: who is told what, and whether the process is any good after it.

The words are those of MLX 0.32 and of the systems below it: Metal's ``MTLCommandBufferError`` as MLX repeats it
(``[METAL] Command buffer execution failed: ...``), the allocators' (``[metal::malloc] ...``), CUDA's runtime.
"""

from __future__ import annotations

import re

from app.errors import InvalidRequest, SwitchyardError, Unavailable

LOST = re.compile(
    r"excessive GPU errors|SubmissionsIgnored|illegal memory access|device-side assert|unspecified launch failure|"
    r"connection to a peer was lost|"
    r"CUDA_ERROR_\w*CORRUPT|device is unavailable|Device Removed|MTLCommandBufferErrorDeviceRemoved",
    re.IGNORECASE,
)
"""Once a device answers this process with nothing but errors."""
PASSING = re.compile(
    r"Impacting Interactivity|GPU Timeout|Innocent Victim|ErrorTimeout|ErrorInnocentVictim|ErrorImpactingInteractivity|"
    r"launch timed out",
    re.IGNORECASE,
)
"""Work that took too long beside the screen's, or fell with another program's: the same again may succeed."""
TOO_LARGE = re.compile(r"maximum allowed buffer", re.IGNORECASE)
TOO_MANY = re.compile(r"Resource limit", re.IGNORECASE)
OUT_OF_MEMORY = re.compile(r"out of memory|insufficient memory|unable to allocate|malloc|cudamalloc", re.IGNORECASE)
"""What Metal, CUDA and the CPU allocator say when there is none left."""


def out_of_memory(failure: BaseException) -> bool:
    """Whether memory, or what a device has of something like it, was short."""
    return isinstance(failure, MemoryError) or bool(OUT_OF_MEMORY.search(str(failure)))


def passes(failure: BaseException) -> bool:
    """Whether the same may succeed if it is tried again."""
    return bool(PASSING.search(str(failure)))


def lost(failure: BaseException) -> str | None:
    """The device's words if nothing good comes of this process any more, else None."""
    return first_line(failure) if LOST.search(str(failure)) else None


def named(failure: BaseException) -> SwitchyardError | None:
    """The failure as callers are told, for those that have a name."""
    said = str(failure)
    if isinstance(failure, SwitchyardError):
        return failure
    if TOO_LARGE.search(said):
        return InvalidRequest(
            "This request needs a buffer that is larger than the device allows. Shorten it, or name a smaller model.",
            code="device_buffer_limit",
        )
    if TOO_MANY.search(said):
        return Unavailable(
            "The device's limit of buffers is reached. Send the request again once others have ended.",
            code="device_resource_limit",
            retry_after=2,
        )
    if passes(failure):
        return Unavailable(
            "The device gave up a piece of work that took too long, or fell with another program's. Send the request "
            "again.",
            code="device_timeout",
            retry_after=1,
        )
    if out_of_memory(failure):
        return Unavailable(
            "The machine ran out of memory while generating; send the request again.",
            code="out_of_memory",
            retry_after=1,
        )
    return None


def first_line(failure: BaseException) -> str:
    """What it says first."""
    lines = str(failure).strip().splitlines()
    return lines[0][:200] if lines else type(failure).__name__
