"""How long each form of a patch embedding runs in onnxruntime, against the original: interleaved medians, one process a row.

    python benchmarks/rewrite.py [--batch N] [--size N] [--runs N] [--threads N] [--json FILE] [--beside] [MODEL.onnx ...]

The first table has onnx-conv2matmul and onnx-passes' lower-conv beside graphcheck, where they are installed: nodes, bytes,
milliseconds and the verdict of graphcheck.compare; ``--beside`` makes no other.
Without files: a patch embedding of 16x16 pixels and 768 outputs, in every form of every exporter, at 224x224 and 384x384,
batch 1 and 8. A row has the ratio of the original's median to that of each form, and to that of what ``--to fastest``
takes: above 1 is faster than the original. The last table is the time to load, rewrite and save a ViT-B file (or MODEL)
without proof and without onnxruntime, against loading and saving it. Exit code 1 where the best fixed form is faster than
what ``fastest`` took beyond noise (in three quarters of the rounds, and by a hundredth), or that ratio is above 1.5.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import beside
import onnx_ir as ir

from graphcheck.exporting import catalogue
from graphcheck.exporting.catalogue import Variant
from graphcheck.exporting.run import export_variants
from graphcheck.files import model as model_
from graphcheck.patches.preparing import prepared
from graphcheck.rewriting.fastest import beats, fastest
from graphcheck.rewriting.forms import FORMS
from graphcheck.rewriting.rewrite import rewrite
from graphcheck.rewriting.timing import onnxruntime_timer

OUTPUTS, SIZES, BATCHES = 768, (224, 384), (1, 8)
TORCH, KERAS, VIT = "torch-p16d768", "article-keras-bias", "vit-b16-conv-torchscript-static"


def exports(size: int, folder: Path) -> Iterator[tuple[str, ir.Model]]:
    """(form and exporter, model) of each, dynamic batch where the exporter gives it, else the batches in turn."""
    for variant in catalogue():
        if variant.family not in (TORCH, KERAS) or not variant.dynamic_batch:
            continue
        image = (3, size, size) if variant.family == TORCH else (size, size, 3)
        other = dataclasses.replace(variant, outputs=OUTPUTS, inputs=((variant.inputs[0][0], ("batch", *image)),))
        made = export_variants([other], folder).models
        if made:
            yield f"{variant.form}, {variant.exporter}", model_.read(folder / made[0].file)
        else:
            yield from _static(other, folder)


def _static(variant: Variant, folder: Path) -> Iterator[tuple[str, ir.Model]]:
    """The exports with a fixed batch, of what fails with a symbolic one."""
    for batch in BATCHES:
        name, shape = variant.inputs[0]
        fixed = dataclasses.replace(variant, dynamic_batch=False, inputs=((name, (batch, *shape[1:])),))
        for entry in export_variants([fixed], folder).models:
            yield f"{variant.form}, {variant.exporter}, batch {batch} only", model_.read(folder / entry.file)


def batches(model: ir.Model, wanted: list[int]) -> list[int]:
    """The batch sizes that a model takes."""
    first = (model_.declared_shape(model.graph.inputs[0]) or [None])[0]
    return [batch for batch in wanted if not isinstance(first, int) or first == batch]


def forms_of(model: ir.Model, batch: int, threads: int, runs: int) -> dict[str, Any]:
    """Milliseconds (median and quartiles) of the original, every legal form of its sites, and ``fastest``."""
    clock = onnxruntime_timer(batch=batch, threads=threads, runs=runs)
    sites = [site.name for site in prepared(model).analysis.sites]
    names, models = ["original"], [model]
    for form in FORMS:
        result = rewrite(model, form, sites=sites)
        if result.changed:
            names.append(form)
            models.append(result.model)
    best = fastest(model, clock, sites=sites)
    times = dict(zip([*names, "fastest"], clock([*models, best.model]), strict=True))
    base, table = statistics.median(times["original"]), {}
    for name, column in times.items():
        low, middle, high = statistics.quantiles(column, n=4)
        table[name] = {"median": middle, "lower": low, "upper": high, "ratio": base / middle}
    quickest = min((f for f in table if f != "fastest"), key=lambda f: table[f]["median"])
    chosen = [row["chosen"] for row in best.measured]
    same = chosen == [quickest] or (quickest == "original" and not best.changed)  # then it is the same model
    slower = not same and beats(times[quickest], times["fastest"])
    return {"forms": table, "best": quickest, "slower": slower, "chosen": chosen}


def without_proof(path: Path) -> dict[str, float]:
    """Seconds to load and save a file, and to analyze and rewrite it in between: medians of five, interleaved."""
    plain, whole = [], []
    model_.write(model_.read(path), path.parent / "warm-up.onnx")
    for _ in range(5):
        start = time.perf_counter()
        model_.write(model_.read(path), path.parent / "copy.onnx")
        plain.append(time.perf_counter() - start)
        start = time.perf_counter()
        result = rewrite(model_.read(path), "matmul", run=False)
        assert result.changed, result.reason
        model_.write(result.model, path.parent / "rewritten.onnx")
        whole.append(time.perf_counter() - start)
    a, b = statistics.median(plain), statistics.median(whole)
    return {"load and save": a, "load, rewrite, save": b, "ratio": b / a}


def told(row: dict[str, Any]) -> str:
    """A row in markdown."""
    cells = [f"{row['forms'][f]['ratio']:.2f}" if f in row["forms"] else "" for f in (*FORMS, "fastest")]
    base = row["forms"]["original"]
    noise = (base["upper"] - base["lower"]) / base["median"]
    start = f"| {row['model']} | {row['batch']} | {base['median']:.2f} (spread {noise:.0%}) | "
    return start + " | ".join(cells) + f" | {', '.join(row['chosen'])} | {'yes' if row['slower'] else 'no'} |"


def main() -> int:
    """Run the tables and print them; with --json, write them too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--size", type=int, action="append")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--beside", action="store_true")
    args = parser.parse_args()
    if args.beside or not args.models:
        beside.table(args.runs, args.threads)
    if args.beside:
        return 0
    rows, start = [], time.perf_counter()
    columns = ["model", "batch", "original, ms", *FORMS, "fastest", "it took", "slower than the best form"]
    print(f"| {' | '.join(columns)} |\n|{'--|' * len(columns)}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subjects: Iterator[tuple[str, ir.Model]] = ((path.stem, model_.read(path)) for path in args.models)
        if not args.models:
            sizes = args.size or SIZES
            subjects = ((f"{size}x{size}, {form}", model) for size in sizes for form, model in exports(size, folder))
        for title, model in subjects:
            for batch in batches(model, args.batch or list(BATCHES)):
                rows.append({"model": title, "batch": batch, **forms_of(model, batch, args.threads, args.runs)})
                print(told(rows[-1]), flush=True)
        files = {path.stem: path for path in args.models}
        if not files and export_variants([v for v in catalogue() if v.name == VIT], folder).models:
            files = {VIT: folder / f"{VIT}.onnx"}
        print("\n| file | load and save, s | load, rewrite, save, s | ratio |\n|--|--|--|--|")
        costs = []
        for title, path in files.items():
            with tempfile.TemporaryDirectory() as other:
                copy = Path(other, "model.onnx")
                model_.write(model_.read(path), copy)
                costs.append({"model": title, **without_proof(copy)})
            a, b, ratio = list(costs[-1].values())[1:]
            print(f"| {title} | {a:.2f} | {b:.2f} | {ratio:.2f} |", flush=True)
    slower = [f"{row['model']}, batch {row['batch']}" for row in rows if row["slower"]]
    late = [cost["model"] for cost in costs if cost["ratio"] > 1.5]
    print(f"\n{len(rows)} rows in {time.perf_counter() - start:.0f} s; `fastest` slower than the best form: {slower or 'never'}")
    if args.json:
        args.json.write_text(json.dumps({"rows": rows, "costs": costs}, indent=1))
    return int(bool(slower or late))


if __name__ == "__main__":
    sys.exit(main())
