"""Where the range of a quantizer ends: at a Relu or a Clip of the other model, at 0 where that goes on, at an exponent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from graphcheck import compare
from graphcheck.errors import Exhausted
from graphcheck.formats.console import Terminal
from graphcheck.formats.numbers import show_numbers
from graphcheck.kernel.terms.rules import PLAIN
from graphcheck.kernel.terms.rules.numbers import positive
from graphcheck.kernel.terms.store import Terms
from graphcheck.verdict import Comparison, Verdict
from tests.test_quantized_copies import ACCEPTED, QDQ, small


def compared(a: onnx.ModelProto, b: onnx.ModelProto, low: float, high: float) -> Comparison:
    return compare(a, b, allow=["int8"], run=False, graphs=False, ranges={"x": (low, high)})


@pytest.mark.parametrize(("low", "accepted"), [(0.0, True), (-0.5, False)])
def test_a_range_that_ends_at_0_is_right_where_no_input_lies_beyond(low: float, accepted: bool) -> None:
    plain, copy = small("y = Neg (x)"), small(QDQ.format("x", "s", "z", "Neg (d)"), s=1 / 255, z=np.uint8(0))
    found = compared(plain, copy, low, 1.0)
    assert (found.verdict is Verdict.WITHIN_ROUNDING) is accepted, found.reason
    assert accepted or "QuantizeLinear(q), whose range ends at 0 where the other model goes on, cuts off" in found.reason
    assert accepted or compare(plain, copy, allow=["int8"], run=False, graphs=False).verdict not in ACCEPTED


def test_a_range_that_costs_the_negative_half_of_a_silu_is_wrong_though_it_is_a_few_steps() -> None:
    silu = "g = Sigmoid (x) m = Mul (x, g) "
    plain = small(silu + "y = Neg (m)")
    for zero, accepted in ((0, False), (1, False), (2, False), (5, True), (6, True)):
        quantized = silu + QDQ.format("m", "s", "z", "Neg (d)")
        copy = small(quantized, s=12 / 255, z=np.uint8(zero))
        found = compared(plain, copy, -3.0, 3.0)
        assert (found.verdict is Verdict.WITHIN_ROUNDING) is accepted, (zero, found.reason)


def test_a_limit_met_by_the_curve_does_not_pass_a_copy_that_saturates(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise Exhausted("the time limit of 9 s was reached", code="GC201")

    monkeypatch.setattr("graphcheck.verdicts.judge.Alignment", exhausted)
    plain, copy = small("y = Neg (x)"), small(QDQ.format("x", "s", "z", "Neg (d)"), s=0.2 / 127, z=np.uint8(128))
    found = compare(plain, copy, allow=["int8"], run=False, graphs=False, ranges={"x": (-1.0, 1.0)})
    assert found.verdict not in ACCEPTED and "cuts off" in found.reason


def test_a_range_below_0_is_right_there_too() -> None:
    plain, copy = small("y = Neg (x)"), small(QDQ.format("x", "s", "z", "Neg (d)"), s=1 / 255, z=np.uint8(255))
    assert compared(plain, copy, -1.0, 0.0).verdict is Verdict.WITHIN_ROUNDING
    assert compared(plain, copy, -1.0, 0.5).verdict not in ACCEPTED


@pytest.mark.parametrize(("zero", "accepted"), [(0, False), (1, False), (2, False), (127, True), (254, False), (255, False)])
def test_a_zero_point_that_costs_half_of_the_numbers_is_no_rounding(zero: int, accepted: bool) -> None:
    """Also where the range ends a step beside 0, in either order, and beside a right copy with the same names."""
    scale = 1 / max(zero, 255 - zero)
    copy = small(QDQ.format("x", "s", "z", "Neg (d)"), s=scale, z=np.array(zero, np.uint8))
    right = small(QDQ.format("x", "s", "z", "Neg (d)"), s=1 / 127, z=np.uint8(128))
    for other in (small("y = Neg (x)"), right):
        for pair in ((other, copy), (copy, other)):
            found = compared(*pair, -1.0, 1.0)
            assert (found.verdict in ACCEPTED) is accepted, found.reason
            assert accepted or "cuts off" in found.reason


@pytest.mark.parametrize("zero", [128, 0])
def test_a_zero_point_at_the_other_end_of_the_range_cuts_off_half_of_it(zero: int) -> None:
    """A range from 0 to 1 that is taken for one from -0.5: nobody's calibration leaves that out."""
    plain, copy = small("y = Neg (x)"), small(QDQ.format("x", "s", "z", "Neg (d)"), s=1 / 255, z=np.uint8(zero))
    found = compared(plain, copy, 0.0, 1.0)
    assert (found.verdict in ACCEPTED) is (zero == 0) and ("cuts off" in found.reason) is (zero != 0)


