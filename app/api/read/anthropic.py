"""From Anthropic's messages to a job: the same conversation, functions and limits that a chat has.

What Anthropic puts into one user turn, results of tools and what the person says, are turns of their own here. Nothing
is moved: a system turn inside the conversation stays where it is.
"""

from typing import Any

import msgspec

from app.api.anthropic_errors import NO_THREADS
from app.api.read import anthropic_fields, fields, structure, translate
from app.api.read.anthropic_tools import tool_use
from app.api.seal import Seal
from app.engine.grammar import Grammar
from app.errors import InvalidRequest
from app.generation.job import ChatJob, Decoding
from app.schemas import anthropic as wire
from app.schemas.messages import (
    AssistantMessage,
    FunctionCall,
    Message,
    SystemMessage,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from app.settings import ModelEntry

BILLING = "x-anthropic-billing-header:"
"""How a line begins that Claude Code puts before all else, another in every request: it would spoil every prefix."""
GAP = "\n\n"
"""Between blocks that are one text to a model."""
UNREAD = {
    wire.ImageBlock: "Images",
    wire.DocumentBlock: "Documents",
    wire.SearchResultBlock: "Search results",
    wire.ToolReferenceBlock: "Tool references",
}
NO_THINKING = (wire.ThinkingDisabled, type(None))


def messages_job(request: wire.MessagesRequest, entry: ModelEntry, seal: Seal) -> ChatJob:
    """Raises :class:`InvalidRequest` for what cannot be honoured."""
    if request.thread is not None:
        raise InvalidRequest(
            "thread is refused: Conversations are not stored; send all of one.", param="thread", code=NO_THREADS
        )
    _check_results(request.messages)
    job = conversation_job(request, entry, seal)
    decoding = msgspec.structs.replace(
        job.decoding,
        max_tokens=request.max_tokens,
        stop=translate.stop_strings(request.stop_sequences, param="stop_sequences"),
    )
    return msgspec.structs.replace(job, decoding=decoding)


def conversation_job(request: wire.CountTokensRequest, entry: ModelEntry, seal: Seal) -> ChatJob:
    """All that the prompt is made of, and how its answer is held."""
    fields.refuse(
        request,
        anthropic_fields.MESSAGES if isinstance(request, wire.MessagesRequest) else anthropic_fields.COUNT_TOKENS,
    )
    messages = [*_system(request.system), *_conversation(request.messages, seal)]
    return ChatJob(
        decoding=Decoding(
            sampling=translate.sampling(request, entry),
            max_tokens=None,
            grammar=_grammar(request),
            left_open=translate.left_open(request, entry),
        ),
        messages=tuple(messages),
        continue_final=_prefilled(messages, len(request.messages) - 1),
        variables=_variables(request),
        tools=tool_use(request, entry),
        thinking_budget=request.thinking.budget_tokens if isinstance(request.thinking, wire.ThinkingEnabled) else None,
    )


def shows_thinking(request: wire.CountTokensRequest) -> bool:
    """Whether the answer has blocks of thought; who does not ask for them expects the text to be first."""
    return not isinstance(request.thinking, NO_THINKING)


def _system(system: str | list[wire.TextBlock] | None) -> list[Message]:
    blocks = [wire.TextBlock(system)] if isinstance(system, str) else system or []
    texts = [block.text.partition("\n")[2] if block.text.startswith(BILLING) else block.text for block in blocks]
    text = GAP.join(it for it in texts if it)
    return [SystemMessage(text)] if text else []


def _conversation(turns: list[wire.Turn], seal: Seal) -> list[Message]:
    messages: list[Message] = []
    for at, turn in enumerate(turns):
        place = f"messages.{at}.content"
        match turn:
            case wire.SystemTurn():
                messages += _system(turn.content)
            case wire.AssistantTurn():
                _add(messages, _assistant(turn, seal))
            case wire.UserTurn():
                for message in _user(turn, place):
                    _add(messages, message)
    return messages


def _add(messages: list[Message], message: Message) -> None:
    """Append a message, or put it into the one before where that is of the same role."""
    before = messages[-1] if messages else None
    if isinstance(message, UserMessage) and isinstance(before, UserMessage):
        messages[-1] = UserMessage(f"{before.content}{GAP}{message.content}")
    elif isinstance(message, AssistantMessage) and isinstance(before, AssistantMessage):
        messages[-1] = AssistantMessage(
            content=f"{before.content}{message.content}",
            reasoning_content=GAP.join(it.reasoning_content for it in (before, message) if it.reasoning_content)
            or None,
            tool_calls=[*(before.tool_calls or ()), *(message.tool_calls or ())] or None,
        )
    else:
        messages.append(message)


def _user(turn: wire.UserTurn, place: str) -> list[Message]:
    """The person's text and what tools answered, in their order."""
    if isinstance(turn.content, str):
        return [UserMessage(turn.content)]
    messages: list[Message] = []
    for at, block in enumerate(turn.content):
        if isinstance(block, wire.ToolResultBlock):
            messages.append(ToolMessage(_result(block, f"{place}.{at}.content"), block.tool_use_id))
        else:
            messages.append(UserMessage(_readable(block, f"{place}.{at}")))
    return messages


def _check_results(turns: list[wire.Turn]) -> None:
    """Every result belongs to a call before it. Where tokens are only counted, parts of conversations are sent."""
    called: set[str] = set()
    for turn_at, turn in enumerate(turns):
        for at, block in enumerate([] if isinstance(turn.content, str) else turn.content):
            if isinstance(block, wire.ToolUseBlock):
                called.add(block.id)
            elif isinstance(block, wire.ToolResultBlock) and block.tool_use_id not in called:
                place = f"messages.{turn_at}.content.{at}"
                raise InvalidRequest(
                    f"{place} is the result of a call '{block.tool_use_id[:64]}' that no turn before it has made. Send "
                    "that turn too, or leave the result out.",
                    param=f"{place}.tool_use_id",
                )


def _result(block: wire.ToolResultBlock, place: str) -> str:
    blocks = [wire.TextBlock(block.content)] if isinstance(block.content, str) else block.content or []
    text = GAP.join(_readable(it, f"{place}.{at}") for at, it in enumerate(blocks))
    return f"Error: {text}" if block.is_error else text


def _readable(block: wire.UserBlock | wire.ResultBlock, place: str) -> str:
    if isinstance(block, wire.TextBlock):
        return block.text
    raise InvalidRequest(
        f"{UNREAD[type(block)]} cannot be read: this is a text model. Leave the part out.", param=place
    )


def _assistant(turn: wire.AssistantTurn, seal: Seal) -> AssistantMessage:
    if isinstance(turn.content, str):
        return AssistantMessage(turn.content)
    texts, thoughts, calls = [], [], []
    for block in turn.content:
        match block:
            case wire.TextBlock():
                texts.append(block.text)
            case wire.ThinkingBlock():
                thoughts.append(block.thinking or seal.read(block.signature) or "")
            case wire.ToolUseBlock():
                arguments = msgspec.json.encode(block.input).decode()
                calls.append(ToolCall(id=block.id, function=FunctionCall(block.name, arguments)))
            case wire.RedactedThinkingBlock():
                pass
    return AssistantMessage(
        content="".join(texts),
        reasoning_content=GAP.join(thought for thought in thoughts if thought) or None,
        tool_calls=calls or None,
    )


def _prefilled(messages: list[Message], last: int) -> bool:
    """Whether the answer goes on with the last turn. Raises :class:`InvalidRequest` for one that cannot be gone on."""
    final = messages[-1] if messages else None
    if not isinstance(final, AssistantMessage):
        return False
    if final.tool_calls:
        raise InvalidRequest("The last turn calls tools; send their results after it.", param=f"messages.{last}")
    if not final.content:
        raise InvalidRequest("The last turn is empty; leave it out to be answered.", param=f"messages.{last}")
    return True


def _variables(request: wire.CountTokensRequest) -> dict[str, Any]:
    """What the template is told of thinking: nothing where the model may do as it likes."""
    variables: dict[str, Any] = {}
    if isinstance(request.thinking, NO_THINKING):
        variables["enable_thinking"] = False
    elif isinstance(request.thinking, wire.ThinkingEnabled):
        variables["enable_thinking"] = True
    if request.output_config is not None and request.output_config.effort is not None:
        variables["reasoning_effort"] = request.output_config.effort
    return variables


def _grammar(request: wire.CountTokensRequest) -> Grammar | None:
    config = request.output_config
    name, form = "output_config.format", None if config is None else config.format
    if request.output_format is not None:
        if form is not None:
            raise InvalidRequest(
                "output_format is the older name of output_config.format; send one of them.", param=name
            )
        name, form = "output_format", request.output_format
    if form is None:
        return None
    return structure.schema(form.schema, f"{name}.schema", closed=True)
