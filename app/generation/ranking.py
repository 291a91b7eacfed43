"""``best_of``: generate more choices than are answered, and answer the likeliest."""

from collections.abc import AsyncGenerator, AsyncIterator

import msgspec

from app.generation.events import Cached, Completed, Delta, Event, Events, Finished, Started
from app.generation.job import Decoding
from app.generation.outbox import ChoiceEvent


async def best(source: AsyncIterator[Events], decoding: Decoding) -> AsyncGenerator[Events, None]:
    """The events of each prompt's ``n`` choices of highest mean log probability, renumbered, after all have ended.

    Log probabilities that were only needed for ranking are left out.
    """
    pieces: dict[int, list[ChoiceEvent]] = {}
    ends: list[Finished] = []
    async for events in source:
        for event in events:
            if isinstance(event, Finished):
                ends.append(event)
            elif not isinstance(event, Started | Cached | Completed):
                pieces.setdefault(event.index, []).append(event)
    chosen: list[Event] = []
    ends.sort(key=lambda end: (end.index // decoding.best_of, -end.mean_logprob, end.index))
    for place, end in enumerate(ends):
        prompt, rank = divmod(place, decoding.best_of)
        if rank >= decoding.n:
            continue
        index = prompt * decoding.n + rank
        for piece in pieces.get(end.index, ()):
            if isinstance(piece, Delta) and decoding.logprobs is None:
                chosen.append(Delta(index, piece.text, (), piece.reasoning))
            else:
                chosen.append(msgspec.structs.replace(piece, index=index))
        chosen.append(msgspec.structs.replace(end, index=index))
    yield chosen