def test_two_copies_whose_ranges_are_both_a_relu_are_the_same_but_for_roundings() -> None:
    one, two = (small(QDQ.format("x", "s", "z", "Neg (d)"), s=top / 255, z=np.uint8(0)) for top in (1.0, 1.02))
    assert compared(one, two, -1.0, 1.0).verdict is Verdict.WITHIN_ROUNDING


@pytest.mark.parametrize(("top", "accepted"), [(6.0, True), (3.0, False)])
def test_what_a_clip_cuts_off_is_no_saturation(top: float, accepted: bool) -> None:
    plain = small("c = Clip (x, l, u) y = Neg (c)", l=0.0, u=6.0)
    copy = small(QDQ.format("x", "s", "z", "Neg (d)"), s=top / 255, z=np.uint8(0))
    found = compared(plain, copy, -20.0, 20.0)
    assert (found.verdict is Verdict.WITHIN_ROUNDING) is accepted, found.reason


@pytest.mark.parametrize(("zero", "accepted"), [(24, False), (25, True), (26, True), (27, False)])
def test_a_zero_point_that_is_a_tie_may_go_either_way(zero: int, accepted: bool) -> None:
    """0.1 is 25.5 steps: what is nearest to it in float32 is no matter."""
    plain = small("c = Clip (x, l, u) y = Neg (c)", l=-0.1, u=0.9)
    copy = small(QDQ.format("x", "s", "z", "Neg (d)"), s=1 / 255, z=np.uint8(zero))
    found = compared(plain, copy, -0.5, 1.5)
    assert (found.verdict is Verdict.WITHIN_ROUNDING) is accepted, found.reason


def test_what_lies_behind_a_relu_in_a_range_is_counted_behind_it() -> None:
    body = "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) n = Neg (d) "
    copy = small(body + "p = QuantizeLinear (n, s, e) y = DequantizeLinear (p, s, e)", s=4 / 255, z=np.uint8(0), e=np.uint8(255))
    found = compared(small("r = Relu (x) y = Neg (r)"), copy, -4.0, 4.0)
    assert found.verdict is Verdict.WITHIN_ROUNDING
    assert [row["node"] for row in found.evidence["precision"]["saturated"]] == ["QuantizeLinear(q)"]


@pytest.mark.parametrize(("top", "colour"), [(4.0, "dim"), (2.0, "yellow")])
def test_what_a_relu_cuts_off_as_well_is_no_warning(top: float, colour: str) -> None:
    class Seen(Terminal):
        """A terminal that keeps what is said in each style."""

        def say(self, text: str, style: str = "") -> None:
            said[text] = style

    said: dict[str, str] = {}
    copy = small(QDQ.format("x", "s", "z", "Neg (d)"), s=top / 255, z=np.uint8(0))
    found = compared(small("r = Relu (x) y = Neg (r)"), copy, -4.0, 4.0)
    assert (found.verdict is Verdict.WITHIN_ROUNDING) == (colour == "dim")
    show_numbers(Seen(), found.evidence["precision"], None)
    ((text, style),) = [row for row in said.items() if " saturates: " in row[0]]
    assert style == colour and text.endswith(", as a Relu of the other model does") == (colour == "dim")


@pytest.mark.parametrize(("power", "accepted"), [(2.0, True), (1.99, False), (3.0, False)])
def test_an_exponent_that_is_quantized(power: float, accepted: bool) -> None:
    copy = small("k = DequantizeLinear (p, t) y = Pow (x, k)", p=np.int8(100), t=0.02001)
    found = compared(small("y = Pow (x, k)", k=power), copy, 0.5, 1.0)
    assert (found.verdict is Verdict.WITHIN_ROUNDING) is accepted, found.reason


@pytest.mark.parametrize(("stored", "accepted"), [(5, True), (6, False)])
def test_a_zero_that_is_quantized(stored: int, accepted: bool) -> None:
    out = "float[N,6] y"
    body = "v = DequantizeLinear (p, t, o) y = Pad (x, k, v)"
    copy = small(body, out=out, p=np.int8(stored), t=1.0, o=np.int8(5), k=[0, 1, 0, 1])
    plain = small("y = Pad (x, k)", out=out, k=[0, 1, 0, 1])
    assert (compared(plain, copy, -1.0, 1.0).verdict in ACCEPTED) is accepted


