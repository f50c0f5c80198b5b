"""The package as others get it: what is in it, its metadata, and its types as a consumer's mypy sees them."""

from __future__ import annotations

import email
import email.message
import re
import zipfile
from pathlib import Path

import hosts_support as support
import pytest
from hosts_support import ROOT, call

import graphcheck

# What a consumer writes; mypy --strict has to see the types of the installed package.
CONSUMER = """
import graphcheck
from graphcheck import Comparison, Verdict

def same(a: str, b: str) -> bool:
    found: Comparison = graphcheck.compare(a, b, seed=1)
    return found.verdict.meets(Verdict.PROVED)

sites: list[str] = [site.name for site in graphcheck.analyze("m.onnx").sites]
changed: bool = graphcheck.rewrite("m.onnx", "matmul").changed
guilty: str = graphcheck.blame("m.onnx", "dump.npz").verdict.value
"""
# Wrong uses of it, each with what mypy says.
MISUSES = {
    "graphcheck.compare('a', 'b').verdict + 1": "Unsupported operand types",
    "graphcheck.compare('a', 'b').verdikt": 'has no attribute "verdikt"',
    "graphcheck.compare()": "Too few arguments|Missing positional arguments",
    "graphcheck.compare('a', 'b', sed=1)": 'Unexpected keyword argument "sed"',
    "graphcheck.analyze('m').sites[0].kernel_shape + 'x'": "No overload variant",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return support.wheel(tmp_path_factory.mktemp("dist"))


def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    kept = {p for p in (ROOT / "graphcheck").rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert held == {path.relative_to(ROOT).as_posix() for path in kept} and "graphcheck/py.typed" in held


@pytest.mark.slow
def test_the_metadata_is_that_of_the_tree(wheel: Path) -> None:
    told = metadata(wheel)
    assert told["Name"] == "graphcheck" and told["Version"] == graphcheck.__version__
    assert told["Requires-Python"] == ">=3.11" and told["License-Expression"] == "Apache-2.0"
    assert "# graphcheck" in str(told.get_payload())
    assert {"torch", "keras", "dask", "docs", "dev"} == set(told.get_all("Provides-Extra") or ())
    required = [line for line in told.get_all("Requires-Dist") or () if "extra ==" not in line]
    assert {re.split(r"[<>=]", line)[0] for line in required} >= {"onnx", "onnxruntime", "numpy"}
    assert not any(name in line for line in required for name in ("torch", "tensorflow", "pytest"))
    assert re.fullmatch(r"\d+\.\d+\.\d+", graphcheck.__version__)


@pytest.mark.slow
def test_a_consumer_of_the_installed_package_sees_its_types(wheel: Path, tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    python = support.beside(tmp_path / "env", wheel) / "bin" / "python"
    assert call(python, "-c", "import graphcheck; print(graphcheck.__file__)", cwd=tmp_path).startswith(str(tmp_path))
    (tmp_path / "consumer.py").write_text(CONSUMER)
    (tmp_path / "misuses.py").write_text("import graphcheck\n" + "\n".join(MISUSES))
    mypy = (python, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache")
    assert "no issues found" in call(*mypy, "consumer.py", cwd=tmp_path)
    told = call(*mypy, "misuses.py", cwd=tmp_path, code=1)
    for line, (misuse, error) in enumerate(MISUSES.items(), 2):
        assert re.search(rf"^misuses.py:{line}: error: .*({error})", told, re.M), f"{misuse}\n{told}"
