"""What becomes of every field of ``/v1/messages``; those of objects inside a request have a dotted name.

See :mod:`app.api.read.fields` for what the verdicts mean.
"""

from app.api.read.fields import EXTENSIONS, SHARED, Field

COUNT_TOKENS = (
    Field(
        "model",
        "honoured",
        "Named per request, an alias or a pattern of models.toml too; left out, the default model.",
    ),
    Field("messages", "honoured", "Roles user, assistant and system; a system turn is told where it stands."),
    Field("messages.content", "honoured", "A text, or blocks: text, tool_use, tool_result, thinking."),
    Field("messages.image", "refused", "Models here read text."),
    Field("messages.document", "refused", "Models here read text; send the document's text."),
    Field("messages.search_result", "refused", "Models here read text; send the passage's text."),
    Field(
        "messages.thinking",
        "honoured",
        "Handed to the chat template, whoever signed it; an empty one is read from our own signature.",
    ),
    Field("messages.redacted_thinking", "accepted", "Left out: only who wrote it can read it."),
    Field("messages.tool_result.is_error", "honoured", "The result begins with 'Error: '."),
    Field("messages.tool_result.toolset_name", "accepted", "No effect: there are no toolsets."),
    Field("messages.tool_use.toolset_name", "accepted", "No effect: there are no toolsets."),
    Field("messages.tool_use.caller", "accepted", "No effect: only the model itself calls tools."),
    Field("messages.text.citations", "accepted", "No effect: models here cite nothing."),
    Field(
        "system",
        "honoured",
        "A text or text blocks; Claude Code's changing billing line is left out of the prompt.",
    ),
    Field(
        "tools",
        "honoured",
        "Tools with an input_schema, in the system message where the model's template knows none; "
        "Anthropic's own tools are refused.",
    ),
    Field("tools.name", "honoured", "Up to 128 letters, digits, dots, - and _."),
    Field("tools.description", "honoured", "Told to the model."),
    Field("tools.input_schema", "honoured", "Told to the model, and calls are held to what of it can be enforced."),
    Field("tools.type", "refused", "Tools of Anthropic's own are unknown here.", ("custom",)),
    Field("tools.strict", "honoured", "Calls are held to every keyword of the schema, or it is refused."),
    Field("tools.defer_loading", "refused", "Tools are never deferred here.", (False,)),
    Field("tools.allowed_callers", "accepted", "No effect: only the model itself calls tools."),
    Field("tools.eager_input_streaming", "accepted", "No effect: arguments are always streamed as they come."),
    Field("tools.input_examples", "accepted", "No effect."),
    Field("tool_choice", "honoured", "auto, any, tool (by its name) or none; calls are forced by grammar."),
    Field("tool_choice.name", "honoured", "The one tool that is called."),
    Field("tool_choice.disable_parallel_tool_use", "honoured", "The answer ends after one call."),
    Field(
        "thinking",
        "honoured",
        "enabled, adaptive, between_tools or disabled, as far as the model's template knows it. Left out or "
        "disabled, thoughts that come anyway are not shown.",
    ),
    Field("thinking.budget_tokens", "honoured", "Tokens of thought, after which the thought is closed."),
    Field("thinking.display", "honoured", "omitted: the thought is empty, and its signature holds it."),
    Field("output_config", "honoured", "How hard the model thinks, and the form of its answer."),
    Field("output_config.effort", "honoured", "Handed to the chat template as reasoning_effort."),
    Field("output_config.format", "honoured", "json_schema, which the answer cannot leave."),
    Field("output_format", "honoured", "The older name of output_config.format."),
    Field("cache_control", "accepted", "No effect, wherever it stands: equal beginnings are always shared."),
    Field("context_management", "accepted", "No effect: nothing is cleared from a conversation."),
    Field("speed", "accepted", "No effect: there is one speed."),
    Field("user_profile_id", "accepted", "No effect: answers do not depend on who asks."),
    Field("workspace_id", "accepted", "No effect: there are no workspaces."),
    Field("container", "refused", "There are no containers; leave it out."),
    Field(
        "mcp_servers",
        "refused",
        "Tools of MCP servers are not called from here; let the client call them.",
        ([],),
    ),
    *(
        field
        for field in SHARED
        if field.name in {"temperature", "top_p", "frequency_penalty", "presence_penalty", "logit_bias", "seed"}
    ),
    *(field for field in EXTENSIONS if field.name in {"top_k", "min_p", "repetition_penalty", "repeat_penalty"}),
)

MESSAGES = (
    *COUNT_TOKENS,
    Field(
        "max_tokens",
        "honoured",
        "Required. An upper bound; 0 computes the prompt, so that it is cached, and says nothing.",
    ),
    Field("stop_sequences", "honoured", "Up to 64; the answer's stop_sequence is the one that ended it."),
    Field("stream", "honoured", "Server-sent events."),
    Field("metadata", "accepted", "No effect: nothing is stored that it could label."),
    Field("metadata.user_id", "accepted", "No effect: answers do not depend on who asks."),
    Field("service_tier", "accepted", "No effect: there is one tier."),
    Field("inference_geo", "accepted", "No effect: answers are made where the service runs."),
    Field("diagnostics", "accepted", "No effect: usage tells what of the prompt was cached."),
    Field("compaction", "refused", "Conversations are not compacted here; let the client do it."),
    Field("fallbacks", "refused", "Another model is never asked instead; leave it out."),
    Field("thread", "refused", "Conversations are not stored; send all of one."),
)
