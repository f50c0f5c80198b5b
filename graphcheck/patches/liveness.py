"""Whether a site can be cut out: nothing inside it may be needed by what stays."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from graphcheck.files import model as model_
from graphcheck.graphs import walk
from graphcheck.patches.site import Site


def live_nodes(model: ir.Model, cut: dict[ir.Value, list[ir.Value]]) -> set[ir.Node]:
    """The nodes that the outputs need when each value of ``cut`` is made from its list of values instead."""
    return set(walk.makers(value for value in _live_values(model, cut) if value not in cut))


def _live_values(model: ir.Model, cut: dict[ir.Value, list[ir.Value]]) -> Iterator[ir.Value]:
    """The values that the outputs need, likewise, those that are cut included."""
    ends = [*model.graph.outputs, *model_.map_outputs(model)]
    return walk.back(ends, lambda value: cut[value] if value in cut else reads(value))


def reads(value: ir.Value) -> list[ir.Value | None]:
    """What the producer of a value reads, its subgraphs included; [] where it has none."""
    captured = [v for graph in _subgraphs(value.producer()) for v in _captured(graph)]
    return [*walk.operands(value), *captured]


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
        cut = {s.output: _sources(s) for s in open_}
        values = set(_live_values(model, cut))
        live = set(walk.makers(values - cut.keys()))
        starts = {v: s for s in open_ if s.output in values for v in _sources(s)}
        bad = [(s, needed) for s in open_ if (needed := _needed(s, live, starts)) is not None]
        if not bad:
            break
        for site, needed in bad:
            reasons[site.node] = needed
        open_ = [s for s in open_ if s.node not in reasons]
    return tuple(
        s if s.node not in reasons else dataclasses.replace(s, blocked=reasons[s.node][0], blocker=reasons[s.node][1])
        for s in sites
    )


def is_free(model: ir.Model, site: Site, others: Sequence[Site]) -> bool:
    """Whether a site can be cut out beside ``others`` as far as they are not blocked."""
    return mark_blocked(model, [site, *(o for o in others if o.blocked is None)])[0].blocked is None


def _sources(site: Site) -> list[ir.Value]:
    return [site.input, *([site.residual] if site.residual is not None else [])]


def _needed(site: Site, live: set[ir.Node], starts: Mapping[ir.Value, Site]) -> tuple[str, str] | None:
    """(reason, node) if a node of the region stays alive, or another site ``starts`` inside."""
    for node in site.region:
        if node not in live:
            continue
        for value in node.outputs:
            if value.is_graph_output() and value is not site.output:
                return f"its inner tensor {value.name} is an output of the model", model_.node_name(node)
            users = [user for user in value.consumers() if user in live and user not in site.region]
            users += [starts[value].node] if starts.get(value, site) is not site else []
            if users:
                return f"its inner tensor {value.name} is used elsewhere", model_.node_name(users[0])
    return None
