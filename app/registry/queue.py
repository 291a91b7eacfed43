"""Those who wait: numbered, bounded in number and in time, and gone without a trace when they leave."""

import asyncio
from collections.abc import Callable, Iterator

from app.errors import QueueFull, SwitchyardError, Unavailable
from app.registry.lease import ModelLease, PutBack


class Waiter:
    """Somebody who waits for a lease of ``model``, or with a ``lease`` for ``nbytes`` more of its memory.

    Those are for rows, or for a first ``grammar``, which may need ``host`` bytes of the system's instead.

    Whose rows run already has a way to ``put_back`` what they hold, and says with ``back`` that this was done.
    """

    __slots__ = (
        "back",
        "future",
        "grammar",
        "host",
        "keep_alive",
        "lease",
        "model",
        "nbytes",
        "put_back",
        "ticket",
        "timer",
    )

    def __init__(
        self,
        ticket: int,
        model: str,
        *,
        keep_alive: float,
        lease: ModelLease | None,
        nbytes: int,
        host: int,
        grammar: bool,
        put_back: PutBack | None,
    ) -> None:
        self.ticket = ticket
        self.model = model
        self.keep_alive = keep_alive
        self.lease = lease
        self.nbytes, self.host, self.grammar = nbytes, host, grammar
        self.put_back = put_back
        self.back = False
        self.future: asyncio.Future[ModelLease] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.TimerHandle | None = None

    @property
    def granted(self) -> ModelLease | None:
        """The lease, if it has been given."""
        done = self.future.done() and not self.future.cancelled() and self.future.exception() is None
        return self.future.result() if done else None


class Queue:
    """Waiters by ticket, in the order in which they came. ``timeout`` is in seconds of the loop's clock.

    ``limit`` counts requests that wait for a model or for a place in its batch; what runs already and waits for more
    memory is never turned away.
    """

    def __init__(self, limit: int, timeout: float, retry_after: float) -> None:
        self._limit = limit
        self._timeout = timeout
        self._retry_after = retry_after
        self._waiting: dict[int, Waiter] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Waiter]:
        return iter(tuple(self._waiting.values()))

    def __getitem__(self, ticket: int) -> Waiter:
        return self._waiting[ticket]

    def of(self, model: str) -> list[Waiter]:
        """Who waits for a lease of one model."""
        return [waiter for waiter in self._waiting.values() if waiter.model == model and waiter.lease is None]

    def join(
        self,
        model: str,
        *,
        keep_alive: float = 0.0,
        lease: ModelLease | None = None,
        nbytes: int = 0,
        host: int = 0,
        grammar: bool = False,
        put_back: PutBack | None = None,
    ) -> Waiter:
        """A new last place; it must be answered at once or :meth:`hold` the caller."""
        waiter = Waiter(
            self._next,
            model,
            keep_alive=keep_alive,
            lease=lease,
            nbytes=nbytes,
            host=host,
            grammar=grammar,
            put_back=put_back,
        )
        self._next += 1
        self._waiting[waiter.ticket] = waiter
        return waiter

    async def hold(self, waiter: Waiter, why: Callable[[], str], changed: Callable[[], None]) -> ModelLease:
        """Wait for the answer; ``changed`` is called if the place is given up before it has come.

        Raises :class:`app.errors.QueueFull` if there are too many, :class:`app.errors.Unavailable` with ``why()``
        when the time is over, which it never is for rows that run, and what :meth:`fail` was given. A lease that was
        granted while the caller was being cancelled is in ``waiter.granted``.
        """
        if not waiter.future.done():
            if waiter.lease is None and sum(it.lease is None for it in self._waiting.values()) > self._limit:
                self._drop(waiter)
                self.fail(waiter, self._full())
                changed()
            elif waiter.put_back is None:
                loop = asyncio.get_running_loop()
                waiter.timer = loop.call_later(self._timeout, self._expire, waiter, why, changed)
        try:
            return await waiter.future
        finally:
            if self._drop(waiter):
                changed()

    def check(self, beyond: int) -> None:
        """Raises :class:`app.errors.QueueFull` if ``beyond`` requests that wait for a place in a batch are too many."""
        if beyond > self._limit:
            raise self._full()

    def answer(self, waiter: Waiter, lease: ModelLease) -> None:
        """Let a waiter go on."""
        self._drop(waiter)
        if not waiter.future.done():
            waiter.future.set_result(lease)

    def fail(self, waiter: Waiter, error: SwitchyardError) -> None:
        """Send a waiter away."""
        self._drop(waiter)
        if not waiter.future.done():
            waiter.future.set_exception(error)

    def _full(self) -> QueueFull:
        message = f"{self._limit} requests are waiting for models already. Try again in a moment."
        return QueueFull(message, retry_after=self._retry_after)

    def _expire(self, waiter: Waiter, why: Callable[[], str], changed: Callable[[], None]) -> None:
        message = f"{why()} Waiting took longer than {self._timeout:g} seconds; try again later."
        self.fail(waiter, Unavailable(message, retry_after=self._retry_after))
        changed()

    def _drop(self, waiter: Waiter) -> bool:
        if waiter.timer is not None:
            waiter.timer.cancel()
        return self._waiting.pop(waiter.ticket, None) is not None
