"""What float64 does not tell: integers beyond 2**53 and tensors of float64, which ``blame`` judges in rational numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_backend_nodes import array_of, cases

import graphcheck
from graphcheck.blaming.judge import Walk
from graphcheck.blaming.record import Guilt

FAR = np.array([2**55 + 1, 100_000_000, -(2**60) + 3, 7], np.int64)
THIRDS = np.array([(2**55 + 1) // 3, 33333333, -((2**60 - 3) // 3), 2], np.int64)
ENDS = st.integers(-(2**63), 2**63 - 1)

BY_NUMPY = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Max": np.maximum, "Min": np.minimum}


def blamed(text: str, **dumped: Any) -> graphcheck.Blame:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> net {text}')
    return graphcheck.blame(model, dumped)


@pytest.mark.parametrize(
    ("nodes", "right"),
    [
        ("y = Identity (x)", FAR),
        ("c = Constant <value_ints = [3]> () y = Add (x, c)", FAR + 3),
        ("c = Constant <value_ints = [5]> () y = Mul (x, c)", FAR * 5),  # around the end of the type
        ("c = Constant <value_ints = [3]> () y = Max (x, c)", np.maximum(FAR, 3)),
        ("c = Constant <value_ints = [3]> () y = Div (x, c)", THIRDS),
        ("y = Abs (x)", np.abs(FAR)),
        ("y = Neg (x)", -FAR),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_one_beside_an_integer_beyond_2_53_is_wrong(nodes: str, right: np.ndarray) -> None:
    text = f"(int64[4] x) => (int64[4] y) {{ {nodes} }}"
    assert blamed(text, x=FAR, y=right).verdict is Guilt.CLEAN
    off = blamed(text, x=FAR, y=right + np.array([1, 0, 0, 0]))
    assert off.verdict is Guilt.CONVICTED
    (row,) = off.evidence["convicted"]
    assert (row["deviation"], row["bound"], row["where"], row["looks_like"]) == (1.0, 0.0, [0], None)


@pytest.mark.parametrize("name", ["x", "y"])
def test_text_where_the_model_has_numbers_is_one_sentence(name: str) -> None:
    for declared in ("int64", "float"):
        text = f"({declared}[2] x) => ({declared}[2] y) {{ y = Neg (x) }}"
        with pytest.raises(graphcheck.UsageError, match=f"tensor '{name}' of the dump holds text, and the model has"):
            blamed(text, **({"x": np.zeros(2, np.float32), "y": np.zeros(2)} | {name: np.array(["a", "b"])}))


def test_the_type_of_integers_is_what_is_said() -> None:
    """Of floats that become integers it is their rounding."""
    text = "(int64[3] x) => (int64[3] y) { c = Constant <value_ints = [3]> () y = Mul (x, c) }"
    x = np.arange(3)
    right, wrong = blamed(text, x=x, y=3 * x), blamed(text, x=x, y=3 * x + [0, 0, 1])
    assert "within what exact int64 arithmetic explains on the device's own inputs" in right.reason
    assert "is off by 1, and exact int64 arithmetic explains 0" in wrong.reason
    for found in (right, wrong):
        assert (found.evidence["precision"], found.evidence["accumulate"], found.evidence["guessed"]) == (None, None, [])
    text = "(float[3] x) => (int64[3] y) { h = Mul (x, x) y = Cast <to = 7> (h) }"
    found = blamed(text, x=x.astype(np.float32), y=x * x)
    assert "float32" in found.reason and found.evidence["precision"] == "float32"


def test_a_region_of_integers_is_computed_through() -> None:
    text = "(int64[4] x) => (int64[1] y) { d = Add (x, x) y = ReduceSum (d) }"
    right = (FAR + FAR).sum(keepdims=True)
    assert blamed(text, x=FAR, y=right).verdict is Guilt.CLEAN
    assert blamed(text, x=FAR, y=right - 1).verdict is Guilt.CONVICTED


def test_what_is_not_rational_is_skipped_and_not_clean() -> None:
    x = np.array([40.0, 1.0])
    text = "(double[2] x) => (int64[2] y) { e = Exp (x) y = Cast <to = 7> (e) }"
    found = blamed(text, x=x, y=np.exp(x).astype(np.int64))
    assert found.verdict is Guilt.UNDECIDED
    assert "float64 does not tell its numbers apart: exp is not computed exactly" in found.reason


def test_rounding_before_a_cast_to_integers_is_the_devices_right() -> None:
    x = np.array([3e9, 1.0], np.float32)
    text = "(float[2] x) => (int64[2] y) { e = Mul (x, x) y = Cast <to = 7> (e) }"
    assert blamed(text, x=x, y=(x * x).astype(np.int64)).verdict is not Guilt.CONVICTED
    assert blamed(text, x=x, y=2 * (x * x).astype(np.int64)).verdict is Guilt.CONVICTED


@pytest.mark.parametrize(("dtype", "digits"), [(np.float32, 24), (np.float64, 53), (np.float16, 11)])
def test_integers_that_were_dumped_as_floats_are_not_judged_beyond_their_digits(dtype: Any, digits: int) -> None:
    text = "(int64[2] x, int64[2] y) => (int64[2] z) { z = Sub (x, y) }"
    x, y = np.array([2**digits + 1, 5], np.int64), np.array([-3, 2**digits - 1], np.int64)
    found = blamed(text, **{name: part.astype(dtype) for name, part in (("x", x), ("y", y), ("z", x - y))})
    assert found.verdict is Guilt.UNDECIDED and "floats that do not hold its integers" in found.reason
    assert [row["code"] for row in found.evidence["skipped"]] == ["GC402"]
    whole = blamed(text, x=x, y=y, z=(x - y).astype(dtype))  # the result alone
    assert whole.verdict is Guilt.UNDECIDED and "do not hold its integers" in whole.reason
    near = {"x": x // 4, "y": y // 4, "z": x // 4 - y // 4}
    assert blamed(text, **{name: part.astype(dtype) for name, part in near.items()}).verdict is Guilt.CLEAN
    near["z"] = near["z"] + np.array([0, 1])
    assert blamed(text, **{name: part.astype(dtype) for name, part in near.items()}).verdict is Guilt.CONVICTED


@given(st.lists(st.tuples(ENDS, ENDS), min_size=1, max_size=4), st.sampled_from(sorted(BY_NUMPY)), st.integers(0, 2))
def test_integers_of_any_size_against_numpy(pairs: list[tuple[int, int]], op: str, off: int) -> None:
    x, y = (np.array(part, np.int64) for part in zip(*pairs, strict=True))
    with np.errstate(over="ignore"):
        right = BY_NUMPY[op](x, y)
        wrong = right + off
    n = len(pairs)
    found = blamed(f"(int64[{n}] x, int64[{n}] y) => (int64[{n}] z) {{ z = {op} (x, y) }}", x=x, y=y, z=wrong)
    assert found.verdict is (Guilt.CONVICTED if off else Guilt.CLEAN)


def test_float64_is_judged_by_its_own_rounding_alone() -> None:
    random = np.random.default_rng(0)
    a, b = random.standard_normal((4, 50)), random.standard_normal((50, 3))
    text = "(double[4,50] a, double[50,3] b) => (double[4,3] y) { y = MatMul (a, b) }"
    for right in (a @ b, np.einsum("ik,kj->ij", a, b), (a[:, ::-1] @ b[::-1])):
        assert blamed(text, a=a, b=b, y=right).verdict is Guilt.CLEAN
    wide = blamed(text, a=a, b=b, y=a @ b * (1 + 2.0**-30))
    near = a @ b
    near[1, 2] += 1.5 * 52 * 2.0**-53 * (np.abs(a[1]) @ np.abs(b[:, 2]))  # float64's bound, of thrice the roundings, holds it
    close = blamed(text, a=a, b=b, y=near)
    assert wide.verdict is close.verdict is Guilt.CONVICTED
    assert close.evidence["convicted"][0]["where"] == [1, 2]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_onnx_expects_of_integers_is_right_in_rational_numbers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Walk, "_is_far", staticmethod(lambda result, dumped, real: result.dtype.kind in "iu"))
    judged = 0
    for case in cases().values():
        ports = [*case.model.graph.input, *case.model.graph.output]
        types = [port.type.tensor_type.elem_type for port in ports]
        if not ports or any(t not in (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.UINT8) for t in types):
            continue
        given, expected = ([array_of(x) for x in part] for part in case.data_sets[0])
        dumped = {port.name: x for port, x in zip(ports, (*given, *expected), strict=True)}
        found = graphcheck.blame(case.model, dumped)
        assert found.verdict is not Guilt.CONVICTED, f"{case.name}: {found.reason}"
        judged += found.verdict is Guilt.CLEAN
    assert judged > 20
