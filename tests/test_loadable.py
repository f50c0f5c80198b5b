"""What onnxruntime loads is read, with a note, though onnx.checker refuses it; what nobody loads is not."""

# ruff: noqa: E501 (graphs as text are kept on their lines)

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from ops_support import assert_agrees, floats, run, values

import graphcheck
from graphcheck.cli import main
from graphcheck.errors import ModelError
from graphcheck.files import model as model_

_SIGNATURE = "g (float[2,4] x, float[4] s, float[4] b) => (float[2,4] y)"


def graph(body: str, version: int = 13, signature: str = _SIGNATURE) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 7, opset_import: ["" : {version}]> {signature} {{ {body} }}')


def loads(proto: onnx.ModelProto) -> bool:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime raises a dozen classes of its own
        return False
    return True


_GROUPS = "g (float[2,4,3] x, float[2] s, float[2] b) => (float[2,4,3] y)"
_CHOICE = "g (float[2,4] x, float[4] s, bool c) => (float[2,4] y)"
_OWN = "is onnxruntime's own: ONNX has no such operator there"
_SORTED = "stands before what it reads); they are read sorted, as by onnxruntime"
READ = {
    "LayerNormalization 13": (
        graph("y = LayerNormalization(x, s, b)"),
        [f"LayerNormalization of operator set 13 {_OWN}"],
    ),
    "LayerNormalization 16, twice": (
        graph("t = LayerNormalization(x, s, b) y = LayerNormalization(t, s)", 16),
        [f"LayerNormalization of operator set 16 {_OWN} (2 nodes)"],
    ),
    "LayerNormalization in a branch": (
        graph(
            "y = If(c) <then_branch = a () => (float[2,4] p) { p = LayerNormalization(x, s) }, else_branch = b () => (float[2,4] q) { q = Exp(x) }>",
            signature=_CHOICE,
        ),
        [f"LayerNormalization of operator set 13 {_OWN}"],
    ),
    "SimplifiedLayerNormalization": (
        graph("y = SimplifiedLayerNormalization(x, s)"),
        [f"SimplifiedLayerNormalization of operator set 13 {_OWN}"],
    ),
    "ThresholdedRelu 9": (graph("y = ThresholdedRelu(x)", 9), [f"ThresholdedRelu of operator set 9 {_OWN}"]),
    "MeanVarianceNormalization 7": (
        graph("y = MeanVarianceNormalization(x)", 7, "g (float[1,2,3,3] x) => (float[1,2,3,3] y)"),
        [f"MeanVarianceNormalization of operator set 7 {_OWN}"],
    ),
    "GroupNormalization 18": (
        graph("y = GroupNormalization<num_groups = 2>(x, s, b)", 18, _GROUPS),
        ["GroupNormalization of operator set 18 is deprecated there, and run by onnxruntime"],
    ),
    "out of order": (graph("y = Neg(t) t = Exp(x)"), [f"its nodes are not in order (Neg node 'y' {_SORTED}"]),
    "out of order for a branch": (
        graph(
            "y = If(c) <then_branch = a () => (float[2,4] p) { p = Neg(t) }, else_branch = b () => (float[2,4] q) { q = Exp(t) }> t = Exp(x)",
            signature=_CHOICE,
        ),
        [f"its nodes are not in order (If node 'y' {_SORTED}"],
    ),
    "both": (
        graph("y = LayerNormalization(t, s, b) t = Exp(x)"),
        [
            f"its nodes are not in order (LayerNormalization node 'y' {_SORTED}",
            f"LayerNormalization of operator set 13 {_OWN}",
        ],
    ),
}


@pytest.mark.parametrize("kind", READ)
def test_what_onnxruntime_loads_is_read_with_a_note(kind: str) -> None:
    proto, notes = READ[kind]
    before = proto.SerializeToString()
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(proto)
    assert loads(proto)
    assert list(model_.notes(model_.read(proto))) == notes
    assert proto.SerializeToString() == before  # the caller's is left as it was
    assert graphcheck.compare(proto, proto).to_json()["interface"]["notes"] == [f"A and B: {note}" for note in notes]


def _function(body: str, version: int = 13) -> onnx.ModelProto:
    head = f'<ir_version: 8, opset_import: ["" : {version}, "f" : 1]>'
    call = "g (float[2,4] x, float[4] s) => (float[2,4] y) { y = f.foo(x, s) }"
    return onnx.parser.parse_model(
        f'{head} {call} <domain: "f", opset_import: ["" : {version}]> foo (a, s) => (b) {{ {body} }}'
    )


