"""How busy an engine is."""

from msgspec import Struct


class Work(Struct, frozen=True):
    """What an engine has to do: rows that decode, and prompt tokens that are not computed yet.

    ``proposed`` are the tokens that its draft model has proposed since the load, ``accepted`` those that were kept;
    ``hits`` the prompts of which the prefix cache knew a beginning, ``spared`` the tokens of these.
    """

    rows: int
    waiting_tokens: int
    proposed: int = 0
    accepted: int = 0
    hits: int = 0
    spared: int = 0
