"""Right copies in float16, mixed and in bfloat16 by tests/zoo/copying.py: accepted, and not where a number is the next one."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from graphcheck import compare
from graphcheck.kernel.proof.allowed import steps
from graphcheck.kernel.terms.rules import PUSH
from graphcheck.kernel.terms.store import Terms
from graphcheck.verdict import Verdict
from tests.zoo.copying import KINDS, NETS, Net

SPACING = {TensorProto.FLOAT16: np.float16, TensorProto.BFLOAT16: ml_dtypes.bfloat16}


def types(model: onnx.ModelProto) -> set[int]:
    return {t.data_type for t in model.graph.initializer} & {TensorProto.FLOAT, *SPACING}


def next_number(model: onnx.ModelProto) -> str:
    """The constant whose largest number is moved to the next number of its format."""
    tensor = max((t for t in model.graph.initializer if t.data_type in SPACING), key=lambda t: np.prod(t.dims))
    array = numpy_helper.to_array(tensor).astype(SPACING[tensor.data_type])
    flat = array.reshape(-1).copy()
    flat.view(np.uint16)[np.argmax(np.abs(flat.astype(np.float64)))] += 1
    tensor.CopyFrom(numpy_helper.from_array(flat.reshape(array.shape), tensor.name))
    return tensor.name


@pytest.mark.parametrize("kind", ["float16, mixed", "bfloat16"])
@pytest.mark.parametrize("name", NETS["text"])
def test_a_right_copy_is_accepted_and_the_next_number_is_named(name: str, kind: str) -> None:
    allow, make, _ = KINDS[kind]
    model, copy = make(Net.of(name, "text"))
    narrow = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}[allow]
    kept = {TensorProto.FLOAT} if "mixed" in kind else set()
    assert types(copy) == kept | {narrow}
    right = compare(model, copy, allow=[allow], run=False, graphs=False)
    assert right.verdict is Verdict.WITHIN_ROUNDING, right.reason
    changed = next_number(copy)
    wrong = compare(model, copy, allow=[allow], run=False, graphs=False)
    assert wrong.verdict not in (Verdict.IDENTICAL, Verdict.PROVED, Verdict.WITHIN_ROUNDING)
    assert changed in {row["b"] for row in wrong.evidence["precision"]["off"]}, wrong.reason


def test_what_a_maker_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="only torch has modules to cast"):
        KINDS["half()"].make(Net.of("mlp", "text"))


STEP = "p = Greater (a, zero) q = Cast <to = 1> (p) r = Mul (q, half) t = Add (r, half)"


def behind(text: str) -> onnx.ModelProto:
    """A product and a bias, ``a``, and what is behind it, with steps of 0.5 in ``t`` where it has ``STEP``."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[8,8] x) => (float[8,8] y)
        <float zero = {{0}}, float half = {{0.5}}> {{ h = MatMul (x, w) a = Add (h, b) {text} }}"""
    )
    rng = np.random.default_rng(0)
    constants = {"w": rng.standard_normal((8, 8)), "b": rng.standard_normal(8), "s": rng.uniform(0.1, 0.5, 8)}
    model.graph.initializer.extend(numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items())
    return model


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    "text", ["l = LeakyRelu <alpha = 0.1> (a) y = MatMul (l, w)", "y = PRelu (a, s)", f"{STEP} y = Mul (t, a)"]
)
def test_a_slope_behind_a_rounding_is_no_jump(text: str, kind: str) -> None:
    allow, make, _ = KINDS[kind]
    model, copy = make(Net("", "", behind(text)))
    found = compare(model, copy, allow=[allow], run=False, graphs=False)
    assert found.verdict is Verdict.WITHIN_ROUNDING, found.reason
    changed = next_number(copy)
    wrong = compare(model, copy, allow=[allow], run=False, graphs=False)
    assert wrong.verdict is not Verdict.WITHIN_ROUNDING and changed in {r["b"] for r in wrong.evidence["precision"]["off"]}


@pytest.mark.parametrize(
    "text",
    [
        f"{STEP} y = Mul (t, h)",
        f"{STEP} y = Identity (t)",
        f"{STEP} y = Add (t, a)",
        f"{STEP} m = Mul (t, a) y = Add (m, t)",
        f"{STEP} a1 = Transpose (a) y = Mul (t, a1)",
        f"{STEP.replace('Mul (q,', 'Transpose (q) r1 = Mul (r,').replace('Add (r,', 'Add (r1,')} y = Mul (t, a)",
        f"{STEP} u = Mul (t, t) y = MatMul (u, w)",
        f"{STEP.replace('zero', 'half')} y = Mul (t, a)",
    ],
)
def test_a_jump_behind_a_rounding_is_told(text: str) -> None:
    model, copy = KINDS["float16"].make(Net("", "", behind(text)))
    found = compare(model, copy, allow=["float16"], run=False, graphs=False)
    assert found.verdict is Verdict.UNDECIDED and "whose result it may change altogether" in found.reason


@pytest.mark.parametrize(
    ("step", "verdict"), [(1.0, Verdict.WITHIN_ROUNDING), (0.1, Verdict.UNDECIDED), (101.0, Verdict.UNDECIDED)]
)
def test_a_comparison_of_constants_that_the_format_has_is_no_jump(step: float, verdict: Verdict) -> None:
    """The mask of a Swin is computed from the numbers of its windows."""
    models = []
    for cast in ("c = Identity (d) v = Identity (w)", "h = Cast <to = 10> (d) c = Cast <to = 1> (h) v = Cast <to = 1> (w)"):
        model = onnx.parser.parse_model(
            f"""<ir_version: 8, opset_import: ["" : 17]> g (float[64,64] x) => (float[64,64] y)
            <float one = {{{step}}}> {{ d = Sub (column, row) {cast} p = Greater (c, one) m = Cast <to = 1> (p)
            n = MatMul (x, v) y = Add (n, m) }}"""
        )
        weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float16 if models else np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
        line = (np.arange(64) * step).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(line[:, None], "column"))
        model.graph.initializer.append(numpy_helper.from_array(line[None], "row"))
        models.append(model)
    found = compare(*models, allow=["float16"], run=False, graphs=False)
    assert found.verdict is verdict, found.reason
    assert ("whose result it may change altogether" in found.reason) == (verdict is Verdict.UNDECIDED)


@pytest.mark.parametrize("turned", [False, True])
def test_a_step_of_other_elements_jumps(turned: bool) -> None:
    terms = Terms(PUSH)
    x, half = terms.leaf(("x",), 16), terms.const(np.arange(1, 17, dtype=np.float32))
    step = terms.ew("pos", [(x, None)], 16)
    view = terms.maps.transpose((4, 4), (1, 0)) if turned else None
    slope = terms.ew("add", [(step, view), (half, None)], 16)
    y = terms.ew("mul", [(slope, None), (x, None)], 16)
    assert steps(terms, [x], [y]) == ([step] if turned else [])
