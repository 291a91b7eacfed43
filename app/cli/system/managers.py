"""What runs services on this machine: launchd on macOS, systemd's user instance elsewhere."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from app.cli.exits import Exit, leave
from app.cli.system import unit

PATIENCE = 30.0
"""Seconds beyond the grace period within which launchd must have let go of what it ran."""
_POLL = 0.2
_GUARDED = ("Documents", "Desktop", "Downloads", "Library/Mobile Documents", "Library/CloudStorage")
"""Folders of a home that macOS shows to a program only if its user has said so; an agent has nobody to ask."""


class Manager(Protocol):
    """One system's way to run a service of the user."""

    file: Path
    """The description of this one."""

    def text(self, config: Path | None, grace: float, environ: Mapping[str, str]) -> str:
        """What to write there."""

    def start(self, grace: float) -> None:
        """Run what the file describes, in place of what runs already. Ends the process with one line on failure."""

    def stop(self, grace: float) -> None:
        """Run it no longer; nothing if it does not run."""

    def forget(self) -> None:
        """Take notice that the file is gone."""

    def status(self) -> int:
        """Show what the system says of it; an exit code."""

    def warnings(self, paths: list[Path]) -> Iterator[str]:
        """What may keep it from reading ``paths``."""


def manager() -> Manager:
    """The one of this machine."""
    if sys.platform == "darwin":
        return Launchd(Path.home(), os.getuid())
    config = os.environ.get("XDG_CONFIG_HOME")
    return Systemd(Path.home() / ".config" if config is None else Path(config))


class Systemd:
    """``systemctl --user``. ``config`` is where the user's configuration lies."""

    def __init__(self, config: Path) -> None:
        self.file = config / "systemd" / "user" / "switchyard.service"

    def text(self, config: Path | None, grace: float, environ: Mapping[str, str]) -> str:
        """A unit."""
        return unit.systemd(config, grace=grace, environ=environ)

    def start(self, grace: float) -> None:  # noqa: ARG002  systemd waits by itself
        """Reload, enable, and run it with what the file says now."""
        self._call("daemon-reload")
        self._call("enable", "switchyard")
        self._call("restart", "switchyard")

    def stop(self, grace: float) -> None:  # noqa: ARG002
        """Disable and stop."""
        run("systemctl", "--user", "disable", "--now", "switchyard")

    def forget(self) -> None:
        """Reload."""
        run("systemctl", "--user", "daemon-reload")

    def status(self) -> int:
        """Its state and last lines."""
        return run("systemctl", "--user", "status", "--no-pager", "switchyard")

    def warnings(self, paths: list[Path]) -> Iterator[str]:  # noqa: ARG002  the unit is told of all of them
        """None."""
        yield from ()

    def _call(self, *words: str) -> None:
        if run("systemctl", "--user", *words):
            leave(Exit.FAILED, f"`systemctl --user {' '.join(words)}` failed; the lines above say why")


class Launchd:
    """An agent of user ``uid`` with the directory ``home``.

    Its domain is ``gui/UID`` where the user is logged in at the screen, else ``user/UID``: a Mac that is only reached
    by ssh has no other. An agent of the same name can be in each of them.
    """

    def __init__(self, home: Path, uid: int) -> None:
        self.file = home / "Library" / "LaunchAgents" / f"{unit.LABEL}.plist"
        self._home = home
        self._domains = (f"gui/{uid}", f"user/{uid}")

    def text(self, config: Path | None, grace: float, environ: Mapping[str, str]) -> str:
        """A property list."""
        log = self._home / "Library" / "Logs" / "switchyard.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        session = "Aqua" if self._domain() == self._domains[0] else "Background"
        return unit.launchd(config, grace=grace, log=log, environ=environ, session=session)

    def start(self, grace: float) -> None:
        """Take out what is loaded, wait until it is gone (launchd refuses what is still leaving), load the file."""
        self.stop(grace)
        domain = self._domain()
        run("launchctl", "enable", f"{domain}/{unit.LABEL}", quiet=True)  # who once disabled it wants it again
        command = ("launchctl", "bootstrap", domain, str(self.file))
        if run(*command, quiet=True):
            time.sleep(_POLL)  # error 5 in the moment after a bootout
            if run(*command):
                leave(Exit.FAILED, f"`{' '.join(command)}` failed; the lines above say why")

    def stop(self, grace: float) -> None:
        """Out of every domain, and gone."""
        for domain in self._domains:
            name = f"{domain}/{unit.LABEL}"
            if not self._is_loaded(name):
                continue
            run("launchctl", "bootout", name, quiet=True)
            deadline = time.monotonic() + grace + PATIENCE
            while self._is_loaded(name):
                if time.monotonic() > deadline:
                    leave(Exit.FAILED, f"launchd still runs {name}; `launchctl kill KILL {name}`, then try again")
                time.sleep(_POLL)

    def forget(self) -> None:
        """Nothing: launchd reads the file when it loads it."""

    def status(self) -> int:
        """What launchd prints of it."""
        for domain in self._domains:
            if self._is_loaded(f"{domain}/{unit.LABEL}"):
                return run("launchctl", "print", f"{domain}/{unit.LABEL}")
        sys.stderr.write("switchyard: launchd does not run it; `switchyard service install` starts it\n")
        return Exit.FAILED

    def warnings(self, paths: list[Path]) -> Iterator[str]:
        """Paths in folders that macOS guards."""
        for folder in (*(self._home / name for name in _GUARDED), Path("/Volumes")):
            for path in paths:
                if path.is_relative_to(folder):
                    yield (
                        f"{path} lies in {folder}, which macOS hides from programs that launchd runs: move it, or give "
                        f"{sys.executable} Full Disk Access in the system settings (Privacy & Security)"
                    )

    def _domain(self) -> str:
        """Where an agent of this user belongs now."""
        there = run("launchctl", "print", self._domains[0], quiet=True) == 0
        return self._domains[0] if there else self._domains[1]

    def _is_loaded(self, name: str) -> bool:
        return run("launchctl", "print", name, quiet=True) == 0


def run(*command: str, quiet: bool = False) -> int:
    """The exit code of a system's own program; ends the process with one line where there is none."""
    program = shutil.which(command[0])
    if program is None:
        leave(Exit.FAILED, f"{command[0]} was not found; start the service in the way of this system")
    output = subprocess.DEVNULL if quiet else None
    return subprocess.run([program, *command[1:]], stdout=output, stderr=output, check=False).returncode  # noqa: S603
