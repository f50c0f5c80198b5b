"""Puts one form in a site's place, in place: new nodes, the old output's name, and nothing dead left behind."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from graphcheck.graphs import canonical, walk
from graphcheck.patches.liveness import live_nodes, reads
from graphcheck.patches.site import Site
from graphcheck.rewriting.builder import Builder, Cannot, SiteBuilder
from graphcheck.rewriting.common import to_output
from graphcheck.rewriting.forms import OWN, forms_of, may_be


def apply(
    model: ir.Model, site: Site, to: str, replaced: dict[ir.Value, ir.Value], max_rank: int | None = None
) -> list[ir.Node]:
    """Rewrite ``site`` of ``model`` to the form ``to``; returns the new nodes. Raises :class:`Cannot`, model unchanged.

    ``replaced`` maps outputs that earlier sites replaced to what took their place, and learns this one.
    """
    form = forms_of(site).get(to)
    if form is None:
        raise Cannot(f"a {site.kind} has no form {to}: it {may_be(site)}")
    source = replaced.get(site.input, site.input)
    builder = SiteBuilder(model, site, source, f"{site.kind.replace(' ', '-')}:{site.form}->{to}", max_rank)
    try:
        if (reason := form.why_not(site)) is not None:
            raise Cannot(reason)
        result, groups = form.build(builder)
        result = to_output(builder, result, groups)
        result = _fused_end(builder, result, replaced)
    except Cannot:
        discard(builder)
        raise
    except Exception as error:
        if to in OWN:
            raise
        discard(builder)
        raise Cannot(f"the form {to} of another package failed ({type(error).__name__}: {error})") from error
    _carry_metadata(site, builder.nodes)
    install(model, builder, site.output, result)
    replaced[site.output] = result
    return builder.nodes


def sweep(model: ir.Model) -> None:
    """Remove the main graph's nodes and initializers that no output needs; what a caller may give stays."""
    graph, live = model.graph, live_nodes(model, {})
    for node in reversed(list(graph)):
        if node not in live:
            graph.remove(node, safe=True)
    kept = {*canonical.callable_inputs(model), *graph.outputs}
    for value in list(graph.initializers.values()):
        if value not in kept and not value.uses():
            unregister(model, value)


def _fused_end(b: SiteBuilder, result: ir.Value, replaced: dict[ir.Value, ir.Value]) -> ir.Value:
    """The addition and activation of com.microsoft's fused nodes."""
    site = b.site
    if site.residual is not None:
        result = b.op("Add", [result, replaced.get(site.residual, site.residual)], b.dims[result])
    if site.activation is not None:
        name = site.activation.attr("activation")
        given = site.activation.attr("activation_params") or []
        if name == "LeakyRelu" and not given and site.activation.attr("activation_alpha") is not None:
            given = [site.activation.attr("activation_alpha")]
        names = {"LeakyRelu": ["alpha"], "Relu": [], "Sigmoid": [], "Tanh": []}.get(name)
        if names is None or len(given) > len(names):
            raise Cannot(f"its activation {name} has no plain counterpart here")
        result = b.op(name, [result], b.dims[result], **dict(zip(names, given, strict=False)))
    return result


def _carry_metadata(site: Site, nodes: list[ir.Node]) -> None:
    """The contraction's own metadata (the module that it came from) goes to the nodes that replace it."""
    for node in nodes:
        for key, value in site.node.metadata_props.items():
            node.metadata_props.setdefault(key, value)


def discard(b: Builder) -> None:
    """Take the builder's nodes off the values that they read."""
    for node in reversed(b.nodes):
        for at in range(len(node.inputs)):
            node.replace_input_with(at, None)


def install(model: ir.Model, b: Builder, old: ir.Value, new: ir.Value) -> None:
    """Put the builder's nodes before the producer of ``old``, and ``new``, with its name, in its place.

    Raises :class:`Cannot`, model unchanged, where ``old`` reads an input with a default that ``new`` would not.
    """
    graph, producer = model.graph, old.producer()
    assert producer is not None
    if (given := default_behind(model, old, {v for node in b.nodes for v in node.inputs})) is not None:
        discard(b)
        raise Cannot(f"its constant {given.name} is an input of the model with a default, which a caller may override", "GC302")
    for value in b.constants:
        if value.uses():
            register(model, value)
    graph.insert_before(producer, b.nodes)
    new.name, new.type, new.doc_string = old.name, old.type or new.type, old.doc_string
    if old.shape is not None:
        new.shape = old.shape
    new.metadata_props.update(old.metadata_props)
    new.meta.update(old.meta)
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def register(model: ir.Model, value: ir.Value) -> None:
    """Add an initializer, and list it where all are listed."""
    model.graph.register_initializer(value)
    if canonical.lists_initializers(model):
        model.graph.inputs.append(value)


def unregister(model: ir.Model, value: ir.Value) -> None:
    """Take an initializer out, of the list of all as well; an input with a default becomes one without."""
    del model.graph.initializers[value.name or ""]
    if canonical.lists_initializers(model) and value in model.graph.inputs:
        model.graph.inputs.remove(value)


def default_behind(model: ir.Model, value: ir.Value, kept: Collection[ir.Value | None] = ()) -> ir.Value | None:
    """An input with a default that ``value`` is computed from, not by way of ``kept``; None where there is none."""
    defaults = {v for v in canonical.callable_inputs(model) if v.name in model.graph.initializers}.difference(kept)
    read = walk.back([value], lambda v: () if v in kept else reads(v)) if defaults else ()
    return next((v for v in read if v in defaults), None)
