"""What a row may say: the language its answer is held to, and the thoughts before the answer."""

from typing import Literal

from msgspec import Struct

GrammarKind = Literal["json_object", "json_schema", "regex", "choice", "lark"]


class Grammar(Struct, frozen=True):
    """A language that a row's answer is held to.

    ``source`` is a JSON schema, a regular expression, a JSON list of texts, or a grammar in llguidance's variant of
    Lark (https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md); it is empty for ``json_object``.
    Without a ``trigger`` the whole answer is held, and nothing but the end may follow it. With one, text is free until
    it ends with the trigger's text; the grammar holds what follows that, and once it is complete the text is free
    again, or the row ends if ``once``. ``param`` is the request field that the grammar came from.
    """

    kind: GrammarKind
    source: str = ""
    trigger: str = ""
    once: bool = False
    param: str = "response_format"


class Thoughts(Struct, frozen=True):
    """What a row thinks before its answer, between two marks; grammars leave it free.

    ``start`` opens a thought if it is the first that is generated (empty: the model cannot open one); ``open`` says
    that the prompt has opened it. After ``budget`` tokens ``end`` is forced. All are token ids.
    """

    end: tuple[int, ...]
    start: tuple[int, ...] = ()
    open: bool = False
    budget: int | None = None
