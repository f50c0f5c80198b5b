"""Patch embeddings inside model-local functions: those functions, and no others, are put into the main graph first."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from graphcheck.codes import Coded
from graphcheck.files import model as model_
from graphcheck.patches.analyze import Analyzed, analyzed
from graphcheck.patches.product import CONTRACTIONS
from graphcheck.patches.site import Refusal

_FROM = "graphcheck.function"  # on a node while it is found out which function it came from,
_WAS = "graphcheck.node"  # and what it is called there

Identifier = tuple[str, str, str]


def inlined(model: ir.Model, *, whole: bool = False) -> tuple[Analyzed, tuple[Refusal, ...]]:
    """A clone of the model with the functions that hold a patch embedding (``whole``: with all of them) inlined, analyzed.

    The model itself comes back if none does. Beside it, why there is none in the functions that are left: what a
    contraction in them was refused for, or that they are of another opset version than the model and not looked into.
    """
    if not model.functions:
        return analyzed(model), ()
    holding = {f.identifier() for f in model.functions.values() if any(_contracts(node) for node in f.all_nodes())}
    foreign = {f.identifier() for f in model.functions.values() if _is_foreign(f, model)}
    reason = Coded("the function is of another opset version than the model, so it is not looked into", "GC311")
    left = tuple(Refusal(reason, _called(identifier)) for identifier in sorted(holding & foreign))
    if whole:
        everything = {f.identifier() for f in model.functions.values()} - foreign
        return analyzed(_inline(model, everything) or model), left
    holding = _with_callers(model, holding - foreign) - foreign
    trial = _inline(model, holding, mark=True) if holding else None
    if trial is None:
        return analyzed(model), left
    seen = analyzed(trial)
    wanted = {site.node.metadata_props.get(_FROM) for site in seen.analysis.everything if not site.ordinary} - {None}
    chosen = _with_callers(model, (identifier for identifier in holding if _key(identifier) in wanted)) - foreign
    inside = {model_.node_name(node): node.metadata_props for node in trial.graph if _FROM in node.metadata_props}
    keys = {_key(identifier) for identifier in chosen}
    for refusal in seen.analysis.refusals:
        was = inside.get(refusal.node, {})
        if was and was[_FROM] not in keys:
            left += (Refusal(refusal.reason, was[_WAS]),)
    if chosen == holding:
        _unmark(trial)
    else:
        seen = analyzed((_inline(model, chosen) if chosen else None) or model)
    return seen, tuple(dict.fromkeys(left))


def _inline(model: ir.Model, chosen: set[Identifier], *, mark: bool = False) -> ir.Model | None:
    work = model.clone()
    for function in work.functions.values() if mark else ():
        for node in function.all_nodes():
            node.metadata_props[_FROM] = _key(function.identifier())
            node.metadata_props[_WAS] = f"{_called(function.identifier())}/{model_.node_name(node)}"
    with contextlib.suppress(ValueError, ir.passes.InvariantError, ir.passes.PassError):
        InlinePass(criteria=lambda function: function.identifier() in chosen)(work)
        return work
    return None


def _unmark(model: ir.Model) -> None:
    for node in itertools.chain(model.graph.all_nodes(), *(f.all_nodes() for f in model.functions.values())):
        for mark in (_FROM, _WAS):
            node.metadata_props.pop(mark, None)


def _is_foreign(function: ir.Function, model: ir.Model) -> bool:
    return any(model.opset_imports.get(domain, version) != version for domain, version in function.opset_imports.items())


def _contracts(node: ir.Node) -> bool:
    return ("" if node.domain == "ai.onnx" else node.domain, node.op_type) in CONTRACTIONS


def _with_callers(model: ir.Model, chosen: Iterable[Identifier]) -> set[Identifier]:
    """The functions, and those that call them, however deep."""
    holding = set(chosen)
    while True:
        calling = {
            f.identifier() for f in model.functions.values() if any(n.op_identifier() in holding for n in f.all_nodes())
        }
        if calling <= holding:
            return holding
        holding |= calling


def _key(identifier: Identifier) -> str:
    return "\n".join(identifier)


def _called(identifier: Identifier) -> str:
    return ".".join(part for part in identifier if part)
