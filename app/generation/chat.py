"""The chat dialect: a conversation through the model's own template."""

from collections.abc import Iterable
from itertools import takewhile
from typing import Any

import msgspec
from msgspec.structs import replace

from app.engine.ids import Ids, unpacked
from app.engine.text import Rendered, Tokenizer
from app.errors import InvalidRequest
from app.generation.job import ChatJob
from app.generation.tools import generic
from app.generation.tools.table import own_format
from app.schemas.messages import (
    AssistantMessage,
    Content,
    DeveloperMessage,
    FunctionCall,
    FunctionMessage,
    InputTextPart,
    Message,
    OutputTextPart,
    RefusalPart,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)

OLDER_ID = "call00000"
"""The id of a call in the older form, which has none; one that every template takes."""
TemplateMessage = dict[str, Any]
"""What Hugging Face chat templates read; it is made here and goes nowhere but into the template."""


async def rendered(tokenizer: Tokenizer, job: ChatJob) -> Rendered:
    """The conversation as the model's template writes it, with the functions that may be called."""
    if not tokenizer.facts.has_chat_template:
        raise InvalidRequest(
            "This model has no chat template: send the text to /v1/completions, or name a chat model.",
            param="model",
            code="no_chat_template",
        )
    try:
        return await _rendered(tokenizer, job, [_template_message(message) for message in job.messages])
    except InvalidRequest:
        odd = [call for call in _calls(job.messages) if not isinstance(_arguments(call.function), dict)]
        if not odd:
            raise
    wrapped = tuple(_wrapped(message) for message in job.messages)
    try:
        return await _rendered(tokenizer, job, [_template_message(message) for message in wrapped])
    except InvalidRequest as refused:
        raise InvalidRequest(
            f"The arguments of the call '{odd[0].id[:64]}' of {odd[0].function.name[:64]} are no JSON object, and the "
            f"model's chat template does not take them. Send '{{}}' in their place. ({refused.message})",
            param=job.field,
        ) from None


async def _rendered(tokenizer: Tokenizer, job: ChatJob, messages: list[TemplateMessage]) -> Rendered:
    messages, tools = _with_tools(tokenizer, job, messages)
    variables = job.variables
    return await tokenizer.render_chat(messages, tools=tools, continue_final=job.continue_final, variables=variables)


def _with_tools(
    tokenizer: Tokenizer, job: ChatJob, messages: list[TemplateMessage]
) -> tuple[list[TemplateMessage], list[dict[str, Any]] | None]:
    """The messages and the functions as the template is given them, or told of in the messages."""
    if job.tools is None:
        return messages, None
    if own_format(tokenizer.facts, job.tools.prompt) is None:
        return generic.with_tools(messages, job.tools.tools), None
    return messages, [tool.definition() for tool in job.tools.tools]


async def encoded(tokenizer: Tokenizer, conversation: Rendered) -> Ids:
    """A conversation as token ids. The template wrote its own special tokens, so encoding adds none."""
    if conversation.packed is not None:
        return unpacked(conversation.packed)
    return tuple(await tokenizer.encode(conversation.text, special_tokens=False))


async def boundaries(tokenizer: Tokenizer, job: ChatJob, prompt: Ids) -> tuple[int, ...]:
    """Lengths of beginnings of a prompt that later ones are likely to share, where it matters to the model."""
    if not tokenizer.facts.keeps_states:
        return ()
    head = takewhile(lambda it: isinstance(it, SystemMessage | DeveloperMessage), job.messages)
    messages, tools = _with_tools(tokenizer, job, [_template_message(message) for message in head])
    edges = await tokenizer.edges(messages, tools=tools, variables=job.variables)
    return edges.boundaries(prompt)


def _template_message(message: Message) -> TemplateMessage:
    """A message as templates know it: content as one text, arguments as objects, ``developer`` as ``system``."""
    match message:
        case SystemMessage() | DeveloperMessage():
            turn: TemplateMessage = {"role": "system", "content": _text(message.content), "name": message.name}
        case UserMessage():
            turn = {"role": "user", "content": _text(message.content), "name": message.name}
        case AssistantMessage():
            turn = _assistant(message)
        case ToolMessage():
            turn = {"role": "tool", "content": _text(message.content), "tool_call_id": message.tool_call_id}
        case FunctionMessage():
            turn = {"role": "tool", "content": _text(message.content), "name": message.name, "tool_call_id": OLDER_ID}
    return {key: value for key, value in turn.items() if value is not None}


def _assistant(message: AssistantMessage) -> TemplateMessage:
    calls = [
        {"id": call.id, "type": "function", "function": _function(call.function)} for call in message.tool_calls or ()
    ]
    if message.function_call is not None:
        calls.append({"id": OLDER_ID, "type": "function", "function": _function(message.function_call)})
    content = _text(message.content)
    return {
        "role": "assistant",
        "content": content if content or message.refusal is None else message.refusal,
        "name": message.name,
        "reasoning_content": message.reasoning_content,
        "tool_calls": calls or None,
    }


def _calls(messages: Iterable[Message]) -> list[ToolCall]:
    """The calls of a conversation, those in the older form too."""
    found: list[ToolCall] = []
    for message in messages:
        if isinstance(message, AssistantMessage):
            found += message.tool_calls or ()
            found += [] if message.function_call is None else [ToolCall(OLDER_ID, message.function_call)]
    return found


def _function(call: FunctionCall) -> dict[str, Any]:
    return {"name": call.name, "arguments": _arguments(call)}


def _arguments(call: FunctionCall) -> Any:
    """What the text says if it is JSON; else the text, as weak models write it and other services keep it."""
    try:
        return msgspec.json.decode(call.arguments.strip() or "{}")
    except (msgspec.DecodeError, RecursionError):
        return call.arguments


def _wrapped(message: Message) -> Message:
    """The message with arguments that are no object put into one, for templates that go through their items."""
    if not isinstance(message, AssistantMessage):
        return message
    calls = (
        None
        if message.tool_calls is None
        else [replace(it, function=_object(it.function)) for it in message.tool_calls]
    )
    older = None if message.function_call is None else _object(message.function_call)
    return replace(message, tool_calls=calls, function_call=older)


def _object(call: FunctionCall) -> FunctionCall:
    arguments = _arguments(call)
    if isinstance(arguments, dict):
        return call
    return FunctionCall(call.name, msgspec.json.encode({"arguments": arguments}).decode())


def _text(content: Content | None) -> str:
    """Text parts put together; other parts were refused before."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(
        part.refusal if isinstance(part, RefusalPart) else part.text
        for part in content
        if isinstance(part, TextPart | InputTextPart | OutputTextPart | RefusalPart)
    )
