"""The generation strategy: picks legacy completion or chat, and runs a job on a leased engine."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import TypeGuard, assert_never

from msgspec import structs

from app.engine.base import Engine, Found, Prefilled, Sequence, Token, TokenStream
from app.engine.ids import Ids
from app.engine.leases import PendingLease
from app.generation import chat, completion, limits
from app.generation.events import Cached, Completed, Delta, Event, Events, Finished, Started, Timings
from app.generation.job import ChatJob, CompletionJob, Job, sampling_in_force
from app.generation.limits import check_length
from app.generation.meter import Meter
from app.generation.plan import Plan
from app.generation.ranking import best
from app.generation.reservation import Reservation
from app.generation.tally import Tally
from app.generation.truncation import fitting


class GenerationStrategy:
    """Stateless; one serves all requests."""

    async def run(
        self, lease: PendingLease, job: Job, meter: Meter | None = None, owner: bytes = b""
    ) -> AsyncGenerator[Events, None]:
        """Generate: nothing is taken before the first events are asked for, everything is given back with the last.

        What is the request's fault is raised before :class:`Started`, which comes alone. :class:`Completed` comes with
        the last of the answer. Whoever iterates must close the iterator. ``meter`` tells what it took, also of a job
        that does not come to its end. What is computed is kept for jobs of the same ``owner``.
        """
        meter = Meter() if meter is None else meter
        async with AsyncExitStack() as stack:
            with meter.waiting():
                held = await stack.enter_async_context(lease)
                meter.load = held.load_seconds
                limits.check_kind(held, "text")
                prompts, plan, echoes = await _prompts(held.engine, job)
                await plan.prepare(held.prepare)
                sequences = _sequences(held.engine, job, prompts, plan, owner)
                if isinstance(job, ChatJob):
                    shared = await chat.boundaries(held.engine.tokenizer, job, prompts[0])
                    sequences = (structs.replace(sequences[0], boundaries=shared),)
                reservation = Reservation(held, sequences, meter)
                sequences = await reservation.begin()
            tally = Tally(sequences, meter)
            waited = Timings(meter.queue, meter.load)
            stream = held.engine.generate(sequences)
            reservation.attach(stream)
            last: Events = ()
            try:
                await asyncio.sleep(0)  # what is written to the engine leaves when the event loop has its next turn
                yield (Started(held.model, held.engine.fingerprint, tally.prompt_tokens, waited, plan.unenforced),)
                async with aclosing(
                    _events(job, plan, sequences, stream, echoes=echoes, tally=tally, reservation=reservation)
                ) as source:
                    async for events in best(source, job.decoding) if job.decoding.ranked else source:
                        if tally.complete:
                            last = (*last, *events)
                        else:
                            yield events
            finally:
                reservation.close()
                stream.close()
            yield (*last, Completed(tally.usage(), tally.timings(waited.queue)))

    async def count(self, lease: PendingLease, job: ChatJob) -> int:
        """The tokens of the prompt that the job has, however many the model's context holds."""
        async with lease as held:
            tokenizer = held.engine.tokenizer
            job = await fitting(held.engine, job)
            conversation = await chat.rendered(tokenizer, job)
            Plan(tokenizer.facts, job, conversation.text)  # raises for functions that the model cannot be told of
            return len(await chat.encoded(tokenizer, conversation))


async def _prompts(engine: Engine, job: Job) -> tuple[tuple[Ids, ...], Plan, tuple[str, ...]]:
    """The prompts as token ids, how they are continued, and as texts where they are given back."""
    tokenizer = engine.tokenizer
    match job:
        case CompletionJob():
            await check_length(engine, job.prompts, "prompt")
            prompts = await completion.prompts(tokenizer, job)
            return prompts, Plan(tokenizer.facts, job), await completion.echoes(tokenizer, job)
        case ChatJob():
            job = await fitting(engine, job)
            conversation = await chat.rendered(tokenizer, job)
            plan = Plan(tokenizer.facts, job, conversation.text)
            if conversation.packed is None:
                await check_length(engine, (conversation.text,), job.field)
            return (await chat.encoded(tokenizer, conversation),), plan, ()
        case _:
            assert_never(job)


def _sequences(engine: Engine, job: Job, prompts: tuple[Ids, ...], plan: Plan, owner: bytes) -> tuple[Sequence, ...]:
    decoding = job.decoding
    limits.check_vocabulary(engine, decoding)
    if isinstance(job, CompletionJob):
        ends, field = completion.ends(engine.tokenizer.facts, job), "prompt"
    else:
        ends, field = engine.tokenizer.facts.eos_ids, job.field
    return tuple(
        Sequence(
            prompt=prompt,
            sampling=sampling_in_force(job, engine.tokenizer.facts.sampling),
            max_tokens=limits.max_tokens(engine, decoding, prompt, field=field),
            stop_ids=(frozenset() if decoding.ignore_eos else ends) | frozenset(decoding.stop_token_ids),
            min_tokens=decoding.min_tokens,
            rows=decoding.best_of,
            logprobs=0 if decoding.ranked and decoding.logprobs is None else decoding.logprobs,
            prompt_logprobs=decoding.logprobs if _echoes(job) else None,
            grammar=plan.grammar,
            thoughts=plan.thoughts,
            keep=plan.keep,
            owner=owner,
        )
        for prompt in prompts
    )


async def _events(
    job: Job,
    plan: Plan,
    sequences: tuple[Sequence, ...],
    stream: TokenStream,
    *,
    echoes: tuple[str, ...],
    tally: Tally,
    reservation: Reservation,
) -> AsyncGenerator[Events, None]:
    """Tokens to deltas: one delta per choice for all that came together."""
    rows = job.decoding.best_of
    choices = {(s, r): plan.choice(s * rows + r) for s in range(len(sequences)) for r in range(rows)}
    async for items in stream:
        arrived: dict[tuple[int, int], list[Token]] = {}
        events: list[Event] = []
        for item in items:
            if isinstance(item, Token):
                arrived.setdefault((item.sequence, item.row), []).append(item)
                continue
            asked = sequences[item.sequence]
            events += _prompt_events(job, echoes, asked, item, tally.found(item))
            if isinstance(item, Prefilled) and not asked.max_tokens:
                reservation.ended(*((item.sequence, row) for row in range(asked.rows)))
        for key, tokens in arrived.items():
            choice = choices[key]
            if choice.ended:
                continue
            before = choice.tokens
            events += choice.push(tokens)
            tally.made(choice.tokens - before)
            if choice.finished is not None:
                stream.cancel(*key)
                tally.finished(choice)
                reservation.ended(key)
                mean = choice.logprob / max(1, choice.tokens)
                events.append(Finished(choice.index, choice.finished, mean, choice.stop))
            else:
                reservation.cover(key, choice.tokens)
        if events:
            yield events


def _prompt_events(
    job: Job, echoes: tuple[str, ...], sequence: Sequence, prefilled: Found | Prefilled, cached: Cached | None
) -> list[Event]:
    """What is known of a prompt: what was ``cached``, then its echo and the end of choices that generate nothing."""
    events: list[Event] = [] if cached is None else [cached]
    if isinstance(prefilled, Found):
        return events
    echo = completion.echo(echoes[prefilled.sequence], prefilled) if _echoes(job) else None
    for row in range(sequence.rows):
        index = prefilled.sequence * sequence.rows + row
        if echo is not None:
            events.append(Delta(index, *echo))
        if sequence.max_tokens == 0:
            events.append(Finished(index, "length", 0.0))
    return events


def _echoes(job: Job) -> TypeGuard[CompletionJob]:
    return isinstance(job, CompletionJob) and job.echo
