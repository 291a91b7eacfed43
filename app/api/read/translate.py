"""From a wire request to a job: every default is resolved here, and every value that cannot be honoured is refused.

The order of precedence is the request, the model's entry in the settings, the API's own default. None means unset;
0 is a value.
"""

from typing import TypeVar

from app.api.read import calling, conversation, fields, prompts, structure
from app.api.read.durations import seconds
from app.engine.grammar import Grammar
from app.errors import InvalidRequest
from app.generation.job import ChatJob, CompletionJob, Decoding
from app.schemas.chat import ChatRequest
from app.schemas.common import GenerationFields
from app.schemas.completions import CompletionRequest
from app.schemas.sampling import Sampling, SamplingDefaults, SamplingFields
from app.settings import ModelEntry, Settings

COMPLETION_TOKENS = 16
UNBOUNDED = -1
"""As a limit: as many tokens as the context holds."""
MAX_STOP_CHARACTERS = 4096
LEAST_TEMPERATURE = 1e-6
"""Below it sampling is greedy: float32 logits tell no smaller differences, and 1/temperature overflows."""

T = TypeVar("T")


def keep_alive(request: GenerationFields) -> float | None:
    """Seconds that the model stays after this request; None leaves it to the settings."""
    return None if request.keep_alive is None else seconds(request.keep_alive, param="keep_alive")


def completion(request: CompletionRequest, entry: ModelEntry, settings: Settings) -> CompletionJob:
    """Raises :class:`InvalidRequest` for what cannot be honoured."""
    fields.refuse(request, fields.COMPLETION)
    n = _first(request.n, default=1)
    best_of = _first(request.best_of, default=n)
    if best_of < n:
        raise InvalidRequest(f"best_of ({best_of}) must be at least n ({n}).", param="best_of")
    if best_of > n and request.stream:
        raise InvalidRequest("best_of above n cannot be streamed.", param="best_of")
    if request.suffix and request.echo and request.logprobs is not None:
        raise InvalidRequest(
            "The tokens of a prompt with a suffix stand in another order than its text: leave out echo or logprobs.",
            param="echo",
        )
    _choices(best_of, settings, "n" if request.best_of is None else "best_of")
    _stream_options(request)
    max_tokens = _first(request.max_tokens, request.n_predict, entry.max_tokens, default=COMPLETION_TOKENS)
    return CompletionJob(
        decoding=decoding(request, entry, max_tokens, n=n, best_of=best_of, logprobs=request.logprobs),
        prompts=prompts.normalise(request.prompt),
        echo=_first(request.echo, default=False),
        suffix=None if request.suffix == "" else request.suffix,
    )


def chat(request: ChatRequest, entry: ModelEntry, settings: Settings) -> ChatJob:
    """Raises :class:`InvalidRequest` for what cannot be honoured."""
    fields.refuse(request, fields.CHAT)
    n = _first(request.n, default=1)
    _choices(n, settings, "n")
    _stream_options(request)
    if request.top_logprobs is not None and not request.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs: true.", param="top_logprobs")
    alternatives = _first(request.top_logprobs, default=0) if request.logprobs else None
    limits = {name: getattr(request, name) for name in ("max_completion_tokens", "max_tokens", "n_predict")}
    max_tokens = _first(*limits.values(), entry.max_tokens, default=UNBOUNDED)
    if max_tokens == 0:
        param = next(name for name, value in limits.items() if value is not None)
        raise InvalidRequest(f"{param} must be at least 1, or -1 for as many as the context holds.", param=param)
    think = request.think
    effort = _either(request.reasoning_effort, think if isinstance(think, str) else None)
    thinking = _either(request.enable_thinking, think if isinstance(think, bool) else None)
    return ChatJob(
        decoding=decoding(request, entry, max_tokens, n=n, best_of=n, logprobs=alternatives),
        messages=conversation.checked(request.messages),
        continue_final=conversation.continues(request),
        variables=conversation.variables(request.chat_template_kwargs, effort, enable_thinking=thinking),
        tools=calling.tool_use(request, entry),
        thinking_budget=_either(
            request.thinking_budget, None if request.thinking_token_budget == -1 else request.thinking_token_budget
        ),
    )


