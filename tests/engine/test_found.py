"""How much of a prompt is known is said before the rest of it is computed."""

from msgspec.structs import replace

from app.engine.base import Found, Prefilled, Sequence, Token
from app.engine.mlx.batch.engine import MLXEngine
from app.engine.mlx.batch.prefill_task import LONG_REST
from app.schemas.sampling import Sampling


async def items(engine: MLXEngine, prompt: list[int]) -> list[Found | Prefilled | Token]:
    stream = engine.stream((Sequence(prompt=tuple(prompt), sampling=Sampling(temperature=0.0), max_tokens=2),))
    return [item async for together in stream for item in together]


async def test_a_long_prompt_is_told_of_before_and_after_it_is_computed(engine: MLXEngine) -> None:
    prompt = [5 + n % 200 for n in range(2 * LONG_REST)]
    first = await items(engine, prompt)
    assert [first[0], replace(first[1], waited=0.0)] == [Found(0, 0), Prefilled(0, 0)]
    longer = [*prompt, *(9 + n % 150 for n in range(2 * LONG_REST))]
    found, prefilled, *_ = await items(engine, longer)
    assert isinstance(found, Found)
    assert found.cached_tokens >= LONG_REST
    assert replace(prefilled, waited=0.0) == Prefilled(0, found.cached_tokens)


async def test_what_is_soon_computed_is_told_of_once(engine: MLXEngine) -> None:
    first, *rest = await items(engine, [7 + n % 90 for n in range(LONG_REST)])
    assert isinstance(first, Prefilled)
    assert not any(isinstance(item, Found) for item in rest)


async def test_a_prompt_says_how_long_its_turn_did_not_come(engine: MLXEngine) -> None:
    first = engine.stream((Sequence(tuple(range(5, 305)) * 4, Sampling(temperature=0.0), max_tokens=2),))
    second = engine.stream((Sequence(tuple(range(9, 309)) * 4, Sampling(temperature=0.0), max_tokens=2),))
    waits = []
    for stream in (first, second):
        waits += [it.waited async for items in stream for it in items if isinstance(it, Prefilled)]
    assert all(0 <= wait < 60 for wait in waits)
    assert waits[1] > 0
