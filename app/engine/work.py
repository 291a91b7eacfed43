"""How busy an engine is."""

from msgspec import Struct


class Work(Struct, frozen=True):
    """What an engine has to do: rows that decode, and prompt tokens that are not computed yet."""

    rows: int
    waiting_tokens: int
