"""``POST /v1/chat/completions``."""

from functools import partial
from typing import Any

from litestar import Controller, Request, Response, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from app.api.documented import responses
from app.api.observe.record import record_of
from app.api.protect.access import prefixes_of
from app.api.read import translate
from app.api.write.answer import Dialect, answer
from app.api.write.render_chat import ChatRenderer
from app.generation.strategy import GenerationStrategy
from app.registry.registry import ModelRegistry
from app.schemas.chat import ChatCompletion, ChatRequest
from app.settings import Settings


class ChatController(Controller):
    """Conversations, answered."""

    path = "/chat/completions"
    tags = ("Chat",)

    @post(status_code=200, responses=responses(ChatCompletion), summary="Answer a conversation")
    async def create(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[ChatRequest],
        registry: NamedDependency[ModelRegistry],
        strategy: NamedDependency[GenerationStrategy],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """Answer through the model's own chat template; whole, or streamed as server-sent events."""
        job = translate.chat(data, registry.defaults(data.model), settings)
        lease = registry.lease(data.model, keep_alive=translate.keep_alive(data))
        meter = record_of(request.scope).meter
        events = strategy.run(lease, job, meter, prefixes_of(request.scope))
        dialect = Dialect(partial(ChatRenderer, data, meter))
        return await answer(request, events, dialect, stream=data.stream is True)
