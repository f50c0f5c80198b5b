"""``guard --passes``: each pass alone and in order, the first that changes the function named; a pass that crashes is a row."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphcheck.cli import main
from graphcheck.errors import GraphcheckError
from graphcheck.guarding import child, tools
from graphcheck.guarding.runners import OfTool

ROOT = Path(__file__).parent.parent
HEAD = '<ir_version: 10, opset_import: ["": 21]> g (float[2] x) => (float[2] y) '
CLIPS = HEAD + "<float a = {0}, float b = {2}, float c = {3}, float d = {5}> { t = Clip (x, a, b) y = Clip (t, c, d) }"
PLAIN = HEAD + "<float two = {2}> { i = Identity (x) t = Mul (i, two) y = Relu (t) }"
# An optimizer of somebody's own, in which each pass is a line.
TOOL = """
import os, sys
if sys.argv[1:] == ["--list"]:
    sys.exit(print("copy\\nidentity vandal crash scale empty last"))
import onnx
_, name, given, made = sys.argv
with open("log", "a") as log:
    log.write(name + "\\n")
model = onnx.load(given)
nodes = model.graph.node
if name == "identity":
    nodes[1].input[0] = "x"
    del nodes[0]
if name == "crash":
    os.abort()
if name == "scale":
    model.graph.initializer[0].float_data[:] = [3.0]
if name == "last":
    assert nodes[0].op_type == "Mul" and model.graph.initializer[0].float_data[0] == 2.0, nodes[0].op_type
    nodes[-1].name = "last"
onnx.save(model, made)
if name == "empty":
    open(made, "w").close()
if name == "vandal":
    open(given, "w").close()
