"""Tolerances and top-k of the command line: names are checked, and nothing passes that was not measured."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from graphcheck.cli import main


def model(folder: Path, name: str, shape: str, output: str) -> str:
    text = f'<ir_version: 10, opset_import: ["" : 20]> g (float[{shape}] x) => (float[{shape}] {output}) {{ {output} = Relu(x) }}'
    onnx.save(onnx.parser.parse_model(text), folder / name)
    return str(folder / name)


def run(*arguments: str) -> int:
    return main(["compare", *arguments])


def test_tolerances_go_by_the_names_of_either_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = model(tmp_path, "a.onnx", "2,8", "y"), model(tmp_path, "b.onnx", "2,8", "z")
    for name in ("y", "z"):
        assert run(a, b, "--atol", f"{name}:1e-3") == 0
    assert run(a, b, "--atol", "w:1e-3") == 2
    assert "no output is named 'w'; there are y, z" in capsys.readouterr().err


@pytest.mark.parametrize(("shape", "code"), [("2,8", 0), ("2,3,8", 0), ("2,5", 2), ("2,3,1", 2)])
def test_top_k_that_nothing_has_is_no_pass(
    shape: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = model(tmp_path, "a.onnx", shape, "y")
    assert run(a, a, "--top-k", "5") == code
    assert ("no output has rows of more than 5" in capsys.readouterr().err) == (code == 2)
