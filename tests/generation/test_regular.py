"""Grammars in Lark as regular expressions: the same language, or where rules nest, a part of it."""

import contextlib
import random
import re
from typing import Any

import llguidance
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from app.generation.tools.lark import COMMON, Irregular, literal
from app.generation.tools.regular import expression

PATCH = r"""
start: begin_patch hunk+ end_patch
begin_patch: "*** Begin Patch" LF
end_patch: "*** End Patch" LF?

hunk: add_hunk | delete_hunk | update_hunk
add_hunk: "*** Add File: " filename LF add_line+
delete_hunk: "*** Delete File: " filename LF
update_hunk: "*** Update File: " filename LF change_move? change?
filename: /(.+)/
add_line: "+" /(.*)/ LF -> line
change_move: "*** Move to: " filename LF
change: (change_context | change_line)+ eof_line?
change_context: ("@@" | "@@ " /(.+)/) LF
change_line: ("+" | "-" | " ") /(.*)/ LF
eof_line: "*** End of File" LF

%import common.LF
"""
SUMS = """
// sums in parentheses
?start: sum
sum.2: product
    | sum "+" product   -> add
product: atom ("*" atom)~0..2
!atom: INT | "(" sum ")"
%import common (INT, WS)
"""


def matches(grammar: str, text: str) -> bool:
    return re.fullmatch(expression(grammar), text) is not None


@pytest.mark.parametrize(
    ("grammar", "inside", "outside"),
    [
        (
            PATCH,
            [
                "*** Begin Patch\n*** Add File: a b.txt\n+x\n+\n*** End Patch\n",
                "*** Begin Patch\n*** Update File: a\n*** Move to: b\n@@ f\n-a\n+b\n c\n*** End of File\n*** End Patch",
                "*** Begin Patch\n*** Delete File: a\n*** Delete File: b\n*** End Patch\n",
            ],
            ["*** Begin Patch\n*** End Patch\n", "*** Begin Patch\n*** Add File: \n+x\n*** End Patch", ""],
        ),
        (SUMS, ["1", "12+3*4", "(1+2)*3", "((1))"], ["", "1+", "1*2*3*4", "(1"]),
        ('start: "a".."c" [X]\nX: /[0-9]/i "é\\n\\u0041\\x42"', ["b", "c7é\nAB"], ["d", "a7"]),
        ('start: "ab"i "+"? /\\//', ["AB+/", "ab/"], ["a/", "ab+"]),
        ('start: A | B\nA: /x|y/ "z"\nB:', ["xz", "yz", ""], ["x", "y", "z"]),
        ('%import common.ESCAPED_STRING -> S\nstart: S ("," S)*', ['"a\\"b","c"'], ['"a', "a"]),
    ],
)
def test_a_language(grammar: str, inside: list[str], outside: list[str]) -> None:
    assert [text for text in inside if not matches(grammar, text)] == []
    assert [text for text in outside if matches(grammar, text)] == []


@pytest.mark.parametrize(
    ("grammar", "said"),
    [
        ("", "no rule named start"),
        ('other: "x"', "no rule named start"),
        ("start: other", "no rule named other"),
        ("start: start", "have no end"),
        ('start: "a" start', "have no end"),
        ('start: ("a"', "is missing"),
        ('start: "a" )', "not expected"),
        ("start: @", "not understood"),
        ('start: "a"~3..1', "no count"),
        ('start: "a"~100000', "no count"),
        ('start: "b".."a"', "begins no range"),
        ('start: "a"\n%ignore " "', "not supported"),
        ("start: X\n%import python.X", "not supported"),
        ("start: X\n%import common.NOTHING", "not known"),
        ("start: " + " ".join('"x"' for _ in range(20_000)), "too large"),
        (
            "start: a a\n"
            + "".join(f"{x}: {y} {y}\n" for x, y in zip("abcdefghijklmnopqr", "bcdefghijklmnopqrz", strict=True))
            + 'z: "x"',
            "too large",
        ),
        ("start: " + "(" * 5000, "nested too deeply"),
        ("start: r0\n" + "".join(f"r{n}: r{n + 1}\n" for n in range(2000)), "nested too deeply"),
        ('start: "' + "x" * 50_000 + '"', "too large"),
        ("start:", None),
        ("start", "':' is missing"),
        ("| x", "begins no rule"),
        ("start.", "ends within"),
    ],
)
def test_what_cannot_be_read_says_why(grammar: str, said: str | None) -> None:
    if said is None:
        assert matches(grammar, "")
        return
    with pytest.raises(Irregular, match=re.escape(said)):
        expression(grammar)


