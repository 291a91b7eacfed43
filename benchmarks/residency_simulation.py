"""How long requests wait for their models under different policies: the registry's own code on a seeded trace.

Run from the project's directory: ``python -m benchmarks.residency_simulation``. Nothing is measured on this machine:
the dispatcher runs on a loop with virtual time, with scripted models whose loads take as long as their size says.

- *Zipf*: 40 models of 1 to 16 GB, popularity 1 / rank, budget for five of average size, Poisson arrivals.
- *Two models*: one place, clients of each model that ask again some 50 ms after each answer.
- *One client*: one place, one client that asks for two models in turn: the price of patience.
"""

import asyncio
import random
from collections.abc import Iterable, Iterator

from msgspec import Struct

from app.errors import QueueFull, Unavailable
from app.registry.residency import Resident, Turns
from tests.registry.house import House
from tests.support.virtual_time import run

MODELS = 40
PLACES = 5
REQUESTS = 3000
SECONDS_BETWEEN = (4.0, 2.0)
SECONDS_OF_USE = 3.0
GB_PER_SECOND = 2.5
SECONDS_PER_LOAD = 0.5


class CostAware(Turns, frozen=True):
    """Of the idle models, the one goes whose absence is cheapest: long unused, large, quick to load."""

    def rank(self, resident: Resident, now: float) -> float:
        """Minus the byte-seconds that it has stood idle, for each second of loading that it would cost."""
        return -(now - resident.last_used) * resident.nbytes / max(resident.load_seconds, 1e-3)


class Frugal(Turns, frozen=True):
    """Of the idle models, the smallest sufficient harm: size is ignored, loading time is weighed against idleness."""

    def rank(self, resident: Resident, now: float) -> float:
        """Minus the time that it has stood idle, for each second of loading that it would cost."""
        return -(now - resident.last_used) / max(resident.load_seconds, 1e-3)


POLICIES: tuple[tuple[str, Turns], ...] = (
    ("LRU, waits until something is idle", Turns(0.0, 0.0, drains=False)),
    ("LRU, drains busy models at once", Turns(0.0, 0.0)),
    ("turns of 2 s, patience 0", Turns(2.0, 0.0)),
    ("turns of 2 s, patience 0.1 (default)", Turns(2.0, 0.1)),
    ("turns of 2 s, patience 0.25", Turns(2.0, 0.25)),
    ("turns of 2 s, patience 1", Turns(2.0, 1.0)),
    ("turns of 5 s, patience 0.1", Turns(5.0, 0.1)),
    ("default, by idle time x size / load time", CostAware(2.0, 0.1)),
    ("default, by idle time / load time", Frugal(2.0, 0.1)),
)


class Request(Struct, frozen=True):
    """Somebody who asks for a model at a time and uses it for a while."""

    at: float
    model: str
    seconds: float


class Outcome(Struct, frozen=True):
    """What a policy made of a trace."""

    waits: list[float]
    refused: int
    loads: int
    seconds: float

    def row(self) -> str:
        """Its figures as a line of the table."""
        waits = sorted(self.waits)
        hits = sum(wait == 0.0 for wait in waits) / len(waits)
        p50, p95, worst = waits[len(waits) // 2], waits[int(len(waits) * 0.95)], waits[-1]
        times = f"{p50:8.2f} {p95:8.2f} {worst:8.2f}"
        return f"{hits:7.1%} {self.loads:7d} {self.refused:8d} {times} {len(waits) / self.seconds:10.2f}"


def zipf_trace(seed: int, between: float) -> tuple[dict[str, int], list[Request]]:
    """Sizes by model, and the requests."""
    dice = random.Random(seed)
    sizes = {f"m{number:02d}": round(2 ** dice.uniform(0, 4) * 1e9) for number in range(MODELS)}
    names, weights = list(sizes), [1 / (rank + 1) for rank in range(MODELS)]
    requests, at = [], 0.0
    for _ in range(REQUESTS):
        at += dice.expovariate(1 / between)
        requests.append(Request(at, dice.choices(names, weights)[0], dice.expovariate(1 / SECONDS_OF_USE)))
    return sizes, requests


def house(sizes: dict[str, int], budget: int, turns: Turns) -> House:
    built = House(budget, sizes=sizes, turns=turns, limit=256, timeout=300.0)
    built.loader.seconds = {name: SECONDS_PER_LOAD + size / 1e9 / GB_PER_SECOND for name, size in sizes.items()}
    return built


async def replay(sizes: dict[str, int], requests: Iterable[Request], turns: Turns) -> Outcome:
    """The trace as it is, whoever waits."""
    rooms = house(sizes, round(PLACES * sum(sizes.values()) / len(sizes)), turns)
    loop = asyncio.get_running_loop()

    async def one(request: Request) -> float:
        await asyncio.sleep(request.at)
        return await rooms.use(request.model, request.seconds)

    answers = await asyncio.gather(*(one(request) for request in requests), return_exceptions=True)
    waits = [answer for answer in answers if isinstance(answer, float)]
    refused = sum(isinstance(answer, QueueFull | Unavailable) for answer in answers)
    if len(waits) + refused < len(answers):
        raise RuntimeError("Every request is answered or told to come again.")
    rooms.check_quiet()
    return Outcome(waits, refused, _loads(rooms), loop.time())


async def closed_loop(clients: int, pause: float, turns: Turns) -> Outcome:
    """Two models and one place; each client asks again when it has been answered."""
    rooms = house({"a": 4 * 10**9, "b": 4 * 10**9}, 5 * 10**9, turns)
    dice = random.Random(7)
    loop = asyncio.get_running_loop()

    async def client(models: Iterator[str]) -> list[float]:
        waits = []
        for model in models:
            waits.append(await rooms.use(model, dice.expovariate(2.0)))
            await asyncio.sleep(dice.expovariate(1 / pause))
        return waits

    if clients:
        work = [client(iter(model * 50)) for model in "ab" for _ in range(clients)]
    else:
        work = [client(iter("ab" * 50))]
    waits = [wait for each in await asyncio.gather(*work) for wait in each]
    return Outcome(waits, 0, _loads(rooms), loop.time())


def _loads(rooms: House) -> int:
    return sum(what == "loaded" for what, _ in rooms.loader.diary)


def main() -> None:
    """Print the tables."""
    head = f"{'policy':44}   hits   loads  refused  p50 (s)  p95 (s)  max (s)  answers/s"
    for between in SECONDS_BETWEEN:
        sizes, requests = zipf_trace(7, between)
        print(f"Zipf: {REQUESTS} requests for {MODELS} models, budget for {PLACES}, one every {between:g} s\n{head}")
        for name, turns in POLICIES:
            print(f"{name:44}{run(replay(sizes, requests, turns)).row()}", flush=True)
        print()
    for clients in (1, 20):
        print(f"Two models, one place, clients for each: {clients}\n{head}")
        for name, turns in POLICIES[:7]:
            print(f"{name:44}{run(closed_loop(clients, 0.05, turns)).row()}", flush=True)
        print()
    print(f"One client that alternates between two models, one place\n{head}")
    for name, turns in POLICIES[:7]:
        print(f"{name:44}{run(closed_loop(0, 0.05, turns)).row()}", flush=True)


if __name__ == "__main__":
    main()
