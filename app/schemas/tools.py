"""Functions that a model may call, and its calls piece by piece.

Source of the shapes: OpenAI's chat completions reference (``ChatCompletionTool``, ``ChatCompletionToolChoiceOption``,
``ChatCompletionChunk``).
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

FunctionName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class FunctionDefinition(Struct):
    """A function; ``parameters`` is a JSON schema, left out for a function without any."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | bool | None = None
    strict: bool | None = None


class ToolDefinition(Struct, tag="function", tag_field="type"):
    """A tool; there are only functions."""

    function: FunctionDefinition


class FunctionReference(Struct):
    """A function by its name."""

    name: FunctionName


class ToolReference(Struct, tag="function", tag_field="type"):
    """A tool by its name."""

    function: FunctionReference


class Allowed(Struct):
    """Some of the tools, and whether one of them must be called."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[ToolReference], Meta(min_length=1)]


class AllowedTools(Struct, tag="allowed_tools", tag_field="type"):
    """Calls may only be of some of the tools."""

    allowed_tools: Allowed


ToolChoice = Literal["none", "auto", "required"] | ToolReference | AllowedTools
FunctionChoice = Literal["none", "auto"] | FunctionReference


class FunctionDelta(Struct, frozen=True, omit_defaults=True):
    """More of a call; the name only in its first piece."""

    arguments: str
    name: str | None = None


class ToolCallDelta(Struct, frozen=True, omit_defaults=True):
    """More of call ``index``; id and type only in its first piece."""

    index: int
    function: FunctionDelta
    id: str | None = None
    type: Literal["function"] | None = None