# The half of a Gelu as dynamo's exporter writes it: its constants are quantized as well, and its ranges begin at 0.
GELU = "e = Erf (x) a = Add (e, one) m = Mul (half, a) g = Mul (x, m) y = MatMul (g, w)"
GELU_COPY = """half = DequantizeLinear (p, hs, z) one = DequantizeLinear (o, os, z) e = Erf (x) a = Add (e, one)
    b = QuantizeLinear (a, s, z) c = DequantizeLinear (b, s, z) m = Mul (half, c)
    q = QuantizeLinear (m, s, z) d = DequantizeLinear (q, s, z) g = Mul (x, d) y = MatMul (g, w)"""


@pytest.mark.parametrize(
    ("half", "stored", "accepted"),
    [(0.5, 127, True), (0.5, 126, False), (-0.5, 127, False), (-0.5, -128, False), (0.5, -127, False)],
)
def test_a_quantized_factor_is_known_to_be_positive_by_its_steps(half: float, stored: int, accepted: bool) -> None:
    """A factor below 0 leaves nothing above the range."""
    w = np.eye(4, dtype=np.float32)
    given = {"p": np.int8(stored), "hs": 0.5 / 255, "o": np.int8(127), "os": 1 / 255, "z": np.int8(-128), "s": 2 / 255}
    found = compared(small(GELU, w=w, half=half, one=1.0), small(GELU_COPY, w=w, **given), -3.0, 3.0)
    assert (found.verdict is Verdict.WITHIN_ROUNDING) is accepted, found.reason


@pytest.mark.parametrize("scale", [1 / 255, 2 / 255])
@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_a_factor_that_is_another_number_is_refused(scale: float, gain: float) -> None:
    """Also where it is the other constant of the net, so that one of two that meet is made of the other."""
    w = gain * np.eye(4, dtype=np.float32)
    given = {"p": np.int8(127), "hs": scale, "o": np.int8(127), "os": 1 / 255, "z": np.int8(-128), "s": 2 / 255}
    found = compared(small(GELU, w=w, half=0.5, one=1.0), small(GELU_COPY, w=w, **given), -3.0, 3.0)
    assert found.verdict not in ACCEPTED, found.reason


@pytest.mark.parametrize(("stored", "known"), [(10, True), (9, False), (-128, False)])
def test_a_stored_integer_is_positive_whatever_steps_are_allowed(stored: int, known: bool) -> None:
    terms = Terms(PLAIN)
    near = terms.ew("near:int8", [(terms.const(np.int8([stored, 100]), 0), None)], 2)
    assert positive(terms, near, near=True) is known and not positive(terms, near)


SATURATING = small(QDQ.format("x", "s", "z", "Neg (d)"), s=0.2 / 127, z=np.uint8(128))
RIGHT = small(QDQ.format("x", "s", "z", "Neg (d)"), s=1 / 127, z=np.uint8(128))


