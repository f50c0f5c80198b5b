"""The page of codes, walked: each code is given by something that a user can do, the hostile files included."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import test_codes
import test_patches
import test_quantized_ranges
import test_rewriting_alone
from patch_cases import conv, graph
from test_fitting import BRANCHED
from test_fitting import saved as branched
from test_rewriting_functions import FLAT
from test_rewriting_functions import model as with_functions
from test_rewriting_kept import unfolded
from test_rewriting_movement import REFUSED as MOVEMENT
from unpatch_table import near_misses

import graphcheck
from graphcheck import codes, outcome
from graphcheck.codes import CODES
from graphcheck.errors import GraphcheckError, Undecided
from graphcheck.files.model import read
from graphcheck.formats.json import read_json
from graphcheck.kernel.ops.table import TAUGHT
from graphcheck.patches.analyze import find
from graphcheck.patches.preparing import prepared
from graphcheck.rewriting.rewrite import rewrite
from graphcheck.sweeping.child import run_task
from graphcheck.sweeping.worker import perform
from graphcheck.verdict import Comparison, Verdict
from graphcheck.verdicts.compare import compare
from tests.hostile import bombs, broken, external
from tests.sweeping_support import LIMITS

Produce = Callable[[Path, pytest.MonkeyPatch], str | None]


# -- trouble -----------------------------------------------------------------------------------------------------------


def raised(do: Callable[[], Any]) -> str:
    with pytest.raises(GraphcheckError) as caught:
        do()
    return caught.value.code


def unknown_function(folder: Path, patch: pytest.MonkeyPatch) -> str:
    patch.setitem(TAUGHT, ("my", "Cbrt"), lambda m, node, x: m.ew("cbrt", x))
    return raised(lambda: paired("y = my.Cbrt (x)", "t = Add (x, x) y = my.Cbrt (t)"))


def crashed(folder: Path, patch: pytest.MonkeyPatch) -> str | None:
    task = {"do": "compare", "threads": 1} | LIMITS
    return outcome.Outcome("n", **run_task(task, command=[sys.executable, "-S", "-c", "import os; os.abort()"])).family


# -- comparisons -------------------------------------------------------------------------------------------------------


def paired(a: str, b: str, types: str = "float[N,2] x) => (float[N,2] y", **options: Any) -> str | None:
    head = f'<ir_version: 10, opset_import: ["" : 21, "my" : 1]> g ({types}) '
    models = [onnx.parser.parse_model(f"{head} {{ {body} }}") for body in (a, b)]
    return compare(*models, **{"run": False, "graphs": False} | options).code


def bomb(kind: str, **options: Any) -> str | None:
    model = onnx.ModelProto.FromString(bombs.build(kind))
    other = onnx.ModelProto.FromString(bombs.build(kind))
    name = other.graph.output[0].name
    for node in other.graph.node:
        node.output[:] = ["before" if each == name else each for each in node.output]
    other.graph.node.add(op_type="Neg", input=["before"], output=["between"])
    other.graph.node.add(op_type="Neg", input=["between"], output=[name])
    return compare(model, other, run=False, graphs=False, **options).code


def gainsaid(folder: Path, patch: pytest.MonkeyPatch) -> str | None:
    from graphcheck.runs import numeric

    plain = numeric.compare_arrays
    patch.setattr(numeric, "compare_arrays", lambda a, b: plain(a, b) | {"max_abs": 0.25, "scale_ulp": 1e6})
    return paired("y = Relu (x)", "z = Neg (x) w = Neg (z) y = Relu (w)", run=True)


def open_for_two_reasons(folder: Path, patch: pytest.MonkeyPatch) -> str | None:
    text = BRANCHED.replace("{{-1, 256}}", "{{7, 1009}}").format(then="RandomNormalLike", other="Relu")
    other = text.replace("y = If", "one = Constant <value_int = 1> () y = If").replace("Relu (r2)", "Abs (r2)")
    return compare(*(branched(t, folder / f"{i}.onnx") for i, t in enumerate((text, other))), graphs=False).code


def copied(constant: float) -> str | None:
    """A copy in float16 with this constant in the place of 0.3."""
    one = "c = Constant <value_float = {}> () y = Mul (x, c)"
    narrow = "h = Cast <to = 10> (x) d = Constant <value_float = {}> () c = Cast <to = 10> (d) m = Mul (h, c) "
    narrow += "y = Cast <to = 1> (m)"
    return paired(one.format(0.3), narrow.format(constant), allow=["float16"])


def retyped() -> str | None:
    text = '<ir_version: 10, opset_import: ["" : 21]> g ({0}[2] x) => ({0}[2] y) {{ y = Relu (x) }}'
    return compare(*(onnx.parser.parse_model(text.format(kind)) for kind in ("float", "float16")), graphs=False).code


def unexported(folder: Path, patch: pytest.MonkeyPatch) -> str | None:
    import torch

    from graphcheck import torch_side

    patch.setattr(torch_side, "_FAR", -1.0)
    text = '<ir_version: 10, opset_import: ["" : 18]> g (float[2,2] x) => (float[2,2] y) { y = Relu (x) }'
    return graphcheck.compare(torch.nn.ReLU(), onnx.parser.parse_model(text), args=(torch.ones(2, 2),)).code


def unproved() -> str | None:
    result = rewrite(test_rewriting_alone.two("float"), "conv", check=lambda a, b: Comparison(Verdict.UNDECIDED, "open", {}))
    return result.to_json()["code"]  # type: ignore[no-any-return]


# -- refusals ------------------------------------------------------------------------------------------------------------


def refused(model: ir.Model, to: str = "conv", **options: Any) -> str:
    (code,) = {row["code"] for row in rewrite(model, to, check=test_rewriting_alone.prove, **options).to_json()["refusals"]}
    return str(code)


def first(model: ir.Model) -> str:
    return str(prepared(model).analysis.refusals[0].to_json()["code"])


def needless() -> str:
    seen = find(unfolded())
    return refused(unfolded(), {seen.sites[0].name: "matmul", seen.unembeddings[0].name: "conv-transpose"})  # type: ignore[arg-type]


def normalized() -> ir.Model:
    text = "s = Sub(x, u) d = Mul(s, v) y = Conv<strides = [4, 4], pads = [1, 1, 1, 1]>(d, w, b)"
    return graph("float[N,3,8,8] x", "float[a,b,c,d] y", text, w=(5, 3, 4, 4), b=(5,), u=(3, 1, 1), v=(3, 1, 1))


# -- blame ---------------------------------------------------------------------------------------------------------------


def skipped(output: str) -> str:
    text = """<ir_version: 10, opset_import: ["": 20, "com.microsoft": 1]>
        net (float[4,4] x, float[4,4] other) => (float[4,4] y) {
        u = com.microsoft.NobodyKnows (x) v = Relu (u) w = Add (v, other) y = Relu (w) }"""
    x = np.ones((4, 4), np.float32)
    dumped = {"x": x, "u": x, "v": np.ones((2, 8), np.float32), "w": x, "y": x}
    rows = graphcheck.blame(onnx.parser.parse_model(text), dumped).evidence["skipped"]
    return str(next(row["code"] for row in rows if row["output"] == output))


PRODUCED: dict[str, Produce] = {
    "GC101": lambda _, __: raised(lambda: graphcheck.compare("a", "b", timeout=0)),
    "GC102": lambda folder, _: raised(lambda: graphcheck.analyze(folder / "no.onnx")),
    "GC103": lambda folder, _: raised(lambda: read_json(folder / "no.json")),
    "GC104": unknown_function,
    "GC105": crashed,
    "GC202": lambda _, __: bomb("folded Expand", max_memory=2**28),
    "GC203": lambda _, __: bomb("Loop without end", timeout=60),
    "GC208": lambda _, __: paired("y = Relu (x)", "y = Abs (x)", "string[N] x) => (string[N] y"),
    "GC211": open_for_two_reasons,
    "GC212": gainsaid,
    "GC213": lambda _, __: copied(0.31),
    "GC214": lambda _, __: paired("y = Relu (x)", "y = Abs (x)", "float[0,2] x) => (float[0,2] y"),
    "GC215": lambda _, __: retyped(),
    "GC216": lambda _, __: unproved(),
    "GC218": unexported,
    "GC219": lambda _, __: test_quantized_ranges.looped().code,
    "GC231": lambda _, __: copied(0.3),
    "GC300": lambda _, __: needless(),
    "GC301": lambda _, __: first(test_patches.REFUSED["rows shuffled"][0]),
    "GC302": lambda _, __: first(test_patches.REFUSED["a bias that is an input"][0]),
    "GC303": lambda _, __: first(near_misses()["norm"][0]),
    "GC304": lambda _, __: first(test_patches.REFUSED["a stride of zero"][0]),
    "GC305": lambda _, __: first(test_patches.REFUSED["one size only"][0]),
    "GC306": lambda _, __: refused(MOVEMENT["used elsewhere"][0], "space-to-depth", movement=True),
    "GC307": lambda _, __: refused(MOVEMENT["tokens"][0], "space-to-depth", movement=True),
    "GC308": lambda _, __: refused(conv("strides = [2, 2]", (5, 3, 4, 4)), "matmul"),
    "GC309": lambda _, __: refused(graph("float[N,3,2,2,2] x", "float[N,3,2,2,2] y", "y = Relu(x)"), max_rank=4),
    "GC310": lambda _, __: refused(normalized(), fold_normalization=True),
    "GC311": lambda _, __: refused(with_functions(*FLAT, opset=19)),
    "GC312": lambda _, __: refused(test_rewriting_alone.two()),
    "GC401": lambda _, __: skipped("w"),
    "GC402": lambda _, __: skipped("v"),
    "GC403": lambda _, __: skipped("u"),
} | {code: (lambda _, __, code=code: test_codes.pair(code).code) for code in test_codes.PAIRS}  # type: ignore[misc]


def test_every_code_of_the_page_is_walked() -> None:
    assert sorted(PRODUCED) == sorted(CODES)


@pytest.mark.parametrize("code", [pytest.param(c, marks=[pytest.mark.torch] * (c == "GC218")) for c in sorted(PRODUCED)])
def test_a_code_is_what_a_user_gets(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PRODUCED[code](tmp_path, monkeypatch) == code


def test_every_near_miss_of_the_tables_has_a_family_of_its_own() -> None:
    said = [(model, reason) for model, reason, _ in (*near_misses().values(), *test_patches.REFUSED.values())]
    for model, reason in said:
        (own,) = {r.reason.code for r in prepared(model).analysis.refusals if r.reason == reason}
        assert own in CODES and own != "GC300", reason


# -- hostile files -----------------------------------------------------------------------------------------------------


def swept(path: Path) -> outcome.Outcome:
    """What a worker of a sweep answers of analyzing a file."""
    task = {"do": "analyze", "a": str(path), "options": {}, "threads": 1, "witness": None, "reduce": None} | LIMITS
    return outcome.Outcome(str(path), **perform(task))


@pytest.mark.parametrize("kind", broken.BROKEN)
def test_a_broken_file_has_its_code(kind: str, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(broken.BROKEN[kind]())
    try:
        read(tmp_path / "bad.onnx")
        expected = None
    except (GraphcheckError, Undecided) as error:
        expected = error.code
    found = swept(tmp_path / "bad.onnx")
    assert expected in (None, "GC102", "GC202", "GC208"), kind
    assert found.failure is None or found.family == (expected or found.code) in CODES
    assert found.failure is not None or expected is None
    assert found.family != codes.OPEN


@pytest.mark.parametrize("kind", external.REFUSED)
def test_external_data_that_is_refused_has_the_code_of_a_model(kind: str, tmp_path: Path) -> None:
    external.REFUSED[kind](tmp_path)
    found = swept(tmp_path / "model.onnx")
    assert (found.status, found.failure, found.family) == ("trouble", "error", "GC102")
