"""Where the boxes of a union stand: rows are given, their order comes from fast-sugiyama, atom by atom and by side."""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from typing import Any

from graphcheck.reporting.union import Union

Columns = dict[int, float]
Bends = dict[tuple[int, int], list[tuple[float, int]]]
Problem = tuple[tuple[int, ...], tuple[tuple[int, int], ...]]

HALF_BOX, HALF_LINE, SWEEPS, LARGE, FEWER = 0.5, 0.11, 24, 400, 8
"""Half the room of a box and of a passing edge, in units of a box's pitch; sweeps of straightening, fewer for the large."""


def place(union: Union, groups: list[list[int]]) -> tuple[list[dict[str, Any]], Bends, Bends]:
    """For each atom {"rows", "v": [[vertex, row in the atom, column on A or null, on B or null]]}; each side's bends.

    Columns are in units of a box's pitch around 0. Bends are (column, row in the target's atom) of edges that pass
    other rows on their way to a vertex of the atom; those that enter the atom from above are listed under source -1.
    """
    bends: dict[str, Bends] = {"a": {}, "b": {}}
    into: dict[str, dict[int, list[int]]] = {s: defaultdict(list) for s in "ab"}
    for s in "ab":
        for u, v in union.edges[s]:
            into[s][v].append(u)
    out: list[dict[str, Any]] = []
    for group in groups:
        columns: dict[str, Columns] = {}
        for s in "ab":
            members = [v for v in group if getattr(union.vertices[v], s) is not None]
            xs, chains = _solve(*_problem(union, members, group, into[s]))
            columns[s] = {v: xs[i] for i, v in enumerate(members)}
            for (i, j), chain in chains.items():
                bends[s][members[i] if i >= 0 else -1, members[j]] = chain
        first = union.rows[group[0]]
        rows = [[v, union.rows[v] - first, columns["a"].get(v), columns["b"].get(v)] for v in group]
        out.append({"rows": union.rows[group[-1]] - first + 1, "v": rows})
    return out, bends["a"], bends["b"]


def _problem(union: Union, members: list[int], group: list[int], into: dict[int, list[int]]) -> Problem:
    """Rows of the members and edges among them, by position; -1 stands for all that enters from above."""
    index = {v: i for i, v in enumerate(members)}
    first = union.rows[group[0]]
    edges = dict.fromkeys((index.get(u, -1), index[v]) for v in members for u in into.get(v, ()))
    return tuple(union.rows[v] - first for v in members), tuple(edges)


@functools.lru_cache(maxsize=2048)
def _solve(rows: tuple[int, ...], edges: tuple[tuple[int, int], ...]) -> tuple[list[float], Bends]:
    """Columns of the members, and the bends of edges that span rows; remembered, since blocks and families repeat.

    Every edge is cut into steps of one row, and what nothing enters hangs on the entry, so that the library's ranks are
    our rows.
    Vertex 0 is the entry, i + 1 is member i, what follows are the passing edges' dummies.
    """
    from fast_sugiyama import from_edges

    if not rows:
        return [], {}
    steps: list[tuple[int, int]] = []
    chains: dict[tuple[int, int], list[int]] = {}
    level = [-1, *rows]
    entered, real = {j for _, j in edges}, set(edges)
    for i, j in [*edges, *((-1, j) for j in range(len(rows)) if j not in entered)]:
        before = i + 1
        chain = list(range(len(level), len(level) + rows[j] - level[before] - 1))
        level += range(level[before] + 1, rows[j])
        chains[i, j] = chain
        for v in (*chain, j + 1):
            steps.append((before, v))
            before = v
    layouts = from_edges(steps, vertex_spacing=1, ranking_type="original", dummy_vertices=False)
    found = {int(v): xy[0] for positions, *_ in layouts for v, xy in positions}
    # Lines that only hold a vertex at its row are not drawn and take no room.
    ghosts = {v for key, chain in chains.items() if key not in real for v in chain}
    drawn = [v for v in range(len(level)) if v not in ghosts]
    near = [
        (u, v)
        for u, v in steps
        if u not in ghosts and v not in ghosts and (u or chains.get((-1, v - 1)) is None or (-1, v - 1) in real)
    ]
    xs = _straighten({v: found[v] for v in drawn}, level, near, len(rows))
    bends = {
        key: [(round(xs[v], 2), level[v]) for v in chain] for key, chain in chains.items() if chain and key in real
    }
    return [round(xs[i + 1], 2) for i in range(len(rows))], bends


def _straighten(
    start: dict[int, float], level: list[int], steps: list[tuple[int, int]], boxes: int
) -> dict[int, float]:
    """Columns in the order of ``start``, as narrow as boxes and lines allow, each near the median of its neighbours.

    The entry, and a bottom row of one box, stay in the middle, so that atoms hang straight below each other.
    """
    layers: dict[int, list[int]] = defaultdict(list)
    for v in sorted(start, key=lambda v: (start[v], v)):
        layers[level[v]].append(v)
    around: dict[int, list[int]] = defaultdict(list)
    for u, v in steps:
        around[u].append(v)
        around[v].append(u)
    half = {v: HALF_BOX if v <= boxes else HALF_LINE for v in start}
    middle = start[0]
    xs = {v: (x - middle) * 0.6 for v, x in start.items()}
    bottom = layers[max(layers)]
    pinned = {0} | (set(bottom) if len(bottom) == 1 else set())
    rows = [
        (members, [() if v in pinned else tuple(around[v]) for v in members], [half[v] for v in members])
        for _, members in sorted(layers.items())
    ]
    for sweep in range(SWEEPS if len(start) < LARGE else FEWER):
        before = dict(xs)
        for members, near, room in rows if sweep % 2 == 0 else rows[::-1]:
            wanted = [
                _wanted(xs, n, xs[v]) if n or v not in pinned else 0.0 for v, n in zip(members, near, strict=True)
            ]
            xs.update(
                zip(members, _spread(wanted, room), strict=True) if len(members) > 1 else ((members[0], wanted[0]),)
            )
        if all(abs(xs[v] - before[v]) < 5e-3 for v in xs):
            break
    return xs


def _wanted(xs: dict[int, float], near: tuple[int, ...], now: float) -> float:
    """The place between the middle two neighbours that is nearest to ``now``: chains stay straight, with one step."""
    if len(near) == 1:
        return xs[near[0]]
    if not near:
        return now
    if len(near) == 2:
        a, b = xs[near[0]], xs[near[1]]
        low, high = (a, b) if a < b else (b, a)
    else:
        found = sorted([xs[u] for u in near])
        low, high = found[(len(found) - 1) // 2], found[len(found) // 2]
    return low if now < low else min(now, high)


def _spread(wanted: list[float], half: list[float]) -> list[float]:
    """Places nearest to those wanted, in least squares, that keep order and room (pool adjacent violators)."""
    offsets = [0.0]
    for left, right in itertools.pairwise(half):
        offsets.append(offsets[-1] + left + right)
    pools: list[tuple[float, int]] = []
    for value, offset in zip(wanted, offsets, strict=True):
        total, count = value - offset, 1
        while pools and pools[-1][0] / pools[-1][1] > total / count:
            before = pools.pop()
            total, count = total + before[0], count + before[1]
        pools.append((total, count))
    flat = [total / count for total, count in pools for _ in range(count)]
    return [x + offset for x, offset in zip(flat, offsets, strict=True)]
