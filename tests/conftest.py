"""What every test shares: seeds, threads, no network, and what a marked test needs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile

import pytest
from hypothesis import settings

# Set before numpy loads: the order of BLAS's sums depends on its threads, and pytest-xdist already fills the cores.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Deterministic unless asked otherwise: `pytest --hypothesis-profile=explore` looks for new examples.
settings.register_profile("deterministic", derandomize=True, deadline=None, database=None, print_blob=True)
settings.register_profile("explore", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("deterministic")

# marker -> the modules (or programs, any of which will do) that its tests need
MODULES = {
    "torch": ("torch", "onnxscript", "transformers"),
    "keras": ("tensorflow", "keras", "tf2onnx"),
}
PROGRAMS = {"browser": ("chromium", "chromium-browser", "google-chrome")}


def missing_for(marker: str) -> str | None:
    """What a test with ``marker`` needs and this machine lacks, in words; None if nothing."""
    if absent := [name for name in MODULES.get(marker, ()) if importlib.util.find_spec(name) is None]:
        return f"{', '.join(absent)} (pip install 'graphcheck[{marker}]')"
    programs = PROGRAMS.get(marker, ())
    return None if not programs or any(map(shutil.which, programs)) else f"one of {', '.join(programs)}"


def pytest_configure() -> None:
    """Inputs that commands keep go to a folder of this run, not to the user's own."""
    os.environ["GRAPHCHECK_CACHE"] = tempfile.mkdtemp(prefix="graphcheck-tests-")


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ.pop("GRAPHCHECK_CACHE"), ignore_errors=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a marked test whose needs are absent; with GRAPHCHECK_REQUIRE_<MARKER> set, fails it instead."""
    for marker in (*MODULES, *PROGRAMS):
        if item.get_closest_marker(marker) and (missing := missing_for(marker)):
            required = os.environ.get(f"GRAPHCHECK_REQUIRE_{marker.upper()}")
            (pytest.fail if required else pytest.skip)(f"needs {missing}")
