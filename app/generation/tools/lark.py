"""A grammar in Lark, read: each of its rules as a tree.

Source of the syntax: Lark's grammar reference (https://lark-parser.readthedocs.io/en/stable/grammar.html). Templates,
``%ignore`` and imports from elsewhere than ``common`` are not read.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

from msgspec import Struct

TOKEN = re.compile(
    r"""(?P<skip>[ \t\f]+|//[^\n]*|\#[^\n]*)|(?P<line>(?:\r?\n)\s*)|(?P<directive>%\w+[^\n]*)
    |(?P<string>"(?:\\.|[^"\\\n])*"i?)|(?P<regex>/(?!/)(?:\\.|[^/\\\n])*/[imslux]*)
    |(?P<name>[!?]*_*[A-Za-z]\w*)|(?P<sign>->|\.\.|[:|()\[\]?*+~.,{}-])|(?P<number>\d+)""",
    re.VERBOSE,
)
IMPORT = re.compile(r"%import\s+common(?:\.(?P<one>\w+)(?:\s*->\s*(?P<alias>\w+))?|\s*\((?P<some>[\w\s,]+)\))\s*$")
ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL)
CONTROL = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "0": "\0"}
SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$]")
COMMON = {
    "CNAME": r"[_a-zA-Z][_a-zA-Z0-9]*", "CR": r"\r", "DECIMAL": r"(?:[0-9]+\.[0-9]*|\.[0-9]+)", "DIGIT": "[0-9]",
    "ESCAPED_STRING": r'"(?:[^"\\\n]|\\.)*"',
    "FLOAT": r"(?:[0-9]+(?:\.[0-9]*)?[eE][+-]?[0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)",
    "HEXDIGIT": "[0-9a-fA-F]", "INT": "[0-9]+", "LCASE_LETTER": "[a-z]", "LETTER": "[a-zA-Z]", "LF": r"\n",
    "NEWLINE": r"(?:\r?\n)+", "NUMBER": r"(?:[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+)",
    "SIGNED_FLOAT": r"[+-]?(?:[0-9]+(?:\.[0-9]*)?[eE][+-]?[0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)",
    "SIGNED_INT": "[+-]?[0-9]+", "SIGNED_NUMBER": r"[+-]?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+)",
    "UCASE_LETTER": "[A-Z]", "WORD": "[a-zA-Z]+", "WS": r"[ \t\f\r\n]+", "WS_INLINE": r"[ \t]+",
}  # fmt: skip


class Irregular(ValueError):
    """The grammar is wrong, or cannot become an expression; the message says why."""


class Token(Struct, frozen=True):
    """A piece of the grammar's text."""

    kind: str
    text: str


class Fixed(Struct, frozen=True):
    """An expression as it is."""

    text: str


class Reference(Struct, frozen=True):
    """What another rule says."""

    name: str


class Series(Struct, frozen=True):
    """One after the other."""

    items: tuple["Node", ...]


class Options(Struct, frozen=True):
    """One of them."""

    items: tuple["Node", ...]


class Repeat(Struct, frozen=True):
    """As often as ``times`` says, which is a regular expression's suffix."""

    item: "Node"
    times: str


Node = Fixed | Reference | Series | Options | Repeat


def rules(grammar: str) -> dict[str, Node]:
    """The rules and terminals of a grammar by name. Raises :class:`Irregular`."""
    return _Reader(_tokens(grammar)).rules


def literal(text: str) -> str:
    """A text as a regular expression."""
    return SPECIAL.sub(lambda found: "\\" + found.group(), text)


def _tokens(grammar: str) -> list[Token]:
    """The grammar's text in pieces. A line that begins with ``|`` goes on with the one before."""
    tokens: list[Token] = []
    at = 0
    while at < len(grammar):
        found = TOKEN.match(grammar, at)
        if found is None:
            raise Irregular(f"'{grammar[at : at + 20]}' is not understood")
        at = found.end()
        if found.lastgroup != "skip":
            tokens.append(Token(str(found.lastgroup), found.group()))
    pairs = pairwise([*tokens, Token("line", "")])
    return [token for token, after in pairs if token.kind != "line" or after.text != "|"]


