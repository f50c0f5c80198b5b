"""Canonical form: what must be identical, what must not, and what a diff then shows."""

from __future__ import annotations

import sys
from collections.abc import Hashable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from graphcheck.errors import ModelError
from graphcheck.files.contents import Contents
from graphcheck.graphs import structure
from graphcheck.graphs.canonical import content_of
from graphcheck.graphs.structure import compare_structure, graph_json
from graphcheck.verdicts.changed import changed, used

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
BASE = """g (float[N,3] x) => (float[N,3] y) <float[3] w = {1.0, 2.0, 3.0}> {
  h = Add(x, w)
  r = Relu(h)
  y = Mul(r, w)
}"""


def read(text: str, head: str = HEAD) -> ir.Model:
    return ir.from_onnx_text(f"{head}\n{text}")


def identical(a: str, b: str, head_b: str = HEAD) -> bool:
    results = [compare_structure(*pair) for pair in ((read(a), read(b, head_b)), (read(b, head_b), read(a)))]
    assert results[0].identical == results[1].identical, "the order of the two models must not matter"
    for result in results:
        assert result.identical == (result.reason is None)
        if result.identical:
            assert not result.only_a and not result.only_b and not result.constants_only_a
    return results[0].identical


SAME = {
    "names and order": BASE.replace("h = Add(x, w)\n  r = Relu(h)", "a_1 = Add(x, w)\n  b_2 = Relu(a_1)").replace(
        "Mul(r, w)", "Mul(b_2, w)"
    ),
    "constant node": """g (float[N,3] x) => (float[N,3] y) {
        k = Constant<value = float[3] {1.0, 2.0, 3.0}>()
        h = Add(x, k) r = Relu(h) y = Mul(r, k) }""",
    "value_floats, stored twice": """g (float[N,3] x) => (float[N,3] y) <float[3] w = {1.0, 2.0, 3.0}> {
        k = Constant<value_floats = [1.0, 2.0, 3.0]>()
        h = Add(x, k) r = Relu(h) y = Mul(r, w) }""",
    "dead node and dead constant": BASE.replace("<float[3] w", "<float dead = {5.0}, float[3] w").replace(
        "r = Relu", "d = Exp(h) r = Relu"
    ),
    "name of a symbolic dim": BASE.replace("[N,3]", "[batch,3]"),
}


@pytest.mark.parametrize("name", SAME)
def test_identical(name: str) -> None:
    assert identical(BASE, SAME[name])


def test_names_metadata_and_doc_strings_do_not_matter() -> None:
    a, b = read(BASE), read(BASE)
    b.graph.name, b.doc_string, b.producer_name = "other", "words", "someone"
    for node in b.graph:
        node.name, node.doc_string, node.metadata_props["scope"] = "n", "words", "here"
    assert compare_structure(a, b).identical


DIFFERENT = {
    "a weight by one ulp": BASE.replace("3.0}", "3.0000002384185791}"),
    "sign of a zero": BASE.replace("1.0, 2.0", "-0.0, 2.0"),
    "operands of a commutative op": BASE.replace("Add(x, w)", "Add(w, x)"),
    "op": BASE.replace("Relu", "Abs"),
    "name of an input": BASE.replace("float[N,3] x", "float[N,3] z").replace("Add(x", "Add(z"),
    "name of the output": BASE.replace("y", "out"),
    "batch baked in": BASE.replace("[N,3]", "[1,3]"),
    "an extra node": BASE.replace("Relu(h)", "Relu(hh)").replace("r =", "hh = Identity(h) r ="),
    "computed twice": BASE.replace("Mul(r, w)", "Mul(r, h2)").replace("r =", "h2 = Add(x, w) r ="),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_not_identical(name: str) -> None:
    base = BASE.replace("1.0, 2.0", "0.0, 2.0") if "zero" in name else BASE
    assert not identical(base, DIFFERENT[name])


def test_sharing_counts() -> None:
    """One random draw used twice is not two draws."""
    once = "g () => (float[2] y) { a = RandomNormal<shape=[2]>() y = Sub(a, a) }"
    twice = "g () => (float[2] y) { a = RandomNormal<shape=[2]>() b = RandomNormal<shape=[2]>() y = Sub(a, b) }"
    assert identical(once, once) and identical(twice, twice) and not identical(once, twice)
    split = "s{0}, t{0} = Split<axis=0>(x)"
    one = "g (float[4] x) => (float[2] y) { " + split.format(0) + " y = Sub(s0, t0) }"
    two = "g (float[4] x) => (float[2] y) { " + split.format(0) + " " + split.format(1) + " y = Sub(s0, t1) }"
    assert identical(one, one) and not identical(one, two)


CONV = "g (float[1,2,8,8] x, float[4,2,3,3] w) => (float[1,4,a,b] y) {{ y = Conv{}(x, w) }}"


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ("group = 1", True),
        ('auto_pad = "NOTSET", dilations = [1, 1], strides = [1, 1], pads = [0, 0, 0, 0]', True),
        ("dilations = [2, 2]", False),
        ("group = 2", False),
        ("pads = [0, 0, 0, 1]", False),
        ('auto_pad = "VALID"', False),
    ],
)
def test_attributes_at_their_default(given: str, same: bool) -> None:
    assert identical(CONV.format(""), CONV.format(f"<{given}>")) is same


