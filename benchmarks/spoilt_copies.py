"""Copies in lower precision of the zoo's networks that are wrong in one thing, compared with the float32 model under ``--allow``.

    python benchmarks/spoilt_copies.py [--nets vit,resnet] [--exporters torchscript,dynamo,tf2onnx,text] [--each 4] [--jobs 2]

The nets and kinds of copies are those of tests/zoo/copying.py, the ways to spoil one those of tests/zoo/spoiling.py. A net by an
exporter has a row; a cell says how many of its copies were refused and of how many the changed constant or node was named, of
how many. ``right: VERDICT``: the right copy is not accepted, and no spoilt one was asked for; ``refused``: there is none.
A copy that is accepted is left out where the oracle in float64 says that it is no other function. Without ``--whole`` the rungs
that can only show a difference are left out (witness, breakpoints, inputs): no copy is accepted that would be refused by them.
Needs torch, transformers, onnxruntime and onnxconverter-common; tensorflow and tf2onnx for the Keras nets.
"""

from __future__ import annotations

import functools
import itertools
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import onnx

from benchmarks.right_copies import ACCEPTED, Title, asked, compared, in_turn, parser, told
from graphcheck import words
from graphcheck.verdicts import judge, ladder
from tests.zoo.copying import KINDS, Net
from tests.zoo.editing import name_of
from tests.zoo.quantized import calibration
from tests.zoo.spoiling import Copied, Spoilt, spoilt

SPOILT = (
    "float16",
    "common, mixed",
    "half()",
    "bfloat16",
    "dynamic, per channel",
    "QDQ, per channel",
    "QOperator",
    "int4",
)
SHORT = [rung for rung in ladder.LADDER if rung.name not in ("witness", "breakpoints", "inputs")]
# what stands between a constant, or a node, and who reads it
THROUGH = ("Cast", "QuantizeLinear", "DynamicQuantizeLinear", "DequantizeLinear")


class Found(NamedTuple):
    """What came out of a spoilt copy: the way, what was changed, the verdict and its reason, and whether it was named."""

    way: str
    changed: str
    verdict: str
    reason: str
    named: bool

    @property
    def refused(self) -> bool:
        return self.verdict not in ACCEPTED


class Cell(NamedTuple):
    """The spoilt copies of a kind, or why there are none."""

    kind: str
    found: tuple[Found, ...] = ()
    why: str = ""

    def __str__(self) -> str:
        counts = (sum(each.refused for each in self.found), sum(each.named for each in self.found), len(self.found))
        return self.why.split(":")[0] if self.why else "{}, {} of {}".format(*counts)


def _readers(nodes: dict[str, onnx.NodeProto], made: set[str]) -> set[str]:
    """The nodes, in topological order, that read tensors, also through what only moves or rounds them."""
    found = set()
    for name, node in nodes.items():
        if made & {*node.input}:
            found.add(name)
            made |= {*node.output} if node.op_type in THROUGH else set()
    return found


def named(evidence: dict[str, Any], reason: str, each: Spoilt, model: onnx.ModelProto) -> bool:
    """Whether a changed node or constant is named, a node that was put there, who reads it in either, or a constant that such a
    node has: by a row of what is off, by the node at which the graphs part or that the copy lost, or by the reason."""
    changed = each.changed
    before, nodes = ({name_of(n): n for n in m.graph.node} for m in (model, each.copy))
    own = changed.split("_quant")[0] + "_quant"  # those of one quantized operator
    places = {name for name in nodes if name == changed or name.startswith(own) or "of_the_mutation" in name}
    places |= _readers(nodes, {changed, *(output for name in places for output in nodes[name].output)})
    there = before.get(changed, onnx.NodeProto())
    constant = changed.removesuffix("_quantized").removesuffix("_Q4")
    known = {changed, *places, *there.input, *_readers(before, {constant, *there.output})}
    known |= {name for place in places for name in nodes[place].input}
    known |= {
        name for node in nodes.values() if node.op_type in THROUGH and known & {*node.output} for name in node.input
    }
    known |= {name.removesuffix("_quantized").removesuffix("_Q4") for name in known}
    known |= {name.split("_")[0] for name in known if name.startswith("constant_")}
    known |= {name for name in before if f"{name}_quant" in places}  # a node that was lost has its name in the model
    precision = evidence["precision"] or {}
    parts = precision.get("parts") or {}
    told = {row[side] for row in precision.get("off", ()) for side in "ab"}
    told |= {each.get(key) for each in (parts, parts.get("lost") or {}) for key in ("node", "begins")}
    told |= {(side or {}).get("node") for side in ((evidence["divergence"] or {}).get(s) for s in "ab")}
    return bool(known & told) or any(
        re.search(rf"(?<![\w/]){re.escape(words.short(name))}(?![\w/])", reason) for name in places
    )


