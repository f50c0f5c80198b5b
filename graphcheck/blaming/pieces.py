"""A convicted operator, or its region, cut out with what the device read and gave (``--reduce``), and what to dump next."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.blaming.judge import Judged, Walk
from graphcheck.blaming.steps import Cut
from graphcheck.errors import GraphcheckError
from graphcheck.files import model as model_
from graphcheck.graphs.walk import back
from graphcheck.interface.inputs import save_npz
from graphcheck.parting.reduction import assembled, read_by
from graphcheck.words import plural


def piece(model: ir.Model, steps: Cut, walk: Walk, row: Judged) -> ir.Model:
    """The region as a model: the dumped tensors that it begins at are its inputs, constants its initializers, as far as it reads
    them. Raises GraphcheckError where it cannot be cut out."""
    values = {str(v.name): v for node in model.graph for v in node.outputs} | {str(v.name): v for v in model.graph.inputs}
    end = values[row.result.name]
    begins = {values[name] for name in row.reads}
    constants = {v for v in steps.constants if v not in begins and v is not end}

    def further(value: ir.Value) -> tuple[ir.Value | None, ...]:
        if (value in begins and value is not end) or value in constants or value.producer() is None:
            return ()
        return tuple(_read(value))

    needed = set(back([end], further))
    nodes = [node for node in model.graph if any(v in needed and v not in begins and v not in constants for v in node.outputs)]
    given: dict[ir.Value, ir.Value] = {}
    for name in row.reads:
        array, value = walk.tensors[name], values[name]
        dtype = value.type if value.type is not None else ir.TensorType(ir.DataType.from_numpy(array.dtype))
        given[value] = ir.Value(name=name, shape=ir.Shape(walk.shape(name)), type=dtype)
    like = np.broadcast_to(np.zeros((), row.result.dtype), row.result.shape)

    def known(value: ir.Value) -> tuple[ir.Value, Any]:
        found = steps.constants.get(value)
        return value, _stored(value) if found is None else found

    return assembled(model, nodes, given, list(given.values()), {end: (like, row.result.name)}, known)


def _read(value: ir.Value) -> list[ir.Value]:
    producer = value.producer()
    return [] if producer is None else read_by(producer)


def _stored(value: ir.Value) -> np.ndarray | None:
    """The array of an initializer."""
    return None if value.const_value is None else value.const_value.numpy()


def write(model: ir.Model, steps: Cut, walk: Walk, rows: Sequence[Judged], folder: Any) -> list[dict[str, Any]]:
    """``model.onnx``, ``inputs.npz`` and ``dumped.npz`` in a folder for each convicted tensor; where they are, or why not."""
    told: list[dict[str, Any]] = []
    taken: set[str] = set()
    for row in rows:
        name = _folder(row.step.node or row.result.name, taken)
        to = Path(folder) / name
        try:
            cut = piece(model, steps, walk, row)
        except GraphcheckError as error:
            told.append({"node": row.step.node, "output": row.result.name, "folder": None, "reason": str(error)})
            continue
        to.mkdir(parents=True, exist_ok=True)
        model_.write(cut, to / "model.onnx", external_data="used")
        save_npz(to / "inputs.npz", typed(cut.graph.inputs, walk.tensors))
        save_npz(to / "dumped.npz", {row.result.name: np.asarray(walk.tensors[row.result.name])})
        reason = f"{plural(len(list(cut.graph)), 'node')}"
        told.append({"node": row.step.node, "output": row.result.name, "folder": str(to), "reason": reason})
    return told


def typed(values: Sequence[ir.Value], tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Dumped tensors as the inputs of a piece: in their declared types and shapes."""
    found = {}
    for value in values:
        array, shape = np.asarray(tensors[str(value.name)]), model_.declared_shape(value) or []
        dtype = array.dtype if value.dtype is None else value.dtype.numpy()
        found[str(value.name)] = array.astype(dtype).reshape([int(d) for d in shape if isinstance(d, int)])
    return found


def _folder(name: str, taken: set[str]) -> str:
    """A name of a folder that no other has."""
    plain = re.sub(r"[^\w.-]+", "_", name).strip("._")[:80] or "node"
    found = plain if plain not in taken else next(f"{plain}_{i}" for i in range(2, 10**6) if f"{plain}_{i}" not in taken)
    taken.add(found)
    return found
