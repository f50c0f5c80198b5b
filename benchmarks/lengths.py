"""Looks for false claims of every size: python -m benchmarks.lengths [--graphs N] [--seed N] [--seconds N]

Random graphs with free sizes N and M that mix them, beside copies with one to three changes: rewrites that keep the function,
sizes that are baked in, near misses. What is proved at one size and claimed at every size is held against onnxruntime at a
dozen sizes. Ends with 1 if a claim is false; each is named by the seed that makes it again, and ``--show SEED`` writes the pair.
"""

from __future__ import annotations

import collections
import copy
import os
import sys
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from benchmarks.seeds import fuzz
from graphcheck.errors import Undecided
from graphcheck.kernel.ops.algebra import Tensor
from graphcheck.kernel.proof.pair import build
from graphcheck.kernel.proof.prover import Prover
from graphcheck.kernel.proof.segments import Segments
from tests import rows_support as support
from tests.rows_graphs import Maker

_SIZES = ((1, 1), (2, 3), (3, 2), (3, 3), (4, 1), (1, 5), (5, 4), (6, 7), (7, 2), (8, 3), (9, 6), (17, 5))
_UNARY = ("Relu", "Neg", "Abs", "Sign", "Floor", "LeakyRelu")


class Changes:
    """A copy of a graph with changes; each method makes one, or none."""

    def __init__(self, model: onnx.ModelProto, values: dict[str, np.ndarray], rng: np.random.Generator) -> None:
        self.model, self.values, self.rng = copy.deepcopy(model), values, rng
        self.graph, self.made = self.model.graph, 0

    def any(self, things: Any) -> Any:
        """One of them."""
        return list(things)[int(self.rng.integers(len(list(things))))]

    def name(self) -> str:
        """A new one."""
        self.made += 1
        return f"m{self.made}"

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """The name of a constant."""
        name = self.name()
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def instead(self, node: onnx.NodeProto, *nodes: onnx.NodeProto) -> None:
        """These nodes in the place of one."""
        at = list(self.graph.node).index(node)
        kept = [*self.graph.node[:at], *nodes, *self.graph.node[at + 1 :]]
        kept = [copy.deepcopy(n) for n in kept]
        del self.graph.node[:]
        self.graph.node.extend(kept)

    def behind(self, node: onnx.NodeProto, op: str, *inputs: str, **attributes: Any) -> None:
        """An operator more on the first output of a node."""
        last, name = node.output[0], self.name()
        node.output[0] = name
        self.instead(node, copy.deepcopy(node), helper.make_node(op, [name, *inputs], [last], **attributes))

    def floats(self) -> list[onnx.NodeProto]:
        """Nodes that give floats."""
        return [n for n in self.graph.node if n.output[0] in self.values and self.values[n.output[0]].dtype == np.float32]

    # -- the same function ---------------------------------------------------------------------------------------

    def kept(self) -> None:
        """Operators that do nothing, or undo each other."""
        if not self.floats():
            return
        node = self.any(self.floats())
        rank = self.values[node.output[0]].ndim
        way = self.any(["Identity", "factors", "turned", "flat"])
        if way == "Identity":
            self.behind(node, "Identity")
        elif way == "factors":
            self.behind(node, "Mul", self.constant(4.0))
            last = next(n for n in self.graph.node if n.output[0] == node.output[0] or n.output[0].startswith("m"))
            self.behind(next(n for n in self.graph.node if n.output == last.output), "Identity")
            for n in self.graph.node:
                if n.op_type == "Mul" and len(n.input) == 2 and n.input[1].startswith("m") and n.input[0].startswith("m"):
                    self.behind(n, "Div", n.input[1])
                    break
        elif way == "turned" and rank > 1:
            perm = [int(p) for p in self.rng.permutation(rank)]
            self.behind(node, "Transpose", perm=perm)
            again = next(n for n in self.graph.node if n.op_type == "Transpose" and n.input[0] == f"m{self.made}")
            self.behind(again, "Transpose", perm=[perm.index(i) for i in range(rank)])
        elif way == "flat" and node.input and rank:
            shape = self.name()
            last, first, flat = node.output[0], self.name(), self.name()
            node.output[0] = first
            self.instead(
                node, copy.deepcopy(node), helper.make_node("Shape", [first], [shape]),
                helper.make_node("Reshape", [first, self.constant([-1], np.int64)], [flat]),
                helper.make_node("Reshape", [flat, shape], [last]),
            )  # fmt: skip

    def spelled(self) -> None:
        """An operator in other words."""
        node = self.any(self.graph.node)
        x, y = [*node.input, "", ""][:2]
        out, a, b = node.output[0], self.name(), self.name()
        if node.op_type in ("Add", "Mul", "Max", "Min"):
            self.instead(node, helper.make_node(node.op_type, [y, x], [out]))
        elif node.op_type == "Sub":
            self.instead(node, helper.make_node("Neg", [y], [a]), helper.make_node("Add", [a, x], [out]))
        elif node.op_type == "Neg" and self.values.get(x, np.zeros(0)).dtype == np.float32:
            self.instead(node, helper.make_node("Mul", [x, self.constant(-1.0)], [out]))
        elif node.op_type == "Relu":
            self.instead(node, helper.make_node("Max", [self.constant(0.0), x], [out]))
        elif node.op_type == "Softmax" and x in self.values:
            axes = self.constant([node.attribute[0].i], np.int64)
            self.instead(
                node, helper.make_node("Exp", [x], [a]), helper.make_node("ReduceSum", [a, axes], [b]),
                helper.make_node("Div", [a, b], [out]),
            )  # fmt: skip
        elif node.op_type == "Transpose":
            moved = [n for n in self.graph.node if n.input and n.input[0] == out and n.op_type in _UNARY]
            uses = sum(list(n.input).count(out) for n in self.graph.node)
            if len(moved) == uses == 1 and out not in [o.name for o in self.graph.output]:
                perm = list(node.attribute[0].ints)
                self.instead(moved[0], helper.make_node("Transpose", [a], list(moved[0].output), perm=perm))
                first = next(n for n in self.graph.node if out in n.output)
                alpha = {"alpha": 0.01} if moved[0].op_type == "LeakyRelu" else {}
                self.instead(first, helper.make_node(moved[0].op_type, [x], [a], **alpha))
        elif node.op_type == "Unsqueeze" and {x, y, out} <= {*self.values} and self.values[x].ndim:
            rank = self.values[out].ndim
            axis = int(self.values[y].reshape(-1)[0]) % rank
            known = [*range(axis)]
            self.instead(node, helper.make_node("Shape", [x], [a]),
                         helper.make_node("Gather", [a, self.constant(known, np.int64)], [b]),
                         helper.make_node("Concat", [b, self.constant([1, -1][: rank - axis], np.int64)], [a + "c"], axis=0),
                         helper.make_node("Reshape", [x, a + "c"], [out])) if axis >= rank - 2 else None  # fmt: skip

    # -- at one size alone, or never -----------------------------------------------------------------------------

    def baked(self) -> None:
        """A value that depends on sizes as the constant that it is at the traced ones."""
        sized = [n for n in self.graph.node if n.output[0] in self.values and self.values[n.output[0]].dtype == np.int64]
        if sized:
            node = self.any(sized)
            held = self.constant(self.values[node.output[0]], np.int64)
            self.instead(node, helper.make_node("Identity", [held], [node.output[0]]))

    def reached(self) -> None:
        """Another tensor of the same shape and type, at the traced size, as an operand; often the same one."""
        node = self.any(self.graph.node)
        at = int(self.rng.integers(max(len(node.input), 1)))
        before = {o for n in self.graph.node[: list(self.graph.node).index(node)] for o in n.output}
        before |= {v.name for v in self.graph.input}
        if not node.input or node.input[at] not in self.values:
            return
        value = self.values[node.input[at]]
        kept = [n for n, v in self.values.items() if n in before and v.shape == value.shape and v.dtype == value.dtype]
        if node.op_type == "Shape":  # of what has the same shape at the traced sizes
            kept = [n for n in before if n in self.values and self.values[n].shape == value.shape]
        if kept:
            node.input[at] = self.any(kept)

    def off(self) -> None:
        """An attribute or a constant that is another one."""
        node = self.any(self.graph.node)
        numbers = [a for a in node.attribute if a.type == onnx.AttributeProto.INT]
        lists = [a for a in node.attribute if a.type == onnx.AttributeProto.INTS and len(a.ints) > 1]
        if numbers and self.rng.random() < 0.5:
            attribute = self.any(numbers)
            attribute.i += int(self.any([-1, 1]))
        elif lists:
            attribute = self.any(lists)
            attribute.ints[:] = attribute.ints[::-1]
        elif self.graph.initializer:
            held = self.any(self.graph.initializer)
            array = numpy_helper.to_array(held).copy()
            if array.size:
                array.reshape(-1)[int(self.rng.integers(array.size))] += 1
                held.CopyFrom(numpy_helper.from_array(array, held.name))

    def cut(self) -> None:
        """A Slice to the traced size, which leaves out what is beyond it."""
        node = self.any(self.floats() or self.graph.node)
        value = self.values.get(node.output[0])
        if value is not None and value.ndim and value.dtype == np.float32:
            axis = int(self.rng.integers(value.ndim))
            at = [self.constant([n], np.int64) for n in (0, value.shape[axis], axis)]
            self.behind(node, "Slice", *at)


