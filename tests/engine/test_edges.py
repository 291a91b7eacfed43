"""Where a template's conversations begin alike."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.utils import load_tokenizer

from app.engine.client.engine import HEADS, ProcessTokenizer
from app.engine.ids import WIDTH, pack, within
from app.engine.messages import FindEdges
from app.engine.mlx.text.edges import edges_of
from app.engine.mlx.text.tokenizer import MLXTokenizer
from app.engine.text import Edges, TextFacts
from tests.support.tiny import tiny

if TYPE_CHECKING:
    from app.engine.client.process import EngineProcess

SYSTEM = {"role": "system", "content": "Answer in few words, and read files before you change them."}
TEMPLATES = {
    "marked": "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "thinking": "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'].split('</think>')[-1] }}<|im_end|>"
    "\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
    "plain": "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}",
}


def tokenizer_of(template: str) -> MLXTokenizer:
    wrapper = load_tokenizer(Path(tiny()))
    wrapper._tokenizer.chat_template = template
    return MLXTokenizer(wrapper)


@pytest.mark.parametrize("name", TEMPLATES)
def test_boundaries_are_shared_by_what_conversations_become(name: str) -> None:
    tokenizer = tokenizer_of(TEMPLATES[name])

    def ids(*messages: dict[str, str]) -> tuple[int, ...]:
        return tuple(tokenizer.encode(tokenizer.render_chat([SYSTEM, *messages]), special_tokens=False))

    question, other = ({"role": "user", "content": text} for text in ("What is it?", "Who barks in the evening?"))
    prompt = ids(question)
    edges = edges_of(
        tokenizer,
        b'{"messages": [{"role": "system", "content": "%s"}], "tools": null, "variables": null}'
        % SYSTEM["content"].encode(),
    )
    head, end = edges.boundaries(prompt)
    assert ids(other)[:head] == prompt[:head], "any other conversation begins so"
    answered = ids(question, {"role": "assistant", "content": "A fox."}, other)
    assert answered[:end] == prompt[:end], "the next turn begins so"
    assert len(tokenizer.decode(prompt[:head])) > len(SYSTEM["content"])
    assert tokenizer.decode(prompt[end:]).startswith(("<|im_start|>assistant", "assistant:"))

    again = ids(question, {"role": "assistant", "content": "A fox."}, other, {"role": "assistant", "content": "It."})
    head_again, *before = edges.boundaries(answered)
    assert head_again == head
    assert bool(before) is (name == "thinking"), "elsewhere earlier answers have the header of the last"
    shared = before[0] if before else len(answered) - 1
    assert again[:shared] == answered[:shared], "the turn after it begins so"


def test_a_template_that_refuses_has_no_edges() -> None:
    tokenizer = tokenizer_of("{{ raise_exception('never') }}")
    assert edges_of(tokenizer, b'{"messages": [], "tools": null, "variables": null}') == Edges()
    assert Edges().boundaries((1, 2, 3)) == ()


def test_a_heads_edges_are_asked_for_once_as_long_as_it_is_talked_with() -> None:
    asked = list[bytes]()

    class Process:
        async def ask(self, question: Callable[[int], FindEdges], _: type[Edges]) -> Edges:
            asked.append(question(1).head)
            return Edges(pack((len(asked),)))

    tokenizer = ProcessTokenizer(
        cast("EngineProcess", Process()), 0, TextFacts(vocab_size=9, bos_id=None, eos_ids=frozenset())
    )

    async def talk() -> list[Edges]:
        heads = [*range(HEADS), 0, 1, HEADS, 0, 1, 2]
        return [await tokenizer.edges([{"role": "system", "content": str(head)}], tools=None) for head in heads]

    *first, again, second, _, kept, too, gone = asyncio.run(talk())
    assert first == [Edges(pack((i + 1,))) for i in range(HEADS)]
    assert (again, second, kept, too) == (first[0], first[1], first[0], first[1])
    assert gone == Edges(pack((HEADS + 2,))), "the one that was talked with least lately is asked for anew"


@given(st.lists(st.integers(0, 2), max_size=12), st.lists(st.integers(0, 2), max_size=12))
def test_a_head_is_shared_as_far_as_it_goes(ids: list[int], head: list[int]) -> None:
    shared = sum(ids[: at + 1] == head[: at + 1] for at in range(min(len(ids), len(head))))
    assert Edges(pack(head)).boundaries(tuple(ids)) == ((shared,) if shared else ())


@given(st.lists(st.sampled_from([0, 1, 1 << 8, 1 << 16, 1 << 24, 0x01010101]), max_size=12), st.data())
def test_ids_are_found_only_where_ids_begin(ids: list[int], data: st.DataObject) -> None:
    part = data.draw(st.lists(st.sampled_from([0, 1, 1 << 8, 0x01010101]), min_size=1, max_size=3))
    end = data.draw(st.integers(0, len(ids)))
    found = any(ids[i : i + len(part)] == part for i in range(end - len(part) + 1))
    assert within(pack(part), pack(ids), WIDTH * end) is found
