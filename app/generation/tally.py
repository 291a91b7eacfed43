"""Token counts of a job, taken from the tokens themselves."""

from app.engine.base import Prefilled, Sequence
from app.generation.choice import Choice
from app.schemas.usage import PromptTokensDetails, Usage


class Tally:
    """Each prompt counts once, however many choices continue it; every generated token counts, ranked out or not."""

    def __init__(self, sequences: tuple[Sequence, ...]) -> None:
        self.prompt_tokens = sum(len(sequence.prompt) for sequence in sequences)
        self._cached = 0
        self._generated = 0

    def prefilled(self, event: Prefilled) -> None:
        """Note how much of a prompt was cached."""
        self._cached += event.cached_tokens

    def finished(self, choice: Choice) -> None:
        """Note what a choice generated."""
        self._generated += choice.tokens

    def usage(self) -> Usage:
        """The counts so far."""
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self._generated,
            total_tokens=self.prompt_tokens + self._generated,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=self._cached),
        )
