"""Random graphs with a free batch, that mix rows or switch on sizes about half of the time."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

_OPSET = 18
_LARGE = 3000  # elements of a tensor
_SUMS = "ab,bc->ac ab,cb->ac ab,ac->bc ab,ab->a ab,bc->ca ab,ac->abc"
_NUMBERS = "Add Sub Mul Div Mod Min Max Less Equal Where Cast Clip Abs Neg Concat Prod Float Slice Fmod"
_MOVES = "Transpose Concat Split Gather Slice Squeeze Unsqueeze Pad GatherElements Trilu Resize ScatterElements GatherND"
_ALONG = "ReduceSum ReduceMax ReduceMean Softmax CumSum TopK ArgMax LayerNormalization ArgMax LpNormalization"
_STEPS = (
    "elementwise", "shaped", "moved", "reduced", "contracted", "arithmetic", "steered", "shaped", "moved", "elementwise",
    "trapped", "layered",
)  # fmt: skip


class Maker:
    """A graph that grows by one node after the other, each run by onnx.reference at the size of the trace."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.n = int(self.rng.choice([2, 2, 2, 3, 1, 4]))
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.values: dict[str, np.ndarray] = {}
        self.sizes: dict[str, np.ndarray] = {}  # those among the values that come from a Shape
        self._inputs()
        wanted = int(self.rng.integers(3, 13))
        for _ in range(4 * wanted):
            if len(self.nodes) >= wanted:
                break
            getattr(self, self.any(_STEPS))()

    def any(self, things: Any) -> Any:
        """One of them."""
        things = list(things)
        return things[int(self.rng.integers(len(things)))]

    def chance(self, p: float) -> bool:
        """True with that probability."""
        return bool(self.rng.random() < p)

    def _inputs(self) -> None:
        for number in range(int(self.rng.integers(1, 4))):
            rank = int(self.rng.choice([1, 2, 2, 3, 3, 4]))
            dims: list[Any] = [int(k) for k in self.rng.choice([1, 2, 2, 3, 4], rank)]
            if number == 0 or self.chance(0.6):
                dims[0 if self.chance(0.7) else int(self.rng.integers(rank))] = "N"
            kind = np.int64 if number and self.chance(0.25) else np.float32
            name = f"x{number}"
            self.inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), dims))
            shape = [self.n if d == "N" else d for d in dims]
            self.values[name] = self.rng.integers(0, 2, shape).astype(kind)

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """The name of a constant."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        self.values[name] = np.asarray(value, dtype)
        return name

    def put(self, op: str, inputs: list[str], outputs: int = 1, **attributes: Any) -> list[str]:
        """A node, if onnx.reference runs it; the names of its outputs, none if it does not."""
        from onnx.reference import ReferenceEvaluator

        names = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        node = helper.make_node(op, inputs, names, name=f"n{len(self.nodes)}", **attributes)
        try:
            with np.errstate(all="ignore"):
                graph = helper.make_graph(
                    [node],
                    "g",
                    [helper.make_tensor_value_info(k, 1, None) for k in dict.fromkeys(i for i in inputs if i)],
                    [helper.make_tensor_value_info(k, 1, None) for k in names],
                )
                model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
                found = ReferenceEvaluator(model).run(None, {i: self.values[i] for i in inputs if i})
        except Exception:
            return []
        found = [np.asarray(y) for y in found]
        if any(y.size > _LARGE or y.ndim > 5 or (y.dtype.kind == "f" and not np.isfinite(y).all()) for y in found):
            return []
        self.nodes.append(node)
        self.values.update(zip(names, found, strict=True))
        return names

    def some(self, kind: str = "f", rank: int = 0) -> str | None:
        """A value of that kind of type and at least that rank, the newer the likelier; None if there is none."""
        made = [k for k, v in self.values.items() if v.dtype.kind in kind and v.ndim >= rank and k[0] != "c"]
        made = [k for k in made if k not in self.sizes]
        return (self.any(made[-4:]) if self.chance(0.7) else self.any(made)) if made else None

    def size(self) -> str:
        """A small integer vector or number from the shape of something, with arithmetic on it or not."""
        if self.sizes and self.chance(0.6):
            return str(self.any(self.sizes))
        source = self.some("fib", 1)
        assert source is not None
        (shape,) = self.put("Shape", [source]) or [""]
        if not shape:
            return self.constant([2])
        self.sizes[shape] = self.values[shape]
        at = self.any(range(len(self.values[shape]))) if self.values[shape].size else 0
        picked = self.put("Gather", [shape, self.constant([at])], axis=0)
        for name in picked:
            self.sizes[name] = self.values[name]
        return str(self.any([*picked, *picked, shape]))

    def arithmetic(self) -> None:
        """One more number from a size."""
        a, number = self.size(), int(self.any([1, 1, 2, 2, 3, 4, 5, -1, 7]))
        b = self.size() if self.chance(0.25) else self.constant([number] if self.chance(0.8) else number)
        op = self.any(_NUMBERS.split())
        if op in ("Less", "Equal"):
            met = self.put(self.any(["Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Equal"]), [a, b])
            found = self.put("Cast", met, to=7) if met else []
        elif op == "Where":
            test = self.put("Less", [a, b])
            found = self.put("Where", [test[0], self.any([a, b]), self.any([self.constant([2]), b])]) if test else []
        elif op == "Cast":
            narrow = self.put("Cast", [a], to=int(self.any([6, 1, 3, 2, 5])))
            found = self.put("Cast", narrow, to=7) if narrow else []
        elif op == "Clip":
            found = self.put("Clip", [a, self.constant(1), self.constant(abs(number) + 1)])
        elif op in ("Abs", "Neg"):
            found = self.put(op, [a])
        elif op == "Concat":
            found = self.put("Concat", [a, b] if self.chance(0.5) else [b, a], axis=0)
        elif op == "Prod":
            found = self.put(self.any(["ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin"]), [a], keepdims=1)
        elif op == "Float":
            real = self.put("Cast", [a], to=1)
            by = self.constant([self.any([2.0, 0.5, 3.0, 1.0, 4.0])], np.float32)
            scaled = self.put(self.any(["Mul", "Div"]), [real[0], by]) if real else []
            cut = self.put(self.any(["Floor", "Ceil", "Identity"]), scaled) if scaled else []
            found = self.put("Cast", cut, to=7) if cut else []
        elif op == "Slice":
            found = self.put("Slice", [a, self.constant([self.any([0, 1])]), self.constant([self.any([1, 9])])])
        elif op == "Fmod":
            found = self.put("Mod", [a, b], fmod=1)
        else:
            found = self.put(op, [a, b])
        self.sizes.update({name: self.values[name] for name in found})

    def elementwise(self) -> None:
        """One or two operands; the other fits by broadcasting, or is a constant with the traced size of a batch."""
        x = self.some()
        if x is None:
            return
        if self.chance(0.35):
            self.put(self.any(["Relu", "Neg", "Abs", "Sign", "Floor", "LeakyRelu"]), [x])
            return
        other = self.some()
        if other is None or self.chance(0.5):
            shape = [d if self.chance(0.5) else 1 for d in self.values[x].shape][int(self.rng.integers(0, 2)) :]
            other = self.constant(self.rng.integers(-2, 3, shape), np.float32)
        op = self.any(["Add", "Sub", "Mul", "Max", "Min", "Add", "Where", "Less"])
        pair = [x, other] if self.chance(0.5) else [other, x]
        if op == "Where":
            test = self.put("Less", pair)
            if test:
                self.put("Where", [test[0], x, other])
        elif op == "Less":
            test = self.put("Less", pair)
            if test:
                self.put("Cast", test, to=1)
        else:
            self.put(op, pair)

    def shaped(self) -> None:
        """Reshape, Expand, Tile, ConstantOfShape by a shape that is computed or not."""
        x = self.some()
        if x is None:
            return
        shape = self.values[x].shape
        op = self.any(["Reshape", "Reshape", "Reshape", "Expand", "Tile", "ConstantOfShape", "Flatten"])
        if op == "Flatten":
            self.put("Flatten", [x], axis=int(self.rng.integers(0, len(shape) + 1)))
            return
        if op == "Reshape":
            total = int(np.prod(shape))
            first = [d for d in (*shape, self.n, total) if d]
            parts: list[Any] = [int(self.any(first)) for _ in range(int(self.rng.integers(1, 4)))]
            if self.chance(0.7):
                parts[int(self.rng.integers(len(parts)))] = -1
            if self.chance(0.3):
                parts[0] = 0
            names = [self.size() if self.chance(0.3) else self.constant([p]) for p in parts]
            if self.chance(0.25):
                self.put("Reshape", [x, self.constant(parts)])
                return
        else:
            names = [self.size() if self.chance(0.4) else self.constant([int(self.any([1, 1, 2]))]) for _ in shape or [1]]
        names = [k for k in names if self.values[k].ndim == 1]
        to = self.put("Concat", names, axis=0) if names else []
        if not to or (op != "Reshape" and (self.values[to[0]] > 12).any()):
            return
        self.sizes[to[0]] = self.values[to[0]]
        if op == "ConstantOfShape":
            self.put(op, to, value=numpy_helper.from_array(np.asarray([1.0], np.float32)))
        else:
            self.put(op, [x, to[0]])

    def moved(self) -> None:
        """Movement along an axis."""
        x = self.some(rank=1)
        if x is None:
            return
        shape, rank = self.values[x].shape, self.values[x].ndim
        axis = int(self.rng.integers(-rank, rank))
        op = self.any(_MOVES.split())
        if op == "Transpose":
            self.put(op, [x], perm=[int(p) for p in self.rng.permutation(rank)])
        elif op == "Concat":
            other = self.some(rank=1) if self.chance(0.6) else self.constant(self.rng.integers(-2, 3, shape), np.float32)
            if other:
                self.put(op, [x, other] if self.chance(0.5) else [other, x], axis=axis)
        elif op == "Split" and shape[axis] > 1:
            self.put(op, [x, self.constant([1, shape[axis] - 1])], 2, axis=axis)
        elif op == "Gather":
            ids = self.some("i")
            known = self.constant(self.rng.integers(0, max(1, min(2, shape[axis])), self.any([(), (1,), (2,), (2, 2)])))
            self.put(op, [x, ids if ids and self.chance(0.4) else self.size() if self.chance(0.1) else known], axis=axis)
        elif op == "Slice":
            start = self.size() if self.chance(0.15) else self.constant([int(self.any([0, 0, 0, 0, 1, -1]))])
            far = self.any([1, 2, self.n, self.n, self.n + 1, -1, 2**31 - 1, 2**63 - 1])
            end = self.size() if self.chance(0.3) else self.constant([int(far)])
            step = self.constant([int(self.any([1, 1, 1, 1, 1, -1, 2]))])
            if all(self.values[k].shape == (1,) for k in (start, end)):
                self.put(op, [x, start, end, self.constant([axis]), step])
        elif op == "Squeeze":
            self.put(op, [x] if self.chance(0.3) else [x, self.constant([axis])])
        elif op == "Unsqueeze":
            self.put(op, [x, self.constant([axis])])
        elif op == "Pad":
            pads = [int(p) for p in self.rng.choice([0, 0, 0, 1, -1], 2 * rank)]
            self.put(op, [x, self.constant(pads)], mode=self.any(["constant", "constant", "reflect", "edge"]))
        elif op == "GatherElements":
            self.put(op, [x, self.constant(self.rng.integers(0, 1, shape))], axis=axis)
            ids = self.some("i", rank)
            if ids:
                self.put(op, [x, ids], axis=axis)
        elif op == "GatherND":
            depth = self.any([1, 1, 2])
            ids, known = self.some("i", 1), self.constant(self.rng.integers(0, 2, [*self.any([(), (2,), (2, 3)]), depth]))
            self.put(op, [x, ids if ids and self.chance(0.4) else known], batch_dims=self.any([0, 0, 1]))
        elif op == "Trilu":
            self.put(op, [x], upper=int(self.chance(0.5)))
        elif op == "Resize":
            scales = [1.0 if self.chance(0.7) else 2.0 for _ in shape]
            self.put(op, [x, "", self.constant(scales, np.float32)], mode="nearest", nearest_mode="floor",
                     coordinate_transformation_mode="asymmetric")  # fmt: skip
        elif op == "ScatterElements":
            ids, other = self.some("i", rank), self.some(rank=rank)
            if ids and other:
                self.put(op, [x, ids, other], axis=axis)

    def trapped(self) -> None:
        """What fits the traced size of a batch alone: a Pad along it that is cut off, a Slice, a Reshape that divides it."""
        x = self.some(rank=1)
        axes = [axis for axis, size in enumerate(self.values[x].shape) if size == self.n] if x else []
        if not x or not axes:
            return
        shape, axis, op = self.values[x].shape, int(self.any(axes)), self.any(["Pad", "Shift", "Slice", "Reshape", "Turn"])
        end, along = self.constant([self.n]), self.constant([axis])
        if op == "Pad":
            pads = [0] * (2 * len(shape))
            pads[axis + len(shape) * int(self.chance(0.5))] = int(self.any([1, -1, self.n]))
            for name in self.put(op, [x, self.constant(pads)], mode=self.any(["constant", "edge", "wrap"])):
                self.put("Slice", [name, self.constant([0]), end, along])
        elif op == "Slice":
            last = [self.constant([-self.n]), self.constant([2**31 - 1])]
            self.put(op, [x, *([self.constant([0]), end] if self.chance(0.5) else last), along])
        elif op == "Shift":  # a Pad that cuts off at one end what it adds at the other, which onnx.reference does not take
            by, out, rolled = self.any([1, -1]), f"s{len(self.nodes)}", [slice(None)] * len(shape)
            pads = [by * (i == axis) - by * (i == axis + len(shape)) for i in range(2 * len(shape))]
            self.nodes.append(helper.make_node("Pad", [x, self.constant(pads)], [out], name=f"n{len(self.nodes)}"))
            rolled[axis] = slice(0, 1) if by > 0 else slice(-1, None)
            self.values[out] = np.roll(self.values[x], by, axis)
            self.values[out][tuple(rolled)] = 0
        elif op == "Turn":  # the same sizes in another order, so that blocks of rows are cut
            others = [int(d) for i, d in enumerate(shape) if i != axis]
            self.rng.shuffle(others)
            others.insert(int(self.rng.integers(len(shape))), -1)
            self.put("Reshape", [x, self.constant(others)])
        else:
            rest = int(np.prod(shape)) // self.n
            parts = self.any([(-1, self.n), (-1, self.n * rest), (self.n, -1), (-1, 2), (-1, 2 * rest), (-1, rest, 1)])
            for name in self.put(op, [x, self.constant(parts)]):
                self.put("ReduceSum", [name, self.constant([1])], keepdims=0)

    def reduced(self) -> None:
        """Reductions, sorting and sums along an axis."""
        x = self.some(rank=1)
        if x is None:
            return
        shape, rank = self.values[x].shape, self.values[x].ndim
        axis, keep = int(self.rng.integers(-rank, rank)), int(self.chance(0.5))
        op = self.any(_ALONG.split())
        if op == "ReduceSum":
            self.put(op, [x] if self.chance(0.2) else [x, self.constant([axis])], keepdims=keep)
        elif op in ("ReduceMax", "ReduceMean"):
            self.put(op, [x], axes=[axis], keepdims=keep)
        elif op == "Softmax":
            self.put(op, [x], axis=axis)
        elif op == "CumSum":
            self.put(op, [x, self.constant(axis)], exclusive=keep)
        elif op == "TopK":
            self.put(op, [x, self.constant([1])], 2, axis=axis)
        elif op == "ArgMax":
            found = self.put(op, [x], axis=axis, keepdims=keep)
            if found:
                self.put("Cast", found, to=1)
        elif op == "LayerNormalization":
            scale = self.constant(np.ones(shape[axis % rank :]), np.float32)
            self.put(op, [x, scale], axis=axis)
        else:
            self.put(op, [x], axis=axis)

    def contracted(self) -> None:
        """MatMul, Gemm, Einsum, Conv, pools."""
        x, op = self.some(rank=1), self.any(["MatMul", "MatMul", "Gemm", "Einsum", "Conv", "MaxPool", "GlobalAveragePool"])
        if x is None:
            return
        shape, rank = self.values[x].shape, self.values[x].ndim
        weight = self.constant(self.rng.integers(-1, 2, (shape[-1], 2)), np.float32)
        other = self.some(rank=1) if self.chance(0.5) else weight
        if op == "MatMul" and other:
            if self.chance(0.3):
                left = self.constant(self.rng.integers(-1, 2, (2, shape[max(-2, -rank)])), np.float32)
                self.put(op, [left, x])
            else:
                self.put(op, [x, other] if self.chance(0.7) else [other, x])
        elif op == "Gemm" and rank == 2 and other:
            self.put(op, [x, other], transA=int(self.chance(0.3)), transB=int(self.chance(0.3)))
        elif op == "Einsum" and rank == 2 and other and self.values[other].ndim == 2:
            self.put(op, [x, other], equation=self.any(_SUMS.split()))
        elif op == "Conv" and rank in (3, 4):
            w = self.rng.integers(-1, 2, (2, shape[1], *[1 + int(d > 1) for d in shape[2:]]))
            self.put(op, [x, self.constant(w, np.float32)])
        elif op == "MaxPool" and rank in (3, 4):
            self.put(op, [x], kernel_shape=[1 + int(d > 1) for d in shape[2:]])
        elif op == "GlobalAveragePool" and rank in (3, 4):
            self.put(op, [x])

    def layered(self) -> None:
        """Layers that have the batch in one place: norms, recurrences, one-hot vectors, quantized tensors."""
        op = self.any(["BatchNormalization", "InstanceNormalization", "OneHot", "LSTM", "GRU", "QuantizeLinear", "ConvTranspose"])
        x = self.some("i" if op == "OneHot" else "f", 1)
        if x is None:
            return
        shape, rank = self.values[x].shape, self.values[x].ndim
        if op == "OneHot":
            depth, axis = self.constant([self.any([3, self.n])]), int(self.rng.integers(-rank - 1, rank + 1))
            self.put(op, [x, depth, self.constant([0, 1], np.float32)], axis=axis)
        elif op == "QuantizeLinear":
            axis = int(self.rng.integers(-rank, rank))
            scale = self.constant(0.5 if self.chance(0.5) else np.full(shape[axis], 0.5), np.float32)
            zero = self.constant(np.zeros(self.values[scale].shape), np.int8)
            for name in self.put(op, [x, scale, zero], axis=axis):
                self.put("DequantizeLinear", [name, scale, zero], axis=axis)
        elif op == "ConvTranspose" and rank == 3:
            self.put(op, [x, self.constant(self.rng.integers(-1, 2, (shape[1], 2, 2)), np.float32)], strides=[2])
        elif op in ("LSTM", "GRU") and rank == 3:
            gates, hidden = {"LSTM": 4, "GRU": 3}[op], 2
            weights = [self.constant(self.rng.integers(-1, 2, (1, gates * hidden, n)), np.float32) for n in (shape[2], hidden)]
            state = [self.constant(np.ones((1, shape[1], hidden)), np.float32)] if self.chance(0.3) else []
            self.put(op, [x, *weights, "", "", *state], 2, hidden_size=hidden)
        elif "Normalization" in op and rank > 2 - (op[0] == "B"):
            ones = [self.constant(np.ones(shape[1]), np.float32) for _ in range(4 if op[0] == "B" else 2)]
            self.put(op, [x, *ones])

    def steered(self) -> None:
        """If, Loop and Scan."""
        x, op = self.some(rank=1), self.any(["If", "If", "Loop", "Scan"])
        if x is None:
            return
        shape, out = self.values[x].shape, f"s{len(self.nodes)}"
        number = [int(self.any([0, 1, 2, 3, 5]))]
        float_ = helper.make_tensor_value_info
        if op == "If":
            test = self.put(self.any(["Less", "Greater", "Equal"]), [self.size(), self.constant(number)])
            if not test or self.values[test[0]].size != 1:
                return
            then, other = (
                helper.make_graph([helper.make_node(kind, [x], [f"{out}{kind}"])], kind, [], [float_(f"{out}{kind}", 1, None)])
                for kind in ("Neg", "Identity")
            )
            self._blind("If", test, out, bool(self.values[test[0]].reshape(-1)[0]), x, then_branch=then, else_branch=other)
        elif op == "Loop":
            trips = self.size() if self.chance(0.5) else self.constant([2])
            if self.values[trips].size != 1 or not 0 <= int(self.values[trips].reshape(-1)[0]) < 6:
                return
            body = helper.make_graph(
                [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["state", x], ["next"])],
                "b",
                [float_("i", 7, []), float_("go", 9, []), float_("state", 1, None)],
                [float_("on", 9, []), float_("next", 1, None)],
            )
            times = 1 + int(self.values[trips].reshape(-1)[0])
            self._blind("Loop", [trips, "", x], out, None, x, times, body=body)
        else:
            axis = int(self.rng.integers(len(shape)))
            body = helper.make_graph(
                [helper.make_node("Add", ["state", "part"], ["next"]), helper.make_node("Identity", ["next"], ["kept"])],
                "b",
                [float_("state", 1, None), float_("part", 1, None)],
                [float_("next", 1, None), float_("kept", 1, None)],
            )
            zero = self.put("ReduceSum", [x, self.constant([axis])], keepdims=0)
            if zero:
                node = helper.make_node(
                    "Scan", [zero[0], x], [f"{out}a", f"{out}b"], name=f"n{len(self.nodes)}", body=body, num_scan_inputs=1,
                    scan_input_axes=[axis], scan_output_axes=[axis],
                )  # fmt: skip
                self.nodes.append(node)
                total = self.values[zero[0]]
                kept = np.cumsum(self.values[x], axis) + np.expand_dims(total, axis)
                self.values[f"{out}a"], self.values[f"{out}b"] = 2 * total, kept.astype(np.float32)

    def _blind(self, op: str, inputs: list[str], out: str, yes: bool | None, x: str, times: int = 1, **graphs: Any) -> None:
        """A node with subgraphs, whose value is known."""
        self.nodes.append(helper.make_node(op, inputs, [out], name=f"n{len(self.nodes)}", **graphs))
        self.values[out] = (-self.values[x] if yes else self.values[x]) * np.float32(times)

    def model(self, outputs: list[str]) -> onnx.ModelProto:
        """The graph with these outputs, and what they need."""
        needed, nodes = {*outputs}, []
        for node in reversed(self.nodes):
            if needed & {*node.output}:
                nodes.insert(0, node)
                needed |= {*node.input}
                for attribute in node.attribute:
                    needed |= {name for inner in attribute.g.node for name in inner.input}
        infos = [
            helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(self.values[k].dtype), None) for k in outputs
        ]
        constants = [c for c in self.constants if c.name in needed]
        graph = helper.make_graph(nodes, "g", self.inputs, infos, constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)
