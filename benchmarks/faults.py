"""Where the first divergence lies: real models, and what an optimizer made of them, each with one named fault.

    python benchmarks/faults.py [--models DIR] [--optimized DIR] [--seeds N] [--only WORD ...] [--whole] [--save FILE]

DIR of ``--models`` is what ``make real-models`` brings; files of ``--optimized`` are called NAME_LEVEL.onnx. A fault is put
into a copy of the model, or into its optimized form, so that honest re-rounding stands beside it; the model as it was is A.
Prints how many are located at the node, beside it, elsewhere or not at all, and each that is not. Only what the search for a
witness starts from is made here (the trace, congruence, rows), with a drawn input; ``--whole`` runs all of ``compare``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import onnx  # noqa: E402

from tests.zoo.faults import FAULTS, faulty, located  # noqa: E402

_IMAGES = {"yolo_320": ("images", (1, 3, 64, 64)), "ocr_det": ("x", (1, 3, 64, 64)), "ocr_cls": ("x", (1, 3, 48, 96))}
_SIZES = {name: {key: shape} for name, (key, shape) in _IMAGES.items()}
_SIZES |= {"silero": {"input": (1, 512), "state": (2, 1, 128)}}


def pairs(models: Path, optimized: Path | None) -> Iterator[tuple[str, Path, Path]]:
    """(label, the model, what is to be damaged)."""
    for path in sorted(models.glob("*.onnx")):
        yield path.stem, path, path
        for other in sorted(optimized.glob(f"{path.stem}_*.onnx")) if optimized is not None else ():
            if other.stem.removeprefix(f"{path.stem}_") in ("basic", "ext", "extended", "all"):
                yield other.stem, path, other


def main(arguments: list[str]) -> int:
    """The table, and every fault that is not located."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("real-models"))
    parser.add_argument("--optimized", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--faults", nargs="*", default=[])
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--save", type=Path)
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    counts: dict[str, Counter[str]] = {}
    lines = []
    for label, a, b in pairs(given.models, given.optimized):
        if given.only and not any(word in label for word in given.only):
            continue
        model = onnx.load(b)
        shapes = next((s for name, s in _SIZES.items() if label.startswith(name)), {})
        for fault in FAULTS:
            if given.faults and not any(word in fault for word in given.faults):
                continue
            for seed in range(given.seeds):
                made = faulty(model, fault, seed)
                if made is None:
                    continue
                started = time.process_time()
                where, said = located(onnx.load(a), *made, shapes=shapes, whole=given.whole)
                seconds = time.process_time() - started
                for row in (label, f"fault: {fault}", "all"):
                    counts.setdefault(row, Counter())[where] += 1
                line = f"- {where}: {label}, {fault} at {made[1]}: {said} ({seconds:.1f} s)"
                print(line, file=sys.stderr, flush=True)
                lines += [] if where in ("exact", "next", "no change") else [line]
    columns = ("exact", "next", "near", "elsewhere", "none", "no change", "fails")
    table = ["| | " + " | ".join(columns) + " |", "|--|" + "--|" * len(columns)]
    rows = sorted(counts.items(), key=lambda item: (item[0] == "all", item[0].startswith("fault"), item[0]))
    table += [f"| {name} | {' | '.join(str(found[c]) for c in columns)} |" for name, found in rows]
    print("\n".join([*table, "", *lines]))
    if given.save is not None:
        given.save.write_text("\n".join([*table, "", *lines, ""]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
