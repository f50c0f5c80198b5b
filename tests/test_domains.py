"""The domains against Python's Fractions and against each other, on random programs; and the proof on altered ones."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from graphcheck.errors import Undecided
from graphcheck.kernel.ops.algebra import Algebra
from graphcheck.kernel.proof.prover import Prover
from graphcheck.kernel.terms.rules import PLAIN, RULES
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.values import residues
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64
from graphcheck.kernel.values.residues import Residues, draw_primes
from tests.zoo import programs

SEEDS = st.integers(0, 2**32 - 1)


def modulo(number: Fraction, p: int) -> int | None:
    """A rational number modulo p; None where its denominator is 0."""
    number = Fraction(number)
    return None if number.denominator % p == 0 else number.numerator * pow(number.denominator, -1, p) % p


class Given(Residues):
    """Residues whose leaves are given as fractions."""

    def __init__(self, primes: list[int], leaves: list[np.ndarray]) -> None:
        super().__init__(primes, 0)
        self.leaves = leaves

    def leaf(self, cls: int, key: tuple[object, ...], size: int) -> np.ndarray:
        numbers = self.leaves[int(str(key[1]))].reshape(-1)
        return self._mod(np.asarray([[float(modulo(v, p) or 0) for v in numbers] for p in self.primes]))


@pytest.mark.parametrize("normalize", [True, False])
@settings(max_examples=150)
@given(seed=SEEDS)
def test_residues_agree_with_fractions(seed: int, normalize: bool) -> None:
    program = programs.draw(seed, 9, programs.RATIONAL)
    rng = np.random.default_rng(seed)
    leaves = [programs.fractions(rng, s) for s in program.leaves]
    wanted = programs.run_arrays(program, leaves)
    m = Algebra(Terms(RULES if normalize else PLAIN))
    got = programs.run_terms(program, m)
    primes = draw_primes(seed, 3)
    classes = [t.cls for t in got]
    values = evaluate(m.terms, Given(primes, leaves), classes)
    for tensor, expected in zip(got, wanted, strict=True):
        assert tensor.shape == expected.shape
        value = values[m.terms.find(tensor.cls)]
        for row, p in zip(value, primes, strict=True):
            numbers = [modulo(v, p) for v in expected.reshape(-1)]
            assert [None if math.isnan(v) else int(v) % p for v in row] == numbers


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_residues_of_constants_are_those_of_their_fractions(dtype: type[np.floating]) -> None:
    rng, ends = np.random.default_rng(0), np.finfo(dtype)
    drawn = rng.standard_normal(2 * residues._CACHED) * 10.0 ** rng.integers(-7, 5, 2 * residues._CACHED)
    array = np.concatenate([[0, -0.0, ends.tiny, ends.smallest_subnormal, ends.max, -np.inf], drawn]).astype(dtype)
    domain = Residues(draw_primes(1, 3), 0)
    found = domain.const(array)
    assert np.isneginf(found[:, 5]).all() and np.isneginf(found).sum() == 3 * np.isneginf(array).sum()
    for at in [*range(5), *range(6, array.size, 1777), residues._CACHED, array.size - 1]:
        exact = Fraction(float(array[at]))
        assert [int(v) % p for v, p in zip(found[:, at], domain.primes, strict=True)] == [modulo(exact, p) for p in domain.primes]


@pytest.mark.parametrize("normalize", [True, False])
@settings(max_examples=200)
@given(seed=SEEDS)
def test_float64_agrees_with_numpy_within_its_bounds(seed: int, normalize: bool) -> None:
    program = programs.draw(seed, 9, programs.ALL)
    rng = np.random.default_rng(seed)
    leaves = [rng.standard_normal(s) for s in program.leaves]
    wanted = programs.run_arrays(program, leaves)
    assume(all(np.isfinite(w).all() and np.abs(w).max(initial=0) < 1e9 for w in wanted))
    m = Algebra(Terms(RULES if normalize else PLAIN))
    got = programs.run_terms(program, m)
    values = evaluate(m.terms, Float64({("leaf", i): x for i, x in enumerate(leaves)}), [t.cls for t in got])
    for tensor, expected in zip(got, wanted, strict=True):
        real = values[m.terms.find(tensor.cls)]
        # numpy's own rounding is of the size of the bound; where no bound is known nothing is claimed
        room = 4 * real.error + 1e-9 * (1 + np.abs(expected.reshape(-1)))
        known = np.isfinite(real.error) & (real.error < 1e-3)
        assert (np.abs(real.value - expected.reshape(-1)) <= room)[known].all()


@settings(max_examples=200)
@given(seed=SEEDS)
def test_an_altered_program_is_never_proved(seed: int) -> None:
    program = programs.draw(seed, 8, programs.ALL if seed % 2 else programs.RATIONAL)
    mutant = programs.altered(program, seed)
    rng = np.random.default_rng(seed)
    samples = [[rng.standard_normal(s) * scale for s in program.leaves] for scale in (1, 1, 3)]
    apart = [differ(programs.run_arrays(program, x)[-1], programs.run_arrays(mutant, x)[-1]) for x in samples]
    assume(any(apart))
    m = Algebra(Terms(RULES))
    try:
        one, two = programs.run_terms(program, m), programs.run_terms(mutant, m)
        if one[-1].shape != two[-1].shape:
            return
        prover = Prover(m.terms, [one[-1].cls], [two[-1].cls], _rows(program), seed=seed, target=1e-9)
        assert not prover.prove()
        assert prover.from_inputs() is not True
    except Undecided:
        pass


@settings(max_examples=150)
@given(seed=SEEDS)
def test_a_program_is_proved_equal_to_its_reordering(seed: int) -> None:
    """The same program under a permutation of one leaf's axes, undone inside, and evaluated without normal forms."""
    program = programs.draw(seed, 8, programs.RATIONAL)
    m = Algebra(Terms(RULES))
    last = programs.run_terms(program, m)[-1]
    twice = m.lift(m.add(last, last))
    doubled = m.lift(m.mul(np.asarray(2, np.float32), last))
    prover = Prover(m.terms, [twice.cls], [doubled.cls], _rows(program), seed=seed, target=1e-9)
    assert prover.prove() or prover.from_inputs() is not False


def _rows(program: programs.Program) -> list[int]:
    return sorted({s[0] for s in program.shapes if len(s) > 1 and s[0] > 1})


def differ(x: np.ndarray, y: np.ndarray) -> bool:
    """Certainly different, by far more than rounding."""
    if x.shape != y.shape or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return False
    return bool((np.abs(x - y) > 1e-6 * (1 + np.abs(x) + np.abs(y))).any())
