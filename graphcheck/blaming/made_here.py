"""Two runs made here: one model in onnxruntime twice, each dumped and judged like a device's.

A graph output is never fused over, so a session whose every tensor is an output optimizes next to nothing. Three dumps are made
of each run instead: the outputs of the session as it is; and twice a few inner tensors beside them, at places where all that is
computed goes through one tensor (between two blocks, mostly), every other one of them in one run and the rest in the other, so
that what is fused across one place is whole in the other run. What this does not see: a fusion that spans two such places of both
runs is judged by the outputs alone, over the whole network, where the bound of rounding is wide; and a kernel chosen only when no
tensor is an output is judged there too. The regions that a conviction names may hold many nodes: an optimized session has no
tensors between them.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck import limits
from graphcheck.blaming.blame import blamed
from graphcheck.blaming.dumps import Array
from graphcheck.blaming.record import Blame, Guilt
from graphcheck.errors import UsageError
from graphcheck.files import model as model_
from graphcheck.files.model import ModelLike
from graphcheck.interface.inputs import InputSpec, generate, load_npz, side_inputs
from graphcheck.interface.ports import pair_interfaces, shapes
from graphcheck.options import Blaming, Options, Twice
from graphcheck.runs.child import RemoteSession
from graphcheck.runs.session import RunError
from graphcheck.words import number

SCHEMA = "graphcheck/twice/1"
_APART = 4  # nodes between two places at least
_FARTHEST = 48  # and at most, where there is another tensor to be had
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


@dataclasses.dataclass(frozen=True)
class Way:
    """How a model is run."""

    optimizations: str
    providers: tuple[str, ...]

    def __str__(self) -> str:
        return f"optimizations {self.optimizations} on {', '.join(self.providers)}"


@dataclasses.dataclass(frozen=True)
class Both:
    """What came of two runs: ``sides`` are the ways and what each is blamed for, ``apart`` how far each output is off."""

    verdict: Guilt
    reason: str
    sides: tuple[tuple[Way, Blame], ...]
    apart: Mapping[str, float]

    def exit_code(self) -> int:
        """0 if both are clean, 1 if one is convicted, 3 if nothing was judged."""
        return Blame(self.verdict, self.reason, {}).exit_code()

    def to_json(self) -> dict[str, Any]:
        """The plain data that ``--json`` writes."""
        rows = [dataclasses.asdict(way) | blame.to_json() for way, blame in self.sides]
        outputs = [{"output": name, "apart": far} for name, far in self.apart.items()]
        return {"schema": SCHEMA, "verdict": str(self.verdict), "reason": self.reason} | dict(
            zip("ab", rows, strict=True), outputs=outputs
        )


def twice(model: ModelLike, ways: Twice, options: Options, say: Callable[[str], None] = lambda _: None) -> Both:
    """One model run in two ways, each judged by itself. Raises :class:`RunError` where onnxruntime does not run it."""
    loaded = model_.read(model)
    feeds = _drawn(loaded, options)
    asked = [
        Way(level or "all", tuple(providers or options.providers))
        for level, providers in ((ways.optimizations_a, ways.providers_a), (ways.optimizations_b, ways.providers_b))
    ]
    if asked[0] == asked[1]:
        raise UsageError(
            f"both sides are run with {asked[0]}: give --optimizations-a, -b or --providers-a, -b that differ"
        )
    limit = Blaming(timeout=options.timeout, max_memory=options.max_memory, progress=say)
    sides, finals = [], []
    with limits.within(options.max_memory, options.timeout):
        for way, name in zip(asked, "AB", strict=True):
            say(f"running {name}")
            dumps = made(loaded, feeds, way)
            finals.append(dumps[0])
            sides.append((way, _merged([blamed(model, feeds | dump, limit) for dump in dumps])))
    apart = {name: _far(x, finals[1][name]) for name, x in finals[0].items() if name in finals[1]}
    words = [Guilt.CONVICTED, Guilt.UNDECIDED, Guilt.CLEAN]
    verdict = min((blame.verdict for _, blame in sides), key=words.index)
    return Both(verdict, _reason(verdict, sides, apart), tuple(sides), apart)


def made(model: ir.Model, feeds: Mapping[str, Array], way: Way) -> list[dict[str, Array]]:
    """The dumps of one way: the outputs of the session as it is, and twice inner tensors as well."""
    outputs = [str(v.name) for v in model.graph.outputs]
    points = places(model)
    found: list[dict[str, Array]] = []
    for extra in ([], points[::2], points[1::2]):
        if extra or not found:
            found.append(_run(model, feeds, way, [*outputs, *extra]))
    return found


def places(model: ir.Model) -> list[str]:
    """Tensors to be dumped, in order: such as everything computed goes through, a few nodes apart; where the next one is far,
    what is computed halfway to it."""
    last: dict[ir.Value, int] = {}
    nodes = list(model.graph)
    for at, node in enumerate(nodes):
        for value in node.inputs:
            if value is not None:
                last[value] = at
    ends = set(model.graph.outputs)
    live: set[ir.Value] = set()
    found: list[int] = []
    for at, node in enumerate(nodes):
        live |= {v for v in node.outputs if v.name and v in last and v.dtype in (None, *_FLOATS) and _computed(v)}
        live = {v for v in live if last[v] > at}
        one = node.outputs[0]
        if live == {one} and one not in ends and at - (found[-1] if found else -_APART) >= _APART:
            found.append(at)
    more = _halfway(found, nodes, ends)
    return [str(nodes[at].outputs[0].name) for at in sorted({*found, *more})]


def _halfway(found: Sequence[int], nodes: Sequence[ir.Node], ends: set[ir.Value]) -> list[int]:
    """Places in stretches without any: products, which begin what is fused rather than lie within it."""
    more: list[int] = []
    order = {node: at for at, node in enumerate(nodes)}
    before = 0
    for at, node in enumerate(nodes):
        if at in found:
            before = at
        first = node.inputs[0] if node.inputs else None
        ready = at - before >= _FARTHEST and node.op_type in ("Conv", "MatMul", "Gemm") and first is not None
        maker = None if first is None else first.producer()
        if ready and maker in order and first is not None and first not in ends and _computed(first):
            place = order[maker]
            if place not in (*found, *more):
                more.append(place)
                before = at
    return more


def _computed(value: ir.Value) -> bool:
    """Whether a tensor may hold numbers of the network: shapes and indices are made of few operators."""
    node = value.producer()
    return node is not None and node.op_type not in ("Shape", "Constant", "ConstantOfShape", "Range", "Size")


def _run(model: ir.Model, feeds: Mapping[str, Array], way: Way, names: Sequence[str]) -> dict[str, Array]:
    copy = model.clone()
    named = {v.name: v for node in copy.graph for v in node.outputs}
    present = {v.name for v in copy.graph.outputs}
    copy.graph.outputs.extend(named[name] for name in dict.fromkeys(names) if name not in present)
    with tempfile.TemporaryDirectory(prefix="graphcheck-") as folder:
        path = Path(folder, "model.onnx")
        model_.write(copy, path)
        with RemoteSession(path, optimizations=way.optimizations, providers=way.providers) as session:
            try:
                return session.run(dict(feeds), list(dict.fromkeys(names)))
            except RunError as error:
                raise RunError(
                    model_.path_of(model) or "model", f"{error.cause} ({way})", error.kind, error.node
                ) from None


def _drawn(model: ir.Model, options: Options) -> dict[str, Array]:
    """The inputs by name: given, or drawn as for a comparison of the model with itself."""
    interface = pair_interfaces(model, model)
    if options.inputs is not None:
        return dict(side_inputs(interface, load_npz(options.inputs, interface))[0])
    chosen = shapes(interface, options.shapes)
    drawn = generate(interface, chosen, InputSpec(options.seed, ranges=options.range_rows()))
    return dict(side_inputs(interface, drawn)[0])


def _merged(blames: Sequence[Blame]) -> Blame:
    """One of several dumps of a run: each output that is convicted once, in the narrowest region."""
    evidence = dict(blames[0].evidence)
    for key, of in (("convicted", blames), ("suspect", blames[1:])):  # over a whole network everything is suspect
        rows: dict[str, dict[str, Any]] = {}
        for row in (row for blame in reversed(of) for row in blame.evidence[key]):
            if row["output"] not in rows or len(row["region"]) < len(rows[row["output"]]["region"]):
                rows[row["output"]] = row
        evidence[key] = sorted(rows.values(), key=lambda row: len(row["region"]))
    evidence["checked"] = sum(blame.evidence["checked"] for blame in blames)
    words = [Guilt.CONVICTED, Guilt.CLEAN, Guilt.UNDECIDED]
    told = min(reversed(blames), key=lambda blame: words.index(blame.verdict))
    return Blame(told.verdict, told.reason, evidence)


def _far(x: Array, y: Array) -> float:
    """The largest deviation, of the largest magnitude."""
    if x.dtype.kind in "OSUT" or x.shape != y.shape or not x.size:
        return 0.0 if np.array_equal(x, y) else float("inf")
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    with np.errstate(all="ignore"):
        off = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        size = float(np.abs(a[np.isfinite(a)]).max(initial=0.0))
    return float(off.max() / size) if size else float(off.max())


def _reason(verdict: Guilt, sides: Sequence[tuple[Way, Blame]], apart: Mapping[str, float]) -> str:
    """One sentence."""
    far = max(apart.values(), default=0.0)
    if verdict is Guilt.CLEAN:
        return f"neither run is beyond what rounding explains; their outputs are apart by up to {number(100 * far)} %"
    for name, (way, blame) in zip("AB", sides, strict=True):
        if blame.verdict is verdict:
            return f"{name} ({way}): {blame.reason}"
    return "nothing was judged"
