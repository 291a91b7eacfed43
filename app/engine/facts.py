"""What a process tells of its device and its models, what it is told of its share, and how failures travel."""

from bisect import bisect_right
from math import ceil
from typing import Literal

from msgspec import Struct

from app import errors
from app.engine.kind import Kind
from app.engine.ranks import RankState
from app.engine.text import TextFacts
from app.engine.work import Work
from app.errors import SwitchyardError

PROCESS = 128 << 20
"""About what an interpreter with MLX, mlx-lm and transformers takes, with its helper for templates."""

HOST_PROCESS = 3 << 29
"""What a process on CUDA takes of the system's memory but for pages of files: 0.9 to 1.5 GB with an 8B model."""

HOST_SHARE = 0.75
"""Of the system's memory, what models' processes may hold together."""

_KINDS = {kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type)}


class Failure(Struct, frozen=True, array_like=True):
    """A :class:`app.errors.SwitchyardError` on its way; ``kind`` is its class."""

    kind: str
    message: str
    param: str | None = None
    code: str | None = None
    retry_after: float | None = None

    @classmethod
    def of(cls, error: SwitchyardError) -> "Failure":
        """The failure that ``error`` is."""
        return cls(type(error).__name__, error.message, error.param, error.code, error.retry_after)

    def error(self) -> SwitchyardError:
        """A new exception; what has no name here is the engine's failure."""
        kind = _KINDS.get(self.kind)
        if kind is None or not issubclass(kind, SwitchyardError):
            kind = errors.EngineFailed
        return kind(self.message, param=self.param, code=self.code, retry_after=self.retry_after)


class DeviceFacts(Struct, frozen=True, array_like=True):
    """What a process computes on: bytes for models in all, and bytes that a weight of 16 bits takes in memory.

    ``host`` are those of the system's memory where models have one of their own, else 0: processes are in the former.
    """

    kind: Literal["cpu", "metal", "cuda"]
    memory: int
    half_bytes: int
    host: int = 0

    @property
    def process(self) -> int:
        """Bytes of the budget that a process without a model takes: none where models have a memory of their own."""
        return 0 if self.kind == "cuda" else PROCESS

    @property
    def host_process(self) -> int:
        """Bytes of the system's memory that a process without a model takes, where they are no part of the budget."""
        return HOST_PROCESS if self.host else 0

    @property
    def host_budget(self) -> int:
        """Bytes of the system's memory that processes may hold beside a device with its own; 0: it has none."""
        return int(self.host * HOST_SHARE)

    @property
    def default_budget(self) -> int:
        """Bytes that models have where the settings say nothing.

        Metal's working set already leaves a quarter of the memory or more to everything else.
        """
        return int(self.memory * {"metal": 0.95, "cuda": 0.9, "cpu": HOST_SHARE}[self.kind])


class Together(Struct, frozen=True, array_like=True):
    """How a model's rows may be computed together, as trying it at load has found.

    ``prompts`` in padded groups; ``answers`` in one batch, ``short``: also behind prompts of a few tokens; ``lengths``:
    rows of different length in one pass; ``ahead``: a step is built before the tokens that it is for are known.
    """

    prompts: bool
    answers: bool
    short: bool
    lengths: bool
    ahead: bool


class Law(Struct, frozen=True, array_like=True):
    """What a row of a model holds for its tokens, in bytes, as :func:`app.engine.mlx.cache.law.law_of` finds it.

    ``row`` is what every row has, however long: recurrent and convolution states. ``token`` is for each position, and
    each of ``windows`` so many bytes for each of the last so many positions. A row of so many tokens is given
    ``spare`` times as many positions and ``step`` more, since rows lie in rectangles that grow in steps.
    """

    row: int = 0
    token: int = 0
    windows: tuple[tuple[int, int], ...] = ()
    spare: float = 1.0
    step: int = 0

    def nbytes(self, tokens: int) -> int:
        """The most that a row of ``tokens`` tokens holds."""
        positions = ceil(self.spare * tokens) + self.step
        return self.row + self.token * positions + sum(each * min(positions, most) for each, most in self.windows)

    def most(self, room: int, tokens: int) -> int:
        """Of ``tokens``, as many as a row holds within ``room`` bytes, perhaps none."""
        return bisect_right(range(1, tokens + 1), room, key=self.nbytes)

    def times(self, ranks: int) -> "Law":
        """That of so many ranks together, each of which holds as much."""
        windows = tuple((ranks * each, most) for each, most in self.windows)
        return Law(ranks * self.row, ranks * self.token, windows, self.spare, self.step)

    def beside(self, other: "Law") -> "Law":
        """Both for every row: a model's and its draft's."""
        both = self.row + other.row, self.token + other.token, self.windows + other.windows
        return Law(*both, max(self.spare, other.spare), max(self.step, other.step))


class Books(Struct, frozen=True, array_like=True):
    """What a model has of its process's memory, in bytes, by what it is for.

    ``weights`` are its own and its draft's, ``scratch`` is set aside for what a slice of a prompt or a step computes,
    ``host`` is the rest of the process: interpreter, libraries, tokenizer, grammars, and the helper that renders
    templates. Held by its rows is ``kv``, as laid out, and for prompts to come ``prefixes``. ``error`` is what the
    process held beyond all that, or less, when it last was idle. An adapter has only what it does not share.
    ``apart`` is what ``host`` would be, where models have a memory of their own: of the system's, and in no budget.
    """

    weights: int = 0
    scratch: int = 0
    host: int = 0
    kv: int = 0
    prefixes: int = 0
    error: int = 0
    apart: int = 0

    def times(self, ranks: int) -> "Books":
        """Those of so many ranks together; each has as much as this one, but what is the process's own."""
        weights, scratch, kv, prefixes = (ranks * it for it in (self.weights, self.scratch, self.kv, self.prefixes))
        return Books(weights, scratch, self.host, kv, prefixes, self.error, self.apart)

    @property
    def beside(self) -> int:
        """What is booked for it beside weights and KV."""
        return self.scratch + self.host


class ModelFacts(Struct, frozen=True, array_like=True):
    """A model that has been loaded as ``engine``; the rest is as in :class:`app.engine.base.Engine`."""

    engine: int
    text: TextFacts
    context_length: int
    nbytes: int
    fingerprint: str
    law: Law
    kind: Kind = "text"
    together: Together | None = None
    first_grammar: int = 0


class Limits(Struct, frozen=True, array_like=True):
    """What a process may take, in bytes: MLX's arrays, the freed buffers that it keeps, prefix caches.

    ``wired`` are those that macOS may not page out.
    ``busy`` counts the other processes that compute at the moment: cores and the device are shared with them.
    """

    memory: int
    pool: int
    prefixes: int
    busy: int = 0
    wired: int = 0

    def divided(self, ranks: int) -> "Limits":
        """What each of so many processes may take that compute one model together."""
        memory, pool, prefixes, wired = (it // ranks for it in (self.memory, self.pool, self.prefixes, self.wired))
        return Limits(memory, pool, prefixes, self.busy + ranks - 1, wired)


class State(Struct, frozen=True, array_like=True):
    """A process now. In bytes: live arrays, freed ones that are kept, prefix caches; what engines do and have.

    Of a model over ``ranks``, which are the others then, all that share this one's memory are counted.
    """

    active: int
    pool: int
    prefixes: int
    work: dict[int, Work]
    books: dict[int, Books] = {}
    ranks: list[RankState] = []
