"""The rewriter's tables: case -> what is recognised, the forms reached and their verdicts, the way back; refusals by reason.

    python benchmarks/patches.py [embeddings] [un-embeddings] [pointwise] [ordinary] [movement] [NAME ...]
        [--jobs N] [--cells] [--save FILE]

One table for each kind of site; NAME keeps the cases whose name holds it. Cases: models in ONNX text (tests/patch_table.py,
tests/unpatch_table.py and others), quantized ones, nets that begin with patches or end in pixels by every exporter, and for
embeddings the grid of operator x layout x rank x window x type x dynamic dims (tests/zoo/patch_grid.py), told in sums unless
--cells is given; those are most of the time, and without embeddings it takes two minutes. A cell is the verdict of the form
against the original, and of the way back to the original's form where it is another one. Exit code 1 where something is not
proved, where a site or a refusal that has to be there is not, or where another weight comes back than went there.
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
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent.parent / "tests")]

from tests.zoo import patch_exports  # noqa: E402
from tests.zoo.patch_rows import CELLS, names, rows  # noqa: E402
from tests.zoo.patch_tables import KINDS, NO_WAY_BACK, REACHED, THERE, Row  # noqa: E402


def _silent() -> None:
    """Exporters write to the standard error, some below Python."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def found(name: str, kinds: Sequence[str]) -> list[Row] | str:
    """The rows of a case, or how it failed."""
    try:
        return rows(name, kinds)
    except Exception as error:  # a table has every row
        return f"{type(error).__name__}: {str(error)[:200]}"


def table(kind: str, made: Sequence[Row]) -> list[str]:
    """The rows of one kind in markdown; of those in which nothing is looked for and nothing found, none."""
    forms = KINDS[kind].forms
    lines = [f"## {kind.capitalize()}", "", f"| case | recognised | {' | '.join(forms)} | ordinary Convs | seconds |"]
    lines.append(f"|--|--|{'--|' * (len(forms) + 2)}")
    for row in made:
        cells = " | ".join(str(row.forms.get(form, "")) for form in forms)
        if row.recognised or row.expected is not None:
            sites = ", ".join(row.sites) or "none"
            lines.append(f"| {row.name} | {sites} | {cells} | {row.ordinary} | {row.seconds:.1f} |")
    return [*lines, ""]


def summary(made: Sequence[Row]) -> list[str]:
    """All kinds in numbers: sites, and what came of each in each form."""
    lines = ["| sites | cases | recognised | written | proved | back | no way back | bit for bit | there already | refused |"]
    lines.append(f"|--|{'--|' * 9}")
    for kind in KINDS:
        mine = [row for row in made if row.kind == kind]
        cells = [cell for row in mine for cell in row.forms.values()]
        proved = [cell for cell in cells if cell.said in REACHED]
        numbers = (
            sum(row.recognised > 0 for row in mine),
            sum(row.recognised for row in mine),
            sum(cell.written for cell in cells),
            sum(cell.written for cell in proved),
            sum(cell.written for cell in proved if cell.back in REACHED),
            sum(cell.written for cell in proved if cell.back == NO_WAY_BACK),
            sum(cell.same or 0 for cell in cells),
            sum(cell.said == THERE for cell in cells),
            sum(cell.refused for cell in cells),
        )
        if mine:
            lines.append(f"| {kind} | {' | '.join(map(str, numbers))} |")
    return [*lines, ""]


def reasons(made: Sequence[Row]) -> list[str]:
    """Refusals by kind of site and reason."""
    lines = ["| refused | sites | reason |", "|--|--|--|"]
    counts = Counter((row.kind, reason) for row in made for reason in row.refusals)
    order = list(KINDS)
    ranked = sorted(counts.items(), key=lambda pair: (order.index(pair[0][0]), -pair[1]))
    return [*lines, *(f"| {n} | {kind} | {reason} |" for (kind, reason), n in ranked), ""]


def sums(title: str, made: Sequence[Row], *fields: str) -> list[str]:
    """The grid's rows that share these fields, counted."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in made:
        groups[", ".join(str(getattr(CELLS[row.name], field)) for field in fields)].append(row)
    forms = KINDS["embeddings"].forms
    lines = [f"| {title} | cases | {' | '.join(forms)} |", f"|--|--|{'--|' * len(forms)}"]
    for name, members in groups.items():
        counts = [Counter(str(member.forms.get(form, "")) for member in members) for form in forms]
        cells = [", ".join(f"{n} {cell}" for cell, n in count.most_common()) for count in counts]
        lines.append(f"| {name} | {len(members)} | {' | '.join(cells)} |")
    return [*lines, ""]


def report(made: Sequence[Row], failed: Sequence[str], cells: bool) -> list[str]:
    """All tables, and what is not as it should be."""
    lines = []
    for kind in KINDS:
        if mine := [row for row in made if row.kind == kind and (cells or row.name not in CELLS)]:
            lines += table(kind, mine)
    if grid := [row for row in made if row.name in CELLS]:
        lines += sums("grid: operator, window", grid, "op", "window")
        lines += sums("grid: channels, rank", grid, "layout", "rank")
        lines += sums("grid: type, dynamic dims", grid, "kind", "dynamic")
    lines += ["## In numbers", "", *summary(made), *reasons(made)]
    if worst := max(made, key=lambda row: row.ulp, default=None):
        lines.append(f"Largest deviation in onnxruntime: {worst.ulp:.0f} ulps of the output's largest magnitude ({worst.name}).")
    failing = [*(", ".join(pair) for pair in patch_exports.FAILS), *patch_exports.KERAS_FAILS]
    lines += ["", f"No model that onnxruntime loads comes of: {'; '.join(failing)}.", "", "Not as they should be:", ""]
    return [*lines, *(f"- {words}" for words in (*failed, *wrong(made)) or ["none"]), ""]


def wrong(made: Sequence[Row]) -> list[str]:
    """What is not as it should be in the rows."""
    return [words for row in made for words in row.wrong]


def main(arguments: Sequence[str]) -> int:
    """Print the tables; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="|".join([*KINDS, "NAME"]))
    parser.add_argument("--jobs", default="auto")
    parser.add_argument("--cells", action="store_true")
    parser.add_argument("--save", type=Path)
    given = parser.parse_args(arguments)
    kinds = [kind for kind in KINDS if kind in given.what] or list(KINDS)
    parts = [part for part in given.what if part not in KINDS]
    wanted = [name for name in names(kinds) if not parts or any(part in name for part in parts)]
    if not wanted:
        parser.error("no case has such a name")
    jobs = min(len(os.sched_getaffinity(0)), 8) if given.jobs == "auto" else int(given.jobs)
    start = time.perf_counter()
    made: list[Row] = []
    failed: list[str] = []
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _silent) as pool:
        for at, (name, result) in enumerate(zip(wanted, pool.map(partial(found, kinds=kinds), wanted), strict=True), 1):
            failed += [f"{name}: {result}"] if isinstance(result, str) else []
            made += [] if isinstance(result, str) else result
            if name not in CELLS or at % 200 == 0:
                print(f"{at}/{len(wanted)} {name}, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    lines = report(made, failed, given.cells)
    lines.append(f"{len(wanted)} cases in {time.perf_counter() - start:.0f} s with {jobs} processes.")
    print("\n".join(lines))
    if given.save is not None:
        given.save.parent.mkdir(parents=True, exist_ok=True)
        given.save.write_text("\n".join(["# Patches and pixels", "", *lines, ""]), encoding="utf-8")
    return int(not made or bool(failed or wrong(made)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
