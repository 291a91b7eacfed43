"""``POST /v1/embeddings``, ``POST /v1/rerank``, and the latter's other paths."""

import asyncio
from typing import Any

from litestar import Controller, MediaType, Request, Response, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from app.api.documented import responses
from app.api.read.embeddings import embed_job, keep_alive, rerank_job
from app.api.write.computed import computed, embeddings, ranked
from app.generation.vectors import embedding, ranking
from app.registry.registry import ModelRegistry
from app.schemas.embeddings import EmbeddingList, EmbeddingRequest, RerankList, RerankRequest


class EmbeddingsController(Controller):
    """Texts, made vectors."""

    path = "/embeddings"
    tags = ("Embeddings",)

    @post(status_code=200, responses=responses(EmbeddingList, streamed=False), summary="Make vectors of texts")
    async def create(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[EmbeddingRequest],
        registry: NamedDependency[ModelRegistry],
    ) -> Response[Any]:
        """A vector for each input, pooled as the model's own files say."""
        computation = embedding(registry.lease(data.model, keep_alive=keep_alive(data.keep_alive)), embed_job(data))
        vectors = await computed(request, computation)
        form = "float" if data.encoding_format is None else data.encoding_format
        body = await asyncio.to_thread(embeddings, vectors, computation.model, form)
        return Response(body, media_type=MediaType.JSON)


class RerankController(Controller):
    """Documents, ordered by a query."""

    path = "/"
    tags = ("Embeddings",)

    @post("/rerank", status_code=200, responses=responses(RerankList, streamed=False), summary="Order documents")
    async def create(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[RerankRequest],
        registry: NamedDependency[ModelRegistry],
    ) -> Response[Any]:
        """The documents by how relevant a reranker finds them for the query, the most relevant first."""
        job = rerank_job(data)
        computation = ranking(registry.lease(data.model, keep_alive=keep_alive(data.keep_alive)), job)
        scores = await computed(request, computation)
        texts = data.return_documents is True
        return Response(ranked(scores, computation.model, job.documents, top=data.top_n, texts=texts))
