"""A chat request's messages and template variables, checked."""

from typing import Any

from app.errors import InvalidRequest
from app.schemas.chat import ChatRequest
from app.schemas.messages import (
    AssistantMessage,
    AudioPart,
    AudioURLPart,
    FilePart,
    ForeignPart,
    InputFilePart,
    Message,
    ToolMessage,
    VideoPart,
)

TEMPLATE_OWN = frozenset(
    {
        "add_generation_prompt", "chat_template", "continue_final_message", "conversation", "documents", "max_length",
        "messages", "padding", "processor_kwargs", "return_assistant_tokens_mask", "return_dict", "return_tensors",
        "tokenize", "tokenizer_kwargs", "tools", "truncation",
    }
)  # fmt: skip
"""Names that the rendering of a template gives a meaning of its own: no client may set them as a variable."""

KINDS = {AudioPart: "Audio", AudioURLPart: "Audio", VideoPart: "Film", FilePart: "Files", InputFilePart: "Files"}


def checked(messages: list[Message]) -> tuple[Message, ...]:
    """The messages: none holds what a text model cannot read, and every result belongs to a call before it.

    Raises :class:`InvalidRequest` that names the part or the message.
    """
    called: set[str] = set()
    for at, message in enumerate(messages):
        _readable(message, f"messages.{at}")
        if isinstance(message, AssistantMessage):
            called.update(call.id for call in message.tool_calls or ())
        elif isinstance(message, ToolMessage) and message.tool_call_id not in called:
            raise InvalidRequest(
                f"messages.{at} is the result of a call '{message.tool_call_id[:64]}' that no assistant's message "
                "before it has made. Send that message too, or leave the result out.",
                param=f"messages.{at}.tool_call_id",
            )
    return tuple(messages)


def _readable(message: Message, param: str) -> None:
    if isinstance(message, AssistantMessage) and message.audio is not None:
        raise InvalidRequest("Audio answers cannot be referred to; this is a text model.", param=f"{param}.audio")
    for at, part in enumerate(message.content if isinstance(message.content, list) else []):
        if isinstance(part, ForeignPart):
            kind = KINDS.get(type(part), "Images")
            raise InvalidRequest(
                f"{kind} cannot be read: this is a text model. Leave the part out, or say in text what it holds.",
                param=f"{param}.content.{at}",
            )


def continues(request: ChatRequest) -> bool:
    """Whether the answer goes on with the last message. Raises :class:`InvalidRequest` for contradictions."""
    go_on = request.continue_final_message is True
    if go_on and request.add_generation_prompt:
        raise InvalidRequest(
            "continue_final_message and add_generation_prompt exclude each other.", param="add_generation_prompt"
        )
    if request.add_generation_prompt is False and not go_on:
        raise InvalidRequest(
            "add_generation_prompt may be false only with continue_final_message: true.", param="add_generation_prompt"
        )
    if go_on and not (isinstance(request.messages[-1], AssistantMessage) and request.messages[-1].content):
        raise InvalidRequest(
            "continue_final_message needs an assistant's message with content at the end of messages.",
            param="continue_final_message",
        )
    return go_on


def variables(kwargs: dict[str, Any] | None, effort: str | None, *, enable_thinking: bool | None) -> dict[str, Any]:
    """What the template is given beside the messages. Raises :class:`InvalidRequest` for names that are its own."""
    given = {} if kwargs is None else kwargs
    for name in given:
        if name in TEMPLATE_OWN or not name.isidentifier():
            raise InvalidRequest(
                "chat_template_kwargs holds variables for the model's own template; "
                "the template, the messages and how they are rendered cannot be set there.",
                param=f"chat_template_kwargs.{name[:64]}",
            )
    variables: dict[str, Any] = {}
    if effort is not None:
        variables["reasoning_effort"] = effort
    if enable_thinking is not None:
        variables["enable_thinking"] = enable_thinking
    elif effort == "none":
        variables["enable_thinking"] = False
    return variables | given
