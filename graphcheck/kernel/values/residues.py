"""Exact evaluation in modular arithmetic: values modulo several random primes, with uninterpreted functions as hashes.

Two different rational functions of degree d agree at a random point modulo p with probability at most about d / p
(Schwartz 1980, Zippel 1979). Primes lie in [2**21, 2**22) and residues are centred and kept in float64, so that a product is
below 2**42 and a BLAS dgemm over 1,024 terms is exact. An uninterpreted function is a keyed 128-bit hash of the residues modulo
all primes together. NaN stands for "undefined modulo this prime" (a zero denominator), -inf for itself (a mask).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphcheck.errors import Undecided
from graphcheck.kernel.terms.functions import Function, function
from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.verbs import reduces
from graphcheck.kernel.values.gather import picked

LOW, HIGH = 2**21, 2**22
PRIME_COUNT = 140_336  # primes in [LOW, HIGH)
_BLOCK, _CACHED = 1024, 2**15

Residue = np.ndarray  # [primes, n] float64


@functools.cache
def all_primes() -> np.ndarray:
    """The primes in [2**21, 2**22), ascending."""
    sieve = np.ones(HIGH, bool)
    sieve[:2] = False
    for n in range(2, int(HIGH**0.5) + 1):
        if sieve[n]:
            sieve[n * n :: n] = False
    return np.flatnonzero(sieve)[np.flatnonzero(sieve) >= LOW]


def draw_primes(seed: int, count: int) -> list[int]:
    """``count`` distinct primes drawn by the seed."""
    random = np.random.default_rng([seed, 0x9E37])
    return [int(p) for p in random.choice(all_primes(), count, replace=False)]


class Residues:
    """Values modulo ``primes``; ``seed`` keys the hashes and draws the free tensors."""

    def __init__(self, primes: Sequence[int], seed: int) -> None:
        self.primes, self.seed = list(primes), seed
        self.p = np.asarray(primes, np.float64)[:, None]
        self.undefined = 0
        self.hashed = 0
        self._tables: dict[int, np.ndarray] = {}
        self._powers: dict[int, np.ndarray] = {}
        self._inversions = 0

    # -- arithmetic ----------------------------------------------------------------------------------------------

    def _mod(self, x: Residue) -> Residue:
        with np.errstate(invalid="ignore"):
            reduced = x - self.p * np.rint(x / self.p)
        masked = np.isneginf(x)
        if masked.any():
            reduced[masked] = -np.inf
        return reduced

    def const(self, array: np.ndarray) -> Residue:
        """The residues of dyadic rationals, from their exact mantissas and exponents."""
        if array.dtype.kind in "iu":
            wide = array.astype(object) if array.dtype == np.uint64 else array.astype(np.int64)
            return self._mod(np.stack([(wide % p).astype(np.float64) for p in self.primes]))
        out = np.empty((len(self.primes), array.size))
        for at in range(0, array.size, _CACHED):  # which stays in the cache for all the primes
            self._dyadic(array[at : at + _CACHED], out[:, at : at + _CACHED])
        return out

    def _dyadic(self, array: np.ndarray, out: Residue) -> None:
        values, bits = array.astype(np.float64), 24 if array.dtype in (np.float32, np.float16) else 53
        masked = np.isneginf(values)
        mantissa, exponent = np.frexp(np.where(masked, 0.0, values))
        exponent = exponent.astype(np.int64) + (1200 - bits)
        mantissa *= 2.0**bits
        high, low = mantissa, mantissa
        if bits > 24:
            high = np.rint(mantissa / 2.0**27)
            low = mantissa - high * 2.0**27
        for row, p in zip(out, self.primes, strict=True):
            h = high - p * np.rint(high / p)
            if bits > 24:
                h *= float(2**27 % p)
                h += low
                h -= p * np.rint(h / p)
            h *= np.take(self._power_table(p), exponent)
            np.subtract(h, p * np.rint(h / p), out=row)
        out[:, masked] = -np.inf

    def _power_table(self, p: int) -> np.ndarray:
        """2**e modulo p for e from -1200 to 1200, centred."""
        if p not in self._powers:
            half = (p + 1) // 2
            up, down = [1], [1]
            for _ in range(1200):
                up.append(up[-1] * 2 % p)
                down.append(down[-1] * half % p)
            table = np.asarray(down[:0:-1] + up, np.float64)
            self._powers[p] = table - p * np.rint(table / p)
        return self._powers[p]

    def leaf(self, cls: int, key: tuple[Any, ...], size: int) -> Residue:
        """A free tensor, drawn from the seed and its key, the same however often it is drawn."""
        return self.free(repr(key), size)

    def free(self, key: str, size: int) -> Residue:
        """Uniform residues by seed and key."""
        digest = hashlib.blake2b(f"{self.seed}:{key}".encode(), digest_size=16).digest()
        random = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
        return self._mod(np.stack([random.integers(0, p, size).astype(np.float64) for p in self.primes]))

    def move(self, sources: Sequence[Residue], map_: Map) -> Residue:
        """A gather."""
        return picked(sources, map_)

    def ew(self, fn: str, values: Sequence[Residue], maps: Sequence[Map | None], size: int) -> Residue:
        """Sums, products and quotients are exact; every other function is a hash of its operands."""
        xs = [v if m is None else picked([v], m) for v, m in zip(values, maps, strict=True)]
        record = function(fn)
        if record.rational:
            rules: dict[str, Callable[..., Residue]] = {"add": self._plus, "mul": self._times, "recip": self._inverse}
            out = rules[fn](*xs)
        else:
            out = _void(self._function(record, xs), *(_undefined(x) for x in xs))
        return np.ascontiguousarray(np.broadcast_to(out, (len(self.primes), size))) if out.shape[1] != size else out

    def _plus(self, a: Residue, b: Residue) -> Residue:
        return self._mod(a + b)

    def _times(self, a: Residue, b: Residue) -> Residue:
        masked = np.isneginf(a) | np.isneginf(b)
        if not masked.any():
            return self._mod(a * b)
        out = self._mod(np.where(np.isneginf(a), 0, a) * np.where(np.isneginf(b), 0, b))
        out[
            np.broadcast_to(masked, out.shape)
        ] = -np.inf  # the other factor is a positive constant: the store saw to it
        return out

    def _inverse(self, x: Residue) -> Residue:
        """1 / x modulo each prime; NaN where x is 0."""
        self._inversions += x.size
        whole = self._canonical(x)
        out = np.empty_like(x)
        for i, p in enumerate(self.primes):
            row = whole[i]
            bad = (row <= 0) | (row >= p)  # zero, undefined or masked
            known = np.where(bad, 1, row)
            if self._inversions > 2_000_000:
                out[i] = np.take(self._inverse_table(p), known)
            elif known.size > 128:
                out[i] = _fermat(known.astype(np.float64), p)
            else:  # a call of numpy takes longer than Python
                out[i] = [pow(v, -1, p) for v in known.tolist()]
            out[i][bad] = np.nan
            self.undefined += int(bad.sum())
        return self._mod(out)

    def _inverse_table(self, p: int) -> np.ndarray:
        if p not in self._tables:
            powers = _generator_powers(p)
            table = np.zeros(p, np.int32)
            table[powers] = np.roll(powers[::-1], 1)
            self._tables[p] = table
        return self._tables[p]

    def contract(self, a: Residue, b: Residue, batches: tuple[int, int], m: int, n: int, k: int, kn: bool) -> Residue:
        """Exact batched products, in blocks of 1,024 terms."""
        out = np.empty((len(self.primes), max(batches) * m * n))
        for i, p in enumerate(self.primes):
            left = a[i].reshape(batches[0], m, k)
            right = b[i].reshape(batches[1], k, n) if kn else b[i].reshape(batches[1], n, k).swapaxes(1, 2)
            total: Any = 0.0
            for start in range(0, max(k, 1), _BLOCK):
                part = left[:, :, start : start + _BLOCK] @ right[:, start : start + _BLOCK]
                part -= p * np.rint(part / p)
                total = total + part
            out[i] = total.reshape(-1)
        return self._mod(out) if k > _BLOCK else out

    def sum(self, a: Residue, rows: int, k: int) -> Residue:
        """Exact row sums (k below 2**31)."""
        return self._mod(a.reshape(len(self.primes), rows, k).sum(axis=2))

    # -- uninterpreted functions ---------------------------------------------------------------------------------

    def _canonical(self, x: Residue) -> np.ndarray:
        """Residues as integers in [0, p); p where undefined, p + 1 for -inf. An int64 array [primes, n]."""
        with np.errstate(invalid="ignore"):
            whole = np.where(np.isfinite(x), x, 0).astype(np.int64)
        p = self.p.astype(np.int64)
        whole += np.where(whole < 0, p, 0)
        whole -= np.where(whole >= p, p, 0)
        if not np.isfinite(x).all():
            whole = np.where(np.isnan(x), p, np.where(np.isneginf(x), p + 1, whole))
        return whole

    def _salt(self, name: str) -> tuple[np.uint64, np.uint64]:
        digest = hashlib.blake2b(f"{self.seed}:{name}".encode(), digest_size=16).digest()
        return np.uint64(int.from_bytes(digest[:8], "little")), np.uint64(int.from_bytes(digest[8:], "little"))

    def _key(self, x: Residue, name: str, start: tuple[Any, Any] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """A 128-bit key of each element, of its residues modulo all primes together."""
        whole = self._canonical(x).astype(np.uint64)
        one, two = start if start is not None else self._salt(name)
        self.hashed += whole.shape[1]
        for row in whole:
            one = _mix(one ^ row)
            two = _mix(two + (row << np.uint64(17)) + one)
        shape = np.broadcast_shapes(np.shape(one), whole.shape[1:])
        return np.broadcast_to(one, shape), np.broadcast_to(two, shape)

    def _from_key(self, one: Any, two: Any, name: str) -> Residue:
        """Residues drawn by 128-bit keys."""
        first, second = self._salt(name)
        one, two = _mix(one ^ first), _mix(two ^ second)
        rows = []
        for i, p in enumerate(self.primes):
            one = _mix(one + two + np.uint64(i))
            rows.append((one % np.uint64(p)).astype(np.float64))
        return self._mod(np.stack(rows))

    def _function(self, record: Function, xs: Sequence[Residue]) -> Residue:
        """A hash of the operands (of their multiset where the order is no matter), with the function's parity; Tanh by Exp."""
        fn = record.name
        if fn == "tanh":
            return self._mod(2 * self._sigmoid(self._mod(2 * xs[0])) - 1)
        if record.commutative:
            lanes = [self._key(x, f"element:{fn}") for x in xs]
            return self._from_key(sum(lane[0] for lane in lanes), sum(lane[1] for lane in lanes), f"rows:{fn}")
        if record.parity:
            return self._symmetric(record, xs[0])
        key: tuple[Any, Any] | None = None
        for x in xs:
            key = self._key(x, f"function:{fn}", key)
        assert key is not None
        return self._from_key(*key, f"value:{fn}")

    def _symmetric(self, record: Function, x: Residue) -> Residue:
        whole, flip, zero = self._canonical(x), np.zeros(x.shape[1], bool), np.ones(x.shape[1], bool)
        for row, p in zip(whole, self.primes, strict=True):  # the sign of the first residue that is not 0
            flip = np.where(zero & (row != 0) & (row < p), 2 * row > p, flip)
            zero &= row == 0
        folded = np.where(flip, -x, x)
        out = self._from_key(*self._key(folded, f"function:{record.name}"), f"value:{record.name}")
        if record.parity == "reciprocal":
            out = np.where(zero, 1.0, np.where(flip, self._inverse(out), out) if flip.any() else out)
        if record.parity == "odd":
            out = np.where(zero, 0.0, np.where(flip, -out, out))
        return np.where(np.isneginf(x), 0.0, out) if record.mask == "zero" else out

    def rows(self, fn: str, a: Residue, rows: int, k: int, size: int) -> Residue:
        """Softmax hashes (element, multiset of the row) after subtracting the row's mean, but of two it is 1 / (1 + Exp) of their
        difference; max and min hash the multiset."""
        table = a.reshape(len(self.primes), rows, k)
        gone = _undefined(a).reshape(rows, k).any(axis=1)
        return _void(self._rows(fn, a, table, rows, k), np.asarray(gone if reduces(fn) else np.repeat(gone, k)))

    def _rows(self, fn: str, a: Residue, table: Residue, rows: int, k: int) -> Residue:
        if fn == "softmax":
            return self._softmax(table, rows, k)
        if fn.startswith("arg"):
            one, two = self._salt(fn)
            first, second = np.full(rows, one), np.full(rows, two)
            for column in range(k):
                first, second = self._key(table[:, :, column], fn, (first, second))
            return self._from_key(first, second, f"value:{fn}")
        assert reduces(fn)
        lanes = [lane.reshape(rows, k) for lane in self._key(a, f"element:{fn}")]
        present = ~np.isneginf(table[0])
        return self._from_key(_sum64(lanes[0], present), _sum64(lanes[1], present), f"rows:{fn}")

    def _softmax(self, table: Residue, rows: int, k: int) -> Residue:
        masked = np.isneginf(table)
        count = k - masked[0].sum(axis=1)
        if (count == 0).any():
            raise Undecided("a softmax row is fully masked")
        total = np.where(masked, 0, table).sum(axis=2)
        if k == 2 and not masked.any():
            second = self._sigmoid(self._mod(table[:, :, 1] - table[:, :, 0]))
            return np.stack([self._mod(1 - second), second], axis=2).reshape(len(self.primes), -1)
        mean = self._times(self._mod(total), self._inverse(np.broadcast_to(count.astype(np.float64), total.shape)))
        centred = np.where(masked, -np.inf, table - mean[:, :, None]).reshape(len(self.primes), rows * k)
        centred = self._mod(centred)
        one, two = (lane.reshape(rows, k) for lane in self._key(centred, "element:softmax"))
        present = ~masked[0]
        set_one, set_two = _sum64(one, present)[:, None], _sum64(two, present)[:, None]
        out = self._from_key(_mix(one + set_one).reshape(-1), _mix(two ^ set_two).reshape(-1), "value:softmax")
        return np.where(masked.reshape(len(self.primes), -1), 0.0, out)

    def _sigmoid(self, x: Residue) -> Residue:
        """1 / (1 + Exp(-x))."""
        return self._inverse(self._mod(1 + self._symmetric(function("exp"), -x)))

    def opaque(self, key: tuple[Any, ...], args: Sequence[Residue], size: int) -> Residue:
        """A hash of the key and all elements of all operands, one value for each element of the output."""
        digest = hashlib.blake2b(f"{self.seed}:{key!r}".encode(), digest_size=16)
        for x in args:
            digest.update(self._canonical(x).tobytes())
        self.hashed += 1
        gone = any(_undefined(x).any() for x in args)
        return _void(self.free(digest.hexdigest(), size), np.full(size, gone))

    def fingerprint(self, x: Residue) -> bytes | None:
        """A digest of a tensor's residues; None if one is undefined."""
        if np.isnan(x).any():
            return None
        return hashlib.sha256(self._canonical(x).astype(np.uint32).tobytes()).digest()


