"""``POST /tokenize``, ``/detokenize`` and ``/apply-template``: text to tokens and back.

Source of the shapes: vLLM's tokenizer API (``prompt``, ``messages``, ``tokens``) and llama.cpp's server (``content``,
``with_pieces``). A request may be spelt in either; the answer has the fields of both.
"""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from app.schemas.chat import Effort
from app.schemas.common import TokenId
from app.schemas.messages import Message
from app.schemas.models import ModelField
from app.schemas.tools import ToolDefinition


class TemplateRequest(ModelField, kw_only=True):
    """A conversation for the chat template. What only says how an answer is generated is ignored."""

    messages: Annotated[list[Message], Meta(min_length=1)] | None = None
    tools: Annotated[list[ToolDefinition], Meta(max_length=128)] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: Effort | None = None
    enable_thinking: bool | None = None
    chat_template: Annotated[str, Meta(description="Refused: templates come with models.")] | None = None


class TokenizeRequest(TemplateRequest, kw_only=True):
    """One of ``prompt``, ``content`` and ``messages``."""

    prompt: Annotated[str, Meta(description="Text, as vLLM calls it.")] | None = None
    content: Annotated[str, Meta(description="Text, as llama.cpp calls it.")] | None = None
    add_special_tokens: (
        Annotated[
            bool,
            Meta(
                description="Add what the tokenizer adds by itself, usually a first token; true by default for prompt."
            ),
        ]
        | None
    ) = None
    add_special: Annotated[bool, Meta(description="llama.cpp's name for it; false by default for content.")] | None = (
        None
    )
    parse_special: Annotated[bool, Meta(description="Only true: what is spelt like a special token is one.")] | None = (
        None
    )
    return_token_strs: Annotated[bool, Meta(description="Tell each token's text in token_strs.")] | None = None
    with_pieces: Annotated[bool, Meta(description="Tell each token as an object with its id and piece.")] | None = None


class DetokenizeRequest(ModelField, kw_only=True):
    """Token ids."""

    tokens: list[TokenId]


class Piece(Struct, frozen=True):
    """A token and its text; its bytes where they are no text by themselves."""

    id: int
    piece: str | list[int]


class Tokens(Struct, frozen=True, kw_only=True):
    """The tokens of a text. ``max_model_len`` is what the model's context holds."""

    count: int
    max_model_len: int
    tokens: list[int | Piece]
    token_strs: list[str] | UnsetType = UNSET


class Detokenized(Struct, frozen=True):
    """The text of tokens, special ones spelt out, by both of its names."""

    prompt: str
    content: str


class Rendered(Struct, frozen=True):
    """A conversation as the model reads it."""

    prompt: str
