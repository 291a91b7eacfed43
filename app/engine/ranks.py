"""A model over several ranks, as the service, rank 0 and the others all know it. No MLX.

Rank 0 is the engine's process; the others are started beside it and repeat what it does to their own part of the model.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Literal

from msgspec import Struct

Backend = Literal["ring", "jaccl", "jaccl-ring", "nccl"]
"""How ranks add up what each has computed: TCP, RDMA over Thunderbolt (all with all, or in a ring), CUDA's NCCL."""


HERE = ("127.0.0.1", "localhost")
"""What host files call this machine."""


class RankHost(Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of ``mlx.launch``'s host file: where ssh goes, addresses of the ring, RDMA devices to each host."""

    ssh: str
    ips: tuple[str, ...] = ()
    rdma: tuple[str | list[str] | None, ...] = ()


class Ranks(Struct, frozen=True):
    """How a model is divided: over ``count`` processes of this machine, or over the hosts of the file ``hosts``."""

    count: int = 0
    hosts: str | None = None

    def spread(self, *, one_memory: bool) -> tuple[int, int]:
        """How many ranks there are, and how many share this one's memory: all on one machine, if it has one memory.

        A host file that cannot be read counts two machines; the load says what is wrong with it.
        """
        if self.hosts is None:
            return self.count, self.count if one_memory else 1
        try:
            content = json.loads(Path(self.hosts).read_text(encoding="utf-8"))
            hosts = [host["ssh"] for host in (content["hosts"] if isinstance(content, dict) else content)]
        except (OSError, ValueError, KeyError, TypeError):
            return 2, 1
        return max(len(hosts), 1), max(1, sum(host in HERE for host in hosts)) if one_memory else 1


class Seat(Struct, frozen=True):
    """What one rank is told when it starts, over a pipe, since ``secret`` (hex) is for nobody else.

    ``variables`` and ``files`` are for MLX: a file is written to disk and its variable names the place. ``door`` is
    where rank 0 waits for the others: a descriptor that it inherits, or for the others a host and a port. ``beside``
    counts the ranks that share this one's memory, itself among them.
    """

    rank: int
    size: int
    backend: Backend
    secret: str
    variables: dict[str, str]
    files: dict[str, str]
    door: int | tuple[str, int]
    beside: int
    leader: int
    """The process of rank 0, where that is on the same machine, else 0."""
    names: tuple[str, ...]
    """What people call each rank: ``rank 1 (mac-2)``."""


class RankState(Struct, frozen=True, array_like=True):
    """One rank now: its process and its memory in bytes; ``host`` is empty on this machine."""

    rank: int
    pid: int
    resident: int
    active: int
    pool: int
    host: str = ""


SILENCE, LOADING_SILENCE = 3.0, 60.0
"""Seconds without a word after which a rank is taken for frozen; while a model is loaded libraries come from a slow
disk, and kernels are compiled.
"""
FROZEN, GONE, FAILED = 75, 76, 77
"""Exit codes of a rank that rank 0 has left alone: silent, its connection closed; or that failed by itself."""


def prepare(seat: Seat) -> None:
    """Set what MLX looks for in its environment; to be called before it is imported."""
    os.environ.update(seat.variables)
    for name, content in seat.files.items():
        with tempfile.NamedTemporaryFile("w", prefix="switchyard-", suffix=".json", delete=False) as file:
            file.write(content)
        os.environ[name] = file.name


def tidy(seat: Seat) -> None:
    """Remove the files that :func:`prepare` wrote, once they have been read."""
    for name in seat.files:
        Path(os.environ.pop(name)).unlink(missing_ok=True)
