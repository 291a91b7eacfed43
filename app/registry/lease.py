"""The right to use a resident model: asked for, held, given back without waiting for anything."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol

from app.engine.base import Engine, Lease


class Holder(Protocol):
    """Who gives out leases and takes them back."""

    async def admit(self, lease: "ModelLease", nbytes: int) -> None:
        """Reserve bytes for a lease."""

    def release(self, lease: "ModelLease", error: BaseException | None) -> None:
        """Take a lease back; must not fail."""


class ModelLease:
    """A held lease. ``kv`` bytes are reserved for it; ``engine`` is gone when it ends."""

    def __init__(self, holder: Holder, model: str, engine: Engine) -> None:
        self.model = model
        self.kv = 0
        self.engine = engine
        self._holder: Holder | None = holder

    async def admit(self, tokens: int) -> None:
        """Reserve KV cache for that many more tokens; see :class:`app.engine.base.Lease`."""
        if self._holder is None:
            raise RuntimeError("The lease has ended.")
        await self._holder.admit(self, tokens * self.engine.kv_bytes_per_token)

    def end(self, error: BaseException | None = None) -> None:
        """Give the lease back. Safe to call twice; nothing is awaited."""
        holder, self._holder = self._holder, None
        if holder is not None:
            del self.engine
            holder.release(self, error)


class AskedLease(AbstractAsyncContextManager[Lease]):
    """A lease that nobody has entered yet; entering waits, leaving does not."""

    def __init__(self, acquire: Callable[[], Awaitable[ModelLease]]) -> None:
        self._acquire = acquire
        self._lease: ModelLease | None = None

    async def __aenter__(self) -> Lease:
        self._lease = await self._acquire()
        return self._lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lease is not None:
            self._lease.end(error)
            self._lease = None
