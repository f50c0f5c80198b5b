"""``guard``: the optimizer is run on a copy, its result judged, and kept only if it passes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphcheck.cli import main
from tests.test_cli import CONV, WEIGHT, save

COPY = "import shutil, sys; shutil.copyfile(sys.argv[1], sys.argv[2])"
SCALE = """
import sys, onnx
model = onnx.load(sys.argv[1])
weight = onnx.numpy_helper.to_array(model.graph.initializer[0])
model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight * weight.dtype.type(2), "w"))
onnx.save(model, sys.argv[2])
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("model.onnx"), CONV, WEIGHT)


def guard(code: str, *options: str, places: tuple[str, ...] = ("{in}", "{out}")) -> int:
    return main(["guard", "model.onnx", *options, "--", sys.executable, "-c", code, *places])


def test_an_optimizer_that_changes_nothing_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert guard(COPY, "--require", "identical", "-o", "out.onnx") == 0
    assert Path("out.onnx").read_bytes() == Path("model.onnx").read_bytes()
    assert "wrote out.onnx" in capsys.readouterr().out


def test_an_optimizer_that_changes_the_function_is_caught(capsys: pytest.CaptureFixture[str]) -> None:
    assert guard(SCALE, "-o", "out.onnx", "--json", "r.json") == 1
    assert not Path("out.onnx").exists()
    result = json.loads(Path("r.json").read_text())
    assert (result["verdict"], result["b"]["path"]) == ("different", "{out}")
    assert Path(result["witness"]["path"]).is_file()  # and no command that names a file which is gone
    assert result["witness"]["replay"] is None
    assert "out.onnx was not written" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise SystemExit('no luck')", "failed with exit code 1: no luck"),
        ("import os; os.abort()", "was ended by SIGABRT"),
        ("pass", "wrote no {out}"),
        ("import sys; open(sys.argv[2], 'w').close()", "what the command wrote, {out}, is an empty file"),
    ],
)
def test_a_command_that_fails_is_trouble(capsys: pytest.CaptureFixture[str], code: str, said: str) -> None:
    assert guard(code, "-o", "out.onnx") == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and err.count("\n") == 1
    assert not Path("out.onnx").exists()


def test_a_command_that_is_not_there_is_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["guard", "model.onnx", "--", "no-such-optimizer", "{in}", "{out}"]) == 2
    assert "no-such-optimizer: the command cannot be started" in capsys.readouterr().err


def test_the_model_is_safe_from_its_optimizer() -> None:
    before = Path("model.onnx").read_bytes()
    vandal = COPY + "; open(sys.argv[1], 'w').close()"
    assert guard(vandal) == 2 or Path("model.onnx").read_bytes() == before
    assert Path("model.onnx").read_bytes() == before


def test_external_data_goes_along() -> None:
    model = onnx.parser.parse_model(CONV)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((3, 2, 2, 2), np.float32), "w"))
    onnx.save(model, "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    rename = (
        "import sys, onnx; m = onnx.load(sys.argv[1]); "
        "onnx.save(m, sys.argv[2], save_as_external_data=True, location='new.bin', size_threshold=0)"
    )
    assert guard(rename, "-o", "out.onnx") == 0
    assert Path("new.bin").is_file()
    assert main(["compare", "model.onnx", "out.onnx", "--require", "identical"]) == 0
