"""What a comparison leaves behind: the plain data of its proof, and the sentences that sum it up."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from graphcheck import words
from graphcheck.interface import ports
from graphcheck.kernel.ops.algebra import Tensor
from graphcheck.kernel.ops.erasing import INTEGERS
from graphcheck.kernel.proof.pair import Pair
from graphcheck.kernel.proof.prover import Tier
from graphcheck.kernel.proof.sizes import Attempt, Sizes
from graphcheck.kernel.values.residues import LOW
from graphcheck.parting.difference import Deviation
from graphcheck.verdict import version

if TYPE_CHECKING:
    from graphcheck.verdicts.evidence import Precision

_SHOWN = 3  # sizes that a sentence names
_FOLDED = 8  # ulps that folding by two tools may bring
_EDGES = {"cut": "elements cut to its largest number", "lifted": "below its least", "moved": "off by steps that are allowed"}
_EXACT = "equality is of real arithmetic over the stored constants, where both sides are defined"


def tiers(attempts: Sequence[Attempt]) -> list[Tier]:
    """The tiers that merged anything."""
    return [t for a in attempts if a.prover is not None for t in a.prover.tiers if t.merges]


def error_probability(attempts: Sequence[Attempt]) -> float:
    """The bound on the probability that any merge was false."""
    return float(sum(2.0**t.log2_error for t in tiers(attempts)))


def proved(attempts: Sequence[Attempt], sizes: Sizes) -> str:
    """The sentence of a proof: for which inputs, and how sure."""
    probability = error_probability(attempts)
    how = f"with an error probability of at most {probability:.1e}" if tiers(attempts) else "by congruence alone"
    return f"the same function in exact arithmetic, {_claim(attempts, sizes)}, {how}{_beside(attempts, sizes)}"


def _claim(attempts: Sequence[Attempt], sizes: Sizes) -> str:
    """For which inputs: sizes that are claimed at all, shapes, and values of what steers."""
    claims = [f"every {size_of(sizes, name)}{_end(attempts, sizes, name)}" for name in sizes.free.every(attempts)]
    claims += [f"every {size_of(sizes, name)}, row by row," for name in sizes.free.row_by_row(attempts)]
    shapes = _shapes(attempts, sizes) + _at_samples(attempts, sizes)
    return f"for {' and '.join([*claims, 'every input'])} of shape {shapes}"


def _beside(attempts: Sequence[Attempt], sizes: Sizes) -> str:
    return _alone(attempts, sizes) + _left(attempts, sizes)


def _alone(attempts: Sequence[Attempt], sizes: Sizes) -> str:
    """What a model that has a size free gives for each row of it, where the other one takes one row."""
    kept, limits, told = sizes.free.row_by_row(attempts), sizes.free.limits(attempts), ""
    for name, (side, _) in sizes.free.alone.items():
        if name in kept:
            told += f"; {'AB'[side]} gives for each row what {'BA'[side]} gives for it"
        elif not sizes.options.every:  # else it is told what that asks for
            sizes_of = f"other sizes of {words.short(name)}: {limits[name]['reason']}"
            told += f"; {'AB'[side]} is not shown to do so row by row at {sizes_of}"
    return told


def _left(attempts: Sequence[Attempt], sizes: Sizes) -> str:
    """The sizes that a proof says nothing of: those that one model alone takes, and those at which a graph changes that were
    not tried, being too many or too large."""
    told = ""
    for name, limit in _limits(attempts, sizes).items():
        alone = limit["taken_by_one"]
        for side in "ab":
            taken = [row["size"] for row in alone if row["by"] == side]
            told += f"; {side.upper()} alone takes {_some(name, taken)}" if taken else ""
        known = {row["size"] for row in alone}
        left = [row["size"] for row in limit["breakpoints"] if not row["tried"] and row["size"] not in known]
        told += f"; not looked at: {_some(name, left)}, where a graph changes" if left else ""
    return told


def _some(name: str, sizes: Sequence[int]) -> str:
    """``H = 15, 19, 20 and 8 more``."""
    more = f" and {len(sizes) - _SHOWN} more" if len(sizes) > _SHOWN else ""
    return f"{words.short(name)} = {', '.join(map(str, sizes[:_SHOWN]))}{more}"


def _limits(attempts: Sequence[Attempt], sizes: Sizes) -> dict[str, Any]:
    """What limits a proof, by free dim, with the sizes looked at that one model alone takes: of those it says nothing."""
    usual = {} if sizes.given is not None else ports.shapes(sizes.interface, sizes.options.shapes)
    alone: dict[tuple[str, int], str] = {}
    for side, *rest, sample in sizes.admitted:
        if sizes.admitted[side, *rest, sample] and sizes.admitted.get((1 - side, *rest, sample)) is False:
            shapes = dict(rest)
            for name, ((key, axis), *_) in sizes.free.places.items():
                if usual and shapes[key][axis] != usual[key][axis]:
                    alone[name, shapes[key][axis]] = "ab"[side]
    found = sizes.free.limits(attempts)
    for name, limit in found.items():
        limit["taken_by_one"] = [{"size": size, "by": by} for (of, size), by in sorted(alone.items()) if of == name]
    return found


def _end(attempts: Sequence[Attempt], sizes: Sizes, name: str) -> str:
    """Up to which size the models run, where they end at one."""
    found = sizes.end(name, attempts)
    return f" up to {found[0]}" if found else ""


def size_of(sizes: Sizes, name: str) -> str:
    """How a free size is called: the batch where it stands first."""
    return "batch size" if sizes.free.typed[name][0][1] == 0 else f"size of {words.short(name)}"


def _shapes(attempts: Sequence[Attempt], sizes: Sizes) -> str:
    """The shapes of a proof, with the name of what may have any size in its place."""
    named = {place: words.short(name) for name in sizes.free.every(attempts) for place in sizes.free.places[name]}
    found = [{k: tuple(named.get((k, i), n) for i, n in enumerate(s)) for k, s in a.shapes.items()} for a in attempts]
    return "; ".join(dict.fromkeys(words.shapes(each) for each in found))


def _at_samples(attempts: Sequence[Attempt], sizes: Sizes) -> str:
    names, sampled, every = _sampled(attempts, sizes)
    values = [] if every and sampled else _values(attempts, sizes)
    if not sampled and not values:
        return _at_defaults(sizes)
    which = "every value" if every else f"{words.plural(sampled, 'sampled value')} alone"
    at = f"{' and '.join(values)} alone" if values else f"{which} of the inputs {names} that steer the graphs"
    return f", at {at}{_at_defaults(sizes)}"


def _values(attempts: Sequence[Attempt], sizes: Sizes) -> list[str]:
    """The values of integer inputs for which it is so, as ``sr=16000``; [] where one of them is no single number."""
    texts: dict[str, None] = {}
    for attempt in attempts:
        given = sizes.concrete(attempt.shapes, attempt.sample)
        if any(value.size != 1 for value in given.values()):
            return []
        if given:
            texts[", ".join(f"{name}={value.item()}" for name, value in given.items())] = None
    return list(texts)


def _sampled(attempts: Sequence[Attempt], sizes: Sizes) -> tuple[str, int, bool]:
    """The inputs that steer the graphs, how many samples of them were looked at, and whether those are all values."""
    sampled = [a for a in attempts if a.sample is not None]
    names = dict.fromkeys(repr(p.key) for a in sampled for p in sizes.steering(a.shapes))
    return ", ".join(names), len(sampled), all(sizes.exhaustive(a.shapes) for a in sampled)


def _bound(attempt: Attempt, sizes: Sizes) -> bool:
    """Whether the ranges leave one value to each of the inputs that steer."""
    known = sizes.bound(attempt.shapes)
    return attempt.sample is None or all(pair.key in known for pair in sizes.steering(attempt.shapes))


def _at_defaults(sizes: Sizes) -> str:
    """Inputs that a caller may override keep their defaults, and others are held: it is said."""
    held = [f"{name} held at {value:.10g}" for name, value in sizes.options.fix.items()]
    also = f", with {', '.join(held)}" if held else ""
    names = dict.fromkeys(repr(v.name) for m in sizes.models for v in m.graph.inputs if v.name in m.graph.initializers)
    return also + (f", with {', '.join(names)} at {'its' if len(names) == 1 else 'their'} default" if names else "")


def within_rounding(constants: Sequence[dict[str, Any]], attempts: Sequence[Attempt], sizes: Sizes) -> str:
    """The sentence of ``within-rounding``."""
    worst = max(c["ulps"] for c in constants)
    many = "constant, within its roundings" if len(constants) == 1 else "constants, each within its roundings"
    replaced = f"{'is' if len(constants) == 1 else 'are'} replaced by the other side's exact expression"
    once = f"the same function once {len(constants)} {many} (at most {worst:.3g} ulps), {replaced}"
    return f"{once}, {_claim(attempts, sizes)}{_beside(attempts, sizes)}"


def allowed(found: Precision, attempts: Sequence[Attempt], sizes: Sizes) -> str:
    """The sentence of a copy that is the same but for roundings that are allowed."""
    return f"{precision(found)}, {_claim(attempts, sizes)}{_beside(attempts, sizes)}"


def precision(found: Precision) -> str:
    """The sentence of a copy in a narrower format, whatever the verdict."""
    if found.unnamed and found.asked and not found.holds:
        seems = f"{found.side.upper()} seems to be in {' and '.join(found.unnamed)}, which --allow does not name"
        return f"{seems}; {_precision(found)}" if found.same or found.parts is not None else seems
    return _precision(found)


def _first(found: Precision, parts: Mapping[str, Any]) -> str:
    """Where a copy begins to be another function."""
    side, node = ("AB"[found.side == "a"], parts["node"]) if parts["node"] else (found.side.upper(), parts["lost"]["node"])
    return f"the first node that {side} does not have is {node!r}"


def _lost(found: Precision, parts: Mapping[str, Any]) -> str:
    """What it has lost first, where that is another node."""
    lost = parts["lost"] and parts["lost"]["node"]
    told = lost in (None, parts["node"]) or parts["node"] is None
    return "" if told else f", and the first that {found.side.upper()} does not have is {lost!r}"


def _precision(found: Precision) -> str:
    formats = f"{' and '.join(found.formats) or 'rounding'}"
    off = [c for c in found.found.constants if not c["within"]]
    if not found.same and found.parts is not None:
        why = f" ({found.parts['why']})" if "why" in found.parts else ""
        return f"not the same but for {formats}: {_first(found, found.parts)}{why}{_lost(found, found.parts)}"
    if off:
        first = off[0]
        name = first[found.side] or first["b" if found.side == "a" else "a"]
        where = f"{name!r}" if name else "a constant that no tensor holds"
        where += f" at {first['index']}" if first["index"] is not None else ""
        why = first["why"] or f"{first['needs']:.3g} ulps apart, {first['values'][0]:.9g} against {first['values'][1]:.9g}"
        others = f" and {len(off) - 1} more" if len(off) > 1 else ""
        at = f" ({_first(found, found.parts)})" if found.parts is not None else ""
        return f"the same function but for {formats} and for constants that were not rounded so: {where}{others}{at}: {why}"
    if found.step:
        return (
            f"the same function but for {formats}, and a rounding to it reaches {found.step}, "
            "whose result it may change altogether"
        )
    if not found.asked:
        return f"the same function but for {formats}: --allow {' --allow '.join(found.formats)} accepts that"
    parts = []
    by = Counter(c["format"] for c in found.rounded)
    for name in found.formats:
        vanished = found.marks.get(name, 0)
        also = f" and {words.plural(vanished, 'quantizer' if name in INTEGERS else 'cast')}" if vanished else ""
        parts += [f"{words.plural(by[name], 'constant')}{also} of {name}"] if by[name] or vanished else []
    if by["ulps"]:
        least = max(c["needs"] for c in found.rounded if c["format"] == "ulps")
        parts.append(f"{words.plural(by['ulps'], 'folded constant')} within {math.ceil(least)} ulps")
    edges = [f"{n:,} {text}" for key, text in _EDGES.items() if (n := sum(c[key] for c in found.rounded))]
    also = f" ({' and '.join(edges)})" if edges else ""
    return f"the same function but for roundings that are allowed: {' and '.join(parts)}{also}"


def known(constants: Sequence[dict[str, Any]], deviations: Sequence[Deviation]) -> str:
    """What is known of a difference that was neither proved away nor shown: the constants that differ, or how far apart."""
    if constants and not all(c["within"] for c in constants):
        beyond = [c for c in constants if not c["within"]]
        worst = max(beyond, key=lambda c: c["ulps"])
        count = words.plural(len(constants), "constant")
        by = f"by {worst['ulps']:.3g} ulps, " if math.isfinite(worst["ulps"]) else ""
        x, y = worst["values"]
        explained = f" where its roundings explain {worst['room']:.2g}" if worst["room"] else ""
        return (
            f"the graphs are the same but for {count}, the farthest {worst['name']!r} {by}{x:.6g} against {y:.6g}{explained}"
            f"{_allowing(constants)}"
        )
    if not deviations:
        return ""
    far = max(deviations, key=lambda d: d.units)
    explained = f"rounding explains {far.spread:.3g}" if math.isfinite(far.spread) else "it is not known what rounding explains"
    sentence = f"in float64 they differ by {far.deviation:.3g} at {far.output!r}, where {explained}"
    return sentence + (" (certain over the reals, but below the spread)" if far.certain and not far.gross else "")


def _allowing(constants: Sequence[dict[str, Any]]) -> str:
    """What would be accepted, where constants are so near that both sides may have folded them."""
    beyond = [c for c in constants if not c["within"]]
    least = math.ceil(max(min(c["needs"], _FOLDED + 1) for c in beyond))
    of = f"counted in ulps of the largest element {least} at most: " if max(c["ulps"] for c in beyond) > least else ""
    return f"; {of}--allow ulps={least} accepts that" if 0 < least <= _FOLDED else ""


def proof(
    attempts: Sequence[Attempt],
    sizes: Sizes,
    constants: list[dict[str, Any]],
    error: float,
    steps: list[dict[str, Any]] | None,
) -> dict[str, Any]:
    """The ``proof`` key of the JSON; ``error`` is what the substitution of constants adds to the error probability."""
    used = tiers(attempts)
    pairs = [a.pair for a in attempts if a.pair is not None]
    return {
        "tier": used[-1].name if used else "congruence",
        "tiers": [_tier(t) for t in used],
        "primes": sorted({p for t in used for p in t.primes}),
        "seed": sizes.options.seed,
        "error_probability": error_probability(attempts) + error,
        "rests_on": "Schwartz-Zippel over primes above 2**21 drawn by the seed, and 128-bit hashes taken as random functions"
        if used
        else "equal keys in a store of hash-consed expressions; constants by their bytes",
        "assumptions": [*_assumptions(attempts, sizes), _EXACT],
        "shapes": [{k: list(s) for k, s in a.shapes.items()} for a in attempts],
        "every": sizes.free.every(attempts),
        "ends": {
            name: {"size": end[0], "node": end[1]}
            for name in sizes.free.every(attempts)
            if (end := sizes.end(name, attempts)) is not None
        },
        "row_by_row": sizes.free.row_by_row(attempts),
        "limits": _limits(attempts, sizes),
        "counts": {"classes": sum(len(p.terms.terms) for p in pairs), "merges": sum(len(p.terms.joins) for p in pairs)},
        "constants": constants,
        "steps": steps,
    }


def _assumptions(attempts: Sequence[Attempt], sizes: Sizes) -> list[str]:
    pairs = [a.pair for a in attempts if a.pair is not None]
    found = sorted({line for p in pairs for line in p.assumptions})
    names, sampled, every = _sampled(attempts, sizes)
    if sampled and not every and not all(_bound(a, sizes) for a in attempts):
        drawn = "draws by the seed, ones, zeros, numbers that they are compared with"
        found.append(f"the inputs {names} took {sampled} sampled values ({drawn}), not all")
    if sizes.discrete():
        found.append("integer arithmetic of 32 and 64 bits does not overflow")
    opaque = sorted({line for p in pairs for trace in (p.a, p.b) for line in trace.opaque})
    if opaque:
        found.append(f"{len(opaque)} nodes are taken as unknown functions of their inputs: {'; '.join(opaque[:5])}")
    return found


def _tier(t: Tier) -> dict[str, Any]:
    row = dataclasses.asdict(t)
    row["error_probability"] = 2.0**t.log2_error
    row["log2_error"] = t.log2_error if math.isfinite(t.log2_error) else None
    row["prime_bits"] = LOW.bit_length()
    return row


def drawn(models: tuple[ir.Model, ir.Model], pair: Pair | None) -> dict[str, Any]:
    """The ``graphs`` key of the JSON; shapes that a model does not declare are those of the trace."""
    from graphcheck.graphs import structure

    graphs = {side: structure.graph_json(model) for side, model in zip("ab", models, strict=True)}
    for side, trace in (("a", pair.a), ("b", pair.b)) if pair is not None else ():
        for value, traced in trace.values.items():
            row = graphs[side]["tensors"].get(value.name)
            if row is not None and row["shape"] is None and isinstance(traced, Tensor):
                row |= {"shape": list(traced.shape), "dtype": ir.DataType.from_numpy(traced.dtype).name.lower()}
            structure.run_at(row, traced)
    return graphs


def in_spreads(numbers: dict[str, Any] | None, spread: Mapping[str, float]) -> None:
    """Give the outputs of plain runs their ``spread_units``: a spread is known at normal inputs of one shape alone."""
    runs = (numbers or {"runs": []})["runs"]
    for run in runs:
        plain = (run["inputs"]["shapes"], run["inputs"].get("scale")) == (runs[0]["inputs"]["shapes"], 1.0)
        plain &= (run["inputs"].get("distribution"), run["inputs"].get("signs")) == ("normal", "both")
        for row in run["outputs"] if plain or run["inputs"].get("distribution") == "given" else ():
            if spread.get(row["a"]) and row["max_abs"] is not None:
                row["spread_units"] = row["max_abs"] / spread[row["a"]]


def versions() -> dict[str, str]:
    """Versions of what a verdict rests on."""
    names = ("graphcheck", "onnx", "onnx-ir", "onnxruntime", "numpy")
    return {name: version(name) or "not installed" for name in names}
