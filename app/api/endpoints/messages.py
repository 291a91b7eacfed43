"""``POST /v1/messages`` and ``/v1/messages/count_tokens``: Anthropic's dialect."""

from typing import Any

from litestar import Controller, Request, Response, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from app.api.documented import anthropic_responses
from app.api.observe.record import record_of
from app.api.protect.access import prefixes_of
from app.api.protect.connection import while_connected
from app.api.read.anthropic import conversation_job, messages_job
from app.api.seal import Seal
from app.api.write.answer import answer
from app.api.write.render_anthropic import AnthropicDialect
from app.generation.strategy import GenerationStrategy
from app.observability import request_id
from app.registry.registry import ModelRegistry
from app.schemas.anthropic import CountTokensRequest, MessagesRequest
from app.schemas.anthropic_answer import AnthropicMessage, TokenCount


class MessagesController(Controller):
    """Conversations in Anthropic's dialect, answered."""

    path = "/messages"
    tags = ("Messages",)

    @post(status_code=200, responses=anthropic_responses(AnthropicMessage), summary="Answer a conversation (Anthropic)")
    async def create(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[MessagesRequest],
        registry: NamedDependency[ModelRegistry],
        strategy: NamedDependency[GenerationStrategy],
        seal: NamedDependency[Seal],
    ) -> Response[Any]:
        """Answer as Anthropic's Messages API does, through the model's own chat template; whole or streamed."""
        job = messages_job(data, registry.defaults(data.model), seal)
        where = request_id(request.scope)
        events = strategy.run(
            registry.lease(data.model), job, record_of(request.scope).meter, prefixes_of(request.scope)
        )
        dialect = AnthropicDialect(data, seal, where)
        return await answer(request, events, dialect, stream=data.stream is True, headers={"request-id": where})

    @post(
        "/count_tokens",
        status_code=200,
        responses=anthropic_responses(TokenCount, streamed=False),
        summary="Count the tokens of a conversation (Anthropic)",
    )
    async def count(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[CountTokensRequest],
        registry: NamedDependency[ModelRegistry],
        strategy: NamedDependency[GenerationStrategy],
        seal: NamedDependency[Seal],
    ) -> Response[Any]:
        """The tokens that the model's chat template makes of the conversation, tools included; loads the model."""
        job = conversation_job(data, registry.defaults(data.model), seal)
        count = await while_connected(request.receive, strategy.count(registry.lease(data.model), job))
        return Response(TokenCount(count), headers={"request-id": request_id(request.scope)})
