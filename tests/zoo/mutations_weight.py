"""Mutations of numbers: weights, biases, scales, epsilons, embeddings, masks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from tests.zoo.editing import Editor, Mutation, attribute, set_attribute

Change = Callable[[Editor, np.ndarray], np.ndarray | None]


def _on_weight(change: Change, *op_types: str, smallest: int = 2) -> Mutation:
    """Apply ``change`` to a constant float operand of a random node."""

    def mutation(e: Editor) -> onnx.NodeProto | None:
        for node in e.nodes(*op_types):
            for index in e.floats(node, smallest):
                value = e.constant(node, index)
                assert value is not None
                changed = change(e, value.copy())
                if changed is not None and not np.array_equal(changed, value):
                    e.set_constant(node, index, changed)
                    return node
        return None

    return mutation


def _one(e: Editor, value: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray | None:
    """Change one element that is not 0."""
    at = np.flatnonzero(np.isfinite(value) & (value != 0))
    if not at.size:
        return None
    i = e.rng.choice(at)
    value.reshape(-1)[i] = change(value.reshape(-1)[i])
    return value


def _ulp(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.nextafter(x, np.float32(np.inf), dtype=np.float32))


def _swap_rows(e: Editor, value: np.ndarray) -> np.ndarray | None:
    if value.ndim < 2 or value.shape[0] < 2:
        return None
    i, j = e.rng.choice(value.shape[0], 2, replace=False)
    value[[i, j]] = value[[j, i]]
    return value


def _transposed(e: Editor, value: np.ndarray) -> np.ndarray | None:
    return np.ascontiguousarray(value.T) if value.ndim == 2 and value.shape[0] == value.shape[1] else None


def _flipped(e: Editor, value: np.ndarray) -> np.ndarray | None:
    return np.ascontiguousarray(np.flip(value, -1)) if value.ndim == 4 and value.shape[-1] > 1 else None


def drop_bias(e: Editor) -> onnx.NodeProto | None:
    """A bias becomes zero, but not one that a softmax may cancel."""
    for node in e.nodes("Add", "Conv", "Gemm", "LayerNormalization"):
        at = {"Add": range(2), "Conv": (2,), "Gemm": (2,), "LayerNormalization": (2,)}[node.op_type]
        for index in at:
            value = e.constant(node, index)
            if value is not None and value.dtype == np.float32 and value.any() and not _is_key_bias(e, node):
                e.set_constant(node, index, np.zeros_like(value))
                return node
    return None


def drop_key_bias(e: Editor) -> onnx.NodeProto | None:
    """The bias of the keys of an attention becomes zero."""
    for node in e.nodes("Add", "Gemm"):
        for index in e.floats(node, 2):
            value = e.constant(node, index)
            assert value is not None
            if value.ndim == 1 and value.any() and _is_key_bias(e, node):
                e.set_constant(node, index, np.zeros_like(value))
                return node
    return None


def _is_key_bias(e: Editor, node: onnx.NodeProto) -> bool:
    """Whether the node's result flows, only moved or scaled, into the second operand of a product before a Softmax."""
    users: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for n in e.graph.node:
        for i, name in enumerate(n.input):
            users.setdefault(name, []).append((n, i))

    moving = ("Reshape", "Transpose", "Mul", "Div", "Unsqueeze", "Squeeze", "Identity")

    def reaches(name: str, scores: bool, steps: int) -> bool:
        """Whether the tensor gets to a Softmax, by a product in which it is the second operand unless ``scores``."""
        for user, i in users.get(name, ()):
            if user.op_type == "Softmax" and scores:
                return True
            product = user.op_type == "MatMul" and i == 1 and not scores
            moved = i == 0 and (user.op_type in moving or (scores and user.op_type == "Add"))
            if steps and (product or moved) and reaches(user.output[0], scores or product, steps - 1):
                return True
        return False

    return reaches(node.output[0], False, 8)


def epsilon(e: Editor) -> onnx.NodeProto | None:
    """Another usual epsilon of a normalization: 1e-6 for 1e-5, 1e-5 for one that is smaller."""
    for node in e.nodes("LayerNormalization", "BatchNormalization", "InstanceNormalization", "GroupNormalization"):
        set_attribute(node, "epsilon", 1e-6 if float(attribute(node, "epsilon", 1e-5)) > 2e-6 else 1e-5)
        return node
    for node in e.nodes("Add"):
        for index in e.floats(node):
            value = e.constant(node, index)
            if value is not None and value.size == 1 and 0 < float(value.reshape(-1)[0]) < 1e-3:
                e.set_constant(node, index, np.full_like(value, 1e-6 if float(value.reshape(-1)[0]) > 2e-6 else 1e-5))
                return node
    return None


