"""What a turn of a conversation costs: tokens computed over tokens that are new, times, bytes, texts.

``python -m benchmarks.conversation [PART...] [--kinds KIND...] [--scale S]``; the parts are the names of :data:`PARTS`.
At scale 1 a session has 8,000 tokens of system prompt and tools and 30 turns up to 40,000; a smaller scale has a
shorter prompt and fewer turns, each as long. *New* is what lies beyond the longest beginning that the session has ever
had computed: its prompts and its answers, as they were read and generated.
"""

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory

import msgspec

from app.schemas.admin import AdminMemory
from benchmarks import servers
from benchmarks.client import Answer, Ask, Load, play
from benchmarks.lines import Child
from benchmarks.servers import Server
from benchmarks.session_models import FAMILIES, SPECIALS
from benchmarks.sessions import END, TURN, Message, Plan, Session, Turn, rendered, words

SESSIONS = 2
"""They take turns, and share their system prompt."""
STARTS = 4
"""New starts, with a turn of each session behind each."""
AT_ONCE = 8
CONVERSATIONS = 50
BYTES_PER_TOKEN = 2 * 2 * 1 * 16 * 4
"""Of the plain model: layers, keys and values, heads, their size, float32."""
WHOLE = 0.9
"""A prompt that is known but for a tenth at most, and of which more than this was computed, was computed again."""


class Row(msgspec.Struct):
    """One line of the table."""

    work: str
    figure: str
    bar: str = ""

    def __str__(self) -> str:
        return f"{self.work:58}{self.figure:>34}  {self.bar}"


class Setting(msgspec.Struct):
    """What is measured with: ``home`` has the models, ``kinds`` of which are asked.

    A server that is not ``warm`` loads and compiles with the first request.
    """

    home: Path
    plan: Plan
    kinds: Sequence[str]
    warm: bool = True

    def serve(self, kind: str, *flags: str) -> Server:
        """The service, to be asked for the model ``kind``."""
        return servers.ours(self.home, *([kind] if self.warm else []), flags=flags)

    def floor(self, kind: str) -> Child:
        """mlx-lm alone over the model ``kind``."""
        return Child("benchmarks.floor", str(self.home / kind), env=servers.environment())

    def system(self, seed: object) -> str:
        """Text of a system prompt with its tools."""
        return words(Random(str(seed)), self.plan.system)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--kinds", nargs="*", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--scale", type=float, default=0.25)
    parser.add_argument("--home", type=Path, default=Path("build/sessions"), help="directory for the models")
    given = parser.parse_intermixed_args()
    if unknown := [part for part in given.parts if part not in PARTS]:
        parser.error(f"{', '.join(unknown)}: the parts are {', '.join(PARTS)}")
    setting = prepared(given.home.resolve(), Plan().scaled(given.scale), given.kinds)
    print(f"{setting.plan.system} tokens of system prompt, {setting.plan.turns} turns to {setting.plan.total}")
    for part in given.parts or PARTS:
        for row in PARTS[part](setting):
            print(row, flush=True)


def prepared(home: Path, plan: Plan, kinds: Sequence[str]) -> Setting:
    """The models made where they are missing, each in a process of its own."""
    home.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        command = [sys.executable, "-m", "benchmarks.session_models", str(home), kind]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=servers.environment())  # noqa: S603
    return Setting(home, plan, kinds)


def turns(setting: Setting) -> Iterator[Row]:
    """Interleaved sessions of each kind, then a new start, then the same requests with no cache at all."""
    for kind in setting.kinds:
        with TemporaryDirectory() as place:
            flags = kept_in(Path(place))
            sessions = [Session(f"{kind} {i}", setting.plan, setting.system(kind)) for i in range(SESSIONS)]
            with setting.serve(kind, *flags) as server, setting.floor(kind) as floor:
                turns = range(setting.plan.turns)
                alone = [times for _ in turns for times in _interleaved(server, floor, kind, sessions)]
            bar = "<= 1.05" if kind == "plain" else "<= 1.15"
            yield Row(f"{kind}: tokens computed over new", over_new(sessions), bar)
            yield Row(f"{kind}: time to first token over new tokens' alone", _times(alone), "<= 1.3")
            done = len(sessions[0].turns)
            for _ in range(STARTS):
                with setting.serve(kind, *flags) as server:
                    for session in sessions:
                        converse(server, kind, session)
            yield Row(f"{kind}: computed over new, {STARTS} new starts", over_new(sessions, done), "<= 1.15")
        yield Row(f"{kind}: texts equal to those without a cache", _equal(setting, kind, sessions), "all")


def bytes_held(setting: Setting) -> Iterator[Row]:
    """The plain model's prefix caches after 50 conversations over one system prompt."""
    system, random = setting.system("bytes"), Random(0)
    with setting.serve("plain") as server:
        before, tokens = _held(server), len(system)
        for i in range(CONVERSATIONS):
            said = [{"role": "system", "content": system}, {"role": "user", "content": f"{i} {words(random, 300)}"}]
            ask(server, "plain", said, setting.plan.answer)
            tokens += len(rendered(said)) - len(system) + setting.plan.answer
        held = _held(server) - before
    figure = f"{held / 1e6:.1f} of {tokens * BYTES_PER_TOKEN / 1e6:.1f} MB, {held / tokens / BYTES_PER_TOKEN:.2f}"
    yield Row(
        f"plain: bytes of {CONVERSATIONS} conversations over one prompt and {CONVERSATIONS} tails", figure, "<= 1.05"
    )


