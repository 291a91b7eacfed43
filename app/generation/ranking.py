"""``best_of``: generate more choices than are answered, and answer the likeliest."""

from collections.abc import AsyncGenerator, AsyncIterator

import msgspec

from app.generation.events import Completed, Delta, Event, Finished, Started, ToolCallArguments, ToolCallStarted
from app.generation.job import Decoding
from app.generation.outbox import ChoiceEvent


async def best(events: AsyncIterator[Event], decoding: Decoding) -> AsyncGenerator[Event, None]:
    """The events of each prompt's ``n`` choices of highest mean log probability, renumbered, after all have ended.

    Log probabilities that were only needed for ranking are left out.
    """
    told: dict[int, list[ChoiceEvent]] = {}
    ends: list[Finished] = []
    async for event in events:
        match event:
            case Delta() | ToolCallStarted() | ToolCallArguments():
                told.setdefault(event.index, []).append(event)
            case Finished():
                ends.append(event)
            case Started() | Completed():
                yield event
    ends.sort(key=lambda end: (end.index // decoding.best_of, -end.mean_logprob, end.index))
    for place, end in enumerate(ends):
        prompt, rank = divmod(place, decoding.best_of)
        if rank >= decoding.n:
            continue
        index = prompt * decoding.n + rank
        for piece in told.get(end.index, ()):
            if isinstance(piece, Delta) and decoding.logprobs is None:
                yield Delta(index, piece.text, (), piece.reasoning)
            else:
                yield msgspec.structs.replace(piece, index=index)
        yield msgspec.structs.replace(end, index=index)
