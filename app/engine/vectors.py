"""What is asked of a model that makes vectors or scores, and what it answers."""

from typing import Literal

from msgspec import Struct

Input = str | tuple[int, ...]
"""A text, or token ids that are taken as they are."""


class Embedding(Struct, frozen=True, kw_only=True):
    """How texts are to be embedded.

    ``prompt_name`` is one of the checkpoint's prompts; ``input_type`` says what the texts are, for a checkpoint that
    has a prompt for it. ``dimensions`` are kept of each vector, which is then made of length 1 again. ``truncate`` says
    what a text that is too long loses; without it such a text is refused.
    """

    prompt_name: str | None = None
    input_type: Literal["query", "document"] | None = None
    dimensions: int | None = None
    truncate: Literal["start", "end"] | None = None


class Vectors(Struct, frozen=True):
    """One vector of ``width`` numbers for each text, in their order; ``tokens`` of all texts together.

    ``values`` are the numbers in 32 bits, little-endian, one vector after the other.
    """

    values: bytes
    width: int
    tokens: int


class Ranking(Struct, frozen=True, kw_only=True):
    """How documents are to be scored: for which task, and whether one that is too long may lose its end."""

    instruction: str | None = None
    truncate: bool = True


class Scores(Struct, frozen=True):
    """One score for each document, in their order; ``tokens`` of all pairs together."""

    values: tuple[float, ...]
    tokens: int
