"""What is done to a model before its patch embeddings are looked for: functions inlined, Q/DQ pairs out of the way.

QuantizeLinear and DequantizeLinear with one scale commute with movement, so a pair between a patchify and its projection
can stand before the patchify as well, where it hides nothing. What commutes is proved with the rest of the rewrite.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import onnx_ir as ir

from graphcheck.files import model as model_
from graphcheck.graphs import walk
from graphcheck.patches.analyze import Analyzed, analyzed
from graphcheck.patches.inlining import inlined
from graphcheck.patches.pointwise import with_pointwise
from graphcheck.patches.shuffles import with_movement
from graphcheck.patches.site import SCHEMA, Refusal
from graphcheck.patches.sizes import sizes
from graphcheck.patches.stills import with_stills

_MOVES = frozenset({"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity"})


def prepared(
    model: ir.Model, *, whole: bool = False, pointwise: bool = False, stills: bool = False, movement: bool = False
) -> Analyzed:
    """The model, or a clone in which more patch embeddings can be seen, analyzed.

    With ``pointwise`` its projections are sites too, with ``stills`` the patch embeddings of repeated images; with
    ``movement`` the analysis tells the movement between pixels and channels.
    """
    seen = _prepared(model, whole=whole or pointwise)
    seen = with_stills(seen) if stills else seen
    seen = with_pointwise(seen) if pointwise else seen
    return with_movement(seen) if movement else seen


def _prepared(model: ir.Model, *, whole: bool) -> Analyzed:
    seen, inside = inlined(model, whole=whole)
    seen = _with(seen, inside)
    blockers = {r.node for r in seen.analysis.refusals if r.reason.startswith("QuantizeLinear stands between")}
    if not blockers:
        return seen
    hoisted = seen.model.clone()
    done = [_hoist(node) for node in list(hoisted.graph) if model_.node_name(node) in blockers]
    if not any(done):
        return seen
    hoisted.graph.sort()
    again = _with(analyzed(hoisted), inside)
    return again if len(again.analysis.everything) > len(seen.analysis.everything) else seen


def _with(seen: Analyzed, more: tuple[Refusal, ...]) -> Analyzed:
    analysis = dataclasses.replace(seen.analysis, refusals=(*seen.analysis.refusals, *more))
    return dataclasses.replace(seen, analysis=analysis)


def analyze_json(model: ir.Model, seen: Analyzed | None = None, *, digest: bool = True) -> dict[str, Any]:
    """``graphcheck analyze`` as plain data (schema graphcheck/analyze/1), without the drawn graph.

    ``seen`` is what :func:`prepared` gave for the model with ``movement``, if it has been asked; without ``digest`` its file
    is not hashed.
    """
    seen = seen or prepared(model, movement=True)
    analysis, run = seen.analysis, seen.runs[0]
    told = model_.summary(model, digest=digest, traced=analysis.largest_rank)
    return {"schema": SCHEMA, "model": told | {"sizes": sizes(seen.model, run.tracer.sizings, run.values)}} | analysis.to_json()


def _hoist(quantize: ir.Node) -> bool:
    """Put a pair before the movement that it follows; whether that was possible."""
    uses = quantize.outputs[0].uses()
    pair = next((use.node for use in uses), None)
    if len(uses) != 1 or pair is None or pair.op_type != "DequantizeLinear" or quantize.outputs[0].is_graph_output():
        return False
    if {*quantize.attributes, *pair.attributes} - {"axis"} or None in (*quantize.inputs[:2], *pair.inputs[:2]):
        return False
    if not all(_is_scalar(v) for node in (quantize, pair) for v in node.inputs[1:]) or pair.outputs[0].is_graph_output():
        return False
    *moved, at = walk.chain(quantize.inputs[0], lambda node: node.inputs[0] if _only_moves(node) else None)
    chain, result = walk.makers(moved), pair.outputs[0]
    if not chain:
        return False
    result.replace_all_uses_with(chain[0].outputs[0])
    quantize.replace_input_with(0, at)
    chain[-1].replace_input_with(0, result)
    stored = quantize.inputs[2] if len(quantize.inputs) > 2 else None
    quantize.outputs[0].dtype = ir.DataType.UINT8 if stored is None else stored.const_value.dtype  # type: ignore[union-attr]
    for value in (result, *(node.outputs[0] for node in chain)):  # of the scale's type, maybe not that of the input
        value.dtype = pair.inputs[1].const_value.dtype  # type: ignore[union-attr]
    quantize.outputs[0].shape = result.shape = at.shape
    return True


def _only_moves(node: ir.Node) -> bool:
    """Whether a node moves elements for one other node alone."""
    own = node.op_type in _MOVES and node.domain in ("", "ai.onnx")
    return own and len(node.outputs[0].uses()) == 1 and not node.outputs[0].is_graph_output()


def _is_scalar(value: ir.Value | None) -> bool:
    tensor = None if value is None else value.const_value
    return value is None or (tensor is not None and tensor.size == 1)
