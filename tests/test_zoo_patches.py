"""The rewriter on real exports: each site to each legal form, proved; the table in full is benchmarks/patches.py."""

from __future__ import annotations

import onnx_ir as ir
import onnxruntime
import pytest

from graphcheck.patches.preparing import analyze_json
from tests.zoo import patch_exports, patch_tables, quantizing

# What must be seen at least: the first site of the model.
SEEN = {
    "ast": "conv 8x8/4x4",
    "vivit": "conv 2x16x16/2x16x16",
    "timesformer": "conv 8x8/8x8",
    "patchtst": "unfold 8/8",
    "dpt": "conv 8x8/8x8",
    "qwen2-vl vision": "conv 2x4x4/",
    "qwen2.5-vl vision": "conv 2x4x4/",
    "einops video": "matmul 2x16x16/2x16x16",
    "yolo": "space-to-depth 6x6/2x2 padded",
    "pvt-v2": "conv 4x4/4x4",
    "segformer": "conv 4x4/4x4",
    "swin": "conv 2x2/2x2",
    "videomae": "conv 2x8x8/2x8x8",
    "convnext": "conv 4x4/4x4",
    "mobilevit": "conv 3x3/2x2 padded",  # a downsampling over data that was folded back from patches
}
NONE = {"einops with LayerNorm": "LayerNormalization stands between"}


def assert_reached(case: str) -> patch_tables.Row:
    row = patch_tables.row(case, ir.from_proto(patch_exports.export(case)))
    name = case.partition(", ")[0]
    if name in NONE:
        assert not row.sites and any(NONE[name] in reason for reason in row.refusals), row
    else:
        assert row.sites and row.sites[0].startswith(SEEN.get(name, "")), row
        assert row.wrong == []
        assert {cell.split(patch_tables.BACK)[0] for cell in row.forms.values()} & {"proved", "identical"}
    return row


@pytest.mark.torch
@pytest.mark.parametrize(
    "case", ["einops p1 p2 c, torchscript", "einops with LayerNorm, torchscript", "qwen2.5-vl vision, torchscript",
             "timesformer, torchscript", "ast, torchscript"],
)  # fmt: skip
def test_an_export_reaches_every_legal_form(case: str) -> None:
    assert_reached(case)


@pytest.mark.zoo
@pytest.mark.torch
@pytest.mark.keras
@pytest.mark.parametrize("case", patch_exports.cases())
def test_every_export_reaches_every_legal_form(case: str) -> None:
    assert_reached(case)


@pytest.mark.zoo
@pytest.mark.torch
@pytest.mark.keras
@pytest.mark.parametrize("case", [*(", ".join(pair) for pair in patch_exports.FAILS), *patch_exports.KERAS_FAILS])
def test_what_cannot_be_exported_still_cannot(case: str) -> None:
    with pytest.raises(Exception, match=r"\w"):  # torch's exporters raise a dozen classes
        onnxruntime.InferenceSession(patch_exports.export(case).SerializeToString())


@pytest.mark.parametrize("name", quantizing.CASES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_quantized_patch_embedding_stays_quantized(name: str) -> None:
    row = patch_tables.row(name, model := ir.from_proto(quantizing.quantized(name)))
    assert len(row.sites) == 1 and not row.refusals
    assert row.wrong == [] and "no" not in row.forms.values()
    result = patch_tables.rewritten(model, "matmul" if name.startswith("conv") else "conv")
    pairs = [[node.op_type for node in m.graph].count("QuantizeLinear") for m in (model, result)]
    assert pairs[0] == pairs[1] > 0
    assert [node.op_type for node in result.graph].count("DequantizeLinear") >= pairs[0]


def test_a_pair_with_a_scale_for_each_column_is_refused() -> None:
    model = ir.from_proto(quantizing.quantized("matmul, MatMul alone"))
    scale = model.graph.initializers["m_scale"]
    zero = model.graph.initializers["m_zero_point"]
    for value in (scale, zero):
        assert value.const_value is not None
        value.const_value = ir.tensor(value.const_value.numpy().repeat(48), name=value.name)
        value.shape = ir.Shape([48])
    for node in model.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and scale in node.inputs:
            node.attributes["axis"] = ir.AttrInt64("axis", 2)
    told = analyze_json(model)
    assert told["patch_embeddings"] == []
    assert [r["reason"] for r in told["refusals"]] == ["QuantizeLinear stands between the patchify and the projection"]


def test_a_pair_whose_integers_are_used_elsewhere_is_refused() -> None:
    model = ir.from_proto(quantizing.quantized("matmul, MatMul alone"))
    quantize = next(node for node in model.graph if node.op_type == "QuantizeLinear")
    model.graph.outputs.append(quantize.outputs[0])
    quantize.outputs[0].dtype, quantize.outputs[0].shape = ir.DataType.UINT8, ir.Shape(["N", 6, 48])
    assert analyze_json(model)["patch_embeddings"] == []
