"""Rows and the summed index in normal form.

1. A sum (a Max or Min of a row) does not depend on the order of its terms: they are ordered by where they come from
2. A product with a constant whose columns are one-hot only moves elements
3. A sum, a Max or a Min of one element is the element; Softmax of it is 1
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphcheck.kernel.terms.maps import Map, Maps

if TYPE_CHECKING:
    from graphcheck.kernel.terms.store import Terms


def one_hot(array: np.ndarray | None, n: int, k: int) -> np.ndarray | None:
    """Which row each column of a constant [k, n] picks, if all are one-hot: such a product only moves elements."""
    if array is None or n * k < 2 or array.size != n * k:
        return None
    first = array.reshape(-1)[:64]  # in memory, where a column of a large weight would touch all of its pages
    if not ((first == 0) | (first == 1)).all():
        return None
    table = array.reshape(k, n).T
    if np.count_nonzero(table[0]) != 1 or table[0].max() != 1 or np.count_nonzero(table) != n:
        return None
    picked = table.argmax(axis=1)
    return picked if bool((table[np.arange(n), picked] == 1).all()) else None


def sort(terms: Terms, a: int, b: int, batches: tuple[int, int], m: int, n: int, k: int, kn: bool) -> tuple[int, int]:
    """Order the summed index by where its elements come from, so that the order of a flattened patch is no matter."""
    term = terms.terms[a]
    if term.kind != "move" or batches[1] != 1:
        return a, b
    found = order(term.params[0], k)
    if found is None:
        return a, b
    a = terms.move((a,), arranged(terms.maps, batches[0] * m, k, found))
    if kn:
        return a, terms.move((b,), terms.maps.intern(found[:, None] * n + np.arange(1, n + 1)))
    return a, terms.move((b,), arranged(terms.maps, n, k, found))


def arranged(maps: Maps, rows: int, k: int, order: np.ndarray) -> Map:
    """The map that puts the columns of [rows, k] in this order."""
    return maps.intern((np.arange(rows)[:, None] * k + order[None, :]) + 1)


def order(map_: Map, k: int) -> np.ndarray | None:
    """The order that sorts the columns of a map [rows, k], or None if it is sorted (or has ties)."""
    if not map_.size or not k:
        return None
    key = ("columns", k)
    if key not in map_.row_cache:
        table = map_.index.reshape(-1, k)
        row = table[int(np.argmin((table == 0).sum(axis=1)))]
        found = np.argsort(row, kind="stable")
        ties = bool((np.diff(row[found]) == 0).any())
        sorted_already = bool((np.diff(found) == 1).all())
        map_.row_cache[key] = None if ties or sorted_already else found
    return map_.row_cache[key]  # type: ignore[return-value]