@pytest.mark.parametrize("by", ["size", "time", "trouble"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_copy_that_saturates_does_not_pass_where_its_numbers_are_not_told(
    by: str, turned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large models are looked at all the same; what cannot be looked at is undecided, right copies too."""

    def fails(*_: object, **__: object) -> None:
        raise MemoryError if by == "trouble" else Exhausted("the time limit of 9 s was reached", code="GC201")

    if by == "size":
        monkeypatch.setattr("graphcheck.verdicts.numbers._MOST", 0.0)
    else:
        monkeypatch.setattr("graphcheck.precision.copy.walks.walk", fails)
    plain = small("y = Neg (x)")
    for copy, right in ((SATURATING, False), (RIGHT, True)):
        found = compared(*((copy, plain) if turned else (plain, copy)), -1.0, 1.0)
        assert (found.verdict is Verdict.WITHIN_ROUNDING) is (right and by == "size"), found.reason
        if by != "size":
            assert found.code == "GC219", found.reason
            assert f"what QuantizeLinear(q) of {'A' if turned else 'B'} cuts off was not looked at: the" in found.reason
        elif not right:
            assert found.code == "GC213" and "QuantizeLinear(q) cuts off" in found.reason


def looped() -> Comparison:
    """A net of a loop, and a copy that quantizes within it."""
    body = "y = Loop (n, , x) <body = b (int64 i, bool c, float[N,4] v) => (bool c, float[N,4] t) {{ {0} }}>"
    inside = QDQ.format("v", "s", "z", "Neg (d)").replace("y =", "t =")
    copy = small(body.format(inside), s=1 / 127, z=np.uint8(128), n=np.int64(2))
    return compared(small(body.format("t = Neg (v)"), n=np.int64(2)), copy, -1.0, 1.0)


def test_a_quantizer_inside_of_a_loop_is_not_looked_at() -> None:
    found = looped()
    assert found.verdict not in ACCEPTED and found.code == "GC219" and "it stands inside of a node" in found.reason


def test_a_quantizer_inside_of_a_node_is_no_other_one_of_its_name() -> None:
    loop = "y = Loop (n, , {0}) <body = b (int64 i, bool c, float[N,4] v) => (bool c, float[N,4] t) {{ k = Neg (v) {1} }}>"
    outside = "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) "
    inside = "p = QuantizeLinear (k, l, z) t = DequantizeLinear (p, l, z)"
    copy = small(outside + loop.format("d", inside), s=1 / 127, l=5e-4, z=np.int8(0), n=np.int64(2))
    body = copy.graph.node[-1].attribute[0].g.node
    copy.graph.node[0].name = body[1].name = "Q"
    found = compared(small(loop.format("x", "t = Identity (k)"), n=np.int64(2)), copy, -1.0, 1.0)
    assert found.verdict not in ACCEPTED and found.code == "GC219" and "what Q of B cuts off" in found.reason


RESIZED = {
    "as it is": ("q", "linear", "s", "z", True),
    "another scale": ("q", "linear", "t", "z", False),
    "another zero point": ("q", "linear", "s", "u", False),
    "another mode": ("q", "cubic", "s", "z", False),
    "another order": ("o", "linear", "s", "z", False),
}


@pytest.mark.parametrize("case", RESIZED)
def test_means_of_quantized_elements_keep_their_scale(case: str) -> None:
    place, mode, scale, zero, accepted = RESIZED[case]
    shaped = "v = Reshape (x, shape) t1 = Transpose <perm = [0,2,3,1]> (v)"
    back = "m = Transpose <perm = [0,3,1,2]> ({0}) r = Resize <mode = \"{1}\"> (m, , factors) "
    plain = f"{shaped} {back.format('t1', 'linear')} f = Flatten (r) y = Relu (f)"
    body = f"""{shaped} q = QuantizeLinear (t1, s, z) o = Transpose <perm = [0,2,1,3]> (q) {back.format(place, mode)}
        f = Flatten (r) d = DequantizeLinear (f, {scale}, {zero}) y = Relu (d)"""
    given = {"s": 0.05, "t": 0.06, "z": np.array(120, np.uint8), "u": np.array(121, np.uint8)}
    stored = {"shape": np.array([-1, 1, 2, 2]), "factors": np.array([1, 1, 2, 2], np.float32)}
    copy = small(body, out="float[N,16] y", **stored, **{k: v for k, v in given.items() if k in ("s", "z", scale, zero)})
    found = compared(small(plain, out="float[N,16] y", **stored), copy, -5.0, 5.0)
    assert (found.verdict is Verdict.WITHIN_ROUNDING) == accepted, found.reason


@pytest.mark.parametrize(("low", "by", "accepted"), [(0.5, 0, True), (0.5, 1, False), (-1.0, 0, False)])
def test_a_range_at_0_between_constants_that_the_model_adds_up(low: float, by: int, accepted: bool) -> None:
    w, b, c = np.abs(np.eye(4)) + 0.1, np.array([0.1, 0.2, 0.3, 0.4]), np.array([-1.0, 0.5, 0.25, -2.0])
    scale = np.float32(2 / 127)
    whole = np.rint(c / scale).astype(np.int8) + np.array([0, by, 0, 0], np.int8)
    body = "h = MatMul (x, w) p = Add (h, b) " + QDQ.format("p", "s", "z", "Add (d, e)").replace(
        "y =", "e = DequantizeLinear (k, t) y ="
    )
    plain = small("h = MatMul (x, w) p = Add (h, b) y = Add (p, c)", w=w, b=b, c=c)
    copy = small(body, w=w, b=b, s=3 / 255, z=np.uint8(0), k=whole, t=np.asarray(scale))
    found = compared(plain, copy, low, 1.0)
    assert (found.verdict is Verdict.WITHIN_ROUNDING) == accepted, found.reason


@pytest.mark.parametrize(("most", "accepted"), [(2.0, True), (1.0, False)])
def test_a_clip_of_another_size_is_none_that_a_quantizer_took_away(most: float, accepted: bool) -> None:
    norm = "m = ReduceSum <keepdims = 1> (x, axis) c = Clip (m, least) "
    gelu = "f = Erf (x) o = Add (f, one) {0} g = Mul (x, {1}) h = Mul (g, {2}) p = MatMul (h, w) y = Div (p, c)"
    given = {"axis": np.array([1]), "least": 1e-12, "one": 1.0, "w": np.eye(4) + 0.2}
    body = "q = QuantizeLinear (o, s, z) d = DequantizeLinear (q, s, z) e = DequantizeLinear (k, t, u)"
    steps = {"s": most / 255, "z": np.uint8(0), "k": np.uint8(255), "t": 0.5 / 255, "u": np.uint8(0)}
    plain = small(norm + gelu.format("", "o", "half"), half=0.5, **given)
    found = compared(plain, small(norm + gelu.format(body, "d", "e"), **given, **steps), -1.0, 1.0)
    assert (found.verdict is Verdict.WITHIN_ROUNDING) == accepted, found.reason


@pytest.mark.parametrize(("below", "accepted"), [(1, True), (3, False)])
def test_what_a_range_cuts_off_is_counted_among_all_that_was_run(below: int, accepted: bool, tmp_path: Path) -> None:
    copy = small(QDQ.format("x", "s", "z", "Neg (d)"), s=1 / 255, z=np.uint8(0))
    files = [str(tmp_path / f"{i}.npz") for i in range(4)]
    for i, file in enumerate(files):
        values = np.linspace(0.4, 0.6, 4, dtype=np.float32).reshape(1, 4)
        values[0, :below] = -2 / 255 if i == 0 else 0.5  # two steps
        np.savez(file, x=values)
    given = {"inputs": files[0], "more_inputs": files[1:], "allow": ["int8"], "graphs": False}
    found = compare(small("y = Neg (x)"), copy, **given)
    assert (found.verdict is Verdict.WITHIN_ROUNDING) == accepted, found.reason


@pytest.mark.parametrize(("top", "accepted"), [(0.4, True), (0.2, False)])
def test_a_stored_row_that_is_expanded_to_the_batch_is_a_constant(top: float, accepted: bool) -> None:
    """As the class token of a ViT: its length is that of an input, its numbers are not."""
    expand = "h = Shape (x) b = Slice (h, zero, one) n = Concat <axis = 0> (b, four) e = Expand (c, n) "
    stored = {"c": np.array([[0.1, 0.2, 0.3, 0.4]]), **{k: np.array([v]) for k, v in (("zero", 0), ("one", 1), ("four", 4))}}
    copy = small(expand + QDQ.format("e", "s", "z", "Add (x, d)"), s=top / 255, z=np.uint8(0), **stored)
    found = compared(small(expand + "y = Add (x, e)", **stored), copy, -1.0, 1.0)
    assert (found.verdict is Verdict.WITHIN_ROUNDING) == accepted, found.reason


@pytest.mark.parametrize("how", ["half_pixel", "tf_crop_and_resize"])
def test_a_0_outside_of_a_region_is_one_of_the_integers(how: str) -> None:
    """For a zero point of 120 the copy gives -6 there, where the model gives 0."""
    resize = f'Resize <mode = "linear", coordinate_transformation_mode = "{how}"> ({{}}, region, , sizes)'
    body = f"q = QuantizeLinear (x, s, z) r = {resize.format('q')} y = DequantizeLinear (r, s, z)"
    stored = {"region": np.array([0, 0.1, 1, 1.3], np.float32), "sizes": np.array([2, 7])}
    copy = small(body, out="float[N,7] y", s=0.05, z=np.array(120, np.uint8), **stored)
    plain = small(f"y = {resize.format('x')}", out="float[N,7] y", **stored)
    found = compare(plain, copy, allow=["int8"], run=False, graphs=False)
    assert (found.verdict is Verdict.WITHIN_ROUNDING) == (how == "half_pixel"), found.reason


@pytest.mark.parametrize(("most", "accepted"), [(0.09, True), (1.0, False)])
def test_a_range_that_cuts_off_all_of_one_input_by_far_is_wrong_though_no_other_is_cut(
    most: float, accepted: bool, tmp_path: Path
) -> None:
    copy = small(QDQ.format("x", "s", "z", "Neg (d)"), s=0.2 / 255, z=np.uint8(128))
    files = [str(tmp_path / f"{i}.npz") for i in range(12)]
    for i, file in enumerate(files):
        np.savez(file, x=np.linspace(0.9, 1.0, 4, dtype=np.float32).reshape(1, 4) * np.float32(0.09 if i else most))
    given = {"inputs": files[0], "more_inputs": files[1:], "allow": ["int8"], "graphs": False}
    found = compare(small("y = Neg (x)"), copy, run=False, **given)
    assert (found.verdict is Verdict.WITHIN_ROUNDING) == accepted, found.reason
