"""What a request says of the functions that the model may call."""

from typing import Any

from app.errors import InvalidRequest
from app.generation.job import ToolUse
from app.generation.tools.toolbox import Tool
from app.schemas.chat import ChatRequest
from app.schemas.tools import AllowedTools, FunctionDefinition, FunctionReference, ToolReference
from app.settings import ModelEntry

NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


def legacy(request: ChatRequest) -> bool:
    """Whether calls are asked for, and answered, in the older form."""
    return request.functions is not None and request.tools is None


def tool_use(request: ChatRequest, entry: ModelEntry) -> ToolUse | None:
    """The functions and how they may be called; None if the model shall not know of any."""
    if request.tools is not None and request.functions is not None:
        raise InvalidRequest("functions is the older form of tools; send one of them.", param="functions")
    param = "functions" if legacy(request) else "tools"
    defined = request.functions if legacy(request) else [it.function for it in request.tools or []]
    tools = tuple(_tool(definition) for definition in defined or [])
    choice = request.function_call if legacy(request) else request.tool_choice
    field = "function_call" if legacy(request) else "tool_choice"
    if not tools and choice not in (None, "none", "auto"):
        raise InvalidRequest(f"{field} needs {param}.", param=field)
    if not tools or choice == "none":
        return None
    _check_names(tools, param)
    required, named = choice == "required", None
    if isinstance(choice, AllowedTools):
        allowed = {reference.function.name for reference in choice.allowed_tools.tools}
        for name in sorted(allowed):
            _known(name, tools, field)
        tools = tuple(tool for tool in tools if tool.name in allowed)
        required = choice.allowed_tools.mode == "required"
    elif isinstance(choice, ToolReference | FunctionReference):
        named = choice.function.name if isinstance(choice, ToolReference) else choice.name
        _known(named, tools, field)
    return ToolUse(
        tools=tools,
        required=required,
        named=named,
        parallel=request.parallel_tool_calls is not False and named is None and not legacy(request),
        generic=entry.tool_prompt == "generic",
    )


def _tool(definition: FunctionDefinition) -> Tool:
    parameters = NO_PARAMETERS if not definition.parameters else {"type": "object"} | definition.parameters
    return Tool(definition.name, parameters, definition.description, definition.strict is True)


def _check_names(tools: tuple[Tool, ...], param: str) -> None:
    names = [tool.name for tool in tools]
    for at, name in enumerate(names):
        if name in names[:at]:
            raise InvalidRequest(f"Two functions have the name '{name}'.", param=f"{param}.{at}")


def _known(name: str, tools: tuple[Tool, ...], field: str) -> None:
    if all(tool.name != name for tool in tools):
        raise InvalidRequest(f"{field} names '{name}', which is none of the functions.", param=field)
