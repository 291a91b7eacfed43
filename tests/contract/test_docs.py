"""The examples of docs/api.md say what the page says they say."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from tests.support.process import service

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
EXAMPLE = re.compile(r"^```python\n(.*?)^```$(?:\n\n^```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:8000"


@pytest.mark.skipif(mx.default_device() != mx.Device(mx.cpu), reason="the page shows what float32 on a CPU gives")
def test_the_examples_print_what_stands_below_them(tmp_path: Path) -> None:
    examples = EXAMPLE.findall(PAGE)
    assert ADDRESS in examples[0][0]
    assert sum(bool(printed) for _, printed in examples) >= 6
    with service("--offline", HF_HOME=str(tmp_path)) as running:
        names: dict[str, Any] = {}
        for program, printed in examples:
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(program.replace(ADDRESS, running.url), names)  # noqa: S102  our own page
            assert out.getvalue() == printed
        names["client"].close()
