"""Where the boxes of a union stand: rows are given, columns come from fast-sugiyama, atom by atom and side by side."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from graphcheck.reporting.union import Union

Columns = dict[int, float]
Bends = dict[tuple[int, int], list[tuple[float, int]]]


def place(union: Union, groups: list[list[int]]) -> tuple[list[dict[str, Any]], Bends, Bends]:
    """For each atom {"rows", "v": [[vertex, row in the atom, column on A or null, column on B or null]], "w": [widest of A, of B]}.

    Columns are in units of a box's pitch around 0. Also returns, for each side, the bends (column, row in the target's atom) of edges
    that pass other rows on their way to a vertex of the atom.
    """
    bends: dict[str, Bends] = {"a": {}, "b": {}}
    into: dict[str, dict[int, list[int]]] = {s: defaultdict(list) for s in "ab"}
    for s in "ab":
        for u, v in union.edges[s]:
            into[s][v].append(u)
    out, memo = [], {}
    for group in groups:
        columns: dict[str, Columns] = {}
        for s in "ab":
            members = [v for v in group if getattr(union.vertices[v], s) is not None]
            problem = _problem(union, members, group, into[s])
            if problem not in memo:
                memo[problem] = _solve(*problem)
            xs, chains = memo[problem]
            columns[s] = {v: xs[i] for i, v in enumerate(members)}
            for (i, j), chain in chains.items():
                bends[s][members[i] if i >= 0 else -1, members[j]] = chain
        first = union.rows[group[0]]
        out.append(
            {
                "rows": union.rows[group[-1]] - first + 1,
                "v": [[v, union.rows[v] - first, columns["a"].get(v), columns["b"].get(v)] for v in group],
            }
        )
    return out, bends["a"], bends["b"]


Problem = tuple[tuple[int, ...], tuple[tuple[int, int], ...]]


def _problem(union: Union, members: list[int], group: list[int], into: dict[int, list[int]]) -> Problem:
    """Rows of the members and edges among them, by position; -1 stands for all that enters from above."""
    index = {v: i for i, v in enumerate(members)}
    first = union.rows[group[0]]
    edges = dict.fromkeys((index.get(u, -1), index[v]) for v in members for u in into.get(v, ()))
    return tuple(union.rows[v] - first for v in members), tuple(edges)


def _solve(rows: tuple[int, ...], edges: tuple[tuple[int, int], ...]) -> tuple[list[float], Bends]:
    """Columns of the members, and the bends of edges that span rows.

    Every edge is cut into steps of one row, and what nothing enters hangs on the entry, so that the ranks of the library are our rows.
    """
    from fast_sugiyama import from_edges

    if not rows:
        return [], {}
    steps: list[tuple[int, int]] = []
    chains: dict[tuple[int, int], list[int]] = {}
    fresh = len(rows) + 1
    entered = {j for _, j in edges}
    for i, j in [*edges, *((-1, j) for j in range(len(rows)) if j not in entered)]:
        before, top = i + 1, (rows[i] if i >= 0 else -1)
        chain = list(range(fresh, fresh + rows[j] - top - 1))
        fresh += len(chain)
        chains[i, j] = chain
        for v in (*chain, j + 1):
            steps.append((before, v))
            before = v
    # A box's own pitch is 1; the dummies of passing edges need less, but the library knows one size only.
    found = from_edges(steps, vertex_spacing=1, ranking_type="original", dummy_vertices=False).to_dict()
    bottom = [i for i, row in enumerate(rows) if row == max(rows)]
    centre = sum(found[i + 1][0] for i in bottom) / len(bottom)
    xs = [round(found[i + 1][0] - centre, 2) for i in range(len(rows))]
    bends = {
        key: [(round(found[v][0] - centre, 2), (rows[key[0]] if key[0] >= 0 else -1) + 1 + n) for n, v in enumerate(chain)]
        for key, chain in chains.items()
        if chain and key in set(edges)
    }
    return xs, bends
