"""The rewrite as an Olive pass, in an environment that has Olive (pip install olive-ai, which pulls a torch of its own)."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
from patch_cases import conv, ops

from graphcheck.files import model as model_
from graphcheck.verdicts.compare import compare

ROOT = Path(__file__).parent.parent


def test_the_package_configuration_names_the_module() -> None:
    entry = json.loads((ROOT / "graphcheck/olive.json").read_text())["passes"]["PatchEmbedding"]
    module, name = entry["module_path"].rsplit(".", 1)
    assert f"class {name}(Pass):" in (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()


@pytest.fixture
def olive(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("OLIVE_DISABLE_TELEMETRY", "1")
    pytest.importorskip("olive", reason="Olive is not installed: pip install olive-ai in an environment of its own")
    from graphcheck import olive

    return olive


def run(olive: Any, path: Path, out: Path, **config: Any) -> Any:
    from olive.hardware import DEFAULT_CPU_ACCELERATOR
    from olive.model import ONNXModelHandler
    from olive.passes.olive_pass import create_pass_from_dict

    step = create_pass_from_dict(olive.PatchEmbedding, config, disable_search=True, accelerator_spec=DEFAULT_CPU_ACCELERATOR)
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


@pytest.mark.filterwarnings("ignore:.LoggingHandler. in:DeprecationWarning")
def test_a_workflow_finds_it_by_the_package_configuration(olive: Any, tmp_path: Path) -> None:
    from olive.workflows import run as workflow

    path = tmp_path / "m.onnx"
    model_.write(conv("kernel_shape = [4, 4], strides = [4, 4]", (8, 3, 4, 4)), path)
    config = {
        "input_model": {"type": "ONNXModel", "model_path": str(path)},
        "passes": {"patches": {"type": "PatchEmbedding", "to": "matmul"}},
        "output_dir": str(tmp_path / "out"),
        "cache_dir": str(tmp_path / "cache"),
        "no_artifacts": False,
    }
    (tmp_path / "package.json").write_text(json.dumps(olive.package_config()))
    workflow(config, package_config=str(tmp_path / "package.json"))
    made = list((tmp_path / "out").rglob("*.onnx"))
    assert made and all("MatMul" in ops(model_.read(p)) for p in made)
