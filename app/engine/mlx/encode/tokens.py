"""Texts and pairs of texts as token ids, exactly as tokenizer.json says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tokenizers import Encoding, Tokenizer

from app.engine.mlx.encode.encoders import Piece
from app.engine.text import TextFacts
from app.errors import InvalidRequest

Cut = Literal["start", "end"]
"""What a text that is too long loses."""
SIDES = {"start": "left", "end": "right"}


class EncoderTokenizer:
    """The tokenizer of a model that makes vectors or scores. Pure: any thread may use it.

    ``longest`` is how many tokens a piece may have, special ones included. Truncation and padding that a tokenizer.json
    asks for are left out: what is cut is decided here.
    """

    def __init__(self, directory: Path, longest: int, *, lowercase: bool = False) -> None:
        file = directory / "tokenizer.json"
        if not file.is_file():
            raise ValueError("it has no tokenizer.json")
        self._tokenizer = Tokenizer.from_file(str(file))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._lowercase = lowercase
        self.longest = longest
        self.vocab_size = 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)

    def facts(self, width: int) -> TextFacts:
        """What is known of it, for a model that has rows for ``width`` tokens."""
        added = {it.content: token for token, it in self._tokenizer.get_added_tokens_decoder().items() if token < width}
        return TextFacts(vocab_size=min(self.vocab_size, width), bos_id=None, eos_ids=frozenset(), added=added)

    def encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
        """Text to ids, however long it is."""
        return list(self._tokenizer.encode(text, add_special_tokens=special_tokens).ids)

    def count(self, text: str, enough: int) -> int:  # noqa: ARG002  texts for such models are short
        """Its tokens, without special ones."""
        return len(self.encode(text, special_tokens=False))

    def decode(self, ids: tuple[int, ...]) -> str:
        """The text of ``ids``, special tokens spelt as they are written."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def token_bytes(self, token: int) -> bytes:
        """What one token stands for, as the vocabulary writes it."""
        return str(self._tokenizer.id_to_token(token) or "").encode()

    def fill_in_middle(self, prefix: str, suffix: str) -> list[int] | None:  # noqa: ARG002
        """Nothing: such a model continues no text."""
        return None

    def render_chat(
        self,
        messages: list[dict[str, Any]],  # noqa: ARG002
        *,
        tools: list[dict[str, Any]] | None = None,  # noqa: ARG002
        continue_final: bool = False,  # noqa: ARG002
        variables: Mapping[str, Any] | None = None,  # noqa: ARG002
    ) -> str:
        """Refused: such a model holds no conversation."""
        raise InvalidRequest("This model generates no text; name a chat model.", param="model")

    def id_of(self, token: str) -> int | None:
        """The id of one token, by its spelling."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def texts(self, texts: Sequence[str], *, prompt: str = "", cut: Cut | None = None, field: str) -> list[Piece]:
        """A piece for each text behind the ``prompt``.

        Raises :class:`app.errors.InvalidRequest` that names ``field`` for one that is too long, unless it is ``cut``.
        """
        head = self._head(prompt) if prompt else 0
        room = max(0, self.longest - self._tokenizer.num_special_tokens_to_add(False))
        encoded = self._tokenizer.encode_batch([self._read(prompt + it) for it in texts], add_special_tokens=False)
        pieces = []
        for at, encoding in enumerate(encoded):
            place = field if len(texts) == 1 else f"{field}.{at}"
            if len(encoding.ids) > room:
                self._check_cut(len(encoding.ids) - room, cut, place)
                encoding.truncate(room, direction=SIDES[cut or "end"])
            pieces.append(_piece(self._tokenizer.post_process(encoding), place, head))
        return pieces

    def ids(self, ids: Sequence[int], *, cut: Cut | None = None, field: str) -> Piece:
        """A piece of token ids as they are; special ones are the sender's own. Raises as :meth:`texts` does."""
        if len(ids) > self.longest:
            self._check_cut(len(ids) - self.longest, cut, field)
            ids = ids[-self.longest :] if cut == "start" else ids[: self.longest]
        if not ids:
            raise InvalidRequest(f"{field} has no tokens.", param=field)
        return Piece(ids)

    def pairs(self, query: str, documents: Sequence[str], *, cut: bool) -> list[Piece]:
        """A piece for each document beside the query; a document that is too long loses its end if it may be ``cut``.

        Raises :class:`app.errors.InvalidRequest` as :meth:`texts` does.
        """
        asked = self._tokenizer.encode(self._read(query), add_special_tokens=False)
        room = self.longest - self._tokenizer.num_special_tokens_to_add(True) - len(asked.ids)
        self._check_room(room)
        encoded = self._tokenizer.encode_batch([self._read(it) for it in documents], add_special_tokens=False)
        pieces = []
        for at, encoding in enumerate(encoded):
            if len(encoding.ids) > room:
                self._check_cut(len(encoding.ids) - room, "end" if cut else None, f"documents.{at}")
                encoding.truncate(room)
            pieces.append(_piece(self._tokenizer.post_process(asked, encoding), f"documents.{at}", 0))
        return pieces

    def between(self, before: str, asked: str, documents: Sequence[str], after: str, *, cut: bool) -> list[Piece]:
        """A piece for each document behind ``asked``, the ids of two texts around them. Raises as :meth:`pairs` does.

        ``asked`` and the document are one text to the tokenizer.
        """
        head, tail = (self.encode(it, special_tokens=False) for it in (before, after))
        room = self.longest - len(head) - len(tail)
        self._check_room(room - len(self.encode(asked, special_tokens=False)))
        pieces = []
        encoded = self._tokenizer.encode_batch([asked + it for it in documents], add_special_tokens=False)
        for at, encoding in enumerate(encoded):
            if len(encoding.ids) > room:
                self._check_cut(len(encoding.ids) - room, "end" if cut else None, f"documents.{at}")
            pieces.append(Piece([*head, *encoding.ids[:room], *tail]))
        return pieces

    def _check_room(self, room: int) -> None:
        """Raise for a query beside which there are only ``room`` tokens for a document."""
        if room < 1:
            raise InvalidRequest(
                f"query leaves no room for a document: this model takes {self.longest} tokens for both. Shorten it.",
                param="query",
                code="context_length_exceeded",
            )

    def _read(self, text: str) -> str:
        """As sentence-transformers hands texts over: without white space around them."""
        text = text.strip()
        return text.lower() if self._lowercase else text

    def _head(self, prompt: str) -> int:
        """Tokens of a prompt, with what the tokenizer puts before it and without what it puts behind."""
        encoding = self._tokenizer.encode(self._read(prompt))
        ends = bool(encoding.ids) and encoding.special_tokens_mask[-1]
        return len(encoding.ids) - (1 if ends else 0)

    def _check_cut(self, excess: int, cut: Cut | None, field: str) -> None:
        if cut is None:
            raise InvalidRequest(
                f"{field} is {excess} tokens longer than this model takes, which is {self.longest} with special "
                "tokens. Shorten it, or send truncate: true to have its end left out.",
                param=field,
                code="context_length_exceeded",
            )


def _piece(encoding: Encoding, field: str, skipped: int) -> Piece:
    if not encoding.ids:
        raise InvalidRequest(f"{field} has no tokens.", param=field)
    types = encoding.type_ids if any(encoding.type_ids) else None
    return Piece(encoding.ids, types, min(skipped, len(encoding.ids) - 1))
