"""The table of fields is whole: against the OpenAI SDK, against the structs, against the documentation."""

import re
import typing
from types import ModuleType
from typing import Any

import msgspec
import pytest
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import input_token_count_params, response_create_params

from app.api.document import STREAMED
from app.api.read import fields
from app.api.read.fields import Field
from app.errors import InvalidRequest
from app.main import create_app
from app.schemas.chat import ChatRequest
from app.schemas.completions import CompletionRequest
from app.schemas.responses import ResponseRequest
from app.settings import Settings
from tests.support import documents
from tests.support.asgi import request

KINDS = [
    (fields.COMPLETION, CompletionRequest, "CompletionCreateParams", completion_create_params, {}),
    (
        fields.CHAT,
        ChatRequest,
        "CompletionCreateParams",
        chat_create_params,
        {"messages": [{"role": "user", "content": "x"}]},
    ),
    (fields.RESPONSE, ResponseRequest, "ResponseCreateParams", response_create_params, {}),
]


@pytest.mark.parametrize(("table", "struct", "params", "sdk", "required"), KINDS)
def test_every_field_of_the_sdk_stands_in_the_table(
    table: tuple[Field, ...], struct: type[msgspec.Struct], params: str, sdk: ModuleType, required: dict[str, Any]
) -> None:
    names = set(typing.get_type_hints(getattr(sdk, f"{params}NonStreaming")))
    names |= set(typing.get_type_hints(getattr(sdk, f"{params}Streaming")))
    assert len(names) > 15
    assert names - {field.name for field in table} == set()


@pytest.mark.parametrize(("table", "struct", "params", "sdk", "required"), KINDS)
def test_table_and_struct_know_the_same_fields_once(
    table: tuple[Field, ...], struct: type[msgspec.Struct], params: str, sdk: ModuleType, required: dict[str, Any]
) -> None:
    names = [field.name for field in table]
    assert len(names) == len(set(names))
    assert set(names) == {field.name for field in msgspec.structs.fields(struct)}


WRONG: tuple[object, ...] = ({"nothing": "like it"}, "nothing like it", 0, 1, 2, True, [], [1])


@pytest.mark.parametrize(("table", "struct", "params", "sdk", "required"), KINDS)
def test_a_refused_field_is_refused_and_its_harmless_values_are_not(
    table: tuple[Field, ...], struct: type[msgspec.Struct], params: str, sdk: ModuleType, required: dict[str, Any]
) -> None:
    for field in table:
        if field.verdict != "refused":
            continue
        for value in WRONG:
            if any(type(value) is type(it) and value == it for it in field.harmless):
                continue
            with pytest.raises(InvalidRequest) as refused:
                fields.refuse(msgspec.convert({**required, field.name: value}, struct), table)
            assert refused.value.param == field.name
        for value in (None, *field.harmless):
            fields.refuse(msgspec.convert({**required, field.name: value}, struct), table)


def test_every_field_that_tokens_are_counted_with_stands_in_the_table() -> None:
    names = set(typing.get_type_hints(input_token_count_params.InputTokenCountParams))
    assert names - {field.name for field in fields.RESPONSE} == {"personality"}, "which is the service's own prompt"


@pytest.mark.parametrize("table", documents.TABLES.values())
def test_notes_are_sentences(table: tuple[Field, ...]) -> None:
    assert all(field.note.endswith(".") for field in table)


def test_the_documentation_is_up_to_date() -> None:
    page = (documents.DOCS / "api.md").read_text()
    assert page == documents.api(page), "run: python -m tests.support.documents"
    assert (documents.DOCS / "openapi.json").read_bytes() == documents.openapi(), (
        "run: python -m tests.support.documents"
    )


def test_the_openapi_document_is_whole() -> None:
    document = documents.openapi()
    schemas = msgspec.json.decode(document)["components"]["schemas"]
    for name, table in (
        ("CompletionRequest", fields.COMPLETION),
        ("ChatRequest", fields.CHAT),
        ("ResponseRequest", fields.RESPONSE),
    ):
        assert schemas[name]["properties"].keys() == {field.name for field in table}
        assert all(it["description"] for it in schemas[name]["properties"].values())
    referred = set(re.findall(rb'"#/components/schemas/(\w+)"', document))
    assert {name.decode() for name in referred} <= schemas.keys()
    assert b"Validation Exception" not in document
    for path, name in STREAMED.items():
        content = msgspec.json.decode(document)["paths"][path]["post"]["responses"]["200"]["content"]
        assert content["text/event-stream"]["schema"]["$ref"] == f"#/components/schemas/{name}"
        assert name in schemas


async def test_the_document_is_served_as_it_is_committed() -> None:
    answer = await request(create_app(Settings()), "GET", "/schema/openapi.json")
    assert answer.status == 200
    assert answer.json() == msgspec.json.decode((documents.DOCS / "openapi.json").read_bytes())
