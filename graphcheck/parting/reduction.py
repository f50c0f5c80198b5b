"""``--reduce``: the two small models around the first divergence, cut out at tensors that both graphs share."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.errors import GraphcheckError
from graphcheck.files import model as model_
from graphcheck.files.model import node_name
from graphcheck.kernel.ops.algebra import Tensor
from graphcheck.kernel.proof.pair import Pair
from graphcheck.parting.alignment import Alignment, Divergence
from graphcheck.verdict import Comparison


@dataclasses.dataclass(frozen=True)
class Region:
    """A piece of one graph: its nodes in order, the shared tensors that it reads, the tensor that it gives."""

    nodes: list[ir.Node]
    inputs: list[ir.Value]
    output: ir.Value


def write(
    models: tuple[ir.Model, ir.Model],
    pair: Pair,
    alignment: Alignment,
    divergence: Divergence,
    folder: Path,
    compare: Callable[[str, str], Comparison],
) -> dict[str, Any]:
    """Write ``a.onnx`` and ``b.onnx`` into ``folder``, with the shared cut tensors as inputs, and compare them again.

    The result says where they are and what the comparison of the two pieces found; where no piece could be cut out, why.
    """
    ends = _ends(models, alignment, divergence)
    if ends is None:
        return none("the graphs do not meet again behind the divergence")
    regions = [_region(alignment, side, value) for side, value in enumerate(ends)]
    names = _inputs(pair, regions)
    try:
        pieces = [_extract(models[side], alignment, side, regions[side], names) for side in (0, 1)]
    except GraphcheckError as error:
        return none(str(error))
    files = []
    folder.mkdir(parents=True, exist_ok=True)
    for piece, letter in zip(pieces, "ab", strict=True):
        path = folder / f"{letter}.onnx"
        model_.write(piece, path, external_data="used")
        files.append(str(path))
    try:
        again = compare(files[0], files[1])
        verdict, reason = str(again.verdict), again.reason
    except GraphcheckError as error:
        verdict, reason = None, str(error)
    return {"a": files[0], "b": files[1], "verdict": verdict, "reason": reason}


def none(reason: str) -> dict[str, Any]:
    """That nothing was written, and why."""
    return {"a": None, "b": None, "verdict": None, "reason": reason}


def _ends(
    models: tuple[ir.Model, ir.Model], alignment: Alignment, divergence: Divergence
) -> tuple[ir.Value, ir.Value] | None:
    """The tensors to compare: those of the divergence where they have one shape, else the first outputs behind them."""
    found = []
    for side, place in enumerate((divergence.a, divergence.b)):
        ran = list(_ran(models[side].graph, alignment.traces[side].values))
        made = {(v.name, node_name(node)): v for node in ran for v in node.outputs}
        around = {node_name(node): node for node in ran}
        kept = [around[n].outputs[0] for n in (place.inside if place else ()) if n in around and around[n].op_type != "If"]
        found.append(kept[0] if kept else made.get((place.tensor, place.node)) if place is not None else None)
    a, b = found
    if a is not None and b is not None and _differ(alignment, a, b):
        return a, b
    pairs = [
        (_chosen(alignment, 0, x), _chosen(alignment, 1, y))
        for x, y in zip(models[0].graph.outputs, models[1].graph.outputs, strict=False)
    ]
    return next(((x, y) for x, y in pairs if _differ(alignment, x, y) and x.producer() and y.producer()), None)


def _ran(nodes: Iterable[ir.Node], values: Mapping[ir.Value, Any]) -> Iterator[ir.Node]:
    """The nodes, with those in the branches of If that were evaluated."""
    for node in nodes:
        yield node
        for branch in _branches(node):
            yield from (inner for inner in _ran(branch, values) if any(v in values for v in inner.outputs))


def _branches(node: ir.Node) -> list[ir.Graph]:
    """Those of an If in the order then, else; [] of another node, or where a function's caller gives them."""
    found = [node.attributes.get(name) for name in ("then_branch", "else_branch")] if node.op_type == "If" else []
    return [] if any(a is None or a.is_ref() for a in found) else [a.as_graph() for a in found if a is not None]


