"""What a request says of the form of its answer, as one grammar."""

import msgspec

from app.engine.grammar import Grammar
from app.errors import InvalidRequest
from app.generation.schema.checked import SchemaFault
from app.generation.schema.reading import enforced, read
from app.schemas.structure import JSONObjectFormat, JSONSchema, JSONSchemaFormat, StructureFields


def grammar(request: StructureFields, form: Grammar | None = None) -> Grammar | None:
    """The one that is asked for, ``form`` or another; None for free text. Raises :class:`InvalidRequest` for two."""
    asked = [it for it in (form, _format(request), *_outputs(request), *_named(request)) if it is not None]
    if len(asked) > 1:
        first, second = asked[0].param.split(".")[0], asked[1].param
        raise InvalidRequest(f"{second} and {first} exclude each other; leave one of them out.", param=second)
    return asked[0] if asked else None


def _format(request: StructureFields) -> Grammar | None:
    asked = request.response_format
    if isinstance(asked, JSONObjectFormat):
        return json_object(asked, "response_format")
    if not isinstance(asked, JSONSchemaFormat):
        return None
    if asked.schema is not None and asked.json_schema is None:
        return schema(asked.schema, "response_format.schema")
    param = "response_format.json_schema.schema"
    if asked.json_schema is None or asked.json_schema.schema is None:
        raise InvalidRequest("response_format of type json_schema needs a schema.", param=param)
    return schema(asked.json_schema.schema, param, closed=asked.json_schema.strict is True)


def schema_fault(fault: SchemaFault, param: str, whose: str = "") -> InvalidRequest:
    """The 400 for a document that is no JSON schema."""
    place = ".".join((param, *fault.path))
    return InvalidRequest(f"{whose}{fault}. Send valid JSON Schema.", param=place, code="invalid_json_schema")


def _outputs(request: StructureFields) -> list[Grammar]:
    asked = request.structured_outputs
    if asked is None:
        return []
    name = "structured_outputs"
    for refused in ("structural_tag", "whitespace_pattern", "disable_any_whitespace", "disable_additional_properties"):
        if getattr(asked, refused) not in (None, False):
            raise InvalidRequest(f"{name}.{refused} is refused: leave it out.", param=f"{name}.{refused}")
    found = [Grammar("json_object", param=f"{name}.json_object")] if asked.json_object else []
    found += [] if asked.json is None else [schema(asked.json, f"{name}.json")]
    found += [] if asked.regex is None else [Grammar("regex", asked.regex, param=f"{name}.regex")]
    found += [] if asked.choice is None else [_choice(asked.choice, f"{name}.choice")]
    found += [] if asked.grammar is None else [Grammar("lark", asked.grammar, param=f"{name}.grammar")]
    if not found:
        raise InvalidRequest("structured_outputs needs one of json, json_object, regex, choice, grammar.", param=name)
    return found


def _named(request: StructureFields) -> list[Grammar]:
    """By the names of other servers; an empty grammar or format is none, as it is to them."""
    schemas = {"guided_json": request.guided_json, "json_schema": request.json_schema}
    found = [schema(asked, name) for name, asked in schemas.items() if asked is not None]
    expressions = {"guided_regex": request.guided_regex, "regex": request.regex}
    found += [Grammar("regex", asked, param=name) for name, asked in expressions.items() if asked is not None]
    found += [] if request.guided_choice is None else [_choice(request.guided_choice, "guided_choice")]
    grammars = {"guided_grammar": request.guided_grammar, "grammar": request.grammar, "ebnf": request.ebnf}
    found += [Grammar("lark", asked, param=name) for name, asked in grammars.items() if asked]
    if request.format == "json":
        found.append(Grammar("json_object", param="format"))
    elif request.format is not None and request.format != "":
        found.append(schema(request.format, "format"))
    return found


def json_object(asked: JSONObjectFormat, param: str) -> Grammar:
    """Any JSON object, or one of its schema."""
    return Grammar("json_object", param=param) if asked.schema is None else schema(asked.schema, f"{param}.schema")


def schema(asked: JSONSchema | str, param: str, *, closed: bool = False) -> Grammar:
    """JSON that follows a schema, which may be spelt as JSON text where vLLM takes it so.

    Where ``closed``, objects have no other properties than those that it names.
    """
    if not isinstance(asked, str):
        try:
            held = enforced(asked) if closed else read(asked)
        except SchemaFault as fault:
            raise schema_fault(fault, param) from None
        return Grammar("json_schema", msgspec.json.encode(held).decode(), param=param)
    try:
        decoded = msgspec.json.decode(asked, type=JSONSchema)
    except msgspec.DecodeError:
        raise InvalidRequest(f"{param} is not a JSON schema.", param=param) from None
    return schema(decoded, param)


def _choice(texts: list[str], param: str) -> Grammar:
    return Grammar("choice", msgspec.json.encode(texts).decode(), param=param)
