"""The grammar of an answer that may hold tool calls."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from time import monotonic

import structlog

from app.engine.grammar import Grammar
from app.errors import InvalidRequest
from app.generation.job import ToolUse
from app.generation.tools.format import Format
from app.generation.tools.rules import Rules, quoted, slashed
from app.generation.tools.toolbox import Tool, Toolbox

FREE = r"/([^{\s](?s:.*))?/"
"""Text that does not begin like a JSON object."""

PATIENCE = 10.0
"""Seconds in which the functions that cannot be enforced are looked for; those not looked at by then are among them."""
FEW = 8
"""Functions whose grammar is written in a millisecond or two."""
Prepare = Callable[[Grammar], Awaitable[None]]
"""Compiles a grammar and keeps it; raises :class:`app.errors.InvalidRequest` for what cannot be compiled."""


class CallForm:
    """What holds an answer: forced calls, calls that are free to begin, or calls beside ``answer``'s grammar.

    The functions of ``use`` have the schemas that calls are held to.
    """

    def __init__(
        self,
        format: Format,  # noqa: A002
        use: ToolUse,
        answer: Grammar | None,
        added_id: Callable[[str], int | None],
    ) -> None:
        self._format = format
        self._use = use
        self._answer = answer
        self._added_id = added_id
        self._forced = use.required or use.named is not None

    async def compiled(self, prepare: Prepare) -> tuple[Grammar | None, tuple[str, ...]]:
        """The grammar, compiled, and the functions that it does not hold to their schemas because it cannot.

        Raises :class:`app.errors.InvalidRequest` where that must be: a strict function, or no grammar at all although
        one is needed.
        """
        called = tuple(tool for tool in self._use.tools if self._use.named in (None, tool.name))
        whole = await self._tried(called, self._answer, prepare)
        if isinstance(whole, Grammar):
            return whole, ()
        if self._answer is not None:
            await prepare(self._answer)
        unenforced = []
        until = monotonic() + PATIENCE
        for tool in called:
            late = monotonic() > until
            alone = _late(tool) if late else await self._tried((tool,), None, prepare)
            if isinstance(alone, InvalidRequest) and tool.strict:
                raise await _named(tool, alone, prepare)
            unenforced += [tool.name] if isinstance(alone, InvalidRequest) else []
        free = tuple(tool.freed() if tool.name in unenforced else tool for tool in called)
        lax = await self._tried(free, self._answer, prepare)
        if isinstance(lax, Grammar):
            if unenforced:
                _log(unenforced)
            return lax, tuple(unenforced)
        if self._forced or self._answer is not None or any(tool.strict for tool in called):
            raise lax
        _log([tool.name for tool in called])
        return None, tuple(tool.name for tool in called)

    async def _tried(
        self, called: tuple[Tool, ...], answer: Grammar | None, prepare: Prepare
    ) -> Grammar | InvalidRequest:
        """The grammar, compiled, or why there is none; that of many functions is written beside the event loop."""
        try:
            if len(called) > FEW:
                grammar = await asyncio.to_thread(self._grammar, called, answer)
            else:
                grammar = self._grammar(called, answer)
            await prepare(grammar)
        except InvalidRequest as refusal:
            return _together(refusal) if refusal.param == "tools" else refusal
        return grammar

    def _grammar(self, called: tuple[Tool, ...], answer: Grammar | None) -> Grammar:
        rules = Rules(self._added_id, parallel=self._use.parallel)
        section = self._format.write(rules, Toolbox(called))
        start = self._format.section.start
        if not self._forced and answer is None and start:
            once = not self._use.parallel
            return Grammar("lark", rules.grammar(section), trigger=start, once=once, param="tools")
        if start:
            sections = rules.rule(f"{rules.text(start)} {section}")
            section = rules.repeated(sections, '"\\n"?')
        if self._forced:
            return Grammar("lark", rules.grammar(section), param="tools")
        other = FREE if answer is None else answer_rule(rules, answer)
        return Grammar("lark", rules.grammar(f"{section} | {other}"), param="tools" if answer is None else answer.param)


def answer_rule(rules: Rules, answer: Grammar) -> str:
    """The answer's own grammar as a rule."""
    match answer.kind:
        case "json_object":
            return rules.json({"type": "object"}, strict=True)
        case "json_schema":
            return rules.json(json.loads(answer.source), strict=True)
        case "choice":
            return rules.rule(" | ".join(quoted(text) or '""' for text in json.loads(answer.source)))
        case "regex":
            return rules.rule(f"/{slashed(answer.source)}/")
        case "lark":
            raise InvalidRequest(
                "A grammar cannot stand beside tools; leave one of them out, or set tool_choice to none.",
                param=answer.param,
            )


def _together(refusal: InvalidRequest) -> InvalidRequest:
    """Without the grammar, which nobody has sent."""
    return InvalidRequest(
        "These functions make a grammar that cannot be compiled: send fewer of them, or simpler ones.",
        param="tools",
        code=refusal.code,
    )


def _late(tool: Tool) -> InvalidRequest:
    return InvalidRequest(
        f"The parameters of function '{tool.name}' and of those before it take too long to compile; make them simpler.",
        param=tool.param,
        code="grammar_too_large",
    )


def _log(unenforced: list[str]) -> None:
    structlog.get_logger("switchyard").warning("functions without a grammar", functions=unenforced)


async def _named(tool: Tool, refusal: InvalidRequest, prepare: Prepare) -> InvalidRequest:
    """The refusal of one function: its schema alone is asked what is wrong, which names the place."""
    if refusal.param == tool.param:
        return refusal
    try:
        await prepare(Grammar("json_schema", json.dumps(tool.parameters), param=tool.param))
    except InvalidRequest as found:
        return InvalidRequest(f"Function '{tool.name}': {found.message}", param=found.param, code=found.code)
    return InvalidRequest(
        f"The parameters of function '{tool.name}' cannot be enforced in this model's way to call functions. Make them "
        "simpler, or leave strict out.",
        param=tool.param,
        code="grammar_not_supported",
    )
