"""``POST /tokenize``, ``/detokenize`` and ``/apply-template``, below ``/v1`` as well."""

from typing import Any

from litestar import Controller, Request, Response, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import UNSET

from app.api.documented import responses
from app.api.protect.connection import while_connected
from app.api.read import translate
from app.api.read.tokenize import conversation, text_of
from app.generation import tokens
from app.registry.registry import ModelRegistry
from app.schemas.tokenize import (
    Detokenized,
    DetokenizeRequest,
    Piece,
    Rendered,
    TemplateRequest,
    TokenizeRequest,
    Tokens,
)
from app.settings import Settings


class TokenizeController(Controller):
    """Text to tokens and back; the model is loaded for it."""

    path = "/"
    tags = ("Tokens",)

    @post("/tokenize", status_code=200, responses=responses(Tokens, streamed=False), summary="Text to tokens")
    async def tokenize(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[TokenizeRequest],
        registry: NamedDependency[ModelRegistry],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """The tokens of a text, or of a conversation as the chat template writes it."""
        text, special = text_of(data, registry.defaults(data.model), settings)
        work = tokens.tokenized(
            registry.lease(data.model),
            text,
            special_tokens=special,
            pieces=data.return_token_strs is True or data.with_pieces is True,
        )
        return Response(_tokens(data, await while_connected(request.receive, work)))

    @post("/detokenize", status_code=200, responses=responses(Detokenized, streamed=False), summary="Tokens to text")
    async def detokenize(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[DetokenizeRequest],
        registry: NamedDependency[ModelRegistry],
    ) -> Response[Any]:
        """The text of tokens, special ones spelt out."""
        work = tokens.detokenized(registry.lease(data.model), tuple(data.tokens))
        text = await while_connected(request.receive, work)
        return Response(Detokenized(text, text))

    @post(
        "/apply-template",
        status_code=200,
        responses=responses(Rendered, streamed=False),
        summary="A conversation as the model reads it",
    )
    async def apply_template(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[TemplateRequest],
        registry: NamedDependency[ModelRegistry],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """What the model's chat template makes of a conversation."""
        job = translate.chat(conversation(data), registry.defaults(data.model), settings)
        work = tokens.rendered(registry.lease(data.model), job)
        return Response(Rendered(await while_connected(request.receive, work)))


def _tokens(request: TokenizeRequest, found: tokens.Tokenized) -> Tokens:
    pieces = found.pieces or ()
    listed: list[int | Piece] = list(found.ids)
    if request.with_pieces:
        listed = [Piece(id_, _text(piece)) for id_, piece in zip(found.ids, pieces, strict=True)]
    return Tokens(
        count=len(found.ids),
        max_model_len=found.limit,
        tokens=listed,
        token_strs=[piece.decode(errors="replace") for piece in pieces] if request.return_token_strs else UNSET,
    )


def _text(piece: bytes) -> str | list[int]:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)
