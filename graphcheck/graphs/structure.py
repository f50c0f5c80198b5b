"""Are two graphs the same up to what does not matter, and if not, which nodes and constants have no partner?

Equal numbers of the canonical form suggest partners. What is called identical was also walked in step from the outputs:
that forces the node mapping, since operands are ordered, and rests on no hash but those of constants and node keys.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import itertools
from collections import Counter, defaultdict, deque
from typing import Any

import onnx_ir as ir

from graphcheck.files.contents import Contents
from graphcheck.files.model import declared_shape, node_name, op_name
from graphcheck.graphs.canonical import FlatGraph, Numbers, constant_tensor, signature, strip

ValuePair = tuple[ir.Value | None, ir.Value | None]
_SCOPES = "pkg.torch.onnx.name_scopes"  # where torch's dynamo exporter writes the modules around a node
_LONGEST_ATTRIBUTE = 80


@dataclasses.dataclass(frozen=True, eq=False)
class Structure:
    """How two graphs compare as graphs. Dead nodes count on neither side, Constant nodes as constants.

    ``reason`` says what first stood against ``identical``; ``walked`` are the nodes that the outputs force to be partners,
    ``changed`` the constants that alone stand against it.
    What else there is to say is worked out once it is asked for.
    """

    identical: bool
    reason: str | None
    left: FlatGraph
    right: FlatGraph
    walked: dict[ir.Node, ir.Node]
    changed: tuple[tuple[ir.Value, ir.Value], ...] = ()

    @functools.cached_property
    def _matched(self) -> dict[ir.Node, ir.Node]:
        return dict(self.walked) if self.identical else _match(self.left, self.right, self.walked)

    @property
    def pairs(self) -> tuple[tuple[ir.Node, ir.Node], ...]:
        """Matched nodes in A's order: all of them if ``identical``, otherwise those with equal ancestors (constants' values
        aside) and those with equal descendants."""
        return tuple((node, self._matched[node]) for node in self.left.nodes if node in self._matched)

    @property
    def only_a(self) -> tuple[ir.Node, ...]:
        """A's nodes without a partner."""
        return tuple(node for node in self.left.nodes if node not in self._matched)

    @property
    def only_b(self) -> tuple[ir.Node, ...]:
        """B's nodes without a partner."""
        partners = set(self._matched.values())
        return tuple(node for node in self.right.nodes if node not in partners)

    @property
    def ops(self) -> dict[str, tuple[int, int]]:
        """How many nodes of each operator A and B have."""
        a, b = (Counter(op_name(node) for node in flat.nodes) for flat in (self.left, self.right))
        return {op: (a[op], b[op]) for op in sorted(a.keys() | b.keys())}

    @functools.cached_property
    def _constants(self) -> list[dict[int, str]]:
        """The constants of A and B by their numbers."""
        return [{number: value.name or "" for value, number in f.used_constants()} for f in (self.left, self.right)]

    @property
    def constants_equal(self) -> int:
        """How many constants both have."""
        return len(self._constants[0].keys() & self._constants[1].keys())

    @property
    def constants_only_a(self) -> tuple[str, ...]:
        """Those that A alone has."""
        return tuple(name for number, name in self._constants[0].items() if number not in self._constants[1])

    @property
    def constants_only_b(self) -> tuple[str, ...]:
        """Those that B alone has."""
        return tuple(name for number, name in self._constants[1].items() if number not in self._constants[0])

    def to_json(self) -> dict[str, Any]:
        """The ``structure`` key of the comparison."""
        pairs = self.pairs
        return {
            "identical": self.identical,
            "reason": self.reason,
            "matched_nodes": len(pairs),
            "nodes_a": len(self.left.nodes),
            "nodes_b": len(self.right.nodes),
            "ops": {op: list(counts) for op, counts in self.ops.items()},
            "only_a": [_describe(node) for node in self.only_a],
            "only_b": [_describe(node) for node in self.only_b],
            "constants": {
                "equal": self.constants_equal,
                "only_a": list(self.constants_only_a),
                "only_b": list(self.constants_only_b),
            },
            "mapping": [[node_name(a), node_name(b)] for a, b in pairs],
        }


def compare_structure(a: ir.Model, b: ir.Model, contents: Contents | None = None) -> Structure:
    """The structures of A and B compared, in time linear in nodes and bytes; :class:`ModelError` for a cyclic graph.

    ``contents`` may be shared with others, so that one comparison looks at each constant once.
    """
    contents = contents or Contents()
    numbers = Numbers()
    left, right = FlatGraph(a, contents, numbers), FlatGraph(b, contents, numbers)
    walked, reason, changed = _walk(left, right)
    return Structure(reason is None, reason, left, right, walked, changed)


