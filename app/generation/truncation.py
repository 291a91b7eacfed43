"""Conversations that the context cannot hold, without their oldest messages, for jobs that ask for that.

The system turns at the head stay. What is left begins with no tool's result, since the call before it would be missing.
"""

from itertools import takewhile

from msgspec.structs import replace

from app.engine.base import Engine
from app.errors import InvalidRequest
from app.generation import chat
from app.generation.job import ChatJob
from app.generation.limits import check_length
from app.schemas.messages import DeveloperMessage, FunctionMessage, SystemMessage, ToolMessage

STEP = 8
"""Messages are left out so many at a time, so that the beginning, and the prefix cache, stays for some turns."""
ROOM = 8
"""The answer has room for an eighth of the context, or for as much as it asks for if that is less."""


async def fitting(engine: Engine, job: ChatJob) -> ChatJob:
    """The job itself, or with fewer messages; if the last one alone is too long, so that it will be refused."""
    if not job.truncated or await _fits(engine, job):
        return job
    head = sum(1 for _ in takewhile(lambda it: isinstance(it, SystemMessage | DeveloperMessage), job.messages))
    begins = [
        at
        for at in range(head + 1, len(job.messages))
        if not isinstance(job.messages[at], ToolMessage | FunctionMessage)
    ]
    steps = range(head + STEP, len(job.messages), STEP)
    coarse = sorted(
        {at for step in steps for at in [next((it for it in begins if it >= step), None)] if at is not None}
    )
    found = await _first(engine, job, head, coarse)
    if found is None:
        found = await _first(engine, job, head, [at for at in begins if not coarse or at > coarse[-1]])
    return job if found is None else found


async def _first(engine: Engine, job: ChatJob, head: int, begins: list[int]) -> ChatJob | None:
    """The longest of the conversations that begin there and fit; found by halving, for fewer messages are shorter."""
    low, high, best = 0, len(begins) - 1, None
    while low <= high:
        middle = (low + high) // 2
        tried = replace(job, messages=(*job.messages[:head], *job.messages[begins[middle] :]))
        if await _fits(engine, tried):
            best, high = tried, middle - 1
        else:
            low = middle + 1
    return best


async def _fits(engine: Engine, job: ChatJob) -> bool:
    conversation = await chat.rendered(engine.tokenizer, job)
    if conversation.packed is None:
        try:
            await check_length(engine, (conversation.text,), job.field)
        except InvalidRequest:
            return False
    room = engine.context_length // ROOM
    asked = job.decoding.max_tokens
    size = len(await chat.encoded(engine.tokenizer, conversation))
    return size + (room if asked is None else min(asked, room)) <= engine.context_length
