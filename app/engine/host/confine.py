"""What an engine's process may do: end with its service, see its folders, connect to other ranks if it is one."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import site
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from app.engine.host.setup import Folders

SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/opt", "/proc", "/sys", "/run", "/var/lib")
"""What libraries are made of and look at, on any Linux; read only."""
DEVICES = ("/dev", "/proc/self")
"""Written to as files that are there: by CUDA, which gives its threads names in /proc as well."""

_CREATE, _ADD, _RESTRICT = 444, 445, 446
"""Numbers of Landlock's three system calls, the same on every architecture (https://docs.kernel.org/userspace-api/landlock.html)."""
_NO_NEW_PRIVS, _DEATH_SIGNAL = 38, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1, 2, 4, 8, 1 << 14
_IOCTL_DEV = 1 << 15
_FS_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All rights to files that a version of Landlock knows."""
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_NET = 3
"""To listen on TCP ports and to connect to them, from version 4 on."""
_SCOPES = 3
"""Abstract sockets and signals, from version 6 on."""

OOM_SCORE = "500"
"""The system's killer takes a model's process before the service."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Port(ctypes.Structure):
    _fields_ = (("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def end_with(parent: int) -> None:
    """Have the system end this process with the thread that started it; elsewhere the closed socket says it.

    A ``parent`` of 0 is on another host.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service
    if sys.platform == "linux":
        if parent:
            ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    if parent and os.getppid() != parent:
        os._exit(0)


def confine(folders: Folders, ports: Iterable[int] = (), *, network: bool = False) -> bool:
    """Hold this thread, and all that it starts, to ``folders`` and to TCP ``ports``; whether the system does.

    With ``network`` every connection is allowed, and sockets of other processes that have no file.
    To be called before there are other threads. Where the kernel has no Landlock nothing is held.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE, None, 0, 1)
    if version < 1:
        return False
    rights = next(_FS_BY_ABI[known] for known in sorted(_FS_BY_ABI, reverse=True) if known <= version)
    net, scopes = (0, 0) if network else (_NET if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    wanted = _Ruleset(rights, net, scopes)
    size = 8 * (1 + (version >= 4) + (version >= 6))
    ruleset = libc.syscall(_CREATE, ctypes.byref(wanted), size, 0)
    if ruleset < 0:
        return False
    try:
        reading = _EXECUTE | _READ_FILE | _READ_DIR
        _allow(libc, ruleset, (*SYSTEM, *_python(), *folders.read), reading)
        _allow(libc, ruleset, DEVICES, rights & (reading | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV))
        _allow(libc, ruleset, (tempfile.gettempdir(), "/dev/shm", *folders.write), rights)  # noqa: S108  CUDA's own
        for port in ports if net else ():
            libc.syscall(_ADD, ruleset, 2, ctypes.byref(_Port(_NET, port)), 0)
        libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
        held = bool(libc.syscall(_RESTRICT, ruleset, 0) == 0)
    finally:
        os.close(ruleset)
    if not held:
        logging.getLogger(__name__).warning("the system has Landlock but does not hold the engine's process by it")
    return held


def _python() -> Iterable[str]:
    """Where this interpreter and its packages are, links followed."""
    here = Path(__file__).resolve().parents[2]
    places = [
        sys.prefix,
        sys.base_prefix,
        str(here),
        *site.getsitepackages(),
        *sysconfig.get_paths().values(),
        *sys.path,
    ]
    return {str(Path(place).resolve()) for place in places if place}


def _allow(libc: ctypes.CDLL, ruleset: int, places: Iterable[str], rights: int) -> None:
    for place in places:
        try:
            parent = os.open(place, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            rule = _Beneath(rights if Path(place).is_dir() else rights & _OF_FILES, parent)
            libc.syscall(_ADD, ruleset, 1, ctypes.byref(rule), 0)
        finally:
            os.close(parent)
