"""The legacy completion dialect: raw text in, no chat template, the prompt echoed if asked."""

from codecs import getincrementaldecoder

from msgspec.structs import replace

from app.engine.base import Prefilled
from app.engine.text import TextFacts, Tokenizer
from app.errors import InvalidRequest
from app.generation.choice import describe
from app.generation.events import TokenLogprob
from app.generation.job import CompletionJob

MIDDLE_ENDS = (
    *("<|file_sep|>", "<|repo_name|>", "<|fim_pad|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    *("<|file_separator|>", "<file_sep>", "<repo_name>", "<fim_pad>", "▁<EOT>"),
)
"""Tokens with which code models end what they fill in, beside their usual end of text; none of them is text."""

Prompt = tuple[int, ...]
Text = tuple[str, tuple[TokenLogprob, ...]]
"""A text and its tokens with their log probabilities; no tokens if none are scored."""


async def prompts(tokenizer: Tokenizer, job: CompletionJob) -> tuple[Prompt, ...]:
    """Each prompt as token ids; an empty one becomes the model's beginning-of-sequence token."""
    return tuple([await _prompt(tokenizer, prompt, job.suffix) for prompt in job.prompts])


def ends(text: TextFacts, job: CompletionJob) -> frozenset[int]:
    """The tokens that end a choice of ``job``."""
    if not job.suffix:
        return text.eos_ids
    return text.eos_ids | {token for it in MIDDLE_ENDS if (token := text.added_id(it)) is not None}


async def echoes(tokenizer: Tokenizer, job: CompletionJob) -> tuple[str, ...]:
    """Each prompt as text, for a job that gives it back; nothing for any other.

    Token ids are told as the text that has them: special tokens as they are written, without the one at the beginning
    that the tokenizer puts there by itself.
    """
    if not job.echo:
        return ()
    if all(isinstance(it, str) for it in job.prompts):
        own: tuple[int, ...] = ()
    else:
        own = tuple(token for token in await tokenizer.encode("") if token == tokenizer.facts.bos_id)[:1]
    return tuple([it if isinstance(it, str) else await tokenizer.decode(_without(own, it)) for it in job.prompts])


def echo(text: str, prefilled: Prefilled) -> Text:
    """The prompt, ``text``, as it is given back before the completion; its tokens are scored if that was asked for."""
    return text, _along(text, [describe(score) for score in prefilled.scores])


def _without(own: Prompt, ids: Prompt) -> Prompt:
    return ids[len(own) :] if own and ids[: len(own)] == own else ids


def _along(text: str, tokens: list[TokenLogprob]) -> tuple[TokenLogprob, ...]:
    """The tokens as they stand in ``text``.

    Special ones that were written out are shown there. Those that the tokenizer has put in front are not, and neither
    is the space that some tokenizers put before a text.
    """
    decoder = getincrementaldecoder("utf-8")("replace")
    at = 0
    aligned = []
    for token in tokens:
        placed = token
        unfinished = 1 if decoder.getstate()[0] else 0  # a part of a character stands there as U+FFFD
        if not token.shown and text.startswith(token.text, at + unfinished):
            placed, at = replace(token, shown=True), at + unfinished
            decoder.reset()
        elif token.shown and at + unfinished == 0 and token.bytes.startswith(b" ") and not text.startswith(" "):
            placed = replace(token, text=token.text[1:], bytes=token.bytes[1:])
        if placed.shown:
            at += len(decoder.decode(placed.bytes))
        aligned.append(placed)
    return tuple(aligned)


async def _prompt(tokenizer: Tokenizer, prompt: str | Prompt, suffix: str | None) -> Prompt:
    if isinstance(prompt, str):
        ids = await _encode(tokenizer, prompt, suffix)
    elif suffix:
        raise InvalidRequest("suffix needs a prompt that is text, not token ids.", param="suffix")
    else:
        ids = list(prompt)
    if not ids:
        return (_beginning(tokenizer.facts),)
    size = tokenizer.facts.vocab_size
    for position, token in enumerate(ids):
        if not 0 <= token < size:
            raise InvalidRequest(
                f"Token id {token} at position {position} is outside the vocabulary of {size} tokens.",
                param="prompt",
            )
    return tuple(ids)


async def _encode(tokenizer: Tokenizer, prompt: str, suffix: str | None) -> list[int]:
    if not suffix:
        return await tokenizer.encode(prompt)
    ids = await tokenizer.fill_in_middle(prompt, suffix)
    if ids is None:
        raise InvalidRequest(
            "suffix needs a model trained to fill in the middle, whose tokenizer has the tokens for it "
            "(Qwen2.5-Coder, StarCoder, CodeGemma, DeepSeek-Coder and the like); leave suffix out.",
            param="suffix",
        )
    return ids


def _beginning(text: TextFacts) -> int:
    if text.bos_id is not None:
        return text.bos_id
    if text.eos_ids:
        return min(text.eos_ids)
    raise InvalidRequest(
        "This model has no beginning-of-sequence token: send a prompt that is not empty.", param="prompt"
    )
