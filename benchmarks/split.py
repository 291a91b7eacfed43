"""The yardstick for a model over several ranks: mlx-lm's ``shard()`` and :mod:`benchmarks.floor`'s loops on each.

``python -m benchmarks.split DIRECTORY RANKS`` is rank 0, which starts the others and hands them each line that it is
asked; all do the same, so that nothing need be agreed upon. NCCL adds up on CUDA, else the ring. Nothing of the service
is imported.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from benchmarks.lines import answer_lines
from benchmarks.servers import free_port


def variables(ranks: int, place: Path, *, on_cuda: bool) -> list[dict[str, str]]:
    """What MLX looks for, for each rank."""
    if on_cuda:
        shared = {"NCCL_HOST_IP": "127.0.0.1", "NCCL_PORT": str(free_port()), "MLX_WORLD_SIZE": str(ranks)}
        return [shared | {"MLX_RANK": str(rank), "CUDA_VISIBLE_DEVICES": str(rank)} for rank in range(ranks)]
    hosts = place / "hosts.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{free_port()}"] for _ in range(ranks)]))
    return [{"MLX_HOSTFILE": str(hosts), "MLX_RANK": str(rank)} for rank in range(ranks)]


def main(directory: str, ranks: int) -> None:
    """Load this rank's part, then measure what is asked for."""
    others: list[subprocess.Popen[bytes]] = []
    backend = os.environ.get("MLX_SPLIT_BACKEND")
    if backend is None:
        on_cuda = shutil.which("nvidia-smi") is not None
        backend = "nccl" if on_cuda else "ring"
        given = variables(ranks, Path(tempfile.mkdtemp()), on_cuda=on_cuda)
        for own in given[1:]:
            env = os.environ | own | {"MLX_SPLIT_BACKEND": backend}
            command = [sys.executable, "-m", "benchmarks.split", directory, str(ranks)]
            others.append(subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL))  # noqa: S603
        os.environ.update(given[0])
    import mlx.core as mx  # noqa: PLC0415  it looks for its variables when it is imported
    from mlx.utils import tree_flatten  # noqa: PLC0415
    from mlx_lm.utils import load_model, load_tokenizer  # noqa: PLC0415

    from benchmarks.floor import batch, raw  # noqa: PLC0415

    group = mx.distributed.init(strict=True, backend=backend)
    model, _ = load_model(Path(directory), lazy=True)
    if mx.default_device() == mx.Device(mx.cpu):
        model.set_dtype(mx.float32)
    model.shard(group)
    for _, array in tree_flatten(model.parameters()):
        mx.eval(array)
    tokenizer = load_tokenizer(Path(directory))

    def measure(kind: str, texts: list[str], tokens: int) -> dict[str, float]:
        for other in others:
            if other.stdin is not None:
                question = {"kind": kind, "texts": texts, "tokens": tokens}
                other.stdin.write(msgspec.json.encode(question) + b"\n")
                other.stdin.flush()
        chats = [[{"role": "user", "content": text}] for text in texts]
        prompts = [tokenizer.apply_chat_template(it, add_generation_prompt=True) for it in chats]
        begun = time.perf_counter()
        made, decoding = raw(model, prompts[0], tokens) if kind == "raw" else batch(model, prompts, tokens)
        return {"tokens": made, "seconds": time.perf_counter() - begun, "decoding": decoding}

    try:
        answer_lines(measure)
    finally:
        for other in others:
            if other.stdin is not None:
                other.stdin.close()
            other.wait(20)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
