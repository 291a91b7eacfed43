"""What stands before OpenBLAS: one row's products are what the others' are, and it is in the way of nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.check import checkup
from app.engine import native
from app.engine.client.environment import environment
from app.engine.paths import cache_home

ROOT = Path(__file__).parents[2]

PRODUCTS = """
import ctypes, itertools, random
from pathlib import Path
import numpy as np

assert "/gemv-" in Path("/proc/self/maps").read_text()
gemm = ctypes.CDLL(None).cblas_sgemm
scalar = ctypes.c_float
random.seed(7)
done = 0
ways = (111, 112), (111, 112), (0.0, 1.0, -0.5), (1, 1, 2, 5)
sizes = (7, 3), (64, 577), (1, 1 << 17), (1 << 17, 1), (300, 577), (5000, 64), (2047, 64), (2048, 64)
for transpose_a, transpose_b, beta, m, (n, k) in itertools.product(*ways, sizes):
    spare_a, spare_b, alpha = random.choice((0, 5)), random.choice((0, 3)), random.choice((1.0, 0.25))
    rows = np.random.default_rng(done)
    a = rows.normal(size=(m, k + spare_a) if transpose_a == 111 else (k, m + spare_a)).astype(np.float32)
    b = rows.normal(size=(k, n + spare_b) if transpose_b == 111 else (n, k + spare_b)).astype(np.float32)
    c = rows.normal(size=(m, n)).astype(np.float32)
    if not beta:
        c[:] = np.nan  # MLX hands over memory that holds anything
    of_a = a[:, :k] if transpose_a == 111 else a[:, :m].T
    of_b = b[:, :n] if transpose_b == 111 else b[:, :k].T
    wanted = alpha * of_a.astype(np.float64) @ of_b + (beta * c if beta else 0)
    pointers = [ctypes.c_void_p(it.ctypes.data) for it in (a, b, c)]
    gemm(101, transpose_a, transpose_b, m, n, k, scalar(alpha), pointers[0], a.shape[1], pointers[1], b.shape[1],
         scalar(beta), pointers[2], n)
    np.testing.assert_allclose(c, wanted, rtol=1e-4, atol=1e-4 * k**0.5)
    done += 1

import mlx.core as mx

mx.set_default_device(mx.cpu)
for shape in ((1, 64, 300), (1, 577, 2000), (3, 64, 300)):
    x, w = mx.random.normal(shape[:2]), mx.random.normal(shape[:0:-1])
    np.testing.assert_allclose(np.array(x @ w.T), np.array(x, np.float64) @ np.array(w).T, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(np.array(mx.addmm(x[:, :1], x, w.T)), np.array(x @ w.T + x[:, :1]), rtol=1e-4, atol=1e-3)
print(done)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory, on a Linux CPU with OpenBLAS and a compiler."""
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if not native.variables():
        pytest.skip("needs OpenBLAS and the CPU backend")
    native.prepare()
    if not list(tmp_path.rglob("*.so")):
        pytest.skip("needs a C compiler")
    return tmp_path


@pytest.mark.usefixtures("home")
def test_a_row_s_products_are_those_of_blas() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRODUCTS], env=environment(), capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.stdout, done.stderr) == ("384\n", "")


def test_it_is_compiled_once_and_stands_first(home: Path) -> None:
    (library,) = home.rglob("*.so")
    before = library.stat().st_mtime_ns
    assert checkup._blas().said == "OpenBLAS"
    assert [it.stat().st_mtime_ns for it in library.parent.iterdir()] == [before]
    assert not library.is_relative_to(cache_home())  # which every model's process may write
    first, second = native.variables()["LD_PRELOAD"].split(":")
    assert first == str(library)
    assert "openblas" in second


@pytest.mark.parametrize("broken", ["no compiler", "one that fails", "no room", "a folder that divides the list"])
def test_openblas_stands_alone_where_it_cannot(broken: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = home / "an other: home"
    monkeypatch.setenv("XDG_CACHE_HOME", str(other if "divides" in broken else home / "empty"))
    if broken == "no room":
        (home / "empty").write_text("a file")
    elif "compiler" in broken or "fails" in broken:
        monkeypatch.setenv("CC", "no-such-compiler" if broken == "no compiler" else "false")
    native.prepare()
    assert "gemv" not in native.variables()["LD_PRELOAD"]
    assert "C compiler" in checkup._blas().said
    assert not [it for it in (home / "empty").rglob("*") if it.suffix == ".so"]


def test_what_was_preloaded_before_stays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", f"/lib/one.so{os.pathsep}/lib/two.so")
    assert native.variables()["LD_PRELOAD"].split(":")[2:] == ["/lib/one.so", "/lib/two.so"]
    assert home.exists()