"""


def save(text: str, name: str = "model.onnx") -> None:
    Path(name).write_bytes(onnx.parser.parse_model(text).SerializeToString())


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows(file: str = "r.json") -> dict[str, dict[str, Any]]:
    return {row["pass"]: row for row in json.loads(Path(file).read_text())["passes"]}


def verdicts(row: dict[str, Any]) -> tuple[str, str]:
    return row["alone"]["verdict"], row["in_order"]["verdict"]


@pytest.mark.slow
def test_somebodys_own_passes(capsys: pytest.CaptureFixture[str]) -> None:
    save(PLAIN)
    Path("tool.py").write_text(TOOL)
    own = [sys.executable, "tool.py"]
    arguments = ["--json", "r.json", "--reduce", "cut", "-o", "out.onnx", "--report", "r.html"]
    listing = shlex.join([*own, "--list"])
    assert main(["guard", "model.onnx", "--passes-from", listing, *arguments, "--", *own, "{pass}", "{in}", "{out}"]) == 1
    said = capsys.readouterr().out
    found, result = rows(), json.loads(Path("r.json").read_text())
    assert list(found) == ["copy", "identity", "vandal", "crash", "scale", "empty", "last"]
    assert verdicts(found["vandal"]) == ("identical", "identical")
    assert verdicts(found["copy"]) == ("identical", "identical") and not found["copy"]["alone"]["changes"]
    assert verdicts(found["identity"]) == ("proved", "proved") and found["identity"]["in_order"]["nodes"] == [3, 2]
    assert verdicts(found["crash"]) == ("trouble", "trouble") and "SIGABRT" in found["crash"]["alone"]["reason"]
    assert verdicts(found["scale"]) == ("different", "different")
    assert found["empty"]["in_order"]["reason"].startswith("what it wrote is an empty file")
    # Alone it meets the Identity, and fails; in order it goes on from what was established, without the scaled weight.
    assert verdicts(found["last"]) == ("trouble", "identical")
    first = result["first"]
    assert (first["pass"], first["how"], first["behind"]) == ("scale", "in order", ["identity"])
    assert first["comparison"]["a"]["path"] == "model.onnx behind identity" and first["comparison"]["witness"]["path"]
    assert first["comparison"]["divergence"]["b"]["op_type"] == "Mul" and first["comparison"]["reduced"]
    assert len(list(Path("cut").glob("*.onnx"))) == 2 and Path("r.html").is_file()
    assert "scale is the first that changes the function, in the usual order, behind identity" in said
    assert main(["report", "r.json", "-o", "again.html"]) == 0 and Path("again.html").stat().st_size > 10_000
    assert result["kept"]["verdict"] == "proved" and result["whole"] is None and result["output"] == "out.onnx"
    assert [node.op_type for node in onnx.load("out.onnx").graph.node] == ["Mul", "Relu"]
    # Each pass ran once on the model, and once more only where those before it had changed it.
    assert sorted(Path("log").read_text().split()) == sorted(
        ["copy", "identity", "vandal", "vandal", "crash", "crash", "scale", "scale", "empty", "empty", "last", "last"]
    )


def test_onnxscripts_rule_that_merges_two_clips_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    save(CLIPS)
    wanted = "onnxscript:RemoveUnusedNodesPass,FuseSuccessiveClip,OutputFixPass"
    assert main(["guard", "model.onnx", "--passes", wanted, "--json", "r.json"]) == 1
    found, result = rows(), json.loads(Path("r.json").read_text())
    assert list(found) == ["(no pass)", "RemoveUnusedNodesPass", "FuseSuccessiveClip", "OutputFixPass"]
    assert verdicts(found["FuseSuccessiveClip"]) == ("different", "different")
    others = [row for name, row in found.items() if name != "FuseSuccessiveClip"]
    assert all(verdicts(row) == ("identical", "identical") and not row["alone"]["changes"] for row in others)
    assert result["first"]["pass"] == "FuseSuccessiveClip" and result["tool"].startswith("onnxscript ")
    assert "3 passes changed nothing" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wanted", "changed"),
    [
        ("onnxruntime:EliminateIdentity,NoopElimination,ConstantFolding", {"EliminateIdentity"}),
        ("onnxsim:eliminate_identity,eliminate_nop_pad,constant_folding", {"eliminate_identity"}),
        ("onnxslim:FusionConvBN,dead_node_elimination,weight_tying", {"dead_node_elimination"}),
        ("onnxscript:mul_by_1_rule-2,IdentityEliminationPass,NameFixPass", {"IdentityEliminationPass"}),
    ],
)
def test_a_pass_runs_alone(wanted: str, changed: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    save(PLAIN)
    arguments = ["--json", "r.json", "--require", "proved", "--report", "r.html"]
    assert main(["guard", "model.onnx", "--passes", wanted, *arguments]) == 0
    assert "no report was written: r.html would show" in capsys.readouterr().out and not Path("r.html").exists()
    assert main(["report", "r.json"]) == 2 and "changes the function: there is nothing to draw" in capsys.readouterr().err
    found = rows()
    assert {name for name, row in found.items() if row["alone"]["changes"]} == changed
    (row,) = (found[name] for name in changed)
    assert verdicts(row) == ("proved", "proved")
    before, after = row["in_order"]["nodes"]
    assert after == before - 1


def test_what_a_tool_does_to_every_model_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    save('<ir_version: 10, opset_import: ["": 21]> g (float[2] x, float[2] z) => (float[2] y) { y = Relu (x) }')
    assert main(["guard", "model.onnx", "--passes", "onnxslim:FusionConvBN,weight_tying", "--json", "r.json"]) == 1
    found = rows()
    assert verdicts(found["(no pass)"]) == ("different", "different") and found["(no pass)"]["alone"]["changes"]
    assert verdicts(found["FusionConvBN"]) == ("different", "different") and not found["FusionConvBN"]["alone"]["changes"]
    assert verdicts(found["weight_tying"]) == ("identical", "identical")
    said = capsys.readouterr().out
    assert ": (no pass) is the first that changes the function" in said and "FusionConvBN" not in said
    assert "2 passes changed nothing more than the tool does without any" in said


@pytest.mark.slow
def test_every_tool_lists_what_it_runs() -> None:
    for name in tools.TOOLS:
        tool = tools.load(name)
        if importlib.util.find_spec(tool.modules[0].split(".")[0]) is None:
            continue
        runner = OfTool(name)
        runner.close()
        assert len(set(runner.usual)) == len(runner.usual) > 20, name
        assert runner.title.startswith(f"{name} ") and runner.bare


def test_no_rule_of_onnxruntime_is_missing() -> None:
    """Without any of the rules in the list there is no transformer of rules left to run."""
    from graphcheck.guarding.tools import onnxruntime

    logged = onnxruntime._logged(())
    assert "Level1_RuleBasedTransformer" in logged and "ConstantFolding" in logged
    assert not any("RuleBased" in name for name in onnxruntime._logged(onnxruntime._RULES))
    assert any("RuleBased" in name for name in onnxruntime._logged(onnxruntime._RULES[1:]))


def test_weights_that_do_not_fit_into_one_file_go_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphcheck.guarding.tools import onnxruntime

    model = onnx.parser.parse_model(HEAD.replace("float[2] y", "float[300] y") + "{ i = Identity (x) y = MatMul (i, w) }")
    weight = np.linspace(0, 1, 600, dtype=np.float32).reshape(2, 300)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    Path("in").mkdir()
    Path("in/model.onnx").write_bytes(model.SerializeToString())
    monkeypatch.setattr(onnxruntime, "INLINE", 2**10)
    monkeypatch.setattr(tools, "INLINE", 2**10)
    for run in (onnxruntime._run, tools.load("onnxslim").run, tools.load("onnxscript").run):
        Path("out").mkdir()
        run([], Path("in/model.onnx"), Path("out/model.onnx"))
        assert Path("out/model.onnx.data").stat().st_size >= 2400 and Path("out/model.onnx").stat().st_size < 2400
        assert main(["compare", "in/model.onnx", "out/model.onnx", "--require", "proved"]) == 0
        shutil.rmtree("out")


def test_a_crash_in_a_pass_is_its_answer() -> None:
    assert child._forked(lambda: os.kill(os.getpid(), signal.SIGKILL))["error"] == "its process was ended by SIGKILL"
    assert child._forked(lambda: 7) == {"value": 7}

    def nested() -> None:
        try:
            raise ValueError("the cause")
        except ValueError as error:
            raise RuntimeError("a pass failed") from error

    assert child._forked(nested) == {"error": "ValueError: the cause"}


def test_a_pass_that_takes_too_long_ends_and_the_next_one_runs() -> None:
    save(PLAIN)
    runner = OfTool("onnxruntime")
    try:
        runner.timeout = 0.0
        with pytest.raises(GraphcheckError, match="it took more than 0 s"):
            runner.run([], Path("model.onnx"), Path("made.onnx"))
        runner.timeout = 60.0
        assert runner.run(["EliminateIdentity"], Path("model.onnx"), Path("made.onnx")) > 0
    finally:
        runner.close()
    assert "Identity" not in [node.op_type for node in onnx.load("made.onnx").graph.node]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--passes", "onnxsin"], "there is no tool 'onnxsin'; the tools are onnxoptimizer, onnxsim,"),
        (["--passes", "onnxslim:FusionConvBM"], "there is no pass 'FusionConvBM'; did you mean FusionConvBN?"),
        (["--passes", "onnxslim", "--passes-from", "x"], "--passes and --passes-from exclude each other"),
        (["--passes", "onnxslim", "--", "x", "{in}", "{out}"], "with a command of your own, give --passes-from"),
        (["--passes-from", "x", "--", "x", "{in}", "{out}"], "the command must name {pass}"),
        (["--passes-from", "true", "--", "x", "{pass}", "{in}", "{out}"], "true: the command that lists passes printed none"),
        ([], "the command must name {in}"),
    ],
)
def test_bad_usage_is_one_sentence(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    save(PLAIN)
    assert main(["guard", "model.onnx", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and err.count("\n") == 1


def test_a_tool_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("onnx_passes") is not None:
        pytest.skip("it is installed")
    save(PLAIN)
    assert main(["guard", "model.onnx", "--passes", "onnx-passes"]) == 2
    assert "--passes onnx-passes: onnx-passes is not installed: pip install onnx-passes" in capsys.readouterr().err
