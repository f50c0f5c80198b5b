"""What folds into a box: the rows of a union cut at its waists, repeated blocks together, calm runs together."""

from __future__ import annotations

from collections import Counter
from typing import Any

from graphcheck.reporting.union import Union

MAX_PERIOD, MIN_REPEAT, MIN_RUN, LONG = 96, 8, 3, 48
"""Longest block in atoms; fewest vertices in a repeat and in a run; most rows of an atom before it is cut anyway."""


def atoms(union: Union) -> list[list[int]]:
    """Vertices in groups of whole rows, cut where at most one tensor of each side crosses from one row to the next.

    Tensors read all over the graph (masks, rotary tables) do not count. A group that stays long (a U-Net) is cut where fewest cross.
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
    groups: list[list[int]] = [[] for _ in range(len(cuts) + 1)]
    index, ends = 0, [*cuts, last]
    for v, row in enumerate(union.rows):
        while row > ends[index]:
            index += 1
        groups[index].append(v)
    return [g for g in groups if g]


def _crossing(union: Union, edges: list[tuple[int, int]], last: int) -> list[int]:
    """How many tensors cross from each row to the next."""
    reach: dict[int, int] = {}
    fan: Counter[int] = Counter()
    for u, v in edges:
        reach[u] = max(reach.get(u, 0), union.rows[v])
        fan[u] += 1
    steps = [0] * (last + 2)
    for u, end in reach.items():
        span = end - union.rows[u]
        if span > 0 and not (fan[u] >= 3 and span > max(30, 0.4 * last)):
            steps[union.rows[u]] += 1
            steps[end] -= 1
    total, out = 0, []
    for step in steps[:last]:
        total += step
        out.append(total)
    return out


def tree(union: Union, groups: list[list[int]], modules: list[str], special: set[int]) -> list[dict[str, Any]]:
    """The folds, outermost first: {"atom": index} or {"title", "note", "kind", "items", "open", "counts", "times"?}.

    ``modules`` names the source module of each vertex ("" if unknown); what holds a vertex of ``special`` starts open.
    """
    seen: dict[tuple[Any, ...], int] = {}
    signatures = [seen.setdefault(_signature(union, group, special), len(seen)) for group in groups]
    everything = len(union.vertices) <= 14
    out: list[dict[str, Any]] = []
    run: list[int] = []

    def flush() -> None:
        if sum(len(groups[i]) for i in run) >= MIN_RUN:
            out.append(_fold(union, groups, run, modules, special, "run"))
            out[-1]["open"] |= everything
        else:
            out.extend({"atom": i} for i in run)
        run.clear()

    at = 0
    while at < len(groups):
        period, times = _repeat(signatures, at, groups)
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


def _repeat(signatures: list[int], at: int, groups: list[list[int]]) -> tuple[int, int]:
    """(period, times) of the repetition that starts here and covers most; times is 1 if none is worth a box."""
    best, covered = (1, 1), 0
    for period in range(1, min(MAX_PERIOD, (len(signatures) - at) // 2) + 1):
        if signatures[at] != signatures[at + period]:
            continue
        block, times = signatures[at : at + period], 1
        while signatures[at + times * period : at + (times + 1) * period] == block:
            times += 1
        vertices = sum(len(g) for g in groups[at : at + period])
        if times > 1 and vertices >= 3 and vertices * times >= MIN_REPEAT and vertices * times > covered:
            best, covered = (period, times), vertices * times
    return best


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
        "items": [{"atom": i} for i in members],
    }


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


def _shared_module(names: list[str]) -> str:
    """The longest common dotted (or slashed) prefix of the module names that are known; "" if there is none."""
    known = [n for n in names if n]
    if len(known) * 2 < len(names) or not known:
        return ""
    separator = "/" if known[0].startswith("/") else "."
    parts = [n.split(separator) for n in known]
    shared = []
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return separator.join(shared).strip(separator)
