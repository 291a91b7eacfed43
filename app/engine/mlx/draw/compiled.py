"""The draw in C, for Linux machines that compute on their CPU and have a C compiler.

It is compiled when a process first needs it, into a folder that is gone a moment later: for this processor, and never
read from a place where somebody else could have put it. Where that fails, numpy does the same, about five times slower.
"""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

import numpy as np

from app.engine.mlx.draw import proposal
from app.engine.mlx.draw.proposal import Floats, Proposals

SOURCE = Path(__file__).with_name("draw.c")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math")
"""Sums may be taken in any order, without which none is vectorised; infinities stay what they are."""
TIMEOUT_SECONDS = 60

Propose = Callable[[Floats, Proposals], None]

log = logging.getLogger(__name__)


@cache
def proposer() -> Propose:
    """:func:`proposal.propose`, compiled if this machine can; the first call takes some tenths of a second."""
    try:
        return _Compiled(_compile()) if sys.platform == "linux" else proposal.propose
    except (OSError, subprocess.SubprocessError) as failure:
        log.warning("tokens are drawn with numpy, slower than a C compiler would make it (cc or $CC): %s", failure)
        return proposal.propose


def _compile() -> ctypes.CDLL:
    """Raises OSError or SubprocessError where there is no compiler, or none that can do this."""
    compiler = which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise FileNotFoundError("there is no C compiler")
    with TemporaryDirectory(prefix="switchyard-") as folder:
        library = Path(folder, "draw.so")
        command = [compiler, *FLAGS, "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-lm"]
        subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_SECONDS)  # noqa: S603  our own source
        return ctypes.CDLL(str(library))


class _Compiled:
    """Calls into the library, during which other threads run."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._propose = library.propose
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        self._propose.argtypes = [pointer, size, pointer, size, pointer, pointer]
        self._propose.restype = None

    def __call__(self, logits: Floats, proposals: Proposals) -> None:
        logits, vocabulary = np.ascontiguousarray(logits, dtype=np.float32), logits.shape[1]
        weights = np.empty(vocabulary, dtype=np.float32)
        edges = np.empty(-(-vocabulary // proposal.BLOCK), dtype=np.float64)
        pointers = [it.ctypes.data for it in (logits, proposals, weights, edges)]
        self._propose(pointers[0], vocabulary, pointers[1], len(proposals), *pointers[2:])
