"""A child process that answers one JSON line with another, so that several programs can be measured in turns."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Self

import msgspec


class Child:
    """``python -m MODULE ARGS...``, asked line by line and ended with the block."""

    def __init__(self, module: str, *args: str, env: dict[str, str]) -> None:
        self._command = [sys.executable, "-m", module, *args]
        self._env = env

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: S603  our own program
            self._command, env=self._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._questions, self._answers = self._process.stdin, self._process.stdout
        return self

    def __exit__(self, *_: object) -> None:
        self._questions.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()

    def ask(self, **question: Any) -> dict[str, Any]:
        """The answer to ``question``; raises RuntimeError when the child has ended."""
        self._questions.write(msgspec.json.encode(question) + b"\n")
        self._questions.flush()
        line = self._answers.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self._command)} ended with {self._process.wait()}")
        return msgspec.json.decode(line, type=dict[str, Any])


def answer_lines(answer: Callable[..., dict[str, Any]]) -> None:
    """The child's side: call ``answer`` with each line's object until standard input ends."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else prints shall not be taken for an answer
    for line in sys.stdin.buffer:
        out.write(msgspec.json.encode(answer(**msgspec.json.decode(line))) + b"\n")
        out.flush()
