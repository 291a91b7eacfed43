"""What the answer's text must be: the request fields that completions and chat completions share.

Source of the shapes: OpenAI's ``response_format``, vLLM's ``structured_outputs`` with its older ``guided_*`` names,
llama.cpp's ``json_schema`` and ``grammar``, SGLang's ``json_schema``, ``ebnf`` and ``regex``, Ollama's ``format``.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct

from app.schemas.sampling import SamplingFields

JSONSchema = dict[str, Any] | bool
"""An open form, so it has no struct; what of it cannot be enforced is refused by name."""
Choices = Annotated[list[str], Meta(min_length=1, max_length=4096)]


class TextFormat(Struct, tag="text", tag_field="type"):
    """Any text."""


class JSONObjectFormat(Struct, tag="json_object", tag_field="type"):
    """Any JSON object, or one that follows the schema."""

    schema: JSONSchema | None = None


class NamedSchema(Struct):
    """A JSON schema, mostly with a name; the text follows it whatever ``strict`` says."""

    name: Annotated[str, Meta(max_length=256)] | None = None
    schema: JSONSchema | None = None
    description: str | None = None
    strict: bool | None = None


class JSONSchemaFormat(Struct, tag="json_schema", tag_field="type"):
    """JSON that follows a schema; some clients leave out the object that names it."""

    json_schema: NamedSchema | None = None
    schema: JSONSchema | None = None


ResponseFormat = TextFormat | JSONObjectFormat | JSONSchemaFormat


class StructuredOutputs(Struct):
    """Exactly one of the first five; the others are vLLM's too and refused."""

    json: JSONSchema | str | None = None
    json_object: bool | None = None
    regex: str | None = None
    choice: Choices | None = None
    grammar: str | None = None
    structural_tag: Any = None
    whitespace_pattern: Any = None
    disable_any_whitespace: Any = None
    disable_additional_properties: Any = None


class StructureFields(SamplingFields, kw_only=True):
    """At most one of these may ask for anything but text."""

    response_format: ResponseFormat | None = None
    structured_outputs: (
        Annotated[StructuredOutputs, Meta(description="One of json, json_object, regex, choice, grammar (Lark).")]
        | None
    ) = None
    guided_json: JSONSchema | str | None = None
    guided_regex: str | None = None
    guided_choice: Choices | None = None
    guided_grammar: str | None = None
    json_schema: JSONSchema | str | None = None
    grammar: str | None = None
    ebnf: str | None = None
    regex: str | None = None
    format: JSONSchema | str | None = None
