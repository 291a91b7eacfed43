"""A model's tokenizer and chat template, as the rest of the service knows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import copy
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import AddedToken

from app.engine.ids import Ids
from app.engine.mlx.text.call_format import answer_marks, call_format, template_source, thoughts
from app.engine.mlx.text.call_turns import called
from app.engine.mlx.text.fim import fill_in_middle
from app.engine.mlx.text.harmony import HARMONY_ENDS, harmony_messages, harmony_variables
from app.engine.mlx.text.spelling import StreamDetokenizer, WindowDetokenizer
from app.engine.mlx.text.tekken import read_tokenizer
from app.engine.mlx.text.template import confine_templates
from app.engine.mlx.text.template_tools import TemplateTools
from app.engine.mlx.text.thoughts import TemplateThoughts, named_thoughts
from app.engine.mlx.text.token_bytes import token_bytes_table
from app.engine.mlx.text.turns import Turns, folded, turns_of
from app.engine.sampling_defaults import sampling_defaults
from app.engine.text import COUNTED, Marks, TextFacts
from app.errors import InvalidRequest
from app.schemas.sampling import SamplingDefaults


class MLXTokenizer:
    """Wraps the Hugging Face tokenizer of a model directory. Pure: any thread may use it."""

    def __init__(self, wrapper: TokenizerWrapper, sampling: SamplingDefaults | None = None) -> None:
        self._wrapper = wrapper
        self.sampling = SamplingDefaults() if sampling is None else sampling
        self._hf = wrapper._tokenizer  # noqa: SLF001  mlx-lm's wrapper forwards only what it does not define
        vocabulary = self._hf.get_vocab()
        self.vocab_size = 1 + max(vocabulary.values(), default=-1)
        """One more than the highest id; between them there may be ids that no token has."""
        self.bos_id: int | None = self._hf.bos_token_id
        self.eos_ids: frozenset[int] = frozenset(token for token in wrapper.eos_token_ids if token >= 0)
        self.has_chat_template: bool = wrapper.has_chat_template
        added: dict[int, AddedToken] = self._hf.added_tokens_decoder
        self._special = frozenset(self._hf.all_special_ids) | {token for token, it in added.items() if it.special}
        self.added = list(added.values()) if self._hf.is_fast else []
        """The added tokens, and how they are looked for in a text; none where that is not known."""
        self.call_format = call_format(wrapper, vocabulary)
        known = thoughts(wrapper, vocabulary)
        self._known_frame = answer_marks(wrapper, vocabulary)
        source = template_source(wrapper) if self.has_chat_template and self.call_format != "harmony" else ""
        self._thoughts = TemplateThoughts(self._render, source, known)
        self._tools = TemplateTools(self._render, [self._hf.convert_ids_to_tokens(token) for token in self.eos_ids])
        if self.call_format == "harmony":
            self.eos_ids |= {vocabulary[token] for token in HARMONY_ENDS if token in vocabulary}

    @classmethod
    def load(cls, path: Path, eos_token_ids: list[int] | int | None) -> MLXTokenizer:
        """Read it from a model directory; no code from there is run, and its template only in a confined process."""
        confine_templates()
        return cls(read_tokenizer(path, eos_token_ids), sampling_defaults(path))

    def encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
        """Text to ids; ``special_tokens`` adds what the tokenizer adds by itself (usually a leading BOS)."""
        ids: list[int] = self._hf.encode(text, add_special_tokens=special_tokens)
        return ids

    def facts(self, width: int) -> TextFacts:
        """What is known of it, for a model that has rows for ``width`` tokens."""
        size = min(self.vocab_size, width)
        return TextFacts(
            vocab_size=size,
            bos_id=self.bos_id if self.bos_id is not None and self.bos_id < size else None,
            eos_ids=frozenset(token for token in self.eos_ids if token < size),
            has_chat_template=self.has_chat_template,
            template_takes_tools=self.template_takes_tools,
            thinking=self.thinking,
            call_format=self.call_format,
            call_words=self._tools.words if self.has_chat_template else None,
            calls_written=self._tools.written if self.has_chat_template else (),
            answer_marks=self.answer_marks,
            sampling=self.sampling,
            added={text: token for text, token in self._hf.get_added_vocab().items() if token < size},
        )

    def count(self, text: str, enough: int) -> int:
        """Tokens of the pieces of ``text``, counted until there are more than ``enough``.

        Cutting a text changes only the tokens at the cut, never their number by half.
        """
        count = 0
        for start in range(0, len(text), COUNTED):
            count += len(self.encode(text[start : start + COUNTED], special_tokens=False))
            if count > enough:
                break
        return count

    def decode(self, ids: Ids) -> str:
        """The text of ``ids``, special tokens spelt as they are written."""
        detokenizer = self.detokenizer(keep=self._special)
        return "".join(detokenizer.push(token) for token in ids) + detokenizer.finish()

    def fill_in_middle(self, prefix: str, suffix: str) -> list[int] | None:
        """By the fill-in-the-middle tokens in the vocabulary, if there are any, behind what begins every text."""
        ids = fill_in_middle(prefix, suffix, self._hf.get_vocab(), partial(self.encode, special_tokens=False))
        return None if ids is None else self.encode("") + ids

    def render_chat(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        continue_final: bool = False,
        variables: Mapping[str, Any] | None = None,
        asks: bool = True,
    ) -> str:
        """Messages, folded to what it takes, through the template; it ``asks`` for an answer unless one goes on."""
        given = variables or {}
        if tools:
            tools, given = self._tools.prepared(tools, given)
        calls = any(message["role"] == "tool" or message.get("tool_calls") for message in messages)
        turns = called(messages, self._tools.turns) if calls else messages
        turns = folded(turns, self._turns)
        if self.call_format == "harmony":
            turns, given = harmony_messages(turns), harmony_variables(given)
        turns, given = self._thoughts.prepared(turns), self._thoughts.switched(given)
        return self._render(turns, given, tools=tools, continue_final=continue_final, asks=asks)

    def _render(
        self,
        messages: list[dict[str, Any]],
        variables: Mapping[str, Any],
        *,
        tools: list[dict[str, Any]] | None = None,
        continue_final: bool = False,
        asks: bool = True,
    ) -> str:
        options: dict[str, Any] = {
            "tools": tools,
            "add_generation_prompt": asks and not continue_final,
            "continue_final_message": continue_final,
            **variables,
        }
        try:
            text: str = self._template_owner.apply_chat_template(messages, tokenize=False, **options)
        except (TemplateError, ValueError, TypeError, KeyError, AttributeError, IndexError) as refusal:
            raise InvalidRequest(
                f"The model's chat template refuses these messages: {refusal}. Change the conversation or use "
                "/v1/completions.",
                param="messages",
                code="chat_template_error",
            ) from refusal
        return text

    def vocabulary(self) -> dict[str, int]:
        """Every token's id, by its spelling; made anew."""
        vocabulary: dict[str, int] = self._hf.get_vocab()
        return vocabulary

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one token stands for."""
        table = self._bytes
        return table[token_id] if 0 <= token_id < len(table) else b""

    def is_text(self, token_id: int) -> bool:
        """Whether detokenizers show it."""
        return token_id not in self._special

    def detokenizer(
        self, prompt: Ids = (), *, keep: frozenset[int] = frozenset()
    ) -> StreamDetokenizer | WindowDetokenizer:
        """A fresh one, whose text continues ``prompt``; special tokens are not text, but for those in ``keep``."""
        dropped = self._special - keep
        if self._hf.is_fast:
            return StreamDetokenizer(self._hf.backend_tokenizer, prompt, dropped)
        return WindowDetokenizer(lambda ids: self._hf.decode([it for it in ids if it not in dropped]), prompt)

    def added_id(self, text: str) -> int | None:
        """The id of the added token, special or not, that is spelt so."""
        token: int | None = self._hf.get_added_vocab().get(text)
        return token

    def _mark(self, text: str) -> tuple[int, ...]:
        token = self.added_id(text)
        return tuple(self.encode(text, special_tokens=False)) if token is None else (token,)

    def serialized(self) -> str | None:
        """The whole tokenizer as tokenizer.json holds it; None for one that is not of the ``tokenizers`` library."""
        if not self._hf.is_fast:
            return None
        plain = copy(self._hf.backend_tokenizer)
        plain.no_padding()
        plain.no_truncation()
        text: str = plain.to_str()
        return text

    def probe(self) -> None:
        """Find out what the chat template takes, which the first conversation would wait for."""
        if self.has_chat_template:
            _ = self.template_takes_tools, self._turns

    @property
    def template_takes_tools(self) -> bool:
        """Whether the chat template shows tools to the model, tried with one."""
        return self.has_chat_template and self._tools.taken

    @cached_property
    def thinking(self) -> Marks | None:
        """What stands around thoughts: by the template, the vocabulary, or tokens that look like it."""
        found = self._thoughts.marks or named_thoughts("\n".join(sorted(self._hf.get_added_vocab())))
        return None if found is None else Marks(*found, *(self._mark(mark) for mark in found))

    @cached_property
    def answer_marks(self) -> tuple[str, ...]:
        """What stands around answers."""
        return tuple(dict.fromkeys((*self._known_frame, *self._thoughts.frame)))

    @property
    def _template_owner(self) -> Any:
        """What renders: the tokenizer itself, which is told of thinking only what a client says of it.

        mlx-lm's wrapper always says something, which only its own templates, written in Python, need.
        """
        own = self._wrapper._chat_template is not None  # noqa: SLF001  mlx-lm says it nowhere else
        own = own or self._wrapper._thinking_kwarg != "enable_thinking"  # noqa: SLF001
        return self._wrapper if own else self._hf

    @cached_property
    def _turns(self) -> Turns:
        return turns_of(lambda messages: self._render(called(messages, self._tools.turns), {}))

    @cached_property
    def _bytes(self) -> list[bytes]:
        decoder = json.dumps(json.loads(self._hf.backend_tokenizer.to_str()).get("decoder")) if self._hf.is_fast else ""
        pieces = self._hf.convert_ids_to_tokens(list(range(self.vocab_size)))
        added, level = self._hf.get_added_vocab(), "ByteLevel" in decoder
        return token_bytes_table(pieces, added=added, special=self._special, byte_level=level)
