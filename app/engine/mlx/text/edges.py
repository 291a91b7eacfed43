"""Where conversations are likely to begin alike: behind system prompt and tools, and before the answer's header."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import Any

from app.engine.mlx.text.tokenizer import MLXTokenizer
from app.engine.text import Edges
from app.errors import InvalidRequest

PROBE = "⁂"
"""What a user is made to say behind the head of a conversation; no template says it."""
KEPT = 64
"""Heads whose edges are remembered."""


class EdgeFinder:
    """Asks a model's chat template, once for each head. Any thread."""

    def __init__(self, tokenizer: MLXTokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: OrderedDict[bytes, Edges] = OrderedDict()
        self._lock = Lock()

    def edges(self, head: bytes) -> Edges:
        """Those of a conversation with this head, JSON: system ``messages``, ``tools`` and ``variables``."""
        name = hashlib.blake2b(head, digest_size=16).digest()
        with self._lock:
            known = self._known.get(name)
        if known is None:
            known = self._found(**json.loads(head))
        with self._lock:
            self._known[name] = known
            self._known.move_to_end(name)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return known

    def _found(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, variables: Mapping[str, Any] | None
    ) -> Edges:
        said = [*messages, {"role": "user", "content": PROBE}]
        render, encode = self._tokenizer.render_chat, self._tokenizer.encode
        try:
            text = render(said, tools=tools, variables=variables)
            rendered = render(said, tools=tools, variables=variables, asks=False)
        except InvalidRequest:
            return Edges()
        head = text[: max(0, text.rfind(PROBE))]
        tail = text[len(rendered) :] if text.startswith(rendered) else ""
        return Edges(*(tuple(encode(it, special_tokens=False)) for it in (head, tail)))
