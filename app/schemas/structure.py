"""What the answer's text must be: the request fields that completions and chat completions share.

Source of the shapes: OpenAI's ``response_format``, and vLLM's ``structured_outputs`` with its older ``guided_*`` names.
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
    """Any JSON object."""


class NamedSchema(Struct):
    """A JSON schema with a name; the text follows it whatever ``strict`` says."""

    name: Annotated[str, Meta(max_length=256)]
    schema: JSONSchema | None = None
    description: str | None = None
    strict: bool | None = None


class JSONSchemaFormat(Struct, tag="json_schema", tag_field="type"):
    """JSON that follows a schema."""

    json_schema: NamedSchema


ResponseFormat = TextFormat | JSONObjectFormat | JSONSchemaFormat


class StructuredOutputs(Struct):
    """Exactly one of these."""

    json: JSONSchema | str | None = None
    json_object: bool | None = None
    regex: str | None = None
    choice: Choices | None = None
    grammar: str | None = None


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