def eight(setting: Setting) -> Iterator[Row]:
    """Eight sessions at once, each with a system prompt of its own, and memory for three."""
    for kind in setting.kinds:
        size = 3 * setting.plan.total * BYTES_PER_TOKEN
        with (
            TemporaryDirectory() as place,
            setting.serve(kind, "--prefix-cache", str(size), *kept_in(Path(place))) as server,
        ):
            sessions = [Session(f"eight {i}", setting.plan, setting.system(i)) for i in range(AT_ONCE)]
            for _ in range(setting.plan.turns):
                begun = [session.next() for session in sessions]
                asks = [request(server, kind, turn.messages, setting.plan.answer) for turn in begun]
                for session, answer in zip(sessions, asyncio.run(play(Load(server.port, asks))), strict=True):
                    _note(session, answer)
        made = [turn for session in sessions for turn in session.turns]
        known = [turn for turn in made if turn.new < 0.1 * turn.prompt]
        again = sum(turn.computed > WHOLE * turn.prompt for turn in known)
        yield Row(f"{kind}: eight sessions, memory for three: computed over new", over_new(sessions))
        yield Row(f"{kind}: known prompts computed again as a whole", f"{again} of {len(known)}", "0")


def beside(setting: Setting) -> Iterator[Row]:
    """One session of the plain model with mlx_lm.server and with the service."""
    for server in (setting.serve("plain"), servers.theirs(setting.home, "plain")):
        session = Session("beside", setting.plan, setting.system("beside"))
        with server:
            for _ in range(setting.plan.turns):
                converse(server, "plain", session)
        yield Row(f"plain, one session, {server.label}: computed over new", over_new([session]))
        later = [turn.first * 1e3 for turn in session.turns[1:]]
        figure = f"median {median(later):.0f} ms, longest {max(later):.0f}"
        yield Row(f"plain, one session, {server.label}: time to first token", figure)


def kept_in(place: Path) -> tuple[str, ...]:
    """Flags of a service that keeps what it has computed below ``place``."""
    return "--disk-cache-dir", str(place), "--disk-cache", str(8 << 30)


def over_new(sessions: Sequence[Session], since: int = 0) -> str:
    """Tokens computed and tokens new, of the turns from the one numbered ``since`` on."""
    computed, new = counted(sessions, since)
    return f"{computed} of {new}, {computed / new:.2f}"


def counted(sessions: Sequence[Session], since: int = 0) -> tuple[int, int]:
    """The same, as numbers."""
    made = [turn for session in sessions for turn in session.turns[since:]]
    return sum(turn.computed for turn in made), sum(turn.new for turn in made)


def converse(server: Server, kind: str, session: Session) -> Turn:
    """One turn of one session."""
    turn = session.next()
    _note(session, ask(server, kind, turn.messages, session.answer))
    return turn


def ask(server: Server, kind: str, messages: list[Message], tokens: int) -> Answer:
    """One greedy answer. Raises RuntimeError if there is none."""
    return asyncio.run(play(Load(server.port, [request(server, kind, messages, tokens)])))[0]


def request(server: Server, kind: str, messages: list[Message], tokens: int) -> Ask:
    """A streamed chat."""
    body = {"model": server.model(kind), "messages": messages, "max_tokens": tokens, "temperature": 0, "stream": True}
    return Ask("/v1/chat/completions", body | {"stream_options": {"include_usage": True}})


def _note(session: Session, answer: Answer) -> None:
    if answer.error:
        raise RuntimeError(answer.error)
    session.answered(answer.text, answer.prompt, answer.cached, answer.first)


def _interleaved(server: Server, floor: Child, kind: str, sessions: Sequence[Session]) -> Iterator[tuple[float, float]]:
    """A turn of each; of every third but the first ones, its time and what mlx-lm alone takes for what is new in it.

    That is the time to the first token where the context of the turn is in a cache already: nothing is found, copied,
    kept, rendered, tokenised or sent.
    """
    for session in sessions:
        turn, number = converse(server, kind, session), len(session.turns)
        if number > 1 and number % 3 == 2:
            text = rendered(turn.messages).replace(TURN, SPECIALS[1]).replace(END, SPECIALS[2])
            server.rest()
            yield turn.first, floor.ask(kind="turn", texts=[text], tokens=turn.prompt - turn.new)["seconds"]


def _times(pairs: Sequence[tuple[float, float]]) -> str:
    turn, alone = (median(times) for times in zip(*pairs, strict=True))
    return f"{turn * 1e3:.0f} of {alone * 1e3:.0f} ms, {median(a / b for a, b in pairs):.2f}"


def _equal(setting: Setting, kind: str, sessions: Sequence[Session]) -> str:
    """Which of the texts a service without prefix caches gives as well."""
    made = [turn for session in sessions for turn in session.turns]
    made = made[:: max(1, len(made) // 16)]
    with setting.serve(kind, "--prefix-cache", "0") as server:
        same = sum(ask(server, kind, turn.messages, len(turn.text)).text == turn.text for turn in made)
    return f"{same} of {len(made)}"


def _held(server: Server) -> int:
    server.rest()
    return msgspec.json.decode(server.ask("GET", "/admin/memory"), type=AdminMemory).prefix_caches


PARTS = {"turns": turns, "bytes": bytes_held, "eight": eight, "beside": beside}

if __name__ == "__main__":
    main()
