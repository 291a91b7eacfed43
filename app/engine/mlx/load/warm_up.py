"""A model's first use, before anybody waits for it: what first requests need at once, the rest while nobody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from msgspec import Struct

from app.engine.base import Sequence
from app.engine.mlx.batch.delivery import MLXTokenStream
from app.engine.mlx.batch.engine import MLXEngine
from app.errors import SwitchyardError
from app.schemas.sampling import Sampling

PROMPTS = (64, 40, 20)
"""Tokens. They differ, so that rows are padded, and no two are the beginning of a third that is worth sharing."""
DRAWS = (Sampling(temperature=0.0), Sampling(temperature=0.7, top_p=0.9, seed=0))
"""What nearly every request asks for."""
OTHERS = (
    Sampling(top_k=40, min_p=0.05, frequency_penalty=0.1, presence_penalty=0.1, repetition_penalty=1.1),
    Sampling(temperature=0.0, logit_bias=((0, 1.0),)),
)
ALONE = (16, 24, 32, 48, 64, 96, 128, 192, 250)
"""Prompts of each short width that slices have: products are found for so many tokens, whatever rows these belong to.
None is long enough to be kept; the answer to the last one passes the first step of its cache.
"""
COMPANIES = (2, 4, 8, 16)
"""Rows that come together. What they hold has not been booked, so that they are no more than those before."""
QUIET = 1.0
"""Seconds without anything to do after which the rest goes on."""
TRIES = 3
"""How often a piece of the rest is begun that work has come in between."""


class Piece(Struct, frozen=True):
    """Sequences of as many tokens as ``sizes`` say, in company; answers are a ``part``th of that, two tokens at least.

    ``logprobs`` are asked for of the longest.
    """

    draws: tuple[Sampling, ...]
    sizes: tuple[int, ...]
    part: int = 8
    logprobs: int | None = None


FIRST = Piece(DRAWS, PROMPTS)
REST = (
    *(Piece((draw,), PROMPTS, logprobs=2) for draw in OTHERS),
    *(Piece(DRAWS[:1], (size,), 16) for size in ALONE),
    *(Piece(DRAWS[:1], (60,) * rows, 16) for rows in COMPANIES),
)


async def warm_up(engine: MLXEngine) -> None:
    """Let rows come beside others, be drawn for as is usual and go one after another.

    CUDA and Metal compile kernels where they are first needed, some of them for seconds; what stands in a batch of one
    is only a part of them. An engine that fails at this is closed.
    """
    try:
        await _run(engine, FIRST)
    except BaseException:
        await engine.close()
        raise


async def warm_up_further(engine: MLXEngine, rest: Iterable[Piece] = REST, quiet: float = QUIET) -> None:
    """What fewer requests need, a piece at a time, while ``engine`` has had nothing to do for ``quiet`` seconds.

    A piece lets go of its rows as soon as somebody asks for something, and is tried again later. It ends with the
    engine, or with what a piece fails at: whoever needs that waits for it then.
    """
    known = -1
    for piece in rest:
        if max(piece.sizes) + max(piece.sizes) // piece.part > engine.context_length:
            continue
        for _ in range(TRIES):
            if engine.asked != known:
                await _until_idle(engine, quiet)
            try:
                done = await _run(engine, piece, gives_way=True)
            except SwitchyardError:
                return
            if done:
                known = engine.asked
                break


async def _until_idle(engine: MLXEngine, quiet: float) -> None:
    seen = -1
    while seen != engine.asked or engine.work().rows or engine.work().waiting_tokens:
        seen = engine.asked
        await asyncio.sleep(quiet)


async def _run(engine: MLXEngine, piece: Piece, *, gives_way: bool = False) -> bool:
    """Whether all of it was done: what ``gives_way`` is not if anything else was asked of the engine meanwhile."""
    streams = [engine.stream((sequence,)) for sequence in _sequences(piece)]
    reading = asyncio.gather(*map(_read, streams))
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        interrupted = True
        for stream in streams:
            stream.close()
        reading.cancel()

    if gives_way:
        engine.on_asked = interrupt
    try:
        await reading
    except asyncio.CancelledError:
        if not interrupted:
            raise
    finally:
        engine.on_asked = None
        for stream in streams:
            stream.close()
    return not interrupted


def _sequences(piece: Piece) -> Iterator[Sequence]:
    for size in piece.sizes:
        logprobs = piece.logprobs if size == max(piece.sizes) else None
        for draw in piece.draws:
            yield Sequence((0,) * size, draw, max_tokens=max(2, size // piece.part), logprobs=logprobs)


async def _read(stream: MLXTokenStream) -> None:
    async for _ in stream:
        pass