def row(title: Title, kinds: list[str], seconds: float, each: int, whole: bool) -> tuple[Title, list[Cell]]:
    """A cell for each kind of copy of a net."""
    climb = functools.partial(ladder.climb, ladder=ladder.LADDER if whole else SHORT)
    with mock.patch.object(judge, "climb", climb):
        try:
            net = Net.of(*title)
        except Exception as error:
            return title, [Cell(kind, why=f"refused: {told(error)}") for kind in kinds]
        return title, [cell(net, kind, seconds, each) for kind in kinds]


def cell(net: Net, kind: str, seconds: float, each: int) -> Cell:
    """The copies of that kind that are wrong."""
    try:
        copied = Copied.of(net, kind)
    except Exception as error:
        return Cell(kind, why=f"refused: {told(error)}")
    allow, _, calibrated = KINDS[kind]
    feeds = calibration(copied.model) if calibrated else ()
    verdict, reason, _ = compared(copied.model, copied.right, allow, feeds, seconds)
    if verdict not in ACCEPTED:
        return Cell(kind, why=f"right {verdict}: {reason}")
    found = (
        judged(copied, wrong, compared(copied.model, wrong.copy, allow, feeds, seconds)) for wrong in spoilt(copied)
    )
    return Cell(kind, tuple(itertools.islice((one for one in found if one is not None), each)))


def judged(copied: Copied, wrong: Spoilt, compared: tuple[str, str, dict[str, Any]]) -> Found | None:
    """What came out of it; None if it is no other function."""
    verdict, reason, evidence = compared
    if verdict in ACCEPTED and wrong.harmless(copied.model):
        return None
    return Found(wrong.way, wrong.changed, verdict, reason[:300], named(evidence, reason, wrong, copied.model))


def close(rows: dict[Title, list[Cell]]) -> Iterator[str]:
    """What there is in all."""
    cells = [(title, each) for title, row in sorted(rows.items()) for each in row]
    found = [(title, cell.kind, each) for title, cell in cells for each in cell.found]
    refused, given = sum(each.refused for *_, each in found), sum(each.named for *_, each in found)
    yield f"\n- spoilt copies: {len(found)}; refused: {refused}; named: {given} ({given / max(len(found), 1):.1%})"
    yield f"- verdicts: {dict(Counter(each.verdict for *_, each in found))}"
    ways = {name: {each.way for title, _, each in found if title[0] == name} for name in {title[0] for title in rows}}
    yield f"- ways: {len(set().union(*ways.values()))} in all; " + ", ".join(
        f"{n} {len(w)}" for n, w in sorted(ways.items())
    )
    for title, row in sorted(rows.items()):
        yield from faults(title, row)


def faults(title: Title, cells: list[Cell]) -> Iterator[str]:
    """What is not as it should be."""
    for cell in cells:
        at = f"- {', '.join(title)}, {cell.kind}"
        if cell.why.startswith("right"):
            yield f"{at}: {cell.why[:300]}"
        for each in cell.found:
            if not (each.refused and each.named):
                fault = "not named" if each.refused else "ACCEPTED"
                yield f"{at}, {fault}: {each.way} at {each.changed}: {each.verdict}: {each.reason}"


def main() -> None:
    """Compare and print."""
    given = parser(__doc__, SPOILT)
    given.add_argument("--each", type=int, default=4, help="copies of each kind")
    given.add_argument("--whole", action="store_true", help="climb the whole ladder")
    options = given.parse_args()
    rows, started = dict[Title, list[Cell]](), time.monotonic()
    made = functools.partial(row, kinds=options.kinds, seconds=options.seconds, each=options.each, whole=options.whole)
    print(f"| net | exporter | {' | '.join(options.kinds)} |\n{'|---' * (len(options.kinds) + 2)}|", flush=True)
    for title, cells in in_turn(made, asked(options), options.jobs):
        rows[title] = cells
        print(f"| {' | '.join(title)} | {' | '.join(map(str, cells))} |", flush=True)
        print("\n".join(faults(title, cells)), file=sys.stderr, flush=True)
    print("\n".join(close(rows)), f"- {time.monotonic() - started:.0f} s by {options.jobs} processes", sep="\n")


if __name__ == "__main__":
    main()
