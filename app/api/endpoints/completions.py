"""``POST /v1/completions``."""

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
from app.api.write.render_completion import CompletionRenderer
from app.generation.strategy import GenerationStrategy
from app.registry.registry import ModelRegistry
from app.schemas.completions import Completion, CompletionRequest
from app.settings import Settings


class CompletionsController(Controller):
    """Raw text, continued."""

    path = "/completions"
    tags = ("Completions",)

    @post(status_code=200, responses=responses(Completion), summary="Continue a text")
    async def create(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[CompletionRequest],
        registry: NamedDependency[ModelRegistry],
        strategy: NamedDependency[GenerationStrategy],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """Continue each prompt as it stands, without a chat template; whole, or streamed as server-sent events."""
        job = translate.completion(data, registry.defaults(data.model), settings)
        lease = registry.lease(data.model, keep_alive=translate.keep_alive(data))
        meter = record_of(request.scope).meter
        events = strategy.run(lease, job, meter, prefixes_of(request.scope))
        dialect = Dialect(partial(CompletionRenderer, data, meter))
        return await answer(request, events, dialect, stream=data.stream is True)
