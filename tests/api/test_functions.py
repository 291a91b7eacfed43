"""Functions on the wire: what is no schema, what is null, which functions follow none."""

from typing import Any

import pytest
from msgspec import structs

from tests.api.conftest import Serve
from tests.support.asgi import request
from tests.support.events import COMPLETED, STARTED, ScriptedStrategy, told
from tests.support.scripted import ByteTokenizer, ScriptedLoader

URL = "/v1/chat/completions"


def asked(parameters: bool | dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    function = {"name": "look", "parameters": parameters}
    tools = [{"type": "function", "function": {"name": "other"}}, {"type": "function", "function": function}]
    return {"model": "tiny", "messages": [{"role": "user", "content": "?"}], "tools": tools, **more}


@pytest.mark.parametrize("choice", ["auto", "none", "required", {"type": "function", "function": {"name": "other"}}])
async def test_what_is_no_json_schema_is_refused_whatever_the_choice(
    serve: Serve, choice: str | dict[str, Any]
) -> None:
    parameters = {"type": "object", "properties": {"x": {"type": "text"}}}
    answer = await request(serve(), "POST", URL, asked(parameters, tool_choice=choice))
    error = answer.json()["error"]
    assert answer.status == 400
    assert error["param"] == "tools.1.function.parameters.properties.x.type"
    assert "'look'" in error["message"]


async def test_arguments_are_an_object(serve: Serve) -> None:
    answer = await request(serve(), "POST", URL, asked({"type": "array"}))
    assert (answer.status, answer.json()["error"]["param"]) == (400, "tools.1.function.parameters.type")


@pytest.mark.parametrize("parameters", [None, True, {}, {"type": None, "properties": {"x": None}, "required": None}])
async def test_null_is_absence(serve: Serve, loader: ScriptedLoader, parameters: bool | dict[str, Any] | None) -> None:
    loader.tokenizer = ByteTokenizer(template_takes_tools=True, call_format="json_tools")
    answer = await request(serve(), "POST", URL, asked(parameters, max_tokens=4))
    assert answer.status == 200
    assert "x-switchyard-unenforced-functions" not in answer.headers


@pytest.mark.parametrize("stream", [False, True])
async def test_functions_without_a_grammar_are_named_in_a_header(serve: Serve, stream: bool) -> None:
    started = structs.replace(STARTED, unenforced=("look", "other"))
    app = serve(ScriptedStrategy(started, *told("x"), COMPLETED))
    answer = await request(app, "POST", URL, asked({}, stream=stream))
    assert answer.status == 200
    assert answer.headers["x-switchyard-unenforced-functions"] == "look, other"


@pytest.mark.parametrize(("strict", "closed"), [(True, True), (False, False), (None, False)])
async def test_a_strict_form_is_closed(serve: Serve, loader: ScriptedLoader, strict: bool | None, closed: bool) -> None:
    schema = {"type": "object", "properties": {"o": {"type": "object", "properties": {"a": {}}}}}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": strict}}
    body = {"model": "tiny", "messages": [{"role": "user", "content": "?"}], "response_format": form}
    assert (await request(serve(), "POST", URL, body)).status == 200
    [engine] = loader.engines.values()
    assert engine.prepared[0].source.count('"additionalProperties":false') == (2 if closed else 0)
