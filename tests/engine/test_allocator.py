"""Freed arrays are freed memory after a moment without work, whatever lies between them."""

import subprocess
import sys

import pytest

PROGRAM = """
import numpy, psutil
from app.engine.mlx.memory import give_back

held = lambda: psutil.Process().memory_info().rss
before = held()
arrays, between = [], []
for _ in range(500):
    arrays.append(numpy.ones(100_000, dtype=numpy.uint8))
    between.append(numpy.ones(2_000, dtype=numpy.uint8))
full = held() - before
del arrays
give_back()
print(full, held() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's option")
def test_arrays_that_are_freed_go_back_to_the_system() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    full, left = map(int, ran.stdout.split())
    assert full > 45_000_000
    assert left < 10_000_000