def made(seed: int) -> tuple[onnx.ModelProto, onnx.ModelProto, dict[str, int]] | None:
    """The pair of a seed, and the sizes that it is traced at."""
    maker, rng = Maker(seed), np.random.default_rng([seed, 1])
    names = [o for n in maker.nodes for o in n.output if maker.values.get(o, np.zeros(0)).dtype == np.float32]
    if not names:
        return None
    for value in maker.inputs:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value == 3 and rng.random() < 0.6:
                dim.dim_param = "M"
    a = maker.model(names[-1:] if rng.random() < 0.8 else names[-2:])
    changes = Changes(a, maker.values, rng)
    for _ in range(int(rng.integers(1, 4))):
        if len(changes.graph.node):
            getattr(changes, changes.any(["kept", "spelled", "spelled", "kept", "baked", "reached", "off", "cut"]))()
    return a, changes.model, {"N": maker.n, "M": 3}


def claimed(a: onnx.ModelProto, b: onnx.ModelProto, sizes: dict[str, int]) -> tuple[bool, bool, int]:
    """Whether the pair is proved at these sizes, is said to be the same at every one, and by how many segments."""
    places: dict[str, list[tuple[str, int]]] = {}
    for value in a.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param:
                places.setdefault(dim.dim_param, []).append((value.name, axis))
    shapes = support.shapes(a, sizes["N"], sizes["M"])
    pair = build(ir.from_proto(a), ir.from_proto(b), {k: (k, s) for k, s in shapes.items()}, {}, free=places)
    roots: list[list[int]] = [[], []]
    for x, y in zip(pair.a.outputs, pair.b.outputs, strict=True):
        for value, row in ((x, roots[0]), (y, roots[1])):
            if not isinstance(value, Tensor | np.ndarray):
                return False, False, 0
            row.append(pair.algebra.lift(value).cls)
        if x.shape != y.shape:  # type: ignore[union-attr]
            return False, False, 0
    prover = Prover(pair.terms, *roots, pair.row_counts(), seed=0, target=1e-10)
    if not (prover.prove() or prover.from_inputs()):
        return False, False, 0
    segments = Segments(pair, prover, places)
    return True, segments.everywhere([(i, i) for i in range(len(a.graph.output))]).holds, len(segments.tiers)


