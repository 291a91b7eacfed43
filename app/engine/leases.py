"""The right to use a resident model, as who generates is given it."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from app.engine.base import Engine
from app.engine.grammar import Grammar


class Lease(Protocol):
    """The right to use a resident model, held while its context is entered; it waited ``load_seconds`` for a load."""

    model: str
    engine: Engine
    load_seconds: float

    @property
    def rows(self) -> int:
        """Rows of one model that are generated together."""

    @property
    def most(self) -> int:
        """Bytes of KV cache that it could have if nobody else had any."""

    async def prepare(self, grammar: Grammar) -> None:
        """Compile a grammar; what the model's first one takes is reserved meanwhile, and in its books from then on.

        Raises as :meth:`app.engine.base.Engine.prepare` and :meth:`admit` do.
        """

    async def grow(self, nbytes: int, put_back: Callable[[], Awaitable[None]]) -> bool:
        """Reserve that many more bytes for rows that run, however long it takes; whether they have been put back.

        Where requests wait for each other's memory, one of them has to ``put_back`` its rows. What it had reserved is
        reserved anew by the time this returns. Raises :class:`app.errors.ModelUnusable` if it can never fit.
        """

    async def admit(self, nbytes: int) -> None:
        """Reserve that many more bytes of KV cache, waiting if others hold it; given back when the lease ends.

        Raises :class:`app.errors.ModelUnusable` if it can never fit, :class:`app.errors.QueueFull` or
        :class:`app.errors.Unavailable` if the wait is too long.
        """


PendingLease = AbstractAsyncContextManager[Lease]
"""A lease that nobody has entered yet: entering it may queue, download and load."""
