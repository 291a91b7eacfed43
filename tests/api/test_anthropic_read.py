"""Anthropic's messages as jobs: what stays where it is, what is left out, what is refused by name."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api.read.anthropic import conversation_job, messages_job, shows_thinking
from app.api.seal import Seal
from app.engine.grammar import Grammar
from app.errors import InvalidRequest
from app.generation.job import ChatJob
from app.schemas.anthropic import CountTokensRequest, MessagesRequest
from app.schemas.messages import AssistantMessage, FunctionCall, SystemMessage, ToolCall, ToolMessage, UserMessage
from app.settings import ModelEntry

SEAL = Seal(("key",))
USER = {"role": "user", "content": "Hi"}
TOOL = {"name": "look", "description": "Looks.", "input_schema": {"properties": {"at": {"type": "string"}}}}


def asked(*messages: dict[str, Any], **fields: Any) -> MessagesRequest:
    return msgspec.convert({"messages": list(messages) or [USER], "max_tokens": 9, **fields}, MessagesRequest)


def job(*messages: dict[str, Any], entry: ModelEntry | None = None, **fields: Any) -> ChatJob:
    return messages_job(asked(*messages, **fields), ModelEntry() if entry is None else entry, SEAL)


def refused(*messages: dict[str, Any], **fields: Any) -> str | None:
    with pytest.raises(InvalidRequest) as failure:
        job(*messages, **fields)
    return failure.value.param


def test_a_turn_of_text_is_a_message() -> None:
    told = job(system="Be brief.", temperature=0.5, top_k=4, stop_sequences=["END", ""])
    assert told.messages == (SystemMessage("Be brief."), UserMessage("Hi"))
    decoding = told.decoding
    assert (decoding.max_tokens, decoding.stop) == (9, ("END",))
    assert (decoding.sampling.temperature, decoding.sampling.top_k) == (0.5, 4)
    assert not told.continue_final


def test_what_a_model_is_configured_with_stands_in_for_what_is_left_out() -> None:
    entry = ModelEntry(temperature=0.3, top_p=0.5, tool_prompt="generic")
    told = job(entry=entry, tools=[TOOL])
    assert (told.decoding.sampling.temperature, told.decoding.sampling.top_p) == (0.3, 0.5)
    assert told.tools.prompt == "generic"


def test_a_call_and_its_result_are_turns_of_their_own_in_their_order() -> None:
    told = job(
        USER,
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "somebody else's"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "I "},
                {"type": "text", "text": "look."},
                {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "x", "n": [1, 2.5]}},
                *({"type": "tool_use", "id": f"toolu_{number}", "name": "look", "input": {}} for number in (2, 3)),
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "seen", "cache_control": {"type": "e"}},
                {"type": "tool_result", "tool_use_id": "toolu_2", "is_error": True, "content": [
                    {"type": "text", "text": "no"}, {"type": "text", "text": "file"},
                ]},
                {"type": "tool_result", "tool_use_id": "toolu_3"},
                {"type": "text", "text": "And"},
                {"type": "text", "text": "now?"},
            ],
        },
    )  # fmt: skip
    calls = [
        ToolCall(id=f"toolu_{number}", function=FunctionCall("look", arguments))
        for number, arguments in ((1, '{"at":"x","n":[1,2.5]}'), (2, "{}"), (3, "{}"))
    ]
    assert told.messages == (
        UserMessage("Hi"),
        AssistantMessage("I look.", reasoning_content="Hm.", tool_calls=calls),
        ToolMessage("seen", "toolu_1"),
        ToolMessage("Error: no\n\nfile", "toolu_2"),
        ToolMessage("", "toolu_3"),
        UserMessage("And\n\nnow?"),
    )


def test_a_thought_that_was_left_out_is_read_from_our_own_signature() -> None:
    block = {"type": "thinking", "thinking": "", "signature": SEAL.sign("A long thought.")}
    foreign = {"type": "thinking", "thinking": "", "signature": "EqQBCkYIBxgCKkA"}
    answer = {"role": "assistant", "content": [block, foreign, {"type": "text", "text": "Yes."}]}
    assert job(USER, answer, USER).messages[1].reasoning_content == "A long thought."


def test_system_turns_stay_where_they_are() -> None:
    late = {"role": "system", "content": [{"type": "text", "text": "Late."}, {"type": "text", "text": "Later."}]}
    told = job(USER, late, {"role": "assistant", "content": "Ho"}, late, USER, system=[])
    roles = [type(message) for message in told.messages]
    assert roles == [UserMessage, SystemMessage, AssistantMessage, SystemMessage, UserMessage]
    assert told.messages[1] == SystemMessage("Late.\n\nLater.")


@pytest.mark.parametrize(
    "text", ["x-anthropic-billing-header: cc_version=2.1; cch={};", "x-anthropic-billing-header:{}"]
)
def test_what_changes_in_every_request_is_left_out_of_the_prompt(text: str) -> None:
    rest = {"type": "text", "text": "You are helpful."}
    told = [job(system=[{"type": "text", "text": text.format(number)}, rest]).messages for number in (1, 2)]
    assert told[0] == told[1] == (SystemMessage("You are helpful."), UserMessage("Hi"))
    assert job(system=text + "\nBe kind.").messages[0] == SystemMessage("Be kind.")
    assert job(system=text).messages == (UserMessage("Hi"),)


def test_a_result_without_its_call_is_refused_unless_tokens_are_only_counted() -> None:
    result = {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "tool_result", "tool_use_id": "a"}]}
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "look", "input": {}}]}
    assert refused(USER, result, call) == "messages.1.content.1.tool_use_id"
    assert job(USER, call, result).messages[-2:] == (UserMessage("x"), ToolMessage("", "a"))
    counted = msgspec.convert({"messages": [result]}, CountTokensRequest)
    assert conversation_job(counted, ModelEntry(), SEAL).messages == (UserMessage("x"), ToolMessage("", "a"))


def test_turns_of_one_role_are_one() -> None:
    told = job(USER, USER, {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}, USER)
    assert told.messages == (UserMessage("Hi\n\nHi"), AssistantMessage("ab"), UserMessage("Hi"))


def test_the_answer_goes_on_with_a_last_turn_of_the_assistant() -> None:
    told = job(USER, {"role": "assistant", "content": "The answer is ("})
    assert told.continue_final
    call = {"type": "tool_use", "id": "1", "name": "look", "input": {}}
    assert refused(USER, {"role": "assistant", "content": [call]}) == "messages.1"
    assert refused(USER, {"role": "assistant", "content": ""}) == "messages.1"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, (False, None, True)),
        ({"type": "auto"}, (False, None, True)),
        ({"type": "auto", "disable_parallel_tool_use": True}, (False, None, False)),
        ({"type": "any"}, (True, None, True)),
        ({"type": "any", "disable_parallel_tool_use": True}, (True, None, False)),
        ({"type": "tool", "name": "look"}, (False, "look", False)),
    ],
)
def test_how_tools_may_be_called(choice: dict[str, Any] | None, expected: tuple[bool, str | None, bool]) -> None:
    use = job(tools=[TOOL], tool_choice=choice).tools
    assert (use.required, use.named, use.parallel) == expected
    (tool,) = use.tools
    assert (tool.name, tool.description, tool.strict) == ("look", "Looks.", False)
    assert tool.parameters == {"type": "object", "properties": {"at": {"type": "string"}}}


def test_without_tools_or_with_none_of_them_the_model_knows_of_none() -> None:
    assert job(tools=[], tool_choice={"type": "auto"}).tools is None
    assert job(tools=[TOOL], tool_choice={"type": "none"}).tools is None


@pytest.mark.parametrize(
    ("thinking", "variables", "budget", "shown"),
    [
        (None, {"enable_thinking": False}, None, False),
        ({"type": "disabled"}, {"enable_thinking": False}, None, False),
        ({"type": "adaptive"}, {}, None, True),
        ({"type": "between_tools"}, {}, None, True),
        ({"type": "enabled", "budget_tokens": 1024}, {"enable_thinking": True}, 1024, True),
    ],
)
def test_thinking_is_on_off_or_the_models_own_matter(
    thinking: dict[str, Any] | None, variables: dict[str, Any], budget: int | None, shown: bool
) -> None:
    told = job(thinking=thinking)
    assert (told.variables, told.thinking_budget) == (variables, budget)
    assert shows_thinking(asked(thinking=thinking)) is shown


def test_effort_and_form_reach_the_job() -> None:
    schema = {"type": "object", "properties": {}}
    form = {"type": "json_schema", "schema": schema}
    told = job(output_config={"effort": "low", "format": form}, thinking={"type": "adaptive"})
    assert told.variables == {"reasoning_effort": "low"}
    raw = msgspec.json.encode(schema).decode()
    assert told.decoding.grammar == Grammar("json_schema", raw, param="output_config.format.schema")
    assert job(output_format=form).decoding.grammar == Grammar("json_schema", raw, param="output_format.schema")
    assert refused(output_format=form, output_config={"format": form}) == "output_config.format"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"tools": [TOOL, {"type": "bash_20250124", "name": "bash"}]}, "tools.1.type"),
        ({"tools": [{**TOOL, "defer_loading": True}]}, "tools.0.defer_loading"),
        ({"tools": [TOOL, TOOL]}, "tools.1"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "other"}}, "tool_choice"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"stop_sequences": ["x" * 5000]}, "stop_sequences"),
        ({"container": {"skills": []}}, "container"),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields) == param


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}


@pytest.mark.parametrize(
    ("block", "place"),
    [
        (IMAGE, ""),
        ({"type": "document", "source": {}}, ""),
        ({"type": "search_result", "content": [], "source": "", "title": ""}, ""),
        ({"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "x"}, IMAGE]}, ".content.1"),
        (
            {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "tool_reference", "tool_name": "x"}]},
            ".content.0",
        ),
    ],
)
def test_what_no_text_model_reads_is_refused_where_it_stands(block: dict[str, Any], place: str) -> None:
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "look", "input": {}}]}
    turn = {"role": "user", "content": [{"type": "text", "text": "See:"}, block]}
    assert refused(call, turn) == f"messages.1.content.1{place}"


texts = st.text("ab \n", max_size=6)
block = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, texts),
    st.builds(
        lambda at, text: {"type": "tool_result", "tool_use_id": at, "content": text}, st.sampled_from("xyz"), texts
    ),
)
said = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, texts),
    st.builds(lambda text: {"type": "thinking", "thinking": text, "signature": "s"}, texts),
    st.builds(lambda at: {"type": "tool_use", "id": at, "name": "look", "input": {}}, st.sampled_from("xyz")),
)
turns = st.lists(
    st.one_of(
        st.builds(lambda content: {"role": "user", "content": content}, st.one_of(texts, st.lists(block, max_size=3))),
        st.builds(
            lambda content: {"role": "assistant", "content": content}, st.one_of(texts, st.lists(said, max_size=3))
        ),
        st.builds(lambda content: {"role": "system", "content": content}, texts),
    ),
    max_size=6,
)


@settings(deadline=None)
@given(turns, turns)
def test_a_conversation_that_goes_on_begins_with_the_same_messages(
    before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> None:
    """But for the last of them, which the same role may go on with."""
    answer = {"role": "assistant", "content": "answer"}
    first = [*before, USER]
    told = [
        conversation_job(msgspec.convert({"messages": messages}, CountTokensRequest), ModelEntry(), SEAL).messages
        for messages in (first, [*first, answer, *after, USER])
    ]
    assert told[1][: len(told[0])] == told[0]


@settings(deadline=None)
@given(turns)
def test_every_text_of_a_conversation_is_told(before: list[dict[str, Any]]) -> None:
    request = msgspec.convert({"messages": [*before, USER]}, CountTokensRequest)
    told = conversation_job(request, ModelEntry(), SEAL).messages
    for turn in before:
        pieces = (
            [turn["content"]]
            if isinstance(turn["content"], str)
            else [it.get("text") or it.get("thinking") or it.get("content") or "" for it in turn["content"]]
        )
        everything = "\0".join(f"{it.content}\0{getattr(it, 'reasoning_content', None)}" for it in told)
        assert all(piece in everything for piece in pieces)
