"""The legacy completion dialect: raw text in, no chat template, the prompt echoed if asked."""

import asyncio

from app.engine.base import Prefilled
from app.engine.text import Tokenizer
from app.errors import InvalidRequest
from app.generation.choice import describe
from app.generation.events import TokenLogprob
from app.generation.job import CompletionJob

Prompt = tuple[int, ...]


async def prompts(tokenizer: Tokenizer, job: CompletionJob) -> tuple[Prompt, ...]:
    """Each prompt as token ids; an empty one becomes the model's beginning-of-sequence token."""
    return tuple([await _prompt(tokenizer, prompt, job.suffix) for prompt in job.prompts])


def echo_text(tokenizer: Tokenizer, job: CompletionJob, number: int, prompt: Prompt) -> str:
    """Prompt ``number`` as text, as it is given back before the completion."""
    asked = job.prompts[number]
    if isinstance(asked, str):
        return asked
    detokenizer = tokenizer.detokenizer()
    return "".join(detokenizer.push(token) for token in prompt) + detokenizer.finish()


def echo_logprobs(tokenizer: Tokenizer, prompt: Prompt, prefilled: Prefilled) -> tuple[TokenLogprob, ...]:
    """The prompt's tokens with their log probabilities; the first has none."""
    return tuple(
        describe(tokenizer, token, score.logprob, score.top)
        for token, score in zip(prompt, prefilled.scores, strict=True)
    )


async def _prompt(tokenizer: Tokenizer, prompt: str | Prompt, suffix: str | None) -> Prompt:
    if isinstance(prompt, str):
        ids = await asyncio.to_thread(_encode, tokenizer, prompt, suffix)
    elif suffix:
        raise InvalidRequest("suffix needs a prompt that is text, not token ids.", param="suffix")
    else:
        ids = list(prompt)
    if not ids:
        return (_beginning(tokenizer),)
    for position, token in enumerate(ids):
        if not 0 <= token < tokenizer.vocab_size:
            raise InvalidRequest(
                f"Token id {token} at position {position} is outside the vocabulary of {tokenizer.vocab_size} tokens.",
                param="prompt",
            )
    return tuple(ids)


def _encode(tokenizer: Tokenizer, prompt: str, suffix: str | None) -> list[int]:
    if not suffix:
        return tokenizer.encode(prompt)
    ids = tokenizer.fill_in_middle(prompt, suffix)
    if ids is None:
        raise InvalidRequest(
            "suffix needs a model trained to fill in the middle, whose tokenizer has the tokens for it "
            "(Qwen2.5-Coder, StarCoder, CodeGemma, DeepSeek-Coder and the like); leave suffix out.",
            param="suffix",
        )
    return ids


def _beginning(tokenizer: Tokenizer) -> int:
    if tokenizer.bos_id is not None:
        return tokenizer.bos_id
    if tokenizer.eos_ids:
        return min(tokenizer.eos_ids)
    raise InvalidRequest(
        "This model has no beginning-of-sequence token: send a prompt that is not empty.", param="prompt"
    )
