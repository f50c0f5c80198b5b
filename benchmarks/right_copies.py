"""Every right copy in lower precision of the zoo's networks, compared with the float32 model under ``--allow``.

    python benchmarks/right_copies.py [--nets vit,resnet] [--exporters torchscript,dynamo,tf2onnx,text] [--kinds int4] [--jobs 2]

The kinds of copies, and who makes them, are those of tests/zoo/copying.py. A net by an exporter has a row: the seconds that it
took to accept the copy, or the verdict. ``refused``: the maker has no such copy; ``nothing``: the copy is the model, in which the
maker found nothing to convert. Neither is counted. Behind a verdict that is not as it should be stands by how much the copy is
apart from the model in onnxruntime (the root of the mean square, in that of the outputs): a copy that is far off is none.
Needs torch, transformers, onnxruntime and onnxconverter-common; tensorflow and tf2onnx for the Keras nets.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import onnx

import graphcheck
from benchmarks import narrow
from tests.zoo.copying import KINDS, NETS, Net, stored
from tests.zoo.quantized import calibration

ACCEPTED = ("identical", "proved", "within-rounding")


class Cell(NamedTuple):
    """A copy: the verdict on it, or why there is none, the reason, and the seconds that comparing took."""

    kind: str
    verdict: str
    reason: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.seconds:.0f}" if self.verdict in ACCEPTED else self.verdict


def run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    """All outputs in onnxruntime as one row; inputs are cast to float16 where the model takes that."""
    narrow_ports = {p.name for p in model.graph.input if p.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16}
    given = {name: array.astype(np.float16) if name in narrow_ports else array for name, array in feed.items()}
    return np.concatenate([y.reshape(-1) for y in narrow.run(model, given)])


def deviation(model: onnx.ModelProto, copy: onnx.ModelProto) -> str:
    """How far apart both are at inputs like those of the calibration, in words."""
    try:
        feeds = calibration(model)
        a, b = (np.concatenate([run(m, feed) for feed in feeds]) for m in (model, copy))
    except Exception as error:
        return f"not run: {type(error).__name__}"
    return f"{np.sqrt(np.square(b - a).mean() / np.square(a).mean()):.1%} apart in onnxruntime"


Title = tuple[str, str]  # a net and its exporter
T = TypeVar("T")


def compared(
    a: onnx.ModelProto, b: onnx.ModelProto, allow: str, feeds: Sequence[dict[str, Any]] = (), seconds: float = 120.0
) -> tuple[str, str, dict[str, Any]]:
    """Verdict, reason and evidence, at the inputs ``feeds`` where there are some."""
    with tempfile.TemporaryDirectory() as place:
        files = [str(Path(place, f"{i}.npz")) for i in range(len(feeds))]
        for file, feed in zip(files, feeds, strict=True):
            np.savez(file, **feed)
        given: dict[str, Any] = {"inputs": files[0], "more_inputs": files[1:]} if files else {"run": False}
        found = graphcheck.compare(a, b, allow=[allow], graphs=False, timeout=seconds, **given)
    return found.verdict.value, found.reason, found.evidence


def row(title: Title, kinds: list[str], seconds: float) -> tuple[Title, list[Cell]]:
    """A cell for each kind of copy of a net."""
    try:
        net = Net.of(*title)
    except Exception as error:
        return title, [Cell(kind, "refused", f"no export: {told(error)}") for kind in kinds]
    return title, [cell(net, kind, seconds) for kind in kinds]


def cell(net: Net, kind: str, seconds: float) -> Cell:
    """That copy of it, made and compared."""
    allow, make, calibrated = KINDS[kind]
    try:
        model, copy = make(net)
    except Exception as error:
        return Cell(kind, "refused", told(error))
    if stored(model) == stored(copy):
        return Cell(kind, "nothing")
    started = time.monotonic()
    verdict, reason, _ = compared(model, copy, allow, calibration(model) if calibrated else (), seconds)
    taken = time.monotonic() - started
    return Cell(kind, verdict, reason if verdict in ACCEPTED else f"{reason} ({deviation(model, copy)})", taken)


def told(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"


def close(rows: dict[Title, list[Cell]]) -> Iterator[str]:
    """What there is in all."""
    cells = [(title, each) for title, row in sorted(rows.items()) for each in row]
    of = Counter(each.verdict for _, each in cells)
    right = sum(of[verdict] for verdict in ACCEPTED)
    total = of.total() - of["refused"] - of["nothing"]
    yield f"\n- accepted: {right} of {total}; refused by the maker: {of['refused']}; nothing to convert: {of['nothing']}"
    for (name, exporter), each in cells:
        if each.verdict not in (*ACCEPTED, "refused", "nothing"):
            yield f"- {name}, {exporter}, {each.kind}: {each.verdict}: {each.reason}"
    refused: dict[tuple[str, str], list[str]] = {}
    for title, each in cells:
        if each.verdict == "refused":
            refused.setdefault((each.reason, ", ".join(title)), []).append(each.kind)
    for (reason, net), kinds in refused.items():
        yield f"- {net}, {'every kind' if len(kinds) == len(KINDS) else '; '.join(kinds)}: refused ({reason})"


def parser(doc: str | None, kinds: Iterable[str]) -> argparse.ArgumentParser:
    """What tables of copies are asked."""
    made = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    named: Any = lambda text: text.split(",")  # noqa: E731
    made.add_argument("--nets", type=named, help="all unless given")
    made.add_argument("--exporters", type=named, default=list(NETS))
    made.add_argument("--kinds", type=lambda text: text.split(";"), default=list(kinds), help="with a ; between them")
    made.add_argument("--seconds", type=float, default=120.0, help="for one comparison")
    made.add_argument("--jobs", type=int, default=1)
    return made


def asked(options: argparse.Namespace) -> list[Title]:
    """The rows."""
    return [(name, e) for e in options.exporters for name in NETS[e] if options.nets is None or name in options.nets]


def in_turn(row: Callable[[Title], T], titles: Iterable[Title], jobs: int) -> Iterator[T]:
    """Each row as it is done, in processes of their own: torch and TensorFlow do not survive a fork."""
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=4) as pool:
        yield from pool.imap_unordered(row, titles)


def main() -> None:
    """Compare and print."""
    options = parser(__doc__, KINDS).parse_args()
    print(
        f"| net | exporter | {' | '.join(options.kinds)} | seconds |\n{'|---' * (len(options.kinds) + 3)}|", flush=True
    )
    started, rows = time.monotonic(), dict[Title, list[Cell]]()
    made = functools.partial(row, kinds=options.kinds, seconds=options.seconds)
    for title, cells in in_turn(made, asked(options), options.jobs):
        rows[title] = cells
        taken = sum(each.seconds for each in cells)
        print(f"| {' | '.join(title)} | {' | '.join(map(str, cells))} | {taken:.0f} |", flush=True)
    print("\n".join(close(rows)), f"- {time.monotonic() - started:.0f} s by {options.jobs} processes", sep="\n")


if __name__ == "__main__":
    main()
