"""Simulated devices: a net run node by node in an arithmetic of its own, each result stored in a format, and what is dumped.

Each node runs alone in onnxruntime in float32, but for products of matrices and convolutions where the device sums them in
another way (numpy, here). Nothing is taken from graphcheck: what a device may do is said here a second time, on purpose.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.zoo.device_kernels import HALF, LIBRARY, Kernel, statistics_folded, winograd
from tests.zoo.editing import attribute, constant_of

Arrays = dict[str, np.ndarray]
Contract = Callable[[np.ndarray, np.ndarray], np.ndarray]  # [..., m, k] x [..., k, n]
Fault = Callable[["Place"], "list[np.ndarray] | None"]
_TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
_WRONG = ("float32", "int8", "uint8")  # what a fault may make: shapes and indices stay right
_PRODUCTS = ("MatMul", "Gemm", "Conv")
# What runs in the registers of what computes its operand: elementwise, on a result that nobody else reads.
_CURVES = (
    "Relu",
    "Sigmoid",
    "Tanh",
    "Erf",
    "Exp",
    "Sqrt",
    "Clip",
    "HardSwish",
    "HardSigmoid",
    "LeakyRelu",
    "Gelu",
    "Softmax",
)
_ELEMENTWISE = frozenset(
    (*_CURVES, "Add", "Sub", "Mul", "Div", "Pow", "Neg", "BatchNormalization", "Reciprocal", "Where")
)
_FUSES = frozenset((*_PRODUCTS, *_ELEMENTWISE, "ReduceMean", "LayerNormalization"))


# -- sums ------------------------------------------------------------------------------------------------------------------


def in_blocks(size: int, dtype: Any, *, backwards: bool = False) -> Contract:
    """Blocks of K summed in float32, each added to an accumulator of ``dtype``."""

    def contract(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        k = a.shape[-1]
        starts = range(0, k, size)
        total: np.ndarray | None = None
        for start in reversed(starts) if backwards else starts:
            part = (a[..., start : start + size] @ b[..., start : start + size, :]).astype(dtype)
            total = part if total is None else (total.astype(np.float32) + part.astype(np.float32)).astype(dtype)
        assert total is not None
        return total.astype(np.float32)

    return contract


def fused_steps(dtype: Any) -> Contract:
    """One fused multiply-add after the other, each rounded once to ``dtype``."""

    def contract(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
        total = np.zeros(shape, dtype)
        for k in range(a.shape[-1]):
            exact = a[..., :, k, None].astype(np.float64) * b[..., None, k, :].astype(np.float64)
            total = (total.astype(np.float64) + exact).astype(dtype)
        return total.astype(np.float32)

    return contract


def as_tree(dtype: Any) -> Contract:
    """Products rounded to ``dtype``, then added in pairs, each sum rounded."""

    def contract(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        terms = (a[..., :, None, :] * np.swapaxes(b, -1, -2)[..., None, :, :]).astype(dtype)
        while terms.shape[-1] > 1:
            half = terms.shape[-1] // 2
            added = (terms[..., :half].astype(np.float32) + terms[..., half : 2 * half].astype(np.float32)).astype(
                dtype
            )
            terms = np.concatenate([added, terms[..., 2 * half :]], axis=-1)
        return terms[..., 0].astype(np.float32)

    return contract


def in_float64(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """More than was declared."""
    return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32)


# -- devices ---------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Device:
    """How a device computes and stores, and what it dumps.

    Attributes:
        precision: What is told to the judge.
        accumulate: Likewise; "" for what goes without saying.
        storage: The format of results between nodes.
        operands: Bits of the mantissa that operands of products are rounded to; 0 for all.
        contract: How products of matrices are summed; None for onnxruntime.
        fused: Whether chains of elementwise nodes stay in float32 and are not dumped.
        weights: Whether stored weights are in the format as well.
        flushes: Whether subnormal numbers become 0.
        kernels: Kernels of its own, by operator.
        every: Of how many results one is dumped.
        named: Whether the dump has the names of the model.
        layout: "NCHW", or "NHWC" for images with channels last.
    """

    name: str
    precision: str
    accumulate: str = ""
    storage: str = "float32"
    operands: int = 0
    contract: Contract | None = None
    fused: bool = False
    weights: bool = False
    flushes: bool = False
    kernels: Mapping[str, Kernel] = dataclasses.field(default_factory=dict)
    every: int = 1
    named: bool = True
    layout: str = "NCHW"

    def stored(self, x: np.ndarray) -> np.ndarray:
        """A result as it lies in memory."""
        if x.dtype != np.float32:
            return x
        with np.errstate(all="ignore"):
            y = x.astype(_TYPES[self.storage])
            if self.flushes:
                least = ml_dtypes.finfo(y.dtype).smallest_normal
                y = np.where(np.abs(y.astype(np.float32)) < least, np.zeros((), y.dtype), y)
        return np.asarray(y, _TYPES[self.storage])

    def kept(self, x: np.ndarray) -> np.ndarray:
        """A stored weight: in the format where that holds its numbers, as no toolchain lets a variance of 1e7 overflow."""
        y = self.stored(x)
        lost = x.dtype == np.float32 and (~np.isfinite(y) | ((y == 0) & (x != 0))).any()
        return x if lost or x.size == 1 else y


F16 = np.float16
FOLDED: dict[str, Kernel] = {"BatchNormalization": statistics_folded}
DEVICES = (
    Device("float32", "float32"),
    Device("float32, sums backwards", "float32", contract=fused_steps(np.float32)),
    Device("float32, as a tree", "float32", contract=as_tree(np.float32)),
    Device("float32, in float64", "float32", contract=in_float64),
    Device("float32, fused", "float32", fused=True, flushes=True),
    Device("float16", "float16", storage="float16"),
    Device("float16, weights too", "float16", storage="float16", weights=True),
    Device("float16, fused", "float16", storage="float16", weights=True, fused=True, flushes=True),
    Device("float16, summed in float16", "float16", "float16", "float16", contract=in_blocks(16, F16)),
    Device(
        "float16, blocks backwards",
        "float16",
        "float16",
        "float16",
        contract=in_blocks(8, F16, backwards=True),
        fused=True,
    ),
    Device("float16, fma", "float16", "float16", "float16", contract=fused_steps(F16), weights=True),
    Device("float16, tree", "float16", "float16", "float16", contract=as_tree(F16), flushes=True),
    Device("bfloat16", "bfloat16", storage="bfloat16", weights=True, operands=7),
    Device("bfloat16, fused", "bfloat16", storage="bfloat16", operands=7, fused=True),
    Device("tf32", "tf32", operands=10),
    Device("tf32, fused", "tf32", operands=10, fused=True, contract=in_blocks(4, np.float32)),
    Device("float32, library", "float32", kernels=LIBRARY | {"Conv": winograd(2)}),
    Device("float32, library, fused", "float32", kernels=LIBRARY | {"Conv": winograd(4)}, fused=True),
    Device(
        "float16, library", "float16", storage="float16", weights=True, kernels=LIBRARY | FOLDED | {"Conv": winograd(4)}
    ),
    Device("float16, inside too", "float16", "float16", "float16", contract=in_blocks(16, F16), kernels=HALF | FOLDED),
    Device("tf32, library", "tf32", operands=10, kernels=LIBRARY | {"Conv": winograd(2)}),
    Device("float16, every third", "float16", storage="float16", weights=True, every=3),
    Device("float16, names lost", "float16", storage="float16", named=False),
    Device("float16, NHWC", "float16", storage="float16", fused=True, layout="NHWC"),
    Device("float32, every third, names lost", "float32", every=3, named=False, layout="NHWC"),
)


def device(name: str) -> Device:
    """The device of a name."""
    return next(each for each in DEVICES if each.name == name)


@dataclasses.dataclass(frozen=True)
class Run:
    """What came of a run: every stored tensor by its name, and the dump, by the names that the device gives."""

    stored: Arrays
    dump: Arrays
    names: Mapping[str, str]  # the dump's name -> the model's


@dataclasses.dataclass(frozen=True)
class Place:
    """A node about to be run: its operands (None where left out), what runs a node here, and what was stored before."""

    node: onnx.NodeProto
    inputs: tuple[np.ndarray | None, ...]
    run: Callable[[onnx.NodeProto, Sequence[np.ndarray | None]], list[np.ndarray]]
    before: Arrays
    constants: Mapping[str, np.ndarray]
    random: np.random.Generator

    def changed(self, **attributes: Any) -> onnx.NodeProto:
        """The node with other attributes; None takes one away."""
        made = onnx.NodeProto()
        made.CopyFrom(self.node)
        kept = [a for a in made.attribute if a.name not in attributes]
        del made.attribute[:]
        made.attribute.extend([*kept, *(helper.make_attribute(k, v) for k, v in attributes.items() if v is not None)])
        return made

    def honest(self) -> list[np.ndarray]:
        """What the node gives here without a fault."""
        return self.run(self.node, self.inputs)

    def weight(self, index: int) -> np.ndarray | None:
        """A constant operand."""
        ok = index < len(self.node.input) and self.node.input[index] in self.constants
        return self.inputs[index] if ok else None

    def instead(self, index: int, x: np.ndarray) -> list[np.ndarray]:
        """What the node gives with another operand."""
        given = list(self.inputs)
        given[index] = x
        return self.run(self.node, given)

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value."""
        return attribute(self.node, name, default)


