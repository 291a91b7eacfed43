"""LangChain: structured output both ways, bound tools, and a two-step loop. Prints what came of them as JSON."""

import json
import sys

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field


class Guest(BaseModel):
    """A guest."""

    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=120)


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"12 degrees in {city}"


def responses(url: str, model: str) -> dict[str, str]:
    """The two steps by the Responses API: with all that was said, and with what the service has kept."""
    bound = ChatOpenAI(
        base_url=url, api_key="none", model=model, max_retries=0, use_responses_api=True, reasoning={"summary": "auto"}
    ).bind_tools([get_weather])
    question = HumanMessage("Weather in Paris?")
    first = bound.invoke([question])
    [call] = first.tool_calls
    result = ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])
    said = [question, first, result]
    return {
        "whole": bound.invoke(said).text,
        "streamed": "".join(chunk.text for chunk in bound.stream(said)),
        "kept": bound.invoke([result], previous_response_id=first.response_metadata["id"]).text,
    }


def main(guided: str, model: str, calling: str, caller: str) -> None:
    chat = ChatOpenAI(base_url=guided, api_key="none", model=model, max_retries=0, temperature=1.2)
    told = {
        method: chat.with_structured_output(Guest, method=method).invoke("Invent a guest.").model_dump()
        for method in ("json_schema", "function_calling")
    }
    told["responses"] = responses(calling, caller)
    bound = ChatOpenAI(base_url=calling, api_key="none", model=caller, max_retries=0).bind_tools([get_weather])
    question = HumanMessage("Weather in Paris?")
    first = bound.invoke([question])
    [call] = first.tool_calls
    result = ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])
    told["answer"] = bound.invoke([question, first, result]).content
    told["streamed"] = [
        call["args"] for chunk in bound.stream([question]) for call in chunk.tool_call_chunks if call["args"]
    ]
    print(json.dumps(told))


main(*sys.argv[1:])
