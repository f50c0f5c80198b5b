"""What a rewrite must not lose: inputs with defaults, element types that no file declares, sites that begin inside of
others, legal results whose windows are read in another way."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from patch_cases import graph, ints, ops, run

from graphcheck.patches.analyze import find
from graphcheck.patches.preparing import prepared
from graphcheck.rewriting.result import Rewrite
from graphcheck.rewriting.rewrite import rewrite
from graphcheck.verdict import Comparison, Verdict
from graphcheck.verdicts.compare import compare

DEFAULT = "is an input of the model with a default, which a caller may override"


def prove(a: ir.Model, b: ir.Model) -> Comparison:
    return compare(a, b, graphs=False)


def assert_applied(result: Rewrite, names: set[str]) -> None:
    """Exactly these sites are told, and what was written for each is in the model."""
    assert result.changed and {a.site.name for a in result.applied} == names, (result.reason, result.refusals)
    there = {v.name for node in result.model.graph for v in node.outputs}
    for one in result.applied:
        assert any(row["tensor"] in there for row in one.after), one.site.name


# -- inputs with defaults ------------------------------------------------------------------------------------------------

CONV = "y = Conv <strides = [2, 2]> (x, w, c)"
MOVED = "r = Reshape(x, k) t = Transpose<perm = [0, 1, 3, 5, 2, 4]>(r) y = Reshape(t, k2)"
SHAPES = {"k": ints(-1, 2, 3, 2, 2, 2), "k2": ints(-1, 8, 3, 2)}


def convolution(inputs: str, opset: int = 18) -> ir.Model:
    given = f"float[N,4,6,6] x{inputs}"
    return graph(given, "float[N,a,b,d] y", CONV, opset, w=(8, 4, 2, 2), c=(8,))


@pytest.mark.parametrize(("inputs", "name"), [(", float[8,4,2,2] w", "w"), (", float[8] c", "c")])
def test_a_default_that_a_caller_may_override_is_not_folded_in(inputs: str, name: str) -> None:
    for to in ("matmul", "space-to-depth"):
        result = rewrite(convolution(inputs), to, check=prove)
        assert not result.changed and [r.reason for r in result.refusals] == [f"its constant {name} {DEFAULT}"]
        assert result.refusals[0].reason.code == "GC302"


def test_a_listed_initializer_is_a_constant_before_ir_version_4() -> None:
    model = convolution(", float[8,4,2,2] w, float[8] c", opset=8)
    model.ir_version = 3
    result = rewrite(model, "matmul", check=prove)
    assert result.verdict is Verdict.PROVED
    inputs, constants = [v.name for v in result.model.graph.inputs], result.model.graph.initializers
    assert "w" not in constants and set(inputs) == {"x", *constants}
    both = zip(*(run(m, 0, {"N": 2}) for m in (model, result.model)), strict=True)
    assert all(np.abs(a - b).max() <= 1e-5 for a, b in both)


@pytest.mark.parametrize(("to", "options"), [("space-to-depth", {"movement": True}), ("conv", {"max_rank": 4})])
def test_movement_by_a_shape_that_a_caller_may_give_stays(to: str, options: dict[str, object]) -> None:
    result = rewrite(graph("float[N,2,6,4] x", "float[N,8,3,2] y", MOVED, **SHAPES), to, check=prove, **options)
    assert result.changed and result.moved
    result = rewrite(graph("float[N,2,6,4] x, int64[4] k2", "float[N,8,a,b] y", MOVED, **SHAPES), to, check=prove, **options)
    assert not result.changed and any(DEFAULT in r.reason for r in result.refusals)


# -- element types -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float16", "double"])
@pytest.mark.parametrize(("to", "options"), [("space-to-depth", {"movement": True}), ("conv", {"max_rank": 4})])
def test_movement_keeps_an_element_type_that_no_file_declares(kind: str, to: str, options: dict[str, object]) -> None:
    body = f"s = Relu(x) {MOVED.replace('x,', 's,').replace('y =', 'z =')} y = Relu(z)"
    model = graph(f"{kind}[N,2,6,4] x", f"{kind}[N,8,3,2] y", body, kind=kind, **SHAPES)
    result = rewrite(model, to, check=prove, **options)
    assert result.verdict is Verdict.PROVED and result.moved, result.reason
    (one,), (other,) = (run(m, 0, {"N": 2}) for m in (model, result.model))
    assert one.dtype == other.dtype and np.array_equal(one, other)


# -- sites that begin inside of others -----------------------------------------------------------------------------------

PATCHES = {"k": ints(-1, 4, 3, 8), "k2": ints(-1, 4, 24)}
BEHIND = "r = Reshape(m, k) t = Transpose<perm = [0, 1, 3, 2]>(r) q = Reshape(t, k2)"


def two(end: str = "y = MatMul(q, v)") -> ir.Model:
    """A projection whose result is cut into patches, which are projected again."""
    return graph("float[N,12,3] x", "float[N,a,b] y", f"m = MatMul(x, w) {BEHIND} {end}", w=(3, 8), v=(24, 4), **PATCHES)


def test_a_projection_ends_where_the_patches_of_its_result_begin() -> None:
    seen = prepared(two(), pointwise=True)
    regions = [node for site in seen.analysis.everything if site.blocked is None for node in site.region]
    assert len(seen.analysis.everything) == 2 and len(set(regions)) == len(regions)
    result = rewrite(two(), "conv", pointwise=True, check=prove)
    assert_applied(result, {site.name for site in seen.analysis.everything})
    assert ops(result.model).count("Conv") == 2 and "MatMul" not in ops(result.model)


UNFOLDED = """t2 = Transpose<perm = [0, 2, 1]>(x) t4 = MatMul(t2, w) t9 = Transpose<perm = [0, 2, 1]>(t4)
    t11 = Reshape(t9, k) t12 = Transpose<perm = [0, 2, 3, 1]>(t11) t14 = Reshape(t12, k2)
    t15 = Transpose<perm = [0, 2, 1]>(t14) y = Conv(t15, v)"""


def unfolded() -> ir.Model:
    """Patches of a projection's result that are an un-embedding of it, too, up to the tensor before their Conv."""
    return graph("float[N,4,8] x", "float[N,1,4] y", UNFOLDED, w=(4, 8), v=(1, 16, 1), k=ints(-1, 8, 4, 2), k2=ints(0, 4, 16))


