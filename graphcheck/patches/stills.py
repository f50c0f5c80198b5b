"""Patch embeddings of a repeated image (a Conv3d whose frames are all one picture), with the weight summed over the copies.

The sums are additions that the original makes of products and the site of weights: equal over the reals, each rounded once.
"""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np

from graphcheck.patches.analyze import Analyzed, site_of
from graphcheck.patches.contraction import Contraction, Traced, contractions
from graphcheck.patches.liveness import mark_blocked
from graphcheck.patches.reading import REPEATED, Reading, candidates, product_of, reading_of, window_of
from graphcheck.patches.site import Site, Summed
from graphcheck.patches.window import NoWindow, WindowMap

_NOTE = "its windows hold each pixel several times: the weights of the copies are summed, each sum rounded once"


def with_stills(seen: Analyzed) -> Analyzed:
    """What was seen, with the patch embeddings of repeated images among the sites in place of their refusals."""
    refused = {refusal.node for refusal in seen.analysis.refusals if refusal.reason == REPEATED}
    found = {c.name: c for c in contractions(seen.runs).values() if c.name in refused}
    sites = [site for site in map(_site, found.values()) if site is not None]
    if not sites:
        return seen
    place = {node: at for at, node in enumerate(seen.model.graph)}
    everything = sorted((*seen.analysis.everything, *sites), key=lambda site: place[site.node])
    names = {site.name for site in sites}
    left = [refusal for refusal in seen.analysis.refusals if refusal.node not in names]
    return dataclasses.replace(seen, analysis=seen.analysis.holding(mark_blocked(seen.model, everything), left))


def _site(contraction: Contraction) -> Site | None:
    found = [_read(traced) for traced in contraction.traced]
    whole = [pair for pair in found if pair is not None]
    if len(whole) < len(found) or not contraction.whole:
        return None
    readings = [reading for reading, _ in whole]
    summed = dataclasses.replace(contraction, traced=tuple(reading.traced for reading in readings))
    with contextlib.suppress(NoWindow):
        site = site_of(summed, readings, contraction.ends)
        if isinstance(site, Site):
            notes = (*site.notes, _NOTE)
            return dataclasses.replace(site, form="stills", quantized=None, summed=whole[0][1], notes=notes)
    return None


def _read(traced: Traced) -> tuple[Reading, Summed] | None:
    """The window with each element once, over the sums of the weights that meet it; None if there is none."""
    trial, found = traced.trial, product_of(traced)
    if found is None or found.shape[0] != 1 or len(trial.sources(traced.data.cls)) != 1:
        return None
    maps, (_, rows, width) = trial.terms.maps, found.shape
    source, moved = trial.index_of(traced.data.cls)
    table = maps.compose(moved, found.columns)
    assert table is not None
    for value, seen in candidates(source, table, traced):
        with contextlib.suppress(NoWindow):
            copies = _copies(window_of(seen, found.shape, traced.trial.shape(value), traced.trial))
            if copies is None:
                continue
            columns, places = (m.index.reshape(rows, width)[:, copies[:, 0]] for m in (found.columns, seen))
            terms = found.kernel[0][:, copies]  # [filters, columns, copies]
            sums = traced.weight.reshape(-1)[terms].astype(np.float64).sum(axis=2)
            weight = sums.astype(traced.weight.dtype)
            once = dataclasses.replace(
                found,
                columns=maps.intern(columns.reshape(-1)),
                shape=(1, rows, len(copies)),
                kernel=np.arange(weight.size).reshape(1, *weight.shape),
            )
            window = window_of(maps.intern(places.reshape(-1)), once.shape, trial.shape(value), trial)
            inputs = list(traced.inputs)
            inputs[traced.pair[1]] = weight
            summed = Summed(terms.reshape(weight.size, -1), np.array_equal(weight.astype(np.float64), sums))
            if window.is_window:
                return reading_of(value, window, once, dataclasses.replace(traced, inputs=tuple(inputs))), summed
    return None


def _copies(window: WindowMap) -> np.ndarray | None:
    """int [elements of a window, copies], the columns that show each; None unless each stands there equally often."""
    _, first, copy = np.unique(window.offsets, axis=1, return_index=True, return_inverse=True)
    times = window.offsets.shape[1] // len(first)
    if times < 2 or not bool(window.used.all()) or not bool((np.bincount(copy.reshape(-1)) == times).all()):
        return None
    return np.argsort(copy.reshape(-1), kind="stable").reshape(-1, times)[np.argsort(first)]
