"""Events as a test writes them down, and a strategy that tells them."""

import asyncio
from collections.abc import AsyncGenerator, Callable

from app.engine.leases import PendingLease
from app.generation.events import Alternative, Completed, Delta, Event, Events, Finished, Started, Timings, TokenLogprob
from app.generation.job import Job
from app.generation.meter import Meter
from app.generation.strategy import GenerationStrategy
from app.schemas.usage import PromptTokensDetails, Usage

Step = Event | list[Event] | Exception | asyncio.Event

STARTED = Started("org/tiny", "fp_test", 3)
COMPLETED = Completed(Usage(3, 4, 7, PromptTokensDetails(2)), Timings(0.1, 0.2, 0.3, 0.4))


def token(
    text: str, logprob: float | None = -0.5, *others: tuple[str, float], raw: bytes | None = None
) -> TokenLogprob:
    """A token and its alternatives; ``raw`` where its bytes are not its text's."""
    top = tuple(Alternative(other, other.encode(), value) for other, value in others)
    return TokenLogprob(text, text.encode() if raw is None else raw, logprob, top)


def told(*texts: str, index: int = 0) -> list[Event]:
    """One choice that says ``texts``."""
    return [*(Delta(index, text) for text in texts), Finished(index, "stop")]


class ScriptedStrategy(GenerationStrategy):
    """Tells ``steps``: events are yielded, those of a list together, exceptions raised, flags awaited.

    ``open`` counts what is not closed yet.
    """

    def __init__(self, *steps: Step, on_open: Callable[[], None] = lambda: None) -> None:
        self.steps = steps
        self.jobs: list[Job] = []
        self.open = 0
        self.cancelled = 0
        self._on_open = on_open

    async def run(
        self, lease: PendingLease, job: Job, meter: Meter | None = None, owner: bytes = b""
    ) -> AsyncGenerator[Events, None]:
        self.jobs.append(job)
        self.open += 1
        self._on_open()
        try:
            for step in self.steps:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    yield step if isinstance(step, list) else (step,)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self.open -= 1
