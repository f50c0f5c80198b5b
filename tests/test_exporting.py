"""The catalogue, the manifest, and what becomes of models that must not be written; no exporter runs here."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import onnx
import pytest

from graphcheck.errors import GraphcheckError, UsageError
from graphcheck.exporting import Manifest, Variant, catalogue, export, export_variants, read_manifest, run, select
from graphcheck.exporting.catalogue import KERAS_FORMS, PATCH_FORMS, TORCH_EXPORTERS, VIT_FORMS, VITS

NAME = "convolution-conv-torchscript-dynamic"
GOOD = """
<ir_version: 8, opset_import: ["" : 18]>
g (float[batch, 3, 32, 32] pixels) => (float[batch, 3, 32, 32] tokens) { tokens = Relu(pixels) }
"""
REFUSED = {
    "onnx.checker refuses": GOOD.replace("Relu(pixels)", "Reshape <allowzero = 0> (pixels, s)").replace(
        "{ tokens", "<int64[2] s = {-3, 8}> { tokens"
    ),
    "onnxruntime refuses to load": GOOD.replace('"" : 18]', '"" : 18, "nowhere" : 1]').replace(
        "Relu", "nowhere.Unknown"
    ),
    "the exported batch axis is 2, not as asked for": GOOD.replace("float[batch", "float[2"),
    "a batch of 1 gives an output of shape [2, 3, 32, 32]": GOOD.replace("Relu(pixels)", "Expand(pixels, s)").replace(
        "{ tokens", "<int64[4] s = {2, 3, 32, 32}> { tokens"
    ),
    "onnxruntime fails on a batch of 1": GOOD.replace("Relu(pixels)", "Reshape(pixels, s)").replace(
        "{ tokens", "<int64[4] s = {2, 3, 32, 32}> { tokens"
    ),
}


def fake_exporter(monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    """Lets every export give the model of ``text``, or raise where it is None."""

    def to_onnx(variant: Variant) -> onnx.ModelProto:
        if text is None:
            raise RuntimeError("cannot do\nthis at all") from ValueError("no /home/someone/lib/rule.py for\nthis op")
        return onnx.parser.parse_model(text)

    monkeypatch.setattr(run, "_to_onnx", to_onnx)
    monkeypatch.setattr(run, "available", lambda extra: True)
    monkeypatch.setattr(run, "_versions", lambda variant: (("exporter", "1"),))


def test_names_are_unique() -> None:
    names = [variant.name for variant in catalogue()]
    assert len(names) == len(set(names))
    assert not set(names) & {variant.family for variant in catalogue()}


def test_families_are_complete() -> None:
    families: dict[str, set[tuple[object, ...]]] = defaultdict(set)
    for variant in catalogue():
        families[variant.family].add((variant.form, variant.exporter, variant.inputs[0][1][0]))
    for family in ("torch-p16d32", "torch-p16d768", "torch-p14d384"):
        assert families[family] == set(itertools.product(PATCH_FORMS, TORCH_EXPORTERS, (1, "batch")))
    for family in (*VITS, "vit-tiny16"):
        assert families[family] == set(itertools.product(VIT_FORMS, TORCH_EXPORTERS, (1, "batch")))
    for family in ("article-keras", "article-keras-bias"):
        assert families[family] == set(itertools.product(KERAS_FORMS, ("tf2onnx",), (1, 2, "batch")))
    assert families["convolution"] == set(itertools.product(("conv", "unfold"), TORCH_EXPORTERS, (1, "batch")))
    assert {v.family for v in catalogue() if v.benchmark} == {"vit-tiny16", "vit-b16"}


def test_known_equal_stays_in_the_family_and_admits_a_common_shape() -> None:
    variants = {variant.name: variant for variant in catalogue()}
    for variant in variants.values():
        assert variant.known_equal and variant.name not in variant.known_equal
        for other in map(variants.__getitem__, variant.known_equal):
            assert other.family == variant.family and variant.name in other.known_equal
            batches = {variant.inputs[0][1][0], other.inputs[0][1][0]}
            assert len(batches - {"batch"}) <= 1, "static batch 1 and 2 are different interfaces"


def test_patch_only_without_overlap() -> None:
    patches = {variant.family: variant.patch for variant in catalogue()}
    assert (patches["article-keras"], patches["torch-p14d384"], patches["convolution"]) == (16, 14, None)


def test_catalogue_loads_nothing_heavy() -> None:
    code = "import sys, graphcheck.exporting as e; e.catalogue(); print(*{n.split('.')[0] for n in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "graphcheck" in loaded
    assert not {"torch", "tensorflow", "tf2onnx", "transformers", "onnx", "onnxruntime", "numpy"} & set(loaded)


def test_select_takes_variants_and_families_in_order() -> None:
    assert [variant.name for variant in select(NAME)] == [NAME]
    chosen = select(["torch-p16d32", NAME])
    assert len(chosen) == 29 and chosen[0].name == NAME


def test_unknown_name_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"torch-p16d23: no such variant or family; did you mean torch-p16d32"):
        export(["torch-p16d23"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_negative_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="seed -1: must not be negative"):
        export([NAME], tmp_path, seed=-1)


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(run.EXTRAS, "torch", ("no_such_package",))
    with pytest.raises(GraphcheckError, match=r"pip install graphcheck\[torch\]"):
        export([NAME], tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_folder_that_is_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_exporter(monkeypatch, GOOD)
    (tmp_path / "models").write_text("")
    with pytest.raises(GraphcheckError, match=r"models: cannot be made a folder of models \(File exists\)"):
        export([NAME], tmp_path / "models")


def test_good_model_is_written_and_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_exporter(monkeypatch, GOOD)
    calls: list[tuple[str, int, int, str | None]] = []
    manifest = export(
        [NAME], tmp_path / "new", seed=7, progress=lambda v, i, n, error: calls.append((v.name, i, n, error))
    )
    (model,) = manifest.models
    assert calls == [(NAME, 1, 1, None)]
    assert model.variant.seed == 7 and model.file == f"{NAME}.onnx" and model.bytes > 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [model.file, "manifest.json"]
    assert read_manifest(tmp_path / "new") == manifest


def test_failing_exporter_gives_a_record_and_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_exporter(monkeypatch, GOOD)
    export([NAME], tmp_path)
    fake_exporter(monkeypatch, None)
    manifest = export([NAME], tmp_path)
    assert manifest.failures[0].error == "torchscript raises ValueError: no rule.py for"
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"], "the older model of that name must go"
    assert read_manifest(tmp_path) == manifest


@pytest.mark.parametrize("reason", REFUSED)
def test_refused_model_gives_a_record_and_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reason: str) -> None:
    fake_exporter(monkeypatch, REFUSED[reason])
    (failure,) = export([NAME], tmp_path).failures
    assert failure.error.startswith(reason) and "\n" not in failure.error
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_static_batch_is_held_to_be_static(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_exporter(monkeypatch, GOOD)
    (failure,) = export([NAME.replace("dynamic", "static")], tmp_path).failures
    assert failure.error == "the exported batch axis is batch, not as asked for"


def test_paths_go_and_module_names_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = onnx.parser.parse_model(GOOD)
    node = model.graph.node[0]
    node.doc_string = "File /home/someone/model.py"
    node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File /home/someone/model.py")
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'relu']")
    monkeypatch.setattr(run, "_to_onnx", lambda variant: model)
    monkeypatch.setattr(run, "available", lambda extra: True)
    monkeypatch.setattr(run, "_versions", lambda variant: ())
    export([NAME], tmp_path)
    content = (tmp_path / f"{NAME}.onnx").read_bytes()
    assert b"someone" not in content and b"name_scopes" in content and b"['', 'relu']" in content


def test_what_is_installed_is_asked_once_for_all_variants(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []
    fake_exporter(monkeypatch, GOOD)
    monkeypatch.setattr(run, "_versions", lambda variant: asked.append(variant.name) or (("exporter", "1"),))
    made = export([NAME, NAME.replace("conv-", "unfold-")], tmp_path)
    assert len(made.models) + len(made.failures) == 2 and len(asked) == 1
    assert made.versions == (("exporter", "1"),)


def test_manifest_merges_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = NAME.replace("conv-", "unfold-")
    fake_exporter(monkeypatch, GOOD)
    export([NAME, other], tmp_path)
    fake_exporter(monkeypatch, None)
    this_run = export([NAME], tmp_path)
    merged = read_manifest(tmp_path)
    assert (len(this_run.models), len(this_run.failures)) == (0, 1)
    assert [model.variant.name for model in merged.models] == [other]
    assert [failure.variant.name for failure in merged.failures] == [NAME]
    data = json.loads((tmp_path / "manifest.json").read_text())
    assert data["models"][0]["inputs"] == {"pixels": ["batch", 3, 32, 32]}
    assert data["models"][0]["patch"] is None and data["versions"] == {"exporter": "1"}


@pytest.mark.parametrize("text", ["", "[]", '{"schema": "other/1"}', '{"schema": "graphcheck/manifest/1"}'])
def test_a_file_that_is_no_manifest_is_named_and_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    fake_exporter(monkeypatch, GOOD)
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(GraphcheckError, match=r"manifest.json: not a manifest of graphcheck .*move it away"):
        export([NAME], tmp_path)
    assert (tmp_path / "manifest.json").read_text() == text


def test_empty_export_is_an_empty_manifest(tmp_path: Path) -> None:
    assert export_variants([], tmp_path) == Manifest() == read_manifest(tmp_path)


def test_variant_survives_the_manifest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_exporter(monkeypatch, GOOD)
    (model,) = export([NAME], tmp_path).models
    (original,) = select(NAME)
    assert read_manifest(tmp_path).models[0].variant == model.variant == dataclasses.replace(original, seed=0)
