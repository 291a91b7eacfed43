"""Templates in the manner of families that nobody has listed: what they write around thoughts and calls is found."""

import json
import re
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from app.engine.grammar import Grammar
from app.engine.mlx.guide.compiler import GrammarCompiler
from app.engine.mlx.text.template import confine_templates
from app.engine.mlx.text.tokenizer import MLXTokenizer
from app.generation.events import ToolCallArguments, ToolCallStarted
from app.generation.forms import CallForm
from app.generation.job import ToolUse
from app.generation.reasoning import ReasoningMachine
from app.generation.tools.format import Framed
from app.generation.tools.machine import Content, ToolMachine
from app.generation.tools.table import own_format
from app.generation.tools.toolbox import Tool, Toolbox
from tests.support.tiny import tiny

THOUGHTS = {
    "<think>": "</think>",
    "<reasoning>": "</reasoning>",
    "<|think|>": "<|/think|>",
    "[REASONING]": "[/REASONING]",
    "<analysis>": "</analysis>",
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "◁think▷": "◁/think▷",
    "<mm:think>": "</mm:think>",
    "<|reasoning|>": "<|end_reasoning|>",
    "<scratchpad>": "</scratchpad>",
    "<|thought_start|>": "<|thought_end|>",
}
ROLES = {
    "chatml": "<|im_start|>{role}\n{text}<|im_end|>\n",
    "inst": "[{role}]{text}[/{role}]",
    "plain": "### {role}:\n{text}</s>\n",
    "header": "<|{role}|>\n{text}<|eot|>",
}
MEMBERS = ("reasoning_content", "thinking", "reasoning", "thought")
CALLS = {
    "<|call|>{}<|/call|>": '{"name": "NAME", "arguments": ARGS}',
    "<TOOLS>[{}]</TOOLS>": '{"name": "NAME", "arguments": ARGS}',
    "[FUNCTION]\n{}\n[/FUNCTION]": '{"tool": "NAME", "input": ARGS}',
    "[{}]": '{"name": "NAME", "parameters": ARGS}',
    "<fn>{}</fn>": "NAME\n```json\nARGS\n```",
    "<invoke={}</invoke>": "NAME>ARGS",
    "<uses>{}</uses>": "<use>NAME<with>ARGS</use>",
    "<python>[{}]</python>": "PYTHON",
    "<doing>\n{}</doing>": ('<do name="NAME">\n', '<arg name="KEY">\nVALUE\n</arg>\n', "</do>\n"),
    "<|act|>{}<|/act|>": ("NAME", "<|key|>KEY<|value|>VALUE<|end|>", ""),
    "<ds:calls>\n{}</ds:calls>": (
        '<ds:invoke name="NAME">\n',
        '<ds:arg name="KEY" string="KIND">VALUE</ds:arg>\n',
        "</ds:invoke>\n",
    ),
}
PLACE = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "n": {"type": "integer"}},
    "required": ["city"],
}
LOOK = Tool("look", PLACE)
ODD = ("Zürich 👩‍🚀", '"quoted" \\ and {braces}', "[list], (round)", "two\nlines", "</fn> <|/call|> [/FUNCTION]", "")


def template(roles: str, thought: str, member: str, wrapped: str, call: Any) -> str:
    """One that writes thoughts, tools in the system turn, calls and, as a user's turn, their results."""
    before, after = roles.replace("{role}", "assistant").split("{text}")
    if isinstance(call, tuple):
        call = f"{call[0]}{{% for k, v in c.function.arguments.items() %}}{call[1]}{{% endfor %}}{call[2]}"
    inner = call.replace("NAME", "{{ c.function.name }}").replace("ARGS", "{{ c.function.arguments | tojson }}")
    inner = inner.replace("KEY", "{{ k }}").replace("VALUE", "{{ v if v is string else v | tojson }}")
    inner = inner.replace("KIND", "{% if v is string %}true{% else %}false{% endif %}")
    if call == "PYTHON":
        inner = (
            "{{ c.function.name }}({% for k, v in c.function.arguments.items() %}"
            "{{ k }}={{ v | tojson }}{% if not loop.last %}, {% endif %}{% endfor %})"
        )
    one = wrapped.replace("{}", inner)
    listed = wrapped.startswith(("<uses>", "<TOOLS>", "[{", "<python>", "<doing>", "<ds:calls>"))
    start, end = wrapped.split("{}")
    each = f"{{% for c in m.tool_calls %}}{one}{{% endfor %}}"
    if listed:
        gap = "" if wrapped.startswith(("<uses>", "<doing>", "<ds:calls>")) else "{% if not loop.last %}, {% endif %}"
        each = f"{start}{{% for c in m.tool_calls %}}{inner}{gap}{{% endfor %}}{end}"
    turn = roles.replace("{role}", "{{ m.role }}").replace("{text}", "{{ m.content }}")
    result = roles.replace("{role}", "user").replace("{text}", "RESULT {{ m.content }}")
    tools = roles.replace("{role}", "system").replace("{text}", "Tools: {{ tools | tojson }}")
    thoughts = f"{{% if m.{member} %}}{thought}\n{{{{ m.{member} }}}}\n{THOUGHTS[thought]}\n{{% endif %}}"
    return (
        f"{{% if tools %}}{tools}{{% endif %}}{{% for m in messages %}}"
        f"{{% if m.role == 'tool' %}}{result}{{% elif m.role == 'assistant' %}}{before}{thoughts}"
        f"{{% if m.tool_calls %}}{each}{{% else %}}{{{{ m.content }}}}{{% endif %}}{after}"
        f"{{% else %}}{turn}{{% endif %}}{{% endfor %}}{{% if add_generation_prompt %}}{before}{{% endif %}}"
    )


