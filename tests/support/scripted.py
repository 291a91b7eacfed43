"""A scripted machine: engines that say what they are told, a loader that makes them, memory that is counted.

Nothing sleeps unless it is told to: :class:`ScriptedLoader` and :class:`ScriptedEngine` take their durations in
seconds of the running loop, so that a loop with virtual time passes them at once.
"""

import asyncio
import codecs
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from app.engine.base import (
    Engine,
    FinishReason,
    Item,
    Prefilled,
    ProcessStatus,
    PromptScore,
    Sequence,
    Token,
    TopLogprob,
)
from app.engine.facts import Books, DeviceFacts, Law, Together
from app.engine.grammar import Grammar
from app.engine.kind import Kind, kind_of
from app.engine.options import AS_IT_IS, LoadOptions
from app.engine.text import Edges, Marks, Rendered, TextFacts, Tokenizer
from app.engine.vectors import Embedding, Input, Ranking, Scores, Vectors
from app.engine.work import OnDisk, Work
from app.errors import EngineFailed, EngineLost, InvalidRequest, SwitchyardError
from app.schemas.sampling import SamplingDefaults

BOS, EOS = 256, 257

Script = Callable[[Sequence, int], Iterable[int]]
"""From a sequence and a row to the token ids it generates; after the last one comes EOS."""


def says(*texts: str) -> Script:
    """A script in which row ``r`` says ``texts[r % len(texts)]``, a byte a token."""
    return lambda _, row: texts[row % len(texts)].encode()


def echoes(sequence: Sequence, _row: int) -> Iterable[int]:
    """A script that says the prompt again, without special tokens."""
    return [token for token in sequence.prompt if token < BOS]


