"""Requests that ``bench`` sends to find out how a service answers, several at once."""

from queue import SimpleQueue
from random import SystemRandom
from threading import Barrier, Thread
from time import perf_counter

from msgspec import Struct

from app.cli.client import Client
from app.cli.talk.speak import Spoken, speak

WORDS = (
    "the of and to in is was for on that with as his they at be this had from have or one by word but not what all "
    "were we when your can said there use an each which she do how their if will up other about out many then them"
)


class Answer(Struct, frozen=True):
    """One stream: when it was asked for, by the process's clock, and what came."""

    began: float
    spoken: Spoken

    @property
    def first(self) -> float:
        """Seconds to the first text; to the end where no token had any."""
        spoken = self.spoken
        return spoken.seconds if spoken.first_token_seconds is None else spoken.first_token_seconds

    @property
    def rate(self) -> float | None:
        """Tokens a second after the first; None where all of them came at once."""
        decoding, tokens = self.spoken.seconds - self.first, self.spoken.completion_tokens - 1
        return tokens / decoding if tokens > 0 and decoding > 0 else None


def throughput(answers: list[Answer]) -> float:
    """Tokens a second of all streams, from the first request to the last byte."""
    seconds = max(it.began + it.spoken.seconds for it in answers) - min(it.began for it in answers)
    return sum(it.spoken.completion_tokens for it in answers) / seconds


class Trial:
    """Requests for answers of one length, each with a prompt of its own."""

    def __init__(self, client: Client, model: str, tokens: int) -> None:
        self._client = client
        self._body = {"model": model, "max_tokens": tokens, "ignore_eos": True, "temperature": 0}
        self._words = 1

    def fit(self, prompt_tokens: int) -> None:
        """Send one request, for which the model is loaded, and learn how many words make ``prompt_tokens``."""
        self._words = prompt_tokens
        counted = self.together(1)[0].spoken.prompt_tokens
        self._words = max(1, round(prompt_tokens * prompt_tokens / max(1, counted)))

    def together(self, streams: int) -> list[Answer]:
        """The answers to ``streams`` requests that start at once. Raises what the first of them to fail raised."""
        start, done = Barrier(streams), SimpleQueue[Answer | Exception]()
        for _ in range(streams):
            Thread(target=self._ask, args=(self._prompt(), start, done), daemon=True).start()
        answers = []
        for _ in range(streams):
            answer = done.get()
            if isinstance(answer, Exception):
                raise answer
            answers.append(answer)
        return answers

    def _ask(self, prompt: str, start: Barrier, done: "SimpleQueue[Answer | Exception]") -> None:
        start.wait()
        try:
            began = perf_counter()
            spoken = speak(self._client, "/v1/completions", {**self._body, "prompt": prompt}, quiet=True)
            done.put(Answer(began, spoken))
        except Exception as failure:  # noqa: BLE001  raised in the command's own thread
            done.put(failure)

    def _prompt(self) -> str:
        """Words drawn by chance, so that no cache knows them."""
        return " ".join(SystemRandom().choices(WORDS.split(), k=self._words))
