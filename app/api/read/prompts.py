"""The four spellings of a legacy prompt, made one."""

from app.errors import InvalidRequest
from app.schemas.completions import PromptInput

MAX_PROMPTS = 2048


def normalise(prompt: PromptInput | None) -> tuple[str | tuple[int, ...], ...]:
    """One entry per prompt: a text, or token ids. A missing prompt is the empty text.

    Raises :class:`InvalidRequest` for an empty list, for more than ``MAX_PROMPTS`` and for token ids beside prompts.
    """
    if prompt is None:
        return ("",)
    if isinstance(prompt, str):
        return (prompt,)
    if not prompt:
        raise InvalidRequest("prompt must not be an empty list.", param="prompt")
    ids = tuple(item for item in prompt if isinstance(item, int))
    if len(ids) == len(prompt):
        return (ids,)
    if ids:
        raise InvalidRequest("prompt must be one list of token ids or a list of prompts, not both.", param="prompt")
    if len(prompt) > MAX_PROMPTS:
        raise InvalidRequest(f"prompt holds {len(prompt)} prompts; at most {MAX_PROMPTS} are taken.", param="prompt")
    return tuple(item if isinstance(item, str) else tuple(item) for item in prompt if not isinstance(item, int))
