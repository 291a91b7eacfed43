"""Draws of all rows in one kernel, for Metal and CUDA, where it is found to say what the graph says.

The graph of :mod:`app.engine.mlx.draw.device` needs hundreds of operations for a step with ``top_p``; here it is one.
The same text (``kernel.inc``) is compiled for both, and as C++ for tests, where neither is at hand.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from app.engine.mlx.draw.proposal import COLDEST, Floats
from app.engine.mlx.nvrtc import architecture, compiled
from app.schemas.sampling import Sampling

Draws = Callable[[mx.array, Floats], tuple[mx.array, mx.array]]
"""Tokens, ``[rows]`` uint32, and which rows' logits are no numbers, ``[rows]`` bool, for ``[rows, vocabulary]`` float32
logits and what :func:`asked` makes. Nothing is evaluated.
"""
SOURCE = Path(__file__).with_name("kernel.inc")
CONSTANTS = {"MARKS": "8", "PARTS": "32", "SPAN": "64.0f", "TURNS": "40"}
"""Marks that a search for a cut sets at once, parts that a range is cut into, scaled logits that are searched below the
highest (further down they weigh nothing in float32), and turns that no search needs.
"""

METAL = """
#define THREADS 512
#define LANES 32
#define GROUPS (THREADS / LANES)
#define SHARED(type, name, size) threadgroup type name[size]
#define BARRIER threadgroup_barrier(metal::mem_flags::mem_threadgroup)
#define EXP(x) metal::precise::exp(x)
#define INF INFINITY
#define lane_sum(x) metal::simd_sum(x)
#define lane_max(x) metal::simd_max(x)
#define lane_min(x) metal::simd_min(x)
"""
METAL_NAMES = """
const unsigned ROW = threadgroup_position_in_grid.x;
const unsigned THREAD = thread_position_in_threadgroup.x;
const unsigned LANE = thread_index_in_simdgroup;
const unsigned GROUP = simdgroup_index_in_threadgroup;
"""
CUDA = """
#define THREADS 1024
#define LANES 32
#define GROUPS (THREADS / LANES)
#define SHARED(type, name, size) __shared__ type name[size]
#define BARRIER __syncthreads()
#define EXP(x) expf(x)
#define INF __int_as_float(0x7f800000)
__device__ inline float lane_sum(float x) {
  for (int lane = 16; lane; lane /= 2) x += __shfl_xor_sync(0xffffffffu, x, lane);
  return x;
}
__device__ inline float lane_max(float x) {
  for (int lane = 16; lane; lane /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, lane));
  return x;
}
__device__ inline unsigned lane_min(unsigned x) {
  for (int lane = 16; lane; lane /= 2) x = min(x, __shfl_xor_sync(0xffffffffu, x, lane));
  return x;
}
"""
CUDA_NAMES = """
const unsigned ROW = blockIdx.x;
const unsigned THREAD = threadIdx.x;
const unsigned LANE = threadIdx.x % LANES;
const unsigned GROUP = threadIdx.x / LANES;
"""

CUDA_TEXT = """{head}
extern "C" __global__ void __launch_bounds__(THREADS) switchyard_draw(
    const float* logits, const float* asked, unsigned* tokens, bool* failed, int width) {{
const int logits_shape[2] = {{0, width}};
{body}
}}
"""

log = logging.getLogger(__name__)


class Wish(NamedTuple):
    """What one row asks of a draw, and its uniform number."""

    sampling: Sampling
    uniform: float


def asked(wishes: list[Wish]) -> Floats:
    """``[rows, 5]``, as the kernel reads it."""
    rows = [
        (
            max(it.temperature, COLDEST) if it.temperature else 0.0,
            it.top_p if it.top_p < 1 else np.inf,
            it.min_p,
            it.top_k or np.inf,
            uniform,
        )
        for it, uniform in wishes
    ]
    return np.array(rows, dtype=np.float32)


def constants() -> str:
    """The numbers that all languages share, as a compiler reads them."""
    return "".join(f"#define {name} {value}\n" for name, value in CONSTANTS.items())


@cache
def kernel() -> Draws | None:
    """The kernel for this machine's GPU, if there is one and it draws what is to be drawn from :func:`samples`.

    That is what the graph draws from them, whose many kernels CUDA would have to compile only to be compared with. The
    first call compiles this one, for seconds. MLX thread only.
    """
    try:
        made = _made()
        if made is None:
            return None
        logits, wishes = samples()
        tokens, failed = made(mx.array(logits), asked(wishes))
        if list(zip(tokens.tolist(), failed.tolist(), strict=True)) == by_definition(logits, wishes):
            return made
        log.warning("tokens are drawn by a graph of many operations: the kernel for it says something else here")
    except (RuntimeError, ValueError, TypeError) as failure:
        log.warning("tokens are drawn by a graph of many operations: the kernel for it fails here: %.300s", failure)
    return None


def _made() -> Draws | None:
    """Not looked at yet; None where there is no GPU."""
    if mx.default_device() == mx.Device(mx.cpu):
        return None
    run, threads = (_on_metal(), 512) if mx.metal.is_available() else (_on_cuda(), 1024)

    def draw(logits: mx.array, wishes: Floats) -> tuple[mx.array, mx.array]:
        rows, width = logits.shape
        tokens, failed = run(
            inputs=[logits, mx.array(wishes)],
            grid=(rows * threads, 1, 1),
            threadgroup=(threads, 1, 1),
            output_shapes=[(rows,), (rows,)],
            output_dtypes=[mx.uint32, mx.bool_],
            **({} if mx.metal.is_available() else {"scalars": [width]}),
        )
        return tokens, failed

    return draw


def _on_metal() -> Callable[..., list[mx.array]]:
    made: Callable[..., list[mx.array]] = mx.fast.metal_kernel(
        name="switchyard_draw",
        input_names=["logits", "asked"],
        output_names=["tokens", "failed"],
        source=METAL_NAMES + SOURCE.read_text(encoding="ascii"),
        header=constants() + METAL,
    )
    return made


def _on_cuda() -> Callable[..., list[mx.array]]:
    text = CUDA_TEXT.format(head=constants() + CUDA, body=CUDA_NAMES + SOURCE.read_text(encoding="ascii"))
    return partial(
        mx.fast.precompiled_cuda_kernel,
        name="switchyard_draw",
        compiled_source=compiled(text, architecture()),
        ensure_row_contiguous=True,
    )


def by_definition(logits: Floats, wishes: list[Wish]) -> list[tuple[int, bool]]:
    """Each row's token and whether its logits are no numbers, with numpy in float64 and by sorting."""
    return [_drawn(row.astype(np.float64), wish) for row, wish in zip(logits, wishes, strict=True)]