def test_float_attribute_default_is_compared_in_float32() -> None:
    norm = "g (float[2,3] x, float[3] s) => (float[2,3] y) {{ y = LayerNormalization{}(x, s) }}"
    assert identical(norm.format(""), norm.format("<epsilon = 0.00001, axis = -1>"))
    assert not identical(norm.format(""), norm.format("<epsilon = 0.000001>"))


def test_opsets() -> None:
    """Unused imports do not matter, nor does a version between two changes of the operators in use."""
    assert identical(BASE, BASE, '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>')
    assert identical(BASE, BASE, '<ir_version: 9, opset_import: ["" : 18]>')
    reduce = "g (float[2,3] x) => (float[2,1] y) { y = ReduceSum(x) }"
    assert not identical(reduce, reduce, '<ir_version: 8, opset_import: ["" : 11]>')


def test_operands_left_out_at_the_end() -> None:
    clip = "g (float[3] x, float m) => (float[3] y) {{ y = Clip({}) }}"
    assert identical(clip.format("x, m"), clip.format("x, m, "))
    assert not identical(clip.format("x, m"), clip.format('x, "", m'))


def test_storage_of_initializers(tmp_path: Path) -> None:
    a = read(BASE)
    b = read(BASE)
    data = np.array([1, 2, 3], np.float32)
    (tmp_path / "w.bin").write_bytes(b"pad!" + data.tobytes())
    b.graph.initializers["w"].const_value = ir.ExternalTensor(
        "w.bin", 4, 12, ir.DataType.FLOAT, shape=ir.Shape([3]), name="w", base_dir=tmp_path
    )
    assert compare_structure(a, b).identical
    (tmp_path / "w.bin").write_bytes(b"pad!" + np.array([1, 2, 4], np.float32).tobytes())
    b.graph.initializers["w"].const_value = ir.ExternalTensor(
        "w.bin", 4, 12, ir.DataType.FLOAT, shape=ir.Shape([3]), name="w", base_dir=tmp_path
    )
    result = compare_structure(a, b)
    assert (result.constants_equal, result.constants_only_a, result.constants_only_b) == (0, ("w",), ("w",))


def test_the_content_of_a_tensor_tells_dtype_and_shape_apart() -> None:
    contents = Contents()

    def content(tensor: ir.TensorProtocol) -> Hashable:
        return content_of(tensor, contents)

    arrays: list[np.ndarray] = [
        np.zeros(4, np.float32),
        np.zeros(4, np.int32),
        np.zeros((2, 2), np.float32),
        np.zeros(8, np.float16),
    ]
    assert len({content(ir.tensor(array)) for array in arrays}) == len(arrays)
    strings = [ir.StringTensor(data, shape=ir.Shape([2])) for data in ([b"ab", b"c"], [b"a", b"bc"])]
    assert content(strings[0]) != content(strings[1])
    packed = ir.PackedTensor(np.array([0xE1, 0xF3], np.uint8), ir.DataType.INT4, shape=ir.Shape([3]))  # F: padding
    assert content(packed) == content(ir.Tensor(np.array([1, -2, 3], ir.DataType.INT4.numpy())))
    assert content(packed) != content(ir.Tensor(np.array([1, -2, 2], ir.DataType.INT4.numpy())))


def test_overridable_default_is_no_constant() -> None:
    listed = BASE.replace("float[N,3] x)", "float[N,3] x, float[3] w)")
    assert not identical(BASE, listed)
    assert identical(BASE, listed, '<ir_version: 3, opset_import: ["" : 17]>')


IF = """g (bool c, float[3] x) => (float[3] y) <float[3] w = {{1.0, 2.0, 3.0}}> {{
  h = Add(x, w)
  y = If(c) <then_branch = t () => (float[3] o) {{ {then} }}, else_branch = e () => (float[3] p) {{ {other} }}>
}}"""
LOOP = """g (int64 n, float[3] x) => (float[3] y) {{
  c = Constant<value = bool {{1}}>()
  k = Exp(x)
  y = Loop(n, c, x) <body = b (int64 {i}, bool {c}, float[3] {v}) => (bool d, float[3] w) {{
     d = Identity({c})
     {body}
  }}>
}}"""


