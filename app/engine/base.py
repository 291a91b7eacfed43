"""What the service knows of an inference engine: token ids in, token ids out, no request and no HTTP.

One :class:`Engine` is one resident model. It takes :class:`Sequence` values and answers with one :class:`TokenStream`
for all of them, in the order in which tokens are made. Everything here is called on the event loop.
"""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Literal, Protocol

from msgspec import Struct

from app.engine.facts import Books, Law, Together
from app.engine.grammar import Grammar, Thoughts
from app.engine.ids import Ids
from app.engine.kind import Kind
from app.engine.options import AS_IT_IS, LoadOptions
from app.engine.ranks import RankState
from app.engine.text import Tokenizer
from app.engine.vectors import Embedding, Input, Ranking, Scores, Vectors
from app.engine.work import Work
from app.errors import EngineLost, SwitchyardError
from app.schemas.sampling import Sampling

FinishReason = Literal["stop", "length"]
EVERYTHING = 1 << 40
"""Tokens; more than any row generates."""


class TopLogprob(Struct, frozen=True, array_like=True):
    """One alternative at a position: its id, its natural-log probability before temperature, its bytes."""

    id: int
    logprob: float
    raw: bytes = b""


class Sequence(Struct, frozen=True, array_like=True):
    """One prompt to continue, ``rows`` times.

    ``max_tokens`` counts generated tokens; 0 asks for the prompt's own log probabilities alone. ``logprobs`` is the
    number of alternatives per generated token (0: the chosen token's alone, None: nothing), ``prompt_logprobs`` the
    same for each prompt token. ``stop_ids`` end a row (the token itself is reported with ``finish="stop"``); none is
    drawn before ``min_tokens`` others were. ``grammar`` holds the answer, which begins after the ``thoughts``; a
    complete answer ends its row with ``finish="stop"`` whatever ``stop_ids`` and ``min_tokens`` say. Special tokens are
    no text, but for those in ``keep``. ``boundaries`` are lengths of beginnings of the prompt that later ones are
    likely to share. Memory is reserved for ``granted`` tokens of each row: there it waits for
    :meth:`TokenStream.grant`, and with less than none its prompt does. What is computed is kept for its ``owner``.
    """

    prompt: Ids
    sampling: Sampling
    max_tokens: int
    stop_ids: frozenset[int] = frozenset()
    min_tokens: int = 0
    rows: int = 1
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    grammar: Grammar | None = None
    thoughts: Thoughts | None = None
    keep: frozenset[int] = frozenset()
    boundaries: tuple[int, ...] = ()
    granted: int = EVERYTHING
    owner: bytes = b""


class PromptScore(Struct, frozen=True, array_like=True):
    """Log probability of one prompt token given those before it; the first token of a prompt has none.

    ``raw`` are the token's; ``shown`` says whether they are text, which those of special tokens are not.
    """

    logprob: float | None
    top: tuple[TopLogprob, ...] = ()
    raw: bytes = b""
    shown: bool = True


class Found(Struct, frozen=True, array_like=True, tag="found"):
    """So much of a sequence's prompt is in the KV cache already; said before a long rest of it is computed."""

    sequence: int
    cached_tokens: int


class Prefilled(Struct, frozen=True, array_like=True, tag="prefilled"):
    """A sequence's prompt is in the KV cache: ``cached_tokens`` of it were there before.

    ``scores`` has one entry per prompt token if ``prompt_logprobs`` asked for it, else none. ``waited`` are the seconds
    before its turn came.
    """

    sequence: int
    cached_tokens: int
    scores: tuple[PromptScore, ...] = ()
    waited: float = 0.0


class Token(Struct, frozen=True, array_like=True, tag="token"):
    """One generated token of row ``row`` of sequence ``sequence``.

    A token with ``finish`` is the row's last. With ``finish="stop"`` it is a stop id, which is counted but is not
    text; with ``finish="length"`` it is text like any other.
    ``text`` is what became certain with this token, perhaps nothing; the last one brings what was held back. Where log
    probabilities are asked for, ``raw`` are the token's own, and ``shown`` says whether they are text.
    """

    sequence: int
    row: int
    id: int
    logprob: float | None = None
    top: tuple[TopLogprob, ...] = ()
    finish: FinishReason | None = None
    text: str = ""
    raw: bytes = b""
    shown: bool = True


Item = Found | Prefilled | Token


