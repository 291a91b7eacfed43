"""Where conversations are likely to begin alike: behind system prompt and tools, and before the answer's header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from app.engine.mlx.text.tokenizer import MLXTokenizer
from app.engine.text import Edges
from app.errors import InvalidRequest

PROBE = "⁂"
"""What a user is made to say behind the head of a conversation; no template says it."""


def edges_of(tokenizer: MLXTokenizer, head: bytes) -> Edges:
    """Those of a conversation with this head, JSON: system ``messages``, ``tools`` and ``variables``. Any thread."""
    return _found(tokenizer, **json.loads(head))


def _found(
    tokenizer: MLXTokenizer,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None,
    variables: Mapping[str, Any] | None,
) -> Edges:
    said = [*messages, {"role": "user", "content": PROBE}]
    try:
        text = tokenizer.render_chat(said, tools=tools, variables=variables)
        rendered = tokenizer.render_chat(said, tools=tools, variables=variables, asks=False)
    except InvalidRequest:
        return Edges()
    head = text[: max(0, text.rfind(PROBE))]
    tail = text[len(rendered) :] if text.startswith(rendered) else ""
    return Edges(*(tuple(tokenizer.encode(it, special_tokens=False)) for it in (head, tail)))