def unlike(a: onnx.ModelProto, b: onnx.ModelProto, seed: int) -> str | None:
    """The sizes at which both models run in onnxruntime, and give something else; None if there are none."""
    try:
        runs = [support.session(m) for m in (a, b)]
    except Exception:
        return None
    for n, m in _SIZES:
        feeds = support.draw(a, n, seed + n, m)
        try:
            found = [run.run(None, feeds) for run in runs]
        except Exception:
            continue
        for x, y in zip(*found, strict=True):
            if x.shape != y.shape or not np.allclose(x, y, 1e-3, 1e-3, equal_nan=True):
                return f"N={n}, M={m}"
    return None


def beside(a: onnx.ModelProto, b: onnx.ModelProto, seed: int) -> str | None:
    """:func:`unlike` in a child process: onnxruntime ends with its process where an integer is divided by 0."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, (unlike(a, b, seed) or "").encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        found = told.read()
    os.waitpid(child, 0)
    return found or None


def looked(seed: int) -> tuple[collections.Counter[str], str | None]:
    """What is said of the pair of a seed, counted, and what is false of it."""
    counts: collections.Counter[str] = collections.Counter(pairs=1)
    pair = made(seed)
    if pair is None:
        return counts, None
    a, b, sizes = pair
    try:
        proved, every, tiers = claimed(a, b, sizes)
    except Undecided:
        return counts + collections.Counter(undecided=1), None
    wrong = beside(a, b, seed) if proved else None
    counts["proved at the traced sizes"] += proved
    counts["of those, the same at every size that was run"] += proved and wrong is None
    counts["claimed at every size"] += every
    counts["claimed, with segments that needed primes"] += every and tiers > 0
    counts["not the same elsewhere, and not claimed"] += wrong is not None and not every
    return counts, wrong if every else None


def show(seed: int) -> None:
    """Print the pair of a seed, and what is said of it."""
    pair = made(seed)
    for model in pair[:2] if pair is not None else ():
        print(onnx.printer.to_text(model))
    print(pair and pair[2], looked(seed))


if __name__ == "__main__":
    np.seterr(all="ignore")
    sys.exit(fuzz(__doc__, "pairs", "false claims", looked, show))
