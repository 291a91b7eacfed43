"""How a chat template takes functions and calls, found out by trying when it is first asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Protocol

from app.engine.mlx.text.call_turns import (
    BARE_TOOL,
    PROBE,
    QUESTION,
    TOOL,
    TOOL_VARIABLES,
    CallTurns,
    call_turns_of,
    complete,
)
from app.engine.mlx.text.call_words import call_words_of, calls_written
from app.engine.mlx.text.turns import Message
from app.engine.text import CallWords
from app.errors import InvalidRequest

Tools = list[dict[str, Any]]


class Render(Protocol):
    """The template; raises :class:`app.errors.InvalidRequest` if it refuses."""

    def __call__(
        self, messages: list[Message], variables: Mapping[str, Any], *, tools: Tools | None, asks: bool = True
    ) -> str:
        """The text of ``messages`` with ``tools``, with the beginning of an answer if it ``asks`` for one."""


class TemplateTools:
    """What is found out of one template; ``ends`` are the tokens that end an answer, as they are spelt."""

    def __init__(self, render: Render, ends: Sequence[str]) -> None:
        self._render = render
        self._ends = ends

    @cached_property
    def taken(self) -> bool:
        """Whether it shows functions to the model."""
        return self._plain or self._variable is not None

    @cached_property
    def turns(self) -> CallTurns:
        """How it takes calls in a conversation."""
        return call_turns_of(self._called)

    @cached_property
    def written(self) -> tuple[str, ...]:
        """What it writes for one call, and for two."""
        return calls_written(partial(self._called, asks=False), self.turns, self._ends) if self.taken else ()

    @property
    def words(self) -> CallWords | None:
        """What stands around calls there."""
        return call_words_of(self.written)

    def prepared(self, tools: Tools, variables: Mapping[str, Any]) -> tuple[Tools | None, Mapping[str, Any]]:
        """Functions with everything that it reads of them, where it reads them."""
        if self._wants_all:
            tools = [complete(tool) for tool in tools]
        return (tools, variables) if self._variable is None else (None, {self._variable: tools, **variables})

    def _called(self, messages: list[Message], *, asks: bool = True) -> str:
        return self._render(messages, {}, tools=[TOOL] if self._plain else None, asks=asks)

    @cached_property
    def _plain(self) -> bool:
        return self._shows(TOOL, {})

    @cached_property
    def _variable(self) -> str | None:
        """The variable that it reads tools from, where it is one of its own."""
        if self._plain:
            return None
        return next((name for name in TOOL_VARIABLES if self._shows(None, {name: [TOOL]})), None)

    @cached_property
    def _wants_all(self) -> bool:
        """Whether it refuses functions without a description or without parameters."""
        return not self._shows(BARE_TOOL, {})

    def _shows(self, tool: dict[str, Any] | None, variables: Mapping[str, Any]) -> bool:
        """Whether it tells of the function that is probed with."""
        try:
            return PROBE in self._render(list(QUESTION), variables, tools=None if tool is None else [tool])
        except InvalidRequest:
            return False
