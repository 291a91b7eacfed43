"""Templates in the manner of families that nobody has listed: what they write around thoughts and calls is found."""

import json
from itertools import product

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
}
PLACE = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
LOOK = Tool("look", PLACE)
ODD = ("Zürich 👩‍🚀", '"quoted" \\ and {braces}', "[list], (round)", "two\nlines", "</fn> <|/call|> [/FUNCTION]", "")


def template(roles, thought, member, wrapped, call):
    """One that writes thoughts, tools in the system turn, calls and, as a user's turn, their results."""
    before, after = roles.replace("{role}", "assistant").split("{text}")
    inner = call.replace("NAME", "{{ c.function.name }}").replace("ARGS", "{{ c.function.arguments | tojson }}")
    if call == "PYTHON":
        inner = (
            "{{ c.function.name }}({% for k, v in c.function.arguments.items() %}"
            "{{ k }}={{ v | tojson }}{% if not loop.last %}, {% endif %}{% endfor %})"
        )
    one = wrapped.replace("{}", inner)
    listed = wrapped.startswith(("<uses>", "<TOOLS>", "[{", "<python>"))
    start, end = wrapped.split("{}")
    each = f"{{% for c in m.tool_calls %}}{one}{{% endfor %}}"
    if listed:
        gap = "" if wrapped.startswith("<uses>") else "{% if not loop.last %}, {% endif %}"
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
def made():
    confine_templates()

    def make(source, *marks):
        whole = Tokenizer.from_file(str(tiny() / "tokenizer.json"))
        whole.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
        fast = PreTrainedTokenizerFast(tokenizer_object=whole, chat_template=source, eos_token="</s>")
        return MLXTokenizer(TokenizerWrapper(fast, eos_token_ids=[0]))

    return make


def asked(tokenizer):
    return tokenizer.render_chat([{"role": "user", "content": "Q"}])


def thought_of(tokenizer, text, step):
    machine = ReasoningMachine(tokenizer.thinking, open=False)
    pieces = [*(machine.push(text[at : at + step]) for at in range(0, len(text), step)), machine.finish()]
    return "".join(it[0] for it in pieces), "".join(it[1] for it in pieces)


def calls_of(tokenizer, text, step):
    facts = tokenizer.facts(10**6)
    machine = ToolMachine(Framed(own_format(facts, None), facts.answer_marks), Toolbox((LOOK, Tool("count", {}))), 0)
    pieces = [it for at in range(0, len(text), step) for it in machine.push(text[at : at + step])]
    pieces += machine.finish("stop")
    names = [it.name for it in pieces if isinstance(it, ToolCallStarted)]
    told = [it for it in pieces if isinstance(it, ToolCallArguments)]
    arguments = [json.loads("".join(it.text for it in told if it.call == n)) for n in range(len(names))]
    return list(zip(names, arguments, strict=True)), "".join(it.text for it in pieces if isinstance(it, Content))


@pytest.mark.parametrize(("thought", "number"), [(it, n) for n, it in enumerate(THOUGHTS)])
def test_thoughts_are_found_by_what_a_template_writes(made, thought, number):
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


@pytest.mark.parametrize(("wrapped", "roles"), [(it, list(ROLES)[n % 4]) for n, it in enumerate(CALLS)])
@pytest.mark.parametrize("count", [1, 2])
def test_calls_are_read_as_a_template_writes_them(made, wrapped, roles, count):
    tokenizer = made(template(ROLES[roles], "<think>", "reasoning_content", wrapped, CALLS[wrapped]))
    prompt = tokenizer.render_chat([{"role": "user", "content": "Q"}], tools=[LOOK.told()])
    for odd in ODD if count == 1 else ODD[:1]:
        calls = [
            {"id": f"call{n}", "type": "function", "function": {"name": "look", "arguments": {"city": odd}}}
            for n in range(count)
        ]
        told = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "", "tool_calls": calls}]
        text = tokenizer.render_chat(told, tools=[LOOK.told()], asks=False)[len(prompt) :]
        text = text.removesuffix(ROLES[roles].split("{text}")[1].replace("{role}", "assistant"))
        for step in (1, 4, 1000):
            assert calls_of(tokenizer, text, step) == ([("look", {"city": odd})] * count, "")


@pytest.mark.parametrize("wrapped", CALLS)
async def test_what_holds_calls_takes_them_as_a_template_writes_them(made, wrapped):
    tokenizer = made(template(ROLES["chatml"], "<think>", "reasoning_content", wrapped, CALLS[wrapped]))
    facts = tokenizer.facts(10**6)
    compiler = GrammarCompiler(tokenizer.serialized, vocabulary=facts.vocab_size, eos_ids=facts.eos_ids)
    kept: list[Grammar] = []

    async def prepare(grammar):
        await compiler.prepare(grammar)
        kept.append(grammar)

    own = own_format(facts, None)
    assert own is not None
    form = CallForm(own, ToolUse(tools=(LOOK,), required=True), None, facts.added_id)
    grammar, unenforced = await form.compiled(prepare)
    assert unenforced == ()
    assert grammar is not None
    written = (
        facts.calls_written[0].replace("probe_calls_one", "look").replace('"it"', '"city"').replace("it=", "city=")
    )
    ids = tokenizer.encode(written, special_tokens=False)
    matcher = compiler.compiled(grammar).deep_copy()
    assert matcher.try_consume_tokens(ids) == len(ids), written
    assert matcher.is_accepting()


@pytest.mark.parametrize("text", ["Just words.", "[1, 2]", '{"a": 1}', "<think> is a tag"])
def test_what_is_no_call_stays_what_it_is(made, text):
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
def test_a_thought_and_calls_together_are_told_apart(made, chosen, odd, step, special):
    roles, thought, member, wrapped = chosen
    odd = "".join(it for it in odd if it.isprintable()) + "x"
    source = template(ROLES[roles], thought, member, wrapped, CALLS[wrapped])
    tokenizer = made(source, *([thought, THOUGHTS[thought]] if special else []))
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": {"city": odd}}}
    said = {"role": "assistant", "content": "", "reasoning_content": "Hm.", "tool_calls": [call]}
    prompt = tokenizer.render_chat([{"role": "user", "content": "Q"}], tools=[LOOK.told()])
    whole = tokenizer.render_chat([{"role": "user", "content": "Q"}, said], tools=[LOOK.told()], asks=False)
    text = whole[len(prompt) :].removesuffix(ROLES[roles].split("{text}")[1].replace("{role}", "assistant"))
    told, rest = thought_of(tokenizer, text, step)
    assert told == "Hm."
    assert calls_of(tokenizer, rest, step) == ([("look", {"city": odd})], "")
