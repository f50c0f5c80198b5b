"""One model in onnxruntime in two ways, each judged by itself: honest levels are clean, a wrong run is named with its region."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphcheck.blaming import made_here
from graphcheck.cli import main
from graphcheck.errors import UsageError
from graphcheck.files.model import read
from graphcheck.options import Options, Twice
from tests.zoo import device_nets

TWICE = Twice(optimizations_a="off", optimizations_b="all")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("net") / "head.onnx"
    onnx.save(device_nets.net("head"), path)
    return path


@pytest.mark.parametrize("name", ["head", "lstm", "attention", "detector"])
def test_honest_levels_are_clean(name: str) -> None:
    found = made_here.twice(device_nets.net(name), TWICE, Options())
    assert str(found.verdict) == "clean" and found.exit_code() == 0
    assert [blame.evidence["convicted"] for _, blame in found.sides] == [[], []]
    assert all(blame.evidence["checked"] >= len(device_nets.net(name).graph.output) for _, blame in found.sides)
    assert max(found.apart.values()) < 1e-5


def residual(blocks: int) -> onnx.ModelProto:
    each = "a{0} = Relu (r{0}) b{0} = Neg (a{0}) c{0} = Sqrt (b{0}) r{1} = Add (c{0}, r{0})"
    body = " ".join(each.format(i, i + 1) for i in range(blocks))
    return onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> net (float[4] x) => (float[4] y) '
        f"{{ r0 = Abs (x) {body} y = Neg (r{blocks}) }}"
    )


def test_places_are_those_that_everything_goes_through() -> None:
    """Between the blocks of a residual net, and not inside of them."""
    assert made_here.places(read(residual(5))) == ["r0", "r1", "r2", "r3", "r4", "r5"]


def test_two_dumps_share_no_inner_place() -> None:
    feeds = {"x": np.ones(4, np.float32)}
    found = made_here.made(read(residual(5)), feeds, made_here.Way("all", ("CPUExecutionProvider",)))
    assert [sorted(dump) for dump in found] == [["y"], ["r0", "r2", "r4", "y"], ["r1", "r3", "r5", "y"]]


def wrong_in_b(monkeypatch: pytest.MonkeyPatch) -> None:
    """Session B leaves out an activation before ``a``."""
    honest = made_here._run

    def run(model: Any, feeds: Mapping[str, Any], way: made_here.Way, names: Sequence[str]) -> dict[str, Any]:
        if way.optimizations == "off":
            return honest(model, feeds, way, names)
        copy = model.clone()
        node = next(n for n in copy.graph if n.op_type == "HardSwish")
        for reader in list(node.outputs[0].uses()):
            reader.node.replace_input_with(reader.idx, node.inputs[0])
        return honest(copy, feeds, way, [name for name in names if name != node.outputs[0].name])

    monkeypatch.setattr(made_here, "_run", run)


def test_a_wrong_run_is_named(net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    wrong_in_b(monkeypatch)
    out = tmp_path / "told.json"
    code = main(
        ["compare", str(net), str(net), "--optimizations-a", "off", "--optimizations-b", "extended", "--json", str(out)]
    )
    assert code == 1
    told = json.loads(out.read_text())
    assert told["schema"] == "graphcheck/twice/1" and told["verdict"] == "convicted"
    assert told["a"]["verdict"] == "clean" and told["b"]["optimizations"] == "extended"
    assert "l" in told["b"]["convicted"][0]["region"]
    assert told["outputs"][0]["apart"] > 1e-3
    said = capsys.readouterr().out
    assert said.startswith("✗ convicted: B (optimizations extended on CPUExecutionProvider):")
    assert "A: optimizations off on CPUExecutionProvider: clean" in " ".join(said.split())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ["--optimizations-a", "all"],
            "both sides are run with optimizations all on CPUExecutionProvider: give",
        ),
        (["--optimizations-a", "most"], "most"),
        (
            ["--providers-a", "NoneExecutionProvider"],
            "onnxruntime has no provider 'NoneExecutionProvider' here; it has",
        ),
        (["--optimizations-b", "off", "--report", "r.html"], "--report and --format tell of two models"),
    ],
)
def test_bad_use_is_told(net: Path, more: list[str], said: str, capsys: Any) -> None:
    assert main(["compare", str(net), str(net), *more]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_two_files_are_refused(net: Path, tmp_path: Path, capsys: Any) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(net.read_bytes())
    assert main(["compare", str(net), str(other), "--optimizations-b", "off"]) == 2
    assert "is another file, and --optimizations-a" in " ".join(capsys.readouterr().err.split())


def test_inputs_of_ones_own(net: Path, tmp_path: Path) -> None:
    x = np.linspace(-3, 3, 8 * 16 * 16, dtype=np.float32).reshape(1, 8, 16, 16)
    np.savez(tmp_path / "x.npz", x=x)
    found = made_here.twice(str(net), TWICE, Options(inputs=tmp_path / "x.npz"))
    assert str(found.verdict) == "clean"
    np.savez(tmp_path / "z.npz", z=x)
    with pytest.raises(UsageError, match="no input is named 'z'"):
        made_here.twice(str(net), TWICE, Options(inputs=tmp_path / "z.npz"))
