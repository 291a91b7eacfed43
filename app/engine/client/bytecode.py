"""Bytecode of what models' processes import, which they may not write themselves."""

import asyncio
import os
import struct
import sys
from collections.abc import Iterable
from importlib.util import MAGIC_NUMBER, cache_from_source, find_spec
from pathlib import Path

import app.engine
from app.engine.client.environment import environment

LIBRARIES = ("mlx", "mlx_lm", "numpy", "tokenizers", "transformers")
"""Whose modules are looked at; they import the others."""
_HEAD = struct.Struct("<4sIII")


async def keep_bytecode() -> None:
    """Have it made where it is missing, by a process that reads no model; else every one of them would compile anew."""
    if not await asyncio.to_thread(is_missing):
        return
    nowhere = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "app.engine.host.imports", str(os.getpid())),
        env=environment(),
        stdin=nowhere,
        stdout=nowhere,
        stderr=nowhere,
    )
    try:
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()


def is_missing() -> bool:
    """Whether some could be written."""
    return not sys.dont_write_bytecode and any(map(_is_stale, _sources()))


def _sources() -> Iterable[Path]:
    for place in app.engine.__path__:
        yield from Path(place).rglob("*.py")
    for name in LIBRARIES:
        spec = find_spec(name)
        if spec is not None and spec.origin is not None:
            yield Path(spec.origin)


def _is_stale(source: Path) -> bool:
    """As the interpreter sees it (PEP 552): by the time and size that bytecode has of its source, or by its hash."""
    kept = Path(cache_from_source(source))
    try:
        with kept.open("rb") as file:
            magic, flags, time, size = _HEAD.unpack(file.read(_HEAD.size))
    except (OSError, struct.error):
        return os.access(kept.parent if kept.parent.is_dir() else source.parent, os.W_OK)
    stat = source.stat()
    now = int(stat.st_mtime) & 0xFFFFFFFF, stat.st_size & 0xFFFFFFFF
    return (magic != MAGIC_NUMBER or not (flags or (time, size) == now)) and os.access(kept.parent, os.W_OK)
