"""Rank limits: patch embeddings and pure movement in steps of few dims, and what is left over the limit."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from patch_cases import IMAGE, TOKENS, conv, graph, ints, ops, patchify, projected, proved

from graphcheck.cli import main
from graphcheck.errors import GraphcheckError, UsageError
from graphcheck.files import model as model_
from graphcheck.patches.analyze import find
from graphcheck.patches.transpositions import factors
from graphcheck.rewriting import checks, timing
from graphcheck.rewriting.builder import steps
from graphcheck.rewriting.fastest import beats, explain, fastest
from graphcheck.rewriting.rewrite import rewrite
from graphcheck.rewriting.timing import onnxruntime_timer


def ranks(model: ir.Model) -> int:
    return max(len(v.shape) for n in model.graph for v in n.outputs if v.shape is not None)


IMAGES = {
    "2-d": patchify(["N", 3, 8, 12], [0, 3, 2, 4, 3, 4], [0, 2, 4, 1, 3, 5], [0, 6, 48]),
    "2-d, channels last": patchify(["N", 8, 12, 3], [0, 2, 4, 3, 4, 3], [0, 1, 3, 2, 4, 5], [0, 6, 48]),
    "3-d": patchify(["N", 3, 4, 8, 12], [0, 3, 2, 2, 2, 4, 3, 4], [0, 2, 4, 6, 1, 3, 5, 7], [0, 12, 96]),
}


@pytest.mark.parametrize("to", ["conv", "matmul"])
@pytest.mark.parametrize("limit", [5, 4])
@pytest.mark.parametrize("name", IMAGES)
def test_a_patch_embedding_keeps_to_the_limit(name: str, limit: int, to: str) -> None:
    result = rewrite(IMAGES[name], to, max_rank=limit)
    assert result.changed and ranks(result.model) <= limit
    assert [r.node for r in result.refusals] == (["x"] if name == "3-d" and limit == 4 else [])
    assert proved(IMAGES[name], result.model, {"N": 2}, {"N": 3})


def test_a_form_over_the_limit_gives_way_to_one_that_fits() -> None:
    assert [a.to for a in rewrite(IMAGES["3-d"], "conv", max_rank=5).applied] == ["conv"]
    assert [a.to for a in rewrite(IMAGES["3-d"], "conv", max_rank=4).applied] == ["matmul"]


def moved(shape: str, split: tuple[int, ...], perm: list[int], merged: tuple[int, ...], out: str) -> ir.Model:
    order = ", ".join(map(str, perm))
    body = f"r = Reshape(x, s) t = Transpose<perm = [{order}]>(r) y = Reshape(t, o)"
    return graph(f"float[{shape}] x", f"float[{out}] y", body, s=ints(*split), o=ints(*merged))


REGIONS = {
    "window partition": (moved("N,8,12,6", (-1, 2, 4, 3, 4, 6), [0, 1, 3, 2, 4, 5], (-1, 16, 6), "a,b,c"), "N", 2),
    "window reverse": (moved("N,16,6", (-1, 2, 3, 4, 4, 6), [0, 1, 3, 2, 4, 5], (-1, 8, 12, 6), "a,b,c,d"), "N", 6),
    "pixel shuffle": (moved("N,12,3,5", (0, 3, 2, 2, 3, 5), [0, 1, 4, 2, 5, 3], (0, 3, 6, 10), "a,b,c,d"), "N", 2),
    "static": (moved("2,8,12,6", (2, 2, 4, 3, 4, 6), [0, 1, 3, 2, 4, 5], (-1, 16, 6), "a,b,c"), "N", 2),
}


@pytest.mark.parametrize("limit", [5, 4])
@pytest.mark.parametrize("name", REGIONS)
def test_movement_is_split_into_steps(name: str, limit: int) -> None:
    model, symbol, size = REGIONS[name]
    result = rewrite(model, "conv", max_rank=limit)
    assert result.changed and result.refusals == () and len(result.moved) == 1
    assert ranks(result.model) <= limit and set(ops(result.model)) == {"Reshape", "Transpose"}
    assert proved(model, result.model, {symbol: size}, {symbol: 2 * size})
    assert max(row["rank"] for row in result.to_json()["moved"][0]["after"]) <= limit


def test_what_is_left_over_the_limit_is_told_with_the_reason() -> None:
    body = "r = Reshape(x, s) a = Relu(r) t = Transpose<perm = [0, 1, 3, 2, 4, 5]>(a) y = Reshape(t, o)"
    model = graph("float[N,8,12,6] x", TOKENS, body, s=ints(-1, 2, 4, 3, 4, 6), o=ints(-1, 16, 6))
    result = rewrite(model, "conv", max_rank=5)
    assert not result.changed
    assert [r.node for r in result.refusals] == ["Reshape(r)", "Relu(a)", "Transpose(t)"]
    assert result.refusals[0].reason.startswith("tensor r has 6 dims where 5 are allowed")


def test_an_input_over_the_limit_is_told() -> None:
    result = rewrite(IMAGES["3-d"], "matmul", max_rank=4)
    assert [r.reason for r in result.refusals] == ["input x has 5 dims where 4 are allowed"]
    with pytest.raises(UsageError, match="max_rank must be at least 3, not 2"):
        rewrite(IMAGES["2-d"], "conv", max_rank=2)


MASKED = """c = ConstantOfShape<value = float[1] {0.5}>(k) r = Reshape(c, s) t = Transpose<perm = [0, 1, 3, 2, 4, 5]>(r)
    o = Reshape(t, f) y = Add(x, o)"""


@pytest.mark.parametrize("limit", [5, 4])
def test_constants_of_many_dims_are_stored_with_few(limit: int) -> None:
    model = graph("float[N,12] x", "float[a,b] y", MASKED, k=ints(12), s=ints(1, 1, 3, 2, 2, 1), f=ints(12))
    result = rewrite(model, "conv", max_rank=limit)
    assert result.changed and result.refusals == () and ops(result.model) == ["Add"]
    assert proved(model, result.model, {"N": 2})
    (row,) = result.to_json()["moved"]
    assert ([step["op_type"] for step in row["before"]][-1], row["after"]) == ("Reshape", [])


SIX = {"s": ints(-1, 2, 4, 3, 4, 6), "o": ints(-1, 16, 6)}
LEFT = {
    "a sum": (
        "r = Reshape(x, s) t = Reshape(z, s) a = Add(r, t) y = Reshape(a, o)",
        "float[N,8,12,6] x, float[N,8,12,6] z",
        SIX,
        "tensor r has 6 dims where 5 are allowed: its nodes do more than move elements between smaller tensors",
    ),
    "joined": (
        "r = Reshape(x, s) t = Reshape(z, s) a = Concat<axis = 0>(r, t) y = Reshape(a, o)",
        "float[N,8,12,6] x, float[N,8,12,6] z",
        SIX,
        "tensor a has 6 dims where 5 are allowed: Concat joins several tensors",
    ),
    "turned round": (
        "r = Reshape(x, s) t = Slice(r, b, e, one, b) y = Reshape(t, o)",
        "float[N,8,12,6] x",
        {**SIX, "b": ints(-1), "e": ints(-(2**62)), "one": ints(1)},
        "tensor t has 6 dims where 5 are allowed: its nodes move elements in a way that no transposition of axes does",
    ),
    "an input": (
        "t = Transpose<perm = [0, 1, 3, 2, 4, 5]>(x) y = Reshape(t, o)",
        "float[N,2,4,3,4,6] x",
        {"o": SIX["o"]},
        "tensor t has 6 dims where 5 are allowed: it is an input of the model",
    ),
    "a constant": ("y = Add(x, w)", "float[N,2] x", {"w": (1, 1, 1, 1, 1, 2)}, "initializer w has 6 dims where 5 are allowed"),
    "a subgraph": (
        """c = ReduceMax<keepdims = 0>(x) z = Cast<to = 9>(c) y = If(z)<then_branch = one () => (float[1,1,1,1,N,2] u)
        { u = Reshape(x, s) }, else_branch = two () => (float[1,1,1,1,N,2] v) { v = Reshape(x, s) }>""",
        "float[N,2] x",
        {"s": ints(1, 1, 1, 1, -1, 2)},
        "tensor u has 6 dims where 5 are allowed: it is inside a subgraph",
    ),
}


@pytest.mark.parametrize("name", LEFT)
def test_each_tensor_over_the_limit_is_told(name: str) -> None:
    body, inputs, constants, reason = LEFT[name]
    outputs = TOKENS if "o" in constants else "float[a,b,c,d,e,f] y"
    result = rewrite(graph(inputs, outputs, body, **constants), "conv", max_rank=5)
    assert reason in [r.reason for r in result.refusals]
    assert not result.changed


@given(st.permutations(range(6)), st.integers(3, 5))
def test_steps_make_up_the_transposition(perm: list[int], limit: int) -> None:
    state: tuple[int, ...] = tuple(range(6))
    for blocks, order in steps(perm, limit):
        assert len(blocks) <= limit and tuple(itertools.chain(*blocks)) == state
        state = tuple(itertools.chain(*(blocks[i] for i in order)))
    assert state == tuple(perm)


@given(st.lists(st.integers(2, 4), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_factors_rebuild_the_transposition(sizes: list[int], random: st.random.Random) -> None:  # type: ignore[name-defined]
    perm = list(range(len(sizes)))
    random.shuffle(perm)
    index = np.arange(np.prod(sizes)).reshape(sizes).transpose(perm)
    found = factors(index, index.shape)
    assert found is not None
    total = sum(np.arange(n).reshape([-1, *[1] * (len(found) - 1 - at)]) * step for at, (n, step) in enumerate(found))
    assert np.array_equal(np.asarray(total).reshape(-1), index.reshape(-1))


def test_what_is_no_transposition_has_no_factors() -> None:
    assert factors(np.array([0, 1, 3, 2]), (4,)) is None
    assert factors(np.array([3, 2, 1, 0]), (4,)) is None


def timer(*medians: float):  # type: ignore[no-untyped-def]
    """A timer that reports these medians, in the order original, then the other forms."""
    return lambda models: [[m * f for f in (0.99, 1.0, 1.0, 1.0, 1.01)] for m in medians[: len(models)]]


def test_the_fastest_form_is_taken_beyond_noise_only() -> None:
    model = IMAGES["2-d"]  # original (matmul), then conv, unfold, space-to-depth
    result = fastest(model, timer(10.0, 5.0, 20.0, 6.0))
    assert ops(result.model)[0] == "Conv" and result.to == "fastest"
    assert [row["form"] for row in result.measured[0]["forms"]] == ["matmul", "conv", "unfold", "space-to-depth"]
    kept = fastest(model, timer(10.0, 9.999, 20.0, 16.0))
    assert not kept.changed and kept.reason == "no form beats the original beyond noise"
    assert kept.to_json()["measured"][0]["chosen"] == "matmul"


def test_a_form_beside_a_blocked_site_is_taken_where_it_is_measured_to_gain() -> None:
    model = projected("y = MatMul(m, w) z = Relu(m)", outputs=f"{TOKENS}, float[d,e,f] z", w=(48, 5))
    assert ops(fastest(model, timer(10.0, 5.0, 20.0, 6.0)).model)[3] == "Conv"
    assert not fastest(model, timer(10.0, 12.0, 20.0, 16.0)).changed


def test_noise_is_told_by_rounds() -> None:
    drifting = [1.0, 2.0, 4.0, 8.0, 16.0]  # a machine that gets slower: the same for both sides of a round
    assert beats([0.9 * t for t in drifting], drifting)
    assert not beats(drifting, [0.9 * t for t in drifting])
    assert not beats([9.0, 9.0, 11.0, 11.0, 9.0], [10.0] * 5), "faster in three rounds of five"
    assert not beats([0.999 * t for t in drifting], drifting), "by a thousandth"


def test_each_site_may_have_its_own_form() -> None:
    body = "y = MatMul(m, w) s = Relu(x) z = Conv<strides = [4, 4]>(s, v)"
    model = projected(body, outputs=f"{TOKENS}, float[d,e,f,g] z", w=(48, 5), v=(5, 3, 4, 4))
    result = rewrite(model, {"MatMul(y)": "conv", "Conv(z)": "matmul"})
    assert [(a.site.name, a.to) for a in result.applied] == [("MatMul(y)", "conv"), ("Conv(z)", "matmul")]
    assert proved(model, result.model, {"N": 2})


def test_reports_are_told_for_models_with_patches_only() -> None:
    assert {row["form"] for row in explain(find(IMAGES["2-d"]))} == {"conv", "matmul"}
    assert explain(find(conv("strides = [1, 1]", (5, 3, 1, 1), IMAGE))) == []


def test_explain_tells_what_is_reported_for_each_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, told = tmp_path / "m.onnx", tmp_path / "r.json"
    model_.write(IMAGES["2-d"], path)
    assert main(["rewrite", str(path), "--to", "matmul", "--dry-run", "--explain", "--json", str(told)]) == 0
    rows = json.loads(told.read_text())["reported"]
    assert {"target": "Ascend", "form": "conv"}.items() <= next(r for r in rows if r["target"] == "Ascend").items()
    assert "vllm-ascend#7017" in capsys.readouterr().out
    assert main(["rewrite", str(path), "--to", "quickest", "--dry-run"]) == 2
    assert "--to fastest measures them" in capsys.readouterr().err


# INT64_MIN / -1 traps.
CRASH = """(float[N,3,8,12] x) => (int64[N,3,8,12] y) <int64 m = {-1}, int64 z = {0}, int64 l = {-9223372036854775808}>
    { i = Cast<to = 7>(x) n = Mul(i, z) a = Add(n, l) y = Div(a, m) }"""


def measured(text: str, timeout: float = 60.0) -> str:
    """What is said where a model cannot be measured."""
    model = ir.from_onnx_text(f'<ir_version: 9, opset_import: ["" : 18]> g {text}')
    with pytest.raises(GraphcheckError, match=r"^onnxruntime could not be measured: ") as caught:
        onnxruntime_timer(threads=1, timeout=timeout)([IMAGES["2-d"], model])
    return str(caught.value).removeprefix("onnxruntime could not be measured: ")


def test_a_model_that_cannot_be_measured_is_told() -> None:
    assert [len(column) for column in onnxruntime_timer(threads=1, runs=2)([IMAGES["2-d"]] * 2)] == [2, 2]
    assert "NoSuchOp" in measured("(float[N,3,8,12] x) => (float[N,3,8,12] y) { y = NoSuchOp(x) }")
    assert measured(CRASH) == "onnxruntime crashed (SIGFPE)"
    endless = """(float[N,3,8,12] x) => (float[N,3,8,12] y) {
        n = Constant<value = int64 {9000000000}>() c = Constant<value = bool {1}>()
        y = Loop(n, c, x) <body = b (int64 i, bool d, float[N,3,8,12] v) => (bool e, float[N,3,8,12] w)
        { e = Identity(d) w = Cos(v) }> }"""
    assert measured(endless, 1.0) == "onnxruntime was not done after 1 s"


def test_free_sizes_are_asked_for_with_an_example() -> None:
    with pytest.raises(UsageError, match=r"say which shape to measure at, such as --shape x=1,3,224,224$"):
        onnxruntime_timer(threads=1)([conv("strides = [4, 4]", (5, 3, 4, 4))])


def test_a_form_that_crashes_while_it_is_timed_is_told_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the original itself crashes, there is nothing to measure against."""
    crash = ir.from_onnx_text(f'<ir_version: 9, opset_import: ["" : 18]> g {CRASH}')
    plain = timing.external.serialized

    def broken(model: ir.Model) -> bytes:
        return plain(crash if "Conv" in ops(model) else model)

    monkeypatch.setattr(timing.external, "serialized", broken)
    path, told = tmp_path / "m.onnx", tmp_path / "r.json"
    model_.write(IMAGES["2-d"], path)
    assert main(["rewrite", str(path), "--to", "fastest", "--shape", "x=1,3,8,12", "--dry-run", "--json", str(told)]) == 0
    (row,) = json.loads(told.read_text())["measured"]
    untimed = {form["form"]: form["untimed"] for form in row["forms"] if form["untimed"]}
    assert untimed == dict.fromkeys(("conv", "space-to-depth"), "onnxruntime crashed (SIGFPE)")
    assert row["chosen"] not in untimed and all((form["median"] is None) == bool(form["untimed"]) for form in row["forms"])
    assert "conv could not be timed: onnxruntime crashed (SIGFPE)" in capsys.readouterr().out
    model_.write(conv("strides = [4, 4]", (5, 3, 4, 4)), path)
    assert main(["rewrite", str(path), "--to", "fastest", "--shape", "x=1,3,8,12", "--dry-run"]) == 2
    assert "onnxruntime could not be measured: onnxruntime crashed (SIGFPE)" in capsys.readouterr().err


def test_a_crash_while_loading_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rewrite(IMAGES["2-d"], "conv").changed
    monkeypatch.setattr(
        checks, "why_refused", lambda model: "onnxruntime crashed (SIGSEGV)" if "Conv" in ops(model) else None
    )
    result = rewrite(IMAGES["2-d"], "conv")
    assert not result.changed and result.reason == "nothing to rewrite"
    (refusal,) = result.refusals
    assert refusal.reason.startswith("onnxruntime runs the original and refuses the result")
    assert refusal.reason.endswith(": onnxruntime crashed (SIGSEGV)")
