"""Requests as examples in the OpenAPI document, by the name of their schema; the tests send each of them."""

from typing import Any

Request = dict[str, Any]
"""A body as a client would send it."""

WEATHER: Request = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
QUESTION = "What is the weather in Paris?"


def examples() -> dict[str, list[Request]]:
    """The simplest request of each kind, then one with tools where there are any."""
    said = [{"role": "user", "content": QUESTION}]
    text = "The capital of France is"
    function = {"name": "get_weather", "description": "The weather of a city.", "parameters": WEATHER}
    return {
        "CompletionRequest": [{"model": "smollm2", "prompt": text, "max_tokens": 8, "temperature": 0}],
        "ChatRequest": [
            {"model": "smollm2", "messages": said, "max_completion_tokens": 64, "stream": True},
            {"messages": said, "tools": [{"type": "function", "function": function}], "tool_choice": "auto"},
        ],
        "ResponseRequest": [
            {"model": "smollm2", "instructions": "Be brief.", "input": QUESTION, "max_output_tokens": 64},
            {"input": [{"type": "message", **said[0]}], "tools": [{"type": "function", **function}], "store": False},
        ],
        "MessagesRequest": [
            {"model": "smollm2", "max_tokens": 64, "system": "Be brief.", "messages": said},
            {
                "max_tokens": 64,
                "messages": said,
                "tools": [{"name": "get_weather", "description": "The weather of a city.", "input_schema": WEATHER}],
            },
        ],
        "CountTokensRequest": [{"model": "smollm2", "messages": said}],
        "EmbeddingRequest": [{"model": "org/embedder", "input": ["Paris is a city.", "The sea is wide."]}],
        "RerankRequest": [
            {
                "model": "org/reranker",
                "query": QUESTION,
                "documents": ["It rains in Paris.", "The sea is wide."],
                "top_n": 1,
            }
        ],
        "TokenizeRequest": [{"model": "smollm2", "prompt": text}],
        "DetokenizeRequest": [{"model": "smollm2", "tokens": [1, 2, 3]}],
        "TemplateRequest": [{"model": "smollm2", "messages": said}],
    }
