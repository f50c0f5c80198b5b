"""Deviation statistics against hand-made cases and against numpy's own spacing."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphcheck.runs.statistics import _largest, compare_arrays, spacing, ulps, vacuous

F32 = np.dtype(np.float32)
ONES = np.ones((2, 3), np.float32)


def stats(a: Any, b: Any, dtype: Any = np.float32) -> dict[str, Any]:
    result = compare_arrays(np.array(a, dtype), np.array(b, dtype))
    json.dumps(result, allow_nan=False)  # what is written must be JSON
    return result


def test_equal_arrays() -> None:
    result = stats([1, 2, 3], [1, 2, 3])
    assert result["max_abs"] == result["max_rel"] == result["max_ulp"] == result["scale_ulp"] == result["unequal"] == 0
    assert result["min_atol"] == result["min_rtol"] == 0 and result["cosine"] == pytest.approx(1, abs=1e-15)
    assert result["histogram"] == [[0.0, 3]]


def test_one_deviation_by_hand() -> None:
    result = stats([1, 2, -4, 0.5], [1, 2, -4.5, 0.5])
    assert (result["max_abs"], result["max_rel"], result["mean_abs"], result["unequal"]) == (0.5, 0.125, 0.125, 1)
    assert (result["min_atol"], result["min_rtol"]) == (0.5, 0.125)
    assert result["max_ulp"] == 0.5 / spacing(4, F32) == result["scale_ulp"]
    assert result["histogram"] == [[0.0, 3], [0.1, 1]]
    assert result["p50_abs"] == 0 and 0 < result["p99_abs"] <= 0.5


@given(st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=40))
def test_quantiles_are_those_of_numpy(moved: list[float]) -> None:
    result = compare_arrays(np.zeros(len(moved)), np.array(moved))
    assert [result["p50_abs"], result["p99_abs"]] == pytest.approx(np.quantile(moved, [0.5, 0.99]).tolist(), rel=1e-12)


def test_min_tolerances_are_the_smallest_that_pass() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal(100)
    b = a + 1e-3 * rng.standard_normal(100)
    result = compare_arrays(a, b)
    for tolerance, bound in (("min_atol", np.ones(100)), ("min_rtol", np.abs(a))):
        assert (np.abs(a - b) <= result[tolerance] * bound * (1 + 1e-15)).all()
        assert not (np.abs(a - b) <= result[tolerance] * bound * (1 - 1e-9)).all()


def test_number_for_zero_has_no_relative_tolerance() -> None:
    result = stats([0, 1], [1e-7, 1])
    assert result["min_rtol"] is None and result["min_atol"] == pytest.approx(1e-7) and result["max_rel"] == 0


def test_nan_and_infinities() -> None:
    nan, inf = np.nan, np.inf
    same = stats([nan, inf, -inf, 1], [nan, inf, -inf, 1.5])
    assert same["nan_coincide"] and same["inf_coincide"] and same["max_abs"] == same["min_atol"] == 0.5
    assert (same["nan_a"], same["nan_b"], same["inf_a"], same["inf_b"]) == (1, 1, 2, 2)
    for a, b, key in (
        ([nan, 1], [1, 1], "nan_coincide"),
        ([inf, 1], [-inf, 1], "inf_coincide"),
        ([inf], [3e38], "inf_coincide"),
    ):
        result = stats(a, b)
        assert result[key] is False and result["min_atol"] is None and result["min_rtol"] is None
        assert result["unequal"] == 1
    assert stats([1.7e308, 5e-324], [-1.7e308, 1], np.float64)["max_abs"] > 1e308
    assert stats([nan], [nan])["unequal"] == 0 and stats([nan], [nan])["min_atol"] == 0


def test_shapes_that_differ() -> None:
    result = compare_arrays(ONES, ONES.T)
    assert result["shape"] == [2, 3] and result["shape_b"] == [3, 2]
    assert result["max_abs"] is None and result["min_atol"] is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_ulps_of_neighbours(dtype: Any) -> None:
    for value in (1.0, -1.0, 0.1, -1e-3, 8.0):
        a = np.array([value], dtype)
        b = np.nextafter(a, np.array([100], dtype))
        assert ulps(a, b, a.dtype) == ulps(b, a, a.dtype) == [1]
    assert ulps(np.array([-0.0], dtype), np.array([0.0], dtype), np.dtype(dtype)) == [0]
    info: Any = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    tiny = info.smallest_subnormal
    assert ulps(np.array([-tiny], dtype), np.array([tiny], dtype), np.dtype(dtype)) == [2]


def test_ulps_of_extremes_do_not_overflow() -> None:
    big = np.array([np.finfo(np.float64).max])
    assert ulps(big, -big, big.dtype)[0] == pytest.approx(2.0 * float(big.view(np.int64)[0]))


@given(st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=0))
def test_spacing_is_numpys(value: float) -> None:
    if value < np.finfo(np.float32).max:
        assert spacing(value, F32) == np.spacing(np.float32(value))


def test_mixed_dtypes_count_ulps_in_the_coarser() -> None:
    a = np.array([1, 2], np.float32)
    b = np.array([1, 2], np.float16)
    assert compare_arrays(a, b)["max_ulp"] == 0
    assert compare_arrays(a, b + np.float16(2**-10))["max_ulp"] == 1


def test_integers_and_booleans() -> None:
    big = 2**62
    result = stats([big, 1], [big + 1, 1], np.int64)
    assert result["max_abs"] == 1 and result["max_ulp"] is None
    assert stats([-(2**63)], [2**63 - 1], np.int64)["max_abs"] == float(2**64)
    assert stats([0], [255], np.uint8)["max_abs"] == 255
    result = stats([True, False], [True, True], bool)
    assert result["max_abs"] == 1 and result["unequal"] == 1
    assert compare_arrays(np.array(["a", "b"], object), np.array(["a", "c"], object))["unequal"] == 1


def test_cosine() -> None:
    assert stats([1, 0], [0, 1])["cosine"] == 0 and stats([1, 2], [-1, -2])["cosine"] == pytest.approx(-1)
    assert stats([0, 0], [0, 1])["cosine"] is None
    assert stats([1e38, 1e38], [1e38, 1e38])["cosine"] == pytest.approx(1)


def test_top_k() -> None:
    a = np.array([[9, 8, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6, 7]], np.float32)
    b = a.copy()
    b[0, :2] = b[0, 1::-1]  # another winner in one row, the same five
    assert compare_arrays(a, b)["top_k"] == {"1": 0.5, "5": 1.0}
    assert compare_arrays(a, a)["top_k"] == {"1": 1.0, "5": 1.0}
    assert compare_arrays(a.reshape(2, 7, 1), b.reshape(2, 7, 1))["top_k"] is None


def test_vacuous_outputs_are_told() -> None:
    assert vacuous("y", ONES * [[1, 2, 3]], ONES * [[1, 2, 3]]) == []
    assert "zero everywhere" in vacuous("y", ONES * 0, ONES * [[1, 2, 3]])[0]
    assert "output 'y' of B is 1 everywhere" in vacuous("y", ONES * [[1, 2, 3]], ONES)[0]
    assert "NaN everywhere" in vacuous("y", ONES * np.float32("nan"), ONES)[0]
    assert "no elements" in vacuous("y", ONES[:0], ONES[:0])[0]
    assert vacuous("y", ONES[:1, :1] * 2, ONES[:1, :1] * 2) == []


def test_large_arrays_are_looked_at_in_parts() -> None:
    a = np.random.default_rng(0).standard_normal((3, 100_000)).astype(np.float32)
    b = np.roll(a, 1, axis=1)  # what the parts tell is what the whole tells
    b[2] = a[2]
    a[0, :9], b[0, :9], a[1, 0] = np.nan, np.nan, 0
    tracemalloc.start()
    result = compare_arrays(a, b)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 14 * a.nbytes
    x, y = (side[np.isfinite(side)].astype(np.float64) for side in (a, b))
    far = np.abs(x - y)
    assert result["max_rel"] == (far[x != 0] / np.abs(x[x != 0])).max() and result["min_rtol"] is None
    assert result["max_ulp"] == ulps(x.astype(np.float32), y.astype(np.float32), F32).max()
    assert result["cosine"] == pytest.approx(x @ y / np.sqrt((x @ x) * (y @ y)), abs=1e-14)
    decades = np.floor(np.log10(far[far > 0])).astype(int)
    assert result["histogram"] == [
        [0.0, int((far == 0).sum())],
        *([float(f"1e{d}"), int((decades == d).sum())] for d in np.unique(decades).tolist()),
    ]
    assert result["top_k"] == {"1": pytest.approx(1 / 3), "5": pytest.approx(1 / 3)}


@given(st.integers(1, 6), st.data())
def test_the_largest_of_a_row_are_those_that_a_stable_sort_puts_first(k: int, data: st.DataObject) -> None:
    numbers = st.sampled_from([0.0, -0.0, 1.0, 2.0, -3.0, np.inf, -np.inf, np.nan])
    rows = np.array(data.draw(st.lists(st.lists(numbers, min_size=7, max_size=7), min_size=1, max_size=4)))
    sorted_ = np.argsort(-rows, axis=1, kind="stable")[:, :k]
    assert _largest(rows, k).tolist() == [[i in row for i in range(7)] for row in sorted_.tolist()]
