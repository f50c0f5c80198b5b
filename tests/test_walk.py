"""The walk back: each value once, as far as it is let; and no other walk over producers in patches and rewriting."""

from __future__ import annotations

import ast
from pathlib import Path

import onnx_ir as ir
import pytest

from graphcheck.graphs import walk

ROOT = Path(__file__).parent.parent / "graphcheck"
MODEL = ir.from_onnx_text("""<ir_version: 9, opset_import: ["" : 18]>
g (float[2,3] x) => (float[2,3] y) <float[2,3] w = {1, 2, 3, 4, 5, 6}>
{ a = Neg(x) b = Abs(a) c = Add(b, w) d = Mul(c, a) y = Relu(d) }""")
END = MODEL.graph.outputs[0]


def test_each_value_behind_comes_once() -> None:
    names = [value.name for value in walk.back([END, None], walk.operands)]
    assert names[0] == "y" and sorted(names) == ["a", "b", "c", "d", "w", "x", "y"]
    assert [n.op_type for n in walk.makers([END, END])] == ["Relu"]


def test_a_walk_ends_where_it_is_told() -> None:
    held = walk.back([END], lambda value: () if value.name == "d" else walk.operands(value))
    assert [value.name for value in held] == ["y", "d"]


def test_a_chain_takes_one_operand_of_each_producer() -> None:
    assert [v.name for v in walk.chain(END, lambda node: node.inputs[0])] == ["y", "d", "c", "b", "a", "x"]
    assert [v.name for v in walk.chain(END, lambda node: None)] == ["y"]
    assert list(walk.chain(None, lambda node: node.inputs[0])) == []


def walks(source: str) -> list[str]:
    """The loops that ask for producers as they go, which only the walk should."""
    loops = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.While)]
    return [ast.unparse(loop.test) for loop in loops if ".producer()" in ast.unparse(loop)]


@pytest.mark.parametrize("room", ["patches", "rewriting"])
def test_no_other_walk_over_producers(room: str) -> None:
    assert {path.name: found for path in (ROOT / room).glob("*.py") if (found := walks(path.read_text()))} == {}
    assert walks((ROOT / "graphs/walk.py").read_text()) == ["value is not None"]
