"""The models of one process, and their prefix caches. Importing this imports mlx-lm and transformers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from jinja2 import TemplateError
from msgspec.structs import replace

from app.engine.facts import Books, Limits, ModelFacts
from app.engine.grammar import Grammar
from app.engine.host.audit import Audit
from app.engine.kind import Kind, kind_of, unfit
from app.engine.mlx.batch.engine import MLXEngine
from app.engine.mlx.batch.thread import MLXThread
from app.engine.mlx.cache.journal import SharedModel
from app.engine.mlx.cache.prefix import PrefixPool
from app.engine.mlx.cores import giving_way, share_cores
from app.engine.mlx.draw.step import prepare
from app.engine.mlx.encode.engine import MLXEncoder
from app.engine.mlx.load.loader import MLXLoader
from app.engine.mlx.load.smollm2 import ensure_smollm2
from app.engine.mlx.memory import context_bytes, limit, settle
from app.engine.mlx.ranks.leader import Leader
from app.engine.mlx.text.template import confine_templates
from app.engine.options import Batching, LoadOptions
from app.engine.ranks import RankState, Seat
from app.engine.work import Work
from app.errors import ModelUnusable, Unavailable


class Models:
    """A base under number 0, its adapters under the next ones. Event loop only, but for what runs on the MLX thread.

    With a ``seat`` this is rank 0 of several; ``lost`` is told, on any thread, why they can go on no more.
    """

    def __init__(self, thread: MLXThread, batching: Batching, seat: Seat | None, lost: Callable[[str], None]) -> None:
        self._thread = thread
        self._leader = None if seat is None else Leader(seat, lost)
        self._prefixes = PrefixPool(0)
        self._loader = MLXLoader(thread, self._prefixes, batching, leader=self._leader)
        self._engines: dict[int, MLXEngine | MLXEncoder] = {}
        self._next = 0
        templates = confine_templates()
        self._audit = Audit(self._own_books, lambda: self._prefixes.nbytes, templates.pids)
        thread.at_rest, thread.gives_back = self._audit.at_rest, templates.thin

    @staticmethod
    def get_ready(*, urgent: bool) -> None:
        """Do what the first conversation would wait for, and the first load, unless that is ``urgent`` and does it.

        On a thread of its own: it may give way to others for good, which the process that renders templates shall not.
        What fails here fails again when it is wanted, and is told then.
        """
        with suppress(TemplateError, OSError):
            confine_templates().start()
        if not urgent:
            with giving_way():
                prepare()
                settle()

    @property
    def prefix_bytes(self) -> int:
        """Bytes of prefix caches, of all ranks in this memory."""
        return self._beside * self._prefixes.nbytes

    @property
    def ranks(self) -> list[RankState]:
        """The other ranks, where there are any."""
        return [] if self._leader is None else self._leader.states

    @property
    def _beside(self) -> int:
        """How many ranks share this one's memory and cores, itself among them."""
        return 1 if self._leader is None else self._leader.seat.beside

    def encoder(self, number: int, kind: Kind) -> MLXEncoder:
        """A model that makes vectors or scores; raises :class:`app.errors.InvalidRequest` if it is a text model."""
        engine = self.engine(number)
        if isinstance(engine, MLXEngine):
            raise unfit("This model", "text", kind)
        return engine

    def engine(self, number: int) -> MLXEngine | MLXEncoder:
        """A model; raises :class:`app.errors.Unavailable` once it is unloaded."""
        engine = self._engines.get(number)
        if engine is None:
            raise unloaded()
        return engine

    def text_engine(self, number: int) -> MLXEngine:
        """A model that generates; raises :class:`app.errors.Unavailable` if there is none of that number."""
        engine = self.engine(number)
        if not isinstance(engine, MLXEngine):
            raise unloaded()
        return engine

    def go_on(self) -> None:
        """Have batches look whether their rows still wait for memory."""
        for engine in self._engines.values():
            if isinstance(engine, MLXEngine):
                engine.go_on()

    def work(self) -> dict[int, Work]:
        """What each model has to do."""
        return {number: engine.work() for number, engine in self._engines.items()}

    def books(self) -> dict[int, Books]:
        """What each model has of the process's memory."""
        books = self._audit.books()
        if self._beside == 1:
            return books
        others = sum(max(0, it.resident - it.active - it.pool) for it in self.ranks if not it.host)
        return {number: _together(it, self._beside, 0 if number else others) for number, it in books.items()}

    def _own_books(self) -> dict[int, Books]:
        return {number: engine.books() for number, engine in tuple(self._engines.items())}

    async def load(self, path: Path, name: str, options: LoadOptions) -> ModelFacts:
        """Load the base; raises as :class:`app.engine.mlx.load.loader.MLXLoader` does."""
        kind = await asyncio.to_thread(kind_of, path, name=name, pooling=options.pooling)
        if kind != "text" and self._leader is not None:
            raise ModelUnusable(f"{name} generates no text, so it is not divided. Take ranks out of its entry.")
        if kind != "text":
            return await self._add(await self._loader.encoder(path, kind, name=name, options=options), kind)
        return await self._add(await self._loader.load(path, name=name, options=options))

    async def adapt(self, base: int, path: Path, name: str, options: LoadOptions) -> ModelFacts:
        """Load an adapter over a base; raises likewise."""
        of = self.engine(base)
        if not isinstance(of, MLXEngine):
            raise ModelUnusable(f"{name} adapts a model that generates no text. Name another base.", param="model")
        return await self._add(await self._loader.adapt(of, path, name=name, options=options))

    async def prepare(self, number: int, grammar: Grammar) -> None:
        """Compile a grammar; the first one makes a tokenizer for grammars, which is booked from then on."""
        try:
            await self.engine(number).prepare(grammar)
        finally:
            self._audit.look_beside()

    async def unload(self, number: int) -> None:
        """Have written what a model keeps on disk, and let it go if it is an adapter."""
        engine, leader = self._engines.get(number), self._leader
        if isinstance(engine, MLXEngine):
            await engine.settle()
        if not number or engine is None or self._engines.pop(number, None) is None:
            return
        model = engine.loaded.model if isinstance(engine, MLXEngine) else None
        await engine.close()
        if leader is not None and isinstance(model, SharedModel):
            await self._thread.call(partial(leader.unload, model.number))

    async def make_embedded(self, directory: str) -> str:
        """The embedded model's directory, converted on first use."""
        return str(await self._thread.call(lambda: ensure_smollm2(Path(directory))))

    async def read_tokenizer(self, path: str) -> None:
        """Of a model that may be loaded next."""
        if await asyncio.to_thread(kind_of, Path(path), name=path) == "text":  # the others' are read in no time
            await self._loader.read_tokenizer(Path(path))

    async def trim(self, nbytes: int) -> None:
        """Free that many bytes of prefix caches, or all there are."""
        await self._thread.call(lambda: self._prefixes.trim(max(0, self._prefixes.nbytes - nbytes)))

    def limit(self, limits: Limits) -> None:
        """Take no more than that from now on, with the ranks that share this one's memory and cores."""
        leader, beside = self._leader, self._beside
        if beside > 1:
            limits = limits.divided(beside)

        def take() -> None:
            if leader is not None:
                leader.limit(limits)
            limit(limits)
            share_cores(limits.busy)
            self._prefixes.limit = limits.prefixes
            self._prefixes.trim(limits.prefixes)

        self._thread.post(take)

    async def _add(self, engine: MLXEngine | MLXEncoder, kind: Kind = "text") -> ModelFacts:
        number, self._next = self._next, self._next + 1
        self._engines[number] = engine
        await self._thread.call(self._audit.at_rest)
        return ModelFacts(
            number,
            engine.facts,
            engine.context_length,
            self._beside * engine.nbytes + (0 if number else context_bytes()),
            engine.fingerprint,
            engine.law.times(self._beside),
            kind,
            engine.loaded.abilities.described if isinstance(engine, MLXEngine) else None,
            engine.grammars.unmade if isinstance(engine, MLXEngine) else 0,
        )


def _together(books: Books, ranks: int, others: int) -> Books:
    """Of all ranks in this memory; the ``others`` hold so many bytes beside arrays."""
    all_ranks = books.times(ranks)
    return replace(all_ranks, host=all_ranks.host + others)


def unloaded() -> Unavailable:
    """What is told of a model that is not there any more."""
    return Unavailable("The model was unloaded; send the request again.", retry_after=1)