REFUSED = {
    "cycle": (graph("y = Add(x, t) t = Exp(y)"), "its nodes form a cycle, through (Add|Exp) node '[ty]'"),
    "cycle beside nodes out of order": (
        graph("u = Neg(v) v = Exp(x) y = Add(u, t) t = Exp(y)"),
        "its nodes form a cycle, through (Add|Exp) node '[ty]'",
    ),
    "node that reads itself": (graph("y = Add(x, y)"), "its nodes form a cycle, through Add node 'y'"),
    "a tensor given twice": (
        graph("t = Neg(x) u = Add(t, x) t = Exp(u) y = Exp(t)"),
        "two nodes give 't', Neg node 't' and Exp node 't'",
    ),
    "cycle through a branch": (
        graph(
            "t = If(c) <then_branch = a () => (float[2,4] p) { p = Neg(y) }, else_branch = b () => (float[2,4] q) { q = Exp(x) }> y = Exp(t)",
            signature=_CHOICE,
        ),
        "its nodes form a cycle, through (If|Exp) node '[ty]'",
    ),
    "out of order within a branch": (
        graph(
            "y = If(c) <then_branch = a () => (float[2,4] p) { p = Neg(t) t = Exp(x) }, else_branch = b () => (float[2,4] q) { q = Exp(x) }>",
            signature=_CHOICE,
        ),
        "topologically sorted, however input 't' of node",
    ),
    "out of order within a function": (_function("b = Neg(t) t = Exp(a)"), "topologically sorted"),
    "nothing gives an input": (graph("y = Neg(t) u = Exp(x)"), "input 't' of node"),
    "no such operator": (graph("y = NoSuchOp(x)"), "No Op registered for NoSuchOp"),
    "an operator of a later set": (graph("y = Mish(x)"), "No Op registered for Mish"),
    "GroupNormalization 17": (
        graph("y = GroupNormalization<num_groups = 2>(x, s, b)", 17, _GROUPS),
        "No Op registered for GroupNormalization",
    ),
    "GroupNormalization 18 without its groups": (
        graph("y = GroupNormalization(x, s, b)", 18, _GROUPS),
        "GroupNormalization node 'y' is not of the form of its operator: Required attribute 'num_groups' is missing",
    ),
    "GroupNormalization 18 of two inputs": (
        graph("y = GroupNormalization<num_groups = 2>(x, s)", 18, _GROUPS),
        "is not of the form of its operator: .*input size 2",
    ),
    "LayerNormalization of one input": (
        graph("y = LayerNormalization(x)"),
        "LayerNormalization node 'y' is not of the form of its operator: .*input size 1",
    ),
    "Upsample 13": (
        graph("y = Upsample(x, s)", signature="g (float[1,1,2,2] x, float[4] s) => (float[1,1,4,4] y)"),
        "Upsample is deprecated",
    ),
    "Scatter 13": (
        graph("y = Scatter(x, i, x)", signature="g (float[2,4] x, int64[2,4] i) => (float[2,4] y)"),
        "Scatter is deprecated",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_nobody_loads_is_refused(kind: str) -> None:
    proto, cause = REFUSED[kind]
    assert not loads(proto)
    with pytest.raises(ModelError, match=cause):
        model_.read(proto)


def test_an_own_operator_in_a_function_is_refused() -> None:
    """onnxruntime 1.32 crashes on it."""
    with pytest.raises(ModelError, match="No Op registered for LayerNormalization"):
        model_.read(_function("b = LayerNormalization(a, s)"))


def test_a_deprecated_operator_in_a_function_is_read() -> None:
    head = '<ir_version: 8, opset_import: ["" : 18, "f" : 1]>'
    call = "g (float[2,4,3] x, float[2] s, float[2] b) => (float[2,4,3] y) { y = f.foo <n = 2> (x, s, b) }"
    body = 'foo <n> (x, s, b) => (y) { y = GroupNormalization <num_groups: int = @n> (x, s, b) }'
    proto = onnx.parser.parse_model(f'{head} {call} <domain: "f", opset_import: ["" : 18]> {body}')
    assert loads(proto)
    feeds = {"x": values((2, 4, 3)), "s": floats(2, -3), "b": floats(1, 0.5)}
    assert_agrees(proto, feeds)
    assert len(model_.notes(model_.read(proto))) == 1


def test_sorting_is_stable_and_moves_no_more_than_it_must() -> None:
    proto = graph("a = Exp(x) y = Add(e, d) b = Neg(a) d = Abs(b) c = Cos(x) e = Sin(c)", signature="g (float[2] x) => (float[2] y)")
    found = [node.outputs[0].name for node in model_.read(proto).graph]
    assert found == ["a", "b", "d", "c", "e", "y"]


# -- meaning -----------------------------------------------------------------------------------------------------------

MEANINGS = {
    "LayerNormalization": ("y = LayerNormalization<axis = 1, epsilon = 0.1>(x, s, b)", _SIGNATURE, 13),
    "LayerNormalization without bias": ("y = LayerNormalization(x, s) z = Neg(b)", _SIGNATURE, 9),
    "LayerNormalization with its statistics": (
        "y, m, d = LayerNormalization(x, s, b)",
        "g (float[2,4] x, float[4] s, float[4] b) => (float[2,4] y, float[2,1] m, float[2,1] d)",
        16,
    ),
    "SimplifiedLayerNormalization with its statistics": (
        "y, d = SimplifiedLayerNormalization<epsilon = 0.1>(x, s)",
        "g (float[2,4] x, float[4] s) => (float[2,4] y, float[2,1] d)",
        13,
    ),
    "GroupNormalization 18": (
        "y = GroupNormalization<num_groups = 2, epsilon = 0.1>(x, s, b)",
        "g (float[2,4,3] x, float[2] s, float[2] b) => (float[2,4,3] y)",
        18,
    ),
    "GroupNormalization 20, one group": (
        "y = GroupNormalization<num_groups = 1>(x, s, b)",
        "g (float[2,4,3,2] x, float[1] s, float[1] b) => (float[2,4,3,2] y)",
        20,
    ),
    "ThresholdedRelu 7": ("y = ThresholdedRelu<alpha = 0.3>(x)", "g (float[2,4] x) => (float[2,4] y)", 7),
    "Affine": ("y = Affine<alpha = 2.0, beta = 0.5>(x)", "g (float[2,4] x) => (float[2,4] y)", 9),
    "Affine by its defaults": ("y = Affine(x)", "g (float[2,4] x) => (float[2,4] y)", 7),
    "Scale": ("y = Scale<scale = 1.7>(x)", "g (float[2,4] x) => (float[2,4] y)", 7),
    "ScaledTanh": ("y = ScaledTanh<alpha = 1.7, beta = 0.7>(x)", "g (float[2,4] x) => (float[2,4] y)", 7),
    "ImageScaler": (
        "y = ImageScaler<scale = 1.7, bias = [0.5, 1.0]>(x)",
        "g (float[3,2,2,4] x) => (float[3,2,2,4] y)",
        8,
    ),
}


@pytest.mark.parametrize("kind", MEANINGS)
def test_meaning_is_that_of_onnxruntime(kind: str) -> None:
    body, signature, version = MEANINGS[kind]
    proto = graph(body, version, signature)
    feeds = {
        v.name: values([d.dim_value for d in v.type.tensor_type.shape.dim], i) for i, v in enumerate(proto.graph.input)
    }
    assert_agrees(proto, feeds)
    assert_agrees(proto, feeds, normalize=False)


@pytest.mark.parametrize(
    ("body", "version"), [("y = SimplifiedLayerNormalization<unknown = 3>(x, s)", 13), ("y = Affine<alpha = 2.0>(x)", 13)]
)
def test_an_own_operator_in_a_form_that_is_not_known_is_no_known_function(body: str, version: int) -> None:
    a = graph(body, version)
    b = graph(f"t = Neg(x) u = Neg(t) {body.replace('(x', '(u')}", version)
    c = graph(body.replace("3", "4").replace("2.0", "2.5"), version)
    assert graphcheck.compare(a, b, run=False).verdict == "proved"
    assert graphcheck.compare(a, c, run=False).verdict == "undecided"


def test_groups_are_scaled_by_group_and_not_by_channel() -> None:
    """What onnx's version converter makes of GroupNormalization 18, which has a scale for each group."""
    head = '<ir_version: 10, opset_import: ["" : {}]> g (float[2,4,3] x) => (float[2,4,3] y)'
    old = "<float[2] s = {2, 3}, float[2] b = {1, -1}> { y = GroupNormalization<num_groups = 2>(x, s, b) }"
    new = "<float[4] s = {2, 2, 3, 3}, float[4] b = {1, 1, -1, -1}> { y = GroupNormalization<num_groups = 2>(x, s, b) }"
    wrong = new.replace("2, 2, 3, 3", "2, 3, 2, 3")
    a, b, c = (onnx.parser.parse_model(head.format(v) + t) for v, t in ((18, old), (21, new), (21, wrong)))
    assert graphcheck.compare(a, b).verdict == "proved"
    assert graphcheck.compare(a, c).verdict == "different"


# -- dims --------------------------------------------------------------------------------------------------------------


def _dims(*dims: int | str) -> onnx.ModelProto:
    proto = graph("y = Neg(x)", signature="g (float[a,3,48,b] x) => (float[c,d,e,f] y)")
    del proto.graph.input[0].type.tensor_type.shape.dim[:]
    for dim in dims:
        place = proto.graph.input[0].type.tensor_type.shape.dim.add()
        if isinstance(dim, int):
            place.dim_value = dim
        else:
            place.dim_param = dim
    return proto


def _detour(proto: onnx.ModelProto) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    result.graph.node[0].output[0] = "t"
    result.graph.node.extend([helper.make_node("Neg", ["t"], ["u"]), helper.make_node("Neg", ["u"], ["y"])])
    return result


@pytest.mark.parametrize(
    ("dims", "notes"),
    [
        (("?", 3, 48, "?"), ["dims named '?' are taken as unknown, each of its own size"]),
        (("?", 3, 48, "N"), []),
        (("", 3, 48, ""), ["dims named '' are taken as unknown, each of its own size"]),
        (("None", 3, 48, "None"), ["dims named 'None' are taken as unknown, each of its own size"]),
        ((-1, 3, 48, -1), ["the size -1 of input 'x' is taken as unknown"]),
        (("unk__5", 3, 48, "unk__6"), []),
    ],
)
def test_dims_that_nobody_knows_are_each_of_their_own_size(dims: tuple[Any, ...], notes: list[str]) -> None:
    proto = _dims(*dims)
    assert loads(proto)
    model = model_.read(proto)
    assert list(model_.notes(model)) == notes
    result = graphcheck.compare(proto, _detour(proto), shapes={"x": (1, 3, 48, 192)}, run=False)
    assert result.verdict == "proved" and "x=1x3x48x192," in result.reason


def test_a_name_that_is_one_is_of_one_size_everywhere() -> None:
    proto = _dims("N", 3, 48, "N")
    with pytest.raises(graphcheck.UsageError, match="no input shape suits both models"):
        graphcheck.compare(proto, _detour(proto), shapes={"x": (1, 3, 48, 192)}, run=False)


def test_a_dim_without_a_name_is_free_by_its_place() -> None:
    proto = _dims("?", 3, 48, "?")
    proof = graphcheck.compare(proto, _detour(proto), run=False).to_json()["proof"]
    assert proof["every"] == ["x[0]", "x[3]"]


# -- maps --------------------------------------------------------------------------------------------------------------


def classifier(intercepts: tuple[float, float] = (0.0, 0.5), *, probabilities: bool = True) -> onnx.ModelProto:
    """What sklearn-onnx writes of a linear classifier: a label, and a map of probabilities by class."""
    nodes = [
        helper.make_node(
            "LinearClassifier", ["x"], ["label", "scores"], domain="ai.onnx.ml",
            coefficients=[1.0, 2.0, 3.0, -1.0, -2.0, -3.0], intercepts=intercepts, classlabels_ints=[0, 1], post_transform="SOFTMAX",
        ),
        helper.make_node("Normalizer", ["scores"], ["probabilities"], domain="ai.onnx.ml", norm="L1"),
        helper.make_node("ZipMap", ["probabilities"], ["by_class"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]),
    ]  # fmt: skip
    numbers = helper.make_map_type_proto(7, helper.make_tensor_type_proto(1, []))
    outputs = [
        helper.make_value_info("by_class", helper.make_sequence_type_proto(numbers)),
        helper.make_tensor_value_info("label", 7, ["N"]),
    ]
    if probabilities:
        outputs.append(helper.make_tensor_value_info("probabilities", 1, ["N", 2]))
    inputs = [helper.make_tensor_value_info("x", 1, ["N", 3])]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=7)


_LEFT_OUT = "output 'by_class' is left out: ZipMap gives a map, and tensors alone are compared"


def test_an_output_that_is_a_map_is_left_out_and_the_others_are_compared(tmp_path: Path) -> None:
    proto = classifier()
    assert loads(proto)
    model = model_.read(proto)
    assert model_.notes(model) == (_LEFT_OUT,) and [v.name for v in model.graph.outputs] == ["label", "probabilities"]
    onnx.save(proto, tmp_path / "a.onnx")
    onnx.save(classifier((0.0, 30.0)), tmp_path / "b.onnx")
    result = graphcheck.compare(tmp_path / "a.onnx", tmp_path / "b.onnx").to_json()
    assert result["verdict"] != "identical" and result["interface"]["notes"] == [f"A and B: {_LEFT_OUT}"]
    assert [row["a"] for row in result["numeric"]["runs"][0]["outputs"]] == ["label", "probabilities"]


def test_a_map_that_nobody_reads_ends_no_proof() -> None:
    a, b = classifier(), classifier()
    b.graph.node[1].output[0] = "t"
    b.graph.node.extend([helper.make_node("Neg", ["t"], ["u"]), helper.make_node("Neg", ["u"], ["probabilities"])])
    result = graphcheck.compare(a, b, run=False)
    assert "ZipMap" not in result.reason, result.reason


def test_a_model_with_maps_alone_is_refused() -> None:
    proto = classifier(probabilities=False)
    del proto.graph.output[1]
    with pytest.raises(ModelError, match="none of its outputs is a tensor: output 'by_class' is left out: ZipMap"):
        model_.read(proto)


def test_a_written_model_has_its_maps(tmp_path: Path) -> None:
    proto = classifier()
    model_.write(model_.read(proto), tmp_path / "b.onnx")
    again = onnx.load(tmp_path / "b.onnx")
    assert [v.name for v in again.graph.output] == ["by_class", "label", "probabilities"] and loads(again)


# -- on the command line -----------------------------------------------------------------------------------------------


def patches() -> onnx.ModelProto:
    """A patch embedding by Reshape, Transpose and MatMul, out of order and with an operator of onnxruntime's own."""
    signature = "g (float[1,3,8,8] x) => (float[1,4,5] y)"
    body = (
        "y = LayerNormalization(m, s) m = MatMul(f, w) f = Reshape(t, flat) "
        "t = Transpose<perm = [0, 2, 4, 1, 3, 5]>(r) r = Reshape(x, split)"
    )
    proto = graph(body, signature=signature)
    arrays = {
        "s": np.arange(1, 6, dtype=np.float32),
        "w": values((48, 5)),
        "flat": np.array([1, 4, 48]),
        "split": np.array([1, 3, 2, 4, 2, 4]),
    }
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return proto


_NOTES = [
    f"its nodes are not in order (LayerNormalization node 'y' {_SORTED}",
    f"LayerNormalization of operator set 13 {_OWN}",
]


def test_analyze_and_compare_say_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.onnx"
    onnx.save(patches(), path)
    assert main(["analyze", str(path), "--json", str(tmp_path / "a.json")]) == 0
    shown = capsys.readouterr().out
    assert all(f"  note: {note}\n" in shown for note in _NOTES)
    assert json.loads((tmp_path / "a.json").read_text())["model"]["notes"] == _NOTES
    assert main(["compare", str(path), str(path)]) == 0
    shown = capsys.readouterr().out
    assert all(f"  note: A and B: {note}\n" in shown for note in _NOTES)


def test_rewrite_writes_a_model_that_onnxruntime_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(patches(), path)
    assert main(["rewrite", str(path), "--out", str(out), "--json", str(tmp_path / "a.json")]) == 0
    shown = capsys.readouterr().out
    assert all(f"  note: {note}\n" in shown for note in _NOTES) and "wrote" in shown
    assert json.loads((tmp_path / "a.json").read_text())["notes"] == _NOTES
    written = onnx.load(out)
    assert "Conv" in [node.op_type for node in written.graph.node]
    x = values((1, 3, 8, 8), 3)
    assert np.abs(run(written, {"x": x})[0] - run(onnx.load(path), {"x": x})[0]).max() < 1e-5


def test_rewrite_copies_what_it_leaves_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(READ["both"][0], path)
    assert main(["rewrite", str(path), "--out", str(out)]) == 0
    assert "a byte copy of the model" in capsys.readouterr().out and out.read_bytes() == path.read_bytes()


def test_rewrite_keeps_an_output_that_is_a_map(tmp_path: Path) -> None:
    proto = patches()
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([4, 5]), "rows"))
    proto.graph.node.extend(
        [
            helper.make_node("Reshape", ["y", "rows"], ["scores"]),
            helper.make_node("ZipMap", ["scores"], ["by_class"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2, 3, 4]),
        ]
    )
    numbers = helper.make_map_type_proto(7, helper.make_tensor_type_proto(1, []))
    proto.graph.output.append(helper.make_value_info("by_class", helper.make_sequence_type_proto(numbers)))
    path, out = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(proto, path)
    assert main(["rewrite", str(path), "--out", str(out)]) == 0
    x = {"x": values((1, 3, 8, 8), 3)}
    written, before = run(onnx.load(out), x), run(proto, x)
    assert "Conv" in [node.op_type for node in onnx.load(out).graph.node]
    assert [list(row) for row in written[1]] == [list(row) for row in before[1]]
    assert all(abs(a[k] - b[k]) < 1e-4 for a, b in zip(written[1], before[1], strict=True) for k in b)
