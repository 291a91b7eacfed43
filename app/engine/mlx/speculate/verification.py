"""Verification of a draft: the target's own draws behind every proposal, from the logits of one forward pass."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx

from app.engine.mlx.draw.logits import LogitsProcessor
from app.engine.mlx.draw.logprobs import Score
from app.engine.mlx.draw.step import DeviceStep, HostStep
from app.engine.mlx.rows import Row

Drawn = tuple[int, Score | None]


def draws(row: Row, logits: mx.array, processor: LogitsProcessor, *, on_host: bool) -> Iterator[Drawn]:
    """One token after the other from ``logits``, ``[positions, vocabulary]``, as if each had a step of its own.

    Whoever iterates reports each token before asking for the next, and asks for none behind one that is not what the
    logits there were computed from. Biases, bans, penalties, grammars, random numbers: all are as in plain decoding.
    """
    if on_host or row.guide is not None or processor.penalties is not None:
        return _one_by_one(row, logits, processor, HostStep if on_host else DeviceStep)
    return _at_once(row, logits, processor)


def _one_by_one(
    row: Row, logits: mx.array, processor: LogitsProcessor, step_type: type[HostStep | DeviceStep]
) -> Iterator[Drawn]:
    for place in range(logits.shape[0]):
        here = logits[place : place + 1]
        step = step_type([row], here, processor.process(here))
        processor.count(step.tokens)
        row.queued += 1
        (token,), scores = step.read()
        yield token, scores.get(0)


def _at_once(row: Row, logits: mx.array, processor: LogitsProcessor) -> Iterator[Drawn]:
    """In one operation, where no token bears on how the next is drawn.

    The random numbers of tokens that nobody asks for are put back.
    """
    queued, state = row.queued, row.random.getstate()
    processed = []
    for place in range(logits.shape[0]):
        processed.append(processor.process(logits[place : place + 1]))
        row.queued += 1
    tokens, scores = DeviceStep([row] * len(processed), logits, mx.concatenate(processed)).read()
    row.queued = queued
    row.random.setstate(state)
    for place, token in enumerate(tokens):
        row.queued += 1
        if row.request.sampling.temperature:
            row.random.random()
        yield token, scores.get(place)
