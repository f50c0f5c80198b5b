"""Sizes that fit, where the usual ones do not, and the branches that a number chooses."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from graphcheck import compare
from graphcheck.cli import main
from graphcheck.verdict import Comparison, Verdict

# Like a voice detector: windows of a sound, of which the length must suit the sampling rate.
BRANCHED = """(float[b,n] x, int64 sr) => (float[p,q] y)
  <int64 rate = {{16000}}, int64[2] long = {{-1, 512}}, int64[2] short = {{-1, 256}}>
  {{
    is = Equal (sr, rate)
    y = If (is) <
      then_branch = g1 () => (float[p,q] s) {{ r = Reshape (x, long) s = {then} (r) }},
      else_branch = g2 () => (float[p,q] t) {{ r2 = Reshape (x, short) t = {other} (r2) }}>
  }}"""


def saved(graph: str, path: Path) -> str:
    onnx.save(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> g {graph}'), path)
    return str(path)


def branched(tmp_path: Path, *pairs: tuple[str, str]) -> list[str]:
    return [
        saved(BRANCHED.format(then=then, other=other), tmp_path / f"{i}.onnx") for i, (then, other) in enumerate(pairs)
    ]


def judged(files: list[str]) -> Comparison:
    return compare(*files, graphs=False, ranges={})


SIN, COS = ("Sin", "Relu"), ("Sin", "Abs")


def twins(tmp_path: Path, short: str = "{{-1, 256}}") -> list[str]:
    """Two files of one function, in which the branch for other rates is written twice."""
    negated = BRANCHED.replace("t = {other} (r2)", "n = Neg (r2) m = Neg (n) t = {other} (m)")
    texts = (text.replace("{{-1, 256}}", short).format(then="Sin", other="Relu") for text in (BRANCHED, negated))
    return [saved(text, tmp_path / f"{i}.onnx") for i, text in enumerate(texts)]


def test_each_branch_is_told(tmp_path: Path) -> None:
    found = judged(branched(tmp_path, SIN, COS))
    assert found.verdict is Verdict.DIFFERENT
    assert found.reason.startswith("proved where sr = 16000; different elsewhere: at sr=8000 output 'y' differs by ")
    assert found.evidence["witness"]["values"] == {"sr": 8000}


def test_branches_that_are_all_the_same_are_proved_at_each(tmp_path: Path) -> None:
    found = judged(twins(tmp_path))
    assert found.verdict is Verdict.PROVED, found.reason
    said = found.reason + str(found.evidence["interface"]["notes"])
    assert "at sr=16000 alone" in said and "at sr=8000 alone" in said


def test_a_branch_without_sizes_leaves_the_pair_open(tmp_path: Path) -> None:
    """Its Reshape takes no size that is tried."""
    files = twins(tmp_path, short="{{7, 1009}}")
    found = judged(files)
    assert found.verdict is Verdict.UNDECIDED
    assert found.reason == "proved where sr = 16000; undecided elsewhere: no sizes were found that the models take at sr=8000"
    asked = compare(*files, ranges={"sr": (16000, 16000)}, graphs=False)
    assert asked.verdict is Verdict.PROVED and "at sr=16000 alone" in asked.reason


def test_what_is_open_for_two_reasons_is_accepted_by_neither(tmp_path: Path) -> None:
    """A random operator in one branch, a Reshape that takes no size in the other."""
    text = BRANCHED.replace("{{-1, 256}}", "{{7, 1009}}").format(then="RandomNormalLike", other="Relu")
    other = text.replace("y = If", "one = Constant <value_int = 1> () y = If")
    files = [saved(graph, tmp_path / f"{i}.onnx") for i, graph in enumerate((text, other.replace("Relu (r2)", "Abs (r2)")))]
    found = judged(files)
    assert (found.verdict, found.code) == (Verdict.UNDECIDED, "GC211"), found.reason
    assert [found.exit_code(accept=[code]) for code in ("GC205", "GC207", "GC211")] == [3, 3, 0]


def test_a_range_of_one_value_is_one_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = branched(tmp_path, SIN, COS)
    arguments = ["--val-range", "sr=16000,16000", "--shape", "x=2x512"]
    assert main(["compare", *files, *arguments]) == 0
    out = capsys.readouterr().out
    assert "at sr=16000 alone" in out and "sampled" not in out and "seed 0, sr=16000)" in out


@pytest.mark.parametrize("sizes", [(40, 40), (40, 56), (43844, 43844)])
def test_sizes_are_taken_from_the_models_constants(tmp_path: Path, sizes: tuple[int, int]) -> None:
    """Equal sizes fit both, unequal ones show that the models differ."""
    graph = """(float[1,3,n] x) => (float[n] y) <int64[2] s = {{3, {size}}}, int64[1] a = {{0}}>
      {{ r = Reshape (x, s) p = ReduceSum <keepdims = 0> (r, a) {body} }}"""
    bodies = ("y = Abs (p)", "q = Neg (p) y = Abs (q)")
    texts = [graph.format(size=size, body=body) for size, body in zip(sizes, bodies, strict=True)]
    found = judged([saved(text, tmp_path / f"{i}.onnx") for i, text in enumerate(texts)])
    if sizes[0] == sizes[1]:
        assert found.verdict is Verdict.PROVED and f"x=1x3x{sizes[0]}" in found.reason
        first, *_ = found.evidence["interface"]["notes"]
        assert first == f"the usual sizes fit neither model; found to fit both: x=1x3x{sizes[0]}"
    else:
        assert found.verdict is Verdict.DIFFERENT and "runs at x=1x3x40 and " in found.reason


def test_where_nothing_fits_the_last_line_says_what_to_give(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = "(float[1,n] x) => (float[7,1009] y) <int64[2] s = {{7, 1009}}> {{ r = Reshape (x, s) y = {op} (r) }}"
    files = [saved(graph.format(op=op), tmp_path / f"{op}.onnx") for op in ("Relu", "Abs")]
    assert main(["compare", *files]) == 3
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "next: give --shape x=1x2 with sizes that the models take in place of these, which fit neither"
    assert main(["compare", *files, "--shape", "x=1x7063"]) == 1


def test_a_state_has_a_row_for_each_of_the_input(tmp_path: Path) -> None:
    """One dim is the length and another the batch again: neither the usual sizes nor equal ones fit."""
    graph = """(float[b,n] x, float[1,p,2] h) => (float[1,q,2] y)
      <float v = {{0.1}}, int64[3] i = {{1, 2, 256}}, int64[3] j = {{1, 2, 2}}, int64[3] s = {{2, -1, 256}}>
      {{ w = Expand (v, i) r = Expand (v, j) t = Reshape (x, s) c, d = RNN <hidden_size = 2> (t, w, r, , , h) {body} }}"""
    bodies = ("y = Abs (d)", "n = Neg (d) y = Abs (n)")
    found = judged([saved(graph.format(body=body), tmp_path / f"{i}.onnx") for i, body in enumerate(bodies)])
    assert found.verdict is Verdict.PROVED and "x=2x512, h=1x2x2" in found.reason
    assert not found.evidence["numeric"]["warnings"]
