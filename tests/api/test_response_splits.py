"""Tokens to events: however many of them come at once, a response says the same, streamed and whole."""

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.base import Item, Sequence
from app.engine.text import Marks
from app.generation.job import ChatJob, Decoding, ToolUse
from app.generation.strategy import GenerationStrategy
from app.generation.tools.toolbox import Tool
from app.schemas.messages import UserMessage
from app.schemas.sampling import Sampling
from tests.api.test_responses import checked, renderer
from tests.generation.test_strategy import Leased
from tests.support.scripted import ByteTokenizer, ScriptedEngine, ScriptedStream, says

PIECES = (
    *("<think>", "</think>", "<thi", "\n", " ", "Hé", "€ is money.", "STOP", "{", '"'),
    '<tool_call>\n{"name": "ns__weather", "arguments": {"city": "Zü\\u0072ich"}}\n</tool_call>',
    '<tool_call>\n{"name": "patch", "arguments": {"input": "a\\nb \\"c\\" \\ud83d\\ude42"}}\n</tool_call>\n',
    '<tool_call>{"name": "other", "argu',
)
TOOLS = tuple(Tool(name, {"type": "object", "properties": {}}) for name in ("ns__weather", "patch", "other"))

VARYING = {"call_id", "completed_at"}


class Together(ScriptedStream):
    """As many steps at once as ``sizes`` says, one after the other."""

    sizes: list[int] = []  # noqa: RUF012

    async def __anext__(self) -> list[Item]:
        items = await super().__anext__()
        for _ in range(self.sizes.pop() if self.sizes else 0):
            if not self.rows:
                break
            items += await super().__anext__()
        return items


class TogetherEngine(ScriptedEngine):
    def __init__(self, text: str, sizes: list[int]) -> None:
        tokenizer = ByteTokenizer(
            template_takes_tools=True, call_format="json_tools", thinking=Marks("<think>", "</think>")
        )
        super().__init__(says(text), tokenizer=tokenizer)
        self.sizes = sizes

    def generate(self, sequences: tuple[Sequence, ...]) -> Together:
        stream = Together(self, sequences)
        stream.sizes = list(self.sizes)
        return stream


async def told(text: str, sizes: list[int], max_tokens: int, logprobs: int | None) -> list[dict[str, Any]]:
    job = ChatJob(
        decoding=Decoding(sampling=Sampling(), max_tokens=max_tokens, stop=("STOP",), logprobs=logprobs),
        messages=(UserMessage("x"),),
        tools=ToolUse(tools=TOOLS),
    )
    made = renderer(logprobs=logprobs is not None, summed_up=True, seal=str.upper)
    events = [*made.opening()]
    async for together in GenerationStrategy().run(Leased(TogetherEngine(text, sizes)).lease(), job):
        events += [chunk for event in together for chunk in made.chunks(event)]
    return json.loads(msgspec.json.encode(events))


def joined(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Deltas that follow each other as one, numbers left out."""
    made: list[Any] = []
    for event in json.loads(json.dumps(events)):
        del event["sequence_number"]
        if event["type"].endswith(".delta"):
            before = next((it for it in reversed(made[-2:]) if it["type"] == event["type"]), None)
            if before is not None and before["item_id"] == event["item_id"]:
                before["delta"] += event["delta"]
                if "logprobs" in event:
                    before["logprobs"] += event["logprobs"]
                continue
        made.append(event)
    return made


def without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_ids(it) for key, it in value.items() if key not in VARYING}
    return [without_ids(it) for it in value] if isinstance(value, list) else value


@settings(deadline=None)  # machines are slow at times
@given(
    st.lists(st.sampled_from(PIECES), max_size=7).map("".join),
    st.lists(st.integers(0, 40), max_size=30),
    st.sampled_from([500, 30]),
    st.sampled_from([None, 0]),
)
async def test_any_split_of_the_tokens_gives_the_same_events(
    text: str, sizes: list[int], max_tokens: int, logprobs: int | None
) -> None:
    one_by_one = await told(text, [], max_tokens, logprobs)
    together = await told(text, sizes, max_tokens, logprobs)
    checked(one_by_one)
    checked(together)
    assert without_ids(joined(together)) == without_ids(joined(one_by_one))
