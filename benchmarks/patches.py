"""The rewriter's table: case -> what is recognised, the forms reached and their verdicts; and refusals by reason.

    python benchmarks/patches.py [--jobs N] [--cells] [NAME ...]

NAME keeps the cases whose name holds it. Cases: models in ONNX text (tests/patch_table.py), quantized ones, exports of
transformers, einops and Keras models by every exporter, and the grid of operator x layout x rank x window x type x dynamic
dims (tests/zoo/patch_grid.py), told in sums unless --cells is given. A cell is the verdict of the form against the
original, and of the way back to the original's form where it is another one. Exit code 1 where something is not proved.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent.parent / "tests")]

import onnx_ir as ir  # noqa: E402

from graphcheck.rewriting.forms import FORMS  # noqa: E402
from tests.patch_table import cases as text_cases  # noqa: E402
from tests.zoo import patch_exports, patch_grid, patch_tables, quantizing  # noqa: E402

CELLS = {case.name: case for case in patch_grid.cases()}


def names() -> Iterator[str]:
    """Every case, those that take longest first."""
    yield from patch_exports.cases()
    yield from (f"QDQ: {name}" for name in quantizing.CASES)
    yield from (f"text: {name}" for name in text_cases())
    yield from CELLS


def row(name: str) -> patch_tables.Row | str:
    """The row of a case, or how it failed."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    kind, _, rest = name.partition(": ")
    try:
        if name in CELLS:
            made = patch_grid.make(CELLS[name])
            found = patch_tables.row(name, made.model, shapes=made.shapes)
            seen = patch_grid.geometries(made.model)
            return found if seen == [made.geometry] else f"it is {made.geometry}, and is read as {seen}"
        if kind == "text":
            return patch_tables.row(name, text_cases()[rest][0])
        if kind == "QDQ":
            return patch_tables.row(name, ir.from_proto(quantizing.quantized(rest)))
        return patch_tables.row(name, ir.from_proto(patch_exports.export(name)))
    except Exception as error:  # a table has every row
        return f"{type(error).__name__}: {str(error)[:200]}"


def line(found: patch_tables.Row) -> str:
    """A row in markdown."""
    cells = " | ".join(found.forms.get(form, "") for form in FORMS)
    sites = ", ".join(found.sites) or "none"
    return f"| {found.name} | {sites} | {cells} | {found.ordinary} | {found.seconds:.1f} |"


def sums(title: str, rows: Sequence[patch_tables.Row], *fields: str) -> None:
    """The grid's rows that share these fields, counted."""
    groups: dict[str, list[patch_tables.Row]] = defaultdict(list)
    for found in rows:
        groups[", ".join(str(getattr(CELLS[found.name], field)) for field in fields)].append(found)
    print(f"\n| {title} | cases | {' | '.join(FORMS)} |\n|--|--|{'--|' * len(FORMS)}")
    for name, members in groups.items():
        counts = [Counter(member.forms.get(form, "") for member in members) for form in FORMS]
        cells = [", ".join(f"{n} {cell}" for cell, n in count.most_common()) for count in counts]
        print(f"| {name} | {len(members)} | {' | '.join(cells)} |")


def main() -> int:
    """Print the table; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cells", action="store_true")
    args = parser.parse_args()
    start = time.perf_counter()
    wanted = [name for name in names() if not args.names or any(w in name for w in args.names)]
    rows, wrong = [], []
    head = f"| case | recognised | {' | '.join(FORMS)} | ordinary Convs | seconds |\n|--|--|{'--|' * (len(FORMS) + 2)}"
    print(head)
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
        for name, found in zip(wanted, pool.map(row, wanted), strict=True):
            if isinstance(found, str):
                print(f"| {name} | fails: {found} |", flush=True)
                wrong.append(f"{name}: {found}")
                continue
            rows.append(found)
            wrong += found.wrong
            if len(rows) % 200 == 0:
                print(f"{len(rows)} of {len(wanted)} cases, {time.perf_counter() - start:.0f} s", file=sys.stderr)
            if name not in CELLS or args.cells:
                print(line(found), flush=True)
    if grid := [found for found in rows if found.name in CELLS]:
        sums("grid: operator, window", grid, "op", "window")
        sums("grid: channels, rank", grid, "layout", "rank")
        sums("grid: type, dynamic dims", grid, "kind", "dynamic")
    counts = Counter(cell for found in rows for cell in found.forms.values())
    print("\nForms:", ", ".join(f"{n} {cell}" for cell, n in counts.most_common()))
    worst = max(rows, key=lambda found: found.ulp, default=None)
    if worst is not None:
        print(f"Largest deviation in onnxruntime: {worst.ulp:.0f} ulps of the output's largest magnitude ({worst.name})")
    print("\n| refusals | reason |\n|--|--|")
    for reason, n in Counter(reason for found in rows for reason in found.refusals).most_common():
        print(f"| {n} | {reason} |")
    failing = [*(", ".join(pair) for pair in patch_exports.FAILS), *patch_exports.KERAS_FAILS]
    print("\nNo model that onnxruntime loads comes of:", "; ".join(failing))
    print(f"\n{len(wanted)} cases in {time.perf_counter() - start:.0f} s with {args.jobs} processes")
    print("\nNot as they should be:", *(wrong or ["none"]), sep="\n- ")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