class _Reader:
    """Reads rules, one a line."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = iter(tokens)
        self._next: Token | None = next(self._tokens, None)
        self.rules: dict[str, Node] = {}
        while self._next is not None:
            token = self._take()
            if token.kind == "directive":
                self.rules.update(_imported(token.text))
            elif token.kind == "name":
                self._rule(token.text.lstrip("!?"))
            elif token.kind != "line":
                raise Irregular(f"'{token.text}' begins no rule")

    def _take(self) -> Token:
        taken, self._next = self._next, next(self._tokens, None)
        if taken is None:
            raise Irregular("it ends within a rule")
        return taken

    def _is(self, *texts: str) -> bool:
        return self._next is not None and self._next.kind == "sign" and self._next.text in texts

    def _expect(self, text: str) -> None:
        if not self._is(text):
            raise Irregular(f"'{text}' is missing before '{self._next.text if self._next else ''}'")
        self._take()

    def _rule(self, name: str) -> None:
        if self._is("."):  # a priority, which says nothing of the language
            self._take()
            self._take()
        self._expect(":")
        self.rules[name] = self._options()
        if self._next is not None and self._next.kind != "line":
            raise Irregular(f"'{self._next.text}' is not expected in the rule {name}")

    def _options(self) -> Node:
        items = [self._series()]
        while self._is("|"):
            self._take()
            items.append(self._series())
        return Options(tuple(items))

    def _series(self) -> Node:
        return Series(tuple(self._items()))

    def _items(self) -> Iterator[Node]:
        while self._next is not None and self._next.kind != "line" and not self._is("|", ")", "]"):
            if self._is("->"):
                self._take()
                self._take()
            else:
                yield self._repeated(self._atom())

    def _repeated(self, atom: Node) -> Node:
        if self._is("?", "*", "+"):
            return Repeat(atom, self._take().text)
        if not self._is("~"):
            return atom
        self._take()
        least = most = self._take().text
        if self._is(".."):
            self._take()
            most = self._take().text
        if not (least.isdigit() and most.isdigit() and int(least) <= int(most) <= 1000):
            raise Irregular(f"'~ {least}..{most}' is no count")
        return Repeat(atom, f"{{{least},{most}}}")

    def _atom(self) -> Node:
        token = self._take()
        if token.kind == "name":
            return Reference(token.text.lstrip("!?"))
        if token.kind == "regex":
            return Fixed(_flagged(*token.text[1:].rsplit("/", 1)))
        if token.kind == "string":
            return self._text(token)
        if token.text in {"(", "["}:
            inner = self._options()
            self._expect(")" if token.text == "(" else "]")
            return inner if token.text == "(" else Repeat(inner, "?")
        raise Irregular(f"'{token.text}' is not understood")

    def _text(self, token: Token) -> Node:
        body, flags = token.text[1:].rsplit('"', 1)
        if not self._is(".."):
            return Fixed(_flagged(literal(_unescaped(body)), flags))
        self._take()
        first, last = _unescaped(body), _unescaped(self._take().text[1:-1])
        if len(first) != 1 or len(last) != 1 or first > last:
            raise Irregular(f"'{token.text}' begins no range")
        return Fixed("[" + "-".join(re.sub(r"[\\]\[^&~-]", r"\\\g<0>", end) for end in (first, last)) + "]")


def _imported(directive: str) -> dict[str, Node]:
    found = IMPORT.match(directive.partition("//")[0])
    if found is None:
        raise Irregular(f"'{directive.strip()[:40]}' is not supported")
    names = {found["alias"] or found["one"]: found["one"]} if found["one"] else {}
    names |= {name.strip(): name.strip() for name in (found["some"] or "").split(",") if name.strip()}
    for name in names.values():
        if name not in COMMON:
            raise Irregular(f"common.{name} is not known")
    return {alias: Fixed(COMMON[name]) for alias, name in names.items()}


def _flagged(pattern: str, flags: str) -> str:
    kept = "".join(flag for flag in "imsx" if flag in flags)
    return f"(?{kept}:{pattern})"


def _unescaped(body: str) -> str:
    def meant(found: re.Match[str]) -> str:
        code = found[1] or found[2]
        return chr(int(code, 16)) if code else CONTROL.get(found[3], found[3])

    return ESCAPE.sub(meant, body)
