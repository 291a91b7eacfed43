"""What devices say when something is wrong, injected: who is told what, what is tried again, when a process ends."""

import asyncio
from collections.abc import AsyncIterator

import mlx.core as mx
import pytest

from app.engine.base import Sequence, Token
from app.engine.mlx.batch.engine import MLXEngine
from app.engine.mlx.batch.thread import MLXThread, Watcher
from app.engine.mlx.cache.prefix import PrefixPool
from app.engine.mlx.device_errors import lost, named, passes
from app.engine.mlx.load.loader import MLXLoader
from app.engine.mlx.load.weights import converted
from app.engine.mlx.prefill.prefill import Prefill
from app.engine.mlx.prefill.slice_size import Slice
from app.engine.options import Batching
from app.errors import InvalidRequest, Unavailable
from app.schemas.sampling import Sampling
from tests.support.tiny import tiny

METAL = "[METAL] Command buffer execution failed: {} (0000000{}:kIOGPUCommandBufferCallbackError{})"
VICTIM = METAL.format("Innocent Victim", 5, "InnocentVictim")
TIMEOUT = METAL.format("Caused GPU Timeout Error", 2, "Timeout")
INTERACTIVITY = METAL.format("Impacting Interactivity", 14, "ImpactingInteractivity")
IGNORED = METAL.format("Ignored (for causing prior/excessive GPU errors)", 4, "SubmissionsIgnored")
MEMORY = METAL.format("Insufficient Memory", 8, "OutOfMemory")
BUFFERS = "[metal::malloc] Resource limit (499000) exceeded."
LARGE = (
    "[metal::malloc] Attempting to allocate 90000000000 bytes which is greater than the maximum allowed buffer size."
)


@pytest.mark.parametrize(
    ("said", "kind", "code", "again", "gone"),
    [
        (VICTIM, Unavailable, "device_timeout", True, False),
        (TIMEOUT, Unavailable, "device_timeout", True, False),
        (INTERACTIVITY, Unavailable, "device_timeout", True, False),
        (MEMORY, Unavailable, "out_of_memory", False, False),
        (BUFFERS, Unavailable, "device_resource_limit", False, False),
        (LARGE, InvalidRequest, "device_buffer_limit", False, False),
        ("CUDA error: out of memory", Unavailable, "out_of_memory", False, False),
    ],
)
def test_what_devices_say_has_a_name(
    said: str, kind: type[Unavailable | InvalidRequest], code: str, again: bool, gone: bool
) -> None:
    failure = RuntimeError(said)
    told = named(failure)
    assert (type(told), told.code) == (kind, code)
    assert (passes(failure), lost(failure) is not None) == (again, gone)


def test_a_device_that_is_lost_and_what_nobody_knows_have_no_name() -> None:
    assert lost(RuntimeError(IGNORED)) == IGNORED
    assert named(RuntimeError("made up")) is None


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[MLXEngine]:
    loader = MLXLoader(MLXThread(asyncio.get_running_loop(), Watcher()), PrefixPool(0), Batching(8, 64))
    made = await loader.load(tiny(), name="tiny")
    yield made
    await made.close()
    await loader.close()


async def answer(engine: MLXEngine) -> list[int]:
    stream = engine.stream((Sequence(tuple(range(5, 105)), Sampling(temperature=0.0), max_tokens=5),))
    return [item.id async for items in stream for item in items if isinstance(item, Token)]


@pytest.mark.parametrize("said", [VICTIM, TIMEOUT, INTERACTIVITY])
async def test_a_prompt_that_a_device_gave_up_is_computed_again_in_shorter_slices(
    engine: MLXEngine, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    expected, real, asked = await answer(engine), Prefill.step, []

    def step(self: Prefill, tokens: int) -> Slice:
        asked.append(tokens)
        if len(asked) == 1:
            raise RuntimeError(said)
        return real(self, tokens)

    monkeypatch.setattr(Prefill, "step", step)
    assert await answer(engine) == expected
    assert asked[1] < asked[0]


async def test_a_prompt_that_is_given_up_twice_fails(engine: MLXEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: Prefill, tokens: int) -> None:
        raise RuntimeError(TIMEOUT)

    monkeypatch.setattr(Prefill, "step", step)
    with pytest.raises(Unavailable) as failure:
        await answer(engine)
    assert failure.value.code == "device_timeout"
    monkeypatch.undo()
    assert len(await answer(engine)) == 5


@pytest.mark.parametrize("wanted", [mx.float16, mx.bfloat16])
@pytest.mark.parametrize("kind", [mx.float16, mx.bfloat16, mx.float32, mx.uint32])
def test_only_what_has_sixteen_bits_takes_the_other_type(kind: mx.Dtype, wanted: mx.Dtype) -> None:
    array = mx.array([1, 2, 3]).astype(kind)
    assert converted(array, wanted).dtype == (wanted if kind in {mx.float16, mx.bfloat16} else kind)


def test_what_float16_cannot_hold_is_kept_exactly() -> None:
    large = mx.array([1.0, 3e5], dtype=mx.bfloat16)
    made = converted(large, mx.float16)
    assert made.dtype == mx.float32
    assert made.tolist() == large.astype(mx.float32).tolist()