def test_subgraphs() -> None:
    base = IF.format(then="o = Relu(h)", other="p = Neg(h)")
    assert identical(base, IF.format(then="dead = Exp(h) q = Relu(h) o = Identity(q)", other="p = Neg(h)")) is False
    assert identical(base, IF.format(then="dead = Exp(h) o = Relu(h)", other="p = Neg(h)"))
    assert not identical(base, IF.format(then="o = Relu(x)", other="p = Neg(h)")), "another captured value"
    assert not identical(base, IF.format(then="o = Neg(h)", other="p = Relu(h)")), "branches swapped"
    inner = "k = Constant<value = float[3] {{1.0, 2.0, 3.0}}>() o = Add(h, k)".replace("{{", "{").replace("}}", "}")
    assert identical(IF.format(then="o = Add(h, w)", other="p = Neg(h)"), IF.format(then=inner, other="p = Neg(h)"))


def test_loop_bodies_by_position_of_their_parameters() -> None:
    base = LOOP.format(i="i", c="cc", v="v", body="w = Add(v, k)")
    assert identical(base, LOOP.format(i="p", c="q", v="r", body="w = Add(r, k)"))
    assert not identical(base, LOOP.format(i="i", c="cc", v="v", body="w = Add(v, v)"))
    assert not identical(base, LOOP.format(i="i", c="cc", v="v", body="w = Add(v, x)"))
    result = compare_structure(read(base), read(LOOP.format(i="i", c="cc", v="v", body="w = Sub(v, k)")))
    assert [node.op_type for node in result.only_a] == ["Add"], "the node inside the body is what differs"


FUNCTION = """g (float[3] x) => (float[3] y) {{ a = local.f<alpha = {alpha}>(x) y = local.f<alpha = 1.0>(a) }}
<domain: "local", opset_import: ["" : 17]>
f <alpha> (q) => (r) {{ s = LeakyRelu<alpha: float = @alpha>(q) r = {op}(s) }}"""
LOCAL = '<ir_version: 8, opset_import: ["" : 17, "local" : 1]>'


def test_model_local_functions() -> None:
    def model(alpha: str = "0.5", op: str = "Neg") -> ir.Model:
        return read(FUNCTION.format(alpha=alpha, op=op), LOCAL)

    assert compare_structure(model(), model()).identical
    assert not compare_structure(model(), model(alpha="0.25")).identical
    assert not compare_structure(model(), model(op="Abs")).identical


def test_diff_of_a_changed_weight_keeps_the_nodes_matched() -> None:
    result = compare_structure(read(BASE), read(DIFFERENT["a weight by one ulp"])).to_json()
    assert result["matched_nodes"] == result["nodes_a"] == 3 and result["only_a"] == result["only_b"] == []
    assert result["constants"] == {"equal": 0, "only_a": ["w"], "only_b": ["w"]}
    assert result["reason"] == "constant 'w' of A is not 'w' of B"


def test_diff_of_an_inserted_node_shows_only_that_node() -> None:
    result = compare_structure(read(BASE), read(DIFFERENT["an extra node"])).to_json()
    assert result["only_a"] == [] and result["only_b"] == [
        {"node": "Identity(hh)", "op_type": "Identity", "outputs": ["hh"]}
    ]
    assert result["ops"] == {"Add": [1, 1], "Identity": [0, 1], "Mul": [1, 1], "Relu": [1, 1]}
    assert result["mapping"] == [["Add(h)", "Add(h)"], ["Relu(r)", "Relu(r)"], ["Mul(y)", "Mul(y)"]]
    assert result["constants"]["equal"] == 1


def test_reason_for_a_constant_that_is_computed_on_the_other_side() -> None:
    result = compare_structure(read(BASE), read(BASE.replace("h = Add(x, w)", "v = Identity(w) h = Add(x, v)")))
    assert result.reason == "'w' of A and 'v' of B: a constant in A, computed in B"


def test_cycles_and_dangling_operands_are_told() -> None:
    model = read(BASE)
    add, relu, _ = list(model.graph)
    add.replace_input_with(0, relu.outputs[0])
    with pytest.raises(ModelError, match=r"model: node (Add|Relu)\(.\): the graph has a cycle"):
        compare_structure(model, read(BASE))
    with pytest.raises(ModelError, match=r"node Add\(h\): nothing produces its operand 'v'"):
        compare_structure(read(BASE.replace("Add(x, w)", "Add(x, v)")), read(BASE))


def test_partners_are_looked_for_once_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(structure, "_match", lambda left, right, walked: asked.append("partners") or dict(walked))
    result = compare_structure(read(BASE), read(DIFFERENT["an extra node"]))
    assert not result.identical and result.reason and asked == []
    assert result.pairs and result.only_b and asked == ["partners"]


