"""Tolerances and top-k: names are checked, nothing passes that was not measured, and watching costs no run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import graphcheck
from graphcheck.cli import main
from graphcheck.errors import Undecided
from graphcheck.files.model import read
from graphcheck.interface.inputs import Given
from graphcheck.interface.ports import pair_interfaces
from graphcheck.options import Options
from graphcheck.runs import numeric
from graphcheck.runs.child import RemoteSession
from graphcheck.verdicts.executions import Executions


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


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each run of onnxruntime."""
    seen: list[str] = []
    whole = RemoteSession.run

    def run(self: RemoteSession, *arguments: Any, **more: Any) -> Any:
        seen.append("run")
        return whole(self, *arguments, **more)

    monkeypatch.setattr(RemoteSession, "run", run)
    return seen


ASKED = (
    ["--atol", "1"],
    ["--rtol", "1", "--top-k", "5"],
    ["--save-inputs", "in.npz", "--save-outputs", "out.npz"],
    ["--iterations", "3", "--atol", "1"],
    ["--numerics", "full", "--atol", "1"],
)


@pytest.mark.parametrize("asked", ASKED, ids=[" ".join(asked) for asked in ASKED])
def test_watching_the_runs_costs_none(
    asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    a = model(tmp_path, "a.onnx", "2,8", "y")
    kept = [word for word in asked if word not in ("--atol", "1")] if "--atol" in asked else []
    assert run(a, a, *kept) == 0
    plain = len(counted)
    assert plain >= 2 and run(a, a, *asked) == 0
    assert len(counted) == 2 * plain


def test_each_feed_is_run_once_by_each_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("load.py").write_text(
        "import numpy as np\n"
        "def load_data():\n"
        "    for seed in range(3):\n"
        "        yield {'x': np.full((2, 8), float(seed), np.float32)}\n"
    )
    a = model(tmp_path, "a.onnx", "2,8", "y")
    asked = ["--atol", "0", "--save-outputs", "out.npz", "--json", "r.json"]
    assert run(a, a, "--data-loader-script", "load.py", *asked) == 0
    assert len(counted) == 2 * 3 and len(json.loads(Path("r.json").read_text())["numeric"]["runs"]) == 3
    with np.load("out.npz") as saved:
        assert not saved["a/y"].any()  # of the first feed


def test_tolerances_are_keywords_of_python(tmp_path: Path) -> None:
    a, b = model(tmp_path, "a.onnx", "2,8", "y"), model(tmp_path, "b.onnx", "2,8", "z")
    found = graphcheck.compare(a, b, atol=0.0, rtol={"z": 0.5}).evidence["tolerances"]
    assert found["passed"] and (found["atol"], found["rtol"]) == ({"": 0.0}, {"z": 0.5})
    assert "tolerances" not in graphcheck.compare(a, b).evidence


def test_what_was_not_run_has_not_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = numeric.numeric

    def stopped(*arguments: Any, **more: Any) -> Any:
        whole(*arguments, **more)  # a run that keeps the tolerance, and then the end of time
        raise Undecided("no time was left")

    a = model(tmp_path, "a.onnx", "2,8", "y")
    monkeypatch.setattr(numeric, "numeric", stopped)
    assert run(a, a, "--atol", "1") == 3
    assert graphcheck.compare(a, a, atol=1.0).evidence["tolerances"] == {
        "atol": {"": 1.0}, "rtol": {}, "top_k": None, "passed": False, "outputs": [],
    }


def test_a_run_stays_with_its_json_and_few_keep_their_arrays(tmp_path: Path) -> None:
    path = model(tmp_path, "a.onnx", "n,8", "y")
    files = [tmp_path / f"{size}.npz" for size in (2, 3)]
    for size, file in enumerate(files, 2):
        np.savez(file, x=np.ones((size, 8), np.float32))
    given = Options(inputs=files[0], more_inputs=files[1:], numerics="full", threads=1)
    models = (read(path), read(path))
    pairing = pair_interfaces(*models)
    watched = Executions((path, path), models, pairing, given, Given(files[0], pairing))
    watched.execute()
    told = watched._told()
    assert [list(run.shapes["x"]) for run, _ in told] == [row["shape"] for _, row in told]
    assert [run.shapes["x"][0] for run, _ in told] == [2, 3, 2, 3]
    assert [run.shapes["x"][0] for run in watched.runs] == [2, 2] and all(run.a.outputs for run in watched.runs)
    assert not any(run.inputs or run.a.outputs for run, _ in told)
