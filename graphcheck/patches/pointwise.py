"""Pointwise projections: a MatMul, Gemm or 1x1 Conv over channels, told as a site whose kernel is one along every axis."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from graphcheck.kernel.terms.maps import Map
from graphcheck.patches.analyze import Analyzed, guarded, site_of
from graphcheck.patches.contraction import Contraction, Traced, contractions
from graphcheck.patches.liveness import is_free, mark_blocked
from graphcheck.patches.product import Product
from graphcheck.patches.reading import Reading, candidates, direct, product_of, reading_of, window_of
from graphcheck.patches.site import ONE_SIZE, Refusal, Site
from graphcheck.patches.window import Axis, NoWindow, WindowMap

_SPATIAL = 3  # axes that a Conv can have in most runtimes


def with_pointwise(seen: Analyzed) -> Analyzed:
    """What was seen, with the pointwise projections among the sites, in graph order.

    A projection begins where the movement before it begins, unless that lies inside an earlier site or is needed elsewhere.
    """
    met = contractions(seen.runs)
    known = {site.node: site for site in seen.analysis.everything}
    sites: list[Site] = []
    refusals: list[Refusal] = []
    inner: set[ir.Value] = set()
    for node in seen.model.graph:
        found = known.get(node) or (_site(met[node], inner) if node in met else None)
        if isinstance(found, Refusal):
            own = _site(met[node], (), start=met[node].first.values[0])
            found = own if isinstance(own, Site) else found
        if isinstance(found, Site):
            sites.append(found)
            inner |= {v for n in found.region for v in n.outputs if v is not found.output}
        elif found is not None:
            refusals.append(found)
    marked = mark_blocked(seen.model, sites)
    open_ = {s.node: _unblocked(seen.model, s, met[s.node], marked) for s in marked if s.blocked and s.pointwise}
    if any(open_.values()):
        marked = mark_blocked(seen.model, [open_.get(site.node) or site for site in sites])
    names = {site.name for site in sites}
    left = [refusal for refusal in (*seen.analysis.refusals, *refusals) if refusal.node not in names]
    return dataclasses.replace(seen, analysis=seen.analysis.holding(marked, left))


def _unblocked(model: ir.Model, site: Site, contraction: Contraction, others: Sequence[Site]) -> Site | None:
    """The projection of the node's own operand, with an earlier end, where that leaves alone what is needed elsewhere."""
    own = contraction.first.values[0]
    for at in range(len(contraction.ends), 0, -1):
        for start in dict.fromkeys((site.input, own)):
            found = _site(contraction, (), ends=contraction.ends[:at], start=start)
            if isinstance(found, Site) and is_free(model, found, others):
                return found
    return None


def _site(
    contraction: Contraction, inner: Collection[ir.Value], *,
    ends: Sequence[ir.Value] | None = None, start: ir.Value | None = None,
) -> Site | Refusal | None:  # fmt: skip
    """The projection that a contraction is; None if it is none."""
    return guarded(functools.partial(_projection, inner=inner, ends=ends, start=start), contraction)


def _projection(
    contraction: Contraction, inner: Collection[ir.Value], ends: Sequence[ir.Value] | None, start: ir.Value | None
) -> Site | Refusal | None:
    readings = [_read(traced, inner, start) for traced in contraction.traced]
    whole = [reading for reading in readings if reading is not None]
    if len(whole) < len(readings):
        return None
    if len(whole) < 2 and not contraction.whole:
        return Refusal(ONE_SIZE, contraction.name)
    found = site_of(contraction, whole, contraction.ends if ends is None else ends)
    return dataclasses.replace(found, pattern=None, notes=()) if isinstance(found, Site) else found


def _read(traced: Traced, inner: Collection[ir.Value], start: ir.Value | None) -> Reading | None:
    """The projection over the first tensor that it can begin at, or over ``start``; None if the kernel is not one."""
    if math.prod(traced.kernel_shape) != 1:
        return None
    found = product_of(traced)
    if found is not None and found.shape[0] > 1 and not traced.is_conv:
        said = f"it multiplies by {found.shape[0]} matrices, one for each element of a batch"
        raise NoWindow(f"{said}, and a Conv has one weight for all", "GC307")
    reason: NoWindow | None = None
    for value, seen in _starts(found, traced) if found is not None else ():
        if value in inner or (start is not None and value is not start):
            continue
        try:
            reading = _reading(value, seen, found, traced)  # type: ignore[arg-type]
        except NoWindow as error:
            reason = error
            continue
        if reading is not None:
            return reading
    if traced.is_conv:
        return direct(traced)  # with padding, say
    if reason is not None:
        raise reason
    return None


def _starts(found: Product, traced: Traced) -> Iterator[tuple[ir.Value, Map]]:
    """Tensors that the projection may begin at, each with the map of its rows; the node's own operand last."""
    trial, maps = traced.trial, traced.trial.terms.maps
    if len(trial.sources(traced.data.cls)) == 1:
        source, moved = trial.index_of(traced.data.cls)
        table = maps.compose(moved, found.columns)
        assert table is not None
        yield from candidates(source, table, traced)
    yield traced.values[0], found.columns


def _reading(value: ir.Value, seen: Map, found: Product, traced: Traced) -> Reading | None:
    """The reading over ``value``; None where the rows take more than the channels of one place."""
    window = window_of(seen, found.shape, traced.trial.shape(value), traced.trial)
    axes = _axes(window)
    channels = math.prod(axis.size for axis in axes if axis.role == "channel")
    rows = math.prod(axis.count for axis in axes)
    if window.is_window or channels != found.shape[0] * found.shape[2] or rows != found.shape[1]:
        return None
    if any(
        axis.origin or not axis.count * axis.stride - axis.size < axis.stride for axis in axes if axis.role != "channel"
    ):
        return None
    reading = reading_of(value, dataclasses.replace(window, axes=axes), found, traced)
    key = ("index", id(found), seen.key, traced.trial.shape(value))  # blocks of one shape share theirs
    index: np.ndarray = traced.trial.algebra.memo.setdefault(key, reading.weight_index)
    return dataclasses.replace(reading, weight_index=index)


def _axes(window: WindowMap) -> tuple[Axis, ...]:
    """The window's axes: one batch, and behind it up to three that a Conv's kernel of one runs over."""
    batch = [at for at, axis in enumerate(window.axes) if axis.role == "batch"]
    room = _SPATIAL - sum(axis.role == "spatial" for axis in window.axes)
    turned = batch[max(1, len(batch) - room) :] if room > 0 else []
    return tuple(
        dataclasses.replace(axis, role="spatial") if at in turned else axis for at, axis in enumerate(window.axes)
    )
