"""The rewriter on real exports: each site to each legal form, proved, and back; the tables in full are benchmarks/patches.py."""

from __future__ import annotations

import onnx_ir as ir
import onnxruntime
import pytest

from graphcheck.patches.preparing import analyze_json
from tests.zoo import patch_exports, patch_rows, patch_tables, quantizing


def assert_reached(case: str) -> None:
    rows = patch_rows.rows(case)
    assert [words for row in rows for words in row.wrong] == []
    cells = [cell for row in rows for cell in row.forms.values()]
    assert any(cell.said in patch_tables.REACHED for cell in cells) or not any(row.recognised for row in rows)


@pytest.mark.torch
@pytest.mark.parametrize(
    "case", ["einops p1 p2 c, torchscript", "einops with LayerNorm, torchscript", "qwen2.5-vl vision, torchscript",
             "timesformer, torchscript", "ast, torchscript", "ffdnet, torchscript",
             "patchtst head, torchscript"],
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
    assert row.wrong == [] and not any(cell.refused for cell in row.forms.values())
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
