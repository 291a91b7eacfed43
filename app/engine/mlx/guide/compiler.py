"""Grammars, compiled by llguidance for one tokenizer, and kept."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TypeAlias

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from numpy.typing import NDArray

from app.engine.grammar import Grammar
from app.engine.mlx.guide import source as grammar_source
from app.engine.mlx.guide.disguise import disguised
from app.engine.mlx.guide.refusal import refusal
from app.engine.mlx.memory import trim_heap
from app.errors import EngineFailed, InvalidRequest, Unavailable

KEPT = 128
"""Compiled grammars per model."""
PATIENCE = 10.0
"""Seconds that a grammar may compute to be compiled; llguidance's own limits end most attempts within one."""
LOOKS = 20
"""How often it is looked at meanwhile."""
SLOWEST = 6
"""How many times as long a machine may take that has other things to do."""
COMPILERS = 2
"""Grammars that are compiled at once."""
TOKEN_BYTES = 2000
"""Bytes that a tokenizer for grammars takes for each token while it is made: 700 to 2,000 were measured."""

Mask: TypeAlias = NDArray[np.int32]
"""One bit per token, ``[words]``; bit 0 of the first word is token 0."""


class GrammarCompiler:
    """One tokenizer's grammars. ``vocabulary`` is the width of the model's logits. Any thread may use it.

    ``serialized`` gives tokenizer.json, None for a tokenizer that has none. Writing it takes a tenth of a second in
    which no other thread runs, so it is asked for with the first grammar.
    """

    def __init__(self, serialized: Callable[[], str | None], *, vocabulary: int, eos_ids: frozenset[int]) -> None:
        self._serialized = serialized
        self._vocabulary = vocabulary
        self.eos_ids = eos_ids
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()
        self._lock = Lock()
        self._making = Lock()
        self._threads = ThreadPoolExecutor(COMPILERS, thread_name_prefix="grammar")

    @property
    def unmade(self) -> int:
        """Bytes that the first grammar will take beside its own, about; 0 from then on."""
        return TOKEN_BYTES * self._vocabulary if self._tokenizer is None else 0

    async def prepare(self, grammar: Grammar) -> LLMatcher:
        """Compile and keep it; what rows are to have copies of, at the beginning of the language.

        Raises :class:`app.errors.InvalidRequest` for what cannot be compiled or takes too long, which is judged by what
        its compilation computes, and :class:`app.errors.Unavailable` where the machine gives that too little time.
        """
        known = self.known(grammar)
        if known is not None:
            return known
        loop = asyncio.get_running_loop()
        if self._tokenizer is None:  # a large vocabulary takes seconds, which are no grammar's fault
            await loop.run_in_executor(self._threads, self._ll_tokenizer)
        attempt = _Attempt()
        compiling = loop.run_in_executor(self._threads, attempt.run, lambda: self.compiled(grammar))
        while True:
            done, _ = await asyncio.wait([compiling], timeout=PATIENCE / LOOKS)
            if done:
                return compiling.result()
            if attempt.computed >= PATIENCE:
                raise InvalidRequest(
                    f"{grammar.param} takes too long to compile; make the grammar smaller.",
                    param=grammar.param,
                    code="grammar_too_large",
                )
            if attempt.waited >= SLOWEST * PATIENCE:
                raise Unavailable(
                    f"The machine is too busy to compile {grammar.param}; try again in a moment.", retry_after=PATIENCE
                )

    def known(self, grammar: Grammar) -> LLMatcher | None:
        """What is kept of it; not to be changed, only copied."""
        with self._lock:
            kept = self._compiled.get(grammar)
            if kept is not None:
                self._compiled.move_to_end(grammar)
            return kept

    def spell(self, text: bytes) -> list[int]:
        """Tokens whose bytes are ``text``, none of them a marker."""
        tokens: list[int] = self._ll_tokenizer().tokenize_bytes(text)
        return tokens

    def room(self) -> Mask:
        """Room for one mask."""
        room: Mask = allocate_token_bitmask(1, self._vocabulary)[0]
        return room

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def compiled(self, grammar: Grammar) -> LLMatcher:
        """Compile and keep it on this thread, however long that takes."""
        try:
            source = grammar_source.spelt(grammar)
        except ValueError as wrong:
            raise refusal(grammar, str(wrong)) from None
        matcher = LLMatcher(self._ll_tokenizer(), source, log_level=0, limits=_limits())
        if not matcher.is_error():
            # A language without a word, and some that are too large, show only when the first token is asked for.
            fill_next_token_bitmask(matcher, allocate_token_bitmask(1, self._vocabulary))
        if matcher.is_error():
            raise refusal(grammar, matcher.get_error())
        with self._lock:
            self._compiled[grammar] = matcher
            while len(self._compiled) > KEPT:
                self._compiled.popitem(last=False)
        return matcher

    def _ll_tokenizer(self) -> LLTokenizer:
        with self._making:
            if self._tokenizer is None:
                written = self._serialized()
                if written is None:
                    raise InvalidRequest(
                        "This model's tokenizer cannot be held to a grammar; name a model whose repository has a "
                        "tokenizer.json.",
                        code="grammar_not_supported",
                    )
                written = disguised(written)
                self._tokenizer = LLTokenizer(written, n_vocab=self._vocabulary, eos_token=sorted(self.eos_ids))
                del written
                trim_heap()  # to make it takes twice what it holds
            return self._tokenizer


class _Attempt:
    """One compilation, on a thread of its own, as seen from others."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._clock: int | None = None
        self._at = 0.0

    def run(self, compile_: Callable[[], LLMatcher]) -> LLMatcher:
        """On the thread that compiles."""
        if sys.platform == "linux":
            self._clock = time.pthread_getcpuclockid(threading.get_ident())
            self._at = time.clock_gettime(self._clock)
        self._began = time.monotonic()
        return compile_()

    @property
    def waited(self) -> float:
        """Seconds since it began, which is when a thread was free for it."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    @property
    def computed(self) -> float:
        """Seconds that it has computed; since it began where the system does not say."""
        if self._began is None or self._clock is None:
            return self.waited
        return max(0.0, time.clock_gettime(self._clock) - self._at)


def fill(matcher: LLMatcher, mask: Mask) -> None:
    """Write which tokens may come next; raises :class:`app.errors.EngineFailed` if that cannot be told."""
    fill_next_token_bitmask(matcher, mask[None])
    if matcher.is_error():
        raise EngineFailed(
            f"The grammar became too complex while generating ({_first_line(matcher.get_error())}); simplify it.",
            code="grammar_failed",
        )


def consume(matcher: LLMatcher, token: int) -> None:
    """Take the token that was drawn; raises :class:`app.errors.EngineFailed` if it is not in the language."""
    if not matcher.consume_token(token):
        raise EngineFailed(
            f"The grammar could not be followed ({_first_line(matcher.get_error())}); send the request again.",
            code="grammar_failed",
        )


def _limits() -> LLParserLimits:
    """Below llguidance's own where a step is concerned: a step's mask must not hold up the rows beside it."""
    return LLParserLimits(
        step_lexer_fuel=100_000,
        step_max_items=25_000,
        max_lexer_states=100_000,
        max_grammar_size=250_000,
        verbose_errors=False,
    )


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "unknown reason")[:200]