def _walk(
    left: FlatGraph, right: FlatGraph
) -> tuple[dict[ir.Node, ir.Node], str | None, tuple[tuple[ir.Value, ir.Value], ...]]:
    """The node mapping that the outputs force, as far as it goes, the first thing that stops it (None: nothing), and the
    constants that do, where nothing else does.

    Values of A and B correspond one to one (constants may be stored once or often), so a node computed once on one side
    and twice on the other stops it too: for random operators that is another function.
    """
    forward, backward = dict[ir.Value, ir.Value](), dict[ir.Value, ir.Value]()
    nodes, partners = dict[ir.Node, ir.Node](), dict[ir.Node, ir.Node]()
    causes: list[str] = []
    changed: dict[tuple[ir.Value, ir.Value], str] = {}
    (inputs_a, outputs_a), (inputs_b, outputs_b) = signature(left.model), signature(right.model)
    if inputs_a != inputs_b or outputs_a != outputs_b:
        causes.append("the inputs or outputs are not declared alike")
    stack: list[ValuePair] = _outputs_by_name(left.model, right.model)
    while stack:
        a, b = stack.pop()
        if a is None or b is None:
            if a is not b:
                causes.append(f"an optional operand is given on one side only: {(a or b).name!r}")  # type: ignore[union-attr]
        elif a in left.constants or b in right.constants:
            if a not in left.constants or b not in right.constants:
                constant, other = ("B", "A") if a not in left.constants else ("A", "B")
                causes.append(f"{a.name!r} of A and {b.name!r} of B: a constant in {constant}, computed in {other}")
            elif left.constants[a] != right.constants[b]:
                changed.setdefault((a, b), f"constant {a.name!r} of A is not {b.name!r} of B")
        elif a in forward or b in backward:
            if forward.get(a) is not b:
                causes.append(f"{a.name!r} of A and {b.name!r} of B are shared differently by their users")
        else:
            forward[a], backward[b] = b, a
            x, y = a.producer(), b.producer()
            if x is None or y is None:
                if x is not y or left.leaves.get(a) != right.leaves.get(b):
                    causes.append(f"{a.name!r} of A is not {b.name!r} of B")
            elif left.keys[x] != right.keys[y] or a.index() != b.index():
                causes.append(f"node {node_name(x)!r} of A is not {node_name(y)!r} of B")
            elif nodes.get(x, y) is not y or partners.get(y, x) is not x:
                causes.append(f"the results of node {node_name(x)!r} of A belong to several nodes of B, or the reverse")
            elif x not in nodes:
                nodes[x], partners[y] = y, x
                stack += _operands(left, right, x, y, forward, backward)
    alone = tuple(reversed(changed)) if not causes else ()  # in the order of the nodes: operands are on a stack
    return nodes, [*causes, *changed.values()][0] if causes or changed else None, alone


def _operands(
    left: FlatGraph,
    right: FlatGraph,
    x: ir.Node,
    y: ir.Node,
    forward: dict[ir.Value, ir.Value],
    backward: dict[ir.Value, ir.Value],
) -> list[ValuePair]:
    """The pairs of values that must correspond if the nodes do: operands, and parameters and results of bodies."""
    result = list(itertools.zip_longest(strip(x.inputs), strip(y.inputs)))
    for p, q in zip(left.bodies.get(x, ()), right.bodies.get(y, ()), strict=True):
        if p.inputs and forward.get(p.inputs[0]) is q.inputs[0]:
            continue  # a function that an earlier call has paired
        for formal, partner in zip(p.inputs, q.inputs, strict=True):
            forward[formal], backward[partner] = partner, formal
        result += zip(p.outputs, q.outputs, strict=True)
    return result


def _outputs_by_name(a: ir.Model, b: ir.Model) -> list[ValuePair]:
    by_name = {value.name: value for value in b.graph.outputs}
    if {value.name for value in a.graph.outputs} != by_name.keys():
        return list(zip(a.graph.outputs, b.graph.outputs, strict=False))
    return [(value, by_name[value.name]) for value in a.graph.outputs]


