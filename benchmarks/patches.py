"""The rewriter's table: case -> what is recognised, the forms reached and their verdicts; and refusals by reason.

    python benchmarks/patches.py [NAME ...]

NAME keeps the cases whose name holds it. Cases: models in ONNX text (tests/patch_table.py), quantized ones, and exports
of transformers, einops and Keras models by every exporter. Exit code 1 where something is not proved.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent.parent / "tests")]

import onnx_ir as ir  # noqa: E402

from graphcheck.rewriting.forms import FORMS  # noqa: E402
from tests.patch_table import cases as text_cases  # noqa: E402
from tests.zoo import patch_exports, patch_tables, quantizing  # noqa: E402


def models() -> Iterator[tuple[str, Callable[[], ir.Model]]]:
    """Every case by name, made when it is asked for."""
    for name, case in text_cases().items():
        yield f"text: {name}", lambda case=case: case[0]  # type: ignore[misc]
    for name in quantizing.CASES:
        yield f"QDQ: {name}", lambda name=name: ir.from_proto(quantizing.quantized(name))  # type: ignore[misc]
    for name in patch_exports.cases():
        yield name, lambda name=name: ir.from_proto(patch_exports.export(name))  # type: ignore[misc]


def main(wanted: list[str]) -> int:
    """Print the table; 1 where something is wrong."""
    warnings.simplefilter("ignore")
    reasons: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    wrong = []
    print(f"| case | recognised | {' | '.join(FORMS)} | ordinary Convs | seconds |\n|--|--|{'--|' * (len(FORMS) + 2)}")
    for name, make in models():
        if wanted and not any(w in name for w in wanted):
            continue
        try:
            row = patch_tables.row(name, make())
        except Exception as error:
            print(f"| {name} | fails: {type(error).__name__}: {str(error)[:120]} |")
            wrong.append(name)
            continue
        reasons.update(row.refusals)
        counts.update(row.forms.values())
        bad = [f"{form}: {cell}" for form, cell in row.forms.items() if cell not in (*patch_tables.REACHED, "no")]
        wrong += [f"{name}: {text}" for text in bad]
        cells = " | ".join(row.forms.get(form, "").split(":")[0] for form in FORMS)
        sites = ", ".join(row.sites) or "none"
        print(f"| {name} | {sites} | {cells} | {row.ordinary} | {row.seconds:.1f} |", flush=True)
    print("\nForms:", ", ".join(f"{n} {cell}" for cell, n in counts.most_common()))
    print("\n| refusals | reason |\n|--|--|")
    for reason, n in reasons.most_common():
        print(f"| {n} | {reason} |")
    print("\nNot as they should be:", *(wrong or ["none"]), sep="\n- ")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
