"""A resident model, as the service sees it."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec
import psutil

from app.engine import messages as wire
from app.engine.base import ProcessStatus, Sequence
from app.engine.client.process import EngineProcess
from app.engine.client.stream import ProcessStream
from app.engine.facts import Books, ModelFacts
from app.engine.grammar import Grammar
from app.engine.ranks import RankState
from app.engine.text import Edges, Rendered, TextFacts, Tokenizer
from app.engine.vectors import Embedding, Input, Ranking, Scores, Vectors
from app.engine.work import Work
from app.errors import EngineLost, SwitchyardError

IDLE = Work(0, 0)
SETTLE = 0.5
"""Seconds that a model which is unloaded may take to write what is to be kept on disk; the rest is given up."""
HEADS = 16
"""Heads of conversations whose edges are remembered: every turn has the head of the one before."""


class ProcessTokenizer:
    """Implements :class:`app.engine.text.Tokenizer`."""

    def __init__(self, process: EngineProcess, engine: int, facts: TextFacts) -> None:
        self.facts = facts
        self._process = process
        self._engine = engine
        self._edges: OrderedDict[bytes, Edges] = OrderedDict()

    async def encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
        """Text to ids."""
        return await self._process.ask(lambda call: wire.Encode(call, self._engine, text, special_tokens), list[int])

    async def count(self, text: str, enough: int) -> int:
        """About how many tokens there are."""
        return await self._process.ask(lambda call: wire.Count(call, self._engine, text, enough), int)

    async def fill_in_middle(self, prefix: str, suffix: str) -> list[int] | None:
        """A prompt between both."""
        ids = await self._process.ask(lambda call: wire.FillInMiddle(call, self._engine, prefix, suffix), list[int])
        return ids or None

    async def decode(self, ids: tuple[int, ...]) -> str:
        """Ids to text."""
        return await self._process.ask(lambda call: wire.Decode(call, self._engine, ids), str)

    async def spell(self, ids: tuple[int, ...]) -> list[bytes]:
        """The bytes of each token."""
        return await self._process.ask(lambda call: wire.Spell(call, self._engine, ids), list[bytes])

    async def render_chat(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        continue_final: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> Rendered:
        """Messages through the chat template."""
        asked = {"messages": messages, "tools": tools, "continue_final": continue_final, "variables": variables}
        conversation = msgspec.json.encode(asked)  # JSON has room for numbers that msgpack has not
        return await self._process.ask(lambda call: wire.RenderChat(call, self._engine, conversation), Rendered)

    async def edges(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> Edges:
        """Where conversations begin alike."""
        head = msgspec.json.encode({"messages": messages, "tools": tools, "variables": variables})
        name = hashlib.blake2b(head, digest_size=16).digest()
        edges = self._edges.pop(name, None)
        if edges is None:
            edges = await self._process.ask(lambda call: wire.FindEdges(call, self._engine, head), Edges)
        self._edges[name] = edges
        while len(self._edges) > HEADS:
            self._edges.popitem(last=False)
        return edges


class ProcessEngine:
    """Implements :class:`app.engine.base.Engine`. A base ends its process when it is closed, an adapter does not."""

    def __init__(self, process: EngineProcess, facts: ModelFacts, close: Callable[["ProcessEngine"], Any]) -> None:
        self.process = process
        self.number = facts.engine
        self.tokenizer: Tokenizer = ProcessTokenizer(process, facts.engine, facts.text)
        self.context_length = facts.context_length
        self.nbytes = facts.nbytes
        self.law = facts.law
        self.fingerprint = facts.fingerprint
        self.kind = facts.kind
        self.together = facts.together
        self.first_grammar = facts.first_grammar
        self._close = close

    async def prepare(self, grammar: Grammar) -> None:
        """Compile a grammar."""
        try:
            await self.process.ask(lambda call: wire.Prepare(call, self.number, grammar), type(None))
        finally:
            self.first_grammar = 0  # made and booked, or being made, whatever became of this one

    def generate(self, sequences: tuple[Sequence, ...]) -> ProcessStream:
        """Queue sequences for the running batch."""
        return self.process.generate(self.number, sequences)

    async def embed(self, texts: tuple[Input, ...], how: Embedding) -> Vectors:
        """A vector for each text."""
        return await self.process.ask(lambda call: wire.Embed(call, self.number, texts, how), Vectors)

    async def rerank(self, query: str, documents: tuple[str, ...], how: Ranking) -> Scores:
        """A score for each document."""
        return await self.process.ask(lambda call: wire.Rerank(call, self.number, query, documents, how), Scores)

    def work(self) -> Work:
        """As of the latest step."""
        return self.process.state.work.get(self.number, IDLE)

    def books(self) -> Books:
        """As of a moment ago."""
        return self.process.state.books.get(self.number, Books())

    def status(self) -> ProcessStatus:
        """The process now; all zero once it is gone."""
        state = self.process.state
        try:
            resident = psutil.Process(self.process.pid).memory_info().rss
        except psutil.NoSuchProcess:
            return ProcessStatus(0, 0, 0, 0)
        if not state.ranks:
            return ProcessStatus(self.process.pid, resident, state.active, state.pool)
        beside = [it for it in state.ranks if not it.host]
        active, pool = (
            total - sum(others)
            for total, others in (
                (state.active, [it.active for it in beside]),
                (state.pool, [it.pool for it in beside]),
            )
        )
        first = RankState(0, self.process.pid, resident, active, pool)
        everywhere = resident + sum(it.resident for it in beside)
        return ProcessStatus(self.process.pid, everywhere, state.active, state.pool, (first, *state.ranks))

    def when_lost(self, lost: Callable[[EngineLost], None]) -> None:
        """Call ``lost`` if its process ends unasked."""
        self.process.mourn(lost)

    async def close(self) -> None:
        """Return when its memory is free."""
        await self._close(self)


async def settle(engine: ProcessEngine, seconds: float) -> None:
    """Have a base write what it is to keep on disk, for at most so long."""
    with suppress(SwitchyardError, TimeoutError):
        async with asyncio.timeout(seconds):
            await engine.process.ask(lambda call: wire.Unload(call, engine.number), type(None))
