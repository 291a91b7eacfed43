"""Verification of drafts: the target's own draws behind every proposal, from the logits of one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx

from app.engine.mlx.draw.logits import LogitsProcessor
from app.engine.mlx.draw.logprobs import Score
from app.engine.mlx.draw.step import DeviceStep, HostStep
from app.engine.mlx.rows import Row
from app.engine.mlx.speculate.drafter import Outcome

Report = Callable[[Row, int, Score | None], None]


class Draws:
    """Draws of several rows at several places, ``[rows, places, vocabulary]``, as if each had a step of its own.

    Whoever asks for a place has reported the tokens before it, and asks for none behind one that is not what the
    logits there were computed from. Biases, bans, penalties, grammars, random numbers: all are as in plain decoding.
    """

    def __init__(self, rows: Sequence[Row], logits: mx.array, processor: LogitsProcessor, *, on_host: bool) -> None:
        self._rows = rows
        self._logits = logits
        self._processor = processor
        self._step = HostStep if on_host else DeviceStep
        by_turns = on_host or processor.penalties is not None or any(row.guide is not None for row in rows)
        self._made = None if by_turns else self._at_once()

    def at(self, place: int, rows: Sequence[int]) -> list[tuple[int, Score | None]]:
        """The tokens of these rows at this place, counted as queued."""
        some = [self._rows[row] for row in rows]
        if self._made is not None:
            tokens, scores = self._made
            places = [row * self._logits.shape[1] + place for row in rows]
            for row in some:
                row.queued += 1
                if row.request.sampling.temperature:
                    row.random.random()
            return [(tokens[it], scores.get(it)) for it in places]
        here = self._logits[:, place]
        processed, index = self._processor.process(here), mx.array(rows)
        if len(some) < len(self._rows):
            here, processed = here[index], processed[index]
        step = self._step(some, here, processed)
        if self._processor.penalties is not None:
            self._processor.count(step.tokens)
        for row in some:
            row.queued += 1
        drawn, scored = step.read()
        return [(token, scored.get(i)) for i, token in enumerate(drawn)]

    def _at_once(self) -> tuple[list[int], dict[int, Score]]:
        """In one operation, where no token bears on how the next is drawn; random numbers are put back."""
        count, places, width = self._logits.shape
        before = [(row.queued, row.random.getstate()) for row in self._rows]
        processed = []
        for place in range(places):
            processed.append(self._processor.process(self._logits[:, place]))
            for row in self._rows:
                row.queued += 1
        repeated = [row for row in self._rows for _ in range(places)]
        together = mx.stack(processed, axis=1).reshape(count * places, width)
        made = DeviceStep(repeated, self._logits.reshape(count * places, width), together).read()
        for row, (queued, state) in zip(self._rows, before, strict=True):
            row.queued = queued
            row.random.setstate(state)
        return made


def verify(draws: Draws, rows: Sequence[Row], drafts: Sequence[Sequence[int]], report: Report) -> list[Outcome]:
    """Report each row's tokens for as long as they are those of its draft, and the one that is not.

    What is drawn at a place counts whether it was proposed or not, so there is always one token.
    """
    outcomes = [Outcome(0, 0, 0)] * len(rows)
    going = list(range(len(rows)))
    place = 0
    while going:
        agreeing = []
        for i, (token, score) in zip(going, draws.at(place, going), strict=True):
            report(rows[i], token, score)
            agrees = place < len(drafts[i]) and drafts[i][place] == token
            made, accepted, _ = outcomes[i]
            outcomes[i] = Outcome(made + 1, accepted + agrees, token)
            if agrees and not rows[i].over:
                agreeing.append(i)
        going, place = agreeing, place + 1
    return outcomes
