"""The right to use a resident model: asked for, held, given back without waiting for anything."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol

from app.engine.base import Engine
from app.engine.grammar import Grammar
from app.engine.leases import Lease

PutBack = Callable[[], Awaitable[None]]
"""Frees the KV caches of rows that run, which then wait."""


class Memory(Protocol):
    """Who reserves KV cache for leases; see :class:`app.registry.admission.Admission`."""

    rows: int

    async def admit(self, lease: "ModelLease", nbytes: int) -> None:
        """Reserve bytes."""

    async def prepare(self, lease: "ModelLease", grammar: Grammar) -> None:
        """Have its engine compile a grammar, with what that takes reserved."""

    async def grow(self, lease: "ModelLease", nbytes: int, put_back: PutBack) -> bool:
        """Reserve more for rows that run; whether they have been put back."""

    def most(self, lease: "ModelLease") -> int:
        """Bytes that one could have if no other had any."""


class Holder(Protocol):
    """Who gives out leases and takes them back."""

    @property
    def memory(self) -> Memory:
        """Who reserves memory for them."""

    def release(self, lease: "ModelLease") -> None:
        """Take a lease back; must not fail."""


class ModelLease:
    """A held lease. ``kv`` bytes are reserved for it; ``engine`` is gone when it ends.

    Where models have a memory of their own, ``host`` bytes of the system's are reserved besides.

    ``arrived`` is when the model came into memory, on the loop's clock, after a load of ``load_seconds``.
    """

    def __init__(
        self, holder: Holder, model: str, engine: Engine, *, arrived: float = 0.0, load_seconds: float = 0.0
    ) -> None:
        self.model = model
        self.kv = self.host = 0
        self.arrived = arrived
        self.load_seconds = load_seconds
        self.engine = engine
        self._holder: Holder | None = holder

    async def admit(self, nbytes: int) -> None:
        """Reserve that many more bytes of KV cache; see :class:`app.engine.leases.Lease`."""
        await self._memory.admit(self, nbytes)

    async def prepare(self, grammar: Grammar) -> None:
        """Compile a grammar; see :class:`app.engine.leases.Lease`."""
        await self._memory.prepare(self, grammar)

    async def grow(self, nbytes: int, put_back: PutBack) -> bool:
        """Reserve more for rows that run; see :class:`app.engine.leases.Lease`."""
        return await self._memory.grow(self, nbytes, put_back)

    @property
    def most(self) -> int:
        """Bytes of KV cache that it could have if nobody else had any."""
        return self._memory.most(self)

    @property
    def rows(self) -> int:
        """Rows of one model that are generated together."""
        return self._memory.rows

    @property
    def _memory(self) -> Memory:
        if self._holder is None:
            raise RuntimeError("The lease has ended.")
        return self._holder.memory

    def end(self) -> None:
        """Give the lease back. Safe to call twice; nothing is awaited."""
        holder, self._holder = self._holder, None
        if holder is not None:
            del self.engine
            holder.release(self)


class AskedLease(AbstractAsyncContextManager[Lease]):
    """A lease that nobody has entered yet; entering waits, leaving does not."""

    def __init__(self, acquire: Callable[[], Awaitable[ModelLease]]) -> None:
        self._acquire = acquire
        self._lease: ModelLease | None = None

    async def __aenter__(self) -> Lease:
        asked = asyncio.get_running_loop().time()
        self._lease = lease = await self._acquire()
        lease.load_seconds = min(lease.load_seconds, max(0.0, lease.arrived - asked))
        return lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lease is not None:
            self._lease.end()
            self._lease = None
