"""Conversations as gpt-oss's chat template reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.engine.mlx.text.turns import GAP, Message

HARMONY_ENDS = ("<|return|>", "<|call|>")
"""Tokens that end an answer, and a call."""
EFFORTS = {"none": "low", "minimal": "low", "xhigh": "high", "max": "high"}
"""Efforts that the model was not trained on, by the nearest that it was."""


def harmony_messages(messages: list[Message]) -> list[Message]:
    """Thoughts by the template's name for them; beside a call, where it takes one text, content is told with them."""
    return [_worded(message) if message["role"] == "assistant" else message for message in messages]


def harmony_variables(variables: Mapping[str, Any]) -> dict[str, Any]:
    """With an effort that the model knows."""
    effort = variables.get("reasoning_effort")
    return {**variables} if effort not in EFFORTS else {**variables, "reasoning_effort": EFFORTS[effort]}


def _worded(message: Message) -> Message:
    rest = {key: value for key, value in message.items() if key != "reasoning_content"}
    thoughts = message.get("reasoning_content")
    if message.get("tool_calls"):
        said = [text for text in (thoughts, message.get("content")) if text]
        rest = {key: value for key, value in rest.items() if key != "content"}
        return {**rest, "thinking": GAP.join(said)} if said else rest
    return {**rest, "thinking": thoughts} if thoughts else rest
