"""Patches of free height and width that must divide: rewritten at lengths that fit them, and wrong ones are seen."""

from __future__ import annotations

import functools

import numpy as np
import onnx_ir as ir
import pytest
from patch_cases import TOKENS, graph, ints, ops

from graphcheck.interface import lengths
from graphcheck.patches.analyze import find
from graphcheck.rewriting.rewrite import rewrite
from graphcheck.verdict import Comparison, Verdict
from graphcheck.verdicts.compare import compare

judged = functools.partial(compare, graphs=False)


def patches(size: int, order: str = "0, 2, 4, 1, 3, 5") -> ir.Model:
    """Tokens of patches cut by Reshape, which refuses a height or width that ``size`` does not divide."""
    body = f"""
        sh = Shape(x) n = Gather<axis = 0>(sh, i0) h = Gather<axis = 0>(sh, i2) v = Gather<axis = 0>(sh, i3)
        gh = Div(h, p) gw = Div(v, p) s1 = Concat<axis = 0>(n, three, gh, p, gw, p) r = Reshape(x, s1)
        t = Transpose<perm = [{order}]>(r) l = Mul(gh, gw) s2 = Concat<axis = 0>(n, l, k) m = Reshape(t, s2)
        y = MatMul(m, w)
    """
    depth = 3 * size * size
    numbers = {"i0": ints(0), "i2": ints(2), "i3": ints(3), "p": ints(size), "three": ints(3), "k": ints(depth)}
    return graph("float[N,3,H,W] x", TOKENS, body, w=(depth, 2), **numbers)


def cropping(size: int, strides: tuple[int, int] | None = None, *, flipped: bool = False) -> ir.Model:
    """The Conv that should give the same, which takes every size."""
    weight = ir.to_proto(patches(size)).graph.initializer
    array = next(ir.from_proto(t).numpy() for t in weight if t.name == "w").T.reshape(2, 3, size, size)
    array = array[:, :, ::-1] if flipped else array
    body = f"""c = Conv<strides = {[*(strides or (size, size))]}>(x, w) f = Reshape(c, s)
        y = Transpose<perm = [0, 2, 1]>(f)"""
    return graph("float[N,3,H,W] x", TOKENS, body, s=ints(0, 2, -1), w=np.ascontiguousarray(array))


def by_one(found: Comparison) -> set[tuple[str, int, str]]:
    """The sizes that one model alone takes: (dim, size, model)."""
    limits = found.evidence["proof"]["limits"]
    return {(name, row["size"], row["by"]) for name, limit in limits.items() for row in limit["taken_by_one"]}


@pytest.mark.parametrize("size", [14, 7, 12, 10, 5, 13])
def test_patches_of_any_size_are_rewritten(size: int) -> None:
    result = rewrite(patches(size), "conv", check=judged)
    assert (result.verdict, len(result.applied), result.refusals) == (Verdict.PROVED, 1, ())
    assert "Conv" in ops(result.model) and "B alone takes H = " in result.reason
    assert find(result.model).sites[0].kernel_shape == (size, size)
    flat = next(row for row in result.to_json()["sites"][0]["before"] if row["op_type"] == "Reshape" and row["rank"] == 3)
    assert flat["shape"] == [None, None, 3 * size * size]  # the number of patches is not fixed
    proof = judged(patches(size), cropping(size)).evidence["proof"]
    assert all(shape["x"][axis] % size == 0 and shape["x"][axis] > size for shape in proof["shapes"] for axis in (2, 3))


@pytest.mark.parametrize("size", [14, 12, 5])
@pytest.mark.parametrize("wrong", ["flipped", "stride", "columns first"])
def test_a_wrong_rewrite_is_seen_at_the_lengths_that_fit(size: int, wrong: str) -> None:
    """All are right where the image is one patch high; of columns first also where it is one patch wide."""
    a = patches(size, "0, 4, 2, 1, 3, 5") if wrong == "columns first" else patches(size)
    b = cropping(size, (size + 1, size) if wrong == "stride" else None, flipped=wrong == "flipped")
    for pair in ((a, b), (b, a)):
        assert judged(*pair).verdict is Verdict.DIFFERENT
        assert not judged(*pair, run=False).verdict.meets(Verdict.WITHIN_ROUNDING)


