"""Movement between pixels and channels without a projection: as SpaceToDepth, DepthToSpace, or Reshape and Transpose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from patch_cases import graph, ints, ops

import graphcheck
from graphcheck.cli import main
from graphcheck.errors import UsageError
from graphcheck.patches.preparing import analyze_json
from graphcheck.rewriting.result import Rewrite
from graphcheck.rewriting.rewrite import rewrite
from graphcheck.verdict import Verdict
from graphcheck.verdicts.compare import compare

DOWN, UP = ints(0, 8, 6, 2, 6, 2), ints(0, 2, 2, 8, 6, 6)
OUT = "float[a,b,c,d] y"


def moved(inputs: str, perm: str, first: np.ndarray, last: np.ndarray, opset: int = 17, outputs: str = OUT) -> ir.Model:
    body = f"r = Reshape(x, s) t = Transpose<perm = [{perm}]>(r) y = Reshape(t, e)"
    return graph(inputs, outputs, body, opset, s=first, e=last)


DYNAMIC = """
    sh = Shape(x) n = Gather<axis = 0>(sh, i0) h = Gather<axis = 0>(sh, i2) v = Gather<axis = 0>(sh, i3)
    gh = Div(h, p) gw = Div(v, p) s1 = Concat<axis = 0>(n, c, gh, p, gw, p) r = Reshape(x, s1)
    t = Transpose<perm = [0, 3, 5, 1, 2, 4]>(r) s2 = Concat<axis = 0>(n, k, gh, gw) y = Reshape(t, s2)
