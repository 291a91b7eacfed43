"""A token proposed for a row and judged: one record says what is asked and takes what comes of it.

With numpy, and the same from a compiler where there is one (``draw.c``).
"""

from __future__ import annotations

import ctypes
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from math import exp, nextafter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.engine.compiler import compile_library
from app.engine.native import usable_cores
from app.schemas.sampling import Sampling

Floats = NDArray[np.float32]

PROPOSAL = np.dtype(
    [
        ("uniform", np.float64),  # in [0, 1): where the cumulative distribution is inverted
        ("coldness", np.float64),  # 1 / temperature
        ("top_p", np.float64),
        ("min_p", np.float64),
        ("top", np.float32),  # the row's highest logit, found by who proposes where it is NaN
        ("refused", np.float32),  # only tokens with a logit above this are proposed
        ("row", np.int64),  # its place among the logits
        ("top_k", np.int64),  # 0: all
        ("token", np.int64),  # what is proposed
        ("allowed", np.int64),  # whether it lies in the set that top_k, top_p and min_p leave
    ],
    align=True,
)
Proposals = NDArray[np.void]
"""``[count]`` of ``PROPOSAL``."""

COLDEST = 1e-30
"""Colder is no different, and its inverse would be beyond float32."""
BLOCK = 256
"""Tokens summed together, so that a draw looks through ``vocabulary / BLOCK + BLOCK`` numbers."""


def proposals_for(samplings: Sequence[Sampling], places: Sequence[int]) -> Proposals:
    """One for each row, by its place, of which nothing is refused yet."""
    asked = np.zeros(len(samplings), dtype=PROPOSAL)
    asked["coldness"] = [1 / max(it.temperature, COLDEST) for it in samplings]
    asked["top_p"] = [it.top_p for it in samplings]
    asked["min_p"] = [it.min_p for it in samplings]
    asked["top_k"] = [it.top_k for it in samplings]
    asked["top"] = np.nan
    asked["refused"] = -np.inf
    asked["row"] = places
    return asked


def propose(logits: Floats, proposals: Proposals) -> None:
    """Fill ``token`` and ``allowed`` of each, for ``logits``, ``[rows, vocabulary]``.

    Nothing is proposed for rows whose logits are no numbers or all minus infinity: their ``top`` is not finite.
    """
    for it in proposals:
        row = logits[it["row"]]
        if np.isnan(it["top"]):
            it["top"] = row.max()
        if not np.isfinite(it["top"]):
            continue
        weights = _weigh(row, it)
        whole = float(weights.sum())
        if it["refused"] > -np.inf:
            weights *= row > it["refused"]
        it["token"] = _invert(weights, it["uniform"])
        it["allowed"] = _is_allowed(row, weights, whole, it)


def _weigh(row: Floats, it: Any) -> Floats:
    """The exponentials, ``[vocabulary]``; the likeliest token's is 1."""
    with np.errstate(over="ignore"):  # far below the top in the cold is minus infinity, and weighs nothing
        weights: Floats = row - it["top"]
        weights *= np.float32(it["coldness"])
    return np.exp(weights, out=weights)


def _invert(weights: Floats, uniform: float) -> int:
    """The token at which the cumulative sum passes ``uniform`` of the whole; its weight is never 0."""
    edges = np.add.reduceat(weights, range(0, weights.size, BLOCK)).cumsum(dtype=np.float64)
    target = uniform * float(edges[-1])
    block = _first_above(edges, target)
    start = float(edges[block - 1]) if block else 0.0
    within = weights[block * BLOCK : (block + 1) * BLOCK].cumsum(dtype=np.float64)
    return block * BLOCK + _first_above(within, target - start)


def _first_above(cumulative: NDArray[np.float64], target: float) -> int:
    """The first index whose cumulative sum is above ``target``, which rounding may have lifted to the very end."""
    return int(cumulative.searchsorted(min(target, nextafter(cumulative[-1], 0)), side="right"))


def _is_allowed(row: Floats, weights: Floats, whole: float, it: Any) -> bool:
    logit = row[it["token"]]
    if logit == it["top"]:  # the likeliest always is
        return True
    if it["min_p"] and exp((float(logit) - float(it["top"])) * it["coldness"]) < it["min_p"]:
        return False
    above = row > logit
    if it["top_k"] and np.count_nonzero(above) >= it["top_k"]:
        return False
    return bool(it["top_p"] >= 1 or np.einsum("t,t->", weights, above) < it["top_p"] * whole)


SOURCE = Path(__file__).with_name("draw.c")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math")
"""Sums may be taken in any order, without which none is vectorised; infinities stay what they are."""
MOST_THREADS = 4
FEWEST = 4
"""Rows that a thread draws for at least: to wake one takes about as long as to draw for one."""

Propose = Callable[[Floats, Proposals], None]

log = logging.getLogger(__name__)


@cache
def proposer() -> Propose:
    """:func:`propose`, compiled if this machine can; the first call takes some tenths of a second."""
    try:
        return _Compiled(_compile()) if sys.platform == "linux" else propose
    except (OSError, subprocess.SubprocessError) as failure:
        log.warning("tokens are drawn with numpy, slower than a C compiler would make it (cc or $CC): %s", failure)
        return propose


def _compile() -> ctypes.CDLL:
    """Raises OSError or SubprocessError where there is no compiler, or none that can do this."""
    with TemporaryDirectory(prefix="switchyard-") as folder:
        library = Path(folder, "draw.so")
        compile_library(SOURCE, library, *FLAGS, "-lm")
        return ctypes.CDLL(str(library))


class _Compiled:
    """Calls into the library, during which other threads run; of many rows some are another thread's."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._threads = min(usable_cores(), MOST_THREADS)
        self._others = ThreadPoolExecutor(self._threads, "draws")
        self._propose = library.propose
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        self._propose.argtypes = [pointer, size, pointer, size, pointer, pointer]
        self._propose.restype = None

    def __call__(self, logits: Floats, proposals: Proposals) -> None:
        logits = np.ascontiguousarray(logits, dtype=np.float32)
        mine, *others = np.array_split(proposals, max(1, min(self._threads, len(proposals) // FEWEST)))
        theirs = [self._others.submit(self._draw, logits, part) for part in others]
        self._draw(logits, mine)
        for each in theirs:
            each.result()

    def _draw(self, logits: Floats, proposals: Proposals) -> None:
        vocabulary = logits.shape[1]
        weights = np.empty(vocabulary, dtype=np.float32)
        edges = np.empty(-(-vocabulary // BLOCK), dtype=np.float64)
        pointers = [it.ctypes.data for it in (logits, proposals, weights, edges)]
        self._propose(pointers[0], vocabulary, pointers[1], len(proposals), *pointers[2:])
