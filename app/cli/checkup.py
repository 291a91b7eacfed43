"""What ``switchyard doctor`` looks at, one function each. None changes anything."""

import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import psutil
from msgspec import Struct

from app.cli import native
from app.cli.exposure import is_loopback
from app.settings import Settings
from app.settings.keys import read_keys
from app.settings.problem import SettingsProblem
from app.settings.sizes import format_size

Verdict = Literal["ok", "look", "bad"]
GIB = 1 << 30


class Finding(Struct, frozen=True):
    """One line. ``bad`` keeps the service from starting or answering; ``look`` does not."""

    what: str
    verdict: Verdict
    said: str


def findings(settings: Settings, models: Path) -> Iterator[Finding]:
    """Everything, the quick things first. ``models`` is the directory of the hub's cache."""
    yield _backend()
    yield _memory(settings)
    if sys.platform == "darwin":
        yield _wired()
    if native.backend() == "cpu":
        yield _blas()
    yield _exposure(settings)
    yield _port(settings)
    yield _disk(models)
    yield _hub(settings)


def _backend() -> Finding:
    name = native.backend()
    if name is None:
        return Finding("backend", "bad", "no MLX backend is installed; ./docker-free-run.sh installs one")
    return Finding("backend", "ok", name)


def _memory(settings: Settings) -> Finding:
    total, free = psutil.virtual_memory().total, psutil.virtual_memory().available
    budget = settings.memory_budget or int(total * settings.memory_fraction)
    said = f"{total / GIB:.1f} GiB, of which {free / GIB:.1f} are free; the budget is about {budget / GIB:.1f} GiB"
    if budget > total:
        return Finding("memory", "bad", f"{said}: lower memory_budget")
    return Finding("memory", "ok" if free > budget / 4 else "look", said)


def _wired() -> Finding:
    done = subprocess.run(["/usr/sbin/sysctl", "-n", "iogpu.wired_limit_mb"], capture_output=True, check=False)
    limit = done.stdout.decode().strip()
    if limit in {"", "0"}:
        return Finding("wired limit", "ok", "the system's own; `sudo sysctl iogpu.wired_limit_mb=N` raises it")
    return Finding("wired limit", "ok", f"{limit} MiB")


def _blas() -> Finding:
    if native.openblas() is None:
        return Finding(
            "BLAS", "look", f"missing, and matrix products 10 times slower for it; {native.how_to_install()}"
        )
    return Finding("BLAS", "ok", "OpenBLAS")


def _exposure(settings: Settings) -> Finding:
    try:
        keys = read_keys(settings)
    except SettingsProblem as problem:
        return Finding("keys", "bad", str(problem))
    near = is_loopback(settings.host)
    if keys:
        secure = near or settings.tls_certificate is not None
        said = f"{len(keys)} keys" + ("" if secure else "; they travel unencrypted: set tls_certificate")
        return Finding("keys", "ok" if secure else "look", said)
    if near:
        return Finding("keys", "ok", f"none; only this machine reaches {settings.host}")
    if settings.open_to_network:
        return Finding("keys", "look", f"none, and {settings.host} is open to the network")
    return Finding("keys", "bad", f"none, and {settings.host} is open to the network: the service will not start")


def _port(settings: Settings) -> Finding:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((settings.host, settings.port))
        except OSError as failure:
            return Finding("port", "look", f"{settings.host}:{settings.port} cannot be had now ({failure.strerror})")
    return Finding("port", "ok", f"{settings.host}:{settings.port} is free")


def _disk(models: Path) -> Finding:
    place = next((it for it in (models, *models.parents) if it.exists()), Path("/"))
    if not os.access(place, os.W_OK):
        return Finding("disk", "bad", f"{place} cannot be written; models are kept there")
    free = shutil.disk_usage(place).free
    said = f"{format_size(free // GIB * GIB) if free >= GIB else format_size(free)} free for models in {models}"
    return Finding("disk", "ok" if free > 20 * GIB else "look", said)


def _hub(settings: Settings) -> Finding:
    if settings.offline:
        return Finding("hub", "ok", "not asked: offline")
    url = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if not url.startswith(("https://", "http://")):
        return Finding("hub", "bad", "HF_ENDPOINT is no address")
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=5).close()  # noqa: S310
    except urllib.error.HTTPError:
        pass  # it answers
    except (OSError, ValueError) as failure:
        return Finding("hub", "look", f"{url} cannot be reached ({failure}); models on disk are served all the same")
    return Finding("hub", "ok", url)
