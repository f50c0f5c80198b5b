"""An oracle that shares nothing with graphcheck: onnx.reference in float64, on inputs that show what random ones hide."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tests.zoo.editing import attribute, set_attribute

CHANGED = 1e-12  # relative to the largest output: float64 evaluations of one function differ by about 1e-14


@dataclasses.dataclass
class Oracle:
    """What a model computes in float64 on each sample; the original's results are kept for all of its mutants."""

    model: onnx.ModelProto
    batch: int = 2

    def __post_init__(self) -> None:
        self._results: dict[int, list[np.ndarray] | str] = {}
        self.samples = list(samples(self.model, self.batch))

    def effect(self, mutant: onnx.ModelProto) -> str:
        """ "changed", "no change", "shape" (another shape), or "refused" with the reason, where onnx.reference gives up."""
        seen = "no change"
        for i, feeds in enumerate(self.samples):
            if i not in self._results:
                self._results[i] = run(self.model, feeds)
            before, after = self._results[i], run(mutant, feeds)
            if isinstance(before, str):
                raise AssertionError(f"the original does not run: {before}")
            if isinstance(after, str):
                return f"refused: {after}"
            effect = compare(before, after)
            if effect != "no change":
                return effect
        return seen


def compare(before: list[np.ndarray], after: list[np.ndarray]) -> str:
    """The effect between two lists of outputs."""
    if [x.shape for x in before] != [x.shape for x in after]:
        return "shape"
    for x, y in zip(before, after, strict=True):
        if not np.isfinite(np.asarray(x, np.float64)).all():
            continue  # an overflow tells nothing
        scale = np.abs(x).max(initial=0)
        if not np.abs(np.asarray(x, np.float64) - y).max(initial=0) <= CHANGED * scale:
            return "changed"
    return "no change"


def samples(model: onnx.ModelProto, batch: int) -> Iterator[dict[str, np.ndarray]]:
    """Normal numbers, large ones (a Clip), whole ones (ties), one hot, small ones; integers from 0 to 2."""
    for kind in range(5):
        rng = np.random.default_rng(kind)
        feeds: dict[str, np.ndarray] = {}
        for value in free_inputs(model):
            shape = [d.dim_value or batch for d in value.type.tensor_type.shape.dim]
            if value.type.tensor_type.elem_type not in (TensorProto.FLOAT, TensorProto.DOUBLE):
                feeds[value.name] = rng.integers(0, 3, shape)
                continue
            x = rng.standard_normal(shape)
            x = (x, x * 3e4, np.rint(x), np.abs(x) * 40, x * 1e-2)[kind]
            feeds[value.name] = x
        yield feeds


def free_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Graph inputs without a default."""
    known = {t.name for t in model.graph.initializer}
    return [v for v in model.graph.input if v.name not in known]


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray] | str:
    """The outputs in float64, or the reason why there are none."""
    from onnx.reference import ReferenceEvaluator

    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return [np.asarray(y) for y in ReferenceEvaluator(in_float64(model)).run(None, feeds)]
    except Exception as error:  # the reference raises anything
        return f"{type(error).__name__}: {str(error).splitlines()[0][:100] if str(error) else ''}"


def in_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with every float32 made float64."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    _widen(wide.graph)
    del wide.graph.value_info[:]
    for function in wide.functions:
        for node in function.node:
            _widen_node(node)
    return wide


def _widen(graph: onnx.GraphProto) -> None:
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for node in graph.node:
        _widen_node(node)


def _widen_node(node: onnx.NodeProto) -> None:
    if node.op_type == "Cast" and attribute(node, "to") == TensorProto.FLOAT:
        set_attribute(node, "to", TensorProto.DOUBLE)
    if node.op_type == "Constant":
        for a in node.attribute:
            if a.name in ("value_float", "value_floats"):
                value = np.asarray(onnx.helper.get_attribute_value(a), np.float64)
                a.CopyFrom(onnx.helper.make_attribute("value", numpy_helper.from_array(value)))
    for a in node.attribute:
        if a.type == onnx.AttributeProto.TENSOR:
            _widen_tensor(a.t)
        elif a.type == onnx.AttributeProto.GRAPH:
            _widen(a.g)


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), name))
