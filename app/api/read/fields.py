"""What becomes of every request field: the one table behind ``translate``, ``docs/api.md`` and the tests.

A field is *honoured* (it does what OpenAI documents), *accepted* (it asks for nothing that this service could do
otherwise) or *refused* (a 400 names it); a refused field may have harmless values, which ask for what is true anyway.
"""

from typing import Literal

from msgspec import Struct

from app.errors import InvalidRequest

Verdict = Literal["honoured", "accepted", "refused"]


class Field(Struct, frozen=True):
    """One request field. ``note`` is a sentence for the docs and, when refused, for the caller."""

    name: str
    verdict: Verdict
    note: str
    harmless: tuple[object, ...] = ()


SHARED = (
    Field("model", "honoured", "Named per request; left out, the service's default model."),
    Field("frequency_penalty", "honoured", "-2 to 2, per occurrence in the generated text."),
    Field("logit_bias", "honoured", "Token ids as strings, -100 (ban) to 100 (force)."),
    Field("n", "honoured", "Up to the setting max_choices."),
    Field("presence_penalty", "honoured", "-2 to 2, once per token in the generated text."),
    Field("seed", "honoured", "Draws the same, whatever runs beside it: the same text, but for rounding."),
    Field("stop", "honoured", "A string or up to 64, empty ones ignored; never part of the text."),
    Field("stream", "honoured", "Server-sent events, a chunk per step."),
    Field(
        "stream_options",
        "honoured",
        "include_usage and continuous_usage_stats, with stream only; include_obfuscation may be false only.",
    ),
    Field("temperature", "honoured", "0 to 2; 0 is greedy."),
    Field("top_p", "honoured", "0 to 1."),
    Field("user", "accepted", "No effect: answers do not depend on who asks."),
)

EXTENSIONS = (
    Field("top_k", "honoured", "Draw from the k likeliest tokens; 0 or -1 is off."),
    Field("min_p", "honoured", "Drop tokens below this share of the likeliest one's probability."),
    Field("repetition_penalty", "honoured", "0.01 to 10: divides the logits of tokens already seen, prompt included."),
    Field("repeat_penalty", "honoured", "repetition_penalty by llama.cpp's and Ollama's name."),
    Field("stop_token_ids", "honoured", "Token ids that end a choice."),
    Field("ignore_eos", "honoured", "Go on although the model would end its answer."),
    Field("min_tokens", "honoured", "No end before that many tokens."),
    Field("keep_alive", "honoured", "Seconds or '5m': how long the model stays afterwards; 0 unloads it, -1 keeps it."),
)

COMPLETION_ONLY = (
    Field("prompt", "honoured", "Text, texts, token ids, lists of token ids; left out, the empty text."),
    Field("best_of", "honoured", "Candidates per prompt, ranked by mean log probability; not with stream."),
    Field("echo", "honoured", "The prompt comes first, with its log probabilities if logprobs is set."),
    Field("logprobs", "honoured", "0 to 5 alternatives in the four-array shape."),
    Field(
        "max_tokens",
        "honoured",
        "An upper bound, 16 by default; -1: all that the context holds; 0 with echo and logprobs scores the prompt.",
    ),
    Field("suffix", "honoured", "Fill in the middle, for models that have tokens for it."),
)

LIMITS = (Field("n_predict", "honoured", "max_tokens by llama.cpp's name."),)

COMPLETION_EXTENSIONS = (
    Field("response_format", "honoured", "As in chat completions: text, json_object or json_schema."),
)

