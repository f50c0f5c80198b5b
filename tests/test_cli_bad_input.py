"""Bad input: exit code 2, one sentence that names the file and the cause, no traceback, nothing left behind."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphcheck.cli import main
from tests.test_cli import CONV, WEIGHT, save

COMMANDS = {
    "analyze": ["analyze", "BAD", "--json", "out.json", "--report", "out.html"],
    "compare, as A": ["compare", "BAD", "good.onnx", "--json", "out.json", "--report", "out.html"],
    "compare, as B": ["compare", "good.onnx", "BAD", "--save-inputs", "out.npz", "--atol", "1"],
    "rewrite": ["rewrite", "BAD", "-o", "out.onnx"],
    "guard": ["guard", "BAD", "-o", "out.onnx", "--", "cp", "{in}", "{out}"],
}


def external(path: Path, data: bytes | None) -> None:
    model = onnx.parser.parse_model(CONV)
    tensor = onnx.numpy_helper.from_array(WEIGHT, "w")
    onnx.external_data_helper.set_external_data(tensor, "weights.bin")
    tensor.ClearField("raw_data")
    model.graph.initializer.append(tensor)
    path.write_bytes(model.SerializeToString())
    if data is not None:
        path.with_name("weights.bin").write_bytes(data)


def refused(path: Path) -> None:
    model = onnx.parser.parse_model(CONV.replace("Conv<", "NoSuchOperator<"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(WEIGHT, "w"))
    path.write_bytes(model.SerializeToString())


def cut(path: Path) -> None:
    save(path, CONV, np.zeros((3, 2, 64, 64), np.float32))
    path.write_bytes(path.read_bytes()[:-1000])


# what is wrong -> (how to make it, what the sentence says)
BAD = {
    "missing": (lambda path: None, "there is no such file"),
    "empty": (lambda path: path.write_bytes(b""), "is an empty file"),
    "directory": (lambda path: path.mkdir(), "is a directory"),
    "random": (lambda path: path.write_bytes(random.Random(1).randbytes(5000)), "is not an ONNX model"),
    "text": (lambda path: path.write_text("not a model\n" * 50), "is not an ONNX model"),
    "truncated": (cut, "cut off"),
    "another protobuf": (lambda path: path.write_bytes(onnx.TensorProto(dims=[1], name="t").SerializeToString()), ""),
    "an empty message": (lambda path: path.write_bytes(onnx.ModelProto(ir_version=8).SerializeToString()), "no graph"),
    "refused by the checker": (refused, "is refused by the ONNX checker"),
    "external data missing": (lambda path: external(path, None), "external data file 'weights.bin' is missing"),
    "external data short": (lambda path: external(path, b"123"), "external data file 'weights.bin' is too short"),
}


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error of a run that exits with 2 and prints nothing else."""
    capsys.readouterr()
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "Traceback" not in err
    return err


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_bad_model_is_named_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("good.onnx"), CONV, WEIGHT)
    make, cause = BAD[kind]
    make(Path("bad.onnx"))
    before = sorted(tmp_path.iterdir())
    err = complaint([argument.replace("BAD", "bad.onnx") for argument in COMMANDS[command]], capsys)
    assert err.startswith("graphcheck: bad.onnx: ") and cause in err
    assert sorted(tmp_path.iterdir()) == before


# arguments -> what the sentence says is allowed
USAGE = [
    ("compare a.onnx", "Missing argument 'B'"),
    ("compare a.onnx b.onnx c.onnx", "unexpected extra argument"),
    ("compare good.onnx good.onnx --require equal", "'identical', 'proved', 'within-rounding'"),
    ("compare good.onnx good.onnx --numerics fast", "'quick', 'full'"),
    ("compare good.onnx good.onnx --top-k 3", "'1', '5'"),
    ("compare good.onnx good.onnx --shape 1,2", "NAME=SIZE,SIZE,..."),
    ("compare good.onnx good.onnx --shape z=1,2,4,4", "no input is named 'z'"),
    ("compare good.onnx good.onnx --shape x=1,2", "rank 4, not 2"),
    ("compare good.onnx good.onnx --val-range x=1", "NAME=LOW,HIGH"),
    ("compare good.onnx good.onnx --val-range x=2,1", "the lower one first"),
    ("compare good.onnx good.onnx --seed -1", "greater than or equal to 0"),
    ("compare good.onnx good.onnx --seed x", "valid integer"),
    ("compare good.onnx good.onnx --timeout 0", "seconds above 0"),
    ("compare good.onnx good.onnx --error-probability 2", "between 0 and 1"),
    ("compare good.onnx good.onnx --ignore-output z", "no output is named z"),
    ("compare good.onnx good.onnx --inputs none.npz", "none.npz: there is no such file"),
    ("compare good.onnx good.onnx --inputs good.onnx", "good.onnx: is not a .npz file"),
    ("compare good.onnx good.onnx --data-loader-script none.py", "none.py: there is no such loader script"),
    ("compare good.onnx good.onnx --providers NoneSuch", "it has "),
    ("compare good.onnx good.onnx --atol -1", "a number of at least 0"),
    ("compare good.onnx good.onnx --atol 1 --no-run", "not with --no-run"),
    ("compare good.onnx good.onnx --json none/out.json", "there is no folder none"),
    ("compare good.onnx good.onnx --json .", "is a directory"),
    ("rewrite good.onnx --to conv", "--out FILE"),
    ("rewrite good.onnx --to winograd -o out.onnx", "the forms are conv, matmul"),
    ("rewrite good.onnx --to matmul --site z -o out.onnx", "there is no site 'z'"),
    ("export", "or give --all"),
    ("export no-such-model", "no such variant or family"),
    ("export --list --seed x", "valid integer"),
    ("report good.onnx", "is not a JSON result of graphcheck"),
    ("report none.json", "there is no such file"),
    ("guard good.onnx -- cp {in} x", "must name {out}"),
    ("demo --family none", "it has article-keras"),
    ("prove good.onnx", "No such command"),
    ("compare good.onnx good.onnx --tolerance 1", "No such option"),
]


@pytest.mark.parametrize(("arguments", "said"), USAGE, ids=[arguments for arguments, _ in USAGE])
def test_a_wrong_option_is_told_what_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("good.onnx"), CONV, WEIGHT)
    assert said in complaint(arguments.split(), capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["good.onnx"]


def test_a_loader_script_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("good.onnx"), CONV, WEIGHT)
    for text, said in (
        ("def load_data():\n    raise KeyError('k')", "fails with KeyError"),
        ("x = 1", "defines no function 'load_data'"),
        ("def load_data():\n    return []", "at least one"),
        ("exit(1)", "fails with SystemExit"),
    ):
        Path("load.py").write_text(text)
        err = complaint(["compare", "good.onnx", "good.onnx", "--data-loader-script", "load.py"], capsys)
        assert "load.py: " in err and said in err


def test_a_report_of_a_strange_result_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("{}", "[1]", '{"schema": "graphcheck/none/9"}', '{"schema": "graphcheck/compare/1"}', "\x00"):
        Path("r.json").write_text(text)
        complaint(["report", "r.json", "-o", "out.html"], capsys)
        assert not Path("out.html").exists()
