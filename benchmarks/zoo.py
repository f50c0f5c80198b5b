"""The zoo: equivalent pairs by verdict, mutants by verdict and by where the first divergence lies, ONNX's node tests.

    python benchmarks/zoo.py [pairs] [mutants] [cases] [NAME ...] [--jobs N] [--save FILE]

Prints the tables as Markdown, then every row that is not as it should be. NAME keeps the models whose name holds it, N is
the number of processes (default: one for each core, 8 at most). Exit code 1 if an equivalent pair is not called equal, if a
mutant is called identical or proved, if a model fails that did not fail before, or if a case of ONNX's node tests is lost.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from graphcheck.exporting import catalogue  # noqa: E402
from tests.zoo import architectures, keras_nets, nets, tables  # noqa: E402

KINDS = ("pairs", "mutants", "cases")
EQUAL = ("identical", "proved", "within-rounding")
VERDICTS = (*EQUAL, "undecided", "different", "crash")
SEEDS = (0, 1)  # places of each mutation in each model
# The only ones that may fail: their exporters do, on every machine.
FAILING = ("detr-like decoder torchscript", "qwen2-vl vision dynamo")
SLOW = ("swinv2", "mobilevit", "mobilenet", "vit", "deit", "beit", "dinov2")  # their pairs are begun first

Group = tuple[str, str]  # kind, name of the models


def groups() -> list[Group]:
    """All that there is to do, the longest first."""
    families = sorted({v.family for v in catalogue() if not v.benchmark})
    found = [("mutants", name) for name in (*tables.MUTANT_MODELS, *nets.NETS)]
    pairs = [*families, *architectures.ARCHITECTURES, *(f"keras {name}" for name in keras_nets.NETS), *nets.NETS]
    found += [("pairs", name) for name in sorted(pairs, key=lambda name: name not in SLOW)]
    return [*found, ("cases", "onnx.backend.test")]


def rows(group: Group) -> tuple[list[tables.Row], float]:
    """The rows of one group, and the seconds that they took; runs in a process of its own."""
    warnings.simplefilter("ignore")
    kind, name = group
    started = time.monotonic()
    if kind == "mutants":
        model = nets.net(name) if name in nets.NETS else tables.mutant_model(name)
        made = list(tables.mutant_rows(model, SEEDS))
    elif kind == "cases":
        made = tables.case_rows()
    elif name in architectures.ARCHITECTURES:
        made = list(tables.rows_of(tables.architecture_pairs(name)))
    elif name in nets.NETS:
        made = list(tables.rows_of(tables.net_pairs(name)))
    elif name.startswith("keras "):
        made = list(tables.rows_of(tables.keras_pairs(name.removeprefix("keras "))))
    else:
        with tempfile.TemporaryDirectory() as folder:
            made = list(tables.rows_of(tables.exported_pairs(name, Path(folder))))
    return made, time.monotonic() - started


def _silent() -> None:
    """Optimizers write to the standard error below Python."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def wrong(kind: str, row: tables.Row) -> bool:
    """Whether a row is not as it has to be."""
    if kind == "pairs":
        return row.verdict not in EQUAL and not (row.verdict == "optimizer fails" or row.name in FAILING)
    if kind == "cases":
        return row.verdict in ("wrong", "lost", "crash")
    return (row.verdict != "proved") if row.harmless else row.verdict in ("identical", "proved", "crash")


def table(head: str, columns: Iterable[str], counts: dict[str, Counter[str]]) -> list[str]:
    """A Markdown table of counts, with their sum."""
    columns = list(columns)
    lines = [f"| {head} | {' | '.join(columns)} |", f"|--|{'--|' * len(columns)}"]
    for name, counter in (*counts.items(), ("all", sum(counts.values(), Counter()))):
        lines.append(f"| {name} | {' | '.join(str(counter[c]) for c in columns)} |")
    return lines


