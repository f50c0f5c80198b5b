"""Seeded inputs: their distributions, that they replay bit for bit, and what files may hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from graphcheck.api import compare
from graphcheck.errors import GraphcheckError, UsageError
from graphcheck.interface import inputs
from graphcheck.interface.inputs import InputSpec, generate, load_npz, save_npz, side_inputs
from graphcheck.interface.ports import Interface, Shapes, pair_interfaces
from graphcheck.options.values import parse_range


def interface(inputs: str = "float[N,40] x", inputs_b: str | None = None) -> Interface:
    first, second = (
        ir.from_onnx_text(
            f'<ir_version: 8, opset_import: ["" : 17]> g ({i}) => (float y) {{ y = Constant<value_int=1>() }}'
        )
        for i in (inputs, inputs_b or inputs)
    )
    return pair_interfaces(first, second)


X: Shapes = {"x": (50, 40)}


def draw(inputs: str = "float[N,40] x", shape: tuple[int, ...] = (50, 40), **options: Any) -> np.ndarray:
    return generate(interface(inputs), {"x": shape}, InputSpec(**options))["x"]


def test_normal_inputs() -> None:
    x = draw(seed=1, scale=10.0)
    assert x.dtype == np.float32 and x.shape == (50, 40)
    assert 9 < x.std() < 11 and abs(x.mean()) < 1 and (x < 0).any()


def test_seed_replays_and_other_seed_differs() -> None:
    spec = InputSpec(seed=3, distribution="extreme", scale=2.0, ranges=(("x", -1.0, 1.0),))
    assert InputSpec.from_json(spec.to_json() | {"shapes": {}}) == spec
    a, b = (generate(interface(), X, InputSpec(seed=seed))["x"] for seed in (3, 4))
    assert a.tobytes() == generate(interface(), X, InputSpec(seed=3))["x"].tobytes() and (a != b).any()
    two = generate(interface("float[N,40] x, float[N] z"), {"x": (50, 40), "z": (50,)}, InputSpec(seed=3))
    assert two["x"].tobytes() == a.tobytes(), "one more input changes no other"


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(
    ("a", "b"),
    [("uint8", "float16"), ("float16", "uint8"), ("int64", "bfloat16"), ("float", "int8"), ("bool", "float"),
     ("float", "bool"), ("int32", "bool"), ("float", "complex64"), ("complex64", "float16"), ("float8e4m3fn", "int64")],
)  # fmt: skip
def test_two_types_get_values_that_both_hold(a: str, b: str, wide: bool) -> None:
    pair = interface(f"{a}[50,40] x", f"{b}[50,40] x")
    x = generate(pair, X, InputSpec(integers="wide" if wide else "small"))
    first, second = (side["x"].astype(np.complex128) for side in side_inputs(pair, x))
    assert (first == second).all() and np.unique(first).size > 1


def test_no_value_is_both_a_string_and_a_number() -> None:
    with pytest.raises(UsageError, match=r"^input 'x' is float in A and string in B: no value is both$"):
        generate(interface("float[50,40] x", "string[50,40] x"), X, InputSpec())


def test_distributions() -> None:
    uniform = draw(distribution="uniform", scale=4.0)
    assert uniform.min() > 0 and 3 < uniform.max() < 4
    one_hot = draw(distribution="one-hot", scale=7.0)
    assert (np.count_nonzero(one_hot, axis=1) == 1).all() and one_hot.max() == 7
    assert (draw(distribution="constant", scale=3.0) == 3).all()
    extreme = np.abs(draw(distribution="extreme"))
    assert extreme.max() > 1e4 and extreme.min() < 1e-4
    assert draw("float x", (), distribution="one-hot").shape == ()


def test_signs() -> None:
    assert (draw(signs="positive") > 0).all() and (draw(signs="negative") < 0).all()


def test_zeros_are_left_out_unless_wanted() -> None:
    assert (draw("float16[N,40] x", scale=1e-10, zeros=True) == 0).all()
    assert draw("float16[N,40] x", scale=1e-7).all()
    assert draw("int64[N,40] x").min() == 1 and draw("int64[N,40] x", zeros=True).min() == 0


def test_ranges() -> None:
    x = draw(ranges=(("x", -5.0, 2.0),))
    assert -5 <= x.min() < -4 and 1 < x.max() <= 2
    assert draw(ranges=(("", 3.0, 4.0),)).min() >= 3
    assert (draw(distribution="constant", scale=9.0, ranges=(("x", -5.0, 2.0),)) == 2).all()
    integers = draw("int64[N,40] x", ranges=(("x", 0.5, 9.0),))
    assert set(integers.flat) == set(range(1, 10))
    with pytest.raises(UsageError, match=r"no integer between 0\.2 and 0\.8 for input 'x'"):
        draw("int64[N,40] x", ranges=(("x", 0.2, 0.8),))
    with pytest.raises(UsageError, match="no input is named 'q'; there are x"):
        draw(ranges=(("q", 0.0, 1.0),))


def test_other_types() -> None:
    assert set(draw("int32[N,40] x").flat) == {1, 2, 3}
    flags = draw("bool[N,40] x")
    assert flags.dtype == bool and flags.any() and not flags.all()
    assert np.isfinite(draw("float16[N,40] x", scale=1e6)).all()
    assert draw("bfloat16[N,40] x").dtype == ml_dtypes.bfloat16
    assert draw("complex64[N,40] x").imag.any()
    mask = generate(interface("int64[N,40] attention_mask"), {"attention_mask": (50, 40)}, InputSpec())[
        "attention_mask"
    ]
    assert set(mask.flat) == {0, 1} and (mask[:, 0] == 1).all()
    assert {type(word) for word in draw("string[N,40] x").flat} == {str}


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("uint8", 0, 255), ("int8", -128, 127), ("uint16", 0, 65535), ("uint32", 0, 2**32 - 1), ("int32", 1 - 2**15, 2**15 - 1)],
)
def test_wide_integers_reach_the_ends_of_their_type(kind: str, low: int, high: int) -> None:
    """But for int32 and int64, which proofs take as unbounded."""
    wide = draw(f"{kind}[N,40] x", integers="wide")
    assert (wide.min(), wide.max()) == (low, high) and np.unique(wide).size > 200
    assert set(draw(f"{kind}[N,40] x", integers="wide", ranges=(("x", 5, 6),)).flat) == {5, 6}
    masks = interface(f"{kind}[N,40] a_mask")
    assert set(generate(masks, {"a_mask": (50, 40)}, InputSpec(integers="wide"))["a_mask"].flat) == {0, 1}


def test_both_sides_get_the_same_numbers() -> None:
    mixed = interface("float[N,40] x", "float16[N,40] image")
    a, b = side_inputs(mixed, generate(mixed, X, InputSpec()))
    assert a["x"].dtype == np.float32 and b["image"].dtype == np.float16
    assert (a["x"] == b["image"].astype(np.float32)).all()


@pytest.mark.parametrize(
    "options",
    [
        {"distribution": "nope"},
        {"signs": "nope"},
        {"integers": "nope"},
        {"scale": 0.0},
        {"scale": float("nan")},
        {"seed": -1},
    ],
)
def test_bad_specs(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        InputSpec(**options)


def test_parse_range() -> None:
    assert parse_range("x=0,1") == ("x", 0, 1) and parse_range("-2.5,1e3") == ("", -2.5, 1000)
    for bad in ("x", "x=1", "x=1,2,3", "x=2,1", "x=0,inf", "x=a,b"):
        with pytest.raises(UsageError, match="--val-range"):
            parse_range(bad)


def test_files_replay_bit_for_bit(tmp_path: Path) -> None:
    both = interface("float[N,40] x, bfloat16[2] file, int64[1] ids")
    arrays = generate(both, {"x": (50, 40), "file": (2,), "ids": (1,)}, InputSpec())
    for name in ("a.npz", "b.npz"):
        save_npz(tmp_path / name, arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    loaded = load_npz(tmp_path / "a.npz", both)
    assert {k: (v.dtype, v.tobytes()) for k, v in loaded.items()} == {
        k: (v.dtype, v.tobytes()) for k, v in arrays.items()
    }


def test_one_comparison_reads_its_inputs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the runs and the proof ask for them in two threads; a search that finds a witness asks once more
    save_npz(tmp_path / "in.npz", {"x": np.ones((2, 4), np.float32)})
    models = [
        ir.from_onnx_text(f'<ir_version: 8, opset_import: ["" : 18]> g (float[N,4] x) => (float[N,4] y) {{ y = {op} (x) }}')
        for op in ("Relu", "Neg")
    ]
    read: list[str] = []
    load = inputs.load_npz
    monkeypatch.setattr(inputs, "load_npz", lambda path, both: read.append(str(path)) or load(path, both))
    assert compare(*models, inputs=tmp_path / "in.npz", run=True).verdict == "different"
    assert read == [str(tmp_path / "in.npz")]


def test_files_by_the_names_of_either_model(tmp_path: Path) -> None:
    save_npz(tmp_path / "in.npz", {"image": np.ones((2, 40))})
    loaded = load_npz(tmp_path / "in.npz", interface("float[N,40] x", "float[N,40] image"))
    assert list(loaded) == ["x"] and loaded["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.ones((2, 40)), "z": np.ones(1)}, "no input is named 'z'; there are x"),
        ({}, "input 'x' is missing"),
        ({"x": np.ones((2, 41))}, r"input 'x' has shape \[2, 41\], the model takes \['N', 40\]"),
        ({"x": np.ones(40)}, r"input 'x' has shape \[40\]"),
    ],
)
def test_files_that_do_not_fit(arrays: dict[str, Any], words: str, tmp_path: Path) -> None:
    save_npz(tmp_path / "in.npz", arrays)
    with pytest.raises(UsageError, match=words):
        load_npz(tmp_path / "in.npz", interface())


def test_floats_for_integers_are_refused(tmp_path: Path) -> None:
    save_npz(tmp_path / "in.npz", {"x": np.ones((2, 40))})
    with pytest.raises(UsageError, match="input 'x' has dtype float64, the model takes int64"):
        load_npz(tmp_path / "in.npz", interface("int64[N,40] x"))


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"nonsense")
    for name, words in (("bad.npz", "is not a .npz file"), ("none.npz", "there is no such file")):
        with pytest.raises(UsageError, match=words):
            load_npz(tmp_path / name, interface())
    with pytest.raises(GraphcheckError, match="cannot be written"):
        save_npz(tmp_path / "no" / "in.npz", {})
