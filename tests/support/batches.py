"""A model's batch, stepped by hand on the test's own thread: no event loop, no tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, cast
from unittest.mock import patch

import mlx.core as mx

from app.engine.base import Item, Prefilled, Sequence, Token
from app.engine.mlx.batch import batch
from app.engine.mlx.batch.batch import ModelBatch
from app.engine.mlx.batch.delivery import RowStream
from app.engine.mlx.batch.thread import MLXThread
from app.engine.mlx.cache.prefix import SHORTEST, PrefixPool
from app.engine.mlx.loaded import Loaded
from app.engine.mlx.rows import Row, Waiting
from app.engine.mlx.text.spelling import RowSpelling, SequenceSpelling
from app.errors import SwitchyardError
from app.schemas.sampling import Sampling

GREEDY = Sampling(temperature=0)


def run_steps(steps: Generator[None, None, Any]) -> Any:
    """What a generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


class Stream:
    """What is told to whoever submitted some sequences."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.tokens: dict[tuple[int, int], list[Token]] = {}
        self.prefilled: dict[int, Prefilled] = {}
        self.failure: SwitchyardError | None = None

    def expect(self, rows: list[Row]) -> None:
        self.rows += rows
        self.tokens |= {(row.sequence, row.index): [] for row in rows}

    def cancel(self) -> None:
        """As whoever reads it does when it goes away."""
        for row in self.rows:
            row.cancelled = True

    def deliver(self, items: list[Item], ended: list[Row]) -> None:
        for item in items:
            if isinstance(item, Prefilled):
                self.prefilled[item.sequence] = item
            elif isinstance(item, Token):
                self.tokens[item.sequence, item.row].append(item)

    def fail(self, failure: SwitchyardError) -> None:
        self.failure = failure

    def ids(self, sequence: int = 0, row: int = 0) -> list[int]:
        return [token.id for token in self.tokens[sequence, row]]


class Unspelt:
    """Tokens are looked at by their ids here; nobody asks what they say."""

    def row(self) -> Unspelt:
        return self

    def spelt(self, token: Token) -> Token:
        return token

    def scored(self, event: Prefilled) -> Prefilled:
        return event


UNSPELT = cast("RowSpelling", Unspelt())
"""For rows whose tokens nobody reads."""


class HandThread:
    """Stands for the engine's thread: what is notified is done at once."""

    busy_elsewhere = False

    def give_up(self, reason: str) -> None:
        raise AssertionError(reason)

    def add(self, worker: Any) -> None: ...

    def notify(self, function: Callable[[], object]) -> None:
        function()

    def flush(self, *, gives_way: bool = False) -> None: ...


class HandBatch:
    """A batch of ``model``; :meth:`submit` what is wanted, then :meth:`step` or :meth:`finish`."""

    def __init__(
        self, loaded: Loaded, *, slice_tokens: int = 64, max_rows: int = 64, prefix_bytes: int = 64 << 20
    ) -> None:
        self.thread = HandThread()
        with patch.object(batch, "SHORTEST_ON_CUDA", SHORTEST):  # so that short prompts show on a GPU what is kept
            self.batch = ModelBatch(
                cast("MLXThread", self.thread),
                loaded,
                PrefixPool(prefix_bytes),
                max_rows=max_rows,
                slice_tokens=slice_tokens,
            )

    def submit(self, *sequences: Sequence) -> Stream:
        stream, spelling = Stream(), cast("SequenceSpelling", Unspelt())
        self.batch.submit(
            [Waiting(cast("RowStream", stream), i, sequence, spelling) for i, sequence in enumerate(sequences)]
        )
        return stream

    def put_back(self, stream: Stream) -> None:
        self.batch.put_back(cast("RowStream", stream))

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.batch.step()

    def finish(self, steps: int = 10_000) -> None:
        for _ in range(steps):
            if not self.batch.step():
                return
        raise AssertionError("it does not come to an end")

    def run(self, *prompts: tuple[int, ...], max_tokens: int = 8) -> Stream:
        stream = self.submit(*(Sequence(prompt, GREEDY, max_tokens=max_tokens) for prompt in prompts))
        self.finish()
        return stream


def greedy(model: Any, prompt: tuple[int, ...], count: int) -> tuple[list[int], list[float]]:
    """The model's own text, alone and in plain caches; how far each token lies above the next likely one."""
    from mlx_lm.models.cache import make_prompt_cache  # noqa: PLC0415

    cache, ids, margins = make_prompt_cache(model), [], []
    if len(prompt) > 1:
        mx.eval(model(mx.array([prompt[:-1]]), cache=cache))
    token = prompt[-1]
    for _ in range(count):
        logits = model(mx.array([[token]]), cache=cache)[0, -1].astype(mx.float32)
        best = mx.sort(logits)[-2:].tolist()
        token = int(mx.argmax(logits).item())
        ids.append(token)
        margins.append(best[1] - best[0])
    return ids, margins
