"""Patch embeddings inside model-local functions: those functions, and no others, are put into the main graph first."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from graphcheck.patches import analyze
from graphcheck.patches.product import CONTRACTIONS

_FROM = "graphcheck.function"  # on a node while it is found out which function it came from

Identifier = tuple[str, str, str]


def inlined(model: ir.Model, *, whole: bool = False) -> ir.Model:
    """A clone of the model with the functions that hold a patch embedding (``whole``: with all of them) inlined.

    The model itself comes back if none does. A function that cannot be inlined (another opset version than the model's)
    is left, as is what it holds.
    """
    if whole:
        return (_inline(model, {f.identifier() for f in model.functions.values()}) if model.functions else None) or model
    holding = {f.identifier() for f in model.functions.values() if any(_contracts(node) for node in f.all_nodes())}
    holding = _with_callers(model, holding)
    if not holding:
        return model
    trial = _inline(model, holding, mark=True)
    if trial is None:
        return model
    sites = analyze.find(trial).sites
    wanted = {site.node.metadata_props.get(_FROM) for site in sites if not site.ordinary} - {None}
    chosen = {identifier for identifier in holding if _key(identifier) in wanted}
    return (_inline(model, _with_callers(model, chosen)) if chosen else None) or model


def _inline(model: ir.Model, chosen: set[Identifier], *, mark: bool = False) -> ir.Model | None:
    work = model.clone()
    for function in work.functions.values() if mark else ():
        for node in function.all_nodes():
            node.metadata_props[_FROM] = _key(function.identifier())
    with contextlib.suppress(ValueError, ir.passes.InvariantError, ir.passes.PassError):
        InlinePass(criteria=lambda function: function.identifier() in chosen)(work)
        return work
    return None


def _contracts(node: ir.Node) -> bool:
    return ("" if node.domain == "ai.onnx" else node.domain, node.op_type) in CONTRACTIONS


def _with_callers(model: ir.Model, chosen: Iterable[Identifier]) -> set[Identifier]:
    """The functions, and those that call them, however deep."""
    found = set(chosen)
    while True:
        calling = {
            f.identifier() for f in model.functions.values() if any(n.op_identifier() in found for n in f.all_nodes())
        }
        if calling <= found:
            return found
        found |= calling


def _key(identifier: Identifier) -> str:
    return "\n".join(identifier)
