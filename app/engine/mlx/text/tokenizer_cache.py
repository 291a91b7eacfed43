"""Tokenizers that this process has read: reading one takes far longer than reading small weights."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.engine.mlx.cores import giving_way
from app.engine.mlx.text.tokenizer import MLXTokenizer

KEPT = 2
"""Tokenizers: the model's and its draft's."""
FILES = ("tokenizer*", "*.jinja", "*.json", "*.model", "*.tiktoken")
"""What a tokenizer is read from; a change to any of them is seen."""

Key = tuple[Path, str, tuple[tuple[str, int, int], ...]]


class TokenizerUnreadable(ValueError):
    """Files that no tokenizer can be made of; its message says what was made of them instead."""


class TokenizerCache:
    """Least recently used first out; event loop only. Two loads of one model at once share the reading."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._reader = ThreadPoolExecutor(1, "tokenizer")
        self._read: OrderedDict[Key, asyncio.Task[MLXTokenizer]] = OrderedDict()

    async def load(self, path: Path, eos_token_ids: list[int] | int | None) -> MLXTokenizer:
        """The tokenizer of a model directory, read on another thread unless it is known."""
        key = await asyncio.to_thread(_key, path, eos_token_ids)
        task = self._read.get(key)
        if task is None:
            task = self._read[key] = asyncio.create_task(self._start(path, eos_token_ids))
        self._read.move_to_end(key)
        try:
            return await asyncio.shield(task)
        except Exception:
            self._read.pop(key, None)
            raise
        finally:
            while len(self._read) > self._kept:
                self._read.popitem(last=False)

    def clear(self, *used: Path) -> bool:
        """Let go of all of them: a process that has its model loads no other, and each may hold a hundred megabytes.

        Whether one was of none of the directories that were ``used``.
        """
        others = any(path not in used for path, *_ in self._read)
        self._read.clear()
        return others

    async def _start(self, path: Path, eos_token_ids: list[int] | int | None) -> MLXTokenizer:
        return await asyncio.get_running_loop().run_in_executor(self._reader, _read, path, eos_token_ids)


def _key(path: Path, eos_token_ids: list[int] | int | None) -> Key:
    files = sorted({file for pattern in FILES for file in path.glob(pattern)})
    stats = [(file.name, file.stat()) for file in files]
    return path, str(eos_token_ids), tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def _read(path: Path, eos_token_ids: list[int] | int | None) -> MLXTokenizer:
    """On a thread that gives way to others: what streams elsewhere on the machine goes on.

    What is no Exception, such as a library's panic, would end the event loop if it came out of a task.
    """
    with giving_way():
        try:
            tokenizer = MLXTokenizer.load(path, eos_token_ids)
        except MemoryError:
            raise
        except KeyError as failure:
            raise TokenizerUnreadable(f"KeyError {failure}") from failure
        except BaseException as failure:
            raise TokenizerUnreadable(str(failure) or type(failure).__name__) from failure
        tokenizer.probe()
        return tokenizer