@pytest.fixture(scope="module")
def made() -> Callable[..., MLXTokenizer]:
    confine_templates()

    def make(source: str, *marks: str) -> MLXTokenizer:
        whole = Tokenizer.from_file(str(tiny() / "tokenizer.json"))
        whole.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
        fast = PreTrainedTokenizerFast(tokenizer_object=whole, chat_template=source, eos_token="</s>")
        return MLXTokenizer(TokenizerWrapper(fast, eos_token_ids=[0]))

    return make


def asked(tokenizer: MLXTokenizer) -> str:
    return tokenizer.render_chat([{"role": "user", "content": "Q"}])


def thought_of(tokenizer: MLXTokenizer, text: str, step: int) -> tuple[str, str]:
    assert tokenizer.thinking is not None
    machine = ReasoningMachine(tokenizer.thinking, open=False)
    pieces = [*(machine.push(text[at : at + step]) for at in range(0, len(text), step)), machine.finish()]
    return "".join(it[0] for it in pieces), "".join(it[1] for it in pieces)


def calls_of(tokenizer: MLXTokenizer, text: str, step: int) -> tuple[list[tuple[str, dict[str, str]]], str]:
    facts = tokenizer.facts(10**6)
    machine = ToolMachine(Framed(own_format(facts, None), facts.answer_marks), Toolbox((LOOK, Tool("count", {}))), 0)
    pieces = [it for at in range(0, len(text), step) for it in machine.push(text[at : at + step])]
    pieces += machine.finish("stop")
    names = [it.name for it in pieces if isinstance(it, ToolCallStarted)]
    told = [it for it in pieces if isinstance(it, ToolCallArguments)]
    arguments = [json.loads("".join(it.text for it in told if it.call == n)) for n in range(len(names))]
    return list(zip(names, arguments, strict=True)), "".join(it.text for it in pieces if isinstance(it, Content))


@pytest.mark.parametrize(("thought", "number"), [(it, n) for n, it in enumerate(THOUGHTS)])
def test_thoughts_are_found_by_what_a_template_writes(
    made: Callable[..., MLXTokenizer], thought: str, number: int
) -> None:
    roles, member = list(ROLES.values())[number % 4], MEMBERS[number % 4]
    source = template(roles, thought, member, *next(iter(CALLS.items())))
    tokenizer = made(source, *([thought, THOUGHTS[thought]] if number % 2 else []))
    assert (tokenizer.thinking.start, tokenizer.thinking.end) == (thought, THOUGHTS[thought])
    messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "So.", "reasoning_content": "Hm."}]
    whole, prompt = tokenizer.render_chat(messages, asks=False), asked(tokenizer)
    assert whole.startswith(prompt)
    assert "Hm." in whole, "thoughts of earlier answers are told by the template's own name"
    for step in (1, 3, 1000):
        told, said = thought_of(tokenizer, whole[len(prompt) :], step)
        assert told == "Hm."
        assert said.startswith("So.")


@pytest.mark.parametrize("switch", ["enable_thinking", "thinking", "enable_reasoning", "think"])
@pytest.mark.parametrize("default", [True, False])
def test_whether_to_think_reaches_a_template_by_its_own_name(
    made: Callable[..., MLXTokenizer], switch: str, default: bool
) -> None:
    opens = f"{{% if {switch} is defined and {switch} %}}"
    opens = opens if not default else f"{{% if {switch} is not defined or {switch} %}}"
    ends = f"{{% if add_generation_prompt %}}<a>{opens}<think>{{% else %}}<think></think>{{% endif %}}{{% endif %}}"
    tokenizer = made("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}" + ends)
    question = [{"role": "user", "content": "Q"}]
    said = [tokenizer.render_chat(question, variables={"enable_thinking": it}) for it in (True, False)]
    assert said == ["<user>Q<a><think>", "<user>Q<a><think></think>"]
    assert tokenizer.render_chat(question) == said[not default]
    assert tokenizer.render_chat(question, variables={switch: True, "enable_thinking": True}) == said[0]


