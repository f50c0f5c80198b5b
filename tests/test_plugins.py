"""What other distributions bring: operators that a proof then names, forms that are proved, and what is broken in them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import graphcheck
from graphcheck.cli import main
from graphcheck.errors import UsageError
from graphcheck.kernel.ops import outside, rows
from graphcheck.testing import check_op

HEAD = '<ir_version: 10, opset_import: ["": 21, "com.mydevice": 1]> net '
SCALE = HEAD + "(float[N,3] x, float[3] k) => (float[N,3] y) { y = com.mydevice.Scale (x, k) }"
PLAIN = HEAD + "(float[N,3] x, float[3] k) => (float[N,3] y) { y = Mul (x, k) }"
OPS = """
from graphcheck.kernel.ops import rows

def scale(m, node, x, k):
    return m.mul(x, k)

OPS = {"Scale": rows.Op(scale, rows.elementwise)}
"""
FORM = """
from graphcheck.rewriting import matmul
NAME = "device-matmul"
why_not = matmul.why_not

def build(b):
    return matmul.build(b)
"""


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    outside.taught.cache_clear()
    yield
    outside.taught.cache_clear()


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, group: str, points: str, **modules: str) -> None:
    """Another distribution, ``mydevice``, on the path, as pip would lay it there."""
    info = folder / f"mydevice{len(list(folder.iterdir()))}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {info.name.partition('-')[0]}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{points}\n")
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(folder))


def parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(text)


def compared(a: str, b: str) -> graphcheck.Comparison:
    return graphcheck.compare(parsed(a), parsed(b), run=False)


def test_a_taught_operator_is_proved_and_the_proof_names_who_taught_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert str(compared(SCALE, PLAIN).verdict) == "undecided"
    outside.taught.cache_clear()
    install(tmp_path, monkeypatch, "graphcheck.ops", "com.mydevice = taught_ops:OPS", taught_ops=OPS)
    found = compared(SCALE, PLAIN)
    assert str(found.verdict) == "proved" and "for every batch size" in found.reason
    assert "com.mydevice.Scale as taught by mydevice0" in found.evidence["proof"]["assumptions"]
    swapped = PLAIN.replace("Mul (x, k)", "Add (x, k)")
    assert not compared(SCALE, swapped).verdict.meets(graphcheck.Verdict.WITHIN_ROUNDING)
    plain = compared(PLAIN, PLAIN.replace("(x, k) }", "(k, x) }"))
    assert not any("taught by" in line for line in plain.evidence["proof"]["assumptions"])


def test_the_command_says_it_in_the_line_of_what_is_assumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, monkeypatch, "graphcheck.ops", "com.mydevice = taught_ops:OPS", taught_ops=OPS)
    monkeypatch.chdir(tmp_path)
    for name, text in (("a.onnx", SCALE), ("b.onnx", PLAIN)):
        Path(name).write_bytes(parsed(text).SerializeToString())
    assert main(["compare", "a.onnx", "b.onnx", "--no-run"]) == 0
    assert "assuming: com.mydevice.Scale as taught by mydevice0" in capsys.readouterr().out


BROKEN = [  # the module, what compare says, and whether that is an error
    (
        "import nothing_of_this_name",
        "mydevice0: its mapping of operators 'com.mydevice' cannot be loaded (ModuleNotFoundError",
        True,
    ),
    ("OPS = 3", "is not a mapping of operators, since it has no items", True),
    (
        "OPS = {'Scale': lambda m, node, x, k: m.nothing(x)}",
        "com.mydevice.Scale as taught by mydevice0 failed (Attrib",
        False,
    ),
    (
        "OPS = {'Scale': lambda m, node, x, k: 3}",
        "com.mydevice.Scale as taught by mydevice0 gives other than 1 tensors",
        False,
    ),
    ("OPS = {'Scale': lambda m, node, x, k: (x, None)}", "gives other than 1 tensors", False),
]


@pytest.mark.parametrize(("module", "said", "error"), BROKEN)
def test_what_is_broken_is_said_and_never_proved(
    module: str, said: str, error: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "graphcheck.ops", "com.mydevice = broken_ops:OPS", broken_ops=module)
    if error:
        with pytest.raises(UsageError) as caught:
            compared(SCALE, PLAIN)
        assert said in str(caught.value)
    else:
        found = compared(SCALE, PLAIN)
        assert str(found.verdict) == "undecided" and said in found.reason


def test_nothing_that_is_taught_here_can_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = "OPS = {'Gelu': lambda m, node, x: x, 'Scale': lambda m, node, x, k: x, 'Mul': lambda m, node, x, k: x}"
    install(
        tmp_path,
        monkeypatch,
        "graphcheck.ops",
        "com.microsoft = wrong_ops:OPS\nai.onnx = wrong_ops:OPS",
        wrong_ops=wrong,
    )
    head = HEAD.replace("com.mydevice", "com.microsoft")
    gelu, same = (
        head + f"(float[N,3] x) => (float[N,3] y) {{ y = {op} (x) }}" for op in ("com.microsoft.Gelu", "Identity")
    )
    assert not compared(gelu, same).verdict.meets(graphcheck.Verdict.WITHIN_ROUNDING)
    (tmp_path / "more").mkdir()
    for at in (1, 2):
        install(tmp_path, monkeypatch, "graphcheck.ops", "com.mydevice = wrong_ops:OPS", wrong_ops=wrong + f"#{at}")
    with pytest.raises(UsageError, match=r"teaches com.mydevice.\w+, which mydevice\d teaches too"):
        compared(SCALE, PLAIN)


def by_numpy(feeds: Any) -> list[np.ndarray]:
    return [feeds["x"] * feeds["k"]]


def test_the_helper_passes_what_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "graphcheck.ops", "com.mydevice = taught_ops:OPS", taught_ops=OPS)
    check_op(parsed(SCALE), by_numpy, units=1)


WRONG = {
    "lambda m, node, x, k: m.add(x, k)": "'y' is off by",
    "lambda m, node, x, k: m.transpose(m.mul(x, k), (1, 0))": "'y' has shape",
    "rows.Op(lambda m, node, x, k: m.mul(x, k), lambda see: rows.Rows(1))": "'y' is typed Rows",
}


@pytest.mark.parametrize("meaning", WRONG)
def test_the_helper_sees_what_is_wrong(meaning: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = f"from graphcheck.kernel.ops import rows\nOPS = {{'Scale': {meaning}}}"
    install(tmp_path, monkeypatch, "graphcheck.ops", "com.mydevice = wrong_ops:OPS", wrong_ops=module)
    with pytest.raises(AssertionError, match=WRONG[meaning]):
        check_op(parsed(SCALE), by_numpy, units=1)


FLIPPED = """
import numpy as np
from graphcheck.kernel.ops import rows

