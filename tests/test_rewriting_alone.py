"""One site's trouble costs no other: what fails its check, or is not proved, is refused alone, and the rest is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
from patch_cases import graph, ints, ops

from graphcheck import limits
from graphcheck.cli import main
from graphcheck.rewriting import forms, matmul
from graphcheck.rewriting.fastest import fastest
from graphcheck.rewriting.result import Rewrite
from graphcheck.rewriting.rewrite import rewrite
from graphcheck.verdict import Comparison, Verdict
from graphcheck.verdicts.compare import compare

PATCHES = """ra = Reshape(a, s) ta = Transpose<perm = [0, 2, 4, 1, 3, 5]>(ra) fa = Reshape(ta, f) ya = MatMul(fa, wa)
    rb = Reshape(b, s) tb = Transpose<perm = [0, 2, 4, 1, 3, 5]>(rb) fb = Reshape(tb, f) yb = MatMul(fb, wb)"""
SHUFFLES = "ra = Reshape(a, s) ta = Transpose<perm = [0, 3, 5, 1, 2, 4]>(ra) ya = Reshape(ta, f) " + (
    "rb = Reshape(b, s) tb = Transpose<perm = [0, 3, 5, 1, 2, 4]>(rb) yb = Reshape(tb, f)"
)
SPLIT, ROWS, CHANNELS = ints(-1, 3, 2, 4, 2, 4), ints(-1, 4, 48), ints(-1, 48, 2, 2)


def two(kind: str = "double") -> ir.Model:
    """Two patchifies with a MatMul, of the element types ``kind`` and float."""
    return graph(
        f"{kind}[N,3,8,8] a, float[N,3,8,8] b", f"{kind}[N,4,5] ya, float[N,4,5] yb", PATCHES, s=SPLIT, f=ROWS,
        wb=(48, 5), wa=graph("float[1] x", "float[1] y", "y = Identity(x)", kind=kind, w=(48, 5)).graph.initializers[
            "w"
        ].const_value.numpy(),
    )  # fmt: skip


def shuffles(kind: str = "int64") -> ir.Model:
    """Two bare movements to the channels, of ``kind`` and of floats."""
    split = ints(-1, 3, 2, 4, 2, 4)
    given = f"{kind}[N,3,8,8] a, float[N,3,8,8] b"
    return graph(given, f"{kind}[N,48,2,2] ya, float[N,48,2,2] yb", SHUFFLES, s=split, f=CHANNELS)


def prove(a: ir.Model, b: ir.Model) -> Comparison:
    return compare(a, b, graphs=False)


def names(result: Rewrite) -> list[str]:
    return [one.site.name for one in result.applied]


def told(result: Rewrite) -> list[tuple[str, str]]:
    return [(row["node"], row["code"]) for row in result.to_json()["refusals"]]


# -- kernels that onnxruntime has not ------------------------------------------------------------------------------------


def test_a_site_without_a_kernel_is_refused_alone() -> None:
    result = rewrite(two(), "conv", check=prove)
    assert result.verdict is Verdict.PROVED and names(result) == ["MatMul(yb)"]
    assert told(result) == [("MatMul(ya)", "GC312")] and "--no-run" in result.refusals[0].reason
    assert ops(result.model).count("Conv") == 1 and "isolate" in result.timings


@pytest.mark.parametrize(("kind", "run"), [("double", False), ("float", True)])
def test_sites_with_kernels_are_written_both(kind: str, run: bool) -> None:
    result = rewrite(two(kind), "conv", check=prove, run=run)
    assert names(result) == ["MatMul(ya)", "MatMul(yb)"] and told(result) == [] and "isolate" not in result.timings


def test_movement_without_a_kernel_is_refused_alone() -> None:
    result = rewrite(shuffles(), "space-to-depth", check=prove, movement=True)
    assert result.verdict is Verdict.PROVED and [row["output"] for row in result.moved] == ["yb"]
    assert told(result) == [("Reshape(ya)", "GC312")] and ops(result.model).count("SpaceToDepth") == 1
    both = rewrite(shuffles("float"), "space-to-depth", check=prove, movement=True)
    assert [row["output"] for row in both.moved] == ["ya", "yb"] and told(both) == []


def test_a_fastest_form_without_a_kernel_is_not_measured() -> None:
    result = fastest(two(), lambda models: [[10.0 - at] * 4 for at, _ in enumerate(models)], check=prove)
    measured = {row["site"]: [form["form"] for form in row["forms"]] for row in result.measured}
    assert "conv" not in measured["MatMul(ya)"] and "conv" in measured["MatMul(yb)"] and result.changed


def test_the_command_writes_the_others_and_names_the_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ir.save(two(), tmp_path / "two.onnx")
    command = ["rewrite", str(tmp_path / "two.onnx"), "--to", "conv", "-o", str(tmp_path / "out.onnx")]
    assert main([*command, "--max-rank", "5"]) == 0
    said = capsys.readouterr().out
    assert "MatMul(ya)" in said and "onnxruntime runs the original and refuses the result" in said
    assert ops(ir.load(tmp_path / "out.onnx")).count("Conv") == 1


# -- proofs ----------------------------------------------------------------------------------------------------------


def doubting(verdict: Verdict, at: str) -> Any:
    """A check that says ``verdict`` of a model in which a Conv makes what is behind ``at``."""

    def check(a: ir.Model, b: ir.Model) -> Comparison:
        there = any(node.op_type == "Conv" and (node.name or "").startswith(at) for node in b.graph)
        return Comparison(verdict, "nobody knows", {}) if there else prove(a, b)

    return check


def test_a_site_that_is_not_proved_is_refused_alone() -> None:
    result = rewrite(two("float"), "conv", check=doubting(Verdict.UNDECIDED, "ya/"))
    assert result.verdict is Verdict.PROVED and names(result) == ["MatMul(yb)"]
    assert told(result) == [("MatMul(ya)", "GC216")]
    assert result.refusals[0].reason == "its rewrite is not proved: nobody knows"


def test_of_what_nothing_is_proved_nothing_is_written() -> None:
    model = two("float")
    result = rewrite(model, "conv", check=lambda a, b: Comparison(Verdict.UNDECIDED, "nobody knows", {}))
    assert (result.model, result.verdict, result.reason) == (model, Verdict.UNDECIDED, "nobody knows")
    assert len(result.applied) == 2 and result.refusals == ()


def test_what_is_refuted_is_a_mistake_that_nothing_is_written_beside() -> None:
    model = two("float")
    result = rewrite(model, "conv", check=doubting(Verdict.DIFFERENT, "ya/"))
    assert (result.model, result.verdict, result.reason) == (model, Verdict.DIFFERENT, "nobody knows")


def test_the_time_limit_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    proofs = []

    def check(a: ir.Model, b: ir.Model) -> Comparison:
        proofs.append(b)
        monkeypatch.setattr(limits, "current", lambda: limits.Limits(2**30, 1.0, 0.0))
        return Comparison(Verdict.UNDECIDED, "late", {})

    result = rewrite(two("float"), "conv", check=check)
    assert not result.changed and result.reason == "late" and len(proofs) == 1


# -- forms of others -----------------------------------------------------------------------------------------------------


def test_a_form_of_another_package_that_fails_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Theirs:
        NAME = "theirs"

        @staticmethod
        def why_not(site: Any) -> None:
            return None

        @staticmethod
        def build(b: Any) -> Any:
            return matmul.build(b) if b.site.output.name == "yb" else {}["nothing"]

    monkeypatch.setitem(forms.FORMS, "theirs", Theirs)
    monkeypatch.setattr("graphcheck.rewriting.rewrite.NAMES", (*forms.NAMES, "theirs"))
    model = rewrite(two("float"), "conv", run=False).model
    result = rewrite(model, "theirs", check=prove)
    assert result.verdict is Verdict.PROVED and len(result.applied) == 1
    assert [r.reason for r in result.refusals] == ["the form theirs of another package failed (KeyError: 'nothing')"]
    monkeypatch.setitem(forms.FORMS, "matmul", Theirs)  # a mistake of our own is none of the site's
    with pytest.raises(KeyError):
        rewrite(model, "matmul")
