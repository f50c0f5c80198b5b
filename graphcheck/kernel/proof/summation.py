"""How far the sums that runtimes make of the same K terms may lie from the exact one: the room of a folded sum.

A sum by any tree of additions errs by the sum of delta_i s_i over its nodes, s_i being the node's partial sum and
|delta_i| <= u. Where the delta_i are independent of each other and centred, it stays under LAMBDA u sqrt(sum s_i^2) but for
a probability of 2 exp(-LAMBDA^2 / 2), 3e-8 (Azuma and Hoeffding; Higham and Mary, "A new approach to probabilistic
rounding error analysis", SIAM J. Sci. Comput. 41(5), 2019, section 2). They bound the partial sums by sum |t_k|; here they
are those of these very terms, in the orders that runtimes take: one after the other from either end, in vector lanes, in
blocks. The order with the largest sum of squares counts. If all deltas had their worst signs at once, it would be K u
sum |t_k| (Higham, "Accuracy and stability of numerical algorithms", section 3.1), which is the smaller one for few terms.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

LAMBDA = 6.0
_LANES, _BLOCKS = (8, 32), (16, 128)  # partial sums side by side; terms summed before they are added up
_CHUNK = 2**16  # terms at a time
_MOST = 2**25  # terms of a product above which its orders are not gone through


def room_of_products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """In units of u, how far a @ b of a [B, m, k] and b [B, k, n] may err, B of one of them being 1 or not: [B, m, n].

    Of a very large product the order is taken as random, which grants less where neighbours are alike.
    """
    (m, k), n, count = a.shape[1:], b.shape[2], max(len(a), len(b))
    if count * m * k * n > _MOST:
        value, squares = a @ b, (a * a) @ (b * b)
        likely = LAMBDA * np.sqrt(k * (2 * value * value + squares) / 6 + squares)
        room: np.ndarray = np.minimum(likely, k * (np.abs(a) @ np.abs(b)))
        return room
    room = np.empty((count, m, n))
    a, b = (np.broadcast_to(x, (count, *x.shape[1:])) for x in (a, b))
    columns = max(1, _CHUNK // max(k, 1))
    rows = max(1, columns // max(n, 1))
    for batch in range(count):
        for i in range(0, m, rows):
            for j in range(0, n, columns):
                terms = a[batch, i : i + rows].T[:, :, None] * b[batch, :, None, j : j + columns]  # [k, rows, columns]
                found = _room(terms.reshape(k, -1), True)
                room[batch, i : i + rows, j : j + columns] = found.reshape(terms.shape[1:])
    return room


def room_of_sums(terms: np.ndarray) -> np.ndarray:
    """In units of u, how far the sums of the rows of [n, k] may err: [n]."""
    step = max(1, _CHUNK // max(terms.shape[1], 1))
    parts = [_room(terms[i : i + step].T, False) for i in range(0, len(terms), step)]
    return np.concatenate([np.zeros(0), *parts])


def _room(terms: np.ndarray, products: bool) -> np.ndarray:
    """The smaller one of the two bounds for the columns of [k, n], which are rounded themselves if they are products."""
    zero = terms == 0
    gaps = bool(zero.any())
    squares = np.max([_squares(x, gaps) for x in _orders(terms)], axis=0)
    likely = LAMBDA * np.sqrt(squares + (np.square(terms).sum(axis=0) if products else 0.0))
    room: np.ndarray = np.minimum(likely, (len(terms) - zero.sum(axis=0)) * np.abs(terms).sum(axis=0))
    return room


def _orders(terms: np.ndarray) -> Iterator[np.ndarray]:
    """The terms [k, n] as [members, groups, n]: each group is summed in order, and then the sums of the groups."""
    k, n = terms.shape
    yield terms[:, None]
    yield terms[::-1, None]
    for width in (w for w in _LANES if w < k):
        yield _padded(terms, width).reshape(-1, width, n)
    for width in (w for w in _BLOCKS if w < k):
        yield _padded(terms, width).reshape(-1, width, n).swapaxes(0, 1)


def _padded(terms: np.ndarray, width: int) -> np.ndarray:
    return np.pad(terms, ((0, -len(terms) % width), (0, 0))) if len(terms) % width else terms


def _squares(groups: np.ndarray, gaps: bool) -> np.ndarray:
    """Sum of the squares of all partial sums in one order, but of those to which a zero was added: they do not round."""
    first = np.cumsum(groups, axis=0)
    ends = first[-1].copy()
    last = np.cumsum(ends, axis=0)
    if gaps:
        first[groups == 0] = 0
        last[ends == 0] = 0
    total: np.ndarray = np.einsum("kgn,kgn->n", first, first)
    return total + np.einsum("gn,gn->n", last, last) if len(ends) > 1 else total
