"""A model's text side: its tokenizer, and how its family marks thoughts and tool calls."""

from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import Struct


class Detokenizer(Protocol):
    """Token ids to text, one at a time; characters that span tokens come whole."""

    def push(self, token_id: int) -> str:
        """The text that became certain with this token, perhaps empty."""

    def finish(self) -> str:
        """What is still held back: the bytes of an unfinished character, as U+FFFD."""


class Marks(Struct, frozen=True):
    """The texts between which a model family puts something; ``end`` may be empty."""

    start: str
    end: str


class Tokenizer(Protocol):
    """A model's text side. Methods are pure and may be called from any thread.

    ``thinking`` are the marks around the family's thoughts, ``call_format`` names its way to write tool calls; each is
    None if the family has none or it is not known.
    """

    vocab_size: int
    bos_id: int | None
    eos_ids: frozenset[int]
    has_chat_template: bool
    thinking: Marks | None
    call_format: str | None

    @property
    def template_takes_tools(self) -> bool:
        """Whether the chat template shows tools to the model."""

    def encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
        """``special_tokens`` adds what the model's own tokenizer adds by itself (usually a leading BOS)."""

    def fill_in_middle(self, prefix: str, suffix: str) -> list[int] | None:
        """The prompt whose continuation stands between both, in the model's own format; None if it has none."""

    def render_chat(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        continue_final: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Messages through the model's chat template; raises :class:`app.errors.InvalidRequest` if it refuses them."""

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one token stands for; those of its spelling for a special one."""

    def is_text(self, token_id: int) -> bool:
        """Whether the token is part of the text; special tokens are not, though they are spelt."""

    def detokenizer(self, prompt: tuple[int, ...] = (), *, keep: frozenset[int] = frozenset()) -> Detokenizer:
        """A fresh one, whose text continues ``prompt``. Special tokens are left out but for those in ``keep``."""

    def added_id(self, text: str) -> int | None:
        """The id of the added token (special or not) that is spelt so; None if it is ordinary text."""
