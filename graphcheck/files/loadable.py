"""What onnxruntime loads although onnx.checker refuses it or onnx_ir cannot hold it: read all the same, each with a note.

Source: onnxruntime's ``core/graph/contrib_ops`` (the operators that it registers in ONNX's own domain), and its sessions.
What it refuses itself stays refused: a cycle, nodes out of order within a subgraph or a function, its own operators in a
function, an operator that nobody has, operators that ONNX took back (Upsample, Scatter), GroupNormalization excepted.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx

from graphcheck.errors import ModelError

_ELSEWHERE = "com.microsoft"  # where onnx.checker leaves an operator alone
_ANY = 2**31


@dataclasses.dataclass(frozen=True)
class _Loaded:
    """An operator of the sets ``first`` to ``last``; its form is that of the set ``like`` (None: no set has it)."""

    first: int
    last: int
    like: int | None
    why: str
    in_functions: bool = False  # whether onnxruntime takes it there too


_BEFORE = "onnxruntime's own: ONNX has no such operator there"
_DEPRECATED = "deprecated there, and run by onnxruntime"
_LOADED = {
    ("", "LayerNormalization"): _Loaded(1, 16, 17, _BEFORE),
    ("", "SimplifiedLayerNormalization"): _Loaded(1, _ANY, None, _BEFORE),
    ("", "MeanVarianceNormalization"): _Loaded(1, 8, None, _BEFORE),
    ("", "ThresholdedRelu"): _Loaded(1, 9, 10, _BEFORE),
    ("", "GroupNormalization"): _Loaded(18, 20, 21, _DEPRECATED, True),
}


def without_maps(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, list[tuple[int, onnx.ValueInfoProto]]]:
    """The model without its outputs of type map, and those with their positions; ``proto`` itself where it has none."""
    found = [(i, value) for i, value in enumerate(proto.graph.output) if _is_map(value.type)]
    if not found:
        return proto, []
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    kept = [value for value in proto.graph.output if not _is_map(value.type)]
    inner = [value for value in proto.graph.value_info if not _is_map(value.type)]
    del result.graph.output[:], result.graph.value_info[:]
    result.graph.output.extend(kept)
    result.graph.value_info.extend(inner)
    return result, found


def left_out(values: Sequence[tuple[int, onnx.ValueInfoProto]], proto: onnx.ModelProto) -> list[str]:
    """A note on each output that :func:`without_maps` took away."""
    makers = {name: node.op_type for node in proto.graph.node for name in node.output} if values else {}
    return [
        f"output {value.name!r} is left out: {makers.get(value.name, 'the graph')} gives a map, "
        "and tensors alone are compared"
        for _, value in values
    ]


def _is_map(kind: onnx.TypeProto) -> bool:
    while kind.WhichOneof("value") in ("sequence_type", "optional_type"):
        kind = getattr(kind, str(kind.WhichOneof("value"))).elem_type
    return bool(kind.WhichOneof("value") == "map_type")


def in_order(proto: onnx.ModelProto, name: object) -> tuple[onnx.ModelProto, list[str]]:
    """The model with the nodes of its main graph in an order of evaluation, else as they stand, and a note on it;
    ``proto`` itself where they have one. Raises :class:`ModelError` for a cycle."""
    nodes = proto.graph.node
    order, early = _order(nodes, name)
    if early is None:
        return proto, []
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    del result.graph.node[:]
    result.graph.node.extend(nodes[i] for i in order)
    return result, [
        f"its nodes are not in order ({_name(nodes[early])} stands before what it reads); they are read sorted, as by "
        "onnxruntime"
    ]


def _order(nodes: Sequence[onnx.NodeProto], name: object) -> tuple[list[int], int | None]:
    """The order in which each node follows what it reads, the first that can coming first, and the first node that
    stands too early (None: none does)."""
    made = {output: i for i, node in enumerate(nodes) for output in node.output if output}
    reads = [{made[n] for n in _read(node) if n in made} for node in nodes]
    early = next((i for i, needs in enumerate(reads) if max(needs, default=-1) >= i), None)
    if early is None:
        return list(range(len(nodes))), None
    readers: list[list[int]] = [[] for _ in nodes]
    for i, needs in enumerate(reads):
        for need in needs:
            readers[need].append(i)
    waits = [len(needs) for needs in reads]
    ready, order = [i for i, count in enumerate(waits) if not count], []
    while ready:
        at = heapq.heappop(ready)
        order.append(at)
        for reader in readers[at]:
            waits[reader] -= 1
            if not waits[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(nodes):
        for i, node in enumerate(nodes):
            if again := next((output for output in node.output if output and made[output] != i), None):
                raise ModelError(name, f"two nodes give {again!r}, {_name(node)} and {_name(nodes[made[again]])}")
        raise ModelError(name, f"its nodes form a cycle, through {_name(nodes[_on_cycle(reads, waits)])}")
    return order, early


def _on_cycle(reads: Sequence[set[int]], waits: Sequence[int]) -> int:
    """A node on a cycle: from any that still waits, back along what it waits for until a node comes again."""
    at, seen = next(i for i, count in enumerate(waits) if count), set[int]()
    while at not in seen:
        seen.add(at)
        at = min(need for need in reads[at] if waits[need])
    return at


def _read(node: onnx.NodeProto) -> set[str]:
    """The names that a node reads, those that its subgraphs take from outside included."""
    names = {name for name in node.input if name}
    for graph in _graphs(node):
        own = {value.name for value in (*graph.input, *graph.initializer)}
        own |= {output for inner in graph.node for output in inner.output}
        inside = set().union(*(_read(inner) for inner in graph.node)) | {value.name for value in graph.output}
        names |= inside - own
    return names


def _graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def stand_in(proto: onnx.ModelProto, name: object) -> tuple[onnx.ModelProto, list[str]]:
    """A copy for onnx.checker in which it leaves alone what onnxruntime loads, and a note on each such operator.

    ``proto`` itself where there is none. Raises :class:`ModelError` for one that has not the form of its operator.
    """
    holders = _holders(proto)
    if not any(_known(node, opsets, inner) for nodes, opsets, inner in holders for node in nodes):
        return proto, []
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    count: dict[str, int] = {}
    for nodes, opsets, in_function in _holders(result):
        for node in nodes:
            known = _known(node, opsets, in_function)
            if known is None:
                continue
            if known.like is not None and not any(a.ref_attr_name for a in node.attribute):
                _check_form(node, known.like, result.ir_version, name)
            domain = "" if node.domain == "ai.onnx" else node.domain
            text = f"{node.op_type} of operator set {f'{domain} {opsets[domain]}'.strip()} is {known.why}"
            count[text] = count.get(text, 0) + 1
            node.domain = _ELSEWHERE
    for imports in (result.opset_import, *(f.opset_import for f in result.functions)):
        if _ELSEWHERE not in {opset.domain for opset in imports}:
            imports.append(onnx.helper.make_opsetid(_ELSEWHERE, 1))
    return result, [text if n == 1 else f"{text} ({n} nodes)" for text, n in count.items()]


def _known(node: onnx.NodeProto, opsets: Mapping[str, int], in_function: bool) -> _Loaded | None:
    domain = "" if node.domain == "ai.onnx" else node.domain
    found = _LOADED.get((domain, node.op_type))
    if found is None or (in_function and not found.in_functions):
        return None
    return found if found.first <= opsets.get(domain, 0) <= found.last else None


def _holders(proto: onnx.ModelProto) -> list[tuple[list[onnx.NodeProto], dict[str, int], bool]]:
    """The nodes of the main graph and of each function, those of subgraphs included, with their operator sets and
    whether it is a function."""

    def every(nodes: Any) -> Iterator[onnx.NodeProto]:
        for node in nodes:
            yield node
            for graph in _graphs(node):
                yield from every(graph.node)

    def versions(imports: Any) -> dict[str, int]:
        return {"" if opset.domain == "ai.onnx" else opset.domain: opset.version for opset in imports}

    return [
        (list(every(proto.graph.node)), versions(proto.opset_import), False),
        *((list(every(f.node)), versions(f.opset_import), True) for f in proto.functions),
    ]


def _check_form(node: onnx.NodeProto, version: int, ir_version: int, name: object) -> None:
    context = onnx.checker.C.CheckerContext()
    context.ir_version, context.opset_imports = ir_version, {node.domain: version}
    try:
        onnx.checker.check_node(node, context)
    except Exception as error:
        cause = " ".join(str(error).split())[:300]
        raise ModelError(name, f"{_name(node)} is not of the form of its operator: {cause}") from None


def _name(node: onnx.NodeProto) -> str:
    return f"{node.op_type} node {node.name or next(iter(node.output), '')!r}"
