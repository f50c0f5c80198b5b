"""The zoo's tables: equivalent pairs by verdict, mutants by verdict and by how near the first divergence is to the change.

    python benchmarks/zoo.py [pairs] [mutants] [NAME ...]

Every row that is not as it should be is printed as it comes; NAME keeps the models whose name holds it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from graphcheck.exporting import catalogue  # noqa: E402
from tests.zoo import architectures, keras_nets, nets, tables  # noqa: E402

EQUAL = ("identical", "proved", "within-rounding")
VERDICTS = (*EQUAL, "undecided", "different", "crash")


def pair_groups() -> Iterator[tuple[str, Iterator[tables.Row]]]:
    """Every group of equivalent pairs by name, made when it is asked for."""
    for family in sorted({v.family for v in catalogue() if not v.benchmark}):
        folder = tempfile.TemporaryDirectory()
        yield family, _family(family, folder)
    for name in architectures.ARCHITECTURES:
        yield name, tables.architecture_rows(name)
    for name in keras_nets.NETS:
        yield f"keras {name}", tables.keras_rows(name)
    for name in nets.NETS:
        yield name, tables.net_rows(name)


def _family(family: str, folder: tempfile.TemporaryDirectory[str]) -> Iterator[tables.Row]:
    with folder:
        yield from tables.family_rows(family, Path(folder.name))


def pairs(wanted: list[str]) -> int:
    """Print the table of equivalent pairs; how many are not as they should be."""
    total: Counter[str] = Counter()
    wrong = 0
    print("\n## Equivalent pairs by verdict\n")
    print(f"| models | {' | '.join(VERDICTS)} | fails | seconds |\n|--|{'--|' * (len(VERDICTS) + 2)}")
    notes = []
    for name, rows in pair_groups():
        if wanted and not any(w in name for w in wanted):
            continue
        counts: Counter[str] = Counter()
        seconds = 0.0
        for row in rows:
            counts[row.verdict] += 1
            seconds += row.seconds
            if row.verdict not in EQUAL:
                notes.append(f"- {row.name}: {row.verdict}: {row.reason[:300]}")
                wrong += not row.verdict.endswith("fails")
        total += counts
        _line(name, counts, seconds)
    _line("all", total, 0.0)
    print("\n" + "\n".join(notes))
    return wrong


def _line(name: str, counts: Counter[str], seconds: float) -> None:
    fails = sum(n for v, n in counts.items() if v.endswith("fails"))
    print(f"| {name} | {' | '.join(str(counts[v]) for v in VERDICTS)} | {fails} | {seconds:.0f} |", flush=True)


def mutants(wanted: list[str]) -> int:
    """Print the table of mutants; how many are called equal."""
    total: dict[str, Counter[str]] = {}
    wrong, notes = 0, []
    for name in (*tables.MUTANT_MODELS, *nets.NETS):
        if wanted and not any(w in name for w in wanted):
            continue
        model = nets.net(name) if name in nets.NETS else tables.mutant_model(name)
        counts: Counter[str] = Counter()
        for row in tables.mutant_rows(model):
            key = f"{row.name} (harmless)" if row.harmless else row.name
            counter = total.setdefault(key, Counter())
            counter[row.verdict] += 1
            counter[row.where] += bool(row.where)
            counts[row.verdict] += 1
            if row.verdict in (*EQUAL, "crash", "undecided") and not (row.harmless and row.verdict == "proved"):
                notes.append(f"- {name}, {row.name}: {row.verdict}: {row.reason[:200]}")
                wrong += row.verdict in ("identical", "proved", "crash")
        print(f"{name}: {dict(counts)}", flush=True)
    _mutant_table(total)
    print("\n" + "\n".join(notes))
    return wrong


def _mutant_table(total: dict[str, Counter[str]]) -> None:
    columns = ("no change", *VERDICTS, "exact", "next", "elsewhere", "refused")
    print("\n## Mutants by verdict, and where the first divergence lies\n")
    print(f"| mutation | {' | '.join(columns)} |\n|--|{'--|' * len(columns)}")
    everything: Counter[str] = Counter()
    for name, counter in total.items():
        everything += counter
        print(f"| {name} | {' | '.join(str(counter[c]) for c in columns)} |")
    print(f"| all | {' | '.join(str(everything[c]) for c in columns)} |")


def main(arguments: Iterable[str]) -> int:
    """Both tables, or those asked for; the exit code tells whether something is wrong."""
    warnings.simplefilter("ignore")
    arguments = list(arguments)
    kinds = [a for a in arguments if a in ("pairs", "mutants")] or ["pairs", "mutants"]
    names = [a for a in arguments if a not in ("pairs", "mutants")]
    return int(sum([pairs(names) if kind == "pairs" else mutants(names) for kind in kinds]) > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