def flipped(m, node, x, k):
    return m.mul(m.pick(x, np.arange(1, 1 + x.shape[0] * 3).reshape(-1, 3)[::-1], x.shape), k)

OPS = {"Scale": rows.Op(flipped, %s)}
"""


def test_the_helper_sees_a_false_rule_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows in the other order: right for the runtime, and a function of all rows."""

    def run(feeds: Any) -> list[np.ndarray]:
        return [feeds["x"][::-1] * feeds["k"]]

    install(
        tmp_path,
        monkeypatch,
        "graphcheck.ops",
        "com.mydevice = flipped_ops:OPS",
        flipped_ops=FLIPPED % "rows.elementwise",
    )
    with pytest.raises(AssertionError, match="at size 2 row 0 is off by"):
        check_op(parsed(SCALE), run, units=1)
    outside.taught.cache_clear()
    (tmp_path / "flipped_ops.py").write_text(FLIPPED % "rows.mixed")
    monkeypatch.delitem(sys.modules, "flipped_ops")
    check_op(parsed(SCALE), run, units=1)


def test_the_helper_sees_an_operator_that_nobody_taught() -> None:
    with pytest.raises(AssertionError, match="unknown function"):
        check_op(
            parsed(SCALE.replace("float[N,3] x, float[3] k", "float[2,3] x, float[3] k").replace("[N", "[2")),
            by_numpy,
            units=1,
        )


def test_a_form_from_outside_is_offered_and_proved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own: forms are gathered once."""
    install(tmp_path, monkeypatch, "graphcheck.forms", "device = device_form", device_form=FORM)
    net = '<ir_version: 10, opset_import: ["": 21]> net (float[1,1,4,4] x) => (float[1,2,2,2] y) '
    net += "<float[2,1,2,2] w = {1, 2, 3, 4, 5, 6, 7, 8}> { y = Conv <strides = [2, 2]> (x, w) }"
    (tmp_path / "m.onnx").write_bytes(parsed(net).SerializeToString())
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), str(tmp_path)])}

    def rewritten() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "graphcheck", "rewrite", "m.onnx", "-o", "o.onnx", "--to", "device-matmul"]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    done = rewritten()
    assert done.returncode == 0 and "proved" in done.stdout, done.stderr
    (tmp_path / "device_form.py").write_text(
        FORM.replace(
            "return matmul.build(b)", "y, groups = matmul.build(b)\n    return b.op('Neg', [y], b.dims[y]), groups"
        )
    )
    (tmp_path / "o.onnx").unlink()
    wrong = rewritten()
    assert wrong.returncode != 0 and not (tmp_path / "o.onnx").exists()
    (tmp_path / "device_form.py").write_text(FORM.replace("device-matmul", "conv"))
    assert "its form of rewrite 'conv' has the name of another" in rewritten().stderr
    (tmp_path / "device_form.py").write_text("NAME = 'device-matmul'")
    assert "device_form: is not a form of rewrite, since it has no why_not" in rewritten().stderr


def test_rules_of_rows_may_be_left_out() -> None:
    assert outside.Outside(lambda m, node, x: x, rows.mixed, "p").rows is rows.mixed
