"""Text to tokens and back, by a model's own tokenizer and chat template; nothing is generated."""

from msgspec import Struct

from app.engine.leases import PendingLease
from app.engine.text import Tokenizer
from app.errors import InvalidRequest
from app.generation import chat
from app.generation.job import ChatJob
from app.generation.plan import Plan


class Tokenized(Struct, frozen=True):
    """The ids of a text and, where they were asked for, the bytes of each; ``limit`` is what the context holds."""

    ids: tuple[int, ...]
    pieces: tuple[bytes, ...] | None
    limit: int


async def rendered(lease: PendingLease, job: ChatJob) -> str:
    """The conversation as the model would read it. Raises what would be raised if it were to be answered."""
    async with lease as held:
        return await _text(held.engine.tokenizer, job)


async def tokenized(
    lease: PendingLease, text: str | ChatJob, *, special_tokens: bool = False, pieces: bool = False
) -> Tokenized:
    """The tokens of a text, or of a conversation; however many the model's context holds."""
    async with lease as held:
        tokenizer = held.engine.tokenizer
        plain = text if isinstance(text, str) else await _text(tokenizer, text)
        ids = tuple(await tokenizer.encode(plain, special_tokens=special_tokens))
        spelt = tuple(await tokenizer.spell(ids)) if pieces else None
        return Tokenized(ids, spelt, held.engine.context_length)


async def detokenized(lease: PendingLease, ids: tuple[int, ...]) -> str:
    """The text of tokens, special ones spelt out. Raises :class:`InvalidRequest` for one that the model has not."""
    async with lease as held:
        tokenizer = held.engine.tokenizer
        for at, token in enumerate(ids):
            if token >= tokenizer.facts.vocab_size:
                raise InvalidRequest(
                    f"tokens holds {token}; this model's tokens end at {tokenizer.facts.vocab_size - 1}.",
                    param=f"tokens.{at}",
                )
        return await tokenizer.decode(ids)


async def _text(tokenizer: Tokenizer, job: ChatJob) -> str:
    conversation = await chat.rendered(tokenizer, job)
    Plan(tokenizer.facts, job, conversation.text)  # raises for functions that the model cannot be told of
    return conversation.text