def _match(left: FlatGraph, right: FlatGraph, walked: dict[ir.Node, ir.Node]) -> dict[ir.Node, ir.Node]:
    """Partners by exact expression, then by skeleton, then by what the outputs force; each node at most once."""
    matched: dict[ir.Node, ir.Node] = {}
    taken: set[ir.Node] = set()
    for ours, theirs in ((left.exact, right.exact), (left.skeleton, right.skeleton)):
        waiting: defaultdict[int, deque[ir.Node]] = defaultdict(deque)
        for node, number in theirs.items():
            if node not in taken:
                waiting[number].append(node)
        for node, number in ours.items():
            if node not in matched and waiting[number]:
                matched[node] = waiting[number].popleft()
                taken.add(matched[node])
    for node, partner in walked.items():
        if node not in matched and partner not in taken:
            matched[node] = partner
            taken.add(partner)
    return matched


def _describe(node: ir.Node) -> dict[str, Any]:
    return {"node": node_name(node), "op_type": op_name(node), "outputs": [value.name for value in node.outputs]}


def graph_json(model: ir.Model) -> dict[str, Any]:
    """The ``graph`` record of the JSON: nodes of the main graph in file order (``id`` counts them), and their tensors.

    ``module`` is the dotted path of the torch module that a node came from, where the exporter left it.
    """
    nodes, tensors = [], {}
    for index, node in enumerate(model.graph):
        nodes.append(
            {
                "id": index,
                "name": node_name(node),
                "op_type": node.op_type,
                "domain": node.domain,
                "inputs": ["" if value is None else value.name for value in node.inputs],
                "outputs": [value.name for value in node.outputs],
                "attributes": {attr.name: _short(attr) for attr in node.attributes.values()},
                "module": _module(node),
            }
        )
        constant = constant_tensor(node) is not None
        for value in (*node.inputs, *node.outputs):
            if value is not None and value.name:
                tensors[value.name] = _tensor_json(value, constant and value.producer() is node)
    for value in (*model.graph.inputs, *model.graph.outputs):
        tensors.setdefault(value.name or "", _tensor_json(value, False))
    return {
        "nodes": nodes,
        "tensors": tensors,
        "inputs": [value.name for value in model.graph.inputs],
        "outputs": [value.name for value in model.graph.outputs],
    }


def run_at(row: dict[str, Any] | None, traced: Any) -> None:
    """Give a tensor of the record the ``sizes`` of a trace beside a shape with symbolic dims, whose formulas may be long."""
    sizes = list(getattr(traced, "shape", ()))
    if row is not None and row["shape"] and len(sizes) == len(row["shape"]) and any(isinstance(d, str) for d in row["shape"]):
        row["sizes"] = sizes


def _tensor_json(value: ir.Value, constant: bool) -> dict[str, Any]:
    dtype, shape = value.dtype, declared_shape(value)
    if value.const_value is not None:
        dtype, shape = value.const_value.dtype, list(value.const_value.shape.numpy())
    producer = value.producer()
    constant = constant or value.is_initializer() or (producer is not None and constant_tensor(producer) is not None)
    return {"dtype": None if dtype is None else dtype.name.lower(), "shape": shape, "constant": constant}


def _short(attr: ir.Attr) -> str:
    if attr.is_ref():
        text = f"@{attr.ref_attr_name}"
    elif attr.type == ir.AttributeType.TENSOR:
        tensor = attr.as_tensor()
        values = f" {tensor.numpy().tolist()}" if tensor.size <= 8 else ""
        text = f"{tensor.dtype.name.lower()}{list(tensor.shape.numpy())}{values}"
    elif attr.type == ir.AttributeType.GRAPH:
        text = f"graph of {len(attr.as_graph())} nodes"
    elif isinstance(attr.value, tuple):
        text = "[" + ", ".join(str(item) for item in attr.value[:16]) + (", ...]" if len(attr.value) > 16 else "]")
    else:
        text = f"{attr.value:.9g}" if isinstance(attr.value, float) else str(attr.value)
    return text if len(text) <= _LONGEST_ATTRIBUTE else text[: _LONGEST_ATTRIBUTE - 3] + "..."


def _module(node: ir.Node) -> str | None:
    if text := node.metadata_props.get(_SCOPES):
        try:
            scopes = [str(scope) for scope in ast.literal_eval(text)]
        except (ValueError, SyntaxError, TypeError):
            return None
        return next((scope for scope in reversed(scopes[:-1]) if scope), None)  # the last one is the node itself
    if (node.name or "").startswith("/"):  # TorchScript's exporter: /vit/embeddings/projection/Conv
        return ".".join((node.name or "").split("/")[1:-1]) or None
    return None
