"""Prompt lookup: one stream that says again what it has read and one that does not, with and without it.

``lookup:8b`` and other shapes with random weights say nothing that a prompt can ask for: there the text that repeats is
one token that a bias forces, which is the most that lookups can gain.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import servers
from benchmarks.bench import Bench
from benchmarks.client import Load
from benchmarks.report import Figures, Line, Runs
from benchmarks.servers import Server
from benchmarks.traffic import chat, summary

TOKENS = 96
FORCED = {"logit_bias": {"1000": 100}}
REPEATS, GOES_ON = "a text that repeats", "a text that does not"


def run(bench: Bench, shape: str = "smollm2") -> Iterator[Line]:
    name = bench.directory(shape)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        config = folder / "switchyard.toml"
        config.touch()
        (folder / "models.toml").write_text(f'[models."{name}"]\ndraft_model = "prompt-lookup"\n')
        flags = ("--config", str(config))
        looking = stack.enter_context(servers.ours(bench.home, name, flags=flags))
        plain = stack.enter_context(servers.ours(bench.home, name))
        for kind, bar in ((REPEATS, 1.8), (GOES_ON, 0.98)):
            for server in (looking, plain):
                _answer(server, name, kind, "warm", real=shape == "smollm2")
            runs = Runs(
                bench.rounds,
                {
                    "lookup": partial(_answer, looking, name, kind, real=shape == "smollm2"),
                    "none": partial(_answer, plain, name, kind, real=shape == "smollm2"),
                },
            )
            yield runs.line(f"{name}: {kind}", "lookup", "none", "tokens_per_second", unit="tokens/s", bar=bar)


def _answer(server: Server, name: str, kind: str, salt: object, *, real: bool) -> Figures:
    if kind == GOES_ON:
        text = f"{salt}: Tell me a long story about a journey, in your own words."
        ask = chat(server.model(name), text, TOKENS, sampled=True, seed=1, whole=True)
    else:
        text = f"Go on with this, round after round:{3 * ' one two three four five'} one two three"
        ask = chat(server.model(name), text, TOKENS, whole=True)
        ask.body |= {} if real else FORCED
    return summary(server.drive(Load(0, [ask])))
