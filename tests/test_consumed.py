"""No field is taken and then forgotten: each one, given a telling value, changes what comes of a request.

Three steps lead from a request to a token: the request's fields make a job, the job's decoding makes sequences and
events, the sequence's sampling draws tokens. A field that is new must be given a telling value here, for each step.
"""

from typing import Any

import msgspec
import pytest
from msgspec.structs import fields as struct_fields
from msgspec.structs import replace

from app.api.read import fields, responses, translate
from app.api.read.response_items import Placed
from app.api.seal import Seal
from app.engine.base import Sequence
from app.engine.grammar import Grammar
from app.generation.events import Completed, Event
from app.generation.job import ChatJob, CompletionJob, Decoding
from app.generation.strategy import GenerationStrategy
from app.schemas.chat import ChatRequest
from app.schemas.completions import CompletionRequest
from app.schemas.responses import ResponseRequest
from app.schemas.sampling import Sampling
from app.schemas.usage import Usage
from app.settings import ModelEntry, Settings
from tests.generation.test_strategy import Leased
from tests.support.scripted import ScriptedEngine, says

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
PREFILLED = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]

SHARED = {
    "temperature": 0.5, "top_p": 0.5, "top_k": 3, "min_p": 0.5, "frequency_penalty": 1, "presence_penalty": 1,
    "repetition_penalty": 2, "logit_bias": {"1": 1}, "seed": 3, "n": 2, "stop": "x", "stop_token_ids": [5],
    "ignore_eos": True, "min_tokens": 2, "max_tokens": 5, "response_format": {"type": "json_object"},
    "structured_outputs": {"regex": "a"}, "guided_json": {"type": "object"}, "guided_regex": "a",
    "guided_choice": ["a"], "guided_grammar": 'start: "a"', "json_schema": {"type": "object"}, "regex": "a",
    "grammar": 'root ::= "a"', "ebnf": 'root ::= "a"', "format": "json", "repeat_penalty": 2, "n_predict": 5,
}  # fmt: skip
REQUESTS: dict[str, dict[str, Any]] = {
    "completion": SHARED | {"prompt": "other", "best_of": 2, "echo": True, "logprobs": 0, "suffix": "x"},
    "chat": SHARED
    | {
        "messages": [{"role": "user", "content": "other"}],
        "logprobs": True,
        "top_logprobs": 2,
        "max_completion_tokens": 5,
        "reasoning_effort": "low",
        "tools": [TOOL],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "functions": [TOOL["function"]],
        "function_call": {"name": "f"},
        "enable_thinking": False,
        "thinking_budget": 9,
        "thinking_token_budget": 9,
        "think": False,
        "continue_final_message": True,
        "chat_template_kwargs": {"a": 1},
    },
}
RESPONSE = (SHARED.keys() - {"n", "max_tokens", "n_predict", "response_format"}) | {
    "input", "instructions", "max_output_tokens", "text", "reasoning", "include", "top_logprobs", "tools",
    "tool_choice", "parallel_tool_calls", "truncation", "enable_thinking", "thinking_budget", "chat_template_kwargs",
}  # fmt: skip
REQUESTS["response"] = {name: value for name, value in (REQUESTS["chat"] | SHARED).items() if name in RESPONSE} | {
    "input": "other",
    "instructions": "Be brief.",
    "max_output_tokens": 5,
    "text": {"format": {"type": "json_object"}},
    "reasoning": {"effort": "low"},
    "include": ["message.output_text.logprobs"],
    "tools": [{"type": "function", "name": "f"}],
    "truncation": "auto",
}
BESIDE: dict[str, dict[str, Any]] = {
    "tool_choice": {"tools": [TOOL]},
    "parallel_tool_calls": {"tools": [TOOL]},
    "function_call": {"functions": [TOOL["function"]]},
    "top_logprobs": {"logprobs": True},
    "continue_final_message": {"messages": PREFILLED},
}
"""What a field needs beside it."""
NO_PART_OF_THE_JOB = {
    "model", "stream", "stream_options", "keep_alive", "add_generation_prompt", "store", "metadata",
    "previous_response_id",
}  # fmt: skip
"""They choose the lease, how the answer is sent and what is kept; one only agrees with continue_final_message."""


def job(kind: str, given: dict[str, Any]) -> CompletionJob | ChatJob:
    if kind == "completion":
        return translate.completion(msgspec.convert(given, CompletionRequest), ModelEntry(), Settings())
    if kind == "response":
        request = msgspec.convert({"input": "a", **given}, ResponseRequest)
        items = [Placed(item, "input") for item in responses._sent(request)]
        return responses.read(request, items, Seal(), ModelEntry()).job
    return translate.chat(msgspec.convert({"messages": PREFILLED[:1], **given}, ChatRequest), ModelEntry(), Settings())


CASES = [
    (kind, field.name)
    for kind, table in (("completion", fields.COMPLETION), ("chat", fields.CHAT), ("response", fields.RESPONSE))
    for field in table
    if field.verdict == "honoured" and field.name not in NO_PART_OF_THE_JOB
]


def beside(kind: str, name: str) -> dict[str, Any]:
    """What a field needs beside it."""
    needed = {key: REQUESTS[kind][key] for key in BESIDE.get(name, {}) if key in REQUESTS[kind]}
    return needed if kind == "response" else BESIDE.get(name, {})


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_every_honoured_field_makes_another_job(kind: str, name: str) -> None:
    needed = beside(kind, name)
    assert job(kind, needed | {name: REQUESTS[kind][name]}) != job(kind, needed)


DECODING: dict[str, Any] = {
    "sampling": Sampling(temperature=0.5),
    "max_tokens": 3,
    "stop": ("b",),
    "stop_token_ids": (9,),
    "ignore_eos": True,
    "min_tokens": 2,
    "n": 2,
    "best_of": 2,
    "logprobs": 1,
    "grammar": Grammar("regex", "a"),
}


async def told(decoding: Decoding) -> tuple[list[Event], Usage, list[Sequence]]:
    engine = ScriptedEngine(says("abc", "xyz"))
    run = GenerationStrategy().run(Leased(engine).lease(), CompletionJob(decoding=decoding, prompts=("Hi",)))
    # the first and the last also tell times
    _started, *events, completed = [event async for together in run for event in together]
    assert isinstance(completed, Completed)
    return events, completed.usage, engine.submitted


CHATS_OWN = {"left_open"}
"""It says which values a chat may take from the model's authors: nothing in a completion."""


@pytest.mark.parametrize("name", [it.name for it in struct_fields(Decoding) if it.name not in CHATS_OWN])
async def test_every_part_of_a_decoding_changes_what_is_generated_or_told(name: str) -> None:
    plain = Decoding(sampling=Sampling(), max_tokens=8, best_of=2 if name == "n" else 1)
    assert await told(plain) == await told(plain)
    assert await told(replace(plain, **{name: DECODING[name]})) != await told(plain)
