"""What each token of a row weighs: bounds of exponentials, which are cheap, and exponentials where those leave it open.

Even with numpy, exponentials of a whole vocabulary would be most of a draw. A float's own bits hold an upper bound of
one: read as an integer they are a piecewise linear logarithm (N. Schraudolph, "A fast, compact approximation of the
exponential function", 1999), and what this inverts to lies above exp by at most 6 %. A token is proposed by these
bounds and kept with the probability exp / bound, which gives exactly the distribution of the exponentials.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf, log, nextafter
from random import Random
from threading import local

import numpy as np
from numpy.typing import NDArray

from app.schemas.sampling import Sampling

Floats = NDArray[np.float32]
Edges = NDArray[np.float64]

BLOCK = 256
"""Tokens summed together, so that a draw looks through ``vocabulary / BLOCK + BLOCK`` numbers."""
PART = 64
"""Blocks looked through before it is asked whether they tell enough."""

ONE = 127 << 23
"""The bits of 1.0, read as an integer."""
NATS_OF_ONE = 127 * log(2)
"""How far a float32 falls, in natural logarithms, while these bits count down to 0; weights below that count as 0."""
ROUNDING = 1e-4
"""More than what float32 arithmetic adds to or takes from a bound, relatively, and from a share."""
BOUND = 2 / (exp(1) * log(2)) * (1 + ROUNDING) ** 2
"""The largest bound over exp: ``(1 + f) / 2**f`` at its maximum, ``f = 1 / log(2) - 1``."""
COLD = 1e-2
"""Below this temperature exponentials are computed at once: hardly any token has a weight."""
EPSILON = 2**-24
"""Relatively, how far float32 rounds: where that is more of the top than the temperature, exponentials are computed."""
COLDEST = 1e-30
"""Colder is no different, and its inverse would be beyond float32."""


class Room:
    """Memory that the bounds of up to ``rows`` rows are computed in, used again and again by one thread."""

    def __init__(self, vocabulary: int, rows: int) -> None:
        self.vocabulary = vocabulary
        self._floats = np.empty((rows, vocabulary), dtype=np.float32)
        self._bits = np.zeros((rows, _blocks(vocabulary) * BLOCK), dtype=np.int32)

    def weigh(self, logits: Floats, tops: Floats, samplings: Sequence[Sampling]) -> list[Weights]:
        """The weights of ``logits``, ``[rows, vocabulary]``, whose maxima are ``tops``, ``[rows]``.

        Only until the next call.
        """
        with np.errstate(all="ignore"):  # rows that are no numbers are told apart by their tops
            spans = np.array([NATS_OF_ONE * max(sampling.temperature, COLD) for sampling in samplings])
            zeros = (tops - spans).astype(np.float32)
            blocks = self._bounds(logits, zeros, (ONE / spans).astype(np.float32))
            edges, ones = _edges(blocks), zeros + spans
            return [
                Weights(logits[i], sampling, top=tops[i], one=ones[i], blocks=blocks[i], edges=edges[i])
                for i, sampling in enumerate(samplings)
            ]

    def _bounds(self, logits: Floats, zeros: Floats, scales: Floats) -> Floats:
        """``[rows, blocks, BLOCK]``; 0 where a logit is below its row's ``zeros`` and behind the vocabulary."""
        rows, vocabulary = logits.shape
        floats, bits = self._floats[:rows, :vocabulary], self._bits[:rows, : _blocks(vocabulary) * BLOCK]
        np.subtract(logits, zeros[:, None], out=floats)  # first: biases make logits too large for what follows
        np.multiply(floats, scales[:, None], out=floats)
        if not floats.min() >= 0:
            np.maximum(floats, 0, out=floats)
        np.copyto(bits[:, :vocabulary], floats, casting="unsafe")
        bits[:, vocabulary:] = 0
        return bits.view(np.float32).reshape(rows, -1, BLOCK)