class Executor:
    """A net, run node by node; sessions of single nodes are kept."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.opsets = list(model.opset_import)
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.nodes = []
        for node in model.graph.node:
            value = constant_of(node) if node.op_type == "Constant" else None
            if value is not None:
                self.constants[node.output[0]] = value
            else:
                self.nodes.append(node)
        self._folded()
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.outputs = {v.name for v in model.graph.output}
        self._sessions: dict[Any, Any] = {}

    def _folded(self) -> None:
        """Nodes of constants alone are constants: no device computes them anew."""
        self._sessions = {}
        kept = []
        for node in self.nodes:
            if (
                node.op_type not in ("If", "Loop", "Scan")
                and node.input
                and all(n in self.constants for n in node.input if n)
            ):
                made = self._by_onnxruntime(node, [self.constants[n] if n else None for n in node.input])
                self.constants |= {name: x for name, x in zip(node.output, made, strict=True) if name}
            else:
                kept.append(node)
        self.nodes = kept

    def run(
        self, feeds: Mapping[str, np.ndarray], on: Device, at: str = "", fault: Fault | None = None, seed: int = 0
    ) -> Run:
        """The net on a device; with ``fault`` in place of the node named ``at``. ValueError where it does not apply there."""
        stored: Arrays = {name: on.stored(x) for name, x in feeds.items()}
        inner: Arrays = {}
        weights = {n: on.kept(x) if on.weights else x for n, x in self.constants.items()}
        random = np.random.default_rng(seed)

        def compute(node: onnx.NodeProto, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
            return self._compute(node, inputs, on)

        def value(name: str) -> np.ndarray | None:
            if not name:
                return None
            x = inner[name] if name in inner else stored[name] if name in stored else weights[name]
            return (
                x.astype(np.float32) if x.dtype in (np.float16, ml_dtypes.bfloat16) and not self._is_half(name) else x
            )

        for node in self.nodes:
            inputs = tuple(value(name) for name in node.input)
            place = Place(node, inputs, compute, stored, self.constants, random)
            made = fault(place) if fault is not None and node_name(node) == at else None
            if fault is not None and node_name(node) == at and (made is None or made[0].dtype.name not in _WRONG):
                raise ValueError("the fault does not apply there")
            for name, x in zip(node.output, compute(node, inputs) if made is None else made, strict=False):
                if name and on.fused and self.stays(name):
                    inner[name] = x
                elif name:
                    stored[name] = x if self._is_half(name) else on.stored(x)
        return self._dumped(stored, on, feeds)

    def stays(self, name: str) -> bool:
        """Whether a fusing device keeps a result in registers."""
        readers = self.readers.get(name, [])
        makers = [n for n in self.nodes if name in n.output]
        return (
            len(readers) == 1
            and name not in self.outputs
            and readers[0].op_type in _ELEMENTWISE
            and bool(makers)
            and makers[0].op_type in _FUSES
        )

    def _is_half(self, name: str) -> bool:
        """Whether the net itself says a narrower type: then the device has no choice."""
        return name in self.constants and self.constants[name].dtype in (np.float16, ml_dtypes.bfloat16)

    def _dumped(self, stored: Arrays, on: Device, feeds: Mapping[str, np.ndarray]) -> Run:
        results = [name for name in stored if name not in feeds]
        kept = [n for place, n in enumerate(results) if place % on.every == 0 or n in self.outputs]
        dump: Arrays = {}
        names: dict[str, str] = {}
        order = np.random.default_rng(len(kept)).permutation(len(kept)) if not on.named else np.arange(len(kept))
        for place in [*range(-len(feeds), 0), *map(int, order)]:
            name = [*feeds][place] if place < 0 else kept[place]
            shown = name if on.named or place < 0 else f"buffer{place}"
            x = stored[name]
            dump[shown] = (
                np.ascontiguousarray(np.moveaxis(x, 1, -1)) if on.layout == "NHWC" and x.ndim == 4 and place >= 0 else x
            )
            names[shown] = name
        return Run(stored, dump, names)

    def _compute(self, node: onnx.NodeProto, inputs: Sequence[np.ndarray | None], on: Device) -> list[np.ndarray]:
        if node.op_type in _PRODUCTS and on.operands:
            inputs = [x if x is None or place > 1 else rounded(x, on.operands) for place, x in enumerate(inputs)]
        own = on.kernels.get(node.op_type)
        made = None if own is None else own(node, inputs)
        if made is not None:
            return made
        if (
            on.contract is not None
            and node.op_type in _PRODUCTS
            and all(x is None or x.dtype == np.float32 for x in inputs)
        ):
            return [_product(node, inputs, on.contract)]
        return self._by_onnxruntime(node, inputs)

    def _by_onnxruntime(self, node: onnx.NodeProto, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        import onnxruntime as ort

        types = tuple(None if x is None else (x.dtype.str, x.ndim) for x in inputs)
        key = (node.SerializeToString(), types)
        names = [f"{place}" if x is not None else "" for place, x in enumerate(inputs)]
        if key not in self._sessions:
            made = onnx.NodeProto()
            made.CopyFrom(node)
            del made.input[:]
            made.input.extend(names)
            graph = helper.make_graph(
                [made],
                "node",
                [_declared(n, x) for n, x in zip(names, inputs, strict=True) if x is not None],
                [helper.make_empty_tensor_value_info(name) for name in node.output if name],
            )
            options = ort.SessionOptions()
            options.intra_op_num_threads, options.log_severity_level = 1, 4
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            whole = helper.make_model(graph, opset_imports=self.opsets, ir_version=10)
            self._sessions[key] = ort.InferenceSession(
                whole.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        feeds = {n: np.asarray(x, order="C") for n, x in zip(names, inputs, strict=True) if x is not None}
        found = iter(self._sessions[key].run(None, feeds))
        return [next(found) if name else np.zeros(0, np.float32) for name in node.output]


def _declared(name: str, x: np.ndarray) -> onnx.ValueInfoProto:
    dims = [f"{name}_{axis}" for axis in range(x.ndim)]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), dims)


def node_name(node: onnx.NodeProto) -> str:
    """What a node is called."""
    return node.name or node.output[0]


def rounded(x: np.ndarray, bits: int) -> np.ndarray:
    """float32 rounded to so many bits of mantissa, to nearest even, as tensor cores read it."""
    if x.dtype != np.float32:
        return x
    drop = 23 - bits
    whole = x.view(np.uint32).astype(np.uint64)
    whole += (1 << (drop - 1)) - 1 + ((whole >> drop) & 1)
    return np.asarray((whole >> drop << drop).astype(np.uint32).view(np.float32).reshape(x.shape))


def _product(node: onnx.NodeProto, inputs: Sequence[np.ndarray | None], contract: Contract) -> np.ndarray:
    a, b, *rest = inputs
    assert a is not None and b is not None
    bias = rest[0] if rest else None
    if node.op_type == "MatMul":
        tall, wide = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
        made = contract(tall, wide)
        rows, columns = () if a.ndim == 1 else made.shape[-2:-1], () if b.ndim == 1 else made.shape[-1:]
        return made.reshape((*made.shape[:-2], *rows, *columns))
    if node.op_type == "Gemm":
        a = a.T if attribute(node, "transA", 0) else a
        b = b.T if attribute(node, "transB", 0) else b
        made = np.float32(attribute(node, "alpha", 1.0)) * contract(a, b)
        return made if bias is None else np.asarray(made + np.float32(attribute(node, "beta", 1.0)) * bias, np.float32)
    return _convolved(node, a, b, bias, contract)


def _convolved(
    node: onnx.NodeProto, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, contract: Contract
) -> np.ndarray:
    """A convolution as a product of its windows with its filters."""
    rank, groups = x.ndim - 2, attribute(node, "group", 1)
    strides, dilations = (attribute(node, name, [1] * rank) for name in ("strides", "dilations"))
    pads = attribute(node, "pads", [0] * 2 * rank)
    if attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise NotImplementedError("auto_pad")
    x = np.pad(x, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)])
    spans = [(size - 1) * d + 1 for size, d in zip(w.shape[2:], dilations, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(x, spans, tuple(range(2, 2 + rank)))
    windows = windows[(slice(None), slice(None), *(slice(None, None, step) for step in (*strides, *dilations)))]
    n, c, *out = windows.shape[: 2 + rank]
    k = c // groups * int(np.prod(w.shape[2:]))
    rows = windows.reshape(n, groups, c // groups, *out, *w.shape[2:])
    rows = np.moveaxis(rows, 2, 2 + rank).reshape(n, groups, int(np.prod(out)), k)
    filters = w.reshape(groups, -1, k).swapaxes(1, 2)[None]
    made = contract(np.ascontiguousarray(rows, np.float32), np.ascontiguousarray(filters)).swapaxes(2, 3)
    made = made.reshape(n, w.shape[0], *out)
    return np.asarray(made if bias is None else made + bias.reshape(-1, *[1] * rank), np.float32)
