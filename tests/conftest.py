"""Before anything else: Hypothesis looks for whoever holds a generator of random numbers.

It does not find objects that a model's load has settled (``app.engine.mlx.memory.settle``).
"""

import os
import signal
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

ENGINE = Path(__file__).parent / "engine"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--gpu", action="store_true", help="the engine's tests, on this machine's GPU, and no others")


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as under nohup; programs inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.setdefault("SWITCHYARD_DISK_CACHE", "0")  # services of tests find nothing of each other's
    hypothesis.settings.register_profile("untimed", deadline=None)  # a slow moment of the machine is no fault
    hypothesis.settings.load_profile("untimed")
    config.addinivalue_line("markers", "not_on_cuda(reason): fails there, and why that is no fault")
    if config.getoption("--gpu"):
        os.environ["MLX_ENABLE_TF32"] = "0"  # what is compared with numpy or mlx-lm is compared in float32


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marked = [(item, mark) for item in items for mark in item.iter_markers("not_on_cuda")]
    if not marked and not config.getoption("--gpu"):
        return
    import mlx.core as mx  # noqa: PLC0415

    for item, mark in marked if mx.cuda.is_available() else ():
        item.add_marker(pytest.mark.skip(reason=mark.args[0]))
    if config.getoption("--gpu"):
        if mx.default_device() == mx.Device(mx.cpu):
            raise pytest.UsageError("--gpu: MLX sees no GPU here, or its backend for this machine is not installed.")
        config.hook.pytest_deselected(items=[item for item in items if ENGINE not in item.path.parents])
        items[:] = [item for item in items if ENGINE in item.path.parents]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What was logged of names that no UTF-8 has is sent to whoever gathers reports in letters that it has."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report
