"""GBNF means what llama.cpp means by it: generated grammars against a recogniser that knows characters alone."""

from functools import reduce
from itertools import accumulate
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

from app.engine.grammar import Grammar
from app.engine.mlx.guide.gbnf import is_gbnf, parse
from app.engine.mlx.guide.lexemes import lark
from app.engine.mlx.guide.refusal import refusal
from app.engine.mlx.guide.source import spelt
from app.errors import InvalidRequest
from tests.support.tiny import tiny

LETTERS = "ab"
NAMES = ("root", "one", "two-b")
EOS = 0


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return LLTokenizer((tiny() / "tokenizer.json").read_text())


def accepts(tokenizer: Any, grammar: str, text: str) -> bool:
    """Whether the text, a byte a token, is a whole word of the language."""
    matcher = LLMatcher(tokenizer, spelt(Grammar("lark", grammar)), log_level=0)
    mask = allocate_token_bitmask(1, tokenizer.vocab_size)
    fill_next_token_bitmask(matcher, mask)
    assert not matcher.get_error().startswith("Parser"), matcher.get_error()
    for character in text:
        if matcher.is_error() or not matcher.consume_tokens(tokenizer.tokenize_bytes(character.encode())):
            return False
        fill_next_token_bitmask(matcher, mask)
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
    return not matcher.is_error() and bool(bits[tokenizer.eos_token])


Node = tuple[Any, ...]
"""A grammar: ("chars", set), ("name", name), ("all", nodes), ("any", nodes), ("times", node, least, most)."""


def nodes(names: tuple[str, ...]) -> st.SearchStrategy[Node]:
    atoms = st.one_of(
        st.sampled_from([("chars", frozenset("a")), ("chars", frozenset("b")), ("chars", frozenset("ab"))]),
        st.sampled_from([("name", name) for name in names]),
    )
    counts = st.sampled_from([(0, None), (1, None), (0, 1), (2, 2), (2, 3), (0, 2), (2, None), (0, 0)])
    return st.recursive(
        atoms,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3).map(lambda it: ("all", tuple(it))),
            st.lists(inner, min_size=1, max_size=3).map(lambda it: ("any", tuple(it))),
            st.tuples(inner, counts).map(lambda it: ("times", it[0], *it[1])),
        ),
        max_leaves=6,
    )


GRAMMARS = st.fixed_dictionaries({name: nodes(NAMES) for name in NAMES})
FLAT = st.fixed_dictionaries({name: nodes(NAMES[at + 1 :] or ("root",)) for at, name in enumerate(NAMES[:-1])}).map(
    lambda rules: rules | {NAMES[-1]: ("chars", frozenset("ab"))}
)
TEXTS = st.lists(st.text(LETTERS, max_size=6), min_size=1, max_size=8)


def written(node: Node) -> str:
    match node:
        case ("chars", letters) if len(letters) == 1:
            return f'"{min(letters)}"'
        case ("chars", letters):
            return f"[{min(letters)}-{max(letters)}]"
        case ("name", name):
            return str(name)
        case ("all", parts):
            return f"({' '.join(map(written, parts))})" if parts else '""'
        case ("any", options):
            return f"({' | '.join(map(written, options))})"
        case ("times", part, least, most):
            return f"({written(part)}){{{least},{'' if most is None else most}}}"
    raise AssertionError(node)


def means(rules: dict[str, Node], text: str) -> bool:
    """Whether ``text`` is a word, found by trying everything until no more is found."""
    ends: dict[Any, Any] = {(name, at): set() for name in rules for at in range(len(text) + 1)}

    def reach(node: Node, starts: set[int]) -> set[int]:
        match node:
            case ("chars", letters):
                return {at + 1 for at in starts if at < len(text) and text[at] in letters}
            case ("name", name):
                return {end for at in starts for end in ends[name, at]}
            case ("all", parts):
                return reduce(lambda ends, part: reach(part, ends), parts, starts)
            case ("any", options):
                return set().union(*(reach(option, starts) for option in options))
            case ("times", part, least, most):
                steps = range(len(text) + least if most is None else most)
                told = list(accumulate(steps, lambda ends, _: reach(part, ends), initial=starts))
                return set().union(*told[least:])
        raise AssertionError(node)

    changed = True
    while changed:
        changed = False
        for (name, at), known in ends.items():
            found = reach(rules[name], {at}) - known
            known.update(found)
            changed = changed or bool(found)
    return len(text) in ends["root", 0]


@settings(max_examples=150, deadline=None)
@given(rules=GRAMMARS | FLAT, texts=TEXTS)
def test_a_grammar_means_what_its_characters_mean(tokenizer: Any, rules: dict[str, Any], texts: list[str]) -> None:
    grammar = "\n".join(f"{name} ::= {written(node)}" for name, node in rules.items())
    for text in texts:
        assert accepts(tokenizer, grammar, text) == means(rules, text), (grammar, text)


