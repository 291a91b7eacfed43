"""The OpenAI Agents SDK: its chat-completions model in a two-step tool loop. Prints the final output as JSON."""

import asyncio
import json
import sys

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI

CALLED = []


@function_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    CALLED.append(city)
    return f"12 degrees in {city}"


async def main(base_url: str, model: str) -> None:
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0)
    agent = Agent(
        name="weather",
        instructions="Tell the weather.",
        tools=[get_weather],
        model=OpenAIChatCompletionsModel(model=model, openai_client=client),
    )
    whole = await Runner.run(agent, "Weather in Paris?")
    streamed = Runner.run_streamed(agent, "Weather in Paris?")
    async for _ in streamed.stream_events():
        pass
    print(json.dumps({"whole": whole.final_output, "streamed": streamed.final_output, "called": CALLED}))


asyncio.run(main(*sys.argv[1:]))
