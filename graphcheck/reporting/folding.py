"""What folds into a box: the rows of a union cut at its waists, repeated blocks together, calm runs together."""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from typing import Any

from graphcheck.graphs.repeats import repetition
from graphcheck.reporting.union import Union

MIN_RUN, LONG, FLAT, FAR = 3, 48, 36, 14
"""Fewest vertices in a run; most rows of an atom before it is cut anyway; most vertices that open at once, without inner
boxes; rows from a reader of a tensor to a Concat that belongs to another part."""


def atoms(union: Union) -> list[list[int]]:
    """Vertices in groups of whole rows, cut where at most one tensor of each side crosses from one row to the next.

    Tensors read all over the graph (masks, rotary tables) do not count, and light vertices go where they are read. A
    group that stays long (a U-Net) is cut where fewest cross.
    """
    if not union.rows:
        return []
    last = max(union.rows)
    crossing = [_crossing(union, union.edges[side], last) for side in ("a", "b")]
    width = [max(pair) for pair in zip(*crossing, strict=True)]
    cuts, start = [], 0
    for row in range(last):
        if width[row] <= 1:
            cuts.append(row)
            start = row + 1
        elif row - start >= LONG:
            window = range(start + LONG // 2, row + 1)
            cuts.append(min(window, key=lambda r: (width[r], -r)))
            start = cuts[-1] + 1
    group_of = [bisect.bisect_left(cuts, row) for row in union.rows]
    readers: dict[int, list[int]] = defaultdict(list)
    for u, v in union.edges["a"] + union.edges["b"]:
        readers[u].append(v)
    for v in reversed(range(len(union.vertices))):
        if union.light[v] and readers[v]:
            group_of[v] = min(group_of[w] for w in readers[v])
    groups: list[list[int]] = [[] for _ in range(len(cuts) + 1)]
    for v, index in enumerate(group_of):
        groups[index].append(v)
    return [g for g in groups if g]


def _crossing(union: Union, edges: list[tuple[int, int]], last: int) -> list[int]:
    """How many tensors cross from each row to the next."""
    read: dict[int, list[tuple[int, bool]]] = defaultdict(list)
    for u, v in edges:
        read[u].append((union.rows[v], union.ops[v] == "Concat"))
    fan = {u: len(rows) for u, rows in read.items()}
    reach = {u: _near(sorted(rows)) for u, rows in read.items()}
    steps = [0] * (last + 2)
    for u, end in reach.items():
        span = end - union.rows[u]
        if span > 0 and not union.light[u] and not (fan[u] >= 3 and span > max(30, 0.4 * last)):
            steps[union.rows[u]] += 1
            steps[end] -= 1
    total, out = 0, []
    for step in steps[:last]:
        total += step
        out.append(total)
    return out


def _near(readers: list[tuple[int, bool]]) -> int:
    """The last row among the readers (rows in order, and whether it is a Concat) before a Concat that is far behind: what it
    takes from the neck of another part of the network, as in a YOLO or a U-Net, belongs to no block here."""
    rows = [row for row, _ in readers]
    far = next((i for i in range(1, len(rows)) if readers[i][1] and rows[i] - rows[i - 1] > FAR), len(rows))
    return rows[far - 1]


def tree(union: Union, groups: list[list[int]], modules: list[str], special: set[int]) -> list[dict[str, Any]]:
    """The folds, outermost first: {"atom": index} or {"title", "note", "kind", "items", "open", "counts", "times"?}.

    ``modules`` names the source module of each vertex ("" if unknown); what holds a vertex of ``special`` starts open.
    """
    seen: dict[tuple[Any, ...], int] = {}
    modules = _without_root(modules)
    signatures = [seen.setdefault(_signature(union, group, special), len(seen)) for group in groups]
    sizes = [len(group) for group in groups]
    everything = len(union.vertices) <= 14
    out: list[dict[str, Any]] = []
    run: list[int] = []

    def flush() -> None:
        if sum(len(groups[i]) for i in run) < MIN_RUN:
            out.extend({"atom": i} for i in run)
        else:
            fold = _fold(union, groups, run, modules, special, "run")
            fold["open"] |= everything
            # A box that could not be named, with named boxes inside, says less than they do.
            named = any("title" in item for item in fold["items"])
            out.extend(
                fold["items"] if named and not _shared_module([modules[v] for i in run for v in groups[i]]) else [fold]
            )
        run.clear()

    at = 0
    while at < len(groups):
        period, times = repetition(signatures, at, sizes)
        if times > 1:
            flush()
            out.append(_repeated(union, groups, range(at, at + period * times), period, modules, special))
            at += period * times
            continue
        if _calm(union, groups[at], special):
            run.append(at)
        else:
            flush()
            out.append({"atom": at})
        at += 1
    flush()
    return out


def _signature(union: Union, group: list[int], special: set[int]) -> tuple[Any, ...]:
    first = union.rows[group[0]]
    return tuple(sorted((union.rows[v] - first, union.ops[v], union.vertices[v].status, v in special) for v in group))


def _calm(union: Union, group: list[int], special: set[int]) -> bool:
    return all(union.vertices[v].status == "same" and union.vertices[v].kind == "n" and v not in special for v in group)


def _fold(
    union: Union, groups: list[list[int]], members: list[int], modules: list[str], special: set[int], kind: str
) -> dict[str, Any]:
    inside = [v for i in members for v in groups[i]]
    counts = Counter(union.vertices[v].status for v in inside)
    common = [name for name, _ in Counter(union.ops[v] for v in inside).most_common(4)]
    shared = _shared_module([modules[v] for v in inside])
    return {
        "kind": kind,
        "title": shared or ("Matched nodes" if kind == "run" else "Block"),
        "note": " · ".join(common),
        "counts": dict(counts),
        "open": any(v in special for v in inside),
        "items": _nested(union, groups, members, modules, special, shared),
    }


def _nested(
    union: Union, groups: list[list[int]], members: list[int], modules: list[str], special: set[int], outer: str
) -> list[dict[str, Any]]:
    """The atoms of a large fold, in boxes by the next level of their modules where that tells them apart."""
    flat: list[dict[str, Any]] = [{"atom": i} for i in members]
    if sum(len(groups[i]) for i in members) <= FLAT or not any(modules[v] for i in members for v in groups[i]):
        return flat
    depth = len(outer.split(".")) if outer else 0
    parts: list[tuple[str, list[int]]] = []
    for i in members:
        inner = _shared_module([modules[v] for v in groups[i]])
        name = ".".join(inner.split(".")[: depth + 1])
        if len(inner.split(".")) <= depth or not inner:
            name = parts[-1][0] if parts else outer
        if not parts or parts[-1][0] != name:
            parts.append((name, []))
        parts[-1][1].append(i)
    if len(parts) == 1:
        return flat
    out: list[dict[str, Any]] = []
    for _, part in parts:
        if sum(len(groups[i]) for i in part) >= MIN_RUN:
            out.append(_fold(union, groups, part, modules, special, "module"))
        else:
            out += ({"atom": i} for i in part)
    return out


def _repeated(
    union: Union, groups: list[list[int]], members: range, period: int, modules: list[str], special: set[int]
) -> dict[str, Any]:
    starts = range(members.start, members.stop, period)
    blocks = [_fold(union, groups, list(range(s, s + period)), modules, special, "block") for s in starts]
    titles = [str(b["title"]) for b in blocks]
    named = len(set(titles)) == len(titles)
    for i, block in enumerate(blocks):
        block["title"] = titles[i] if named else f"Block {i + 1} of {len(blocks)}"
    whole = _fold(union, groups, list(members), modules, special, "repeat")
    stem = _shared_module([t for t in titles if t != "Block"])
    return whole | {"title": stem or "Repeated block", "times": len(blocks), "items": blocks}


def _without_root(names: list[str]) -> list[str]:
    """Module names in dots, without the levels that all share (the wrapper exported); "layer.0" stays whole."""
    dotted = [n.strip("/").replace("/", ".") for n in names]
    root = _shared_module([n for n in dotted if n])
    levels = len(root.split(".")) if root else 0
    if levels and any(part.isdigit() for n in dotted for part in n.split(".")[levels : levels + 1]):
        levels -= 1
    return [".".join(n.split(".")[levels:]) for n in dotted]


def _shared_module(names: list[str]) -> str:
    """The longest common dotted prefix of the module names that are known; "" if there is none, or few are known."""
    known = [n for n in names if n]
    if len(known) * 2 < len(names) or not known:
        return ""
    shared = []
    for column in zip(*(n.split(".") for n in known), strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return ".".join(shared)
