"""Score a real model through the service with lm-eval, and again with mlx-lm directly: both must agree.

``python -m benchmarks.lm_eval.run --lm-eval PATH`` starts the service, lets lm-eval's ``local-completions`` ask it
(prompts as token ids, ``echo`` with ``logprobs``), scores the same questions without any server and prints both.
lm-eval lives in an environment of its own; ``PATH`` is its command. The exit code is 1 if the
accuracies differ or any choice's log probability differs by more than ``TOLERANCE``.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import servers
from benchmarks.bench import Bench
from benchmarks.lm_eval.questions import accuracy, read

HERE = Path(__file__).parent
TASK = "plain_facts"
TOLERANCE = 0.01


def directly(model: Path) -> list[list[float]]:
    """Each choice's log probability by mlx-lm alone."""
    command = [sys.executable, "-m", "benchmarks.lm_eval.direct", str(model), str(HERE / "questions.jsonl")]
    told = subprocess.run(command, env=servers.environment(), stdout=subprocess.PIPE, check=True).stdout  # noqa: S603
    return msgspec.json.decode(told.splitlines()[-1], type=list[list[float]])


def by_lm_eval(command: Path, model: Path, port: int) -> tuple[list[list[float]], dict[str, float]]:
    """Each choice's log probability, and the accuracies, as lm-eval finds them through the service on ``port``."""
    arguments = {
        "model": model.name,
        "base_url": f"http://127.0.0.1:{port}/v1/completions",
        "tokenizer_backend": "huggingface",
        "tokenizer": str(model),
        "num_concurrent": "4",
        "max_retries": "1",
    }
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(  # noqa: S603  the command that was named
            [
                *(str(command), "run", "--model", "local-completions"),
                *("--model_args", ",".join(f"{name}={value}" for name, value in arguments.items())),
                *("--tasks", TASK, "--include_path", str(HERE), "--log_samples", "--output_path", place),
            ],
            cwd=HERE,
            env=os.environ | offline | {"HF_HOME": place},
            check=True,
        )
        (results,) = Path(place).rglob("results_*.json")
        (samples,) = Path(place).rglob(f"samples_{TASK}_*.jsonl")
        found: dict[str, Any] = msgspec.json.decode(results.read_bytes())["results"][TASK]
        rows = sorted(msgspec.json.Decoder().decode_lines(samples.read_bytes()), key=lambda row: row["doc_id"])
    scores = [[float(score) for score, _greedy in row["filtered_resps"]] for row in rows]
    return scores, {"acc": found["acc,none"], "acc_norm": found["acc_norm,none"]}


def main() -> int:
    """Score twice, print both, and compare."""
    parser = argparse.ArgumentParser(prog="benchmarks.lm_eval.run", description=__doc__)
    parser.add_argument("--lm-eval", type=Path, required=True, help="the command lm-eval (or lm_eval)")
    parser.add_argument("--home", type=Path, default=Path("build/benchmarks"), help="directory for the model")
    given = parser.parse_args()
    given.home.mkdir(parents=True, exist_ok=True)
    home = given.home.resolve()
    model = home / Bench(home, 1).smollm2()
    questions = read(HERE / "questions.jsonl")
    direct = directly(model)
    with servers.ours(home) as server:
        served, told = by_lm_eval(given.lm_eval.absolute(), model, server.port)
    apart = max(
        abs(a - b) for ours, theirs in zip(served, direct, strict=True) for a, b in zip(ours, theirs, strict=True)
    )
    agreed = apart <= TOLERANCE
    print(f"{len(questions)} questions, {sum(map(len, direct))} choices, {model.name}")
    for name, per_byte in (("acc", False), ("acc_norm", True)):
        expected = accuracy(questions, direct, per_byte=per_byte)
        agreed = agreed and abs(told[name] - expected) < 1e-9
        print(f"{name:10} lm-eval through the service {told[name]:.4f}   mlx-lm directly {expected:.4f}")
    print(f"log probabilities differ by at most {apart:.6f}")
    return 0 if agreed else 1


if __name__ == "__main__":
    sys.exit(main())
