"""Answers the service's questions and tells it what the batch makes."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import mlx.core as mx

from app.engine import messages as wire
from app.engine.base import Item
from app.engine.facts import Failure, Limits, State
from app.engine.framing import packed, sequences_of
from app.engine.host.answers import TextQuestion, value_of
from app.engine.host.channel import Channel, HostStream
from app.engine.host.imports import import_models
from app.engine.messages import FromEngine, Part, Question, Step, ToEngine
from app.engine.mlx.batch.thread import MLXThread, Watcher
from app.engine.mlx.memory import device, keep_kernels
from app.engine.options import Batching
from app.engine.paths import cache_home
from app.engine.ranks import Seat
from app.errors import EngineFailed, SwitchyardError

if TYPE_CHECKING:
    from app.engine.host.models import Models

BEAT_SECONDS = 1.0
STATE_SECONDS = 0.25
"""How old what the service knows of this process may become while it computes."""

log = logging.getLogger(__name__)


class Host(Watcher):
    """Everything here runs on the event loop. ``models`` are there once their module is imported."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, batching: Batching, *, urgent: bool, seat: Seat | None = None
    ) -> None:
        self._loop = loop
        self._batching = batching
        self._seat = seat
        self._thread = MLXThread(loop, self)
        self.channel = Channel(self._receive, lambda held: self._thread.hold(held=held))
        self._models: Models | None = None
        self._urgent = urgent
        self._importing = loop.create_task(self._import())
        self._limits: Limits | None = None
        self._streams: dict[int, HostStream] = {}
        self._parts: dict[int, Part] = {}
        self._sending = False
        self._told = 0.0
        self._beat: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._withdrawable: dict[int, asyncio.Task[None]] = {}
        """Those that nobody would miss, by the numbers of their questions."""

    async def begin(self) -> None:
        """Greet the service; say when everything is imported."""
        keep_kernels(cache_home())
        self.channel.send(wire.Greeting(wire.VERSION, device()))
        try:
            models = await self._ready()
        except Exception as failure:
            log.exception("the engine's libraries cannot be imported")
            self.lost(f"its libraries cannot be imported: {failure!r:.200}")
        else:
            self.channel.send(wire.Ready())
            with ThreadPoolExecutor(1, "readiness") as thread:
                await self._loop.run_in_executor(thread, partial(models.get_ready, urgent=self._urgent))

    async def _import(self) -> Models:
        with ThreadPoolExecutor(1, "imports") as importer:  # a thread of its own: it may give way to others for good
            models = await self._loop.run_in_executor(importer, partial(import_models, urgent=self._urgent))
        made = self._models = models(self._thread, self._batching, self._seat, self._lost_elsewhere)
        if self._limits is not None:
            made.limit(self._limits)
        return made

    async def _ready(self) -> Models:
        return await asyncio.shield(self._importing)

    # --- what is told ------------------------------------------------------------------------------------------------

    def progress(self) -> None:
        """Say that work goes on, unless a step is about to say so; and once in a while what is held by now."""
        if self._loop.time() - self._told > STATE_SECONDS:
            self._send_soon()
        elif not self._sending:
            self.channel.send(wire.Progress())

    def idle(self) -> None:
        """The state at rest."""
        self._send_soon()
        if self._streams and self._beat is None:
            self._beat = self._loop.call_later(BEAT_SECONDS, self._show_life)

    def _show_life(self) -> None:
        """Where all rows wait for memory nothing is computed, and nothing is wrong."""
        self._beat = None
        if self._streams and self._thread.resting:
            self.channel.send(wire.Progress())
            self._beat = self._loop.call_later(BEAT_SECONDS, self._show_life)

    def lost(self, reason: str) -> None:
        """The service ends this process and says so to whoever waits; it hears nothing else any more."""
        self.channel.send(wire.Dying(reason))
        self.channel.silence()

    def _lost_elsewhere(self, reason: str) -> None:
        """Likewise, from any thread."""
        self._loop.call_soon_threadsafe(self.lost, reason)

    def put(self, number: int, items: list[Item], failure: Failure | None = None) -> None:
        """See :class:`app.engine.host.channel.Outbox`."""
        stream = self._streams.get(number)
        if stream is None:
            return
        part = self._parts.get(number)
        self._parts[number] = Part(number, items if part is None else part.items + items, failure)
        if failure is not None or not stream.running:
            del self._streams[number]
        self._send_soon()

    def _send_soon(self) -> None:
        if not self._sending:
            self._sending = True
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        """One message for all that has come of this round."""
        self._sending, self._told = False, self._loop.time()
        parts, self._parts = self._parts, {}
        models = self._models
        ranks = [] if models is None else models.ranks
        figures = (0, {}, {}) if models is None else (models.prefix_bytes, models.work(), models.books())
        beside = [it for it in ranks if not it.host]
        active = int(mx.get_active_memory()) + sum(it.active for it in beside)
        pool = int(mx.get_cache_memory()) + sum(it.pool for it in beside)
        state = State(active, pool, *figures, ranks)
        self.channel.send(Step(list(parts.values()), state))

    # --- what is asked -----------------------------------------------------------------------------------------------

    def _receive(self, message: ToEngine) -> None:
        match message:
            case wire.Generate():
                self._generate(message)
            case wire.Grant():
                self._grant(message)
            case wire.CancelRow():
                self._cancel_row(message)
            case wire.CloseStream():
                self._parts.pop(message.stream, None)
                if (closing := self._streams.pop(message.stream, None)) is not None:
                    closing.close()
                    self._go_on()
            case wire.Withdraw():
                self._withdraw(message.call)
            case wire.SetLimits():
                self._limit(message.limits)
            case Question():
                task = self._loop.create_task(self._answer(message))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                if isinstance(message, wire.Embed | wire.Rerank):
                    self._withdrawable[message.call] = task
                    task.add_done_callback(lambda _: self._withdrawable.pop(message.call, None))

    def _generate(self, message: wire.Generate) -> None:
        stream = self._streams[message.stream] = HostStream(message.stream, self)
        if self._models is None:
            raise RuntimeError("Nothing is loaded yet.")
        try:
            engine = self._models.engine(message.engine)
        except SwitchyardError as failure:
            stream.fail(failure)
        else:
            engine.generate(sequences_of(message), stream)

    def _grant(self, grant: wire.Grant) -> None:
        if grant.stream in self._streams and self._models is not None:
            self._streams[grant.stream].grant(grant.sequence, grant.row, grant.tokens)
            self._go_on()

    def _go_on(self) -> None:
        """Some row need not wait for memory any more, or another will not."""
        if self._models is not None:
            self._models.go_on()

    def _cancel_row(self, message: wire.CancelRow) -> None:
        if message.stream in self._streams:
            self._streams[message.stream].cancel(message.sequence, message.row)
            self._go_on()

    def _withdraw(self, call: int) -> None:
        task = self._withdrawable.pop(call, None)
        if task is not None:
            task.cancel()

    def _limit(self, limits: Limits) -> None:
        self._thread.busy_elsewhere = limits.busy > 0
        self._limits = limits
        if self._models is not None:
            self._models.limit(limits)

    async def _answer(self, question: Question) -> None:
        reply: FromEngine
        try:
            models = await self._ready()
            if isinstance(question, wire.PutBack) and (stream := self._streams.get(question.stream)) is not None:
                await models.text_engine(question.engine).put_back(stream)
            reply = wire.Answer(question.call, packed(await value_of(models, question)))
        except SwitchyardError as refusal:
            reply = wire.Refusal(question.call, Failure.of(refusal))
        except asyncio.CancelledError:
            return
        except BaseException as failure:  # no task may let out what ends the loop
            log.exception("a question could not be answered")
            message = f"The engine could not do this ({type(failure).__name__}); send the request again."
            reply = wire.Refusal(question.call, Failure.of(EngineFailed(message)))
        if not isinstance(question, TextQuestion):
            self._send()  # memory may have changed, and who asked shall know that first
        self.channel.send(reply)
