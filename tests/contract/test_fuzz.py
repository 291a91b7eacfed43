"""Odd bodies against the service as people start it: none breaks it, none hangs. ``benchmarks/fuzz.py`` asks more."""

from pathlib import Path

from tests.support.fuzz import fuzz
from tests.support.process import service
from tests.support.tiny import make_tiny


async def test_no_body_made_from_the_served_document_breaks_the_service(tmp_path: Path) -> None:
    make_tiny(tmp_path / "tiny", seed=0, context=256)
    with service(
        "--offline", "--model-root", str(tmp_path), "--default-model", "tiny", HF_HOME=str(tmp_path / "hf")
    ) as running:
        outcome = await fuzz(running.url, "tiny", count=150, seed=1)
        assert outcome.broken == []
        assert outcome.statuses.total() == 150
        assert outcome.statuses[200] > 30
        assert outcome.statuses[400] > 30
        assert "Traceback" not in running.log