CHAT_ONLY = (
    Field("messages", "honoured", "Roles system, developer, user, assistant, tool, function; text content."),
    Field("logprobs", "honoured", "Log probability of each token of the content."),
    Field("top_logprobs", "honoured", "0 to 20 alternatives; needs logprobs."),
    Field(
        "max_completion_tokens",
        "honoured",
        "An upper bound; by default, as with -1, all that the context holds. Comes before max_tokens.",
    ),
    Field("max_tokens", "honoured", "The older name of max_completion_tokens."),
    Field("reasoning_effort", "honoured", "Handed to the chat template; none turns thinking off."),
    Field("response_format", "honoured", "text, json_object or json_schema, which the answer cannot leave."),
    Field("metadata", "accepted", "No effect: nothing is stored that it could label."),
    Field("prompt_cache_key", "accepted", "No effect: requests with equal prefixes share them anyway."),
    Field("safety_identifier", "accepted", "No effect: answers do not depend on who asks."),
    Field("audio", "refused", "Audio cannot be generated; leave audio out."),
    Field("tools", "honoured", "Functions; in the system message where the model's template knows no tools."),
    Field("tool_choice", "honoured", "none, auto, required, a function or allowed_tools; calls are forced by grammar."),
    Field("parallel_tool_calls", "honoured", "True by default; false ends the answer after one call."),
    Field("functions", "honoured", "The older form of tools, answered in the older form."),
    Field("function_call", "honoured", "The older form of tool_choice."),
    Field("modalities", "refused", "Only text can be generated.", (["text"],)),
    Field("moderation", "refused", "There is no moderation model; leave moderation out."),
    Field("prediction", "refused", "Predicted output is not used; leave prediction out."),
    Field(
        "prompt_cache_options",
        "refused",
        "Prefixes are shared implicitly and for as long as memory allows; no lifetime can be promised.",
        ({"mode": "implicit"},),
    ),
    Field("prompt_cache_retention", "refused", "Prefixes are kept in memory only.", ("in_memory",)),
    Field(
        "service_tier", "refused", "There is one tier; leave it out or ask for auto or default.", ("auto", "default")
    ),
    Field("store", "refused", "Answers are never stored; only false is true here.", (False,)),
    Field("verbosity", "refused", "Models have no such control; say in a message how long to answer.", ("medium",)),
    Field("web_search_options", "refused", "There is no web search; leave it out."),
)

STRUCTURE = (
    Field("structured_outputs", "honoured", "One of json, json_object, regex, choice, grammar; vLLM's name."),
    Field("guided_json", "honoured", "The older name of structured_outputs.json."),
    Field("guided_regex", "honoured", "The older name of structured_outputs.regex."),
    Field("guided_choice", "honoured", "The older name of structured_outputs.choice."),
    Field("guided_grammar", "honoured", "The older name of structured_outputs.grammar."),
    Field("json_schema", "honoured", "structured_outputs.json by llama.cpp's and SGLang's name."),
    Field("grammar", "honoured", "structured_outputs.grammar by llama.cpp's name: GBNF, or Lark."),
    Field("ebnf", "honoured", "The same by SGLang's name."),
    Field("regex", "honoured", "structured_outputs.regex by SGLang's name."),
    Field("format", "honoured", "Ollama's: json, or a schema."),
)

THINKING = ("enable_thinking", "thinking_budget", "chat_template_kwargs")

CHAT_EXTENSIONS = (
    Field("enable_thinking", "honoured", "Handed to the chat template."),
    Field("thinking_budget", "honoured", "Tokens of thought, after which the thought is closed."),
    Field("thinking_token_budget", "honoured", "thinking_budget by vLLM's name."),
    Field("think", "honoured", "Ollama's: enable_thinking, or reasoning_effort as a word."),
    Field("continue_final_message", "honoured", "Go on with the last message, an assistant's."),
    Field("add_generation_prompt", "honoured", "The opposite of continue_final_message; false alone is refused."),
    Field("chat_template_kwargs", "honoured", "Variables for the chat template, never the template itself."),
)

RESPONSE_SAMPLING = tuple(field for field in SHARED if field.name not in {"n", "stream", "stream_options"})

