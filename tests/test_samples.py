"""Which integers a search for a witness gives values to, and which values."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphcheck.interface.inputs import Arrays, InputSpec
from graphcheck.interface.ports import pair_interfaces
from graphcheck.kernel.ops.algebra import Tensor
from graphcheck.kernel.proof import pair as pairs
from graphcheck.parting import samples

HEADER = '<ir_version: 10, opset_import: ["": 20]> g '
TABLE = "<float[7,2] table = {1,2,3,4,5,6,7,8,9,1,2,3,4,5}> "
# graph: the integers that steer a lookup, with the number of legal values
NEEDED = {
    f"(int64[4] ids, float[4,2] x) => (float[4,2] y) {TABLE} {{ e = Gather(table, ids) y = Add(e, x) }}": {"ids": 7},
    "(int32[4,1] ids, float[9,3] x) => (float[4,1,9] y) { i = Cast<to=7>(ids) t = Transpose(x) r = Constant<value_ints=[1]>() "
    "e = Gather<axis=1>(t, i) z = Transpose<perm=[1,2,0]>(e) y = Identity(z) }": {"ids": 9},
    f"(int64[2] ids) => (float[2,2] y) {TABLE} {{ k = Constant<value_int=3>() i = Mul(ids, k) y = Gather(table, i) }}": {
        "ids": None
    },
    "(int64[4] n, float[4] x) => (float[4] y) { f = Cast<to=1>(n) y = Mul(f, x) }": {},
    "(int64[4] n, float[4] x) => (float[4] y) { f = Cast<to=1>(n) s = Mul(f, x) y = Hardmax(s) }": {},
}


@pytest.mark.parametrize(("text", "expected"), NEEDED.items())
def test_integers_that_alone_compute_an_operand_of_an_unknown_function(text: str, expected: dict[str, int | None]) -> None:
    model = ir.from_proto(onnx.parser.parse_model(HEADER + text))
    interface = pair_interfaces(model, model)
    shapes = {p.key: tuple(p.a.shape) for p in interface.inputs if p.a is not None and p.a.shape is not None}
    found = pairs.build(model, model, {name: (name, shape) for name, shape in shapes.items()}, {})  # type: ignore[misc,arg-type]
    roots = [x.cls for x in found.a.outputs if isinstance(x, Tensor)]
    assert samples.needed(found.terms, roots, interface) == expected
    seen = list(samples.drawn(expected, interface, shapes, InputSpec(3)))  # type: ignore[arg-type]
    assert all(values.keys() == expected.keys() for values in seen)
    for name, count in expected.items():
        drawn = np.stack([values[name] for values in seen])
        assert drawn.min() >= 0 and drawn.max() < (count or 4) and not drawn[-1].any()
        assert count is None or drawn.max() > 3


def test_given_integers_are_tried_first_and_alone_choose_the_branch() -> None:
    """What ``--replay`` gives again is looked at in the branch that it chose at first, before anything is drawn."""
    text = """(float[2] x, int64 sr) => (float[2] y) <int64 k = {8}> { c = Equal(sr, k)
      y = If(c) <then_branch = t () => (float[2] u) { u = Tanh(x) }, else_branch = e () => (float[2] v) { v = Exp(x) }> }"""
    model = ir.from_proto(onnx.parser.parse_model(HEADER + text))
    interface, shapes = pair_interfaces(model, model), {"x": (2,), "sr": ()}
    feeds = {name: (name, shape) for name, shape in shapes.items()}

    def build(values: Arrays) -> pairs.Pair:
        return pairs.build(model, model, feeds, values)

    free, given = build({}), {"x": np.zeros(2, np.float32), "sr": np.asarray(8)}
    def tried(pair: pairs.Pair, given: Arrays | None) -> list[pairs.Pair]:
        roots = [(x.cls, x.cls) for x in pair.a.outputs if isinstance(x, Tensor)]
        return list(samples.pairs(pair, interface, roots, InputSpec(0), given, build))

    assert tried(free, None) == [free]
    first, second = tried(free, given)
    assert first.concrete == {"sr": 8} and second is free
    assert tried(first, given) == [first]


def test_asked_ranges_and_masks_are_kept() -> None:
    text = f"(int64[8] ids, int64[8] mask) => (float[8,2] y) {TABLE} {{ i = Mul(ids, mask) y = Gather(table, i) }}"
    model = ir.from_proto(onnx.parser.parse_model(HEADER + text))
    interface = pair_interfaces(model, model)
    spec = InputSpec(0, ranges=(("ids", 5.0, 6.0),))
    for values in samples.drawn({"ids": 7, "mask": 7}, interface, {"ids": (8,), "mask": (8,)}, spec):
        assert set(values["ids"].tolist()) <= {5, 6} and set(values["mask"].tolist()) <= {0, 1}


@pytest.mark.parametrize(("axis", "rows"), [(0, [4, 1]), (1, [0, 1])])
def test_the_rows_in_which_two_tables_differ_are_tried_first(axis: int, rows: list[int]) -> None:
    """The farther one first; none where a range is asked for."""
    change = "<float[7,2] c = {0,0, 0,1, 0,0, 0,0, 3,0, 0,0, 0,0}, "
    body = f"u = Add (table, c) y = Gather <axis = {axis}> (table, ids) z = Gather <axis = {axis}> (u, ids)"
    text = f"(int64[4] ids) => (float[a,b] y, float[a,b] z) {change}{TABLE[1:]} {{ {body} }}"
    model = ir.from_proto(onnx.parser.parse_model(HEADER + text))
    found = pairs.build(model, model, {"ids": ("ids", (4,))}, {})
    roots = [x.cls for x in found.a.outputs if isinstance(x, Tensor)]
    draws = [{"ids": np.arange(4)}]
    first, second = samples.telling(found, roots, {"ids"}, iter(draws))
    assert first["ids"].tolist() == 2 * rows and second is draws[0]
    assert list(samples.telling(found, roots, set(), iter(draws))) == draws
