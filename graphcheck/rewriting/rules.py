"""The rewrite as an onnxscript ``RewriteRuleSet``, for optimizers that host such rules.

One rule for each contraction operator; its ``check`` walks from the matched node back through whatever movement made its
operand, so no pattern of movement operators is spelled. The rules replace the contraction's own output; a bias behind a
MatMul stays an Add, and a site whose moved tensor is still read behind that output is left (the pass takes it along).
They prove nothing: a host that wants a proof compares its model before and after.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from graphcheck.errors import UsageError
from graphcheck.kernel.ops.movement import DATA
from graphcheck.patches.analyze import site_at
from graphcheck.patches.site import Site
from graphcheck.rewriting.apply import discard
from graphcheck.rewriting.builder import Cannot, SiteBuilder
from graphcheck.rewriting.common import to_output
from graphcheck.rewriting.forms import FORMS

if TYPE_CHECKING:
    from onnxscript.rewriter import RewriteRuleSet

# operator -> number of operands that the pattern names; the others and all attributes are allowed
_OPERANDS = {"MatMul": 2, "Gemm": 2, "Einsum": 2, "Conv": 2}


def patch_embedding_rules(to: str = "conv") -> RewriteRuleSet:
    """Rules for onnxscript's rewriter that turn patch embeddings into the form ``to``. They prove nothing.

    Args:
        to: ``conv``, ``matmul``, ``unfold`` or ``space-to-depth``.

    Raises:
        UsageError: for an unknown form.
    """
    from onnxscript.rewriter import RewriteRule, RewriteRuleSet

    if to not in FORMS:
        raise UsageError(f"there is no form {to!r}; the forms are {', '.join(FORMS)}")
    sites: dict[ir.Value, Site] = {}  # those that a check has found and the rewrite behind it takes
    rules = []
    for op_type in _OPERANDS:
        name = f"patch-embedding:{op_type}->{to}"
        rules.append(RewriteRule(_pattern(op_type), _rewrite(to, sites), _check(to, sites), name=name, remove_nodes=False))
    return RewriteRuleSet(rules)


def _pattern(op_type: str) -> Any:
    def pattern(op: Any, a: Any, b: Any) -> Any:
        allow = {"_allow_other_inputs": True, "_allow_other_attributes": True, "_outputs": ["y"]}
        return getattr(op, op_type)(a, b, **allow)

    return pattern


def _check(to: str, sites: dict[ir.Value, Site]) -> Any:
    def check(context: Any, y: ir.Value, **_: Any) -> bool:
        site = _site(context.model, y, to)
        if site is not None:
            sites[y] = site
        return site is not None

    return check


def _rewrite(to: str, sites: dict[ir.Value, Site]) -> Any:
    def rewrite(op: Any, y: ir.Value, **_: Any) -> ir.Value | None:
        graph, site = y.graph, sites.pop(y, None)
        if not isinstance(graph, ir.Graph) or site is None:
            return None
        builder = SiteBuilder(ir.Model(graph, ir_version=10), site, site.input, f"patch-embedding:{site.form}->{to}")
        try:
            result, groups = FORMS[to].build(builder)
            result = to_output(builder, result, groups)
        except Cannot:
            discard(builder)
            return None
        return _replayed(op, builder, result)

    return rewrite


def _site(model: ir.Model, y: ir.Value, to: str) -> Site | None:
    """The site that ends at ``y``, if it is to be rewritten."""
    node = y.producer()
    moved = {v.producer().op_type for v in (node.inputs if node is not None else ()) if v is not None and v.producer()}  # type: ignore[union-attr]
    if (
        node is None
        or node.graph is not model.graph
        or (node.op_type != "Conv" and not moved & {*DATA, "Conv", "If", "Cast"})
    ):
        return None
    site = site_at(model, node)
    if site is None or site.form == to or site.ordinary or site.blocked or FORMS[to].why_not(site):
        return None
    return site


def _replayed(op: Any, builder: SiteBuilder, result: ir.Value) -> ir.Value:
    """The builder's nodes, written again through onnxscript's recorder."""
    values: dict[ir.Value, ir.Value] = {}
    for constant in builder.constants:
        if constant.uses():
            values[constant] = op.initializer(constant.const_value, name=constant.name)
    nodes = list(builder.nodes)
    for node in nodes:
        inputs = [None if v is None else values.get(v, v) for v in node.inputs]
        out = op.op(node.op_type, *inputs, **dict(node.attributes.items()))
        out.dtype, out.shape = node.outputs[0].dtype, node.outputs[0].shape
        out.producer().metadata_props.update(node.metadata_props)
        values[node.outputs[0]] = out
    discard(builder)
    return values[result]