class TokenStream(Protocol):
    """What a submitted group of sequences yields. Whoever iterates owns it and must :meth:`close` it.

    Each item is everything that has come since the last one (at least one element), so a slow reader is handed
    larger pieces and never a backlog. Iteration ends after every row's last token; it raises
    :class:`app.errors.SwitchyardError` if the engine cannot go on.
    """

    def __aiter__(self) -> AsyncIterator[list[Item]]: ...

    def cancel(self, sequence: int, row: int) -> None:
        """End one row now; tokens of it that are already on their way may still be yielded."""

    def grant(self, sequence: int, row: int, tokens: int) -> None:
        """Memory is reserved for so many tokens of a row in all; where it waited for that it goes on."""

    async def put_back(self) -> None:
        """Have every row that still runs wait, and return when its KV cache is free.

        Each goes on when it is granted what it needs: its KV is computed again, or found among the prefixes.
        """

    def abort(self, failure: SwitchyardError) -> None:
        """End every row; whoever iterates gets ``failure`` after what has come."""

    def close(self) -> None:
        """End every row that still runs and free its KV cache within one decode step. Safe to call twice."""


class ProcessStatus(Struct, frozen=True):
    """A model's process, or all of its ``ranks`` on this machine. In bytes: resident, live arrays, freed ones kept."""

    pid: int
    resident: int
    active: int
    pool: int
    ranks: tuple[RankState, ...] = ()


class Engine(Protocol):
    """One resident model. A row of it holds what its ``law`` says."""

    tokenizer: Tokenizer
    context_length: int
    nbytes: int
    law: Law
    fingerprint: str
    """Changes whenever the same request could be answered differently: OpenAI's ``system_fingerprint``."""
    kind: Kind
    """What it is for: a text model generates, and is asked for nothing else, as the others are for nothing else."""
    together: Together | None
    """How its rows are computed together; None where none generate text."""
    first_grammar: int
    """Bytes that its process takes with the first grammar, for a tokenizer of its own; 0 once it has them."""

    async def prepare(self, grammar: Grammar) -> None:
        """Compile a grammar beside everything else that runs.

        Raises :class:`app.errors.InvalidRequest` for one that is wrong, not supported or too large.
        """

    def generate(self, sequences: tuple[Sequence, ...]) -> TokenStream:
        """Queue sequences for the running batch; nothing is computed on the calling thread."""

    async def embed(self, texts: tuple[Input, ...], how: Embedding) -> Vectors:
        """A vector for each text, in slices between which others compute; what cannot be done raises as above."""

    async def rerank(self, query: str, documents: tuple[str, ...], how: Ranking) -> Scores:
        """A score for each document, likewise."""

    def work(self) -> Work:
        """What there is to do now; roughly, since it changes while it is read."""

    def books(self) -> Books:
        """What it has of its process's memory, now."""

    def status(self) -> ProcessStatus:
        """The process that computes it, now."""

    def when_lost(self, lost: Callable[[EngineLost], None]) -> None:
        """Call ``lost`` on the event loop if that process ends unasked; what still runs has failed by then."""

    async def close(self) -> None:
        """Fail what still runs, free weights and caches, and return once the memory is free."""


class EngineLoader(Protocol):
    """Makes engines out of model directories."""

    async def load(self, path: Path, *, name: str, options: LoadOptions = AS_IT_IS) -> Engine:
        """Load weights and tokenizer. Raises :class:`app.errors.ModelUnusable` for what can never load.

        A checkpoint that is quantised already is not quantised again; the result of quantising one is kept on disk.
        """

    def expect(self) -> None:
        """Somebody waits for a load, which has to wait for its turn or for memory: what needs neither may begin."""

    async def adapt(self, base: Engine, path: Path, *, name: str, options: LoadOptions = AS_IT_IS) -> Engine:
        """A resident ``base`` with the LoRA adapter at ``path``; they share weights, and ``nbytes`` are its own.

        The weights are the base's, so ``options.quantize`` says nothing here; the KV cache is the adapter's own.
        The base must outlive it. Raises as :meth:`load` does.
        """

    async def close(self) -> None:
        """End what no engine uses; every engine must be closed by then."""


class MemoryGauge(Protocol):
    """How much memory the machine has for models, and how much they hold. All numbers are bytes."""

    def total(self) -> int:
        """What there is for models: Metal working set, CUDA memory, or system memory under cgroups."""

    def default_budget(self) -> int:
        """The part of it that models have where the settings say nothing."""

    def host_budget(self) -> int:
        """Bytes of the system's memory for models' processes, where models have one of their own; 0: they have not."""

    async def known(self) -> None:
        """Return once a process has seen the device; raises :class:`app.errors.EngineLost` if none can."""

    def active(self) -> int:
        """What live arrays hold now, of all models."""

    def pool(self) -> int:
        """What the engine keeps of freed buffers, to use them again."""
