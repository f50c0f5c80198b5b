"""Every file of tests/cases: two graphs in ONNX text and the verdict on them, in both orders, and on each alone.

A case is ``expect:`` (one or several verdicts that are right), the graphs after ``--- a`` and ``--- b``, and comments.
"""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest

from graphcheck.codes import CODES
from graphcheck.verdicts.compare import compare

FOLDER = Path(__file__).parent / "cases"
CASES = sorted(path.stem for path in FOLDER.glob("*.txt"))


def read(name: str) -> tuple[set[str], onnx.ModelProto, onnx.ModelProto]:
    """The verdicts allowed, and both models."""
    head, a, b = re.split(r"^--- [ab]$", (FOLDER / f"{name}.txt").read_text(encoding="utf-8"), flags=re.M)
    (line,) = (line for line in head.splitlines() if line.startswith("expect:"))
    return set(line.split()[1:]), onnx.parser.parse_model(a), onnx.parser.parse_model(b)


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    expected, a, b = read(name)
    forth, back = compare(a, b, timeout=60.0), compare(b, a, timeout=60.0)
    for found in (forth, back):  # what is not proved and not refuted says by its code why
        assert (found.code in CODES) == (found.verdict in ("undecided", "within-rounding")), found
    assert forth.verdict in expected, forth.reason
    assert back.verdict == forth.verdict, back.reason
    # a random operator is not even proved to equal itself
    alone = {"undecided", "identical"} if "random" in name else {"identical"}
    assert {str(compare(m, m, run=False).verdict) for m in (a, b)} <= alone


def test_a_third_of_the_cases_expects_no_proof() -> None:
    proofs = {"identical", "proved", "within-rounding"}
    assert 3 * sum(not read(name)[0] & proofs for name in CASES) >= len(CASES) > 30
