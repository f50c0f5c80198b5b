"""Sizes that graphs mix, such as a length, height and width: what is claimed at every size of them, held against onnxruntime.

Each pair is a line of ``lengths.txt``: proved at every size of all its free dims, or a near miss, of which that must not be said.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphcheck import Verdict, compare
from tests import rows_support as support

SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 33)


def pairs() -> list[tuple[str, bool, str, onnx.ModelProto, onnx.ModelProto]]:
    """Each pair of the file: its title, whether the claim is made, what its inputs are, both models."""
    found = []
    for block in (Path(__file__).parent / "lengths.txt").read_text().split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if not lines:
            continue
        title, expected, head, consts, *bodies = [line.strip() for line in lines]
        name, _, opsets = title.partition("@")
        models = []
        for body, opset in zip(bodies, (opsets.split(",") * 2)[:2] if opsets else ("18", "18"), strict=True):
            given = f"<{consts}>" if consts != "-" else ""
            imports = f'<ir_version: 9, opset_import: ["": {opset}, "com.microsoft": 1]>'
            nodes = body[2:].replace(";", " ")
            models.append(onnx.parser.parse_model(f"{imports} g ({head}) => (float[] y) {given} {{ {nodes} }}"))
        for model in models:
            model.graph.output[0].type.tensor_type.ClearField("shape")
            told = onnx.shape_inference.infer_shapes(model).graph.output[0].type.tensor_type.shape.dim
            kept = model.graph.output[0].type.tensor_type.shape
            for axis in range(len(told) or 1):  # what a Loop gives has one axis
                kept.dim.add(dim_param=f"y{axis}")
        found.append((name, expected == "every", head, *models))
    return found


def run(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray | None:
    """The output in onnxruntime; None where it refuses."""
    try:
        return np.asarray(support.session(proto).run(None, feeds)[0])
    except Exception:
        return None


def unlike(a: onnx.ModelProto, b: onnx.ModelProto, names: list[str], seed: int = 0) -> dict[str, int] | None:
    """Sizes of the free dims at which both models run in onnxruntime, and give something else."""
    rng = np.random.default_rng(seed)
    few = SIZES if len(names) == 1 else (1, 2, 3, 5, 8)
    for choice in itertools.product(few, repeat=len(names)) if len(names) < 3 else rng.integers(1, 9, (24, len(names))).tolist():
        sizes = dict(zip(names, choice, strict=True))
        feeds = {}
        for value in a.graph.input:
            shape = [sizes.get(d.dim_param, d.dim_value) for d in value.type.tensor_type.shape.dim]
            kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            feeds[value.name] = (rng.normal(size=shape) if kind.kind == "f" else rng.integers(0, 3, shape)).astype(kind)
        x, y = run(a, feeds), run(b, feeds)
        if x is None or y is None:
            continue
        if x.shape != y.shape or not np.allclose(x, y, 1e-4, 1e-4, equal_nan=True):
            return sizes
    return None


def symbols(proto: onnx.ModelProto) -> list[str]:
    """The names of the free dims."""
    return list(dict.fromkeys(d.dim_param for v in proto.graph.input for d in v.type.tensor_type.shape.dim if d.dim_param))


@pytest.mark.parametrize(("name", "every", "head", "a", "b"), [pytest.param(*p, id=p[0]) for p in pairs()])
def test_what_is_claimed_at_every_size_holds(name: str, every: bool, head: str, a: Any, b: Any) -> None:
    names = symbols(a)
    for x, y in ((a, b), (b, a)):
        result = compare(x, y, run=False)
        proof = result.evidence["proof"] or {"every": []}
        claimed = result.verdict is Verdict.PROVED and set(proof["every"]) == set(names)
        assert claimed == every, (result.verdict, result.reason, proof.get("limits"))
    found = unlike(a, b, names)
    assert found is None if every else True


def test_a_claim_ends_where_a_position_table_ends() -> None:
    a, b = next((a, b) for name, _, _, a, b in pairs() if name.startswith("a position table cut"))
    result = compare(a, b, run=False, every=["L"])
    assert (result.verdict, result.evidence["proof"]["every"]) == (Verdict.PROVED, ["L"])
    assert "for every size of L up to 20 and every input of shape x=1xLx2" in result.reason
    assert result.evidence["proof"]["ends"] == {"L": {"size": 20, "node": "Slice(t)"}}