@settings(deadline=None)  # machines are slow at times
@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(Irregular):
        expression("start: " + text)


@settings(deadline=None)  # machines are slow at times
@given(st.text(max_size=20))
def test_a_literal_is_itself(text: str) -> None:
    assert re.fullmatch(literal(text), text)


def test_the_common_terminals_are_expressions() -> None:
    for pattern in COMMON.values():
        re.compile(pattern)


Item = tuple[Any, ...]
"""A kind and what is of it: ``("repeat", options, "+")``."""
Options = list[list[Item]]


class Writer:
    """A random grammar, texts of it, and texts that are nearly of it.

    Every terminal is one character: llguidance's lexer is greedy, so that longer ones would make its language smaller.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)  # noqa: S311
        self.rules: dict[str, Options] = {}
        for number in range(self.rng.randint(1, 4), -1, -1):
            self.rules["start" if number == 0 else f"r{number}"] = self.options(number, 2)

    def options(self, number: int, depth: int) -> Options:
        return [
            [self.item(number, depth) for _ in range(self.rng.randint(1, 3))] for _ in range(self.rng.randint(1, 3))
        ]

    def item(self, number: int, depth: int) -> Item:
        kind = self.rng.choice(["text", "text", "regex", "rule", "group", "repeat"])
        later = [name for name in self.rules if name != "start"]
        if kind == "rule" and later:
            return ("rule", self.rng.choice(later))
        if kind == "group" and depth:
            return ("group", self.options(number, depth - 1))
        if kind == "repeat" and depth:
            return ("repeat", self.options(number, depth - 1), self.rng.choice("?*+"))
        if kind == "regex":
            return ("regex", self.rng.choice(["[ab]", "c", "d|e", "[0-9]"]))
        return ("text", self.rng.choice(["a", "b", ".", '"', "\\", "(", "\n", "é"]))

    def written(self) -> str:
        return "\n".join(f"{name}: {self.spelt(body)}" for name, body in self.rules.items())

    def spelt(self, options: Options) -> str:
        return " | ".join(" ".join(self.spell(item) for item in items) for items in options)

    def spell(self, item: Item) -> str:
        match item:
            case ("rule", name):
                return name
            case ("group", options):
                return f"({self.spelt(options)})"
            case ("repeat", options, times):
                return f"({self.spelt(options)}){times}"
            case ("regex", pattern):
                return f"/{pattern}/"
        _, text = item
        escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'

    def say(self, options: Options) -> str:
        return "".join(self.said(item) for item in self.rng.choice(options))

    def said(self, item: Item) -> str:
        match item:
            case ("rule", name):
                return self.say(self.rules[name])
            case ("group", options):
                return self.say(options)
            case ("repeat", options, times):
                least, most = {"?": (0, 1), "*": (0, 2), "+": (1, 2)}[times]
                return "".join(self.say(options) for _ in range(self.rng.randint(least, most)))
            case ("regex", pattern):
                return self.rng.choice({"[ab]": "ab", "c": "c", "d|e": "de", "[0-9]": "059"}[pattern])
        return str(item[1])

    def nearly(self, text: str) -> str:
        at = self.rng.randint(0, len(text))
        return text[:at] + self.rng.choice(["", "a", "x", "("]) + text[at + self.rng.randint(0, 1) :]


def accepted(matcher: Any, text: str) -> bool:
    matcher.reset()
    return all(matcher.consume_tokens([byte]) for byte in text.encode()) and matcher.is_accepting()


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None)  # machines are slow at times
@given(st.integers(0, 2**32))
def test_the_expression_says_what_llguidance_says_of_the_grammar(seed: int) -> None:
    writer = Writer(seed)
    grammar = writer.written()
    try:
        found = re.compile(expression(grammar))
    except Irregular as failure:
        if "too large" not in str(failure):
            raise
        reject()
    tokenizer = llguidance.LLTokenizer("byte")
    for _ in range(3):
        text = writer.say(writer.rules["start"])
        assert found.fullmatch(text), (grammar, text)
        other = writer.nearly(text)
        told = llguidance.LLMatcher(tokenizer, grammar, log_level=0)
        if not told.is_error():
            assert accepted(told, other) == (found.fullmatch(other) is not None), (grammar, other)
