"""How long each form of a patch embedding runs in onnxruntime, against the original: interleaved medians, one process.

    python benchmarks/rewrite.py models/torch-p16d768-*.onnx --batch 1 --batch 8 --json out.json

Without files, a 16x16, 768-output patch embedding in reshape form is made in memory at 224x224 and 384x384. The last
lines compare the time to analyze and rewrite each file, without proof, with the time to load and save it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from graphcheck import model as model_
from graphcheck.patches.analyze import find
from graphcheck.rewriting.fastest import fastest
from graphcheck.rewriting.forms import FORMS
from graphcheck.rewriting.rewrite import rewrite
from graphcheck.rewriting.timing import onnxruntime_timer


def reshape_form(size: int, patch: int = 16, filters: int = 768) -> ir.Model:
    """[N, 3, size, size] -> Reshape, Transpose, Reshape, MatMul, Add -> [N, tokens, filters], seeded weights."""
    grid, k = size // patch, 3 * patch * patch
    text = f"""<ir_version: 9, opset_import: ["" : 18]> g (float[N,3,{size},{size}] x)
        => (float[N,{grid * grid},{filters}] y)
        <int64[6] s = {{-1, 3, {grid}, {patch}, {grid}, {patch}}}, int64[3] o = {{-1, {grid * grid}, {k}}}>
        {{ r = Reshape(x, s) t = Transpose<perm = [0, 2, 4, 3, 5, 1]>(r) m = Reshape(t, o)
        p = MatMul(m, w) y = Add(p, b) }}"""
    proto, random = onnx.parser.parse_model(text), np.random.default_rng(0)
    for name, shape in (("w", (k, filters)), ("b", (filters,))):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name))
    return ir.from_proto(proto)


def forms_of(model: ir.Model, batch: int, threads: int, runs: int) -> dict[str, Any]:
    """Milliseconds (median and quartiles) of the original, every legal form of its sites, and ``fastest``."""
    clock = onnxruntime_timer(batch=batch, threads=threads, runs=runs)
    names, models = ["original"], [model]
    for form in FORMS:
        result = rewrite(model, form, sites=[site.name for site in find(model).sites])
        if result.changed:
            names.append(form)
            models.append(result.model)
    best = fastest(model, clock)
    names.append("fastest")
    models.append(best.model)
    times = dict(zip(names, clock(models), strict=True))
    base = statistics.median(times["original"])
    table = {}
    for name, column in times.items():
        low, middle, high = statistics.quantiles(column, n=4)
        table[name] = {"median": middle, "lower": low, "upper": high, "speedup": base / middle}
    return {"forms": table, "chosen": [row["chosen"] for row in best.measured]}


def without_proof(path: Path) -> dict[str, float]:
    """Seconds to load and save a file, and to analyze and rewrite it in between."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        model_.write(model_.read(path), Path(folder) / "copy.onnx")
        plain = time.perf_counter() - start
        start = time.perf_counter()
        result = rewrite(model_.read(path), "matmul", run=False)
        model_.write(result.model, Path(folder) / "rewritten.onnx")
        whole = time.perf_counter() - start - result.timings.get("checks", 0.0)
    return {"load_and_save": plain, "analyze_and_rewrite": whole, "ratio": whole / plain}


def main() -> None:
    """Run the table and print it; with --json, write it too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    subjects = {path.stem: model_.read(path) for path in args.models}
    subjects = subjects or {f"reshape-{size}": reshape_form(size) for size in (224, 384)}
    rows = []
    for name, model in subjects.items():
        for batch in args.batch or [1, 8]:
            row = {"model": name, "batch": batch, **forms_of(model, batch, args.threads, args.runs)}
            rows.append(row)
            told = "  ".join(f"{form} {t['median']:.2f} ms ({t['speedup']:.2f}x)" for form, t in row["forms"].items())
            print(f"{name} batch {batch}: {told}  chosen: {', '.join(row['chosen'])}", flush=True)
    costs = [{"model": path.stem, **without_proof(path)} for path in args.models]
    for cost in costs:
        print(
            "{model}: analyze and rewrite {analyze_and_rewrite:.2f} s, load and save {load_and_save:.2f} s".format(
                **cost
            )
        )
    if args.json:
        args.json.write_text(json.dumps({"rows": rows, "costs": costs}, indent=1))


if __name__ == "__main__":
    main()
