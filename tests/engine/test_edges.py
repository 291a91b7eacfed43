"""Where a template's conversations begin alike."""

from pathlib import Path

import pytest
from mlx_lm.utils import load_tokenizer

from app.engine.mlx.text.edges import edges_of
from app.engine.mlx.text.tokenizer import MLXTokenizer
from app.engine.text import Edges
from tests.support.tiny import tiny

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


def test_a_template_that_refuses_has_no_edges() -> None:
    tokenizer = tokenizer_of("{{ raise_exception('never') }}")
    assert edges_of(tokenizer, b'{"messages": [], "tools": null, "variables": null}') == Edges()
    assert Edges().boundaries((1, 2, 3)) == ()
