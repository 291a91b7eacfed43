"""Messages with tool calls in them, whole and piece by piece, in the newer form or the older one. Pure."""

from msgspec import UNSET

from app.api.write.transcript import Choice
from app.generation.events import FinishReason, ToolCallArguments, ToolCallStarted
from app.schemas import chat
from app.schemas.messages import FunctionCall, ToolCall
from app.schemas.tools import FunctionDelta, ToolCallDelta


def message(choice: Choice, *, legacy: bool) -> chat.AnswerMessage:
    """A whole message; its content is null where there are calls and no text."""
    calls = [ToolCall(id=call.id, function=FunctionCall(call.name, call.arguments)) for call in choice.calls]
    return chat.AnswerMessage(
        content=None if calls and not choice.text else choice.text,
        reasoning_content=choice.reasoning or UNSET,
        tool_calls=UNSET if legacy or not calls else calls,
        function_call=calls[0].function if legacy and calls else UNSET,
    )


def call_delta(event: ToolCallStarted | ToolCallArguments, *, legacy: bool) -> chat.ChatDelta:
    """More of a call."""
    if isinstance(event, ToolCallArguments):
        function = FunctionDelta(arguments=event.text)
        call = ToolCallDelta(event.call, function)
    else:
        function = FunctionDelta(arguments="", name=event.name)
        call = ToolCallDelta(event.call, function, id=event.id, type="function")
    return chat.ChatDelta(function_call=function) if legacy else chat.ChatDelta(tool_calls=[call])


def told_reason(reason: FinishReason, *, legacy: bool) -> chat.FinishReason:
    """Why it ended."""
    return "function_call" if legacy and reason == "tool_calls" else reason
