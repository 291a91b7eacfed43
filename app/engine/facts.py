"""What a process tells of its device and its models, what it is told of its share, and how failures travel."""

from typing import Literal

from msgspec import Struct

from app import errors
from app.engine.kind import Kind
from app.engine.text import TextFacts
from app.errors import SwitchyardError

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
    """What a process computes on: bytes for models in all, and bytes that a weight of 16 bits takes in memory."""

    kind: Literal["cpu", "metal", "cuda"]
    memory: int
    half_bytes: int

    @property
    def default_budget(self) -> int:
        """Bytes that models have where the settings say nothing.

        Metal's working set already leaves a quarter of the memory or more to everything else.
        """
        return int(self.memory * {"metal": 0.95, "cuda": 0.9, "cpu": 0.75}[self.kind])


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


class ModelFacts(Struct, frozen=True, array_like=True):
    """A model that has been loaded as ``engine``; the numbers are those of :class:`app.engine.base.Engine`."""

    engine: int
    text: TextFacts
    context_length: int
    nbytes: int
    kv_bytes_per_token: int
    fingerprint: str
    kind: Kind = "text"
    together: Together | None = None


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