def _scalar(change: Callable[[np.ndarray], np.ndarray]) -> Mutation:
    """Change the scalar factor of a Mul or Div: an attention scale, a GELU constant."""

    def mutation(e: Editor) -> onnx.NodeProto | None:
        for node in e.nodes("Mul", "Div"):
            for index in e.floats(node):
                value = e.constant(node, index)
                if value is not None and value.size == 1:
                    e.set_constant(node, index, change(value))
                    return node
        return None

    return mutation


def _scores(e: Editor) -> list[onnx.NodeProto]:
    """Softmax nodes."""
    return e.nodes("Softmax")


def scores_scaled(e: Editor) -> onnx.NodeProto | None:
    """The scores of an attention times 2."""
    for node in _scores(e):
        e.insert_before(node, 0, "Mul", [e.new_constant(np.asarray(2, np.float32))])
        return node
    return None


def scores_scaled_by_an_ulp(e: Editor) -> onnx.NodeProto | None:
    """The scores of an attention times 1 + 2**-23."""
    for node in _scores(e):
        e.insert_before(node, 0, "Mul", [e.new_constant(_ulp(np.asarray(1, np.float32)))])
        return node
    return None


def position_embedding_shifted(e: Editor) -> onnx.NodeProto | None:
    """A constant [1, tokens, width] that is added moves by one token."""
    for node in e.nodes("Add"):
        for index in e.floats(node, 4):
            value = e.constant(node, index)
            if value is not None and value.ndim == 3 and value.shape[1] > 1:
                e.set_constant(node, index, np.roll(value, 1, axis=1))
                return node
    return None


def mask_twice(e: Editor) -> onnx.NodeProto | None:
    """A constant that is added, added twice."""
    for node in e.nodes("Add"):
        for index in e.floats(node, 2):
            e.insert_after(node, "Add", [node.input[index]])
            return node
    return None


def finite_mask_on_scores(e: Editor) -> onnx.NodeProto | None:
    """One score of an attention is masked by -100 (an optimizer mixed up two masks)."""
    for node in _scores(e):
        shape = e.shape(node.input[0])
        if shape and isinstance(shape[-1], int) and shape[-1] > 1:
            mask = np.zeros(shape[-1], np.float32)
            mask[e.rng.integers(shape[-1])] = -100
            e.insert_before(node, 0, "Add", [e.new_constant(mask)])
            return node
    return None


def gemm_factor(e: Editor) -> onnx.NodeProto | None:
    """The alpha of a Gemm, or of an activation, is halved."""
    for node in e.nodes("Gemm", "LeakyRelu", "Elu", "HardSigmoid", "Celu", "ThresholdedRelu"):
        default = {"Gemm": 1.0, "LeakyRelu": 0.01, "HardSigmoid": 0.2}.get(node.op_type, 1.0)
        set_attribute(node, "alpha", float(attribute(node, "alpha", default)) / 2)
        return node
    return None


MUTATIONS: dict[str, Mutation] = {
    "weight by an ulp": _on_weight(lambda e, v: _one(e, v, _ulp)),
    "matrix by an ulp": _on_weight(lambda e, v: _one(e, v, _ulp), "MatMul", "Gemm", "Conv"),
    "weights times 1 + 1e-6": _on_weight(lambda e, v: v * np.float32(1 + 1e-6)),
    "sign of a weight": _on_weight(lambda e, v: _one(e, v, np.negative)),
    "two rows swapped": _on_weight(_swap_rows, "MatMul", "Gemm", "Conv"),
    "square matrix transposed": _on_weight(_transposed, "MatMul", "Gemm"),
    "kernel flipped": _on_weight(_flipped, "Conv", "ConvTranspose"),
    "bias dropped": drop_bias,
    "epsilon": epsilon,
    "scalar factor by an ulp": _scalar(_ulp),
    "scalar factor times 2": _scalar(lambda v: v * np.float32(2)),
    "scores times 2": scores_scaled,
    "scores by an ulp": scores_scaled_by_an_ulp,
    "position embedding shifted": position_embedding_shifted,
    "constant added twice": mask_twice,
    "finite mask on a score": finite_mask_on_scores,
    "alpha halved": gemm_factor,
}
