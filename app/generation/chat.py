"""The chat dialect: a conversation through the model's own template."""

from typing import Any

import msgspec

from app.engine.text import Tokenizer
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
    ToolMessage,
    UserMessage,
)

Prompt = tuple[int, ...]
OLDER_ID = "call00000"
"""The id of a call in the older form, which has none; one that every template takes."""
TemplateMessage = dict[str, Any]
"""What Hugging Face chat templates read; it is made here and goes nowhere but into the template."""


async def rendered(tokenizer: Tokenizer, job: ChatJob) -> str:
    """The conversation as the model's template writes it, with the functions that may be called."""
    if not tokenizer.facts.has_chat_template:
        raise InvalidRequest(
            "This model has no chat template: send the text to /v1/completions, or name a chat model.",
            param="model",
            code="no_chat_template",
        )
    messages = [_template_message(message) for message in job.messages]
    tools: list[dict[str, Any]] | None = None
    if job.tools is not None and own_format(tokenizer.facts, job.tools.prompt) is None:
        messages = generic.told(messages, job.tools.tools)
    elif job.tools is not None:
        tools = [tool.told() for tool in job.tools.tools]
    variables = job.variables
    return await tokenizer.render_chat(messages, tools=tools, continue_final=job.continue_final, variables=variables)


async def encoded(tokenizer: Tokenizer, text: str) -> Prompt:
    """A rendered conversation as token ids. The template wrote its own special tokens, so encoding adds none."""
    return tuple(await tokenizer.encode(text, special_tokens=False))


def _template_message(message: Message) -> TemplateMessage:
    """A message as templates know it: content as one text, arguments as objects, ``developer`` as ``system``."""
    match message:
        case SystemMessage() | DeveloperMessage():
            told: TemplateMessage = {"role": "system", "content": _text(message.content), "name": message.name}
        case UserMessage():
            told = {"role": "user", "content": _text(message.content), "name": message.name}
        case AssistantMessage():
            told = _assistant(message)
        case ToolMessage():
            told = {"role": "tool", "content": _text(message.content), "tool_call_id": message.tool_call_id}
        case FunctionMessage():
            told = {"role": "tool", "content": _text(message.content), "name": message.name, "tool_call_id": OLDER_ID}
    return {key: value for key, value in told.items() if value is not None}


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


def _function(call: FunctionCall) -> dict[str, Any]:
    try:
        arguments = msgspec.json.decode(call.arguments or "{}")
    except msgspec.DecodeError:
        arguments = call.arguments
    return {"name": call.name, "arguments": arguments}


def _text(content: Content | None) -> str:
    """Text parts put together; other parts were refused before."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(
        part.refusal if isinstance(part, RefusalPart) else part.text
        for part in content
        if isinstance(part, TextPart | InputTextPart | OutputTextPart | RefusalPart)
    )
