"""The verdict on a pair: by the whole of ``compare`` where it is asked for, or by the proof engine alone."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import onnx

from graphcheck.errors import GraphcheckError, Undecided
from graphcheck.files import model as model_
from graphcheck.kernel.ops.algebra import Tensor
from graphcheck.kernel.proof.pair import Pair, build
from graphcheck.kernel.proof.prover import Prover
from graphcheck.kernel.terms.verbs import Contract, Ew, Rows


@dataclasses.dataclass
class Proof:
    """What the engine alone says of a pair: ``how`` is the last tier, or what stopped it."""

    proved: bool
    how: str
    seconds: float
    unmatched: str = ""


def prove(a: Any, b: Any, batch: int = 2, from_inputs: bool = True, seed: int = 0) -> Proof:
    """Congruence, windows and (unless told not to) the evaluation from the inputs, symbolic dims set to ``batch``."""
    started = time.monotonic()
    one, two = (model_.read(m) for m in (a, b))
    inputs, concrete = {}, {}
    for x, y in zip(model_.required_inputs(one), model_.required_inputs(two), strict=True):
        shapes = [model_.declared_shape(v) or [] for v in (x, y)]
        shape = tuple(next((d for d in pair if isinstance(d, int)), batch) for pair in zip(*shapes, strict=True))
        inputs[str(x.name)] = (str(y.name), shape)
        assert x.dtype is not None
        if not x.dtype.is_floating_point():
            concrete[str(x.name)] = np.random.default_rng(0).integers(0, 3, shape).astype(x.dtype.numpy())
    try:
        pair = build(one, two, inputs, concrete)
        proved, how, unmatched = _prove(pair, from_inputs, seed)
    except (GraphcheckError, Undecided) as error:
        proved, how, unmatched = False, f"undecided: {error}", ""
    return Proof(proved, how, time.monotonic() - started, unmatched)


def _prove(pair: Pair, from_inputs: bool, seed: int) -> tuple[bool, str, str]:
    left: list[int] = []
    right: list[int] = []
    for x, y in zip(pair.a.outputs, pair.b.outputs, strict=True):
        assert x is not None and y is not None
        if x.shape != y.shape:
            return False, f"shapes {x.shape} and {y.shape}", ""
        if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
            if not np.array_equal(x, y):
                return False, "concrete outputs differ", ""
            continue
        for side, z in ((left, x), (right, y)):
            side.append(z.cls if isinstance(z, Tensor) else pair.terms.const(z))
    prover = Prover(pair.terms, left, right, pair.row_counts(), seed=seed, target=1e-9)
    if not prover.open_pairs():
        return True, "congruence", ""
    if prover.prove():
        return True, next(t.name for t in reversed(prover.tiers) if t.merges), ""
    unmatched = "; ".join(first_unmatched(pair, prover, side) for side in ("a", "b"))
    if not from_inputs:
        return False, "open", unmatched
    verbs = [pair.terms.terms[c].verb for c in prover.unmatched()]
    products = [verb for verb in verbs if isinstance(verb, Contract)]
    if sum(max(c.batches) * c.m * c.n * c.k for c in products) > 3e9:
        return False, "open (too large for the inputs)", unmatched
    result = prover.from_inputs()
    return bool(result), {True: "inputs", False: "unequal", None: "undefined"}[result], unmatched


def first_unmatched(pair: Pair, prover: Prover, side: str) -> str:
    """The first terms of a side that have no partner though all operands have one, and the nodes that they are."""
    bit = 1 if side == "a" else 2
    names: dict[int, str] = {}
    for value, tensor in (pair.a if side == "a" else pair.b).values.items():
        node = value.producer()
        if isinstance(tensor, Tensor) and node is not None:
            shown = f"{node.op_type} {node.name or value.name}{list(tensor.shape)}"
            names.setdefault(pair.terms.find(tensor.cls), shown)
    found = []
    for cls in prover.unmatched():
        term = pair.terms.terms[cls]
        if prover.sides.get(cls, 0) == bit and all(prover.shared(a) for a in term.args):
            kind = type(term.verb).__name__.lower()
            kind += f" {term.verb.fn}" if isinstance(term.verb, (Ew, Rows)) else ""
            found.append(f"{kind} [{term.size}] = {names.get(cls, 'part of a node')}")
    return f"{side}: {', '.join(found[:2]) or '-'}"


def as_proto(model: Any) -> onnx.ModelProto:
    """A ModelProto of a path or a proto."""
    if isinstance(model, onnx.ModelProto):
        return model
    with open(model, "rb") as file:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(file.read())
        return proto


def verdict(a: Any, b: Any, **options: Any) -> tuple[str, str, dict[str, Any]]:
    """``compare``'s verdict, reason and evidence."""
    from graphcheck.verdicts.compare import compare

    result = compare(a, b, **options)
    return str(result.verdict), result.reason, result.evidence
