"""Looks for files that do not end clean, and for wrong verdicts: python -m benchmarks.fuzz [--seconds N] [--seed N] [FILE...]

Half of the time goes to damaged files (those given, or small made ones), read, analyzed and compared in this process;
the other half to random graphs, compared with copies that mean the same and with mutants that do not. With atheris
installed, ``--coverage`` lets it choose the damage (reading and analyzing alone, on Linux). A crash of the process leaves its
input in fuzz-last.onnx. Ends with 1 if there were findings, each named by the seed that makes it again.
"""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx

import graphcheck
from graphcheck import limits
from graphcheck.errors import GraphcheckError, Undecided
from tests.hostile import broken, damage

_SECONDS_EACH, _MEMORY = 5.0, 2**30
_LAST = Path("fuzz-last.onnx")


def outcome(path: Path, other: onnx.ModelProto | None) -> str:
    """What became of a file."""
    try:
        with limits.within(_MEMORY, _SECONDS_EACH):
            graphcheck.analyze(path)
        with limits.within(_MEMORY, _SECONDS_EACH):
            if other is None:
                return "analyzed"
            return str(graphcheck.compare(path, other, run=False, graphs=False, timeout=_SECONDS_EACH).verdict)
    except (GraphcheckError, Undecided) as error:
        return type(error).__name__


def whole(data: bytes) -> onnx.ModelProto:
    """The model that was damaged, or a good one where there was none."""
    try:
        model = onnx.ModelProto.FromString(data)
        onnx.checker.check_model(model)
        return model
    except Exception:  # whatever protobuf and the checker raise
        return broken.good()


def verdicts(seed: int) -> tuple[str, str | None]:
    """(kind and verdict, what is wrong with it) of a random graph and a copy or mutant of it."""
    model = damage.graph(seed)
    how = ("renamed", "reordered", "lifted", "rewritten", "mutant")[seed % 5]
    if how == "mutant":
        other = damage.mutant(model, seed)
        apart = damage.apart(model, other, seed)
        verdict = str(graphcheck.compare(model, other, run=False, graphs=False, timeout=20).verdict)
        wrong = apart and verdict in ("identical", "proved", "within-rounding")
        return f"mutant{' that differs' if apart else ''} {verdict}", "passed" if wrong else None
    other = {
        "renamed": damage.renamed, "lifted": damage.lifted,
        "reordered": lambda m: damage.reordered(m, seed), "rewritten": lambda m: damage.rewritten(m, seed),
    }[how](model)  # fmt: skip
    result = graphcheck.compare(model, other, run=False, graphs=False, timeout=20)
    good = result.verdict == "identical" or (how == "rewritten" and result.verdict == "proved")
    return f"{how} {result.verdict}", None if good else result.reason


def coverage(seconds: float) -> None:
    """Let atheris choose; it ends the process itself."""
    import atheris

    from graphcheck.files import model, tensors

    for module in (model, tensors):  # what reads bytes; instrumenting all takes longer than it finds
        for name, function in list(vars(module).items()):
            if getattr(function, "__module__", None) == module.__name__ and hasattr(function, "__code__"):
                setattr(module, name, atheris.instrument_func(function))
    folder = tempfile.mkdtemp(prefix="graphcheck-fuzz-")
    Path(folder, "seed").write_bytes(broken.good().SerializeToString())

    def one(data: bytes) -> None:
        _LAST.write_bytes(data)
        outcome(_LAST, None)

    atheris.Setup([sys.argv[0], f"-max_total_time={int(seconds)}", folder], one)
    atheris.Fuzz()


def main() -> int:
    """Fuzz for a while; 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--coverage", action="store_true")
    options = parser.parse_args()
    if options.coverage:
        coverage(options.seconds)
    bases = [path.read_bytes() for path in options.files] or [make() for make in broken.BROKEN.values()]
    bases += [broken.good().SerializeToString()] * max(1, len(bases) // 2)
    counts: collections.Counter[str] = collections.Counter()
    findings: list[str] = []
    start, seed = time.monotonic(), options.seed
    while time.monotonic() - start < options.seconds:
        seed += 1
        began = time.monotonic()
        try:
            if seed % 2:
                base = bases[seed // 2 % len(bases)]
                _LAST.write_bytes(damage.damaged(base, seed))
                kind, wrong = f"damaged: {outcome(_LAST, whole(base))}", None
            else:
                kind, wrong = verdicts(seed // 2)
        except Exception as error:
            kind, wrong = "raised", f"{type(error).__name__}: {error}"
        counts[kind] += 1
        if wrong is None and time.monotonic() - began > 10 * _SECONDS_EACH:
            wrong = f"took {time.monotonic() - began:.0f} s"
        if wrong is not None:
            findings.append(f"seed {seed}: {kind}: {wrong[:300]}")
            print(findings[-1], flush=True)
    for kind, count in sorted(counts.items()):
        print(f"{count:8} {kind}")
    print(f"{sum(counts.values())} tries in {time.monotonic() - start:.0f} s, {len(findings)} findings")
    _LAST.unlink(missing_ok=True)
    return 1 if findings else 0


if __name__ == "__main__":
    np.seterr(all="ignore")
    sys.exit(main())