def decoding(
    request: GenerationFields,
    entry: ModelEntry,
    max_tokens: int,
    *,
    n: int = 1,
    best_of: int = 1,
    logprobs: int | None,
    form: Grammar | None = None,
) -> Decoding:
    """How every choice is generated, in all dialects.

    ``max_tokens`` may be ``UNBOUNDED``; ``form`` holds the answer where the request says so in a field of its own.
    """
    min_tokens = _first(request.min_tokens, default=0)
    if max_tokens != UNBOUNDED and min_tokens > max_tokens:
        raise InvalidRequest(
            f"min_tokens ({min_tokens}) is above the limit of {max_tokens} tokens; raise that as well.",
            param="min_tokens",
        )
    return Decoding(
        sampling=sampling(request, entry),
        max_tokens=None if max_tokens == UNBOUNDED else max_tokens,
        stop=stop_strings(request.stop, param="stop"),
        stop_token_ids=tuple(_first(request.stop_token_ids, default=[])),
        ignore_eos=_first(request.ignore_eos, default=False),
        min_tokens=min_tokens,
        n=n,
        best_of=best_of,
        logprobs=logprobs,
        grammar=structure.grammar(request, form),
        left_open=left_open(request, entry),
    )


def left_open(request: SamplingFields, entry: ModelEntry) -> frozenset[str]:
    """The fields of sampling that neither the request nor the model's entry says anything of."""
    said = {name for name in SamplingDefaults.__struct_fields__ if getattr(request, name) is not None}
    said |= {name for name in SamplingDefaults.__struct_fields__ if getattr(entry, name) is not None}
    said |= set() if request.repeat_penalty is None else {"repetition_penalty"}
    return frozenset(SamplingDefaults.__struct_fields__) - said


def sampling(request: SamplingFields, entry: ModelEntry) -> Sampling:
    """How tokens are drawn, every default resolved."""
    unset = Sampling()
    temperature = _first(request.temperature, entry.temperature, default=unset.temperature)
    return Sampling(
        temperature=0.0 if temperature < LEAST_TEMPERATURE else temperature,
        top_p=_first(request.top_p, entry.top_p, default=unset.top_p),
        top_k=max(0, _first(request.top_k, entry.top_k, default=unset.top_k)),
        min_p=_first(request.min_p, entry.min_p, default=unset.min_p),
        frequency_penalty=_first(request.frequency_penalty, default=unset.frequency_penalty),
        presence_penalty=_first(request.presence_penalty, default=unset.presence_penalty),
        repetition_penalty=_first(
            request.repetition_penalty,
            request.repeat_penalty,
            entry.repetition_penalty,
            default=unset.repetition_penalty,
        ),
        logit_bias=_logit_bias(_first(request.logit_bias, default={})),
        seed=request.seed,
    )


def _logit_bias(bias: dict[str, float]) -> tuple[tuple[int, float], ...]:
    for key in bias:
        if not (key.isascii() and key.isdigit() and len(key) <= 10 and int(key) < 2**31):
            raise InvalidRequest("logit_bias takes token ids as keys, such as '50256'.", param="logit_bias")
    return tuple({int(key): value for key, value in bias.items()}.items())


def stop_strings(stop: str | list[str] | None, *, param: str) -> tuple[str, ...]:
    """The texts in their order, each once; an empty one stops nothing."""
    asked = () if stop is None else (stop,) if isinstance(stop, str) else stop
    texts = tuple(dict.fromkeys(text for text in asked if text))
    if any(len(text) > MAX_STOP_CHARACTERS for text in texts):
        raise InvalidRequest(f"A stop string may have {MAX_STOP_CHARACTERS} characters.", param=param)
    return texts


def _choices(rows: int, settings: Settings, param: str) -> None:
    if rows > settings.max_choices:
        raise InvalidRequest(f"{param} is {rows}; this service answers at most {settings.max_choices}.", param=param)


def _stream_options(request: GenerationFields) -> None:
    if request.stream_options is None:
        return
    if not request.stream:
        raise InvalidRequest("stream_options is only allowed with stream: true.", param="stream_options")
    if request.stream_options.include_obfuscation:
        raise InvalidRequest(
            "Chunks are not padded here; include_obfuscation may only be false.",
            param="stream_options.include_obfuscation",
        )


def _either(value: T | None, other: T | None) -> T | None:
    return other if value is None else value


def _first(*values: T | None, default: T) -> T:
    """The first value that is set."""
    return next((value for value in values if value is not None), default)
