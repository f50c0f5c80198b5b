"""Pairing of inputs and outputs, and the shapes that two models both admit."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from graphcheck.errors import UsageError
from graphcheck.interface.ports import Interface, pair_interfaces, shapes, symbols
from graphcheck.options.values import parse_shape


def model(signature: str, body: str = "y = Identity(x)", opset: int = 17, version: int = 8) -> ir.Model:
    return ir.from_onnx_text(f'<ir_version: {version}, opset_import: ["" : {opset}]> g {signature} {{ {body} }}')


def pair(a: str, b: str) -> Interface:
    return pair_interfaces(model(a), model(b))


def kinds(interface: Interface) -> list[tuple[str, str]]:
    return [(m.kind, m.where) for m in interface.mismatches]


X = "(float[2,3] x) => (float[2,3] y)"


def test_equal_interfaces_pair_by_name_without_notes() -> None:
    interface = pair(X, X)
    assert interface.notes == () and interface.mismatches == ()
    row = interface.to_json()["inputs"][0]
    assert row == {
        "a": "x", "b": "x", "paired_by": "name",
        "a_dtype": "float", "b_dtype": "float", "a_shape": [2, 3], "b_shape": [2, 3],
    }  # fmt: skip


def test_names_win_over_positions() -> None:
    interface = pair_interfaces(
        model("(float[2] x, float[3] z) => (float[2] y)"), model("(float[3] z, float[2] x) => (float[2] y)")
    )
    assert [(p.a and p.a.name, p.b and p.b.name) for p in interface.inputs] == [("x", "x"), ("z", "z")]
    assert not interface.mismatches


def test_other_names_pair_by_position_and_it_says_so() -> None:
    interface = pair_interfaces(model(X), model("(float[2,3] image) => (float[2,3] out)", "out = Identity(image)"))
    assert [p.paired_by for p in (*interface.inputs, *interface.outputs)] == ["position", "position"]
    assert interface.notes[0] == "input 'x' of A is taken for 'image' of B, by position"
    assert interface.inputs[0].key == "x"


@pytest.mark.parametrize(
    ("other", "kind", "words"),
    [
        ("(float[2,3] x, float[1] z) => (float[2,3] y)", ("missing", "input"), "input 'z' of B has no partner in A"),
        ("(float[2,4] x) => (float[2,3] y)", ("dim", "input"), "size 3 on axis 1 in A and 4 in B ([2, 3] and [2, 4])"),
        ("(float[2,3,1] x) => (float[2,3] y)", ("rank", "input"), "rank 2 in A and rank 3 in B"),
        ("(float16[2,3] x) => (float[2,3] y)", ("dtype", "input"), "input 'x' is float in A and float16 in B"),
        ("(float[2,3] x) => (float[3,2] y)", ("dim", "output"), "output 'y' has size 2 on axis 0 in A and 3 in B"),
    ],
)
def test_what_does_not_fit(other: str, kind: tuple[str, str], words: str) -> None:
    interface = pair(X, other)
    assert kinds(interface)[0] == kind
    assert words in interface.to_json()["mismatches"][0]
    assert kinds(pair(other, X))[0] == kind


def test_missing_output() -> None:
    two = model("(float[2,3] x) => (float[2,3] y, float[2,3] z)", "y = Identity(x) z = Neg(x)")
    assert kinds(pair_interfaces(two, model(X))) == [("missing", "output")]
    assert not pair_interfaces(two, model(X), ["z"]).mismatches
    with pytest.raises(UsageError, match="no output is named nope; there are y, z"):
        pair_interfaces(two, model(X), ["nope"])


def test_static_against_symbolic_is_a_note() -> None:
    interface = pair("(float[N,3] x) => (float[N,3] y)", X)
    assert not interface.mismatches
    assert interface.notes[0] == "input 'x' is declared [N, 3] in A and [2, 3] in B: both admit the shapes compared"
    assert shapes(interface) == {"x": (2, 3)}


def test_names_of_dims_are_a_note() -> None:
    interface = pair("(float[N,3] x) => (float[N,3] y)", "(float[batch,3] x) => (float[batch,3] y)")
    assert not interface.mismatches and "[N, 3] in A and [batch, 3] in B" in interface.notes[0]
    assert shapes(interface, sizes={"batch": 5}) == shapes(interface, sizes={"N": 5}) == {"x": (5, 3)}
    assert symbols(interface) == {"N": ("x", 0)}


def test_initializers_among_the_inputs_are_not_required() -> None:
    old = model("(float[3] x, float[3] w) => (float[3] y) <float[3] w = {1.0, 2.0, 3.0}>", "y = Add(x, w)", version=3)
    new = model("(float[3] x) => (float[3] y) <float[3] w = {1.0, 2.0, 3.0}>", "y = Add(x, w)")
    interface = pair_interfaces(old, new)
    assert [p.key for p in interface.inputs] == ["x"] and not interface.mismatches


def test_one_symbol_has_one_size() -> None:
    two = "(float[N,3] x, float[M,N] z) => (float[N,3] y)"
    interface = pair(two, two)
    assert shapes(interface, sizes={"N": 4, "M": 6}) == {"x": (4, 3), "z": (6, 4)}
    assert shapes(interface, {"x": (7, 3)})["z"][1] == 7
    # B's M is A's N: then both axes of z are one size
    same = pair(two, "(float[M,3] x, float[M,M] z) => (float[M,3] y)")
    assert shapes(same, sizes={"M": 4}) == {"x": (4, 3), "z": (4, 4)}


def test_symbol_that_the_other_side_fixes_twice_is_a_mismatch() -> None:
    interface = pair("(float[N,3] x, float[N,3] z) => (float[N,3] y)", "(float[1,3] x, float[2,3] z) => (float[1,3] y)")
    assert kinds(interface) == [("dim", "input")]
    assert "no input shape suits both models" in interface.mismatches[0].message


def test_usual_sizes() -> None:
    assert shapes(pair(*["(float[b,c,h,w] x) => (float[b,c,h,w] y)"] * 2)) == {"x": (2, 3, 224, 224)}
    assert shapes(pair(*["(float[b,s,64] x) => (float[b,s,64] y)"] * 2)) == {"x": (2, 8, 64)}
    assert shapes(pair(*["(float x) => (float y)"] * 2)) == {"x": ()}


@pytest.mark.parametrize(
    ("overrides", "sizes", "words"),
    [
        ({"nope": (1, 3)}, {}, "no input is named 'nope'; there are 'x'"),
        ({"x": (1, 3, 1)}, {}, "has rank 2, not 3"),
        ({"x": (1, 4)}, {}, "axis 1 of input 'x' of A is 3, axis 1 of the shape asked for 'x' is 4"),
        ({"x": (1, 3)}, {"N": 2}, "the size asked for dim 'N' is 2"),
        ({}, {"Q": 2}, "no input has a dim 'Q'; there are N"),
        ({}, {"N": 0}, "must be at least 1"),
        ({"x": (-1, 3)}, {}, "negative size"),
    ],
)
def test_shapes_that_cannot_be(overrides: dict[str, tuple[int, ...]], sizes: dict[str, int], words: str) -> None:
    with pytest.raises(UsageError, match=words.replace("?", r"\?")):
        shapes(pair(*["(float[N,3] x) => (float[N,3] y)"] * 2), overrides, sizes)


def test_unknown_rank_needs_a_shape() -> None:
    a = model(X)
    a.graph.inputs[0].shape = None
    interface = pair_interfaces(a, a)
    assert not interface.mismatches and "no declared rank in A" in pair_interfaces(a, model(X)).notes[0]
    with pytest.raises(UsageError, match="input 'x' has no declared rank: give --shape x="):
        shapes(interface)
    assert shapes(interface, {"x": (2, 3)}) == {"x": (2, 3)}


def test_parse_shape() -> None:
    assert parse_shape("x=1,3,224,224") == ("x", (1, 3, 224, 224))
    assert parse_shape("a=b=2") == ("a=b", (2,)) and parse_shape("x=") == ("x", ())
    for bad in ("x", "=1", "x=1,,2", "x=-1", "x=a"):
        with pytest.raises(UsageError, match="--shape takes NAME=SIZE"):
            parse_shape(bad)
