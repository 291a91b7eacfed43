"""The table of Anthropic's fields is whole: against the SDK, fields of objects inside a request included."""

import types
import typing
from typing import Any

import msgspec
import pytest
from anthropic.types import (
    message_count_tokens_params,
    message_create_params,
    metadata_param,
    output_config_param,
    text_block_param,
    thinking_config_param,
    tool_choice_param,
    tool_param,
    tool_result_block_param,
    tool_use_block_param,
)
from anthropic.types.content_block_param import ContentBlockParam
from anthropic.types.tool_union_param import ToolUnionParam

from app.api.read import anthropic_fields, fields
from app.api.read.anthropic import messages_job
from app.api.read.body import decode
from app.api.read.fields import Field
from app.api.seal import Seal
from app.errors import InvalidRequest
from app.generation.job import ChatJob
from app.schemas.anthropic import CountTokensRequest, MessagesRequest
from app.settings import ModelEntry

ASK: dict[str, Any] = {"max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
TABLE = {field.name: field for field in anthropic_fields.MESSAGES}
EVERYWHERE = {"type", "cache_control"}
"""Fields that stand in nearly every object: the first names it, the second has an entry of its own."""
INSIDE = {
    "metadata": metadata_param.MetadataParam,
    "output_config": output_config_param.OutputConfigParam,
    "thinking": thinking_config_param.ThinkingConfigParam,
    "tool_choice": tool_choice_param.ToolChoiceParam,
    "tools": tool_param.ToolParam,
}
BLOCKS = {
    "text": text_block_param.TextBlockParam,
    "tool_use": tool_use_block_param.ToolUseBlockParam,
    "tool_result": tool_result_block_param.ToolResultBlockParam,
}
BLOCK_BASICS = {"text", "id", "name", "input", "tool_use_id", "content"}
"""What makes a block what it is."""


def names(*hinted: Any) -> set[str]:
    """The fields of typed dictionaries, and of all that a union of them may be."""
    found: set[str] = set()
    for it in hinted:
        arms = typing.get_args(it) if typing.get_origin(it) in {typing.Union, types.UnionType} else (it,)
        for arm in arms:
            found |= set(typing.get_type_hints(arm))
    return found


def tag(block: type[object]) -> str:
    """The type of a block, as it is spelt."""
    return typing.get_args(typing.get_type_hints(block)["type"])[0]


def test_every_field_of_the_sdk_stands_in_the_table() -> None:
    asked = names(
        message_create_params.MessageCreateParamsNonStreaming, message_create_params.MessageCreateParamsStreaming
    )
    assert len(asked) > 15
    assert asked - TABLE.keys() == set()
    counted = names(message_count_tokens_params.MessageCountTokensParams)
    assert counted - {field.name for field in anthropic_fields.COUNT_TOKENS} == set()


@pytest.mark.parametrize("place", INSIDE)
def test_every_field_of_an_object_stands_in_the_table(place: str) -> None:
    inside = names(INSIDE[place]) - EVERYWHERE
    assert inside
    assert {f"{place}.{name}" for name in inside} - TABLE.keys() == set()


@pytest.mark.parametrize("kind", BLOCKS)
def test_every_field_of_a_block_stands_in_the_table(kind: str) -> None:
    inside = names(BLOCKS[kind]) - EVERYWHERE - BLOCK_BASICS
    assert {f"messages.{kind}.{name}" for name in inside} - TABLE.keys() == set()


@pytest.mark.parametrize(("struct", "table"), [(MessagesRequest, "MESSAGES"), (CountTokensRequest, "COUNT_TOKENS")])
def test_table_and_struct_know_the_same_fields_once(
    struct: type[MessagesRequest | CountTokensRequest], table: str
) -> None:
    listed = [field.name for field in getattr(anthropic_fields, table)]
    assert len(listed) == len(set(listed))
    assert {name for name in listed if "." not in name} == {field.name for field in msgspec.structs.fields(struct)}


@pytest.mark.parametrize("field", [field for field in anthropic_fields.MESSAGES if "." not in field.name])
def test_a_refused_field_is_refused_and_every_other_is_not(field: Field) -> None:
    wrong: tuple[object, ...] = ({"nothing": "like it"}, "nothing like it", 0, True, [1])
    for value in wrong:
        if field.verdict == "refused":
            with pytest.raises(InvalidRequest) as refused:
                fields.refuse(msgspec.convert({**ASK, field.name: value}, MessagesRequest), anthropic_fields.MESSAGES)
            assert refused.value.param == field.name
        elif field.verdict == "accepted":
            messages_job(msgspec.convert({**ASK, field.name: value}, MessagesRequest), ModelEntry(), Seal())
    for value in (None, *field.harmless):
        if field.verdict != "honoured":
            messages_job(msgspec.convert({**ASK, field.name: value}, MessagesRequest), ModelEntry(), Seal())


@pytest.mark.parametrize("block", typing.get_args(ContentBlockParam), ids=tag)
def test_every_kind_of_block_is_read_or_refused_where_it_stands(block: type[object]) -> None:
    known = {"thinking": "x", "text": "x", "data": "x", "id": "x", "name": "x", "input": {}, "tool_use_id": "x"}
    told = {**known, "source": {}, "content": [], "title": "x", "signature": "x", "type": tag(block)}
    outcomes, places = set(), set()
    for role in ("user", "assistant"):
        turn = {"role": role, "content": [told, {"type": "text", "text": "x"}]}
        call = {"role": "assistant", "content": [{**told, "type": "tool_use"}]}
        body = msgspec.json.encode({**ASK, "messages": [call, turn, *ASK["messages"]]})
        try:
            messages_job(decode(body, MessagesRequest), ModelEntry(), Seal())
        except InvalidRequest as refused:
            places.add((refused.param or "").startswith("messages.1.content.0"))
        else:
            outcomes.add("read")
    assert places <= {True}
    wanted = {"text", "tool_use", "tool_result", "thinking", "redacted_thinking"}
    assert ("read" in outcomes) is (tag(block) in wanted)


@pytest.mark.parametrize("tool", typing.get_args(ToolUnionParam), ids=lambda it: it.__name__)
def test_every_tool_of_anthropics_own_is_refused_and_a_custom_one_is_not(tool: type[object]) -> None:
    kind = next(it for it in typing.get_args(typing.get_type_hints(tool)["type"]) or ["custom"] if it is not type(None))
    kind = kind if isinstance(kind, str) else "custom"
    body = msgspec.json.encode({**ASK, "tools": [{"type": kind, "name": "x", "input_schema": {}}]})
    if kind == "custom":
        assert messages_job(decode(body, MessagesRequest), ModelEntry(), Seal()).tools
        return
    with pytest.raises(InvalidRequest, match=kind) as refused:
        messages_job(decode(body, MessagesRequest), ModelEntry(), Seal())
    assert refused.value.param == "tools.0.type"


TOOL = {"name": "f", "input_schema": {"type": "object", "properties": {}}}
FORM = {"type": "json_schema", "schema": {"type": "object"}}
TELLING = {
    "messages": [{"role": "user", "content": "other"}],
    "messages.content": {"messages": [{"role": "user", "content": [{"type": "text", "text": "other"}]}]},
    "messages.thinking": {
        "messages": [
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "t"}, {"type": "text", "text": "x"}]},
            *ASK["messages"],
        ]
    },
    "messages.tool_result.is_error": {
        "messages": [
            {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "is_error": True}]},
        ]
    },
    "system": "Be brief.",
    "tools": [TOOL],
    "tools.name": {"tools": [{**TOOL, "name": "g"}]},
    "tools.description": {"tools": [{**TOOL, "description": "x"}]},
    "tools.input_schema": {"tools": [{**TOOL, "input_schema": {"type": "object", "required": ["a"]}}]},
    "tools.strict": {"tools": [{**TOOL, "strict": True}]},
    "tool_choice": {"tools": [TOOL], "tool_choice": {"type": "any"}},
    "tool_choice.name": {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "f"}},
    "tool_choice.disable_parallel_tool_use": {
        "tools": [TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    },
    "thinking": {"type": "adaptive"},
    "thinking.budget_tokens": {"thinking": {"type": "enabled", "budget_tokens": 7}},
    "output_config": {"effort": "low"},
    "output_config.effort": {"output_config": {"effort": "high"}},
    "output_config.format": {"output_config": {"format": FORM}},
    "output_format": FORM,
    "max_tokens": 5,
    "stop_sequences": ["x"],
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 3,
    "min_p": 0.5,
    "frequency_penalty": 1,
    "presence_penalty": 1,
    "repetition_penalty": 2, "repeat_penalty": 2,
    "logit_bias": {"1": 1},
    "seed": 3,
}  # fmt: skip
BESIDE = {"tools": {"tools": [TOOL]}, "tool_choice": {"tools": [TOOL]}}
"""What an object's fields are compared with."""
HOW_IT_IS_SENT = {"model", "stream", "thinking.display"}
"""They choose the lease and what of the answer is shown; other tests look at that."""


@pytest.mark.parametrize(
    "name",
    [it.name for it in anthropic_fields.MESSAGES if it.verdict == "honoured" and it.name not in HOW_IT_IS_SENT],
)
def test_every_honoured_field_makes_another_job(name: str) -> None:
    given: Any = TELLING[name] if "." in name else {name: TELLING[name]}
    given = given if name != "tool_choice" else TELLING[name]
    beside: Any = BESIDE.get(name.partition(".")[0], {}) if name != "tools" else {}

    def job(**fields: Any) -> ChatJob:
        return messages_job(msgspec.convert({**ASK, **fields}, MessagesRequest), ModelEntry(), Seal())

    assert job(**given) != job(**beside)