"""
NUMBERS = {"i0": ints(0), "i2": ints(2), "i3": ints(3), "p": ints(2), "c": ints(8), "k": ints(32)}
IMAGE, TOKENS = "float[N,8,12,12] x", "float[N,32,6,6] x"
# name: (model, the operators that it becomes)
CASES: dict[str, tuple[ir.Model, list[str]]] = {
    "to depth": (moved(IMAGE, "0, 3, 5, 1, 2, 4", DOWN, ints(0, 32, 6, 6)), ["SpaceToDepth"]),
    "pixel unshuffle": (moved(IMAGE, "0, 1, 3, 5, 2, 4", DOWN, ints(0, 32, 6, 6)), ["SpaceToDepth", "Gather"]),
    "to space": (moved(TOKENS, "0, 3, 4, 1, 5, 2", UP, ints(0, 8, 12, 12)), ["DepthToSpace"]),
    "pixel shuffle": (moved(TOKENS, "0, 1, 4, 2, 5, 3", ints(0, 8, 2, 2, 6, 6), ints(0, 8, 12, 12)), ["DepthToSpace"]),
    "pixel shuffle, opset 9": (
        moved(TOKENS, "0, 1, 4, 2, 5, 3", ints(0, 8, 2, 2, 6, 6), ints(0, 8, 12, 12), 9),
        ["Gather", "DepthToSpace"],
    ),
    "another order": (
        moved(TOKENS, "0, 1, 4, 3, 5, 2", ints(0, 8, 2, 2, 6, 6), ints(0, 8, 12, 12)),
        ["Gather", "DepthToSpace"],
    ),
    "grey": (
        moved("float[1,1,12,9] x", "0, 3, 5, 1, 2, 4", ints(0, 1, 4, 3, 3, 3), ints(0, 9, 4, 3)),
        ["SpaceToDepth"],
    ),
    "dynamic": (graph("float[N,8,H,W] x", OUT, DYNAMIC, **NUMBERS), ["SpaceToDepth"]),
}


def proving(model: ir.Model, to: str, **more: Any) -> Rewrite:
    return rewrite(model, to, check=lambda a, b: compare(a, b, graphs=False), movement=True, **more)


@pytest.mark.parametrize("name", CASES)
def test_movement_becomes_one_operator_and_comes_back(name: str) -> None:
    model, expected = CASES[name]
    result = proving(model, "space-to-depth")
    assert result.verdict is Verdict.PROVED, (result.reason, result.refusals)
    moving = {"Reshape", "Transpose", "SpaceToDepth", "DepthToSpace"}
    assert [op for op in ops(result.model) if op in moving or op == "Gather"] == expected
    (row,) = result.to_json()["moved"]
    assert row["to"] == ("depth-to-space" if "DepthToSpace" in expected else "space-to-depth")
    back = proving(result.model, "reshape")
    assert back.verdict is Verdict.PROVED
    assert [op for op in ops(back.model) if op in moving] == [
        "Reshape",
        "Transpose",
        "Reshape",
    ]
    again = proving(back.model, "space-to-depth")
    assert ops(again.model) == ops(result.model)


@pytest.mark.parametrize("name", CASES)
def test_analyze_tells_what_would_be_written_anew(name: str) -> None:
    model, _ = CASES[name]
    (told,) = analyze_json(model)["movements"]
    result = proving(model, "space-to-depth")
    (row,) = result.to_json()["moved"]
    assert (told["input"], told["output"], told["kind"]) == (row["input"], row["output"], row["to"])
    assert (told["form"], told["blocksize"], told["site"]) == ("reshape", 3 if name == "grey" else 2, None)
    order = {"another order": "c p2 p1"}.get(name, "c p1 p2" if name.startswith("pixel") else "p1 p2 c")
    ends = ("n c (h p1) (w p2)", f"n ({order}) h w")
    assert told["pattern"] == " -> ".join(ends if told["kind"] == "space-to-depth" else ends[::-1])
    assert told["channels"] == (1 if name == "grey" else 8)
    assert told["nodes"][-1] == "Reshape(y)" and "graphcheck" not in str(told)
    (after,) = analyze_json(result.model)["movements"]
    assert after["form"] == after["kind"] == told["kind"]


def test_analyze_tells_movement_of_a_site_as_such_and_no_other(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert [analyze_json(model)["movements"] for model, _ in REFUSED.values()] == [[]] * len(REFUSED)
    body = "r = Reshape(x, s) t = Transpose<perm = [0, 3, 5, 1, 2, 4]>(r) m = Reshape(t, e) y = Conv(m, w)"
    site = graph(IMAGE, OUT, body, s=DOWN, e=ints(0, 32, 6, 6), w=(4, 32, 1, 1))
    (told,) = analyze_json(site)["movements"]
    assert (told["site"], told["kind"]) == ("Conv(y)", "space-to-depth")
    for name, model, count in (("site", site, 0), ("bare", CASES["to depth"][0], 1)):
        ir.save(model, tmp_path / f"{name}.onnx")
        assert main(["analyze", str(tmp_path / f"{name}.onnx")]) == 0
        assert capsys.readouterr().out.count("1 movement without a projection (rewrite --movement)") == count
    assert [shuffle.kind for shuffle in graphcheck.analyze(tmp_path / "bare.onnx").movements] == ["space-to-depth"]


def test_nobody_asked_is_said() -> None:
    model, _ = CASES["pixel unshuffle"]
    result = rewrite(model, "space-to-depth")
    assert not result.changed
    assert [(r.reason, r.node) for r in result.refusals] == [
        ("no projection is behind this movement, and --movement rewrites it without one", "Reshape(y)")
    ]


REFUSED = {
    "channels last": (
        moved("float[N,12,12,8] x", "0, 1, 3, 2, 4, 5", ints(0, 6, 2, 6, 2, 8), ints(0, 6, 6, 32)),
        "it does not move square blocks of pixels to or from the channels in axis 1",
    ),
    "no square blocks": (
        moved("float[N,8,12,12] x", "0, 3, 5, 1, 2, 4", ints(0, 8, 4, 3, 6, 2), ints(0, 48, 4, 6)),
        "it does not move square blocks of pixels to or from the channels in axis 1",
    ),
    "tokens": (
        moved("float[N,8,12,12] x", "0, 2, 4, 1, 3, 5", DOWN, ints(0, 36, 32), outputs="float[a,b,c] y"),
        "it moves 4 to 3 dims, and SpaceToDepth and DepthToSpace take and give [batch, channels, height, width]",
    ),
    "used elsewhere": (
        graph(IMAGE, f"{OUT}, float[f,g,h,i,j,k] z",
              "r = Reshape(x, s) t = Transpose<perm = [0, 3, 5, 1, 2, 4]>(r) y = Reshape(t, e) z = Neg(r)",
              s=DOWN, e=ints(0, 32, 6, 6)),
        "its inner tensor r is used elsewhere",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_other_movement_is_left_with_the_reason(name: str) -> None:
    model, reason = REFUSED[name]
    result = proving(model, "space-to-depth")
    assert not result.changed and [refusal.reason for refusal in result.refusals] == [reason]


@pytest.mark.parametrize(("image", "split", "depth"), [
    ("1,0,8,8", (1, 0, 4, 2, 4, 2), (1, 0, 4, 4)),  # no channels
    ("1,4,0,8", (1, 4, 0, 2, 4, 2), (1, 16, 0, 4)),  # no pixels
    ("0,4,8,8", (0, 4, 4, 2, 4, 2), (0, 16, 4, 4)),  # no images
])  # fmt: skip
def test_movement_of_nothing_is_left(image: str, split: tuple[int, ...], depth: tuple[int, ...]) -> None:
    body = "r = Reshape<allowzero=1>(x, s) t = Transpose<perm = [0, 3, 5, 1, 2, 4]>(r) y = Reshape<allowzero=1>(t, e)"
    model = graph(f"float[{image}] x", OUT, body, 17, s=ints(*split), e=ints(*depth))
    assert not proving(model, "space-to-depth").changed and not rewrite(model, "space-to-depth").refusals


def test_channels_in_any_order_stay_a_gather() -> None:
    order = np.random.default_rng(0).permutation(32)
    model = graph(IMAGE, OUT, "d = SpaceToDepth<blocksize = 2>(x) y = Gather<axis = 1>(d, i)", i=order)
    (refusal,) = proving(model, "reshape").refusals
    said = (
        "its nodes move elements in a way that no transposition of axes does, so that it stays SpaceToDepth and Gather"
    )
    assert refusal.reason == said


@pytest.mark.parametrize("mutant", ["mode", "order", "blocks"])
def test_a_wrong_operator_is_seen(mutant: str) -> None:
    model, _ = CASES["another order" if mutant == "order" else "pixel shuffle"]
    wrong = rewrite(model, "space-to-depth", movement=True).model
    node = next(node for node in wrong.graph if node.op_type == "DepthToSpace")
    if mutant == "mode":
        node.attributes["mode"] = ir.AttrString("mode", "DCR")
    elif mutant == "order":
        (order,) = (value for name, value in wrong.graph.initializers.items() if name.endswith("/order"))
        assert order.const_value is not None
        order.const_value = ir.tensor(np.roll(order.const_value.numpy(), 1), name=order.name)
    else:
        node.op_type = "SpaceToDepth"
        del node.attributes["mode"]
    assert compare(model, wrong, graphs=False).verdict is Verdict.DIFFERENT


@pytest.mark.parametrize(("to", "sites"), [("conv", None), ("depth-to-space", None), ("space-to-depth", ["y"])])
def test_what_it_goes_with(to: str, sites: list[str] | None) -> None:
    with pytest.raises(UsageError, match=r"--movement is for --to space-to-depth or reshape, without --site; .* DepthToSpace"):
        rewrite(CASES["to depth"][0], to, sites=sites, movement=True)
    with pytest.raises(UsageError, match="there is no form 'reshape'"):
        rewrite(CASES["to depth"][0], "reshape")
