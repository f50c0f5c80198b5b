"""Per-channel normalization before the patches (x - mean) / std, taken into the weight and the bias on request.

Unlike every other rewrite this one computes new weights: w * a and b + sum(w * c) in float64, rounded once to the
weight's type, so its result is ``within-rounding`` and never ``proved``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphcheck.codes import Coded
from graphcheck.files import model as model_
from graphcheck.graphs import walk
from graphcheck.patches.analyze import Analyzed
from graphcheck.patches.liveness import live_nodes
from graphcheck.patches.site import Refusal, Site
from graphcheck.patches.trace import Trial
from graphcheck.rewriting.builder import pick

CONSTANT = "graphcheck.constant"  # on a node, in memory: position and name of its constant operand


@dataclasses.dataclass(frozen=True, eq=False)
class Affine:
    """``value = source * scale + shift``, both [channels] in float64; ``nodes`` compute it."""

    source: ir.Value
    scale: np.ndarray
    shift: np.ndarray
    nodes: tuple[ir.Node, ...]


def fold(seen: Analyzed, named: Sequence[str] | None = None) -> tuple[tuple[Site, ...], tuple[Refusal, ...]]:
    """The sites, with the normalization before them taken in where that is legal; and why it is not elsewhere."""
    sites = seen.analysis.sites
    made = [site if site.ordinary and not named else _folded(seen.model, site, seen.runs[0]) for site in sites]
    refusals = tuple(each for each in made if isinstance(each, Refusal))
    return tuple(b if isinstance(b, Site) else a for a, b in zip(sites, made, strict=True)), refusals


def _left(why: str, node: str) -> Refusal:
    return Refusal(Coded(f"the normalization is not folded: {why}", "GC310"), node)


def _folded(model: ir.Model, site: Site, run: Trial) -> Site | Refusal:
    before = affine(site, run)
    if before is None:
        return site
    first = model_.node_name(before.nodes[0])
    if site.cast:
        return _left("a Cast stands between it and the patches", first)
    if site.summed is not None:
        return _left("the weight is summed over the copies of a repeated image", first)
    padded = any(a.begin > 0 or a.end > 0 for a in site.spatial)
    if padded and bool((before.shift != 0).any()):
        return _left("the padding behind it is zero, and a constant added before it is not", first)
    live = live_nodes(model, {site.output: [before.source]})
    if any(node in live for node in before.nodes):
        return _left("it is used elsewhere", first)
    dtype = site.weight.dtype
    weight = pick(site.weight.reshape(-1), site.weight_index, 0).astype(np.float64)
    per, groups = weight.shape[1], site.groups
    shape = (groups, -1, per, *[1] * (weight.ndim - 2))
    grouped = weight.reshape(groups, -1, *weight.shape[1:])
    scale, shift = (v.reshape(groups, 1, per, *shape[3:]) for v in (before.scale, before.shift))
    bias = (grouped * shift).reshape(site.out_channels, -1).sum(axis=1) * site.alpha
    bias = bias if site.bias is None else bias + site.bias.astype(np.float64)
    new = (grouped * scale).reshape(weight.shape)
    return dataclasses.replace(
        site,
        input=before.source,
        region=(*before.nodes, *site.region),
        weight=new.astype(dtype),
        weight_index=np.arange(new.size).reshape(new.shape),
        bias=bias.astype(dtype),
        quantized=None,
        folded=site,
    )


def affine(site: Site, run: Trial) -> Affine | None:
    """The chain of Sub, Div, Mul and Add with per-channel constants behind a site's input; None if there is none."""
    channels = site.in_channels
    scale, shift = np.ones(channels), np.zeros(channels)

    def further(node: ir.Node) -> ir.Value | None:
        nonlocal scale, shift
        step = _step(node, site, run)
        if step is None:
            return None
        value, times, plus = step
        at = 0 if value is node.inputs[1] else 1
        node.meta[CONSTANT] = (at, node.inputs[at].name)  # type: ignore[union-attr]
        scale, shift = scale * times, scale * plus + shift
        return value

    *passed, source = walk.chain(site.input, further)
    return Affine(source, scale, shift, tuple(reversed(walk.makers(passed)))) if passed else None


def _step(node: ir.Node, site: Site, run: Trial) -> tuple[ir.Value, np.ndarray, np.ndarray] | None:
    """(operand, factor, summand) of one node; None if it is no per-channel step."""
    if node.op_type not in ("Sub", "Div", "Mul", "Add"):
        return None
    (a, b), op_type = node.inputs, node.op_type
    one, zero = np.ones(site.in_channels), np.zeros(site.in_channels)
    for data, other, first in ((a, b, True), (b, a, False)):
        if data is None or other is None or run.tensor(data) is None:
            continue
        constant = _per_channel(run.values.get(other), site)
        if constant is None or (op_type == "Div" and (not first or bool((constant == 0).any()))):
            continue
        match op_type:
            case "Add":
                return data, one, constant
            case "Sub":
                return (data, one, -constant) if first else (data, -one, constant)
            case "Mul":
                return data, constant, zero
            case _:
                return data, 1 / constant, zero
    return None


def _per_channel(value: object, site: Site) -> np.ndarray | None:
    """A constant spread over the site's channels, in float64; None if it varies along other axes."""
    if not isinstance(value, np.ndarray) or value.ndim > len(site.axes):
        return None
    shape = (1,) * (len(site.axes) - value.ndim) + value.shape
    if any(n != 1 and site.axes[i].role != "channel" for i, n in enumerate(shape)):
        return None
    sizes = [axis.size or 1 if axis.role == "channel" else 1 for axis in site.axes]
    return np.broadcast_to(value.astype(np.float64).reshape(shape), sizes).reshape(-1)
