"""Score the questions with mlx-lm alone: no server, no harness, one forward pass over each continuation.

``python -m benchmarks.lm_eval.direct MODEL QUESTIONS`` prints a JSON list: for each question the log probability of
each of its choices. A choice is encoded as lm-eval does it: with its question and a space, the question's tokens cut
off in front.
"""

import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import msgspec
from mlx_lm import load

from benchmarks.lm_eval.questions import read


def score(model: Any, prompt: list[int], continuation: list[int]) -> float:
    """The log probability of ``continuation`` after ``prompt``."""
    logits = model(mx.array([prompt + continuation]))[0, len(prompt) - 1 : -1].astype(mx.float32)
    chosen = mx.take_along_axis(logits, mx.array(continuation)[:, None], axis=-1)[:, 0]
    return float((chosen - mx.logsumexp(logits, axis=-1)).sum().item())


def main(directory: str, questions: str) -> None:
    """Load the model and score every choice."""
    model, tokenizer, *_ = load(directory)
    scores = []
    for it in read(Path(questions)):
        prompt = tokenizer.encode(it.question)
        whole = [tokenizer.encode(f"{it.question} {choice}") for choice in it.choices]
        scores.append([score(model, prompt, ids[len(prompt) :]) for ids in whole])
    print(msgspec.json.encode(scores).decode())


if __name__ == "__main__":
    main(*sys.argv[1:3])
