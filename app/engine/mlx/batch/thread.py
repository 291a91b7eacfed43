"""The one thread that owns MLX.

MLX ties arrays and streams to the thread that made them, so loading, generating and freeing all happen here. The
event loop hands work over as callables; results go back in one wake-up of the loop per round, for all rows of all
models together.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Generator
from functools import partial
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Generic, Protocol, TypeVar

from app.engine.mlx.memory import IDLE_SECONDS, give_back

PROGRESS_SECONDS = 0.5
"""How often the watcher is told at most that something was done."""
GIVE_WAY = 0.002
"""Seconds that this thread waits at most for the event loop to hand on what it was given."""

T = TypeVar("T")


class Worker(Protocol):
    """Something that advances in short steps: a model's batch, or a model being loaded."""

    def step(self) -> bool:
        """Do a bounded piece of work (one decode step, one prefill slice); False when nothing is left to do."""


class Watcher:
    """Who is told how the thread fares; called on the event loop. This one takes no notice."""

    def progress(self) -> None:
        """A call or a step has ended."""

    def idle(self) -> None:
        """There is nothing to step any more."""

    def lost(self, reason: str) -> None:
        """Nothing good comes of this process any more."""
        logging.getLogger(__name__).error("the engine gives up: %s", reason)


class MLXThread:
    """Runs callables and workers in turn; blocks when there are none."""

    def __init__(self, loop: asyncio.AbstractEventLoop, watcher: Watcher | None = None) -> None:
        self._loop = loop
        self._watcher = Watcher() if watcher is None else watcher
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._workers: list[Worker] = []
        self._outbox: list[Callable[[], object]] = []
        self._shown = 0.0
        """When the watcher last saw something, on the monotonic clock."""
        self._may_step = Event()
        self._may_step.set()
        self._handed_on = Event()
        self.at_rest: Callable[[], None] = _nothing
        """Called on this thread when there is nothing to step any more."""
        self.gives_back: Callable[[], None] = _nothing
        """Likewise, when that has been so for ``IDLE_SECONDS``: what is kept for reuse may go."""
        self.resting = False
        """Whether it waits for something to do; any thread may look."""
        self.busy_elsewhere = False
        """Whether other processes compute on this machine now; written by the event loop."""
        self._thread = Thread(target=self._run, name="mlx", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Run ``function`` between two rounds. Called on the event loop; the future carries result or exception."""
        future: asyncio.Future[T] = self._loop.create_future()

        def run() -> None:
            try:
                result = function()
            except BaseException as failure:  # noqa: BLE001  handed to whoever awaits
                self.notify(partial(_fail, future, failure))
            else:
                self.notify(partial(_answer, future, result))

        self._calls.put(run)
        return future

    def run_in_steps(self, steps: Generator[None, None, T]) -> asyncio.Future[T]:
        """Advance ``steps`` once per round, so that running streams go on, and answer with what it returns.

        Cancelling the future closes the generator at its next turn.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self._calls.put(lambda: self.add(_Steps(self, steps, future)))
        return future

    def post(self, function: Callable[[], None]) -> None:
        """Run ``function`` between two rounds and forget it; it must not raise. Any thread."""
        self._calls.put(function)

    def post_later(self, seconds: float, function: Callable[[], None]) -> None:
        """The same in so many seconds, if the event loop still runs by then. Any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.call_later, seconds, self.post, function)

    def add(self, worker: Worker) -> None:
        """Step ``worker`` each round until it says False. MLX thread."""
        if worker not in self._workers:
            self._workers.append(worker)

    def remove(self, worker: Worker) -> None:
        """Step ``worker`` no more. MLX thread."""
        if worker in self._workers:
            self._workers.remove(worker)

    def notify(self, function: Callable[[], object]) -> None:
        """Run ``function`` on the event loop with this round's other results. MLX thread."""
        self._outbox.append(function)

    def hold(self, *, held: bool) -> None:
        """Begin no further step while ``held``: nobody takes what the last ones made. Any thread."""
        if held:
            self._may_step.clear()
        else:
            self._may_step.set()

    def give_up(self, reason: str) -> None:
        """Say that nothing good comes of this process any more. MLX thread."""
        self.notify(partial(self._watcher.lost, reason))

    async def close(self) -> None:
        """End the thread after what was handed over before."""
        self._calls.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        try:
            while self._run_calls():
                self._step_workers()
        except BaseException as failure:
            logging.getLogger(__name__).exception("the engine's thread has ended")
            self.give_up(f"the engine's thread has ended: {failure!r:.200}")
            self.flush()
            raise

    # No local of a loop that waits may outlive its turn: it would keep an evicted model's weights alive.

    def _run_calls(self) -> bool:
        """Run what was handed over, waiting for it if there is nothing to step; False at the end."""
        if not self._workers:
            self.at_rest()
            self.notify(self._watcher.idle)
            self.flush()
        while not self._workers or not self._calls.empty():
            if not self._run_call(self._next_call()):
                return False
        return True

    def _next_call(self) -> Callable[[], None] | None:
        """Wait for a call; after a moment without work, memory kept for reuse goes back to the system."""
        self.resting = True
        try:
            return self._calls.get(timeout=IDLE_SECONDS)
        except Empty:
            give_back()
            self.gives_back()
            return self._calls.get()
        finally:
            self.resting = False

    def _run_call(self, call: Callable[[], None] | None) -> bool:
        if call is not None:
            call()
        self._show_progress()
        self.flush()
        return call is not None

    def _step_workers(self) -> None:
        self._may_step.wait()
        for worker in tuple(self._workers):
            if not worker.step():
                self.remove(worker)
            self._show_progress()
        self.flush()

    def _show_progress(self) -> None:
        now = time.monotonic()
        if now - self._shown >= PROGRESS_SECONDS:
            self._shown = now
            self.notify(self._watcher.progress)

    def flush(self, *, gives_way: bool = False) -> None:
        """Run on the event loop what was notified so far. MLX thread.

        It ``gives_way`` where a client waits for just this: building the next step's graph would keep the interpreter
        from the loop for a millisecond.
        """
        if not self._outbox or self._loop.is_closed():
            return
        outbox, self._outbox = self._outbox, []
        if gives_way:
            self._handed_on.clear()
            outbox.append(lambda: self._loop.call_soon(self._handed_on.set))
        self._loop.call_soon_threadsafe(_run_all, outbox)
        if gives_way:
            self._handed_on.wait(GIVE_WAY)


class _Steps(Generic[T]):
    """A generator as a worker."""

    def __init__(self, thread: MLXThread, steps: Generator[None, None, T], future: asyncio.Future[T]) -> None:
        self._thread = thread
        self._steps = steps
        self._future = future

    def step(self) -> bool:
        if self._future.cancelled():
            self._steps.close()
            return False
        try:
            next(self._steps)
        except StopIteration as end:
            self._thread.notify(partial(_answer, self._future, end.value))
        except BaseException as failure:  # noqa: BLE001  handed to whoever awaits
            self._thread.notify(partial(_fail, self._future, failure))
        else:
            return True
        return False


def _nothing() -> None:
    """Nobody looks."""


def _answer(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[T], failure: BaseException) -> None:
    if not future.done():
        future.set_exception(failure)


def _run_all(functions: list[Callable[[], object]]) -> None:
    for function in functions:
        function()
