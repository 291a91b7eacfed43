"""Tools of the Responses API and the choice among them.

Source of the shapes: OpenAI's Responses reference (``ToolParam``, ``ToolChoice``).
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from app.schemas.tools import FunctionName


class FunctionTool(Struct, tag="function", tag_field="type"):
    """A function; ``parameters`` is a JSON schema, left out for a function without any."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class AnyText(Struct, tag="text", tag_field="type"):
    """The tool takes any text."""


class GrammarText(Struct, tag="grammar", tag_field="type"):
    """The tool takes texts of a language."""

    syntax: Literal["lark", "regex"]
    definition: str


class CustomTool(Struct, tag="custom", tag_field="type"):
    """A tool that takes a text."""

    name: FunctionName
    description: str | None = None
    format: AnyText | GrammarText | None = None


class NamespaceTool(Struct, tag="namespace", tag_field="type"):
    """Functions and custom tools under one name."""

    name: FunctionName
    tools: list[FunctionTool | CustomTool]
    description: str | None = None


Tool = FunctionTool | CustomTool | NamespaceTool


class AllowedTool(Struct, omit_defaults=True):
    """One of the tools, by its name."""

    type: str
    name: str | None = None
    namespace: str | None = None


class ToolChoice(Struct, omit_defaults=True):
    """A tool by its name, or (``allowed_tools``) some of them."""

    type: str
    name: str | None = None
    namespace: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: Annotated[list[AllowedTool], Meta(min_length=1)] | None = None
