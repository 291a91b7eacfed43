"""The kernel that draws on GPUs, compiled as C++: what it computes, where there is no GPU to compute it."""

import ctypes
import os
import subprocess
from pathlib import Path
from shutil import which

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from app.engine.mlx.draw.kernel import SOURCE, Draws, constants

PROGRAM = """
#include <barrier>
#include <cmath>
#include <cstdint>
#include <thread>
#include <vector>
{constants}
#define THREADS {threads}
#define LANES 1
#define GROUPS THREADS
#define SHARED(type, name, size) static type name[size]
#define BARRIER if (THREADS > 1) meet.arrive_and_wait()
#define EXP(x) std::exp(x)
#define INF INFINITY
#define lane_sum(x) (x)
#define lane_max(x) (x)
#define lane_min(x) (x)
static std::barrier meet(THREADS);
static void draw_row(const float *logits, const int *logits_shape, const float *asked, uint32_t *tokens, bool *failed,
                     unsigned ROW, unsigned THREAD) {{
  const unsigned LANE = 0, GROUP = THREAD;
{body}
}}
extern "C" void draw(const float *logits, const int *shape, const float *asked, uint32_t *tokens, bool *failed) {{
  std::vector<std::thread> others;
  auto all = [=](unsigned thread) {{
    for (int row = 0; row < shape[0]; ++row) {{
      draw_row(logits, shape, asked, tokens, failed, row, thread);
      BARRIER;
    }}
  }};
  for (unsigned thread = 1; thread < THREADS; ++thread) others.emplace_back(all, thread);
  all(0);
  for (auto &it : others) it.join();
}}
"""


def compiled(folder: Path, *, threads: int = 1) -> Draws | None:
    """The kernel with so many threads, as :data:`app.engine.mlx.draw.kernel.Draws`; None where nothing compiles C++."""
    compiler = which(os.environ.get("CXX", "g++"))
    if compiler is None:
        return None
    source, library = folder / f"draw{threads}.cpp", folder / f"draw{threads}.so"
    body = SOURCE.read_text(encoding="ascii")
    source.write_text(PROGRAM.format(constants=constants(), threads=threads, body=body))
    command = [compiler, "-std=c++20", "-O2", "-shared", "-fPIC", "-pthread", "-o", str(library), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    run = ctypes.CDLL(str(library)).draw

    def draws(logits: mx.array, wishes: NDArray[np.float32]) -> tuple[mx.array, mx.array]:
        values = np.ascontiguousarray(np.asarray(logits), dtype=np.float32)
        shape = np.array(values.shape, dtype=np.int32)
        tokens, failed = np.full(len(values), 1 << 30, dtype=np.uint32), np.zeros(len(values), dtype=np.bool_)
        run(*(ctypes.c_void_p(it.ctypes.data) for it in (values, shape, wishes, tokens, failed)))
        return mx.array(tokens), mx.array(failed)

    return draws
