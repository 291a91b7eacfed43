"""The yardstick: the leanest loops over mlx-lm's model and caches, with no server around them.

``batch`` decodes all rows together, greedily: left-padded prompts in one prefill, then per step one forward pass and
one argmax, the next step queued before the last one's tokens are read, all rows' tokens in one read. ``lone`` is
mlx-lm's own ``stream_generate``, ``raw`` the same loop for one row with nothing but the argmax, ``prefill`` the prompts
alone, ``turn`` mlx-lm's own way to the first token behind a context that is in a cache already.
Nothing of the service is imported. Answers lines of JSON: see :mod:`benchmarks.lines`.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx_lm import load, stream_generate
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import BatchKVCache, make_prompt_cache
from mlx_lm.sample_utils import make_sampler

from benchmarks.lines import answer_lines

SLICE = 512
"""Tokens of a context that are computed at once."""


TOGETHER = 4
"""Prompts that are computed at once where nothing else is asked for."""


def decode(model: Any, logits: mx.array, cache: list[Any], tokens: int) -> list[list[int]]:
    """``tokens`` more tokens for every row after ``logits`` ``[rows, vocabulary]``; one step ahead of its reads."""
    said = []
    ahead = mx.argmax(logits, axis=-1)
    mx.async_eval(ahead)
    for step in range(tokens):
        behind = ahead
        if step + 1 < tokens:
            ahead = mx.argmax(model(behind[:, None], cache=cache)[:, -1], axis=-1)
            mx.async_eval(ahead)
        said.append(behind.tolist())
    return said


def counted(steps: Callable[..., list[list[int]]], *given: Any) -> tuple[int, float]:
    """The tokens that ``steps`` make, and the seconds that they take."""
    begun = time.perf_counter()
    return sum(map(len, steps(*given))), time.perf_counter() - begun


def batch(model: Any, prompts: list[list[int]], tokens: int) -> tuple[int, float]:
    """Decode all prompts together; the number of tokens made, and the seconds after the prompts."""
    longest = max(map(len, prompts))
    padding = [longest - len(prompt) for prompt in prompts]
    cache = [BatchKVCache(padding) for _ in model.layers]
    rows = mx.array([[0] * pad + prompt for pad, prompt in zip(padding, prompts, strict=True)])
    logits = model(rows, cache=cache)[:, -1]
    mx.eval(logits)
    return counted(decode, model, logits, cache, tokens)


def raw(model: Any, prompt: list[int], tokens: int) -> tuple[int, float]:
    """One row in plain caches."""
    cache = make_prompt_cache(model)
    logits = model(mx.array([prompt]), cache=cache)[:, -1]
    mx.eval(logits)
    return counted(decode, model, logits, cache, tokens)


def prefill(model: Any, prompts: list[list[int]]) -> int:
    """Compute the caches of prompts, ``TOGETHER`` a pass, by the layers that mlx-lm's llamas have; how many tokens."""
    for start in range(0, len(prompts), TOGETHER):
        some = prompts[start : start + TOGETHER]
        longest = max(map(len, some))
        padding = [longest - len(prompt) for prompt in some]
        cache = [BatchKVCache(padding) for _ in model.layers]
        model.model(mx.array([[0] * pad + it for pad, it in zip(padding, some, strict=True)]), cache=cache)
        mx.eval([layer.state for layer in cache])
        del cache
        mx.clear_cache()  # a service on the same GPU needs it
    return sum(map(len, prompts))


def lone(model: Any, tokenizer: Any, prompt: list[int], tokens: int) -> int:
    """What a program without a server would do."""
    return sum(1 for _ in stream_generate(model, tokenizer, prompt, tokens, sampler=make_sampler(0.0))) + 1


def turn(model: Any, prompt: list[int], known: int) -> float:
    """Seconds to the first token of an answer to ``prompt``, of which so many tokens are in a cache."""
    cache = make_prompt_cache(model)
    for start in range(0, known, SLICE):
        model(mx.array([prompt[start : min(start + SLICE, known)]]), cache=cache)
        mx.eval([layer.state for layer in cache])
    begun = time.perf_counter()
    next(generate_step(mx.array(prompt[known:]), model, max_tokens=1, prompt_cache=cache))
    return time.perf_counter() - begun


def main(directory: str) -> None:
    """Load the model, then measure what is asked for."""
    model, tokenizer, *_ = load(directory)
    if mx.default_device() == mx.Device(mx.cpu):
        model.set_dtype(mx.float32)

    def ids(text: str) -> list[int]:
        messages = [{"role": "user", "content": text}]
        return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True))

    def measure(kind: str, texts: list[str], tokens: int) -> dict[str, float]:
        if kind == "turn":
            return {"seconds": turn(model, tokenizer.encode(texts[0], add_special_tokens=False), tokens)}
        prompts = [ids(text) for text in texts]
        begun, decoding = time.perf_counter(), 0.0
        match kind:
            case "batch":
                made, decoding = batch(model, prompts, tokens)
            case "raw":
                made, decoding = raw(model, prompts[0], tokens)
            case "prefill":
                made = prefill(model, prompts)
            case _:
                made = lone(model, tokenizer, prompts[0], tokens)
        return {"tokens": made, "seconds": time.perf_counter() - begun, "decoding": decoding}

    answer_lines(measure)


if __name__ == "__main__":
    main(sys.argv[1])
