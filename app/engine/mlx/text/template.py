"""Chat templates, rendered where they can do no harm: by helper processes, within a time.

A thread cannot be ended in Python, so a template that loops would hold one for ever; a process can. ``transformers``
prepares what templates are given and does the rest; only the rendering itself is taken out of its hands.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, LifoQueue
from threading import Lock, Semaphore
from typing import Any

import psutil
from jinja2 import Environment, TemplateError
from transformers.utils import chat_template_utils

from app.engine.mlx.text import template_helper

SECONDS = 5.0
"""What a template may take; more than a thousand times what the slowest of real ones takes."""
START_SECONDS = 30.0
"""What a helper may take to start; far more than it does."""
HELPERS = 4
"""Templates that are rendered at the same time."""
START_WORTH = 0.05
"""Seconds after which one more helper is started, if all render: to start one takes about as long, of a whole core."""
WATCH_SECONDS = 0.05
"""How often the memory of a helper that renders is looked at."""
BANNED_SECONDS = 60.0
"""How long a template that took too long is not tried again: nobody waits for it, or behind it, meanwhile."""


class Helpers:
    """Helper processes, started when they are wanted and kept. Any thread."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._free = Semaphore(HELPERS)
        self._idle: LifoQueue[_Helper] = LifoQueue()
        self._all: set[_Helper] = set()
        self._banned: dict[str, float] = {}
        self._lock = Lock()

    def render(self, template: str, variables: dict[str, Any]) -> str:
        """The text. Raises :class:`jinja2.TemplateError` if the template refuses, misbehaves or takes too long."""
        if self._is_banned(template):
            raise TemplateError("it took too long a moment ago")
        message = json.dumps({"template": template, "variables": variables}).encode()
        with self._free:
            answer = self._ask(template, message)
        if "text" not in answer:
            raise TemplateError(answer["refused"])
        return answer["text"]

    def start(self) -> None:
        """Have a helper wait for the first template. Raises :class:`jinja2.TemplateError` if it does not start."""
        self._idle.put(self._helper())

    def thin(self) -> None:
        """End all that wait but one."""
        kept: _Helper | None = None
        with contextlib.suppress(Empty):
            while True:
                helper = self._idle.get_nowait()
                if kept is None and helper.alive:
                    kept = helper
                else:
                    self._end(helper)
        if kept is not None:
            self._idle.put(kept)

    def pids(self) -> list[int]:
        """The processes."""
        with self._lock:
            return [helper.pid for helper in self._all if helper.alive]

    def _ask(self, template: str, message: bytes) -> dict[str, str]:
        helper = self._helper()
        try:
            answer = helper.ask(message, self._seconds)
        except TimeoutError:
            self._end(helper)
            with self._lock:
                self._banned[template] = time.monotonic() + BANNED_SECONDS
            raise TemplateError(f"it took longer than {self._seconds:g} seconds") from None
        except (OSError, EOFError):
            self._end(helper)
            raise TemplateError("rendering it ended the process that did so") from None
        except BaseException:
            self._end(helper)
            raise
        self._idle.put(helper)
        return answer

    def _helper(self) -> _Helper:
        with contextlib.suppress(Empty):
            while True:
                helper = self._idle.get(timeout=START_WORTH if self._all else 0)
                if helper.alive:
                    return helper
                self._end(helper)
        return self._started()

    def _started(self) -> _Helper:
        helper: _Helper | None = None
        try:
            helper = _Helper()
            with self._lock:
                self._all.add(helper)
            helper.get_ready()
        except (OSError, EOFError):  # TimeoutError is one
            if helper is not None:
                self._end(helper)
            raise TemplateError("the process that renders it does not start") from None
        return helper

    def _end(self, helper: _Helper) -> None:
        with self._lock:
            self._all.discard(helper)
        helper.end()

    def _is_banned(self, template: str) -> bool:
        with self._lock:
            until = self._banned.get(template, 0.0)
            if until and until < time.monotonic():
                del self._banned[template]
                return False
            return bool(until)


class _Helper:
    """One process."""

    def __init__(self) -> None:
        program = str(Path(template_helper.__file__))
        self._process = subprocess.Popen(  # noqa: S603  this very Python, our own program
            [sys.executable, "-I", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": "", "TZ": os.environ.get("TZ", "")} if "TZ" in os.environ else {"PATH": ""},
            bufsize=0,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def get_ready(self) -> None:
        """Wait until it takes messages; raises as :meth:`ask`."""
        self._answer(time.monotonic() + START_SECONDS)

    def ask(self, message: bytes, seconds: float) -> dict[str, str]:
        """Raises TimeoutError, or OSError or EOFError if the process is gone."""
        deadline = time.monotonic() + seconds
        process = self._process
        if process.stdin is None or process.stdout is None:
            raise EOFError
        left = memoryview(struct.pack(">I", len(message)) + message)
        while left:
            left = left[process.stdin.write(left) or 0 :]
        return self._answer(deadline)

    def _answer(self, deadline: float) -> dict[str, str]:
        size = struct.unpack(">I", self._read(4, deadline))[0]
        answer: dict[str, str] = json.loads(self._read(size, deadline))
        return answer

    def _read(self, size: int, deadline: float) -> bytes:
        read = bytearray()
        out = self._process.stdout
        while out is not None and len(read) < size:
            self._wait(out.fileno(), deadline)
            piece = out.read(min(size - len(read), 1 << 20))
            if not piece:
                raise EOFError
            read += piece
        return bytes(read)

    def _wait(self, descriptor: int, deadline: float) -> None:
        """Until there is something to read; meanwhile its memory is watched, which some systems do not bound."""
        poll = select.poll()  # unlike select it knows descriptors above 1,023
        poll.register(descriptor, select.POLLIN | select.POLLHUP)
        while not poll.poll(1000 * max(0.0, min(WATCH_SECONDS, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                raise TimeoutError
            if self._resident() > template_helper.MEMORY:
                raise EOFError

    def _resident(self) -> int:
        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:
            return 0

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


class RemoteTemplate:
    """What ``transformers`` takes for a compiled template. ``environment`` only reads templates, it runs none."""

    def __init__(self, source: str, environment: Environment, helpers: Helpers) -> None:
        self.environment = environment
        self._source = source
        self._helpers = helpers

    def render(self, **variables: Any) -> str:
        """By a helper."""
        return self._helpers.render(self._source, variables)


def confine_templates() -> Helpers:
    """Have ``transformers`` render every chat template by helpers from now on. Calling it again changes nothing."""
    known = getattr(chat_template_utils._compile_jinja_template, "helpers", None)  # noqa: SLF001  there is no hook
    if isinstance(known, Helpers):
        return known
    environment, pool = template_helper.environment(), Helpers()

    def compile_(source: str) -> RemoteTemplate:
        return RemoteTemplate(source, environment, pool)

    compiled: Callable[[str], RemoteTemplate] = compile_
    compiled.helpers = pool  # type: ignore[attr-defined]
    chat_template_utils._compile_jinja_template = compiled  # noqa: SLF001
    return pool