@pytest.mark.parametrize("size", [224, 448])
def test_a_stride_that_shows_at_no_usual_size_is_seen(size: int) -> None:
    """One patch fills the usual image, or none fits in it."""
    for pair in (a := patches(size), cropping(size, (size + 1, size))), (cropping(size, (size, size + 7)), a):
        assert judged(*pair, run=False).verdict is not Verdict.PROVED
    assert judged(a, cropping(size), run=False).verdict is Verdict.PROVED


def test_sizes_that_one_model_takes_are_told_in_both_orders() -> None:
    a, b = patches(14), cropping(14)
    one, other = judged(a, b, run=False), judged(b, a, run=False)
    assert one.verdict is other.verdict is Verdict.PROVED
    assert "; B alone takes H = 16, " in one.reason and "; A alone takes H = 16, " in other.reason
    assert ("W", 16, "b") in by_one(one) and ("W", 16, "a") in by_one(other)
    assert all(size % 14 for found in (one, other) for _, size, _ in by_one(found))


def test_a_new_model_that_takes_fewer_sizes_is_refused() -> None:
    result = rewrite(patches(14), "conv", check=lambda original, new: judged(new, original))
    assert result.verdict is Verdict.UNDECIDED and not result.changed
    assert result.reason == "the new model does not take H = 16, which the original takes"


def test_a_size_that_is_baked_in_is_a_difference_still() -> None:
    """No length but the one is taken by both."""
    baked = graph("float[1,3,H,W] x", "float[1,3,224,224] y", "y = Reshape(x, s)", s=ints(1, 3, 224, 224))
    free = graph("float[1,3,H,W] x", "float[1,3,h,w] y", "y = Identity(x)")
    found = judged(free, baked)
    assert found.verdict is Verdict.DIFFERENT and "A runs at " in found.reason and "B does not" in found.reason


def test_usual_sizes_that_one_model_refuses_give_way_and_it_is_told() -> None:
    found = judged(patches(12), cropping(12))
    note = "the usual sizes fit B alone; found to fit both: H = 228, W = 228"
    assert (found.verdict, found.evidence["interface"]["notes"][0]) == (Verdict.PROVED, note)
    assert found.evidence["numeric"]["runs"][0]["inputs"]["shapes"]["x"] == [2, 3, 228, 228]
    asked = judged(patches(12), cropping(12), shapes={"x": (1, 3, 50, 48)})
    assert asked.verdict is Verdict.DIFFERENT and "B runs at x=1x3x50x48 and A does not" in asked.reason


def test_the_usual_size_does_not_stand_for_another_one() -> None:
    """104 is the first multiple of 52 that is tried, and in place of the usual length already."""
    body = "s = Shape<start = 1>(x) q = Div(s, p) e = Concat<axis = 0>(o, q, p) r = Reshape(x, e) y = Reshape(r, m)"
    given = {"p": ints(52), "o": ints(1), "m": ints(1, -1)}
    free = graph("float[1,L] x", "float[1,M] y", "y = Identity(x)")
    cut = graph("float[1,L] x", "float[1,M] y", body, **given)
    found = judged(free, cut, run=False)
    assert found.verdict is Verdict.PROVED
    sizes = {shape["x"][1] for shape in found.evidence["proof"]["shapes"]}
    assert len(sizes) > 1 and all(size % 52 == 0 for size in sizes), sizes


def test_lengths_are_multiples_of_what_stands_in_the_models() -> None:
    assert 28 in lengths.tried([]) and 26 not in lengths.tried([patches(14)])
    assert 26 in lengths.tried([patches(13)]) and 20 in lengths.tried([patches(10)])
