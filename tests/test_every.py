"""What compare and analyze say of free sizes: every batch size, the node that stands against it, sizes where a graph changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphcheck import Verdict, compare
from graphcheck.cli import main
from graphcheck.errors import UsageError
from graphcheck.patches.preparing import analyze_json

HEAD = '<ir_version: 9, opset_import: ["": 18]>\n'
DOUBLE = HEAD + "g (float[N,3] x) => (float[N,3] y) { two = Constant<value_float=2.0>()\n y = Mul(x, two) }"
SUM = HEAD + "g (float[N,3] x) => (float[N,3] y) { y = Add(x, x) }"
# 2x if batch <= 4 else 3x
SWITCH = (
    HEAD
    + """g (float[N,3] x) => (float[N,3] y) {
  n = Shape<start=0, end=1>(x)
  four = Constant<value_ints=[4]>()
  few = LessOrEqual(n, four)
  two = Constant<value_float=2.0>()
  three = Constant<value_float=3.0>()
  f = Where(few, two, three)
  y = Mul(x, f)
}"""
)
ALONG = HEAD + "g (float[N,3] x) => (float[N,3] y) { y = Softmax<axis=0>(x) }"
TURNED = (
    HEAD
    + """g (float[N,3] x) => (float[N,3] y) {
  t = Transpose<perm=[1,0]>(x)
  s = Softmax<axis=1>(t)
  y = Transpose<perm=[1,0]>(s)
}"""
)


def model(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(text)


def test_what_works_row_by_row_is_proved_at_one_size_for_every_batch_size() -> None:
    result = compare(model(DOUBLE), model(SUM), run=False, every=["batch"])
    proof = result.evidence["proof"]
    assert result.verdict is Verdict.PROVED
    assert (proof["every"], proof["shapes"], proof["limits"]) == (["N"], [{"x": [2, 3]}], {})
    assert "for every batch size and every input of shape x=Nx3" in result.reason


def test_a_size_at_which_a_graph_changes_is_looked_at() -> None:
    result = compare(model(DOUBLE), model(SWITCH))
    assert result.verdict is Verdict.DIFFERENT
    assert "that is at x=5x3, and at x=2x3 both are the same function" in result.reason


def test_two_graphs_that_change_alike_are_proved_on_both_sides_or_by_a_segment_for_every_size() -> None:
    apart = "a = Mul(x, two)\n  b = Mul(x, three)\n  y = Where(few, a, b)"
    again = SWITCH.replace("f = Where(few, two, three)\n  y = Mul(x, f)", apart)
    result = compare(model(SWITCH), model(again), run=False)  # a segment from x and the condition is one function
    assert (result.verdict, result.evidence["proof"]["every"]) == (Verdict.PROVED, ["N"])
    few = "least = Min(n, four)\n  few = Equal(least, n)"
    result = compare(model(SWITCH), model(again.replace("few = LessOrEqual(n, four)", few)), run=False)
    proof = result.evidence["proof"]
    assert (result.verdict, proof["every"]) == (Verdict.PROVED, [])
    assert [row["size"] for row in proof["limits"]["N"]["breakpoints"] if row["tried"]] == [3, 4, 5]
    assert proof["limits"]["N"]["a"]["node"] == "Mul(y)"


def test_what_mixes_rows_names_the_node_and_is_undecided_where_every_size_is_asked_for() -> None:
    result = compare(model(ALONG), model(TURNED), run=False)
    limit = result.evidence["proof"]["limits"]["N"]
    assert (result.verdict, result.evidence["proof"]["every"], limit["sizes"]) == (Verdict.PROVED, [], [1, 2, 3])
    assert (limit["a"]["node"], limit["b"]["node"]) == ("Softmax(y)", "Softmax(s)")
    for asked in ("N", "batch", "all"):
        result = compare(model(ALONG), model(TURNED), run=False, every=[asked])
        assert result.verdict is Verdict.UNDECIDED
        assert "not for every batch size: Softmax(y) of A: it works along this dim" in result.reason


def test_the_same_graph_is_the_same_at_every_size() -> None:
    assert compare(model(ALONG), model(ALONG), run=False, every=["batch"]).verdict is Verdict.IDENTICAL


def test_a_dim_that_is_not_free_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="--every height: no input has a free dim of that name; free are: N"):
        compare(model(DOUBLE), model(SUM), run=False, every=["height"])
    with pytest.raises(UsageError, match="free are: none"):
        compare(model(DOUBLE), model(SUM), run=False, every=["batch"], shapes={"x": (4, 3)})


def test_of_two_free_dims_both_are_claimed_at_once_or_the_batch_at_the_sizes_of_the_other() -> None:
    text = HEAD + "g (float[N,S] x) => (float[N,S] y) { y = Add(x, x) }"
    double = DOUBLE.replace("[N,3]", "[N,S]")
    result = compare(model(double), model(text), run=False, every=["all"])
    assert (result.verdict, result.evidence["proof"]["every"]) == (Verdict.PROVED, ["N", "S"])
    assert "for every batch size and every size of S and every input of shape x=NxS" in result.reason
    double, text = (each.replace("y = ", "z = ").replace(" }", "\n y = Softmax<axis=1>(z) }") for each in (double, text))
    spelled = "e = Exp(z)\n i = Constant<value_ints=[1]>()\n s = ReduceSum(e, i)\n y = Div(e, s)"
    text = text.replace("y = Softmax<axis=1>(z)", spelled)
    result = compare(model(double), model(text), run=False)
    proof = result.evidence["proof"]
    assert (proof["every"], list(proof["limits"])) == (["N"], ["S"])
    assert {tuple(shape["x"]) for shape in proof["shapes"]} == {(2, 16), (2, 8)}
    assert "x=Nx8; x=Nx16" in result.reason
    result = compare(model(double), model(text), run=False, every=["all"])
    assert result.verdict is Verdict.UNDECIDED and "Softmax(y) of A: it works along this dim" in result.reason


def sizes(text: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = analyze_json(ir.from_proto(model(text)))["model"]["sizes"]
    return found


def test_analyze_says_what_a_model_does_with_its_batch() -> None:
    assert sizes(SUM) == [{"symbol": "N", "rows": True, "mixed": None, "bakes": None, "breakpoints": [], "declared": []}]
    mixed = {"output": "y", "node": "Softmax(y)", "reason": "it works along this dim"}
    assert sizes(ALONG) == [{"symbol": "N", "rows": False, "mixed": mixed, "bakes": None, "breakpoints": [], "declared": []}]
    (found,) = sizes(SWITCH)
    assert found["breakpoints"] == [{"size": 4, "node": "LessOrEqual(few)"}, {"size": 5, "node": "LessOrEqual(few)"}]


def test_analyze_says_where_an_output_is_not_as_it_is_declared() -> None:
    baked = HEAD + "g (float[N,4] x) => (float[N,2,2] y) { s = Constant<value_ints=[1,-1,2]>()\n y = Reshape(x, s) }"
    (found,) = sizes(baked)
    reason = "axis 0 is declared N and has one size, axis 1 has 2 N"
    assert (found["rows"], found["declared"]) == (True, [{"output": "y", "reason": reason}])
    assert found["bakes"] == {"node": "Reshape(y)", "reason": "Reshape to [1, -1, 2]"}
    behind = baked.replace("y = Reshape(x, s)", "r = Reshape(x, s)\n y = Relu(r)")  # the node before it is named
    assert sizes(behind)[0]["bakes"] == {"node": "Reshape(r)", "reason": "Reshape to [1, -1, 2]"}
    (found,) = sizes(baked.replace("[1,-1,2]", "[2,2,2]"))
    assert (found["rows"], found["bakes"]) == (False, {"node": "Reshape(y)", "reason": "Reshape to [2, 2, 2]"})
    (found,) = sizes(baked.replace("[1,-1,2]", "[-1,2,2]"))
    assert (found["rows"], found["bakes"], found["declared"]) == (True, None, [])


def test_a_constant_of_one_batch_is_baked_in() -> None:
    (found,) = sizes(HEAD + "g (float[N,3] x) => (float[N,3] y) <float[2,1] k = {1, 2}> { y = Mul(x, k) }")
    assert found["bakes"] == {"node": "Mul(y)", "reason": "an operand has one size along this dim"}


def test_analyze_prints_each_answer_in_few_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    baked = "g (float[N,4] x) => (float[N,2,2] y) { s = Constant<value_ints=[%s]>()\n y = Reshape(x, s) }"
    for text, lines in (
        (SUM, ["N: rows: every row by itself"]),
        (ALONG, ["N: mixes rows at Softmax(y) (it works along this dim)"]),
        (SWITCH, ["N: mixes rows at Mul(y) (it computes with a size)", "N: changes its form at sizes 4, 5 (LessOrEqual(few))"]),
        (HEAD + baked % "2,2,2", ["N: bakes the size in at Reshape(y) (Reshape to [2, 2, 2])"]),
        (HEAD + baked % "1,-1,2", ["N: bakes the size in at Reshape(y) (Reshape to [1, -1, 2])",
                                   "output y: axis 0 is declared N and has one size, axis 1 has 2 N"]),
    ):  # fmt: skip
        onnx.save(model(text), tmp_path / "m.onnx")
        assert main(["analyze", str(tmp_path / "m.onnx")]) == 0
        told = capsys.readouterr().out.splitlines()
        assert [line.strip() for line in told if line.startswith(("  N: ", "  output y: "))] == lines


def test_analyze_of_a_model_whose_sizes_are_all_known_has_none() -> None:
    assert sizes(SUM.replace("N", "2")) == []


ONE = HEAD + "g (float[1,4] x) => (float[1,2,2] y) { s = Constant<value_ints=[1,2,2]>()\n y = Reshape(x, s) }"
FREE = HEAD + "g (float[N,4] x) => (float[N,2,2] y) { s = Constant<value_ints=[%s]>()\n y = Reshape(x, s) }"


def test_a_model_for_one_image_and_a_copy_for_many_are_the_same_row_by_row() -> None:
    result = compare(model(ONE), model(FREE % "-1,2,2"), run=False, every=["batch"])
    assert (result.verdict, result.evidence["proof"]["row_by_row"]) == (Verdict.PROVED, ["N"])
    assert "for every batch size, row by row, and every input of shape x=1x4" in result.reason
    assert result.reason.endswith("; B gives for each row what A gives for it")
    result = compare(model(FREE % "0,2,-1"), model(ONE), run=False)
    assert result.reason.endswith("; A gives for each row what B gives for it")


def test_a_copy_that_puts_all_rows_into_one_is_not_row_by_row() -> None:
    result = compare(model(ONE), model(FREE % "1,-1,2"), run=False)
    limit = result.evidence["proof"]["limits"]["N"]
    assert (result.verdict, result.evidence["proof"]["row_by_row"]) == (Verdict.PROVED, [])
    assert limit["reason"] == "output y: it has no axis of one element for each row"
    assert result.reason.endswith(f"; B is not shown to do so row by row at other sizes of N: {limit['reason']}")


def test_a_copy_that_mixes_its_rows_is_only_the_same_at_one() -> None:
    turned = FREE.replace("y = Reshape(x, s)", "t = Transpose<perm=[1,0]>(x)\n y = Reshape(t, s)") % "-1,2,2"
    result = compare(model(ONE), model(turned), run=False)
    limit = result.evidence["proof"]["limits"]["N"]
    assert (result.verdict, result.evidence["proof"]["row_by_row"], limit["a"]) == (Verdict.PROVED, [], None)
    assert limit["b"]["node"] == "Reshape(y)"
    assert compare(model(ONE), model(turned), run=False, every=["batch"]).verdict is Verdict.UNDECIDED


def test_a_breakpoint_that_one_model_does_not_take_is_left_out_and_told() -> None:
    """A table is cut to the length and added: one has 12 rows, the other 13, so that only one model takes a length of 13."""
    text = """g (float[1,S,2] x) => (float[1,S,2] y) <float[1,ROWS,2] p = {NUMBERS}> {
      n = Shape<start=1, end=2>(x)
      zero = Constant<value_ints=[0]>()
      one = Constant<value_ints=[1]>()
      t = Slice(p, zero, n, one)
      y = Add(x, t)
    }"""
    a, b = (text.replace("ROWS", str(n)).replace("NUMBERS", ", ".join(map(str, range(2 * n)))) for n in (12, 13))
    result = compare(model(HEAD + a), model(HEAD + b), run=False)
    limit = result.evidence["proof"]["limits"]["S"]
    assert result.verdict is Verdict.PROVED and max(limit["sizes"]) == 12
    assert {row["size"]: row["tried"] for row in limit["breakpoints"]} == {11: True, 12: True, 13: False, 14: False}


def test_a_size_that_stands_in_two_inputs_of_the_copy_is_typed_in_both() -> None:
    """The other model takes one row of x, and any of z; the copy has one size for both, and mixes the rows of z."""
    body = "{ s = Softmax<axis=%d>(z)\n y = Add(x, s) }"
    one = HEAD + "g (float[1,4] x, float[M,4] z) => (float[M,4] y) "
    free = HEAD + "g (float[N,4] x, float[N,4] z) => (float[N,4] y) "
    for axis, found in ((1, ["N"]), (0, [])):
        result = compare(model(one + body % axis), model(free + (body % axis).replace("Add(x, s)", "Add(s, x)")), run=False)
        assert (result.verdict, result.evidence["proof"]["row_by_row"]) == (Verdict.PROVED, found)


def test_an_operator_whose_body_is_another_at_another_size_leaves_no_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphcheck.kernel import interpreter

    text = HEAD + "g (float[N,4] x) => (float[N,4] y) { h = HardSwish(x)\n y = %s }"
    pair = model(text % "Add(h, h)"), model(text % "Sum(h, h)")
    assert compare(*pair, run=False).evidence["proof"]["every"] == ["N"]
    plain = interpreter.function_body

    def dependent(memo: Any, node: Any, inputs: Any, opsets: Any) -> Any:
        found = plain(memo, node, inputs, opsets)
        return found.clone() if found is not None and inputs[0].shape[0] == 3 else found

    monkeypatch.setattr(interpreter, "function_body", dependent)
    limit = compare(*pair, run=False).evidence["proof"]["limits"]["N"]
    assert limit["a"]["reason"] == "its function body depends on the size"


def test_a_name_of_one_model_is_not_that_of_the_other() -> None:
    """N of A is z's batch and N of B is x's: B was said to work row by row over both."""
    a = HEAD + "g (float[1,3] x, float[N,3] z) => (float[1,3] y, float[N,3] w) { y = Neg(x)\n w = Neg(z) }"
    b = HEAD + "g (float[N,3] x, float[1,3] z) => (float[N,3] y, float[1,3] w) <float m = {-1}> { y = Mul(x, m)\n w = Mul(z, m) }"
    assert compare(model(a), model(b), run=False).evidence["proof"]["row_by_row"] == []


def test_rows_beside_one_length_and_lengths_beside_one_row_are_not_told_at_once() -> None:
    """(N - 1) (L - 8) is 0 for every L beside N = 1, and for every N beside L = 8."""
    a = HEAD + "g (float[1,L] x) => (float[1,L] y) { y = Neg(x) }"
    b = HEAD + """g (float[N,L] x) => (float[N,L] y) <int64[1] i = {1}, int64[1] k = {8}, int64[1] o = {0}> {
      n = Shape<end=1>(x) l = Shape<start=1>(x) p = Sub(n, i) q = Sub(l, k) r = Mul(p, q) c = Equal(r, o)
      y = If(c) <then_branch = t () => (float[a,b] u) { u = Neg(x) }, else_branch = e () => (float[a,b] v) { v = Abs(x) }>
    }"""
    proof = compare(model(a), model(b), run=False).evidence["proof"]
    assert len(proof["every"]) + len(proof["row_by_row"]) < 2


def test_a_choice_by_a_computed_condition_names_its_node() -> None:
    text = HEAD + """g (float[N,3] x, float w) => (float[N,3] y) <float z = {0}> {
      c = Less(w, z)
      y = If(c) <then_branch = t () => (float[a,b] u) { u = Neg(x) }, else_branch = e () => (float[a,b] v) { v = Abs(x) }>
    }"""
    plain = HEAD + """g (float[N,3] x, float w) => (float[N,3] y) <float z = {0}> {
      c = Less(w, z) n = Neg(x) a = Abs(x) y = Where(c, n, a)
    }"""
    limit = compare(model(text), model(plain), run=False).evidence["proof"]["limits"]["N"]
    assert limit["a"]["node"] == "If(y)"


def test_the_report_says_at_which_sizes_a_proof_holds() -> None:
    from graphcheck import reporting

    page = reporting.render([compare(model(DOUBLE), model(SUM), run=False).to_json()])
    assert "for every size of <code>N</code> from 1 on" in page
    page = reporting.render([compare(model(ALONG), model(TURNED), run=False).to_json()])
    assert "<code>N</code> at 1, 2, 3 alone: Softmax(y) of A: it works along this dim" in page
    page = reporting.render([compare(model(ONE), model(FREE % "-1,2,2"), run=False).to_json()])
    assert "For every size of <code>N</code>, row by row" in page


def test_breakpoints_that_were_not_tried_are_told() -> None:
    """Twelve are tried; the two parted at 101 only, and nothing said that it was left out. What it is behind is not claimed."""

    def steps(last: int) -> onnx.ModelProto:
        lines = ["n = Shape<end=1>(x)", "f0 = Constant<value_float=1.0>()", "two = Constant<value_float=2.0>()"]
        for i, k in enumerate((4, 9, 16, 25, 36, 49, last)):
            lines += [f"k{i} = Constant<value_ints=[{k}]>()", f"c{i} = LessOrEqual(n, k{i})"]
            lines += [f"g{i} = Where(c{i}, f0, two)", f"f{i + 1} = Mul(f{i}, g{i})"]
        return model(HEAD + "g (float[N,3] x) => (float[N,3] y) {\n" + "\n".join([*lines, "y = Mul(x, f7)"]) + "}")

    result = compare(steps(100), steps(101), run=False)
    assert result.verdict is Verdict.PROVED and result.evidence["proof"]["every"] == []
    assert result.reason.endswith("; not looked at: N = 36, 37, 49 and 4 more, where a graph changes")
    assert compare(steps(100), steps(101), run=False, every=["N"]).verdict is Verdict.UNDECIDED


def test_a_copy_in_float16_is_so_for_every_batch_size_or_not() -> None:
    heads = ("g (float[N,3] x) => (float[N,4] y)", "v = Cast<to=1>(w)\n z = MatMul(x, v)")
    weights = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)

    def pair(last: str) -> list[onnx.ModelProto]:
        made = [model(HEAD + f"{heads[0]} {{ {first}\n y = {last} }}") for first in ("z = MatMul(x, w)", heads[1])]
        for each, dtype in zip(made, (np.float32, np.float16), strict=True):
            each.graph.initializer.append(onnx.numpy_helper.from_array(weights.astype(dtype), "w"))
        return made

    same = "the same function but for roundings that are allowed: 1 constant of float16"
    result = compare(*pair("Relu(z)"), run=False, allow=["float16"], every=["batch"])
    assert result.verdict is Verdict.WITHIN_ROUNDING
    assert result.reason == f"{same}, for every batch size and every input of shape x=Nx3"
    result = compare(*pair("Softmax<axis=0>(z)"), run=False, allow=["float16"], every=["batch"])
    assert result.verdict is Verdict.UNDECIDED and result.reason.count("the same function") == 1
    shapes = "for every input of shape x=2x3; x=3x3; x=1x3; but not for every batch size: Softmax(y) of A"
    assert result.reason.startswith(f"{same}, {shapes}"), result.reason


def test_every_on_the_command_line_ends_with_3_and_the_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, c, d = (str(tmp_path / f"{name}.onnx") for name in "abcd")
    for path, text in ((a, ALONG), (b, TURNED), (c, DOUBLE), (d, SUM)):
        onnx.save(model(text), path)
    for asked, pair, code in [(word, (a, b), 3) for word in ("batch", "N", "all")] + [("batch", (c, d), 0), ("all", (c, d), 0)]:
        assert main(["compare", *pair, "--no-run", "--every", asked]) == code
        told = capsys.readouterr().out
        assert ("not for every batch size: Softmax(y) of A" in told) == (code == 3)


def rounded(body: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A product that is scaled behind, and one by weights that were scaled, and rounded, before, with ``body`` behind it."""
    weights = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    a = model(HEAD + "g (float[N,3] x) => (float[N,4] y) <float s = {0.3711}> { m = MatMul(x, w)\n y = Mul(m, s) }")
    asks = "m = MatMul(x, w)\n n = Shape<end=1>(x)\n"
    b = model(HEAD + f"g (float[N,3] x) => (float[N,4] y) <int64[1] k = {{4}}> {{ {asks} {body} }}")
    for each, array in ((a, weights), (b, weights * np.float32(0.3711))):
        each.graph.initializer.append(onnx.numpy_helper.from_array(array, "w"))
    return a, b


def test_a_difference_beyond_a_breakpoint_is_shown_where_constants_were_rounded_anew() -> None:
    """The proof with constants replaced holds at batch 2 alone; nothing looked for an input at batch 5: undecided."""
    result = compare(*rounded("few = LessOrEqual(n, k)\n f = Cast<to=1>(few)\n y = Mul(m, f)"), graphs=False)
    assert result.verdict is Verdict.DIFFERENT, result.reason
    assert result.reason.endswith("; that is at x=5x3, where LessOrEqual(few) changes")
    witness = result.evidence["witness"]
    assert witness is not None and result.evidence["divergence"] is not None
    result = compare(*rounded("y = Identity(m)"), run=False, every=["batch"])
    assert result.verdict is Verdict.WITHIN_ROUNDING
    assert result.reason.endswith("exact expression, for every batch size and every input of shape x=Nx3"), result.reason
    same = "few = Min(n, k)\n z = Sub(few, few)\n f = Cast<to=1>(z)\n y = Add(m, f)"  # it changes at 4, and differs nowhere
    assert compare(*rounded(same), run=False, graphs=False).verdict is Verdict.WITHIN_ROUNDING
