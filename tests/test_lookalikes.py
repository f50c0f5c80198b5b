"""Rows that look alike: what a filter in float64 lets through, what one prime tells, and which values are kept for later rows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphcheck.kernel.proof import rows
from graphcheck.kernel.proof.lookalikes import Lookalikes, Marks, Recent
from graphcheck.kernel.proof.prover import Prover
from graphcheck.kernel.proof.rows import RowReducer
from graphcheck.kernel.terms.rules import PLAIN, RULES
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64
from graphcheck.kernel.values.residues import Residues


def chain(terms: Terms, steps: int, size: int) -> list[int]:
    """Classes, each made of the one before and the one before that."""
    found = [terms.leaf(("x",), size), terms.leaf(("y",), size)]
    for fn in ["add", "mul"] * (steps // 2):
        found.append(terms.ew(fn, [(found[-1], None), (found[-2], None)], size))
    return found[2:]


@pytest.mark.parametrize("most", [0, 7, 40, 10**6])
def test_values_are_the_same_however_few_are_kept(most: int) -> None:
    terms = Terms(PLAIN)
    made = chain(terms, 12, 4)
    domain = Residues([1009, 2003], 5)
    recent = Recent(terms, domain, most)
    for cls in [*made, *made[::-1]]:
        assert np.array_equal(recent.made(cls), evaluate(terms, domain, [cls])[terms.find(cls)])
        assert recent.held == sum(v.size for v in recent.values()) <= most


def test_what_was_read_last_is_kept() -> None:
    terms = Terms(PLAIN)
    made = chain(terms, 4, 4)
    inputs = {("x",): np.ones(4), ("y",): np.ones(4)}
    recent = Recent(terms, Float64(inputs, bounds=False), 16)
    recent.made(made[0])
    recent.made(made[-1])
    assert made[-1] in recent and made[0] not in recent


def test_of_many_with_one_sketch_marks_tell_which_are_looked_at() -> None:
    """A state that a loop halves is 0 in float64 after a thousand steps, and differs from step to step modulo a prime."""
    found, zero = Lookalikes(), np.zeros(4)
    marks = {row: str(row % 500).encode() for row in range(600)} | {550: None}
    seen = [[row for _, row in found.of(4, zero, (row, row), marks.get)] for row in range(600)]
    assert max(len(some) for some in seen[:550]) == 17
    assert all(row - 500 in some for row, some in enumerate(seen) if row >= 516 and row != 550)
    assert len(seen[550]) == 550 and 550 in seen[599], "what is not known may be alike"


def test_a_large_row_is_alike_where_its_elements_are() -> None:
    base = np.random.default_rng(0).standard_normal(5000)
    base[7] = 1e6  # beside such an element a sum tells little
    found, off = Lookalikes(), base.copy()
    off[np.linspace(0, 4999, 64).astype(int)[5]] += 0.1
    assert not found.of(5000, base, (1, 1))
    assert not found.of(5000, off, (2, 2))
    assert found.of(5000, base * (1 + 1e-15), (3, 3)) == [(1, 1)]
    assert found.of(5000, np.where(np.arange(5000) == 3, np.nan, base), (4, 4)), "what is not known may be alike"


def test_one_prime_tells_what_only_looks_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """x and x + 1e-12 look alike; all primes are for what is one modulo the first."""
    terms, asked = Terms(RULES), list[tuple[int, int]]()
    x, size = terms.leaf(("input", "x"), 8), 8
    least = terms.const(np.array([1e-12]))
    y = terms.ew("exp", [(x, None)], size)
    roots = terms.ew("sin", [(y, None)], size), terms.ew("sin", [(terms.ew("add", [(y, None), (least, None)], size), None)], size)
    of = Marks.of
    monkeypatch.setattr(Marks, "of", lambda self, row: asked.append((len(self.domain.primes), row)) or of(self, row))
    assert not Prover(terms, [roots[0]], [roots[1]], [2], seed=0, target=2.0**-40).by_rows()
    assert asked and {count for count, _ in asked} == {1}


@pytest.mark.parametrize("computed", [True, False])
def test_a_number_computed_of_constants_is_no_free_one(computed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The root of a mean square: a free 1/n may be negative, and what has no value in float64 looks like anything."""
    asked: list[int] = []
    of = Marks.of
    monkeypatch.setattr(Marks, "of", lambda self, row: asked.append(row) or of(self, row))
    for seed, same in itertools.product(range(8), (False, True)):
        terms = Terms(RULES)
        x = terms.ew("exp", [(terms.leaf(("input", "x"), 8), None)], 8)
        share = terms.ew("recip", [(terms.const(np.array([3.0])) if computed else terms.leaf(("input", "n"), 1), None)], 1)
        roots = []
        for factor in (3.0, 3.0 if same else 5.0):
            y = terms.ew("add", [(x, None), (terms.const(np.array([factor])), None)], 8)
            y = terms.ew("add", [(y, None), (x, None)] if roots else [(x, None), (y, None)], 8)
            total = terms.sum(terms.ew("mul", [(y, None), (y, None)], 8), 2, 4)
            roots.append(terms.ew("sqrt", [(terms.ew("mul", [(share, None), (total, None)], 2), None)], 2))
        prover = Prover(terms, [roots[0]], [roots[1]], [2], seed=seed, target=2.0**-40)
        assert prover.by_rows() is same
    assert bool(asked) is not computed, "an input stays free"


