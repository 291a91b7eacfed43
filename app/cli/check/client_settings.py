"""Settings of clients that are found on this machine, and whether they lead to this service. Keys are not read."""

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from app.cli.clients.agents import agents

VARIABLES = ("OPENAI_BASE_URL", "OPENAI_API_BASE", "ANTHROPIC_BASE_URL", "OLLAMA_HOST")
FILES = {
    "codex": ".codex/config.toml",
    "claude": ".claude/settings.json",
    "opencode": ".config/opencode/opencode.json",
    "qwen": ".qwen/settings.json",
    "pi": ".pi/agent/models.json",
    "aider": ".aider.conf.yml",
    "continue": ".continue/config.yaml",
    "zed": ".config/zed/settings.json",
    "llm": ".config/io.datasette.llm/extra-openai-models.yaml",
}
"""Where clients keep their settings, below the home directory."""
MOST_BYTES = 1 << 20
NO_ADDRESS = "what is no address"
NEAR = re.compile(r"https?://(?:localhost|127\.0\.0\.1|\[::1\]|0\.0\.0\.0)(?::\d{1,5})?(?=[/\"'\s,}]|$)")


def installed() -> tuple[str, ...]:
    """The clients that ``switchyard launch`` knows and finds."""
    return tuple(sorted(name for name, agent in agents().items() if shutil.which(agent.program)))


def led(home: Path, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Where clients are told to find a service: who says so, and the address without what could be secret in it."""
    for name in VARIABLES:
        if environ.get(name):
            yield name, _plain(environ[name])
    for place in FILES.values():
        for url in _named(home / place):
            yield f"~/{place}", url


def leads_elsewhere(url: str, port: int) -> bool:
    """Whether an address of this machine is another port's."""
    try:
        parts = urlsplit(url)
        found = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return True
    return NEAR.match(url) is not None and found != port


def _named(file: Path) -> tuple[str, ...]:
    """Addresses of this machine that stand in a file."""
    try:
        with file.open("rb") as opened:
            text = opened.read(MOST_BYTES).decode(errors="replace")
    except OSError:
        return ()
    return tuple(dict.fromkeys(NEAR.findall(text)))


def _plain(url: str) -> str:
    """Without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return NO_ADDRESS
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return NO_ADDRESS
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"
