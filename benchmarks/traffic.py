"""Requests to send, the load generator that sends them, and what its answers add up to."""

import subprocess
import sys
from statistics import median

import msgspec

from benchmarks.client import Answer, Ask, Load

WORDS = ("rivers", "mountains", "harbours", "gardens", "stations", "the evening", "the north", "names and numbers")


def chat(
    model: str,
    text: str,
    tokens: int,
    *,
    sampled: bool = False,
    seed: int | None = None,
    stream: bool = True,
    system: str | None = None,
    after: float = 0.0,
    whole: bool = False,
    beside: float | None = None,
) -> Ask:
    """One chat request of ``tokens`` tokens: greedy, or at temperature 0.7 and top_p 0.9.

    ``whole`` asks the service to go on after an end of text, as the yardstick does; mlx_lm.server does not know it.
    """
    messages = [{"role": "user", "content": text}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    body = {"model": model, "messages": messages, "max_tokens": tokens, "stream": stream}
    body |= {"temperature": 0.7, "top_p": 0.9} if sampled else {"temperature": 0}
    if seed is not None:
        body["seed"] = seed
    if whole:
        body["ignore_eos"] = True
    if stream:
        body["stream_options"] = {"include_usage": True}
    return Ask("/v1/chat/completions", body, after, beside)


def texts(rows: int, salt: object) -> list[str]:
    """Questions of differing lengths that no other salt gives, so that no cache knows them."""
    return [f"{salt}.{row}: Tell me in a few words about {WORDS[row % len(WORDS)]}." for row in range(rows)]


def streams(
    model: str,
    rows: int,
    tokens: int,
    salt: object,
    *,
    sampled: bool = False,
    seeded: bool = False,
    whole: bool = False,
) -> Load:
    """``rows`` chat streams that all begin at once."""
    asks = [
        chat(model, text, tokens, sampled=sampled, seed=row if seeded else None, whole=whole)
        for row, text in enumerate(texts(rows, salt))
    ]
    return Load(0, asks)


def drive(load: Load) -> list[Answer]:
    """Run the load generator in its own process; raises RuntimeError when an answer is an error."""
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.client"], input=msgspec.json.encode(load), capture_output=True, check=False
    )
    if ran.returncode:
        raise RuntimeError(ran.stderr.decode())
    answers = msgspec.json.decode(ran.stdout, type=list[Answer])
    failed = [answer for answer in answers if answer.error]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(answers)} requests failed, the first with: {failed[0].error}")
    return answers


def seconds(answers: list[Answer]) -> float:
    """From the first request to the last byte."""
    return max(answer.ended for answer in answers) - min(answer.begun for answer in answers)


def rate(answers: list[Answer]) -> float:
    """Tokens per second that reached the clients, prompts and connections included."""
    return sum(answer.tokens for answer in answers) / seconds(answers)


def first_text(answers: list[Answer], share: float) -> float:
    """The time to first text that ``share`` of the requests kept, in seconds."""
    return _share([answer.first for answer in answers], share)


def gaps(answer: Answer, after: float = 0.0, until: float = float("inf")) -> list[float]:
    """Seconds between one text and the next, for those that ended in the window."""
    pairs = zip(answer.times, answer.times[1:], strict=False)
    return [later - sooner for sooner, later in pairs if after <= later <= until]


def _share(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def summary(answers: list[Answer]) -> dict[str, float]:
    """The figures that one run of streams is told by."""
    between = [gap for answer in answers for gap in gaps(answer)]
    return {
        "tokens_per_second": rate(answers),
        "ttft_p50_ms": first_text(answers, 0.5) * 1e3,
        "ttft_p95_ms": first_text(answers, 0.95) * 1e3,
        "gap_p50_ms": median(between) * 1e3,
        "gap_p95_ms": _share(between, 0.95) * 1e3,
        "gap_max_ms": max(between) * 1e3,
    }
