"""The examples of the OpenAPI document are requests that are answered."""

import msgspec
import pytest

from app.api.examples import examples
from app.schemas.embeddings import EmbeddingRequest, RerankRequest
from tests.api.conftest import Serve
from tests.support import documents
from tests.support.asgi import request
from tests.support.house import scripted_memory
from tests.support.scripted import ByteTokenizer, ScriptedLoader

PATHS = {
    "CompletionRequest": "/v1/completions",
    "ChatRequest": "/v1/chat/completions",
    "ResponseRequest": "/v1/responses",
    "MessagesRequest": "/v1/messages",
    "CountTokensRequest": "/v1/messages/count_tokens",
    "TokenizeRequest": "/tokenize",
    "DetokenizeRequest": "/detokenize",
    "TemplateRequest": "/apply-template",
}


@pytest.fixture
def loader() -> ScriptedLoader:
    tokenizer = ByteTokenizer(template_takes_tools=True, call_format="json_tools")
    return ScriptedLoader(scripted_memory(), tokenizer=tokenizer)


OTHERS = {"EmbeddingRequest": EmbeddingRequest, "RerankRequest": RerankRequest}
"""What scripted models do not answer."""


@pytest.mark.parametrize(
    ("name", "number"), [(name, at) for name, bodies in examples().items() for at in range(len(bodies))]
)
async def test_an_example_is_answered(serve: Serve, name: str, number: int) -> None:
    if name in OTHERS:
        assert msgspec.convert(examples()[name][number], OTHERS[name])
        return
    body = examples()[name][number] | {"model": "tiny"}
    answer = await request(serve(), "POST", PATHS[name], body)
    assert answer.status == 200, answer.body


def test_every_kind_of_request_has_an_example() -> None:
    assert examples().keys() == PATHS.keys() | OTHERS.keys()
    assert documents.openapi().count(b'"examples"') == len(examples())