def _chosen(alignment: Alignment, side: int, value: ir.Value) -> ir.Value:
    """The value itself; of an If whose condition is known what its branch gives."""
    while (node := value.producer()) is not None and (branches := _branches(node)):
        known = node.inputs[0]
        condition = None if known is None else alignment.traces[side].values.get(known)
        if not isinstance(condition, np.ndarray):
            break
        value = branches[0 if bool(condition.reshape(-1)[0]) else 1].outputs[list(node.outputs).index(value)]
    return value


def _differ(alignment: Alignment, a: ir.Value, b: ir.Value) -> bool:
    """Whether two tensors have one shape and are not the same."""
    shape, classes = _shape(alignment, 0, a), []
    for side, value in ((0, a), (1, b)):
        tensor = alignment.traces[side].values.get(value)
        classes.append(alignment.terms.find(tensor.cls) if isinstance(tensor, Tensor) else None)
    return shape is not None and shape == _shape(alignment, 1, b) and classes[0] != classes[1]


def _shape(alignment: Alignment, side: int, value: ir.Value) -> tuple[int, ...] | None:
    tensor = alignment.traces[side].values.get(value)
    return tensor.shape if isinstance(tensor, Tensor) else None


def _region(alignment: Alignment, side: int, end: ir.Value) -> Region:
    """What computes ``end`` from tensors that the other graph has too; of an If whose condition is known its branch alone."""
    inputs: dict[ir.Value, None] = {}
    seen: set[ir.Node] = set()
    nodes: list[ir.Node] = []
    stack: list[tuple[ir.Value | None, ir.Node | None]] = [(end, None)]
    while stack:
        value, done = stack.pop()
        if value is None:
            nodes += [done] if done is not None else []
            continue
        value = _chosen(alignment, side, value)
        node, tensor = value.producer(), alignment.traces[side].values.get(value)
        shared = value is not end and isinstance(tensor, Tensor) and alignment.shared(side, value)
        if shared or (node is None and isinstance(tensor, Tensor)):
            inputs[value] = None
        elif node is not None and node not in seen:
            seen.add(node)
            stack += [(None, node), *((read, None) for read in reversed(read_by(node)))]
    return Region(nodes, list(inputs), end)


def _inputs(pair: Pair, regions: list[Region]) -> dict[tuple[int, tuple[int, ...]], str]:
    """One name for each shared tensor that either region reads."""
    names: dict[tuple[int, tuple[int, ...]], str] = {}
    for side, region in enumerate(regions):
        trace = (pair.a, pair.b)[side]
        for value in region.inputs:
            tensor = trace.values[value]
            assert isinstance(tensor, Tensor)
            names.setdefault((pair.terms.find(tensor.cls), tensor.shape), f"shared_{len(names)}")
    return names


def _extract(
    model: ir.Model, alignment: Alignment, side: int, region: Region, names: dict[tuple[int, tuple[int, ...]], str]
) -> ir.Model:
    """The region as a model: shared tensors (also those that only the other side reads) as inputs, one output."""
    pair, trace = alignment.pair, alignment.traces[side]
    given: dict[ir.Value, ir.Value] = {}
    made: dict[str, ir.Value] = {}
    for (cls, shape), name in names.items():
        held = (v for t in (pair.a, pair.b) for v in t.values.values() if isinstance(v, Tensor))
        dtype = next(v.dtype for v in held if pair.terms.find(v.cls) == cls)
        made[name] = ir.Value(
            name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))
        )
    for value in region.inputs:
        tensor = trace.values[value]
        assert isinstance(tensor, Tensor)
        given[value] = made[names[(pair.terms.find(tensor.cls), tensor.shape)]]
    tensor = trace.values[region.output]
    assert isinstance(tensor, Tensor)

    def known(value: ir.Value) -> tuple[ir.Value, Any]:
        source = _chosen(alignment, side, value)
        return source, trace.values.get(source)

    return assembled(model, region.nodes, given, list(made.values()), {region.output: (tensor, "result")}, known)