class ByteDetokenizer:
    """UTF-8 bytes to text; characters come whole."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        return self._decoder.decode(bytes([token_id])) if token_id < BOS else ""

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


def spelling(token_id: int) -> bytes:
    return bytes([token_id]) if token_id < BOS else {BOS: b"<s>", EOS: b"</s>"}.get(token_id, b"")


class ByteTokenizer:
    """One token a byte, then BOS and EOS."""

    def __init__(
        self,
        *,
        has_chat_template: bool = True,
        template_takes_tools: bool = False,
        thinking: Marks | None = None,
        call_format: str | None = None,
        added: dict[str, int] | None = None,
        answer_marks: tuple[str, ...] = (),
        sampling: SamplingDefaults | None = None,
    ) -> None:
        if thinking is not None:
            ids = [tuple(mark.encode()) for mark in (thinking.start, thinking.end)]
            thinking = Marks(thinking.start, thinking.end, *ids)
        self.facts = TextFacts(
            vocab_size=258,
            bos_id=BOS,
            eos_ids=frozenset({EOS}),
            has_chat_template=has_chat_template,
            template_takes_tools=template_takes_tools,
            thinking=thinking,
            call_format=call_format,
            added={} if added is None else added,
            answer_marks=answer_marks,
            sampling=SamplingDefaults() if sampling is None else sampling,
        )

    async def encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
        return [BOS, *text.encode()] if special_tokens else list(text.encode())

    async def count(self, text: str, enough: int) -> int:
        return min(len(text.encode()), enough + 1)

    async def fill_in_middle(self, prefix: str, suffix: str) -> list[int] | None:
        return None

    async def decode(self, ids: tuple[int, ...]) -> str:
        specials = {BOS: b"<s>", EOS: b"</s>"}
        return b"".join(bytes([it]) if it < BOS else specials[it] for it in ids).decode(errors="replace")

    async def spell(self, ids: tuple[int, ...]) -> list[bytes]:
        return [spelling(token) for token in ids]

    async def render_chat(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        continue_final: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> Rendered:
        """``<role>content`` a line, tools before all; the role ``refused`` makes the template refuse.

        With the variable ``open`` the template opens a thought itself.
        """
        if any(message["role"] == "refused" for message in messages):
            raise InvalidRequest("The chat template refuses this role.", param="messages")
        lines = [f"<{message['role']}>{message.get('content') or ''}" for message in messages]
        lines = [f"<tools>{' '.join(tool['function']['name'] for tool in tools or ())}", *lines] if tools else lines
        marks = self.facts.thinking
        thought = marks.start if marks is not None and (variables or {}).get("open") else ""
        return Rendered("\n".join(lines if continue_final else [*lines, f"<assistant>{thought}"]))

    async def edges(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> Edges:
        return Edges()


class ScriptedMemory:
    """A gauge whose needle is moved by scripted engines (and by a test that wants unaccounted memory)."""

    def __init__(self, total: int = 1000, host: int = 0) -> None:
        self._total = total
        self._host = host
        self._active = 0
        self.peak = 0

    def total(self) -> int:
        return self._total

    def default_budget(self) -> int:
        return self._total * 3 // 4

    def host_budget(self) -> int:
        return self._host

    async def known(self) -> None:
        pass

    def active(self) -> int:
        return self._active

    def pool(self) -> int:
        return 0

    def hold(self, nbytes: int) -> None:
        self._active += nbytes
        self.peak = max(self.peak, self._active)

    def free(self, nbytes: int) -> None:
        self._active -= nbytes


class ScriptedStream:
    """One token per running row and step."""

    def __init__(self, engine: "ScriptedEngine", sequences: tuple[Sequence, ...]) -> None:
        self._engine = engine
        self._sequences = sequences
        self._prefilled: set[int] = set()
        self._granted = [sequence.granted for sequence in sequences]
        self._rows_granted: dict[tuple[int, int], int] = {}
        self._made: dict[tuple[int, int], int] = {}
        self._more = asyncio.Event()
        self._failure: SwitchyardError | None = None
        self.put_backs = 0
        self.rows: dict[tuple[int, int], Iterator[Token]] = {
            (number, row): self._tokens(number, row)
            for number, sequence in enumerate(sequences)
            for row in range(sequence.rows)
            if sequence.max_tokens > 0
        }

    def __aiter__(self) -> AsyncIterator[list[Item]]:
        return self

    async def __anext__(self) -> list[Item]:
        await asyncio.sleep(self._engine.step_seconds)
        await self._engine.may_step.wait()
        failure = self._engine.failure if self._failure is None else self._failure
        if failure is not None:
            self.close()
            raise failure
        if begun := [n for n, granted in enumerate(self._granted) if granted >= 0 and n not in self._prefilled]:
            self._prefilled.update(begun)
            return [self._prefill(number) for number in begun]
        step: list[Item] = []
        for key, tokens in list(self.rows.items()):
            if self._made.get(key, 0) >= self._rows_granted.get(key, self._granted[key[0]]):
                continue
            token = next(tokens)
            self._made[key] = self._made.get(key, 0) + 1
            step.append(token)
            if token.finish is not None:
                del self.rows[key]
        if not step and (self.rows or len(self._prefilled) < len(self._sequences)):
            await self._more.wait()
            self._more.clear()
            return await self.__anext__()
        if not step:
            self.close()
            raise StopAsyncIteration
        return step

    def grant(self, sequence: int, row: int, tokens: int) -> None:
        self._rows_granted[sequence, row] = tokens
        self._granted[sequence] = max(self._granted[sequence], 0)
        self._more.set()

    async def put_back(self) -> None:
        self.put_backs += 1
        for key in self.rows:
            self._rows_granted[key] = -1

    def abort(self, failure: SwitchyardError) -> None:
        self._failure = failure
        self._more.set()

    def cancel(self, sequence: int, row: int) -> None:
        self.rows.pop((sequence, row), None)

    def close(self) -> None:
        self.rows.clear()
        self._engine.streams.discard(self)

    def _prefill(self, number: int) -> Prefilled:
        sequence, scores = self._sequences[number], list[PromptScore]()
        if sequence.prompt_logprobs is not None:
            scores = [
                PromptScore(
                    None if at == 0 else -0.5,
                    () if at == 0 else _top(token, sequence.prompt_logprobs),
                    spelling(token),
                    token < BOS,
                )
                for at, token in enumerate(sequence.prompt)
            ]
        return Prefilled(number, cached_tokens=0, scores=tuple(scores))

    def _tokens(self, number: int, row: int) -> Iterator[Token]:
        sequence, detokenizer = self._sequences[number], ByteDetokenizer()
        for count, id_ in enumerate(chain(self._engine.script(sequence, row), repeat(EOS)), start=1):
            stops = id_ in sequence.stop_ids and count > sequence.min_tokens
            finish: FinishReason | None = "stop" if stops else "length" if count == sequence.max_tokens else None
            text = "" if stops else detokenizer.push(id_)
            yield Token(
                sequence=number,
                row=row,
                id=id_,
                logprob=None if sequence.logprobs is None else -0.5,
                top=() if sequence.logprobs is None else _top(id_, sequence.logprobs),
                finish=finish,
                text=text if finish is None else text + detokenizer.finish(),
                raw=b"" if sequence.logprobs is None else spelling(id_),
                shown=id_ < BOS and not stops,
            )


def _top(token: int, alternatives: int) -> tuple[TopLogprob, ...]:
    return tuple(
        TopLogprob(other, -0.5 - n, spelling(other))
        for n in range(alternatives)
        for other in ((token + n) % 256 if n else token,)
    )


class ScriptedEngine:
    """An engine that follows its script. ``may_step`` cleared holds every stream; ``fail`` breaks it."""

    fingerprint = "fp_scripted"

    def __init__(
        self,
        script: Script | None = None,
        *,
        nbytes: int = 100,
        kv_bytes_per_token: int = 1,
        context_length: int = 4096,
        step_seconds: float = 0.0,
        tokenizer: Tokenizer | None = None,
        memory: ScriptedMemory | None = None,
        on_close: Callable[[], None] = lambda: None,
        kind: Kind = "text",
        apart: int = 0,
    ) -> None:
        self.kind: Kind = kind
        self.apart = apart
        self.beside = 0
        """Bytes that its process holds beside the model; a test may have it grow."""
        self.first_grammar = 0
        """Bytes that it says it needs for grammars; they are ``beside`` it with the first."""
        self.together = Together(True, True, True, True, True) if kind == "text" else None
        self.script: Script = says("Hello, world.") if script is None else script
        self.tokenizer: Tokenizer = ByteTokenizer() if tokenizer is None else tokenizer
        self.context_length = context_length
        self.nbytes = nbytes
        self.law = Law(token=kv_bytes_per_token)
        self.step_seconds = step_seconds
        self.may_step = asyncio.Event()
        self.may_step.set()
        self.failure: SwitchyardError | None = None
        self.submitted: list[Sequence] = []
        self.prepared: list[Grammar] = []
        self.embedded: list[tuple[tuple[Input, ...], Embedding]] = []
        self.ranked: list[tuple[str, tuple[str, ...], Ranking]] = []
        self.streams: set[ScriptedStream] = set()
        self.closed = False
        self.on_disk = OnDisk()
        self._memory = ScriptedMemory() if memory is None else memory
        self._memory.hold(nbytes)
        self._on_close = on_close
        self._mourners: list[Callable[[EngineLost], None]] = []

    async def prepare(self, grammar: Grammar) -> None:
        """Nothing is compiled; the script does not follow it. ``{"refused": ...}`` is refused."""
        self.prepared.append(grammar)
        await asyncio.sleep(self.step_seconds)
        self.beside, self.first_grammar = self.beside + self.first_grammar, 0
        if "refused" in grammar.source:
            raise InvalidRequest(f"{grammar.param} cannot be enforced.", param=grammar.param)

    def generate(self, sequences: tuple[Sequence, ...]) -> ScriptedStream:
        stream = ScriptedStream(self, sequences)
        self.submitted.extend(sequences)
        self.streams.add(stream)
        return stream

    async def embed(self, texts: tuple[Input, ...], how: Embedding) -> Vectors:
        """Four numbers a text: how long it is, and 0.5, 0.25, 0.125. ``refused`` among the texts is refused."""
        await self._turn()
        if "refused" in texts:
            raise InvalidRequest("input is refused.", param="input")
        self.embedded.append((texts, how))
        rows = b"".join(struct.pack("<4f", len(text), 0.5, 0.25, 0.125) for text in texts)
        return Vectors(rows, 4, sum(map(len, texts)))

    async def rerank(self, query: str, documents: tuple[str, ...], how: Ranking) -> Scores:
        """The share of a document's letters that the query has."""
        await self._turn()
        self.ranked.append((query, documents, how))
        values = tuple(sum(it in query for it in text) / max(1, len(text)) for text in documents)
        return Scores(values, sum(len(query) + len(text) for text in documents))

    async def _turn(self) -> None:
        await asyncio.sleep(self.step_seconds)
        await self.may_step.wait()
        if self.failure is not None:
            raise self.failure

    def work(self) -> Work:
        return Work(sum(len(stream.rows) for stream in self.streams), 0, on_disk=self.on_disk)

    def books(self) -> Books:
        return Books(weights=self.nbytes, host=self.beside, apart=self.apart)

    def status(self) -> ProcessStatus:
        return ProcessStatus(4321, self.nbytes, self.nbytes, 0)

    def when_lost(self, lost: Callable[[EngineLost], None]) -> None:
        self._mourners.append(lost)

    def fail(self, error: SwitchyardError | None = None) -> None:
        """Break: every stream raises at its next step."""
        self.failure = EngineFailed("The engine stopped; send the request again.") if error is None else error

    def lose(self, why: str = "it was ended by SIGKILL") -> None:
        """End as a process ends that nobody ended; its memory is free at once."""
        error = EngineLost(f"The process has ended: {why}. Send the request again.", retry_after=1.0)
        self.fail(error)
        self._memory.free(self.nbytes)
        self.nbytes = 0
        for mourner in self._mourners:
            mourner(error)

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.fail()
        await asyncio.sleep(0)
        self._memory.free(self.nbytes)
        self._on_close()


