"""Whether a site can be cut out: nothing inside it may be needed by what stays."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphcheck.files import model as model_
from graphcheck.graphs import walk
from graphcheck.patches.site import Site


def live_nodes(model: ir.Model, cut: dict[ir.Value, list[ir.Value]]) -> set[ir.Node]:
    """The nodes that the outputs need when each value of ``cut`` is made from its list of values instead."""

    def further(value: ir.Value) -> list[ir.Value | None]:
        if value in cut:
            return [*cut[value]]
        captured = [v for graph in _subgraphs(value.producer()) for v in _captured(graph)]
        return [*walk.operands(value), *captured]

    ends = [*model.graph.outputs, *model_.map_outputs(model)]
    return set(walk.makers(value for value in walk.back(ends, further) if value not in cut))


def _subgraphs(node: ir.Node | None) -> list[ir.Graph]:
    graphs: list[ir.Graph] = []
    for attribute in () if node is None else node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            graphs.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            graphs += attribute.as_graphs()
    return graphs


def _captured(graph: ir.Graph) -> list[ir.Value]:
    reads = [v for node in graph.all_nodes() for v in node.inputs if v is not None]
    return [*reads, *graph.outputs]


def mark_blocked(model: ir.Model, sites: list[Site]) -> tuple[Site, ...]:
    """The sites, those with a reason in ``blocked`` whose inner tensors are needed outside them."""
    open_ = list(sites)
    reasons: dict[ir.Node, tuple[str, str]] = {}
    while open_:
        live = live_nodes(
            model, {s.output: [s.input, *([s.residual] if s.residual is not None else [])] for s in open_}
        )
        bad = [(s, needed) for s in open_ if (needed := _needed(model, s, live)) is not None]
        if not bad:
            break
        for site, needed in bad:
            reasons[site.node] = needed
        open_ = [s for s in open_ if s.node not in reasons]
    return tuple(
        s if s.node not in reasons else dataclasses.replace(s, blocked=reasons[s.node][0], blocker=reasons[s.node][1])
        for s in sites
    )


def _needed(model: ir.Model, site: Site, live: set[ir.Node]) -> tuple[str, str] | None:
    """(reason, node) if a node of the region stays alive."""
    for node in site.region:
        if node not in live:
            continue
        for value in node.outputs:
            if value.is_graph_output() and value is not site.output:
                return f"its inner tensor {value.name} is an output of the model", model_.node_name(node)
            for user in value.consumers():
                if user in live and user not in site.region:
                    return f"its inner tensor {value.name} is used elsewhere", model_.node_name(user)
    return None
