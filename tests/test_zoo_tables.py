"""The scripts of the zoo call wrong what is wrong, and then exit with 1: a table that cannot fail shows nothing."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from tests.zoo import patch_rows, patch_tables
from tests.zoo.patch_tables import Cell
from tests.zoo.tables import Row


def script(name: str) -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_script", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def zoo() -> ModuleType:
    return script("zoo")


@pytest.fixture(scope="module")
def batches() -> ModuleType:
    return script("batches")


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


HEAD = '<ir_version: 10, opset_import: ["": 21]> g (float[N,3] x) => (float[N,3] y) '
ROWS = f"{HEAD}{{ y = Add(x, x) }}", f"{HEAD}<float two = {{2}}> {{ y = Mul(x, two) }}"
MIXED = (f"{HEAD}{{ t = Transpose<perm = [1, 0]>(x)\n s = Softmax<axis = 1>(t)\n y = Transpose<perm = [1, 0]>(s) }}",
         f"{HEAD}{{ y = Softmax<axis = 0>(x) }}")  # fmt: skip


@pytest.mark.parametrize(("mixed", "code"), [(0, 0), (1, 0), (2, 1), (20, 1)])
def test_the_share_of_pairs_for_every_batch_size(
    batches: ModuleType, mixed: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nineteen of twenty are 95 %; with none at all, nothing was shown. A pair whose batch is not free is left out."""
    one, two = ([onnx.parser.parse_model(text) for text in pair] for pair in (ROWS, MIXED))
    fixed = [onnx.parser.parse_model(text.replace("N,3", "2,3")) for text in MIXED]
    found = {id(pair[0]): batches.looked("nets", "a ~ b", *pair) for pair in (one, two)}
    assert [each.claim for each in found.values()] == ["every", "sampled"]
    monkeypatch.setattr(batches, "looked", lambda group, name, a, b: dataclasses.replace(found[id(a)], name=name))
    made = [("a ~ b", *one)] * (20 - mixed) + [("a ~ c", *two)] * mixed + [("static", *fixed)]
    monkeypatch.setattr(batches, "pairs", lambda group, folder: iter([*made, Row("a ~ onnxsim", "optimizer fails", "", 0.0)]))
    monkeypatch.setattr(batches, "groups", lambda words: ["nets"])
    assert batches.main([]) == code
    told = capsys.readouterr().out
    assert f"Of 20 pairs that are proved, {20 - mixed} ({(20 - mixed) / 20:.1%}) are proved for every batch size." in told
    assert told.count("- nets: a ~ c: sampled: N: Softmax(s) of A: it works along this dim") == mixed
    assert "static" not in told and f"| nets | {20 - mixed} | 0 | {mixed} | 0 | 0 | 0 | 0 | 0 | 1 |" in told


def test_the_pairs_are_those_of_families_architectures_and_nets(batches: ModuleType, tmp_path: Path) -> None:
    groups = batches.groups([])
    assert {"vit", "article-keras", "keras cnn", "attention", "swin"} <= set(groups) and "qwen2-vl vision" not in groups
    assert batches.groups(["keras"]) == [name for name in groups if "keras" in name]
    assert sum(not isinstance(pair, Row) for pair in batches.pairs("attention", tmp_path)) > 2


# -- the rewriter's tables ---------------------------------------------------------------------------------------------

PROVED = Cell("proved", "identical", written=2, same=2)
CELLS = {
    "proved": (PROVED, True),
    "there already": (Cell("there"), True),
    "refused": (Cell("no", refused=1), True),
    "no way back": (dataclasses.replace(PROVED, back="no way"), True),
    "movement between additions": (dataclasses.replace(PROVED, same=None), True),
    "one other weight": (dataclasses.replace(PROVED, same=1), False),
    "other weights, no way back": (dataclasses.replace(PROVED, back="no way", same=0), False),
    "not proved": (Cell("undecided: too hard", written=2), False),
    "not proved on the way back": (dataclasses.replace(PROVED, back="different: they part"), False),
    "lost": (dataclasses.replace(PROVED, back="not recognised", same=0), False),
}


def made(cell: Cell, *, sites: tuple[str, ...] = ("matmul 4x4/4x4",), expected: str | None = "matmul") -> patch_tables.Row:
    reasons = ("its windows leave gaps",) if cell.refused else ()
    return patch_tables.Row("net", "un-embeddings", sites, len(sites), {"matmul": cell}, reasons, 0, expected, 1.0, 0.1)


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_is_right_or_wrong(name: str) -> None:
    cell, right = CELLS[name]
    assert made(cell).wrong == ([] if right else [f"net: un-embeddings: matmul: {cell}"])


def test_what_has_to_be_seen_and_is_not_is_wrong() -> None:
    refused = Cell("no", refused=1)
    assert made(PROVED, expected="conv").wrong == ["net: un-embeddings: not conv, but matmul 4x4/4x4"]
    assert made(PROVED, sites=(), expected="").wrong == ["net: un-embeddings: not a site, but nothing"]
    assert made(refused, sites=(), expected="its windows leave gaps").wrong == []
    assert made(refused, sites=(), expected="its windows overlap").wrong != []
    assert made(PROVED, sites=(), expected=None).wrong == []


def test_the_table_counts_and_fails_where_a_row_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    patches = script("patches")
    monkeypatch.setattr(patches, "ProcessPoolExecutor", lambda n, *_: ThreadPoolExecutor(n))
    given = ["un-embeddings", "movement", "text", "fold", "pixel shuffle", "--jobs", "1", "--save", str(tmp_path / "t.md")]
    monkeypatch.setattr(patches, "names", lambda kinds: ["text, un-embeddings: fold", "text, movement: pixel shuffle"])
    assert patches.main(given) == 0
    told = (tmp_path / "t.md").read_text()
    assert "| un-embeddings | 1 | 1 | 3 | 3 | 0 | 3 | 3 | 0 | 0 |" in told
    assert "| movement | 1 | 1 | 1 | 1 | 1 | 0 | 1 | 1 | 0 |" in told and "- none" in told
    for rows in ([made(dataclasses.replace(PROVED, same=1))], "ValueError: no", []):
        monkeypatch.setattr(patches, "found", lambda name, kinds, rows=rows: rows)
        assert patches.main(given) == 1
    capsys.readouterr()


def test_another_bit_in_a_weight_or_a_bias_is_seen() -> None:
    model, kind, _ = patch_rows.texts()["text, un-embeddings: bias by channel"]
    what = patch_tables.KINDS[kind]
    (site,) = what.sites(what.look(model).analysis)
    there = patch_tables.rewrite(model, "conv-transpose")
    found = what.look(there.model).analysis.unembeddings
    assert patch_tables.alike(there, found) == 1
    assert site.bias is not None
    weight, bias = np.nextafter(found[0].weight, np.float32(9)), np.nextafter(site.bias, np.float32(9))
    assert patch_tables.alike(there, [dataclasses.replace(found[0], weight=weight)]) == 0
    assert patch_tables.alike(there, [dataclasses.replace(found[0], bias=bias)]) == 0


def test_every_kind_has_cases_that_are_looked_for() -> None:
    rows = [kind for _, kind, words in patch_rows.texts().values() if words]
    assert all(rows.count(kind) > 3 for kind in patch_tables.KINDS)
    assert len(set(patch_rows.names())) == len(list(patch_rows.names())) > 2000