JSON = r"""
root   ::= object   # llama.cpp's own example, shortened
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" (
    [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4})
  )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""


def test_a_grammar_that_is_clear_is_made_of_long_lexemes(tokenizer: Any) -> None:
    written = lark(JSON)
    assert max(len(lexeme) for lexeme in written.split("/")) > 150
    assert accepts(tokenizer, JSON, '{"a": [1, -2.5e3, true, {"b\\u00e9": "c\\n"}],\n  "d": null}')
    assert not accepts(tokenizer, JSON, '{"a": 01}')
    assert not accepts(tokenizer, JSON, '{"a": "\n"}')


@pytest.mark.parametrize(
    ("grammar", "words", "others"),
    [
        (r'root ::= "\x41\u00e9\U0001F600\n\t\\\"/"', ['Aé😀\n\t\\"/'], ["A"]),
        ("root ::= [^a-c\\]] | [a\\-z]", ["d", "-", "é", "\n", "z"], ["b", "]", ""]),
        ('root ::= one\n  | "x"\none ::=\n  "y" "z"  # two\n\n', ["yz", "x"], ["y"]),
        ('root ::= ("a"\n  "b" |\n "c")', ["ab", "c"], ["a"]),
        ("root ::= .", ["a", "\n", "é"], ["", "aa"]),
        ('root ::= "a"? one-two_3*\none-two_3 ::= "b"{2} | "c"{1,2} | "d"{2,}', ["", "abb", "cc", "ddd"], ["b", "d"]),
        ('root ::= "" | "(" root ")"', ["", "(())"], ["(()", ")("]),
        ("root ::= [a-] [-a] []a]?", [], []),
        ('root ::= "a"\nroot ::= "b"', ["b"], ["a"]),
        ('root ::= "name ::= x" | "[&&--~~]"', ["name ::= x", "[&&--~~]"], ["x"]),
        ('root ::= [&~|^-]+ "[" [[] "]"', ["&~|^-[[]"], ["[[]"]),
        ('root ::= root "a" | "b"', ["b", "baa"], ["a"]),
    ],
)
def test_what_the_syntax_offers(tokenizer: Any, grammar: str, words: list[str], others: list[str]) -> None:
    if "[]a]" in grammar:
        with pytest.raises(ValueError, match="no characters"):
            lark(grammar)
        return
    for text in words + others:
        assert accepts(tokenizer, grammar, text) == (text in words), text


@pytest.mark.parametrize(
    ("grammar", "said"),
    [
        ('one ::= "a"', "no rule 'root'"),
        ("root ::= two", "no rule 'two'"),
        ('root ::= "a', "no end in line 1"),
        ('root ::= "a"\nb ::= [a', "no end in line 2"),
        ('root ::= ("a"', "')' is missing"),
        ('root ::= "a" ::= "b"', "expected"),
        ('root ::= "a"{3,2}', "ends before it begins"),
        ('root ::= "a"{}', "expected"),
        ("root ::= [b-a]", "ends before it begins"),
        (r'root ::= "\q"', "no such escape"),
        (r'root ::= "\ud800"', "no such character"),
        ('root ::= "a" (?= "b")', "expected"),
        ("root ::= <think>", "expected"),
        ('root ::= *"a"', "expected"),
        ('root ::= "a" )', "expected"),
    ],
)
def test_what_is_no_grammar_is_refused_with_its_place(grammar: str, said: str) -> None:
    asked = Grammar("lark", grammar, param="grammar")
    with pytest.raises(ValueError, match=r"in line|no rule") as wrong:
        spelt(asked)
    told = refusal(asked, str(wrong.value))
    assert said in told.message
    assert (told.param, told.code) == ("grammar", "grammar_not_supported")


@given(st.text('root:= |()[]{}*+?."\\-^a1,\n#', max_size=40).map("root ::= {}".format))
def test_whatever_is_read_is_a_grammar_or_no_grammar(text: str) -> None:
    try:
        rules = parse(text)
    except ValueError:
        return
    assert "root" in rules
    assert lark(text).startswith("start: ")


def test_lark_is_not_taken_for_gbnf() -> None:
    assert not is_gbnf('start: "a ::= b"\n')
    assert not is_gbnf('start: /x/ | "::="')
    assert is_gbnf('# one\n  root ::= "a"')
    assert is_gbnf("root::=[a]")


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="nested"):
        spelt(Grammar("lark", "root ::= " + "(" * 100_000, param="grammar"))


CHAIN = "\n".join(f'r{at} ::= "{at:x}" [a-z]* (r{at + 1} | "-" r{at + 1})?' for at in range(3000))
WORDS = " | ".join(f'"word-{at}"' for at in range(8000))


@pytest.mark.parametrize(
    "grammar",
    [
        f'root ::= r0\n{CHAIN}\nr3000 ::= "end"',
        f'root ::= item root | ""\nitem ::= {WORDS}',
        "root ::= x root | x\n" + "x ::= " + " ".join(f"[a-{chr(98 + at % 24)}]?" for at in range(400)),
        "root ::= root root | x\nx ::= ([a-z] | [a-m]){0,60} ([n-z]* [a-z]{2,9})*",
    ],
)
def test_a_large_grammar_is_written_in_little_time(grammar: str) -> None:
    began = perf_counter()
    assert lark(grammar).startswith("start: ")
    assert perf_counter() - began < 5
