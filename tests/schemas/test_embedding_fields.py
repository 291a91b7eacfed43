"""The tables of the fields of embeddings and rerank are whole: against the SDK, against the structs."""

import typing

import msgspec
import pytest
from openai.types import embedding_create_params

from app.api.read import embedding_fields
from app.api.read.fields import Field
from app.schemas.embeddings import EmbeddingRequest, RerankRequest


def test_every_field_of_the_sdk_stands_in_the_table() -> None:
    names = set(typing.get_type_hints(embedding_create_params.EmbeddingCreateParams))
    assert len(names) >= 5
    assert names - {field.name for field in embedding_fields.EMBEDDINGS} == set()


@pytest.mark.parametrize(
    ("table", "struct"), [(embedding_fields.EMBEDDINGS, EmbeddingRequest), (embedding_fields.RERANK, RerankRequest)]
)
def test_table_and_struct_know_the_same_fields_once(
    table: tuple[Field, ...], struct: type[EmbeddingRequest | RerankRequest]
) -> None:
    names = [field.name for field in table]
    assert len(names) == len(set(names))
    assert set(names) == {field.name for field in msgspec.structs.fields(struct)}