def test_recursion_free_and_linear() -> None:
    def chain(length: int) -> ir.Model:
        x = value = ir.val("x", ir.DataType.FLOAT, [2])
        nodes = []
        for i in range(length):
            nodes.append(ir.node("Relu" if i % 2 else "Neg", [value]))
            value = nodes[-1].outputs[0]
        value.name = "y"
        return ir.Model(ir.Graph([x], [value], nodes=nodes, opset_imports={"": 17}), ir_version=8)

    def calls(length: int) -> int:
        """The function calls that a comparison of two chains takes."""
        counted = 0

        def count(_frame: object, event: str, _argument: object) -> None:
            nonlocal counted
            counted += event.endswith("call")

        both = chain(length), chain(length)
        sys.setprofile(count)
        try:
            compare_structure(*both)
        finally:
            sys.setprofile(None)
        return counted

    result = compare_structure(chain(10_000), a := chain(10_000))
    assert result.identical and len(result.pairs) == 10_000
    assert calls(1000) > 1000 and calls(2000) < 2.2 * calls(1000)
    assert not compare_structure(a, chain(10_001)).identical


def test_graph_json() -> None:
    model = read(CONV.format("<strides = [2, 2]>"))
    next(iter(model.graph)).metadata_props["pkg.torch.onnx.name_scopes"] = "['', 'vit', 'vit.proj', 'conv2d']"
    graph = graph_json(model)
    assert graph["inputs"] == ["x", "w"] and graph["outputs"] == ["y"]
    assert graph["nodes"] == [
        {
            "id": 0, "name": "Conv(y)", "op_type": "Conv", "domain": "", "inputs": ["x", "w"], "outputs": ["y"],
            "attributes": {"strides": "[2, 2]"}, "module": "vit.proj",
        }
    ]  # fmt: skip
    assert graph["tensors"]["y"] == {"dtype": "float", "shape": [1, 4, "a", "b"], "constant": False}
    constants = graph_json(read(SAME["constant node"]))
    assert constants["tensors"]["k"]["constant"] and not constants["tensors"]["h"]["constant"]
    assert constants["nodes"][0]["attributes"]["value"] == "float[3] [1.0, 2.0, 3.0]"
    torchscript = read("g (float[3] x) => (float[3] y) { y = Relu(x) }")
    next(iter(torchscript.graph)).name = "/vit/act/Relu"
    assert graph_json(torchscript)["nodes"][0]["module"] == "vit.act"
    assert graph_json(read(IF.format(then="o = Relu(h)", other="p = Neg(h)")))["nodes"][1]["attributes"] == {
        "then_branch": "graph of 1 nodes", "else_branch": "graph of 1 nodes",
    }  # fmt: skip


def changes(a: str, b: str) -> list[dict[str, object]]:
    return changed(compare_structure(read(a), read(b)))


def test_the_constants_that_alone_separate_two_graphs() -> None:
    other = BASE.replace("2.0, 3.0", "2.5, 7.0")
    assert changes(BASE, other) == [
        {"a": "w", "b": "w", "elements": 3, "shape_a": [3], "shape_b": [3]}
        | {"unequal": 2, "max_abs": 4.0, "max_ulp": 2.5 * 2.0**22}
    ], "once, though two nodes take it"
    assert [row["max_ulp"] for row in changes(BASE, BASE.replace("2.0, 3.0", "2.0000002, 3.0"))] == [1.0]
    assert used(compare_structure(read(BASE), read(other))) == {"a": 1, "b": 1}
    two = "g (float[N,3] x) => (float[N,3] y) <float[1,3] v = {1,2,3}, float w = {4}> { h = Add(x, v) y = Mul(h, w) }"
    found = changes(two, two.replace("[1,3] v = {1,2,3}", "[3] u = {1,2,3}").replace("x, v", "x, u").replace("4", "5"))
    assert [(row["a"], row["b"], row["unequal"], row["shape_b"]) for row in found] == [
        ("v", "u", None, [3]), ("w", "w", 1, [])
    ]  # fmt: skip
    nan = BASE.replace("1.0, 2.0, 3.0", "1.0, nan, 3.0"), BASE.replace("1.0, 2.0, 3.0", "1.5, nan, inf")
    assert [(row["unequal"], row["max_abs"]) for row in changes(*nan)] == [(2, 0.5)]


@pytest.mark.parametrize("b", [BASE, BASE.replace("Relu", "Abs"), BASE.replace("Relu", "Abs").replace("3.0}", "4.0}")])
def test_where_more_than_constants_differ_none_are_listed(b: str) -> None:
    assert changes(BASE, b) == []
