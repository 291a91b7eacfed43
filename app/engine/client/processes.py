"""All models' processes: who is loaded where, one that waits for the next load, and what each may take."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
from msgspec import Struct
from msgspec.structs import replace

from app.engine import messages as wire
from app.engine.base import Engine
from app.engine.client.bytecode import keep_bytecode
from app.engine.client.engine import SETTLE, ProcessEngine, settle
from app.engine.client.environment import places
from app.engine.client.group import plan
from app.engine.client.process import EngineProcess, Watch
from app.engine.client.ranked import RankedProcess
from app.engine.client.shares import Shares, wired_share
from app.engine.client.spare import Spare
from app.engine.facts import DeviceFacts, ModelFacts
from app.engine.host.setup import Folders
from app.engine.options import AS_IT_IS, LoadOptions
from app.engine.paths import cache_home
from app.engine.ranks import Ranks
from app.errors import EngineLost, Unavailable

log = logging.getLogger(__name__)


class Processes(Struct, frozen=True):
    """How processes are made. ``spare`` says whether one waits for the next load, ``prefixes`` bounds prefix caches."""

    watch: Watch
    prefixes: int | None
    wired: int = 0
    spare: bool = True


class ProcessLoader:
    """Implements :class:`app.engine.base.EngineLoader` and :class:`app.engine.base.MemoryGauge`, and prefix caches.

    Everything runs on one event loop, from :meth:`start` to :meth:`close`. ``budget`` says how many bytes models may
    have in all.
    """

    def __init__(self, options: Processes, budget: Callable[[], int]) -> None:
        self._options = options
        self._watch = options.watch
        self._spare = Spare(lambda urgent: self._start(urgent=urgent), wanted=options.spare)
        self.expect = self._spare.expect
        self._residents: dict[EngineProcess, int] = {}
        self._shares = Shares(self._residents, budget, prefixes=options.prefixes, wired=wired_share(options.wired))
        self.allow = self._shares.allow
        self._device: DeviceFacts | None = None
        self._paths: dict[EngineProcess, Path] = {}
        self._closed, self._settling = False, SETTLE
        self._compiling: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the first process, of which the device is asked; the first request will want it."""
        self._spare.now()
        self._compiling = asyncio.get_running_loop().create_task(keep_bytecode())

    async def device(self) -> DeviceFacts:
        """What models compute on; raises :class:`app.errors.EngineLost` if no process can be started."""
        if self._device is None:
            try:
                self._device = await self._seen()
            except EngineLost:
                if not self._watch.confined:
                    raise
                log.warning("models' processes do not start where the system confines them; they start unconfined")
                self._watch = replace(self._watch, confined=False)
                self._device = await self._seen()
            self._shares.tell()
        return self._device

    async def _seen(self) -> DeviceFacts:
        return await asyncio.shield(self._spare.now().device)

    async def load(self, path: Path, *, name: str, options: LoadOptions = AS_IT_IS) -> ProcessEngine:
        """A process of its own for the model at ``path``, which ends if the load fails."""
        await self.device()
        self._spare.hold_off()
        process = self._take(await asyncio.to_thread(_places, path, options), options.ranks)
        process.name = name
        self._residents[process] = 0
        self._shares.tell()
        try:
            facts = await process.ask(lambda call: wire.Load(call, path, name, options), ModelFacts)
        except BaseException:
            self._residents.pop(process, None)
            await process.end()
            self._spare.later()
            raise
        self._residents[process] = facts.nbytes
        self._paths[process] = path
        self._shares.tell()
        self._spare.later()
        return ProcessEngine(process, facts, self._close_base)

    async def adapt(self, base: Engine, path: Path, *, name: str, options: LoadOptions = AS_IT_IS) -> ProcessEngine:
        """In the base's process."""
        if not isinstance(base, ProcessEngine):
            raise TypeError("An adapter's base is an engine of this loader.")
        process = base.process
        facts = await process.ask(lambda call: wire.Adapt(call, base.number, path, name, options), ModelFacts)
        return ProcessEngine(process, facts, self._close_adapter)

    async def embedded(self) -> Path:
        """The directory of the embedded default model, converted on first use."""
        process = self._take(set())
        self._spare.put(process)
        return Path(await process.ask(lambda call: wire.MakeEmbedded(call, str(cache_home())), str))

    def stopping(self, seconds: float) -> None:
        """From now on engines that close may write for so long what is to be kept on disk."""
        self._settling = max(seconds, SETTLE)

    async def close(self) -> None:
        """End every process."""
        self._closed = True
        if self._compiling is not None:
            self._compiling.cancel()
        self._shares.close()
        await asyncio.gather(self._spare.close(), *(process.end() for process in self._residents))

    # --- memory ------------------------------------------------------------------------------------------------------

    async def known(self) -> None:
        """Return once the device has been seen."""
        await self.device()

    def total(self) -> int:
        """Bytes that the device has for models; the system's memory for as long as the device is not known."""
        return int(psutil.virtual_memory().total) if self._device is None else self._device.memory

    def default_budget(self) -> int:
        """Bytes that models have by default."""
        return (DeviceFacts("cpu", self.total(), 4) if self._device is None else self._device).default_budget

    def host_budget(self) -> int:
        """Bytes of the system's memory for processes beside a device with its own; 0 where there is none."""
        return 0 if self._device is None else self._device.host_budget

    def active(self) -> int:
        """Bytes of live arrays, and of what processes hold beside them, in all processes."""
        states = [process.state for process in self._residents]
        return sum(it.active + sum(books.host for books in it.books.values()) for it in states)

    def pool(self) -> int:
        """Bytes of freed arrays that processes keep."""
        return sum(process.state.pool for process in self._residents)

    def nbytes(self) -> int:
        """Bytes of prefix caches, in all processes; see :class:`app.registry.budget.PrefixCaches`."""
        return sum(process.state.prefixes for process in self._residents)

    async def trim(self, nbytes: int) -> None:
        """Free at least that many bytes of prefix caches, or all there are; those of idle models first."""
        for process in sorted(self._residents, key=lambda it: it.busy):
            held = min(nbytes, process.state.prefixes)
            if held > 0:
                try:
                    await process.ask(lambda call, some=held: wire.Trim(call, some), type(None))  # type: ignore[misc]
                except EngineLost:
                    continue
                nbytes -= held

    # --- processes ---------------------------------------------------------------------------------------------------

    def _start(self, more: Iterable[Path] = (), *, urgent: bool = False, ranks: Ranks | None = None) -> EngineProcess:
        watch = self._watch
        if more:
            read = (*watch.folders.read, *sorted(map(str, more)))
            watch = replace(watch, folders=Folders(read, watch.folders.write))
        if ranks is not None:
            return RankedProcess(watch, self._shares.changed, plan(ranks, self._device))
        return EngineProcess(watch, self._shares.changed, urgent=urgent)

    def _take(self, needed: set[Path], ranks: Ranks | None = None) -> EngineProcess:
        """The process that waits if it may see what is ``needed``, else a new one; with ``ranks`` always new ones."""
        if self._closed:
            raise Unavailable("The service is stopping.", retry_after=5.0)
        given = [Path(place).resolve() for place in self._options.watch.folders.read]
        missing = {it for it in needed if not any(it.is_relative_to(place) for place in given)}
        spare = None if missing or ranks is not None else self._spare.take()
        return self._start(missing, urgent=True, ranks=ranks) if spare is None else spare

    async def _close_base(self, engine: ProcessEngine) -> None:
        process = engine.process
        await settle(engine, self._settling)
        await process.end()
        self._residents.pop(process, None)
        self._spare.last_closed = self._paths.pop(process, None)
        self._shares.tell()
        self._spare.later()

    async def _close_adapter(self, engine: ProcessEngine) -> None:
        process = engine.process
        if process.loss is None:
            await process.ask(lambda call: wire.Unload(call, engine.number), type(None))


def _places(path: Path, options: LoadOptions) -> set[Path]:
    """The folders that loading a model leads to."""
    found = places(path)
    return found if options.draft is None else found | places(options.draft.path)
