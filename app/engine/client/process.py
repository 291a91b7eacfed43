"""One model's process: started, asked, watched, and buried."""

import asyncio
import socket
import subprocess
import threading
from collections.abc import Callable
from copy import copy
from os import getpid
from typing import Any, Literal, TypeVar

import msgspec
import structlog
from msgspec import Struct

from app.engine import messages as wire
from app.engine.client.environment import command, environment
from app.engine.client.stream import ProcessStream
from app.engine.client.watchdog import Watchdog, cause, oom_kills
from app.engine.facts import DeviceFacts, State
from app.engine.framing import Frames, framed, from_engine, generation
from app.engine.host.setup import Folders, Setup
from app.engine.messages import FromEngine, Questions, ToEngine
from app.engine.options import Batching
from app.errors import EngineLost

GRACE = 2.0
"""Seconds in which a process ends by itself once its socket is closed."""
T = TypeVar("T")
Answered = asyncio.Future[Any]


class Watch(Struct, frozen=True):
    """How a process is started and held, and how long one step of it may take, in seconds; 0: as long as it likes."""

    folders: Folders
    batching: Batching
    timeout: float
    confined: bool = True
    log_level: str = "info"
    log_format: Literal["console", "json"] = "console"

    def setup(self, descriptor: int, *, urgent: bool) -> Setup:
        """What one process is started with."""
        logs = self.log_level, self.log_format
        return Setup(descriptor, getpid(), self.folders, self.batching, urgent, self.confined, *logs)


