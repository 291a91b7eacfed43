"""A model's process that is the first of several ranks: they start together, and one that ends takes all along."""

import asyncio
import subprocess
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from app.engine.client.environment import command, environment
from app.engine.client.group import Followers, Plan, hand
from app.engine.client.process import EngineProcess, Watch

MOMENT = 0.3
"""Seconds after which a rank that rank 0 has left is taken for the first that noticed anything."""


class RankedProcess(EngineProcess):
    """Rank 0, started by a plan, with the others beside it."""

    def __init__(self, watch: Watch, changed: Callable[[EngineProcess], None], plan: Plan) -> None:
        self._plan = plan
        self._cause = ""
        super().__init__(watch, changed, urgent=True)

    def _spawn(self, descriptor: int, *, urgent: bool) -> "subprocess.Popen[bytes]":
        plan = self._plan
        setup = self._watch.setup(descriptor, urgent=urgent)
        setup = replace(setup, ranked=True, ports=plan.ports or (), network=plan.ports is None)
        with plan.door:
            process = subprocess.Popen(  # noqa: S603  this very Python, our own program
                command(msgspec.json.encode(setup).decode()),
                stdin=subprocess.PIPE,
                env=environment(),
                pass_fds=(descriptor, plan.door.fileno()),
            )
        hand(process, plan.seats[0])
        if process.stdin is not None:
            process.stdin.close()
        try:
            self._followers = Followers(plan, replace(setup, socket=-1), self._rank_ended, process.pid)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return process

    async def end(self) -> None:
        """End all of them."""
        self._followers.ending = True
        await super().end()
        await asyncio.to_thread(self._followers.join)

    def _rank_ended(self, cause: str, *, by_itself: bool) -> None:
        """A rank that was not told to; any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._rank_lost, cause, by_itself)

    def _rank_lost(self, cause: str, by_itself: bool) -> None:
        if by_itself:
            self._cause = self._cause or cause
            self.kill(cause)
        elif not self.exited.done():
            self._loop.call_later(MOMENT, self.kill, cause)

    def _bury(self, code: int) -> None:
        """What became of a rank says more than what the others noticed of it."""
        self._followers.end()
        self._why = self._cause or self._why
        super()._bury(code)
