"""What a GPU could do: a decode step of a llama's layers in PyTorch, all of it one CUDA graph.

Rows that all hold ``CONTEXT`` tokens; fused products for queries, keys and values, and for gate and up; greedy. Nothing
of MLX is imported. ``python -m benchmarks.limit SHAPE`` answers lines of JSON (:mod:`benchmarks.lines`).
"""

import math
import sys
from importlib.util import find_spec
from typing import Any

from benchmarks.lines import answer_lines
from benchmarks.models import SHAPES, Shape

CONTEXT = 200
REPLAYS = 50


def available() -> bool:
    """Whether this Python has PyTorch."""
    return find_spec("torch") is not None


def steps_per_second(shape: Shape, rows: int) -> float:
    """Of a graph of one step, replayed."""
    import torch  # noqa: PLC0415  only where it is there
    from torch.nn import functional as F  # noqa: PLC0415, N812

    head = shape.width // shape.heads
    kv = shape.kv_heads * head

    def weight(out: int, into: int) -> Any:
        return torch.randn(out, into, device="cuda", dtype=torch.bfloat16) / math.sqrt(into)

    layers = [
        (
            weight(shape.width + 2 * kv, shape.width),
            weight(shape.width, shape.width),
            weight(2 * shape.hidden, shape.width),
            weight(shape.width, shape.hidden),
            *(torch.randn(rows, shape.kv_heads, CONTEXT, head, device="cuda", dtype=torch.bfloat16) for _ in "kv"),
        )
        for _ in range(shape.layers)
    ]
    embedding, out = weight(shape.vocabulary, shape.width), weight(shape.vocabulary, shape.width)
    norm = torch.ones(shape.width, device="cuda", dtype=torch.bfloat16)
    angles = CONTEXT / 10000 ** (torch.arange(0, head, 2, device="cuda") / head)
    cos, sin = torch.cos(angles).bfloat16(), torch.sin(angles).bfloat16()
    tokens = torch.zeros(rows, dtype=torch.long, device="cuda")

    def rotated(x: Any) -> Any:
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)

    def step() -> None:
        x = embedding[tokens]
        for qkv, o, gate_up, down, keys, values in layers:
            q, k, v = F.linear(F.rms_norm(x, (shape.width,), norm), qkv).split((shape.width, kv, kv), -1)
            keys[:, :, -1] = rotated(k.view(rows, shape.kv_heads, head))
            values[:, :, -1] = v.view(rows, shape.kv_heads, head)
            heard = F.scaled_dot_product_attention(
                rotated(q.view(rows, shape.heads, 1, head)), keys, values, enable_gqa=True
            )
            x = x + F.linear(heard.reshape(rows, shape.width), o)
            gate, up = F.linear(F.rms_norm(x, (shape.width,), norm), gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, down)
        tokens.copy_(F.linear(F.rms_norm(x, (shape.width,), norm), out).argmax(-1))

    with torch.inference_mode():
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        graph.replay()
        begun.record()
        for _ in range(REPLAYS):
            graph.replay()
        ended.record()
        torch.cuda.synchronize()
    return REPLAYS / (float(begun.elapsed_time(ended)) / 1e3)


def main(name: str) -> None:
    """Answer what is asked for, with one shape."""
    answer_lines(lambda rows: {"tokens_per_second": rows * steps_per_second(SHAPES[name], rows)})


if __name__ == "__main__":
    main(sys.argv[1])
