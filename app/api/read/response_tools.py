"""The tools of a response request: functions as every chat template knows them, and how their calls are told.

A function of a namespace is told to the model as ``namespace__name`` and answered with both names. A custom tool is
told as a function with one text. Tools that a service would run (``web_search`` and the like) are left out beside
others.
"""

from typing import Any

import msgspec
from msgspec import Struct

from app.api.read import calling
from app.api.read.body import invalid
from app.errors import InvalidRequest
from app.generation.job import ToolUse
from app.generation.tools.lark import Irregular
from app.generation.tools.regular import expression
from app.generation.tools.toolbox import Tool
from app.schemas import response_tools as wire
from app.schemas.responses import OpenItem, ResponseRequest
from app.settings import ModelEntry

KNOWN: dict[str, type[wire.Tool]] = {
    "function": wire.FunctionTool,
    "custom": wire.CustomTool,
    "namespace": wire.NamespaceTool,
}
INPUT = "input"
"""The parameter that a custom tool's text is told as."""


class Called(Struct, frozen=True):
    """How the calls of a function are told."""

    name: str
    namespace: str | None = None
    custom: bool = False


class Toolset(Struct, frozen=True):
    """``use`` is what the model is told, ``called`` says by its names what was sent; ``skipped`` are fields."""

    use: ToolUse | None
    called: dict[str, Called]
    skipped: tuple[str, ...] = ()


def flat(name: str, namespace: str | None) -> str:
    """The name that the model is told."""
    return name if namespace is None else f"{namespace}__{name}"


def toolset(request: ResponseRequest, entry: ModelEntry) -> Toolset:
    """The tools that can be called. Raises :class:`InvalidRequest` for those that cannot be told apart or found."""
    sent = [] if request.tools is None else request.tools
    tools: dict[str, Tool] = {}
    called: dict[str, Called] = {}
    skipped: list[str] = []
    for at, item in enumerate(sent):
        kind = KNOWN.get(str(item.get("type")))
        if kind is None:
            skipped.append(f"tools.{at} ({str(item.get('type'))[:64]})")
            continue
        for spelling, tool in _tools(_read(item, kind, f"tools.{at}"), f"tools.{at}"):
            if tool.name in tools:
                raise InvalidRequest(f"Two tools have the name '{tool.name}'.", param=f"tools.{at}")
            tools[tool.name], called[tool.name] = tool, spelling
    if skipped and not tools and request.tool_choice != "none":
        raise InvalidRequest(
            f"No tool of this request can be called: the service would have to run {', '.join(skipped)}, and it runs "
            "none. Send functions, or leave tools out.",
            param="tools",
        )
    return Toolset(_use(request, tools, called, entry), called, tuple(skipped))


def _tools(tool: wire.Tool, param: str) -> list[tuple[Called, Tool]]:
    if isinstance(tool, wire.NamespaceTool):
        return [
            (_named(inner, tool.name), _tool(inner, tool.name, f"{param}.tools.{at}"))
            for at, inner in enumerate(tool.tools)
        ]
    return [(_named(tool, None), _tool(tool, None, param))]


def _named(tool: wire.FunctionTool | wire.CustomTool, namespace: str | None) -> Called:
    return Called(tool.name, namespace, isinstance(tool, wire.CustomTool))


def _tool(tool: wire.FunctionTool | wire.CustomTool, namespace: str | None, param: str) -> Tool:
    name = flat(tool.name, namespace)
    if isinstance(tool, wire.FunctionTool):
        place = f"{param}.parameters"
        return calling.function(name, tool.parameters, tool.description, strict=tool.strict, param=place)
    text: dict[str, Any] = {"type": "string"}
    lines = [] if tool.description is None else [tool.description]
    held = isinstance(tool.format, wire.GrammarText)
    if isinstance(tool.format, wire.GrammarText):
        text["pattern"] = _pattern(tool.format, f"{param}.format")
        lines.append(f"The text, {INPUT}, follows this {tool.format.syntax} grammar:\n{tool.format.definition}")
    parameters = {"type": "object", "properties": {INPUT: text}, "required": [INPUT], "additionalProperties": False}
    return Tool(name, parameters, "\n\n".join(lines) or None, held)


def _pattern(language: wire.GrammarText, param: str) -> str:
    """What the text is held to, wherever a model's format puts it and however it is quoted there."""
    if language.syntax == "regex":
        return f"^(?:{language.definition.removeprefix('^').removesuffix('$')})$"
    try:
        return f"^(?:{expression(language.definition)})$"
    except Irregular as why:
        raise InvalidRequest(
            f"{param}: this Lark grammar cannot be held: {why}. Send a simpler one, or the format text.", param=param
        ) from None


def _use(
    request: ResponseRequest, tools: dict[str, Tool], called: dict[str, Called], entry: ModelEntry
) -> ToolUse | None:
    choice = request.tool_choice
    if not tools and choice not in (None, "none", "auto"):
        raise InvalidRequest("tool_choice needs tools.", param="tool_choice")
    if not tools or choice == "none":
        return None
    required, named = choice == "required", None
    if isinstance(choice, wire.ToolChoice) and choice.type == "allowed_tools":
        tools, required = _allowed(choice, tools, called), choice.mode == "required"
    elif isinstance(choice, wire.ToolChoice):
        named = _found(wire.AllowedTool(choice.type, choice.name, choice.namespace), called)
    return ToolUse(
        tools=tuple(tools.values()),
        required=required,
        named=named,
        parallel=request.parallel_tool_calls is not False and named is None,
        prompt=entry.tool_prompt,
    )


def _allowed(choice: wire.ToolChoice, tools: dict[str, Tool], called: dict[str, Called]) -> dict[str, Tool]:
    """Those of the tools that may be called; what would be run by a service is none of them."""
    references = [it for it in choice.tools or [] if it.type in {"function", "custom"}]
    names = {_found(reference, called) for reference in references}
    if not names:
        raise InvalidRequest("None of the allowed tools can be called here.", param="tool_choice")
    return {name: tool for name, tool in tools.items() if name in names}


def _found(reference: wire.AllowedTool, called: dict[str, Called]) -> str:
    """The flat name of a tool that is named as it was sent; the namespace may be left out where one has it alone."""
    if reference.type not in {"function", "custom"}:
        raise InvalidRequest(
            f"tool_choice asks for '{reference.type[:64]}', which would be run by the service; it runs no tools.",
            param="tool_choice",
        )
    found = [
        name
        for name, it in called.items()
        if it.name == reference.name
        and reference.namespace in (None, it.namespace)
        and it.custom == (reference.type == "custom")
    ]
    exact = [name for name in found if called[name].namespace == reference.namespace]
    if len(exact or found) != 1:
        raise InvalidRequest(f"tool_choice names '{reference.name}', which is none of the tools.", param="tool_choice")
    return (exact or found)[0]


def _read(item: OpenItem, kind: type[wire.Tool], param: str) -> wire.Tool:
    try:
        return msgspec.convert(item, kind)
    except msgspec.ValidationError as error:
        raise invalid(str(error), param) from None
