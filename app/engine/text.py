"""A model's text side: what is known of its tokenizer, and how its family marks thoughts and tool calls."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from msgspec import Struct

from app.engine.ids import WIDTH, Ids, common, pack, within
from app.schemas.sampling import SamplingDefaults

PROBES = ("probe_calls_one", "probe_calls_two")
"""Functions that a template is tried with."""


class Marks(Struct, frozen=True):
    """The texts between which a model family puts something, and their token ids; ``end`` may be empty."""

    start: str
    end: str
    start_ids: tuple[int, ...] = ()
    end_ids: tuple[int, ...] = ()


class CallWords(Struct, frozen=True):
    """What a chat template writes around calls: ``start`` and ``end`` of them all, white space included.

    ``kind`` is ``object``, a call being one of JSON with members ``named`` and ``key``; ``named``, a name with
    ``between`` before its arguments; ``python``; or ``tags``, a name with ``between`` behind it, then each argument:
    ``key``, its name, all of ``value``, the value and ``value_end``, ``gap`` between tags and ``pad`` around values. A
    call stands between ``begin`` and ``over``; several in a list where they are ``listed``. ``kinds`` end what stands
    before a value that is a text, and before one of JSON.
    """

    kind: Literal["object", "named", "python", "tags"]
    start: str = ""
    end: str = ""
    listed: bool = False
    named: str = "name"
    key: str = "arguments"
    begin: str = ""
    between: str = ""
    over: str = ""
    value: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    value_end: str = ""
    gap: str = ""
    pad: str = ""


class Edges(Struct, frozen=True, array_like=True):
    """Ids with which conversations of one head begin, and with which prompts ask for an answer; none: unknown.

    Packed as :func:`app.engine.ids.pack` packs them.
    """

    head: bytes = b""
    tail: bytes = b""

    def boundaries(self, ids: Ids) -> tuple[int, ...]:
        """How many of a prompt's ``ids`` later ones are likely to share: the head's, and all before the answer.

        Where earlier answers have the header of the one that is asked for, later prompts share that, too: then the
        prompt's own end is as good a place.
        """
        packed = pack(ids)
        found = {common(packed, self.head)}
        end = len(packed) - len(self.tail)
        if self.tail and packed.endswith(self.tail) and not within(self.tail, packed, end):
            found.add(end // WIDTH)
        return tuple(sorted(found - {0}))


COUNTED = 1 << 14
"""Characters at once in which texts are counted."""


def enough(context_length: int) -> int:
    """So many tokens that what has more of them, counted in pieces, fits into the context by no means."""
    return 2 * context_length + COUNTED


class Rendered(Struct, frozen=True, array_like=True):
    """A conversation as the template writes it, and its ids as :func:`app.engine.ids.pack` packs them.

    None where there are far more than the context holds.
    """

    text: str
    packed: bytes | None = None


class TextFacts(Struct, frozen=True, kw_only=True):
    """What is known of a tokenizer once it is loaded.

    Token ids below ``vocab_size`` may be sent to the model: it is the smaller of the tokenizer's highest id plus one
    and what the model has rows for. ``thinking`` are the marks around the family's thoughts, ``call_format`` names its
    way to write tool calls; each is None if the family has none or it is not known. ``calls_written``
    are a call and two calls as the template writes them, of the functions ``PROBES`` with ``{"it": "x"}``, and
    ``call_words`` what stands around them there. ``added`` are the tokens, special
    or not, that stand outside the ordinary vocabulary, by their spelling. ``answer_marks`` stand around answers and are
    no part of them. ``sampling`` is how the model's authors draw its answers. With ``keeps_states`` it matters where
    conversations begin alike: what is kept of them serves at some places alone.
    """

    vocab_size: int
    bos_id: int | None
    eos_ids: frozenset[int]
    has_chat_template: bool = False
    template_takes_tools: bool = False
    thinking: Marks | None = None
    call_format: str | None = None
    call_words: CallWords | None = None
    calls_written: tuple[str, ...] = ()
    added: dict[str, int] = {}
    answer_marks: tuple[str, ...] = ()
    sampling: SamplingDefaults = SamplingDefaults()
    keeps_states: bool = False

    def added_id(self, text: str) -> int | None:
        """The id of the added token that is spelt so; None if it is ordinary text."""
        return self.added.get(text)


class Tokenizer(Protocol):
    """A model's text side, which lives in its engine: every method is a question to it."""

    facts: TextFacts

    async def encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
        """``special_tokens`` adds what the model's own tokenizer adds by itself (usually a leading BOS)."""

    async def count(self, text: str, enough: int) -> int:
        """About how many tokens ``text`` has, counted piece by piece until there are more than ``enough``."""

    async def fill_in_middle(self, prefix: str, suffix: str) -> list[int] | None:
        """The prompt whose continuation stands between both, in the model's own format; None if it has none."""

    async def decode(self, ids: tuple[int, ...]) -> str:
        """The text of ``ids``, special tokens spelt as they are written."""

    async def spell(self, ids: tuple[int, ...]) -> list[bytes]:
        """The bytes that each of ``ids`` stands for, special ones as they are written."""

    async def render_chat(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        continue_final: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> Rendered:
        """Messages through the model's chat template; raises :class:`app.errors.InvalidRequest` if it refuses them."""

    async def edges(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> Edges:
        """Where conversations that begin with these system messages begin alike."""
