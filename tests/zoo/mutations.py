"""Mutation operators: each finds a place where it applies and makes one change that a faulty tool might make.

An operator takes an :class:`Editor` and returns the node that it changed, or None where it applies nowhere. Whether the
change changes the function is not its business: :mod:`tests.zoo.oracle` shows that by a float64 run.
"""

from __future__ import annotations

import onnx

from tests.zoo import mutations_function, mutations_movement, mutations_weight
from tests.zoo.editing import Editor, Mutation, name_of

MUTATIONS: dict[str, Mutation] = {
    **mutations_weight.MUTATIONS,
    **mutations_movement.MUTATIONS,
    **mutations_function.MUTATIONS,
}

# Not wrong at all: softmax cancels what the bias of the keys adds to a row of scores. It must come out proved.
HARMLESS: dict[str, Mutation] = {"key bias dropped": mutations_weight.drop_key_bias}


def mutate(model: onnx.ModelProto, name: str, seed: int) -> tuple[onnx.ModelProto, str] | None:
    """The mutant and the name of the node that was changed; None where the mutation applies nowhere."""
    editor = Editor(model, seed)
    node = {**MUTATIONS, **HARMLESS}[name](editor)
    return None if node is None else (editor.model, name_of(node))
