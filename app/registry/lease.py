"""The right to use a resident model: asked for, held, given back without waiting for anything."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol

from app.engine.base import Engine, Lease


class Holder(Protocol):
    """Who gives out leases and takes them back."""

    async def admit(self, lease: "ModelLease", nbytes: int) -> None:
        """Reserve bytes for a lease."""

    def release(self, lease: "ModelLease") -> None:
        """Take a lease back; must not fail."""


class ModelLease:
    """A held lease. ``kv`` bytes are reserved for it; ``engine`` is gone when it ends.

    ``arrived`` is when the model came into memory, on the loop's clock, after a load of ``load_seconds``.
    """

    def __init__(
        self, holder: Holder, model: str, engine: Engine, *, arrived: float = 0.0, load_seconds: float = 0.0
    ) -> None:
        self.model = model
        self.kv = 0
        self.arrived = arrived
        self.load_seconds = load_seconds
        self.engine = engine
        self._holder: Holder | None = holder

    async def admit(self, nbytes: int) -> None:
        """Reserve that many more bytes of KV cache; see :class:`app.engine.base.Lease`."""
        if self._holder is None:
            raise RuntimeError("The lease has ended.")
        await self._holder.admit(self, nbytes)

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