@pytest.mark.parametrize(("wrapped", "roles"), [(it, list(ROLES)[n % 4]) for n, it in enumerate(CALLS)])
@pytest.mark.parametrize("count", [1, 2])
def test_calls_are_read_as_a_template_writes_them(
    made: Callable[..., MLXTokenizer], wrapped: str, roles: str, count: int
) -> None:
    tokenizer = made(template(ROLES[roles], "<think>", "reasoning_content", wrapped, CALLS[wrapped]))
    prompt = tokenizer.render_chat([{"role": "user", "content": "Q"}], tools=[LOOK.definition()])
    for odd in ODD if count == 1 else ODD[:1]:
        calls = [
            {"id": f"call{n}", "type": "function", "function": {"name": "look", "arguments": {"city": odd, "n": 7}}}
            for n in range(count)
        ]
        told: list[dict[str, Any]] = [
            {"role": "user", "content": "Q"},
            {"role": "assistant", "content": "", "tool_calls": calls},
        ]
        text = tokenizer.render_chat(told, tools=[LOOK.definition()], asks=False)[len(prompt) :]
        text = text.removesuffix(ROLES[roles].split("{text}")[1].replace("{role}", "assistant"))
        for step in (1, 4, 1000):
            assert calls_of(tokenizer, text, step) == ([("look", {"city": odd, "n": 7})] * count, "")


@pytest.mark.parametrize("wrapped", CALLS)
async def test_what_holds_calls_takes_them_as_a_template_writes_them(
    made: Callable[..., MLXTokenizer], wrapped: str
) -> None:
    tokenizer = made(template(ROLES["chatml"], "<think>", "reasoning_content", wrapped, CALLS[wrapped]))
    facts = tokenizer.facts(10**6)
    compiler = GrammarCompiler(tokenizer.serialized, vocabulary=facts.vocab_size, eos_ids=facts.eos_ids)
    kept: list[Grammar] = []

    async def prepare(grammar: Grammar) -> None:
        await compiler.prepare(grammar)
        kept.append(grammar)

    own = own_format(facts, None)
    assert own is not None
    form = CallForm(own, ToolUse(tools=(LOOK,), required=True), None, facts.added_id)
    grammar, unenforced = await form.compiled(prepare)
    assert unenforced == ()
    assert grammar is not None
    written = re.sub(r"\bit\b", "city", facts.calls_written[0].replace("probe_calls_one", "look"))
    ids = tokenizer.encode(written, special_tokens=False)
    matcher = compiler.compiled(grammar).deep_copy()
    assert matcher.try_consume_tokens(ids) == len(ids), written
    assert matcher.is_accepting()


@pytest.mark.parametrize("text", ["Just words.", "[1, 2]", '{"a": 1}', "<think> is a tag"])
def test_what_is_no_call_stays_what_it_is(made: Callable[..., MLXTokenizer], text: str) -> None:
    for wrapped, call in CALLS.items():
        tokenizer = made(template(ROLES["chatml"], "<reasoning>", "reasoning_content", wrapped, call))
        assert calls_of(tokenizer, text, 1) == ([], text)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(list(product(ROLES, THOUGHTS, MEMBERS, CALLS))),
    st.text(max_size=12),
    st.integers(1, 9),
    st.booleans(),
)
def test_a_thought_and_calls_together_are_told_apart(
    made: Callable[..., MLXTokenizer], chosen: tuple[str, ...], odd: str, step: int, special: bool
) -> None:
    roles, thought, member, wrapped = chosen
    odd = "".join(it for it in odd if it.isprintable()) + "x"
    source = template(ROLES[roles], thought, member, wrapped, CALLS[wrapped])
    tokenizer = made(source, *([thought, THOUGHTS[thought]] if special else []))
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": {"city": odd}}}
    said = {"role": "assistant", "content": "", "reasoning_content": "Hm.", "tool_calls": [call]}
    prompt = tokenizer.render_chat([{"role": "user", "content": "Q"}], tools=[LOOK.definition()])
    whole = tokenizer.render_chat([{"role": "user", "content": "Q"}, said], tools=[LOOK.definition()], asks=False)
    text = whole[len(prompt) :].removesuffix(ROLES[roles].split("{text}")[1].replace("{role}", "assistant"))
    told, rest = thought_of(tokenizer, text, step)
    assert told == "Hm."
    assert calls_of(tokenizer, rest, step) == ([("look", {"city": odd})], "")
