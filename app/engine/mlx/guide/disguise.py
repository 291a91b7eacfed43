"""The tokenizer as grammars need it: text never means a marker."""

from typing import Any

import msgspec
from msgspec import Raw


def disguised(tokenizer_json: str) -> str:
    """The tokenizer with its markers' texts changed, so that only their ids and no text of a grammar can mean them.

    llguidance tokenises the text that a grammar forces; where that text looks like a marker (``<tool_call>`` in an
    enum) it would force the marker's token, which its parser then does not take for text.
    """
    parts = msgspec.json.decode(tokenizer_json, type=dict[str, Raw])  # merges stay text: they are most of it
    model = msgspec.json.decode(parts["model"], type=dict[str, Raw])
    added: list[dict[str, Any]] = msgspec.json.decode(parts.get("added_tokens", Raw(b"[]")))
    markers = {
        token["content"]: f"\ue000{token['content']}\ue001"
        for token in added
        if token["special"] or (token["content"][0] in "<[" and token["content"][-1] in ">]")
    }
    for token in added:
        if token["content"] in markers:
            token.update(content=markers[token["content"]], special=True)
    pieces = msgspec.json.decode(model["vocab"])
    if isinstance(pieces, dict):
        vocabulary: object = {markers.get(piece, piece): token for piece, token in pieces.items()}
    else:
        vocabulary = [[markers.get(piece, piece), score] for piece, score in pieces]
    changed: dict[str, object] = model | {"vocab": vocabulary}
    unknown = msgspec.json.decode(model.get("unk_token", Raw(b"null")))
    if unknown in markers:
        changed["unk_token"] = markers[unknown]
    return msgspec.json.encode(parts | {"added_tokens": added, "model": changed}).decode()