def report(done: dict[Group, tuple[list[tables.Row], float]]) -> list[str]:
    """All tables, and the rows that are worth a look."""
    pairs: dict[str, Counter[str]] = {}
    mutants: dict[str, Counter[str]] = {}
    cases: Counter[str] = Counter()
    notes = []
    for (kind, name), (found, seconds) in done.items():
        for row in found:
            if kind == "pairs":
                counter = pairs.setdefault(name, Counter(seconds=round(seconds)))
                counter["fails" if row.verdict.endswith("fails") else row.verdict] += 1
            elif kind == "mutants":
                counter = mutants.setdefault(f"{row.name} (harmless)" if row.harmless else row.name, Counter())
                counter[row.verdict] += 1
                counter[row.where] += bool(row.where)
            else:
                cases[row.verdict] += 1
            mark = "**wrong** " if wrong(kind, row) else ""
            quiet = row.verdict in (EQUAL if kind == "pairs" else ("different", "no change", "passed", "opaque"))
            quiet |= row.harmless or kind == "cases"
            if mark or not quiet:
                notes.append(f"- {mark}{kind}, {name}: {row.name}: {row.verdict}: {row.reason[:300]}")
    lines = []
    if pairs:
        lines += ["## Equivalent pairs by verdict", ""]
        lines += [*table("models", (*VERDICTS, "fails", "seconds"), pairs), ""]
    if mutants:
        lines += ["## Mutants by verdict, and where the first divergence lies", ""]
        columns = ("no change", *VERDICTS, "exact", "next", "elsewhere", "refused")
        lines += [*table("mutation", columns, mutants), ""]
    if cases:
        lines += [
            "## Node tests of onnx.backend.test",
            "",
            *table("cases", sorted(cases), {"all cases": cases})[:-1],
            "",
        ]
    return [*lines, "## What is not proved, not refuted, or fails", "", *notes, ""]


def main(arguments: list[str]) -> int:
    """The tables asked for; the exit code tells whether something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="pairs|mutants|cases|NAME")
    parser.add_argument("--jobs", default="auto")
    parser.add_argument("--save", type=Path)
    given = parser.parse_args(arguments)
    kinds = [k for k in KINDS if k in given.what] or KINDS
    names = [w for w in given.what if w not in KINDS]
    wanted = [g for g in groups() if g[0] in kinds and (not names or g[0] == "cases" or any(n in g[1] for n in names))]
    if not wanted:
        parser.error("no model has such a name")
    jobs = min(os.cpu_count() or 1, 8) if given.jobs == "auto" else int(given.jobs)
    started = time.monotonic()
    done: dict[Group, tuple[list[tables.Row], float]] = {}
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(jobs, len(wanted)), context, _silent) as pool:
        running = {pool.submit(rows, group): group for group in wanted}
        for future in concurrent.futures.as_completed(running):
            group = running[future]
            try:
                done[group] = future.result()
            except Exception as error:  # an optimizer that ends its process, an exporter that raises: a row like others
                done[group] = [tables.Row(group[1], "crash", f"{type(error).__name__}: {error}", 0.0)], 0.0
            bad = sum(wrong(group[0], row) for row in done[group][0])
            print(f"{len(done)}/{len(wanted)} {' '.join(group)}: {len(done[group][0])} rows, {bad} wrong, "
                  f"{done[group][1]:.0f} s", file=sys.stderr, flush=True)  # fmt: skip
    lines = report({group: done[group] for group in wanted})
    lines.append(f"{sum(len(found) for found, _ in done.values())} rows in {time.monotonic() - started:.0f} s.")
    print("\n".join(lines))
    if given.save is not None:
        given.save.parent.mkdir(parents=True, exist_ok=True)
        given.save.write_text("\n".join(["# The zoo", "", *lines, ""]), encoding="utf-8")
    empty = [group for group, (found, _) in done.items() if not found]  # a table of nothing shows nothing
    return int(bool(empty) or any(wrong(group[0], row) for group, (found, _) in done.items() for row in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
