"""Every reason has a code, every code a row of docs/reference/codes.md, and --accept makes no verdict stronger.

``python tests/test_codes.py`` writes the page anew.
"""

from __future__ import annotations

import copy
import inspect
import json
import re
from pathlib import Path
from typing import Any

import onnx
import pytest

import graphcheck
from graphcheck import codes, errors
from graphcheck.cli import main
from graphcheck.codes import CODES, Coded
from graphcheck.errors import UsageError
from graphcheck.outcome import _FAILED, FAILURES, Outcome
from graphcheck.verdict import Comparison, Verdict
from graphcheck.verdicts.compare import compare

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference" / "codes.md"
HEAD = """# Reason codes

Every reason has a code that stays what it is while the sentence may be said better: `code` stands beside `reason` in
[the JSON](json.md), and the terminal, JUnit XML and annotations have a line `reason code:` where the exit code is 3.
`compare` and `sweep` take `--accept CODE`, repeatable: the exit code is 0 for a result that is `undecided`, or weaker
than `--require` asks for, with such a reason. The verdict stays as it is, and `different` is never accepted. In what
`--format` writes the result has passed and says so: in JUnit XML a passed case with the code and the sentence, in SARIF
a suppressed note, in annotations a notice. Each code is a family of reasons; the sentence has the node and the cause.

"""
FAMILIES = {
    "1": ("Trouble", "The exit code is 2; these cannot be accepted."),
    "2": ("Undecided, and within rounding", "The codes that `--accept` takes."),
    "3": ("Left alone by analyze and rewrite", "Of the `refusals`."),
    "4": ("Skipped by blame", "Of `skipped`."),
}


def page() -> str:
    """The page as it has to be."""
    text = HEAD
    for digit, (title, said) in FAMILIES.items():
        rows = [f"| `{code}` | {row.title} | {row.advice} |" for code, row in CODES.items() if code[2] == digit]
        text += f"## {title}\n\n{said}\n\n| code | means | do |\n|---|---|---|\n" + "\n".join(rows) + "\n\n"
    return text.rstrip() + "\n"


# -- the table and what raises -----------------------------------------------------------------------------------------


def test_the_page_is_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()
    assert all(re.fullmatch(r"GC[1-4]\d\d", code) and row.title.endswith(".") and row.advice for code, row in CODES.items())
    assert page() != page().replace("GC204", "GC299")


def test_every_class_of_reason_has_a_code_of_the_table() -> None:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__]
    assert len(classes) > 12 and all(c.code in CODES for c in classes)
    assert set(_FAILED) == set(FAILURES) and set(_FAILED.values()) <= set(CODES)


def test_every_code_is_given_somewhere() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "graphcheck").rglob("*.py") if path.name != "codes.py")
    given = set(re.findall(r"GC\d{3}", sources)) | {codes.OPEN}
    assert given == set(CODES)


def test_a_code_without_a_row_is_none() -> None:
    with pytest.raises(KeyError):
        Coded("a sentence", "GC299")
    assert codes.of(Coded("a sentence", "GC204")) == "GC204"
    assert codes.of(Coded("a sentence", "GC204") + "; and more") == codes.OPEN  # no code is taken along unseen
    assert [codes.of(copied(Coded("a sentence", "GC204"))) for copied in (copy.deepcopy, copy.copy)] == ["GC204"] * 2


# -- the codes of verdicts ---------------------------------------------------------------------------------------------

NET = '<ir_version: 10, opset_import: ["" : 21, "my" : 1]> g (float[N,2] x) => (float[N,2] y) '
C = "c = Constant <value_float = {}> () "
PAIRS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "GC201": ("y = Tanh (x)", "a = Exp (x) y = Mul (a, a)", {"timeout": 1e-9}),
    "GC204": ("y = my.One (x)", "y = my.Other (x)", {}),
    "GC205": ("r = RandomNormalLike (x) y = Add (x, r)", "r = RandomNormalLike (x) y = Add (r, x)", {}),
    "GC206": (C.format("nan") + "y = Mul (x, c)", C.format("nan") + "z = Mul (x, c) y = Relu (z)", {}),
    "GC207": (
        "s = Constant <value_ints = [7,5]> () y = Reshape (x, s)",
        "s = Constant <value_ints = [5,7]> () y = Reshape (x, s)",
        {},
    ),
    "GC209": (
        "a = Exp (x) b = Mul (a, a) c = Mul (b, a) y = Add (c, a)",
        "a = Exp (x) b = Mul (a, a) c = Mul (a, b) d = Add (b, a) e = Sub (d, b) y = Add (e, c)",
        {"error_probability": 1e-300},
    ),
    "GC210": ("d = Add (x, x) y = Exp (d)", "e = Exp (x) y = Mul (e, e)", {}),
    "GC217": (C.format(0.3) + "s = Sin (x) y = Mul (s, c)", C.format(0.300001) + "s = Sin (x) y = Mul (s, c)", {}),
    "GC230": (C.format(0.3) + "s = Sin (x) y = Mul (s, c)", C.format(0.30000003) + "s = Sin (x) y = Mul (s, c)", {}),
}