class EngineProcess(asyncio.Protocol):
    """Everything here runs on the event loop that made it.

    ``device`` is known soon after the start, ``ready`` once everything is imported; both fail with
    :class:`app.errors.EngineLost` if the process ends before. ``changed`` is called with this process when ``busy``
    changes, before what it begins with is sent.
    """

    def __init__(self, watch: Watch, changed: Callable[["EngineProcess"], None], *, urgent: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._watch = watch
        self._changed = changed
        self._was_busy = False
        self._decoder = from_engine()
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, Answered] = {}
        self._streams: dict[int, ProcessStream] = {}
        self._numbers = 0
        self._mourners: list[Callable[[EngineLost], None]] = []
        self._why = ""
        self._ending = False
        self._watchdog = Watchdog(self._loop, watch.timeout, self.kill)
        self._oom_kills = oom_kills()
        self.name = "the engine"
        self.state = State(0, 0, 0, {})
        self.loss: EngineLost | None = None
        self.device: asyncio.Future[DeviceFacts] = self._loop.create_future()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = self._spawn(theirs.fileno(), urgent=urgent)
        self.pid = self._process.pid
        threading.Thread(target=self._wait, name=f"engine-{self.pid}", daemon=True).start()
        self._connecting = self._loop.create_task(self._loop.create_unix_connection(lambda: self, sock=ours))
        self._watchdog.attend(working=True)

    def _spawn(self, descriptor: int, *, urgent: bool) -> "subprocess.Popen[bytes]":
        setup = msgspec.json.encode(self._watch.setup(descriptor, urgent=urgent)).decode()
        return subprocess.Popen(  # noqa: S603  this very Python, our own program
            command(setup), stdin=subprocess.DEVNULL, env=environment(), pass_fds=(descriptor,)
        )

    # --- asking ------------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether it computes, or loads."""
        return bool(self._streams or self._calls)

    async def ask(self, question: Callable[[int], Questions], answer: type[T]) -> T:
        """Put a question, which is given its number; raises what the engine answers with, or EngineLost."""
        await asyncio.shield(self.ready)
        if self.loss is not None:
            raise copy(self.loss)
        number = self._number()
        future: asyncio.Future[msgspec.Raw] = self._loop.create_future()
        self._calls[number] = future
        self._set_about()
        try:
            self.send(question(number))
            raw = await future
        except asyncio.CancelledError:
            self.send(wire.Withdraw(number))
            raise
        finally:
            self._calls.pop(number, None)
            self._set_about()
        return msgspec.msgpack.decode(raw, type=answer)

    def generate(self, engine: int, sequences: tuple[Any, ...]) -> ProcessStream:
        """Queue sequences of one of its models."""
        number = self._number()
        stream = ProcessStream(number, engine, sequences, send=self.send, ask=self.ask, ended=self._stream_ended)
        if self.loss is not None:
            stream.fail(copy(self.loss))
            return stream
        self._streams[number] = stream
        self._set_about()
        self.send(generation(number, engine, sequences))
        return stream

    def send(self, message: ToEngine) -> None:
        """Write a message, which is lost with the process, or once it has been told to end."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(framed(message))

    def mourn(self, lost: Callable[[EngineLost], None]) -> None:
        """Call ``lost`` if the process ends unasked."""
        self._mourners.append(lost)

    async def end(self) -> None:
        """End it and return when it is gone, and its memory with it."""
        self._ending = True
        if self._transport is not None:
            self._transport.close()
        overdue = self._loop.call_later(GRACE, self._process.kill)
        try:
            await asyncio.shield(self.exited)
        finally:
            overdue.cancel()

    def kill(self, why: str) -> None:
        """End it at once; whoever waits for it is told ``why``."""
        self._why = why
        if not self.exited.done():
            self._process.kill()

    # --- hearing -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """The process can be written to before it reads."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """What it says; what is no message is a reason to end it."""
        self._watchdog.heard()
        try:
            for body in self._frames.feed(data):
                self._take(self._decoder.decode(body))
        except (ValueError, msgspec.MsgspecError) as failure:
            self.kill(f"it said what is not understood: {failure}")

    def _take(self, message: FromEngine) -> None:  # noqa: C901  one case for each kind
        match message:
            case wire.Step(parts, state):
                self.state = state
                for part in parts:
                    stream = self._streams.get(part.stream)
                    if stream is not None:
                        stream.deliver(part)
            case wire.Answer(call, value):
                self._settle(call, lambda future: future.set_result(value))
            case wire.Refusal(call, failure):
                self._settle(call, lambda future: future.set_exception(failure.error()))
            case wire.Greeting(version, device):
                if version != wire.VERSION:
                    self.kill(f"it speaks version {version} of the protocol, not {wire.VERSION}")
                elif not self.device.done():
                    self.device.set_result(device)
            case wire.Ready():
                self._watchdog.started()
                if not self.ready.done():
                    self.ready.set_result(None)
                self._set_about()
            case wire.Dying(reason):
                self.kill(reason)
            case wire.Progress():
                pass

    def _settle(self, call: int, how: Callable[[Answered], None]) -> None:
        future = self._calls.get(call)
        if future is not None and not future.done():
            how(future)

    def _stream_ended(self, number: int) -> None:
        self._streams.pop(number, None)
        self._set_about()

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    # --- watching ----------------------------------------------------------------------------------------------------

    def _set_about(self) -> None:
        """It has begun to work, or has ended."""
        self._watchdog.attend(working=self.busy or not self.ready.done())
        if self.busy != self._was_busy:
            self._was_busy = self.busy
            self._changed(self)

    def _wait(self) -> None:
        """The thread that waits for its end."""
        code = self._process.wait()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._bury, code)

    def _bury(self, code: int) -> None:
        """It is gone: tell everybody who waits for it."""
        self._watchdog.attend(working=False)
        if self._transport is not None:
            self._transport.close()
        why = self._why or ("it was unloaded" if self._ending else cause(code, self._oom_kills))
        self.loss = loss = EngineLost(
            f"The process of {self.name} has ended: {why}. Send the request again; the model is then loaded anew.",
            retry_after=1.0,
        )
        if not self._ending:
            structlog.get_logger("switchyard").error("engine lost", model=self.name, pid=self.pid, reason=why)
        waiting: list[Answered] = [self.device, self.ready, *self._calls.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(copy(loss))
                future.exception()  # nobody need have asked
        for stream in tuple(self._streams.values()):
            stream.fail(copy(loss))
        self.exited.set_result(code)
        if not self._ending:
            for mourner in self._mourners:
                mourner(copy(loss))
