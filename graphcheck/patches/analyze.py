"""Finds the patch embeddings of a model by the window map."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphcheck.errors import Oversized
from graphcheck.files import model as model_
from graphcheck.kernel.ops.algebra import Value
from graphcheck.kernel.ops.node import Node
from graphcheck.patches import between, merge, output
from graphcheck.patches.liveness import mark_blocked
from graphcheck.patches.quantized import quantized
from graphcheck.patches.reading import Reader, Reading
from graphcheck.patches.site import Analysis, Refusal, Site
from graphcheck.patches.trace import Trial, trials
from graphcheck.patches.window import NoWindow

Met = tuple[Node, tuple[Value, ...]]


def find(model: ir.Model) -> Analysis:
    """The patch embeddings of a model's main graph, and the contractions fed by movement that are none, with reasons.

    The model is traced where its dims are static once, else at two or three sizes, which must show the same geometry.
    Contractions inside subgraphs are not looked at, nor those inside model-local functions, which
    :func:`graphcheck.patches.preparing.prepared` puts into the main graph.
    """
    runs = trials(model)
    readers = [Reader(run) for run in runs]
    met: list[dict[ir.Node, Met]] = [
        {node: (resolved, inputs) for node, resolved, inputs in run.products} for run in runs
    ]
    sites: list[Site] = []
    refusals: list[Refusal] = []
    mixed = {node: (resolved, inputs) for node, resolved, inputs in runs[0].computed}
    for node in model.graph:
        if node in mixed:
            unknown = between.unknown_weight(node, *mixed[node], readers[0])
            refusals += [unknown] if unknown is not None else []
        if node not in met[0]:
            continue
        try:
            site = _site(node, runs, readers, met)
        except NoWindow as error:
            refusals.append(Refusal(str(error), model_.node_name(node)))
            continue
        except (ValueError, IndexError, ZeroDivisionError) as error:  # what no runtime would take: a stride of 0, say
            refusals.append(Refusal(f"it breaks the rules of {node.op_type}: {error}", model_.node_name(node)))
            continue
        except Oversized as error:
            refusals.append(Refusal(error.reason, model_.node_name(node)))
            continue
        if isinstance(site, Refusal):
            refusals.append(site)
        elif site is not None:
            sites.append(site)
    marked = mark_blocked(model, sites)
    blocked = [site for site in marked if site.blocked is not None]
    open_ = {site.node: _unblocked(model, site, runs, readers, met) for site in blocked}
    if any(open_.values()):
        marked = mark_blocked(model, [open_.get(site.node) or site for site in marked])
    return Analysis(marked, tuple(refusals))


def _unblocked(
    model: ir.Model, site: Site, runs: list[Trial], readers: list[Reader], met: list[dict[ir.Node, Met]]
) -> Site | None:
    """The site with an earlier end, or a Conv over its own operand, where that leaves alone what is needed elsewhere."""
    ends = _ends(site.node, runs[0], met)
    while site.output in ends[1:]:
        ends = ends[: ends.index(site.output)]
        shorter = _site(site.node, runs, readers, met, ends=ends)
        if not isinstance(shorter, Site):
            break
        site = shorter
        if mark_blocked(model, [site])[0].blocked is None:
            return site
    if "Conv" in site.node.op_type and not site.direct:
        found = _site(site.node, runs, readers, met, as_it_is=True)
        return found if isinstance(found, Site) else None
    return None


def _ends(node: ir.Node, run: Trial, met: list[dict[ir.Node, Met]]) -> list[ir.Value]:
    """Where a site of this contraction may end, the node's own output first."""
    resolved, inputs = met[0][node]
    fused = resolved.op_type in ("FusedConv", "FusedGemm") and (resolved.attr("activation") or len(inputs) > 3)
    return [node.outputs[0]] if fused else output.behind(node.outputs[0], run)


def site_at(model: ir.Model, node: ir.Node) -> Site | None:
    """The patch embedding that one contraction ends, its output being the node's own; None if it is none."""
    runs = trials(model)
    met: list[dict[ir.Node, Met]] = [{n: (resolved, inputs) for n, resolved, inputs in run.products} for run in runs]
    if node not in met[0]:
        return None
    try:
        site = _site(node, runs, [Reader(run) for run in runs], met, ends=node.outputs[:1])
    except NoWindow:
        return None
    return mark_blocked(model, [site])[0] if isinstance(site, Site) else None


