"""What each token of a row weighs: bounds of exponentials, which are cheap, and exponentials where those leave it open.

Even with numpy, exponentials of a whole vocabulary would be most of a draw. A float's own bits hold an upper bound of
one: read as an integer they are a piecewise linear logarithm (N. Schraudolph, "A fast, compact approximation of the
exponential function", 1999), and what this inverts to lies above exp by at most 6 %. A token is proposed by these
bounds and kept with the probability exp / bound, which gives exactly the distribution of the exponentials.
"""

from __future__ import annotations

from math import exp, log, nextafter
from random import Random
from threading import local

import numpy as np
from numpy.typing import NDArray

from app.schemas.sampling import Sampling

Floats = NDArray[np.float32]

BLOCK = 256
"""Tokens summed together, so that a draw looks through ``vocabulary / BLOCK + BLOCK`` numbers."""
SPARSE = 50
"""Where less than one in ``SPARSE`` tokens is meant, they are gathered and summed."""

BITS_PER_NAT = 2**23 / log(2)
"""How much a float32's bits, read as an integer, grow while its logarithm grows by 1."""
BITS_OF_ONE = np.float32(127 << 23)
"""The bits of 1.0, read as an integer; weights below ``exp(-127 * log(2))`` count as 0."""
ROUNDING = 1e-4
"""More than what float32 arithmetic adds to or takes from a bound, relatively."""
BOUND = 2 / (exp(1) * log(2)) * (1 + ROUNDING) ** 2
"""The largest bound over exp: ``(1 + f) / 2**f`` at its maximum, ``f = 1 / log(2) - 1``."""
COLD = 1e-2
"""Below this temperature exponentials are computed at once: hardly any token has a weight."""
COLDEST = 1e-30
"""Colder is no different, and its inverse would be beyond float32."""


class Room:
    """Memory that the bounds of up to ``rows`` rows are computed in, used again and again by one thread."""

    def __init__(self, vocabulary: int, rows: int) -> None:
        self.vocabulary = vocabulary
        self._floats = np.empty((rows, vocabulary), dtype=np.float32)
        self._bits = np.zeros((rows, _blocks(vocabulary) * BLOCK), dtype=np.int32)

    def bounds(self, logits: Floats, tops: Floats, temperatures: NDArray[np.float64]) -> Floats:
        """Bounds of ``exp((logits - tops) / temperatures)``, ``[rows, blocks, BLOCK]``, zero behind the vocabulary.

        ``logits`` is ``[rows, vocabulary]`` with ``tops`` its maxima, ``[rows]``. Overwritten by the next call.
        """
        rows, vocabulary = logits.shape
        floats, bits = self._floats[:rows, :vocabulary], self._bits[:rows, : _blocks(vocabulary) * BLOCK]
        with np.errstate(all="ignore"):  # rows that are no numbers are told apart by their tops
            np.subtract(logits, tops[:, None], out=floats)  # first: biases make logits too large for what follows
            np.multiply(floats, (BITS_PER_NAT / temperatures).astype(np.float32)[:, None], out=floats)
            np.add(floats, BITS_OF_ONE, out=floats)
            if not floats.min() >= 0:
                np.maximum(floats, 0, out=floats)
            np.copyto(bits[:, :vocabulary], floats, casting="unsafe")
        bits[:, vocabulary:] = 0
        return bits.view(np.float32).reshape(rows, -1, BLOCK)


class Weights:
    """The weights of one row's tokens, from which tokens that are refused drop out.

    ``logits`` is ``[vocabulary]`` with the maximum ``top``, ``blocks`` the bounds, ``[blocks, BLOCK]``, which are
    overwritten.
    """

    def __init__(self, logits: Floats, top: np.float32, blocks: Floats, sampling: Sampling) -> None:
        self._logits = logits
        self._top = top
        self._sampling = sampling
        self._blocks = blocks
        self._flat = blocks.reshape(-1)[: logits.shape[0]]
        self._slack = BOUND
        """How far the weights may be from exponentials, as a factor."""
        self._refused = np.float32(-np.inf)
        self._edges = _edges(blocks)
        self._total = float(self._edges[-1])
        if sampling.temperature < COLD:
            self._compute()

    def propose(self, random: Random) -> int:
        """A token drawn from the whole distribution, or from what refusals have left of it."""
        while True:
            token = self._invert(random.random())
            if self._slack == 1 or random.random() * self._flat[token] * (1 + ROUNDING) < self._exponential(token):
                return token

    def allow(self, token: int) -> bool:
        """Whether ``token`` lies in the set that ``top_k``, ``top_p`` and ``min_p`` leave; if not, it drops out."""
        above = self._logits > self._logits[token]
        allowed = self._judge(token, above)
        if allowed is None:
            self._compute()
            allowed = self._judge(token, above)
        if not allowed:
            self._refused = self._logits[token]
            self._flat *= above
            self._edges = _edges(self._blocks)
        return bool(allowed)

    def _judge(self, token: int, above: NDArray[np.bool_]) -> bool | None:
        """None where the bounds leave it open."""
        sampling, count = self._sampling, int(np.count_nonzero(above))
        if sampling.min_p and self._exponential(token) < sampling.min_p:  # the likeliest token's is 1
            return False
        if sampling.top_k and count >= sampling.top_k:
            return False
        if not count or sampling.top_p >= 1:  # top_p 0 leaves the likeliest
            return True
        mass = self._flat[above].sum() if count * SPARSE < above.size else np.einsum("t->", self._flat * above)
        share = float(mass) / self._total
        if share * self._slack < sampling.top_p:
            return True
        return False if share >= sampling.top_p * self._slack else None

    def _exponential(self, token: int) -> float:
        return exp((float(self._logits[token]) - float(self._top)) / self._sampling.temperature)

    def _compute(self) -> None:
        """Go on with the exponentials themselves."""
        np.subtract(self._logits, self._top, out=self._flat)
        self._flat *= np.float32(1 / max(self._sampling.temperature, COLDEST))
        np.exp(self._flat, out=self._flat)
        self._slack = 1.0
        self._total = float(_edges(self._blocks)[-1])
        self._flat *= self._logits > self._refused
        self._edges = _edges(self._blocks)

    def _invert(self, uniform: float) -> int:
        """The token at which the cumulative sum passes ``uniform`` of the whole; its weight is never 0."""
        target = uniform * self._edges[-1]
        block = _first_above(self._edges, target)
        start = self._edges[block - 1] if block else 0.0
        return block * BLOCK + _first_above(self._blocks[block].cumsum(dtype=np.float64), target - start)


class _Rooms(local):
    room: Room | None = None


_rooms = _Rooms()


def room(vocabulary: int, rows: int) -> Room:
    """This thread's room, for at least ``vocabulary`` tokens."""
    if _rooms.room is None or _rooms.room.vocabulary < vocabulary:
        _rooms.room = Room(vocabulary, rows)
    return _rooms.room


def _blocks(vocabulary: int) -> int:
    return -(-vocabulary // BLOCK)


def _edges(blocks: Floats) -> NDArray[np.float64]:
    """The cumulative sum at the end of each block. No BLAS here: its threads would spin beside the model's."""
    sums: Floats = np.einsum("bt->b", blocks)
    return sums.cumsum(dtype=np.float64)


def _first_above(cumulative: NDArray[np.float64], target: float) -> int:
    """The first index whose cumulative sum is above ``target``, which rounding may have lifted to the very end."""
    return int(cumulative.searchsorted(min(target, nextafter(cumulative[-1], 0)), side="right"))
