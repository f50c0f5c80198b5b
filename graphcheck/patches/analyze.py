"""Finds the patch embeddings of a model by the window map."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from graphcheck.codes import Coded
from graphcheck.errors import Oversized
from graphcheck.files import model as model_
from graphcheck.patches import merge, unembedding
from graphcheck.patches.contraction import Contraction, Traced, contractions
from graphcheck.patches.ends import order_of, per_channel, shown
from graphcheck.patches.liveness import is_free, mark_blocked
from graphcheck.patches.reading import Reading, read
from graphcheck.patches.refusals import normalization_between, weight_not_constant
from graphcheck.patches.site import ONE_SIZE, Analysis, Refusal, Site, Unembedding
from graphcheck.patches.stored_weight import stored_integers
from graphcheck.patches.trace import Trial, trials
from graphcheck.patches.window import NoWindow


@dataclasses.dataclass(frozen=True, eq=False)
class Analyzed:
    """A model, what was found in it, and the trials that showed it: all that later steps need, so that none looks again."""

    model: ir.Model
    analysis: Analysis
    runs: tuple[Trial, ...]

    def runs_of(self, model: ir.Model) -> tuple[Trial, ...] | None:
        """The trials, if they are of this very model."""
        return self.runs if self.model is model else None

    def clone(self) -> Analyzed:
        """The same of a clone of the model, to be rewritten in place; it keeps no trials."""
        model = self.model.clone()
        nodes = dict(zip(self.model.graph, model.graph, strict=True))
        values = dict(zip(self.model.graph.inputs, model.graph.inputs, strict=True))
        values |= {v: model.graph.initializers[name] for name, v in self.model.graph.initializers.items()}
        values |= {v: w for node, other in nodes.items() for v, w in zip(node.outputs, other.outputs, strict=True)}
        sites = tuple(site.moved(nodes, values) for site in self.analysis.sites)
        back = tuple(site.moved(nodes, values) for site in self.analysis.unembeddings)
        return Analyzed(model, dataclasses.replace(self.analysis, sites=sites, unembeddings=back), ())


Look = Callable[[Contraction], Site | Refusal | None]


def find(model: ir.Model) -> Analysis:
    """The patch embeddings of a model's main graph, and the contractions fed by movement that are none, with reasons."""
    return analyzed(model).analysis


def analyzed(model: ir.Model) -> Analyzed:
    """What is found in a model's main graph.

    The model is traced where its dims are static once, else at two or three sizes, which must show the same geometry.
    Contractions inside subgraphs are not looked at, nor those inside model-local functions, which
    :func:`graphcheck.patches.preparing.prepared` puts into the main graph.
    """
    runs = tuple(trials(model))
    met = contractions(runs)
    upward = met | contractions(runs, transposed=True)
    sites: list[Site] = []
    refusals = [Refusal(Coded(reason, "GC304"), name) for name, reason, limited in runs[0].lost if limited]
    for node in model.graph:
        if node in runs[0].computed:
            traced = Traced(runs[0], node, *runs[0].computed[node])
            unknown = weight_not_constant(traced) or unembedding.weight_not_constant(traced)
            refusals += [unknown] if unknown is not None else []
        found = [guarded(_whole_site, met[node])] if node in met else []
        if node in upward and not any(isinstance(site, Site) and not site.ordinary for site in found):
            inner = {v for site in sites for n in site.region for v in n.outputs} - {site.output for site in sites}
            back = guarded(functools.partial(unembedding.unembedding, inner=inner), upward[node])
            found = [back] if isinstance(back, Site) else [*found, back]
        sites += [site for site in found if isinstance(site, Site)]
        refusals += [refusal for refusal in found if isinstance(refusal, Refusal)]
    marked = mark_blocked(model, sites)
    blocked = [site for site in marked if site.blocked is not None]
    open_ = {site.node: _unblocked(model, site, upward[site.node], marked) for site in blocked}
    if any(open_.values()):
        marked = mark_blocked(model, [open_.get(site.node) or site for site in marked])
    rank = model_.largest_rank(runs[0].values.values())
    return Analyzed(model, Analysis((), (), largest_rank=rank).holding(marked, refusals), runs)


def site_at(model: ir.Model, node: ir.Node) -> Site | None:
    """The patch embedding that one contraction ends, its output being the node's own; None if it is none."""
    contraction = contractions(trials(model)).get(node)
    try:
        site = None if contraction is None else _site(contraction, node.outputs[:1])
    except NoWindow:
        return None
    return mark_blocked(model, [site])[0] if isinstance(site, Site) else None


def _whole_site(contraction: Contraction) -> Site | Refusal | None:
    return _site(contraction, contraction.ends)


def guarded(look: Look, contraction: Contraction) -> Site | Refusal | None:
    """What ``look`` says of a contraction: its site, or why it has none, what its operator forbids included; or None."""
    try:
        return look(contraction)
    except NoWindow as error:
        return Refusal(error.reason, contraction.name)
    except (ValueError, IndexError, ZeroDivisionError):  # what no runtime would take: a stride of 0, say
        reason = f"its attributes, or the shapes of its operands, break the rules of {contraction.node.op_type}"
    except Oversized as error:
        reason = error.reason
    return Refusal(Coded(reason, "GC304"), contraction.name)


