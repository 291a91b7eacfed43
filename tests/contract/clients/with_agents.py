"""The OpenAI Agents SDK: both of its models in a loop of two steps. Prints the final outputs as JSON."""

import asyncio
import json
import sys
from typing import Any

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

CALLED: list[Any] = []


@function_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    CALLED.append(city)
    return f"12 degrees in {city}"


async def main(base_url: str, model: str) -> None:
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0)
    told = {}
    for name, kind in (("chat", OpenAIChatCompletionsModel), ("responses", OpenAIResponsesModel)):
        CALLED.clear()
        agent = Agent(
            name="weather",
            instructions="Tell the weather.",
            tools=[get_weather],
            model=kind(model=model, openai_client=client),
            model_settings=ModelSettings(truncation="auto" if name == "responses" else None),
        )
        whole = await Runner.run(agent, "Weather in Paris?")
        streamed = Runner.run_streamed(agent, "Weather in Paris?")
        async for _ in streamed.stream_events():
            pass
        told[name] = {"whole": whole.final_output, "streamed": streamed.final_output, "called": list(CALLED)}
        if name == "responses":
            after = await Runner.run(agent, "And now?", previous_response_id=whole.last_response_id)
            told[name]["after"] = after.final_output
    print(json.dumps(told))


asyncio.run(main(*sys.argv[1:]))