def assembled(
    model: ir.Model,
    around: Sequence[ir.Node],
    given: dict[ir.Value, ir.Value],
    inputs: Sequence[ir.Value],
    ends: Mapping[ir.Value, tuple[Tensor | np.ndarray, str]],
    known: Callable[[ir.Value], tuple[ir.Value, Any]],
) -> ir.Model:
    """Copies of some nodes, in order, as a model: ``given`` are the ``inputs`` by what they stand for, ``ends`` the outputs, each
    with one of its shape and type and its name, ``known(value)`` the value that is meant by one and its array."""
    initializers: list[ir.Value] = []
    nodes: list[ir.Node] = []
    for node in around:
        for operand in read_by(node):
            source, array = known(operand)
            if source not in given:
                given[source] = _constant(source, array, initializers)
            given[operand] = given[source]
        operands = [None if operand is None else given[operand] for operand in node.inputs]
        outputs = [ir.Value(name=v.name, shape=v.shape, type=v.type) for v in node.outputs]
        given.update(zip(node.outputs, outputs, strict=True))
        attributes = [_own(attribute, given) for attribute in node.attributes.values()]
        nodes.append(
            ir.Node(
                node.domain, node.op_type, operands, attributes, overload=node.overload, outputs=outputs, name=node.name
            )
        )
    taken = {str(value.name) for value in inputs}
    _unlike([*initializers, *(v for node in nodes for v in node.outputs)], taken)
    for value, (like, name) in ends.items():
        end = given[value]
        end.shape, end.type = ir.Shape(like.shape), ir.TensorType(ir.DataType.from_numpy(like.dtype))
        end.name = name
    opsets = dict(model.opset_imports)
    outer = [given[value] for value in ends]
    graph = ir.Graph(list(inputs), outer, nodes=nodes, initializers=initializers, opset_imports=opsets, name="reduced")
    return ir.Model(graph, ir_version=model.ir_version, functions=list(model.functions.values()))


def _unlike(values: Sequence[ir.Value], taken: set[str]) -> None:
    """Give values names that are not ``taken``: those of two branches may be alike."""
    for value in values:
        if value.name in taken:
            value.name = next(name for i in itertools.count() if (name := f"{value.name}_{i}") not in taken)
        taken |= {value.name} if value.name else set()


def read_by(node: ir.Node) -> list[ir.Value]:
    """What a node reads, also in its bodies."""
    return [*(v for v in node.inputs if v is not None), *_captured(node)]


def _captured(node: ir.Node) -> list[ir.Value]:
    """What the bodies of a node read from outside of them."""
    found: dict[ir.Value, None] = {}
    bodies = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH and not a.is_ref()]
    for body in bodies:
        nodes = list(body.all_nodes())
        graphs = [body, *(a.as_graph() for n in nodes for a in n.attributes.values() if a.type == ir.AttributeType.GRAPH)]
        own = {v for n in nodes for v in n.outputs} | {v for g in graphs for v in (*g.inputs, *g.initializers.values())}
        read = [v for n in nodes for v in n.inputs if v is not None] + [v for g in graphs for v in g.outputs]
        found |= dict.fromkeys(v for v in read if v not in own)
    return list(found)


def _own(attribute: ir.Attr, given: dict[ir.Value, ir.Value]) -> ir.Attr:
    """The attribute, a body as a copy that reads what was ``given`` in the place of the values around it."""
    if attribute.type != ir.AttributeType.GRAPH or attribute.is_ref():
        return attribute
    body = attribute.as_graph().clone(allow_outer_scope_values=True)
    for node in body.all_nodes():
        for i, value in enumerate(node.inputs):
            if value in given:
                node.replace_input_with(i, given[value])
    return ir.Attr(attribute.name, ir.AttributeType.GRAPH, body)


def _constant(value: ir.Value, array: Any, initializers: list[ir.Value]) -> ir.Value:
    """A constant operand as an initializer of the piece (also one that was computed from shapes)."""
    if not isinstance(array, np.ndarray):
        raise GraphcheckError(f"tensor {value.name!r} cannot be cut out: it is neither shared nor constant")
    constant = ir.Value(name=value.name, const_value=ir.tensor(np.ascontiguousarray(array), name=value.name))
    constant.shape, constant.type = ir.Shape(array.shape), ir.TensorType(ir.DataType.from_numpy(array.dtype))
    initializers.append(constant)
    return constant