RESPONSE_ONLY = (
    Field("input", "honoured", "A text, or items: messages, calls and their outputs, thoughts, item references."),
    Field("instructions", "honoured", "A system turn before all others; not inherited from a previous response."),
    Field("previous_response_id", "honoured", "Go on after a response that is kept; 404 for one that is not."),
    Field("store", "honoured", "True by default: the response is kept within the setting response_store."),
    Field("stream", "honoured", "Server-sent events, each with its name and number."),
    Field("max_output_tokens", "honoured", "An upper bound; by default, as with -1, all that the context holds."),
    Field("text", "honoured", "format: text, json_object or json_schema, held by grammar; verbosity has no effect."),
    Field("reasoning", "honoured", "effort, as in chat completions; summary: thoughts are told as a summary too."),
    Field(
        "include",
        "honoured",
        "message.output_text.logprobs; reasoning.encrypted_content: signed thoughts. Others have no effect.",
    ),
    Field("top_logprobs", "honoured", "0 to 20 alternatives; above 0 log probabilities come without being included."),
    Field("tools", "honoured", "function, namespace, custom; those that a service would run are left out beside them."),
    Field(
        "tool_choice", "honoured", "none, auto, required, a function, a custom tool, allowed_tools; held by grammar."
    ),
    Field("parallel_tool_calls", "honoured", "True by default; false ends the answer after one call."),
    Field("truncation", "honoured", "auto: the oldest items are left out where the context cannot hold all."),
    Field("metadata", "honoured", "Kept with the response and told with it."),
    Field("access_programs", "accepted", "No effect: there are none."),
    Field("client_metadata", "accepted", "No effect: answers do not depend on who asks."),
    Field("image", "accepted", "No effect: no image is made or read."),
    Field("max_tool_calls", "accepted", "No effect: it bounds tools that a service runs, and this one runs none."),
    Field("prompt_cache_key", "accepted", "No effect: requests with equal prefixes share them anyway."),
    Field("prompt_cache_options", "accepted", "No effect: prefixes are shared for as long as memory allows."),
    Field("prompt_cache_retention", "accepted", "No effect: prefixes are shared for as long as memory allows."),
    Field("safety_identifier", "accepted", "No effect: answers do not depend on who asks."),
    Field("service_tier", "accepted", "No effect: there is one tier, default."),
    Field("stream_options", "accepted", "No effect: usage is always told, and events are not padded."),
    Field("background", "refused", "Responses are made while the client waits; send false or leave it out.", (False,)),
    Field("background_options", "refused", "Responses are made while the client waits; leave it out."),
    Field("context_management", "refused", "Conversations are not compacted; leave it out, or send truncation: auto."),
    Field("conversation", "refused", "There are no conversation objects; send previous_response_id or all items."),
    Field("moderation", "refused", "There is no moderation model; leave moderation out."),
    Field("prompt", "refused", "There are no prompt templates; send instructions and input."),
    Field("n", "refused", "A response has one answer; send the request again for another.", (1,)),
    Field("response_format", "refused", "Its name is text.format here."),
)

COMPLETION = SHARED + COMPLETION_ONLY + LIMITS + COMPLETION_EXTENSIONS + EXTENSIONS + STRUCTURE
CHAT = SHARED + CHAT_ONLY + LIMITS + EXTENSIONS + STRUCTURE + CHAT_EXTENSIONS
RESPONSE = (
    RESPONSE_ONLY
    + RESPONSE_SAMPLING
    + EXTENSIONS
    + STRUCTURE
    + tuple(it for it in CHAT_EXTENSIONS if it.name in THINKING)
)


def refuse(request: Struct, table: tuple[Field, ...]) -> None:
    """Raise :class:`InvalidRequest` for the first refused field whose value is not a harmless one.

    Fields of objects inside the request (their names are dotted) are refused by whoever reads these.
    """
    for field in table:
        if field.verdict == "refused" and "." not in field.name and not harmless(field, getattr(request, field.name)):
            raise InvalidRequest(f"{field.name} is refused: {field.note}", param=field.name)


def harmless(field: Field, value: object) -> bool:
    """Whether ``value`` asks for what is true anyway. 0 and 0.0 are the same number; true is none."""
    kind = isinstance(value, bool)
    return value is None or any(it == value and isinstance(it, bool) == kind for it in field.harmless)