class ScriptedLoader:
    """Makes scripted engines and keeps a diary.

    ``sizes`` gives bytes by model name (100 where it says nothing), ``seconds`` how long a load takes,
    ``failures`` the errors that the next loads of a model raise, one after the other, and ``gate``, when cleared,
    holds every load. ``diary`` lists ``("load" | "loaded" | "failed" | "closed", name)``, ``engines`` the latest
    engine by name, ``options`` what it was loaded with.
    """

    def __init__(
        self,
        memory: ScriptedMemory | None = None,
        *,
        script: Script | None = None,
        sizes: Mapping[str, int] | None = None,
        seconds: float = 0.0,
        kv_bytes_per_token: int = 1,
        tokenizer: Tokenizer | None = None,
        context_length: int = 4096,
        apart: Mapping[str, int] | None = None,
    ) -> None:
        self.apart = {} if apart is None else dict(apart)
        self.memory = ScriptedMemory() if memory is None else memory
        self.context_length = context_length
        self.script = script
        self.tokenizer = tokenizer
        self.sizes = {} if sizes is None else dict(sizes)
        self.seconds: dict[str, float] = {}
        self.default_seconds = seconds
        self.kv_bytes_per_token = kv_bytes_per_token
        self.failures: dict[str, list[Exception]] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.diary: list[tuple[str, str]] = []
        self.engines: dict[str, ScriptedEngine] = {}
        self.options: dict[str, LoadOptions] = {}
        self.expected = 0
        self.closed = False

    async def load(self, path: Path, *, name: str, options: LoadOptions = AS_IT_IS) -> ScriptedEngine:
        self.options[name] = options
        self.diary.append(("load", name))
        await asyncio.sleep(self.seconds.get(name, self.default_seconds))
        await self.gate.wait()
        if self.failures.get(name):
            self.diary.append(("failed", name))
            raise self.failures[name].pop(0)
        engine = ScriptedEngine(
            self.script,
            nbytes=self.sizes.get(name, 100),
            kv_bytes_per_token=self.kv_bytes_per_token,
            context_length=self.context_length,
            tokenizer=self.tokenizer,
            memory=self.memory,
            apart=self.apart.get(name, 0),
            kind=kind_of(path, name=name, pooling=options.pooling),
            on_close=lambda: self.diary.append(("closed", name)),
        )
        self.diary.append(("loaded", name))
        self.engines[name] = engine
        return engine

    def expect(self) -> None:
        """Counted."""
        self.expected += 1

    async def adapt(self, base: Engine, path: Path, *, name: str, options: LoadOptions = AS_IT_IS) -> ScriptedEngine:
        """An engine of its own."""
        return await self.load(path, name=name, options=options)

    async def close(self) -> None:
        self.closed = True


async def scripted_device() -> DeviceFacts:
    """What the scripted machine computes on: a device with memory of its own, so that processes take none of it."""
    return DeviceFacts("cuda", 1 << 40, 2)