def _undefined(x: Residue) -> np.ndarray:
    """Where a value is undefined modulo every prime: by no accident, so that no function of it is defined either."""
    return np.asarray(np.isnan(x).all(axis=0))


def _void(out: Residue, *gone: np.ndarray) -> Residue:
    """``out``, undefined wherever one of the ``gone`` is."""
    for where in gone:
        if where.any():
            out = np.where(np.broadcast_to(where, out.shape[1:]), np.nan, out)
    return out


def _sum64(lane: np.ndarray, present: np.ndarray) -> np.ndarray:
    return np.asarray(np.where(present, lane, np.uint64(0)).sum(axis=1, dtype=np.uint64))


def _mix(x: Any) -> Any:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014)."""
    with np.errstate(over="ignore"):
        x = np.asarray(x, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def _fermat(x: np.ndarray, p: int) -> np.ndarray:
    """x ** (p - 2) modulo p."""
    result, base, power = np.ones_like(x), x - p * np.rint(x / p), p - 2
    while power:
        if power & 1:
            result = result * base
            result -= p * np.rint(result / p)
        base = base * base
        base -= p * np.rint(base / p)
        power >>= 1
    return result


def _generator_powers(p: int) -> np.ndarray:
    """g**0 ... g**(p-2) modulo p for a generator g."""
    factors = _prime_factors(p - 1)
    g = next(c for c in range(2, p) if all(pow(c, (p - 1) // f, p) != 1 for f in factors))
    powers = np.ones(1, np.int64)
    while powers.size < p - 1:
        powers = np.concatenate([powers, powers * pow(g, powers.size, p) % p])
    return powers[: p - 1]


def _prime_factors(n: int) -> list[int]:
    found, f = [], 2
    while f * f <= n:
        if n % f == 0:
            found.append(f)
            while n % f == 0:
                n //= f
        f += 1
    return [*found, n] if n > 1 else found