def _site(
    node: ir.Node,
    runs: list[Trial],
    readers: list[Reader],
    met: list[dict[ir.Node, Met]],
    *,
    as_it_is: bool = False,
    ends: Sequence[ir.Value] | None = None,
) -> Site | Refusal | None:
    seen: list[tuple[Trial, Reading]] = []
    for at, (run, reader) in enumerate(zip(runs, readers, strict=True)):
        if node not in met[at]:
            continue
        reading = reader.read(node, *met[at][node], as_it_is=as_it_is)
        if reading is None:
            return between.refusal(node, *met[at][node], reader) if at == 0 else None
        seen.append((run, reading))
    if len(runs) > 1 and len(seen) < 2:
        return Refusal(
            "it can be evaluated at one size only, so its geometry may depend on the size", model_.node_name(node)
        )
    ends = _ends(node, runs[0], met) if ends is None else ends
    return _build(node, *met[0][node], seen, ends, whole=len(seen) == len(runs))


def _build(
    node: ir.Node,
    resolved: Node,
    inputs: tuple[Value, ...],
    seen: list[tuple[Trial, Reading]],
    values: Sequence[ir.Value],
    *,
    whole: bool,
) -> Site | Refusal:
    first = seen[0][1]
    axes = merge.axes([reading for _, reading in seen])
    for _, reading in seen[1:]:
        merge.same(first, reading)
    result = node.outputs[0]
    filters = first.weight_index.shape[0]
    for value in reversed(values):
        ends = [_end(value, result, run, reading, filters) for run, reading in seen]
        biases = [end[1] for end in ends if end is not None]
        same = len({end[0] for end in ends if end is not None}) == 1 and len(biases) == len(ends) and _same_bias(biases)
        if same and (first.bias is None or biases[0] is None):  # a second bias stays where it is
            break
    else:
        return Refusal("its output mixes the windows in an order that is no transposition", model_.node_name(node))
    order, bias = ends[0]  # type: ignore[misc]
    index, groups = merge.with_groups(first)
    notes = () if whole else ("the original demands sizes that divide by the stride; a Conv crops instead",)
    region = merge.region(first.source, value, seen[0][0])
    site = Site(
        form=merge.form(node, first, seen[0][0]),
        pattern=merge.pattern(first, axes),
        axes=axes,
        layout=merge.layout_of(axes),
        groups=groups,
        in_channels=index.shape[1] * groups if not first.flattened else inputs[1].shape[1],  # type: ignore[union-attr]
        out_channels=filters,
        kernel_shape=first.kernel_shape,
        input=first.source,
        output=value,
        node=node,
        region=region,
        tensors=merge.tensors(region, [run for run, _ in seen]),
        weight_value=first.weight_value,
        weight=first.weight,
        weight_index=index,
        alpha=first.alpha,
        bias=first.bias if bias is None else bias.astype(first.weight.dtype),
        order=order,
        quantized=quantized(first.weight_value, _channel_of(index, first.weight.size), seen[0][0]),
        shape=output.shape_of(value, seen[0][0]),
        direct=first.direct,
        flattened=first.flattened,
        activation=resolved if resolved.attr("activation") else None,
        residual=node.inputs[3] if resolved.op_type == "FusedConv" and len(node.inputs) > 3 else None,
        notes=notes,
    )
    return dataclasses.replace(site, bias=_beta(site, resolved, first))


def _channel_of(index: np.ndarray, size: int) -> np.ndarray:
    """The out_channel that each element of the weight belongs to, -1 where it is not used."""
    channel = np.full(size + 1, -1)
    channel[index.reshape(index.shape[0], -1)] = np.arange(index.shape[0])[:, None]
    return channel[:size]


def _beta(site: Site, resolved: Node, first: Reading) -> np.ndarray | None:
    """Gemm's beta times its bias, in the declared type, as a runtime folds it."""
    beta = resolved.attr("beta", 1.0)
    if site.bias is None or first.bias is None or beta == 1.0 or "Gemm" not in resolved.op_type:
        return site.bias
    return np.asarray(np.asarray(beta, np.float32).astype(site.bias.dtype) * site.bias).astype(site.bias.dtype)


def _same_bias(biases: list[np.ndarray | None]) -> bool:
    given = [b for b in biases if b is not None]
    return not given or (len(given) == len(biases) and all(np.array_equal(b, given[0]) for b in given))


def _end(
    value: ir.Value, result: ir.Value, run: Trial, reading: Reading, filters: int
) -> tuple[tuple[tuple[int, ...], ...], np.ndarray | None] | None:
    """(order, bias [out_channels] or None) of a value behind the contraction; None if it is no end of a site."""
    found = output.seen(value, result, run)
    if found is None:
        return None
    index = reading.canonical[found.index]
    order = output.order_of(index, [*(axis.count for axis in reading.axes), filters], output.shape_of(value, run))
    if order is None:
        return None
    if found.bias is None:
        return order, None
    bias = output.per_channel(found.bias, index % filters, filters)
    return None if bias is None else (order, bias)
