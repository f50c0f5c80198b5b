"""Of the pairs with a free batch that are proved, how many are proved for every batch size, and what is said of the others.

    python benchmarks/batches.py [NAME ...] [--models FOLDER] [--save FILE]

The pairs are those of the zoo (benchmarks/zoo.py) whose batch is free, on one side at least where the other has 1, and
besides each two exports of the catalogue that are one function: families, architectures by both torch exporters, Keras
models, hand-written nets, each also beside what optimizers make of it. NAME keeps the groups whose name holds it. Models of
the catalogue that lie in FOLDER are taken from there. Exit code 1 if a pair is ``different``, or if fewer than 95 % of those
proved hold for every batch size.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from graphcheck.exporting import catalogue, export_variants  # noqa: E402
from graphcheck.files.model import declared_shape, read, required_inputs  # noqa: E402
from tests.zoo import architectures, keras_nets, nets, tables  # noqa: E402
from tests.zoo.proving import verdict  # noqa: E402

GOAL = 0.95


@dataclasses.dataclass(frozen=True)
class Found:
    """A pair: its verdict, how its batch is claimed (``every``, ``row by row``, ``sampled``), and what stands against it."""

    group: str
    name: str
    verdict: str
    claim: str
    reason: str


def groups(words: Sequence[str]) -> list[str]:
    """Names of what there is to compare."""
    families = list(dict.fromkeys(v.family for v in catalogue() if v.dynamic_batch and not v.benchmark))
    made = [*(f"keras {name}" for name in keras_nets.NETS), *nets.NETS]
    names = [*families, *made, *(name for name in architectures.ARCHITECTURES if name != "qwen2-vl vision")]
    return [name for name in names if not words or any(word in name for word in words)]


def pairs(group: str, folder: Path) -> Iterator[tables.Pair | tables.Row]:
    """The pairs of a group."""
    if group in architectures.ARCHITECTURES:
        yield from tables.architecture_pairs(group, batches=(True,))
    elif group in nets.NETS:
        yield from tables.net_pairs(group)
    elif group.startswith("keras "):
        yield from tables.keras_pairs(group.removeprefix("keras "))
    else:
        yield from _family(group, folder)


def _family(name: str, folder: Path) -> Iterator[tables.Pair | tables.Row]:
    variants = [v for v in catalogue() if v.family == name]
    export_variants([v for v in variants if not (folder / f"{v.name}.onnx").exists()], folder)
    there = [v for v in variants if (folder / f"{v.name}.onnx").exists()]
    files = {v.name: folder / f"{v.name}.onnx" for v in there}
    free = {v.name for v in there if v.dynamic_batch}
    yield from tables.family_pairs({k: f for k, f in files.items() if k in free}, {v.name: () for v in there})
    for one, other in itertools.combinations(there, 2):
        if {one.name, other.name} & free and other.name in one.known_equal:
            yield f"{one.name} ~ {other.name}", files[one.name], files[other.name]


def free(a: tables.Model, b: tables.Model) -> bool:
    """Whether the leading axis of an input is free in both models, or in one where the other has 1."""
    return any(None in both and {*both} <= {None, 1} for both in zip(_leading(a), _leading(b), strict=False))


def _leading(model: tables.Model) -> list[int | None]:
    """The size of axis 0 of each input, None where it is free."""
    shapes = (declared_shape(value) for value in required_inputs(read(model)))
    return [shape[0] if isinstance(shape[0], int) else None for shape in shapes if shape]


def looked(group: str, name: str, a: tables.Model, b: tables.Model) -> Found:
    """The verdict on a pair, and what is claimed of its batch."""
    try:
        said, reason, evidence = verdict(a, b, timeout=120.0, threads=1)
    except Exception as error:  # a crash is what the table is there to show
        return Found(group, name, "crash", "", f"{type(error).__name__}: {error}")
    proof = evidence.get("proof")
    if proof is None:
        return Found(group, name, said, "", reason)
    reasons = "; ".join(f"{symbol}: {limit['reason']}" for symbol, limit in proof["limits"].items())
    claim = "every" if proof["every"] else "row by row" if proof["row_by_row"] else "sampled"
    return Found(group, name, said, claim, reasons or claim)


def report(found: Sequence[Found]) -> list[str]:
    """The table by group, the share, and each pair that is proved at sampled sizes alone, or not at all."""
    columns = ("every", "row by row", "sampled", "identical", "within-rounding", "undecided", "different", "crash", "fails")
    counts: dict[str, Counter[str]] = {}
    for each in found:
        counts.setdefault(each.group, Counter())[_column(each)] += 1
    lines = ["## Pairs with a free batch", "", f"| models | {' | '.join(columns)} |", f"|--|{'--|' * len(columns)}"]
    for name, counter in (*counts.items(), ("all", sum(counts.values(), Counter()))):
        lines.append(f"| {name} | {' | '.join(str(counter[c]) for c in columns)} |")
    held, all_ = share(found)
    percent = f" ({held / all_:.1%})" if all_ else ""
    lines += ["", f"Of {all_} pairs that are proved, {held}{percent} are proved for every batch size.", ""]
    quiet = ("every", "row by row", "identical", "fails")
    for each in found:
        if _column(each) not in quiet:
            lines.append(f"- {each.group}: {each.name}: {_column(each)}: {each.reason[:400]}")
    return lines


def _column(found: Found) -> str:
    if found.verdict.endswith("fails"):
        return "fails"
    return found.claim if found.verdict == "proved" else found.verdict


def share(found: Sequence[Found]) -> tuple[int, int]:
    """How many of the pairs that are proved are so for every batch size, and how many are proved."""
    proved = [each for each in found if each.verdict == "proved"]
    return sum(each.claim != "sampled" for each in proved), len(proved)


def main(arguments: list[str]) -> int:
    """The table, the share and the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--models", type=Path)
    parser.add_argument("--save", type=Path)
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    found: list[Found] = []
    with tempfile.TemporaryDirectory() as made:
        for group in groups(given.names):
            started, before = time.monotonic(), len(found)
            for pair in pairs(group, given.models or Path(made)):
                if isinstance(pair, tables.Row):
                    found.append(Found(group, pair.name, pair.verdict, "", pair.reason))
                elif free(*pair[1:]):
                    found.append(looked(group, *pair))
            held, proved = share(found[before:])
            print(f"{group}: {held} of {proved}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    lines = report(found)
    print("\n".join(lines))
    if given.save is not None:
        given.save.parent.mkdir(parents=True, exist_ok=True)
        given.save.write_text("\n".join([*lines, ""]), encoding="utf-8")
    held, proved = share(found)
    return int(not proved or held < GOAL * proved or any(each.verdict == "different" for each in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
