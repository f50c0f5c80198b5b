"""Splits movement through tensors of many dims (window partition, pixel shuffle) into steps of few."""

from __future__ import annotations

import math

import onnx_ir as ir

from graphcheck import model as model_
from graphcheck.patches.regions import Region, find_regions, rank_of
from graphcheck.patches.site import Refusal
from graphcheck.patches.trace import Trial, trials
from graphcheck.rewriting.apply import discard, install, sweep
from graphcheck.rewriting.builder import Atom, Builder, Cannot, Dim, product

RULE = "movement-in-steps"


def limit_rank(model: ir.Model, rank: int) -> tuple[list[tuple[Region, list[ir.Node]]], list[Refusal]]:
    """Rewrite, in place, every movement region so that its tensors have ``rank`` dims at most.

    Returns what was rewritten, with the new nodes, and every tensor that is still over the limit with the reason.
    """
    runs = trials(model)
    regions, left = find_regions(model, runs, rank)
    for value in model.graph.inputs:
        if (dims := rank_of(value, runs[0])) > rank:
            left.append(Refusal(f"input {value.name} has {dims} dims where {rank} are allowed", value.name or ""))
    done: list[tuple[Region, list[ir.Node]]] = []
    for region in regions:
        try:
            done.append((region, _split(model, region, runs[0], rank)))
        except Cannot as error:
            left += [
                Refusal(f"tensor {v.name} is left: {error}", model_.node_name(n))
                for n in region.nodes[:1]
                for v in n.outputs
            ]
    if done:
        sweep(model)
    return done, left


def _split(model: ir.Model, region: Region, run: Trial, rank: int) -> list[ir.Node]:
    tensor = run.tensor(region.input)
    assert tensor is not None
    dynamic = {axis for size, axis in region.atoms if size is None}
    sizes = tuple(Dim(1, (Atom(i),)) if i in dynamic else Dim(n) for i, n in enumerate(tensor.shape))
    atoms = []
    for size, axis in region.atoms:
        rest = math.prod(n for n, a in region.atoms if a == axis and n is not None)
        atoms.append(Dim(size) if size is not None else Dim(1, (Atom(axis, 0, rest),)))
    dims = tuple(product(atoms[i] for i in group) for group in region.dims)
    builder = Builder(model, region.input, sizes, region.output.name or "moved", RULE, region.output.dtype, rank)
    try:
        result = builder.move(region.input, tuple(atoms), region.perm, dims)
    except Cannot:
        discard(builder)
        raise
    if not builder.nodes:
        raise Cannot("it moves nothing")
    install(model, builder, region.output, result)
    return builder.nodes
