"""What the service's questions are answered with."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from app.engine import messages as wire
from app.engine.ids import pack
from app.engine.messages import Question
from app.engine.text import Rendered

if TYPE_CHECKING:
    from app.engine.host.models import Models

TextQuestion = wire.OfTexts
"""What is asked of a model's text side, which changes nothing."""
AT_ONCE = 4096
"""Characters that are encoded in the time that another thread would wait for its turn beside a busy batch."""


async def value_of(models: Models, question: Question) -> object:  # noqa: C901, PLR0911  one case for each question
    """The answer; raises what it is refused with."""
    match question:
        case wire.Load(_, path, name, options):
            return await models.load(path, name, options)
        case wire.Adapt(_, base, path, name, options):
            return await models.adapt(base, path, name, options)
        case wire.Unload(_, number):
            await models.unload(number)
            return None
        case wire.PutBack():
            return None  # done by who knows the streams
        case wire.MakeEmbedded(_, directory):
            return await models.make_embedded(directory)
        case wire.ReadTokenizer(_, path):
            await models.read_tokenizer(path)
            return None
        case wire.Trim(_, nbytes):
            await models.trim(nbytes)
            return None
        case wire.Prepare(_, number, grammar):
            await models.prepare(number, grammar)
            return None
        case wire.Embed(_, number, texts, how):
            return await models.encoder(number, "embedding").embed(texts, how)
        case wire.Rerank(_, number, query, documents, ranking):
            return await models.encoder(number, "rerank").rerank(query, documents, ranking)
        case wire.Encode(_, _, text) if len(text) <= AT_ONCE:
            return _text(models, question)
    return await asyncio.to_thread(_text, models, question)


def _text(models: Models, question: Question) -> object:  # noqa: PLR0911  one case for each question
    """The text side's answer; for another thread where it may take long."""
    match question:
        case wire.Encode(_, number, text, special_tokens):
            return models.engine(number).encode(text, special_tokens=special_tokens)
        case wire.Count(_, number, text, enough):
            return models.engine(number).tokenizer.count(text, enough)
        case wire.FillInMiddle(_, number, prefix, suffix):
            return models.engine(number).tokenizer.fill_in_middle(prefix, suffix) or []
        case wire.Decode(_, number, ids):
            return models.engine(number).tokenizer.decode(ids)
        case wire.Spell(_, number, ids):
            tokenizer = models.engine(number).tokenizer
            return [tokenizer.token_bytes(token) for token in ids]
        case wire.RenderChat(_, number, conversation):
            engine = models.text_engine(number)
            rendered: str = engine.tokenizer.render_chat(**msgspec.json.decode(conversation))
            known = engine.conversation(rendered)
            return Rendered(rendered, None if known is None else pack(known))
        case wire.FindEdges(_, number, head):
            return models.engine(number).edges(head)
    raise TypeError(question)
