"""A row: one choice being generated, from its place in the queue to its last token."""

from __future__ import annotations

import logging
from random import Random
from time import perf_counter
from typing import TYPE_CHECKING

from msgspec.structs import replace

from app.engine.base import FinishReason, Sequence
from app.engine.ids import pack
from app.errors import EngineFailed, SwitchyardError

if TYPE_CHECKING:
    from app.engine.mlx.batch.delivery import RowStream
    from app.engine.mlx.guide.guide import Guide
    from app.engine.mlx.text.spelling import RowSpelling, SequenceSpelling

ROW_FAILED = "row_failed"
"""The code of a failure that is one row's alone: the engine is as good as before."""


class Row:
    """One choice of sequence ``sequence``.

    ``queued`` counts the tokens asked of the device, ``said`` holds those handed on. ``cancelled`` and ``granted`` are
    what the event loop writes; the MLX thread reads them before every step. ``spelling`` is the event loop's alone.
    ``guide`` says what may come next, None: everything.
    """

    __slots__ = (
        "cancelled",
        "done",
        "failure",
        "granted",
        "guide",
        "index",
        "queued",
        "random",
        "request",
        "said",
        "sequence",
        "spelling",
        "stream",
    )

    def __init__(self, stream: RowStream, sequence: int, index: int, request: Sequence, spelling: RowSpelling) -> None:
        self.stream = stream
        self.spelling = spelling
        self.sequence = sequence
        self.index = index
        self.request = request
        self.queued = 0
        self.said: list[int] = []
        self.done = False
        self.cancelled = False
        self.granted = request.granted
        self.guide: Guide | None = None
        self.failure: SwitchyardError | None = None
        """What went wrong with this row alone; its next token is not reported."""
        seed = request.sampling.seed
        # Rows of one sequence draw differently from the same seed.
        self.random = Random() if seed is None else Random(f"{seed}/{index}")  # noqa: S311  not for secrets

    @property
    def over(self) -> bool:
        """Whether no further step may include this row."""
        return self.done or self.cancelled or self.queued >= self.request.max_tokens

    @property
    def held(self) -> bool:
        """Whether it waits for memory: no step may include it now."""
        return self.queued >= self.granted and not self.over

    @property
    def room(self) -> int:
        """Tokens that may be drafted for it: it is granted and wants that many, and one more that it draws itself."""
        return max(0, min(self.request.max_tokens, self.granted) - self.queued - 1)

    @property
    def length(self) -> int:
        """Tokens of its prompt and of its answer so far."""
        return len(self.request.prompt) + len(self.said)

    @property
    def last(self) -> int:
        """The last of these tokens: what it says next comes of it."""
        return self.said[-1] if self.said else self.request.prompt[-1]

    @property
    def filled(self) -> int:
        """Positions that it fills of a KV cache: all tokens but the last that was drawn, which is no input yet."""
        return len(self.request.prompt) - 1 + self.queued

    def advance(self, token: int) -> SwitchyardError | None:
        """Tell its guide its token; what is wrong with this row alone, if anything is."""
        if self.failure is not None or self.guide is None:
            return self.failure
        try:
            self.guide.advance(token)
        except Exception:
            logging.getLogger(__name__).exception("a grammar failed")
            return EngineFailed("What holds this answer to its form has failed; send it again.", code=ROW_FAILED)
        return self.guide.failure

    def say(self, token: int) -> FinishReason | None:
        """Go on with ``token``; why it is the last one, if it is."""
        self.said.append(token)
        finish: FinishReason | None = "length" if len(self.said) >= self.request.max_tokens else None
        if token in self.request.stop_ids or (self.guide is not None and self.guide.complete):
            finish = "stop"
        self.done = finish is not None
        return finish

    def tokens(self, start: int = 0) -> list[int]:
        """These tokens, from the one at ``start`` on."""
        prompt = self.request.prompt
        return [*prompt[start:], *self.said[max(0, start - len(prompt)) :]]


class Waiting:
    """A sequence whose prompt is not computed yet, with its rows. ``packed`` is the prompt.

    A row that was put back waits again as a sequence of its own, ``resumed``: its prompt is all that it has said.
    """

    def __init__(
        self,
        stream: RowStream,
        index: int,
        request: Sequence,
        spelling: SequenceSpelling | None,
        resumed: Row | None = None,
    ) -> None:
        self.stream = stream
        self.index = index
        self.request = request
        self.packed = pack(request.prompt)
        self.spelling = spelling
        self.asked = perf_counter()
        self.tried = False
        """Whether the device has given up on it once."""
        self.fetched = False
        """Whether what the disk knows of it has been read, or is."""
        self.resumed = resumed is not None
        if resumed is not None:
            self.rows = [resumed]
        elif spelling is not None:
            self.rows = [Row(stream, index, row, request, spelling.row()) for row in range(request.rows)]
            stream.expect(self.rows)

    @classmethod
    def again(cls, row: Row) -> Waiting:
        """A row that goes on without its KV cache."""
        asked = replace(row.request, prompt=tuple(row.tokens()), prompt_logprobs=None, rows=1)
        return cls(row.stream, row.sequence, asked, None, row)

    @property
    def held(self) -> bool:
        """Whether it waits for memory."""
        return all(row.granted < 0 or row.cancelled for row in self.rows)

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants any of its rows any more."""
        return all(row.cancelled for row in self.rows)
