"""Simulated agents: conversations that grow, are edited, branch and drop thoughts, by a seed.

One character is one token for the models of :mod:`benchmarks.session_models`, so a session knows which tokens of a
prompt it has ever had computed, and whether the server counts as it does.
"""

from random import Random

import msgspec

TURN, END = "\x01", "\x02"
"""What stands for the two tokens that begin and end a turn."""
Message = dict[str, str]


class Plan(msgspec.Struct, frozen=True):
    """How long sessions are, in tokens. ``turns`` bring one to about ``total``; each is answered by ``answer``."""

    system: int = 8000
    turns: int = 30
    total: int = 40000
    answer: int = 48
    edits: float = 0.1
    branches: float = 0.1
    thoughts: float = 0.2

    def scaled(self, by: float) -> "Plan":
        """Fewer turns of the same length, behind a shorter system prompt."""
        sizes = {"system": int(self.system * by), "turns": max(4, round(self.turns * by))}
        return msgspec.structs.replace(self, **sizes, total=int(self.total * by))


class Turn(msgspec.Struct):
    """One request and what came of it: tokens of its prompt, those beyond anything computed before, those computed."""

    kind: str
    messages: list[Message]
    prompt: int
    new: int
    text: str = ""
    computed: int = 0
    first: float = 0.0


class Session:
    """One conversation; sessions with the same ``system`` text share it."""

    def __init__(self, seed: object, plan: Plan, system: str) -> None:
        self._random = Random(str(seed))
        self._plan = plan
        self._history: list[Message] = [{"role": "system", "content": system}]
        self._computed: list[str] = []
        self.turns: list[Turn] = []

    @property
    def answer(self) -> int:
        """Tokens of each answer."""
        return self._plan.answer

    def next(self) -> Turn:
        """The next request; :meth:`answered` must be told before the one after it."""
        kind = self._kind()
        if kind == "edit":
            last = self._history[-2]["content"]
            del self._history[-2:]
            self._say(last[: len(last) // 2])
        elif kind == "branch":
            del self._history[-2 * self._random.choice((2, 3)) :]
            self._say()
        else:
            if kind == "thoughts":
                said = self._history[-1]["content"]
                self._history[-1] = {"role": "assistant", "content": said[len(said) // 2 :]}
            self._say()
        prompt = rendered(self._history)
        known = max((common(prompt, it) for it in self._computed), default=0)
        turn = Turn(kind, list(self._history), len(prompt), len(prompt) - known)
        self.turns.append(turn)
        return turn

    def answered(self, text: str, prompt: int, cached: int, first: float) -> None:
        """The answer to the last request. Raises RuntimeError if the server counts the prompt otherwise."""
        turn = self.turns[-1]
        if prompt != turn.prompt:
            raise RuntimeError(f"a prompt of {turn.prompt} tokens was counted as {prompt}")
        turn.text, turn.computed, turn.first = text, prompt - cached, first
        self._computed.append(rendered(self._history) + text[:-1])  # the last token is told, and no input any more
        self._history.append({"role": "assistant", "content": text})

    def _kind(self) -> str:
        if len(self._history) < 6:
            return "plain"
        draw, plan = self._random.random(), self._plan
        for kind, share in (("edit", plan.edits), ("branch", plan.branches), ("thoughts", plan.thoughts)):
            if draw < share and (kind != "branch" or len(self._history) > 8):
                return kind
            draw -= share
        return "plain"

    def _say(self, begin: str = "") -> None:
        mean = (self._plan.total - self._plan.system) / self._plan.turns - self._plan.answer
        size = max(8, int(mean * self._random.uniform(0.5, 1.5)))
        self._history.append({"role": "user", "content": (begin + words(self._random, size))[: max(size, len(begin))]})


def words(random: Random, size: int) -> str:
    """So many characters that nobody else says."""
    text = ""
    while len(text) < size:
        text += f"{random.choice(('read', 'list', 'def', 'the file', 'error', 'line', 'return'))} {random.random()} "
    return text[:size]


def rendered(messages: list[Message]) -> str:
    """What the models' template makes of them, a character a token."""
    turns = "".join(f"{TURN}{message['role']}\n{message['content']}{END}\n" for message in messages)
    return f"{turns}{TURN}assistant\n"


def common(a: str, b: str) -> int:
    """Length of the common beginning."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
