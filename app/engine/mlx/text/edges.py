"""Where conversations are likely to begin alike: behind system prompt and tools, and before the answer's header."""

from __future__ import annotations

import msgspec

from app.engine.ids import pack
from app.engine.mlx.text.tokenizer import MLXTokenizer
from app.engine.text import Edges
from app.errors import InvalidRequest

PROBE = "⁂"
"""What a user is made to say behind the head of a conversation; no template says it."""


def edges_of(tokenizer: MLXTokenizer, head: bytes) -> Edges:
    """Those of a conversation with this head, JSON: system ``messages``, ``tools`` and ``variables``. Any thread."""
    asked = msgspec.json.decode(head)
    said = [*asked.pop("messages"), {"role": "user", "content": PROBE}]
    try:
        text = tokenizer.render_chat(said, **asked)
        rendered = tokenizer.render_chat(said, **asked, asks=False)
    except InvalidRequest:
        return Edges()
    before = text[: max(0, text.rfind(PROBE))]
    behind = text[len(rendered) :] if text.startswith(rendered) else ""
    return Edges(*(pack(tokenizer.encode(it, special_tokens=False)) for it in (before, behind)))
