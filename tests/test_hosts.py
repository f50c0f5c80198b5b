"""The package and what plugs into other programs, each in an environment of its own that has the host's own code.

``make hosts`` runs them; environments are kept in ``build/hosts``. In the ordinary suite the same integrations are tested as far
as that goes without the hosts.
"""

from __future__ import annotations

import re
from pathlib import Path

import hosts_support as support
import onnx
import pytest
from hosts_support import ROOT, call

pytestmark = pytest.mark.hosts

# What `pip install graphcheck` alone has to do; it runs outside of the tree.
PLAIN = """
import importlib.util, sys, graphcheck
from importlib import metadata
assert not any(importlib.util.find_spec(name) for name in ("torch", "tensorflow", "pytest", "onnxscript", "mypy"))
assert graphcheck.__version__ == metadata.version("graphcheck") and sys.prefix in graphcheck.__file__
assert graphcheck.compare("conv.onnx", "conv.onnx").verdict == "identical"
assert [site.kernel_shape for site in graphcheck.analyze("conv.onnx").sites] == [(4, 4)]
rewrite = graphcheck.rewrite("conv.onnx", "matmul")
assert rewrite.changed and rewrite.verdict == "proved"
assert graphcheck.compare("conv.onnx", rewrite.model).verdict == "proved"
"""
CONV = """<ir_version: 10, opset_import: ["": 21]> net (float[1,3,8,8] x) => (float[1,8,2,2] y)
<float[8,3,4,4] w = {%s}> { y = Conv <strides = [4, 4]> (x, w) }"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return support.wheel(tmp_path_factory.mktemp("dist"))


def models(folder: Path) -> Path:
    """Writes a patch embedding to a folder, and one of which a weight is wrong."""
    for name, first in (("conv", 0.0), ("wrong", 1.0)):
        weights = [first, *((i * 7 % 31) / 16 for i in range(1, 384))]
        proto = onnx.parser.parse_model(CONV % ", ".join(map(str, weights)))
        (folder / f"{name}.onnx").write_bytes(proto.SerializeToString())
    return folder


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_package_alone_compares_analyzes_and_rewrites(version: str, wheel: Path, tmp_path: Path) -> None:
    python = support.pythons().get(version)
    if python is None:
        pytest.skip(f"Python {version} is not at hand")
    env = support.environment(f"plain-{version}", wheel, python=python) / "bin"
    call(env / "python", "-W", "error", "-c", PLAIN, cwd=models(tmp_path))
    assert "proved" in call(
        env / "graphcheck", "rewrite", "conv.onnx", "-o", "matmul.onnx", "--to", "matmul", cwd=tmp_path
    )
    assert "proved" in call(env / "graphcheck", "compare", "conv.onnx", "matmul.onnx", cwd=tmp_path)
    assert "different" in call(env / "graphcheck", "compare", "conv.onnx", "wrong.onnx", cwd=tmp_path, code=1)
    assert "4" in call(env / "graphcheck", "analyze", "conv.onnx", cwd=tmp_path)
    told = call(env / "graphcheck", "export", "article-keras", cwd=tmp_path, code=2)
    assert "graphcheck[keras]" in told and "Traceback" not in told


def test_the_passes_run_in_olive(wheel: Path) -> None:
    # requests: Olive imports it and does not ask for it
    env = support.environment(
        "olive", wheel, ("olive-ai==0.13.0", "requests", "pytest", "pytest-timeout", "hypothesis")
    )
    told = call(env / "bin/python", "-m", "pytest", "-q", "tests/test_rewriting_olive.py")
    assert re.search(r"\d+ passed", told) and "skipped" not in told
    assert str(ROOT) in call(env / "bin/python", "-c", "import graphcheck; print(graphcheck.__file__)", cwd=ROOT)
