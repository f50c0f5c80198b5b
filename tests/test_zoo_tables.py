"""The zoo's script calls wrong what is wrong, and then exits with 1: a table that cannot fail shows nothing."""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

from tests.zoo.tables import Row


@pytest.fixture(scope="module")
def zoo() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks" / "zoo.py"
    spec = importlib.util.spec_from_file_location("zoo_script", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("kind", "verdict", "harmless", "expected"),
    [
        ("pairs", "proved", False, False),
        ("pairs", "within-rounding", False, False),
        ("pairs", "undecided", False, True),
        ("pairs", "different", False, True),
        ("pairs", "crash", False, True),
        ("pairs", "optimizer fails", False, False),
        ("pairs", "exporter fails", False, True),
        ("mutants", "different", False, False),
        ("mutants", "undecided", False, False),
        ("mutants", "proved", False, True),
        ("mutants", "identical", False, True),
        ("mutants", "crash", False, True),
        ("mutants", "proved", True, False),
        ("mutants", "undecided", True, True),
        ("cases", "passed", False, False),
        ("cases", "lost", False, True),
        ("cases", "wrong", False, True),
        ("cases", "crash", False, True),
    ],
)
def test_a_row_is_wrong(zoo: ModuleType, kind: str, verdict: str, harmless: bool, expected: bool) -> None:
    assert zoo.wrong(kind, Row("some model", verdict, "", 0.0, harmless=harmless)) is expected


def test_only_known_exporters_may_fail(zoo: ModuleType) -> None:
    assert not zoo.wrong("pairs", Row(zoo.FAILING[0], "exporter fails", "TypeError", 0.0))


def test_the_report_counts_and_marks(zoo: ModuleType) -> None:
    pairs = [Row("a ~ b", "proved", "", 1.0), Row("a ~ c", "different", "they part", 1.0)]
    mutants = [Row("sign of a weight", "different", "", 1.0, where="exact"), Row("axis", "proved", "all alike", 1.0)]
    lines = zoo.report({("pairs", "net"): (pairs, 2.0), ("mutants", "net"): (mutants, 2.0)})
    assert "| net | 0 | 1 | 0 | 0 | 1 | 0 | 0 | 2 |" in lines
    assert "- **wrong** pairs, net: a ~ c: different: they part" in lines
    assert "- **wrong** mutants, net: axis: proved: all alike" in lines
    assert not any("sign of a weight: different" in line for line in lines)


def test_every_kind_and_model_has_a_group(zoo: ModuleType) -> None:
    groups = zoo.groups()
    assert {kind for kind, _ in groups} == set(zoo.KINDS)
    assert len(set(groups)) == len(groups) > 40


def test_the_script_proves_a_net_and_saves_the_table(
    zoo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a thread, since a script that is no module cannot be imported in a process of its own
    monkeypatch.setattr(zoo.concurrent.futures, "ProcessPoolExecutor", lambda n, *_: ThreadPoolExecutor(n))
    assert zoo.main(["pairs", "functions", "--jobs", "1", "--save", str(tmp_path / "zoo.md")]) == 0
    assert "| functions |" in (tmp_path / "zoo.md").read_text()
    monkeypatch.setattr(zoo, "rows", lambda group: ([Row("a ~ b", "undecided", "too hard", 0.0)], 0.0))
    assert zoo.main(["pairs", "functions", "--jobs", "1"]) == 1
    monkeypatch.setattr(zoo, "rows", lambda group: 1 // 0)
    assert zoo.main(["pairs", "functions", "--jobs", "1"]) == 1
    monkeypatch.setattr(zoo, "rows", lambda group: ([], 0.0))
    assert zoo.main(["pairs", "functions", "--jobs", "1"]) == 1