def model(body: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{NET} {{ {body} }}")


def pair(code: str) -> Comparison:
    a, b, options = PAIRS[code]
    return compare(model(a), model(b), run=False, graphs=False, **options)


@pytest.mark.parametrize("code", PAIRS)
def test_a_reason_has_its_code_beside_it(code: str) -> None:
    result = pair(code)
    assert (result.code, result.to_json()["code"]) == (code, code), result.reason
    assert result.verdict is (Verdict.WITHIN_ROUNDING if code == "GC230" else Verdict.UNDECIDED)


def test_what_is_proved_or_different_has_none() -> None:
    assert compare(model("y = Relu (x)"), model("z = Relu (x) y = Relu (z)"), run=False).code is None
    assert compare(model("y = Relu (x)"), model("y = Abs (x)"), run=False).code is None


# -- what may be accepted ----------------------------------------------------------------------------------------------


def test_accept_is_for_what_is_weaker_and_never_for_a_difference() -> None:
    for code in PAIRS:
        result = pair(code)
        require = Verdict.PROVED
        assert result.exit_code(require) == 3 == result.exit_code(require, ["GC214"])
        assert result.exit_code(require, ["GC214", code]) == 0
    for other in CODES:  # whatever is said of it
        assert Comparison(Verdict.DIFFERENT, "they part", {}, other).exit_code(accept=[*CODES]) == 1
        assert Outcome("n", "different", "they part", code=other).exit_code(accept=[*CODES]) == 1
        assert Outcome("n", "trouble", "no file", "error", code=other).exit_code(accept=[*CODES]) == 2
    assert Outcome("n", "undecided", "open", result={"code": "GC210"}).exit_code(accept=["GC210"]) == 0
    assert Outcome("n", "undecided", "open", result={"code": "GC210"}).exit_code(accept=["GC204"]) == 3


def test_the_command_line_accepts_a_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, _ = PAIRS["GC210"]
    for side, body in (("a", a), ("b", b)):
        onnx.save(model(body), tmp_path / f"{side}.onnx")
    files = [str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx"), "--no-run"]
    assert main(["compare", *files]) == 3
    plain = capsys.readouterr().out
    assert "  reason code: GC210" in plain.splitlines()
    assert main(["compare", *files, "--accept", "GC204", "--accept", "GC210", "--json", str(tmp_path / "r.json")]) == 0
    accepted = capsys.readouterr().out
    assert accepted.splitlines()[0] == plain.splitlines()[0]  # the verdict is printed unchanged
    assert "reason code" not in accepted
    assert "accepted by --accept GC210, which decides the exit code alone and not the verdict" in accepted
    saved = json.loads((tmp_path / "r.json").read_text())
    assert (saved["verdict"], saved["code"]) == ("undecided", "GC210")
    assert main(["compare", *files, "--accept", "GC204"]) == 3
    for wrong in ("GC299", "GC101", "undecided"):
        assert main(["compare", *files, "--accept", wrong]) == 2
        assert "--accept takes a code from GC201 to GC231 that docs/reference/codes.md lists" in capsys.readouterr().err


def test_python_accepts_a_code() -> None:
    a, b, _ = PAIRS["GC210"]
    with pytest.raises(AssertionError):
        graphcheck.assert_equivalent(model(a), model(b), run=False)
    assert graphcheck.assert_equivalent(model(a), model(b), run=False, accept=["GC210"]).verdict is Verdict.UNDECIDED
    with pytest.raises(AssertionError):
        graphcheck.assert_equivalent(model("y = Relu (x)"), model("y = Abs (x)"), run=False, accept=["GC210"])
    with pytest.raises(UsageError, match="accept takes a list, not 'GC210'"):
        graphcheck.assert_equivalent(model(a), model(b), accept="GC210")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