def _unblocked(model: ir.Model, site: Site, contraction: Contraction, others: Sequence[Site]) -> Site | None:
    """The site with an earlier end, or a Conv over its own operand, where that leaves alone what is needed elsewhere."""
    if isinstance(site, Unembedding):
        return _unblocked_back(model, site, contraction, others)
    ends = contraction.ends
    while site.output in ends[1:]:
        ends = ends[: ends.index(site.output)]
        shorter = _site(contraction, ends)
        if not isinstance(shorter, Site):
            break
        site = shorter
        if is_free(model, site, others):
            return site
    if contraction.first.is_conv and not site.direct:
        found = _site(contraction, contraction.ends, as_it_is=True)
        return found if isinstance(found, Site) else None
    return None


def _unblocked_back(
    model: ir.Model, site: Unembedding, contraction: Contraction, others: Sequence[Site]
) -> Site | None:
    """The un-embedding with an earlier end, or from its own operand, likewise."""
    for near, before in ((False, site.output), (True, None)):
        while isinstance(found := unembedding.unembedding(contraction, (), near=near, before=before), Unembedding):
            if is_free(model, found, others):
                return found
            before = found.output
    return None


def _site(contraction: Contraction, ends: Sequence[ir.Value], *, as_it_is: bool = False) -> Site | Refusal | None:
    """The site that ends at the last of ``ends`` that it can end at."""
    readings: list[Reading] = []
    for traced in contraction.traced:
        reading = read(traced, as_it_is=as_it_is)
        if reading is None:
            return normalization_between(traced) if traced is contraction.first else None
        readings.append(reading)
    if len(readings) < 2 and not contraction.whole:
        return Refusal(ONE_SIZE, contraction.name)
    if contraction.first.is_conv and merge.with_groups(readings[0])[1] < contraction.first.node.attr("group", 1):
        own = _site(contraction, ends, as_it_is=True)  # channels were shuffled, so that its groups are none of the input
        if isinstance(own, Site):
            return own
    return site_of(contraction, readings, ends)


def site_of(contraction: Contraction, readings: Sequence[Reading], ends: Sequence[ir.Value]) -> Site | Refusal:
    """The site of one contraction as it was read in every trial, which ends at the last of ``ends`` that it can end at."""
    first, node = readings[0], contraction.first.node
    axes = merge.axes(readings)
    for reading in readings[1:]:
        merge.same(first, reading)
    for end in reversed(ends):
        found = _ending(end, readings)
        if found is not None and (first.bias is None or found[1] is None):  # a second bias stays where it is
            break
    else:
        return Refusal(_OUT_OF_ORDER, contraction.name)
    order, bias = found
    index, groups = merge.with_groups(first)
    trial, weight = first.traced.trial, first.traced.weight
    region = merge.region(first.source, end, trial)
    return Site(
        form=merge.form(first),
        pattern=merge.pattern(first, axes),
        axes=axes,
        layout=merge.layout_of(axes),
        groups=groups,
        in_channels=contraction.first.inputs[1].shape[1] if first.flattened else index.shape[1] * groups,  # type: ignore[union-attr]
        out_channels=first.filters,
        kernel_shape=first.kernel_shape,
        input=first.source,
        output=end,
        node=contraction.node,
        region=region,
        tensors=merge.tensors(region, [reading.traced.trial for reading in readings]),
        weight_value=first.traced.values[1],
        weight=weight,
        weight_index=index,
        alpha=first.alpha,
        bias=first.bias if bias is None else bias.astype(weight.dtype),
        order=order,
        quantized=stored_integers(first.traced.values[1], index, trial),
        shape=trial.shape(end),
        direct=first.direct,
        own_kernel=_sizes(contraction.first.kernel_shape) == _sizes(first.kernel_shape),
        flattened=first.flattened,
        cast=trial.dtype(first.source) != first.traced.data.dtype,
        activation=node if node.attr("activation") else None,
        residual=contraction.node.inputs[3] if node.op_type == "FusedConv" and len(contraction.node.inputs) > 3 else None,
        notes=() if contraction.whole else (_DEMANDS,),
    )


def _sizes(kernel_shape: Sequence[int]) -> list[int]:
    """Of a kernel, whatever the order of its axes, and whether some of them are only written."""
    return sorted(size for size in kernel_shape if size > 1)


_OUT_OF_ORDER = Coded("its output orders the windows in a way that no transposition does", "GC301")
_DEMANDS = "the original demands sizes that divide by the stride; a Conv crops instead"
Ending = tuple[tuple[tuple[int, ...], ...], np.ndarray | None]  # (order, bias [out_channels] or None)


def _ending(value: ir.Value, readings: Sequence[Reading]) -> Ending | None:
    """How a value shows the contraction's result, alike in every reading; None if it is no end of a site."""
    found = [end for reading in readings if (end := _end(value, reading)) is not None]
    same = len(found) == len(readings) and len({order for order, _ in found}) == 1
    return found[0] if same and _same_bias([bias for _, bias in found]) else None


def _same_bias(biases: list[np.ndarray | None]) -> bool:
    given = [b for b in biases if b is not None]
    return not given or (len(given) == len(biases) and all(np.array_equal(b, given[0]) for b in given))


def _end(value: ir.Value, reading: Reading) -> Ending | None:
    """(order, bias) of a value behind the contraction; None if it is no end of a site."""
    trial, filters = reading.traced.trial, reading.filters
    found = shown(value, reading.traced.source.outputs[0], trial)
    if found is None:
        return None
    maps = trial.terms.maps
    index = maps.compose(reading.canonical, found.index)
    assert index is not None
    order = order_of(index, [*(axis.count for axis in reading.axes), filters], trial.shape(value), maps)
    if order is None:
        return None
    if found.bias is None:
        return order, None
    bias = per_channel(found.bias, index, filters, maps)
    return None if bias is None else (order, bias)