class Weights:
    """The weights of one row's tokens, from which tokens that are refused drop out.

    ``logits`` is ``[vocabulary]`` with the maximum ``top``, ``one`` the logit that weighs 1, ``blocks`` the bounds,
    ``[blocks, BLOCK]``, which are overwritten, and ``edges`` their cumulative sums, ``[blocks]``.
    """

    def __init__(
        self, logits: Floats, sampling: Sampling, *, top: np.float32, one: np.float64, blocks: Floats, edges: Edges
    ) -> None:
        self._logits = logits
        self._top = float(top)
        self._one = float(one)
        self._sampling = sampling
        self._blocks = blocks
        self._flat = blocks.reshape(-1)[: logits.shape[0]]
        self._slack, self._rounding = BOUND, ROUNDING
        """How far weights may be from exponentials, as a factor, and a sum of them from the whole's share."""
        self._refused = -inf
        self._edges = self._left = edges
        """Cumulative sums: of all, and of what refusals have left."""
        if sampling.temperature < max(COLD, abs(self._top) * EPSILON):
            self._compute()

    def propose(self, random: Random) -> int:
        """A token drawn from the whole distribution, or from what refusals have left of it."""
        while True:
            token = self._invert(random.random())
            if self._exact:
                return token
            weight = exp((float(self._logits[token]) - self._one) / self._sampling.temperature)
            if random.random() * float(self._flat[token]) * (1 + ROUNDING) < weight:
                return token

    def allow(self, token: int) -> bool:
        """Whether ``token`` lies in the set that ``top_k``, ``top_p`` and ``min_p`` leave; if not, it drops out."""
        logit = self._logits[token]
        allowed = self._judge(logit)
        if allowed is None:
            self._compute()
            allowed = self._judge(logit)
        if not allowed:
            self._refused = logit
            self._flat *= self._logits > logit
            self._left = _edges(self._blocks)
        return bool(allowed)

    @property
    def _exact(self) -> bool:
        return self._slack == 1

    def _judge(self, logit: np.float32) -> bool | None:
        """None where the bounds leave it open."""
        sampling = self._sampling
        if logit == self._top:  # the likeliest is always allowed
            return True
        if sampling.min_p and exp((float(logit) - self._top) / sampling.temperature) < sampling.min_p:
            return False
        if sampling.top_k and np.count_nonzero(self._logits > logit) >= sampling.top_k:
            return False
        return sampling.top_p >= 1 or self._within_top_p(logit)

    def _within_top_p(self, logit: np.float32) -> bool | None:
        """Whether the tokens above ``logit`` have less than ``top_p`` of the whole, which a part of all may show."""
        top_p = self._sampling.top_p
        above = below = 0.0
        for first in range(0, len(self._blocks), PART):
            mass, whole = self._shares(first, logit)
            above, below = above + mass, below + whole - mass
            if self._at_most(1 - below) < top_p:
                return True
            if self._at_least(above) >= top_p:
                return False
        return above < top_p if self._exact else None

    def _shares(self, first: int, logit: np.float32) -> tuple[float, float]:
        """What the tokens above ``logit`` in the part from block ``first`` on have of the whole, and the whole part."""
        last = min(first + PART, len(self._blocks))
        tokens = slice(first * BLOCK, last * BLOCK)
        mass = np.einsum("t,t->", self._flat[tokens], self._logits[tokens] > logit)
        whole = self._edges[last - 1] - (self._edges[first - 1] if first else 0)
        total = float(self._edges[-1])
        return float(mass) / total, float(whole) / total

    def _at_most(self, share: float) -> float:
        """The largest share of the exponentials that ``share`` of the weights can be: all of its bounds are exact."""
        return share * self._slack / (share * self._slack + 1 - share) + self._rounding

    def _at_least(self, share: float) -> float:
        """The smallest: all bounds of the others are exact."""
        return share / (share + (1 - share) * self._slack) - self._rounding

    def _compute(self) -> None:
        """Go on with the exponentials themselves."""
        np.subtract(self._logits, self._top, out=self._flat)
        self._flat *= np.float32(1 / max(self._sampling.temperature, COLDEST))
        np.exp(self._flat, out=self._flat)
        self._slack, self._rounding = 1.0, 0.0
        self._edges = _edges(self._blocks)
        self._flat *= self._logits > self._refused
        self._left = _edges(self._blocks)

    def _invert(self, uniform: float) -> int:
        """The token at which the cumulative sum passes ``uniform`` of the whole; its weight is never 0."""
        target = uniform * float(self._left[-1])
        block = _first_above(self._left, target)
        start = float(self._left[block - 1]) if block else 0.0
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


def _edges(blocks: Floats) -> Edges:
    """The cumulative sum at the end of each block, ``[..., blocks]``. No BLAS: its threads would wake for it."""
    sums: Floats = np.einsum("...t->...", blocks)
    return sums.cumsum(axis=-1, dtype=np.float64)


def _first_above(cumulative: Edges, target: float) -> int:
    """The first index whose cumulative sum is above ``target``, which rounding may have lifted to the very end."""
    return int(cumulative.searchsorted(min(target, nextafter(cumulative[-1], 0)), side="right"))
