"""Prompts that are far too long, found out at the price of what the model could have read.

Tokenising ten megabytes takes seconds and makes millions of tokens, only to say that they are too many. So a long text
is tokenised piece by piece, and no further than its pieces together make twice what the context holds: cutting a text
changes only the tokens at the cut, never their number by half.
"""

from app.engine.base import Engine
from app.errors import InvalidRequest

PIECE = 1 << 14
"""Characters tokenised at once; a shorter text is not looked at here."""


async def check_length(engine: Engine, prompts: tuple[str | tuple[int, ...], ...], param: str) -> None:
    """Raises :class:`InvalidRequest` for a prompt that cannot fit into the model's context by any means."""
    limit = engine.context_length
    for prompt in prompts:
        if isinstance(prompt, tuple):
            tokens = len(prompt)
        elif len(prompt) <= PIECE:
            continue
        else:
            tokens = await engine.tokenizer.count(prompt, 2 * limit + PIECE)
            tokens = tokens if tokens > 2 * limit + PIECE else 0
        if tokens > limit:
            raise InvalidRequest(
                f"This model's context holds {limit} tokens; the prompt has more than {min(tokens, 2 * limit)}. "
                "Shorten it.",
                param=param,
                code="context_length_exceeded",
            )
