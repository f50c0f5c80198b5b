"""The rewrite and the check as Olive passes, in an environment that has Olive (pip install olive-ai; `make hosts` makes one)."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper
from patch_cases import conv, ops

from graphcheck.files import model as model_
from graphcheck.verdicts.compare import compare

ROOT = Path(__file__).parent.parent


def test_the_package_configuration_names_the_module() -> None:
    passes = json.loads((ROOT / "graphcheck/olive.json").read_text())["passes"]
    assert set(passes) == {"PatchEmbedding", "Equivalence"}
    for name, entry in passes.items():
        module, called = entry["module_path"].rsplit(".", 1)
        assert called == name
        assert f"class {name}(Pass):" in (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()


@pytest.fixture
def olive(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("OLIVE_DISABLE_TELEMETRY", "1")
    pytest.importorskip("olive", reason="Olive is not installed: pip install olive-ai in an environment of its own")
    from graphcheck import olive

    return olive


def run(olive: Any, path: Path, out: Path, name: str = "PatchEmbedding", **config: Any) -> Any:
    from olive.hardware import DEFAULT_CPU_ACCELERATOR
    from olive.model import ONNXModelHandler
    from olive.passes.olive_pass import create_pass_from_dict

    made = getattr(olive, name)
    step = create_pass_from_dict(made, config, disable_search=True, accelerator_spec=DEFAULT_CPU_ACCELERATOR)
    return step.run(ONNXModelHandler(str(path)), str(out))


def test_the_pass_rewrites_and_tells_the_verdict(olive: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model_.write(conv("kernel_shape = [4, 4], strides = [4, 4]", (8, 3, 4, 4)), path)
    result = run(olive, path, tmp_path / "out", to="matmul")
    assert result.model_attributes["graphcheck"]["verdict"] == "proved"
    assert "MatMul" in ops(model_.read(result.model_path)) and result.model_path != str(path)
    assert compare(str(path), result.model_path, graphs=False).verdict.meets("proved")


def test_external_data_makes_a_folder(olive: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = ir.to_proto(conv("kernel_shape = [4, 4], strides = [4, 4]", (8, 3, 4, 4)))
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    result = run(olive, path, tmp_path / "out", to="matmul")
    assert Path(result.model_path).is_file()
    assert compare(str(path), result.model_path, graphs=False).verdict.meets("proved")


def test_what_is_refused_goes_on_as_it_is(olive: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "m.onnx"
    model_.write(conv("kernel_shape = [4, 4], strides = [4, 4]", (8, 3, 4, 4)), path)
    with caplog.at_level(logging.WARNING):
        result = run(olive, path, tmp_path / "out", to="conv")
    assert result.model_path == str(path)
    assert "left" in caplog.text and "nothing to rewrite" in caplog.text


def test_unknown_forms_and_sites_are_refused(olive: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model_.write(conv("kernel_shape = [4, 4], strides = [4, 4]", (8, 3, 4, 4)), path)
    with pytest.raises(ValueError, match="there is no site"):
        run(olive, path, tmp_path / "out", to="matmul", sites=["nowhere"])
    with pytest.raises(ValueError, match="no form"):
        run(olive, path, tmp_path / "out", to="nonsense")


def test_the_check_lets_the_same_function_pass_and_stops_another(olive: Any, tmp_path: Path) -> None:
    path, other = tmp_path / "m.onnx", tmp_path / "other.onnx"
    model_.write(conv("kernel_shape = [4, 4], strides = [4, 4]", (8, 3, 4, 4)), path)
    wrong = ir.to_proto(conv("kernel_shape = [4, 4], strides = [4, 4]", (8, 3, 4, 4)))
    weight = numpy_helper.to_array(wrong.graph.initializer[0]) * 2
    wrong.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, wrong.graph.initializer[0].name))
    onnx.save(wrong, other)
    rewritten = run(olive, path, tmp_path / "out", to="matmul")
    check = {"name": "Equivalence", "reference": str(path)}
    passed = run(olive, Path(rewritten.model_path), tmp_path / "unused", require="proved", **check)
    assert passed.model_path == rewritten.model_path and passed.model_attributes["graphcheck"]["verdict"] == "proved"
    report = tmp_path / "report.html"
    with pytest.raises(ValueError, match=r"different: .*required: within-rounding"):
        run(olive, other, tmp_path / "unused", report=str(report), **check)
    assert report.is_file()
    with pytest.raises(ValueError, match="require is one of identical, proved, within-rounding, not 'nearly'"):
        run(olive, path, tmp_path / "unused", require="nearly", **check)
    with pytest.raises(ValueError, match="no such file"):
        run(olive, path, tmp_path / "unused", name="Equivalence", reference=str(tmp_path / "absent.onnx"))


@pytest.mark.filterwarnings("ignore:.LoggingHandler. in:DeprecationWarning")
def test_a_workflow_finds_it_by_the_package_configuration(olive: Any, tmp_path: Path) -> None:
    from olive.workflows import run as workflow

    path = tmp_path / "m.onnx"
    model_.write(conv("kernel_shape = [4, 4], strides = [4, 4]", (8, 3, 4, 4)), path)
    config = {
        "input_model": {"type": "ONNXModel", "model_path": str(path)},
        "passes": {
            "patches": {"type": "PatchEmbedding", "to": "matmul"},
            "check": {"type": "Equivalence", "reference": str(path), "require": "proved"},
        },
        "output_dir": str(tmp_path / "out"),
        "cache_dir": str(tmp_path / "cache"),
        "no_artifacts": False,
    }
    (tmp_path / "package.json").write_text(json.dumps(olive.package_config()))
    workflow(config, package_config=str(tmp_path / "package.json"))
    made = list((tmp_path / "out").rglob("*.onnx"))
    assert made and all("MatMul" in ops(model_.read(p)) for p in made)
