"""What a request says of the functions that the model may call."""

from typing import Any

from app.api.read.structure import schema_fault
from app.errors import InvalidRequest
from app.generation.job import ToolUse
from app.generation.schema.checked import SchemaFault, checked
from app.generation.tools.toolbox import Tool
from app.schemas.chat import ChatRequest
from app.schemas.tools import AllowedTools, FunctionReference, ToolReference
from app.settings import ModelEntry

NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}


def legacy(request: ChatRequest) -> bool:
    """Whether calls are asked for, and answered, in the older form."""
    return request.functions is not None and request.tools is None


def tool_use(request: ChatRequest, entry: ModelEntry) -> ToolUse | None:
    """The functions and how they may be called; None if the model shall not know of any."""
    if request.tools is not None and request.functions is not None:
        raise InvalidRequest("functions is the older form of tools; send one of them.", param="functions")
    param = "functions" if legacy(request) else "tools"
    defined = request.functions if legacy(request) else [it.function for it in request.tools or []]
    tools = tuple(
        function(it.name, it.parameters, it.description, strict=it.strict, param=_place(param, at))
        for at, it in enumerate(defined or [])
    )
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
        prompt=entry.tool_prompt,
    )


def _place(param: str, at: int) -> str:
    return f"{param}.{at}.parameters" if param == "functions" else f"{param}.{at}.function.parameters"


def function(
    name: str, parameters: Any, description: str | None = None, *, strict: bool | None = None, param: str = "tools"
) -> Tool:
    """A function as it was sent; raises :class:`InvalidRequest` for parameters that are no JSON schema of an object.

    ``param`` is the request field of the parameters.
    """
    try:
        sent = checked({} if parameters is None else parameters)
    except SchemaFault as fault:
        raise schema_fault(fault, param, f"Function '{name}': ") from None
    schema = NO_PARAMETERS if sent == {} or not isinstance(sent, dict) else {**_typed(sent), **sent}
    named = schema.get("type", "object")
    if "object" not in (named if isinstance(named, list) else [named]):
        raise InvalidRequest(
            f"Function '{name}': the type of its parameters must be object, since arguments are one.",
            param=f"{param}.type",
        )
    return Tool(name, schema, description, strict is True, param=param)


def _typed(sent: dict[str, Any]) -> dict[str, Any]:
    return {} if "type" in sent else {"type": "object"}


def _check_names(tools: tuple[Tool, ...], param: str) -> None:
    names = [tool.name for tool in tools]
    for at, name in enumerate(names):
        if name in names[:at]:
            raise InvalidRequest(f"Two functions have the name '{name}'.", param=f"{param}.{at}")


def _known(name: str, tools: tuple[Tool, ...], field: str) -> None:
    if all(tool.name != name for tool in tools):
        raise InvalidRequest(f"{field} names '{name}', which is none of the functions.", param=field)
