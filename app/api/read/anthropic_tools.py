"""What a request in Anthropic's dialect says of the tools that the model may call."""

from app.api.read import calling
from app.errors import InvalidRequest
from app.generation.job import ToolUse
from app.generation.tools.toolbox import Tool
from app.schemas import anthropic as wire
from app.settings import ModelEntry


def tool_use(request: wire.CountTokensRequest, entry: ModelEntry) -> ToolUse | None:
    """The tools and how they may be called; None if the model shall not know of any."""
    tools = tuple(_tool(definition, f"tools.{at}") for at, definition in enumerate(request.tools or ()))
    choice = request.tool_choice
    names = [tool.name for tool in tools]
    for at, name in enumerate(names):
        if name in names[:at]:
            raise InvalidRequest(f"Two tools have the name '{name}'.", param=f"tools.{at}")
    if isinstance(choice, wire.NamedChoice) and choice.name not in names:
        raise InvalidRequest(f"tool_choice names '{choice.name}', which is none of the tools.", param="tool_choice")
    if isinstance(choice, wire.AnyChoice) and not tools:
        raise InvalidRequest("tool_choice needs tools.", param="tool_choice")
    if not tools or isinstance(choice, wire.NoChoice):
        return None
    named = choice.name if isinstance(choice, wire.NamedChoice) else None
    return ToolUse(
        tools=tools,
        required=isinstance(choice, wire.AnyChoice),
        named=named,
        parallel=named is None and (choice is None or choice.disable_parallel_tool_use is not True),
        prompt=entry.tool_prompt,
    )


def _tool(definition: wire.MessagesTool, place: str) -> Tool:
    if definition.type not in (None, "custom"):
        raise InvalidRequest(
            f"The tool '{definition.name}' of type '{definition.type}' is Anthropic's own and unknown here; leave it "
            "out, or define it with an input_schema.",
            param=f"{place}.type",
        )
    if definition.defer_loading:
        raise InvalidRequest("Tools are never deferred here; leave defer_loading out.", param=f"{place}.defer_loading")
    return calling.function(
        definition.name,
        definition.input_schema,
        definition.description,
        strict=definition.strict,
        param=f"{place}.input_schema",
    )