@pytest.mark.parametrize("block", [1, 5, 12, 10**6])
@pytest.mark.parametrize("kind", ["same", "block", "neither"])
def test_rows_of_a_table_are_looked_at_in_blocks(block: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_BLOCK", block)
    terms, count, width = Terms(RULES), 100, 5
    first = np.array([0, 4, 0, 2, 2])
    table = np.asarray([np.where(first > 0, first + (kind != "same") * 5 * i, 0) for i in range(count)])
    if kind == "neither":
        table[61, 1] -= 1  # no sampled row
    map_ = terms.maps.intern(table)
    assert map_.form is None
    found = RowReducer(terms, count, lambda cls: True)._split(map_, count * width)
    assert found == (kind, None if kind == "neither" else terms.maps.intern(first))


def joined(terms: Terms, entries: list[int], steps: tuple[int, int], damage: int | None) -> int:
    """Two tensors of three rows of 4 and of 2 side by side, as the first row says and ``steps`` for every next one."""
    x, y = terms.leaf(("x",), 12), terms.leaf(("y",), 6)
    first = np.asarray(entries)
    step = np.where(first > 12, steps[1], np.where(first > 0, steps[0], 0))
    table = np.asarray([first + row * step for row in range(3)]).reshape(-1)
    if damage is not None:
        table[damage % table.size] = 1 + (table[damage % table.size] + 5) % 18
    return terms.move((x, y), terms.maps.intern(table))


ENTRIES = st.lists(st.integers(0, 4) | st.integers(13, 14), min_size=3, max_size=6)


@given(ENTRIES, st.sampled_from([(4, 2), (4, 0), (0, 2), (0, 0), (4, 1), (3, 2)]), st.none() | st.integers(0, 17))
def test_a_row_of_tensors_side_by_side_is_that_row(entries: list[int], steps: tuple[int, int], damage: int | None) -> None:
    terms, inputs = Terms(PLAIN), {("x",): np.arange(1.0, 13), ("y",): np.arange(21.0, 27)}
    root = joined(terms, entries, steps, damage)
    term = terms.terms[terms.find(root)]
    leaves = [c for c in terms.order([root]) if not terms.terms[c].args]
    row = RowReducer(terms, 3, leaves.__contains__).reduce(root)
    if damage is None and {1, 13} <= {min(e, 1) if e < 13 else 13 for e in entries if e} and steps in ((4, 2), (4, 0), (0, 2)):
        assert row is not None
    if row is None or len(term.args) < 2:
        return
    whole = evaluate(terms, Float64(inputs), [root])[terms.find(root)].value.reshape(3, -1)
    for at in range(3):
        given_ = {
            ("row", c, 3): np.array_split(inputs[terms.terms[c].verb.key], 3)[at] for c in leaves
        } | {("whole", c): inputs[terms.terms[c].verb.key] for c in leaves}  # fmt: skip
        assert np.array_equal(evaluate(terms, Float64(given_), [row])[terms.find(row)].value, whole[at])


@given(st.integers(2, 4), st.integers(2, 5), st.data())
def test_what_is_read_of_rows_is_those_columns(count: int, width: int, data: st.DataObject) -> None:
    terms = Terms(RULES)
    source = terms.leaf(("x",), count * width)
    columns = data.draw(st.lists(st.integers(0, width - 1), min_size=1, max_size=width, unique=True))
    places = [0, *(row * width + column + 1 for row in range(count) for column in columns)]
    table = np.array(data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=12)))
    whole = terms.move((source,), terms.maps.intern(table))
    found = RowReducer(terms, count, lambda cls: cls == source).part(whole)
    used = np.unique((table[table > 0] - 1) % width)
    assert (found is not None) == (0 < used.size < width and whole != source and not terms.terms[whole].verb.map.empty)
    if found is not None:
        part = terms.term(found[0])
        assert np.array_equal(part.verb.map.index - 1, (np.arange(count)[:, None] * width + used).reshape(-1))
        assert terms.move((found[0],), found[1]) == whole


@pytest.mark.parametrize("wrong", ["", "exchanged", "a bias", "a weight"])
def test_one_product_for_queries_and_keys_is_two(wrong: str) -> None:
    terms, rng = Terms(RULES), np.random.default_rng(0)
    x, weight, bias = terms.leaf(("x",), 7 * 6), rng.standard_normal((6, 8)), rng.standard_normal(8)
    heads = terms.maps.transpose((7, 2, 2), (1, 0, 2))  # [row, head, n] -> [head, row, n]

    def product(weight: np.ndarray, bias: np.ndarray) -> int:
        made = terms.contract(x, terms.const(weight.reshape(-1)), (1, 1), 7, bias.size, 6, kn=True)
        rows = terms.maps.picked(1, bias.size, np.arange(7 * bias.size) % bias.size)
        return terms.ew("add", [(made, None), (terms.const(bias), rows)], 7 * bias.size)

    whole = product(weight, bias)
    order = [0, 4] if wrong != "exchanged" else [4, 0]
    parts = [terms.move((whole,), terms.maps.picked(7, 8, np.arange(at, at + 4))) for at in order]
    packed = [terms.move((part,), heads) for part in parts]
    weight, bias = weight.copy(), bias.copy()
    bias[6] += wrong == "a bias"
    weight[5, 7] += 2.0**-40 * (wrong == "a weight")
    apart = [terms.move((product(weight[:, at : at + 4], bias[at : at + 4]),), heads) for at in (0, 4)]
    roots = [terms.contract(*both, (2, 2), 7, 7, 2) for both in (apart, packed)]
    assert terms.find(roots[0]) != terms.find(roots[1])
    prover = Prover(terms, roots[:1], roots[1:], [7], seed=0, target=2.0**-40)
    assert prover.by_rows() is (not wrong)