def _drawn(logits: NDArray[np.float64], wish: Wish) -> tuple[int, bool]:
    sampling, top = wish.sampling, logits.max()
    if not top < np.inf or np.isneginf(top):
        return 0, not np.isneginf(top)
    if not sampling.temperature:
        return int(logits.argmax()), False
    with np.errstate(over="ignore"):
        weights = np.exp((logits - top) / sampling.temperature)
    order = np.argsort(-weights, kind="stable")
    above = np.zeros_like(weights)
    above[order[1:]] = weights[order].cumsum()[:-1]
    allowed = (weights >= sampling.min_p) & ((above < sampling.top_p * weights.sum()) | (weights == 1))
    if sampling.top_k:
        allowed[order[sampling.top_k :]] = False
    edges = (weights * allowed).cumsum()
    return int(edges.searchsorted(wish.uniform * edges[-1], side="right")), False


def samples() -> tuple[Floats, list[Wish]]:
    """Logits and wishes that say whether a kernel draws as it should: no uniform number lies near an edge."""
    ways = (
        Sampling(temperature=0),
        Sampling(temperature=1),
        Sampling(temperature=0.7, top_p=0.9),
        Sampling(temperature=1, top_k=5),
        Sampling(temperature=1, min_p=0.1),
        Sampling(temperature=1.5, top_p=0.8, top_k=20, min_p=0.01),
        Sampling(temperature=1e-30, top_p=0.0),
    )
    wishes = [Wish(way, uniform) for way in ways for uniform in (0.03, 0.4, 0.96)]
    places = np.arange(3001, dtype=np.float64)
    logits = np.stack([9 * np.sin(places**2 * (0.37 + row)) - places / 40 for row in range(len(wishes))])
    logits[-1, 7], logits[-2, 8], logits[-3] = np.nan, np.inf, -np.inf
    return logits.astype(np.float32), wishes