def test_an_unembedding_does_not_end_inside_of_patches() -> None:
    seen = find(unfolded())
    back, own = seen.unembeddings, seen.sites
    assert [site.blocked for site in own] == [None] and set(own[0].region) & set(back[0].region)
    assert back[0].blocked == f"its inner tensor {own[0].input.name} is used elsewhere"
    assert_applied(rewrite(unfolded(), "matmul", check=prove), {own[0].name})


def test_a_site_that_another_makes_useless_is_not_told_as_rewritten() -> None:
    seen = find(unfolded())
    forms = {seen.sites[0].name: "matmul", seen.unembeddings[0].name: "conv-transpose"}
    result = rewrite(unfolded(), forms, check=prove)
    assert_applied(result, {seen.sites[0].name})
    assert [(r.node, r.reason) for r in result.refusals] == [
        (seen.unembeddings[0].name, "another site that was rewritten leaves it without use")
    ]


# -- windows that are read in another way --------------------------------------------------------------------------------


def test_a_proof_excuses_windows_that_are_read_in_another_way() -> None:
    """One feature for each token: a 1x1 Conv of one channel is no projection that could be told as such."""
    body = "m = MatMul(x, w) r = Reshape(m, k) t = Transpose<perm = [0, 5, 1, 3, 2, 4]>(r) y = Reshape(t, k2)"
    shapes = {"k": ints(-1, 3, 4, 2, 2, 2), "k2": ints(-1, 2, 6, 8)}
    model = graph("float[N,12,1] x", "float[N,2,6,8] y", body, w=(1, 8), **shapes)
    result = rewrite(model, "depth-to-space", check=prove)
    assert result.changed and result.verdict is Verdict.PROVED and "DepthToSpace" in ops(result.model)
    told = {c.name: (c.ok, c.detail) for c in result.checks}["window map"]
    assert told == (None, "the result has not the window of MatMul(m) as it is read, and is proved")
    for verdict in (Verdict.UNDECIDED, Verdict.DIFFERENT):
        wrong = rewrite(model, "depth-to-space", check=lambda *_, v=verdict: Comparison(v, "because", {}))
        assert not wrong.changed and wrong.verdict is verdict and [c.ok for c in wrong.checks].count(False) == 1
    assert not rewrite(model, "depth-to-space").changed  # nobody proves it


def test_flattened_rows_are_cut_and_sampled_first() -> None:
    """A dilated Conv whose first tap meets padding alone is a projection of some of the rows."""
    conv = "Conv<dilations = [2, 1], pads = [1, 0, 0, 0], strides = [2, 3]>(t, w, c)"
    body = f"t = Transpose<perm = [0, 3, 1, 2]>(x) u = {conv} y = Reshape(u, k)"
    model = graph("float[N,3,4,4] x", "float[N,2,2] y", body, w=(2, 4, 2, 1), c=(2,), k=ints(-1, 2, 2))
    result = rewrite(model, "matmul", ordinary=True, check=prove)
    assert result.verdict is Verdict.PROVED and "Conv" not in ops(result.model), result.reason
    (one,), (other,) = (run(m, 0, {"N": 3}) for m in (model, result.model))
    assert one.shape == other.shape and np.allclose(one, other, atol=1e-5)
