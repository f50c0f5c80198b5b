"""``graphcheck demo``: export the built-in variants, analyze, compare all pairs, rewrite both ways, time, report."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphcheck import limits, processes
from graphcheck.errors import GraphcheckError, UsageError
from graphcheck.exporting import Exported, Failure, Variant, available, catalogue, export_variants
from graphcheck.files import places
from graphcheck.formats.console import STYLES, Terminal
from graphcheck.formats.json import plain, write_json
from graphcheck.verdict import EXIT_DIFFERENT, EXIT_OK, Verdict
from graphcheck.words import plural, safe

if TYPE_CHECKING:
    from graphcheck.runs.session import Session

SCHEMA = "graphcheck/demo/1"
FAMILIES = {
    "article-keras": "the article's three Keras models: Conv2D, extract_patches + Dense, Reshape/Permute + Dense",
    "article-keras-bias": "the same with a bias",
    "convolution-keras": "a 3x3 convolution and extract_patches + Dense, in Keras",
    "convolution": "a padded 3x3 convolution and Unfold + Linear, in PyTorch",
    "torch-p16d32": "16x16 patches, 32 outputs, seven ways to write them in PyTorch",
    "torch-p16d768": "16x16 patches, 768 outputs (ViT-B/16), the same seven ways",
    "torch-p14d384": "14x14 patches, 384 outputs (DINOv2-S/14), the same seven ways",
    "vit": "a whole ViT of transformers, patch embedding in three forms",
    "beit": "a whole BEiT of transformers, patch embedding in three forms",
}
_TIMED_RUNS = 15
_PROCESSES = 4
# A process of its own for each pair at a time: threads of BLAS or onnxruntime would only take each other's cores.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclasses.dataclass
class _Family:
    """What is under way for one family: its models, and the results to come by name (or pair of names)."""

    name: str
    models: tuple[Exported, ...]
    failures: tuple[Failure, ...]
    rewrites: dict[str, tuple[str, Future[tuple[dict[str, Any], dict[str, Any]]]]]
    pairs: dict[tuple[str, str], Future[dict[str, Any]]]
    skipped: int


def run(
    terminal: Terminal,
    models: Path,
    reports: Path,
    json: str | None,
    seed: int,
    names: Sequence[str],
    workers: int = 0,
) -> int:
    """The exit code: 1 if a pair of a family is ``different`` or a rewrite failed its check, whatever is undecided.

    ``workers`` is the number of processes; 0: one a core, four at most.
    """
    from graphcheck import reporting

    started = time.monotonic()
    variants, left_out = _chosen(names, seed)
    places.make_folder(reports)
    places.make_folder(models)
    with _pool(workers) as pool, terminal.progress("demo", 2 * sum(map(len, variants.values()))) as step:
        families = []
        for name, members in variants.items():
            manifest = export_variants(members, models, lambda variant, *_: step(f"exported {variant.name}"))
            families.append(_submit(pool, name, manifest.models, manifest.failures, models, seed))
        exported = time.monotonic()
        for family in families:
            for _, rewritten in family.rewrites.values():
                rewritten.result()
            for pair in family.pairs.values():
                pair.result()
            for _ in family.models:
                step(f"compared {family.name}")
        rows = [_row(family) for family in families]
    compared = time.monotonic()
    with terminal.status("timing") as tell:
        for row, family in zip(rows, families, strict=True):
            tell(f"timing {family.name}")
            _time(row, family, models)
    from graphcheck.verdicts.record import versions

    timings = {
        "export": exported - started,
        "compare and rewrite": compared - exported,
        "time": time.monotonic() - compared,
    }
    result = {"schema": SCHEMA, "families": rows, "left_out": left_out, "seed": seed}
    result |= {"versions": versions(), "timings": timings}
    page = reports / "index.html"
    write_json(result, json or str(reports / "demo.json"))
    reporting.write([plain(result)], page)
    return _tell(terminal, result, page, time.monotonic() - started)


def _chosen(names: Sequence[str], seed: int) -> tuple[dict[str, list[Variant]], list[str]]:
    """The variants of each family to export, and what is left out for want of an extra."""
    if unknown := [name for name in names if name not in FAMILIES]:
        raise UsageError(f"the demo has no family {unknown[0]!r}; it has {', '.join(FAMILIES)}")
    chosen: dict[str, list[Variant]] = {name: [] for name in FAMILIES if not names or name in names}
    for variant in catalogue():
        if variant.family in chosen:
            chosen[variant.family].append(dataclasses.replace(variant, seed=seed))
    extras = {extra: available(extra) for extra in ("keras", "torch")}
    left_out = []
    for name, members in list(chosen.items()):
        extra = members[0].requires
        if not extras[extra]:
            del chosen[name]
            left_out.append(f"{name} ({FAMILIES[name]}), which needs: pip install 'graphcheck[{extra}]'")
    if not chosen:
        raise GraphcheckError(f"the demo exports models and can export none: {'; '.join(left_out)}")
    return chosen, left_out


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))  # the workers inherit it
    pool = ProcessPoolExecutor(workers or min(limits.cores(), _PROCESSES), get_context("spawn"), _start_worker)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the pool
    processes.keep_objects()


def _submit(
    pool: ProcessPoolExecutor,
    name: str,
    models: tuple[Exported, ...],
    failures: tuple[Failure, ...],
    folder: Path,
    seed: int,
) -> _Family:
    path = {entry.variant.name: str(folder / entry.file) for entry in models}
    family = _Family(name, models, failures, {}, {}, 0)
    for entry in models:
        variant = entry.variant
        to = "matmul" if variant.form == "conv" else "conv"
        family.rewrites[variant.name] = (to, pool.submit(rewrite_file, path[variant.name], to, seed))
    for a, b in itertools.combinations([entry.variant for entry in models], 2):
        if b.name in a.known_equal:
            family.pairs[a.name, b.name] = pool.submit(compare_files, path[a.name], path[b.name], seed)
        else:
            family.skipped += 1  # a batch of 1 against a batch of 2: their interfaces differ on purpose
    return family


def rewrite_file(path: str, to: str, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The JSON of ``graphcheck analyze`` with the graph, and that of ``graphcheck rewrite`` on every site found, ordinary
    convolutions too, its graphs cut down to the sites.

    Nothing is written.
    """
    from graphcheck.api import rewrite
    from graphcheck.files.model import read
    from graphcheck.patches.preparing import analyze_json, prepared
    from graphcheck.reporting import rewritten
    from graphcheck.reporting.shapes import graph_of

    model = read(path)
    found = prepared(model, movement=True)
    analysis = analyze_json(model, found) | {"graph": graph_of(model, found.runs_of(model))}
    named = [site.name for site in found.analysis.sites if site.ordinary]
    result = rewrite(model, to, sites=named or None, seed=seed, threads=1)
    told = result.to_json()
    return analysis, told | {"graphs": rewritten.region(told | rewritten.evidence(result))}


def compare_files(a: str, b: str, seed: int) -> dict[str, Any]:
    """The JSON of ``graphcheck compare`` without the graphs, which the analyses hold."""
    from graphcheck.api import compare

    result = compare(a, b, seed=seed, threads=1, graphs=False).to_json()
    if result["structure"]:
        result["structure"]["mapping"] = []  # a thousand pairs of it: the alignment says more in less
    return result


def _row(family: _Family) -> dict[str, Any]:
    """One entry of ``families`` in the JSON, without times."""
    variants = []
    for entry in family.models:
        variant = entry.variant
        to, future = family.rewrites[variant.name]
        analysis, rewritten = future.result()
        row: dict[str, Any] = {"name": variant.name, "form": variant.form, "exporter": variant.exporter}
        row |= {"batch": variant.inputs[0][1][0], "path": entry.file, "time_ms": None}
        row |= {"analyze": analysis, "rewrite_conv": None, "rewrite_matmul": None}
        variants.append(row | {f"rewrite_{to}": rewritten})
    failures = [{"variant": f.variant.name, "exporter": f.variant.exporter, "error": f.error} for f in family.failures]
    pairs = [{"a": a, "b": b, "compare": future.result()} for (a, b), future in family.pairs.items()]
    summary = {"name": family.name, "description": FAMILIES[family.name], "skipped_pairs": family.skipped}
    return summary | {"variants": variants, "pairs": pairs, "failures": failures}


def _time(row: dict[str, Any], family: _Family, folder: Path) -> None:
    """Give the variants of a row their times, measured in a process of its own; none if onnxruntime crashes there."""
    models = [(entry.variant, str(folder / entry.file)) for entry in family.models]
    with ProcessPoolExecutor(1, get_context("spawn"), _start_worker) as pool, contextlib.suppress(BrokenProcessPool):
        times = pool.submit(time_files, models).result()
        for variant in row["variants"]:
            variant["time_ms"] = times[variant["name"]]


def time_files(models: Sequence[tuple[Variant, str]]) -> dict[str, dict[str, float]]:
    """{variant: {"median", "min", "max"}} in ms of models in onnxruntime, taking turns, on a batch of 1 where they may."""
    import numpy as np

    from graphcheck.runs import session as runtime

    sessions: dict[str, tuple[Session, dict[str, Any]]] = {}
    for variant, path in models:
        pixels = np.random.default_rng(variant.seed).standard_normal(variant.input_shape(1), np.float32)
        sessions[variant.name] = (runtime.load(path, threads=1), {variant.inputs[0][0]: pixels})
    found = runtime.measure(sessions, _TIMED_RUNS)
    return {name: {"median": t.median, "min": t.min, "max": t.max} for name, t in found.items()}


def passed(rewritten: dict[str, Any]) -> bool | None:
    """Whether a rewrite was done and proved; None where it is merely undecided or nothing was rewritten."""
    if rewritten["verdict"] == "different" or any(check["ok"] is False for check in rewritten["checks"]):
        return False
    return True if rewritten["sites"] and rewritten["verdict"] in ("proved", "identical") else None


def _tell(terminal: Terminal, result: dict[str, Any], page: Path, seconds: float) -> int:
    """Print the summary; returns the exit code."""
    head = ("family", "models", "recognised", "pairs", *Verdict, "to conv", "to matmul", "fastest form")
    rows, failed = [], False
    for family in result["families"]:
        variants, pairs = family["variants"], family["pairs"]
        counts = Counter(pair["compare"]["verdict"] for pair in pairs)
        recognised = sum(bool(variant["analyze"]["patch_embeddings"]) for variant in variants)
        rewrites = {to: [v[f"rewrite_{to}"] for v in variants if v[f"rewrite_{to}"]] for to in ("conv", "matmul")}
        done = {to: f"{sum(passed(r) is True for r in made)} of {len(made)}" for to, made in rewrites.items()}
        failed |= bool(counts["different"]) or any(passed(r) is False for made in rewrites.values() for r in made)
        cells = [(str(counts[level]), STYLES[level] if counts[level] else "dim") for level in Verdict]
        row = [family["name"], str(len(variants)), f"{recognised} of {len(variants)}", str(len(pairs)), *cells]
        rows.append([*row, done["conv"], done["matmul"], _fastest(variants)])
    terminal.table(head, rows, 0)
    for family in result["families"]:
        if family["name"].startswith("article"):
            _tell_article(terminal, family)
    terminal.say(
        "every pair of a family is the same function by construction; proved: for every input, in exact arithmetic"
    )
    skipped = sum(family["skipped_pairs"] for family in result["families"])
    if skipped:
        terminal.say(
            f"{plural(skipped, 'pair')} left out: models exported for a batch of 1 and of 2 take different inputs"
        )
    for family in result["families"]:
        for failure in family["failures"]:
            terminal.say(f"not exported: {failure['variant']}: {safe(failure['error'])}", "yellow")
    for text in result["left_out"]:
        terminal.say(f"left out: {safe(text)}", "yellow")
    if failed:
        terminal.say("a pair is different or a rewrite failed its check: see the report", "bold red")
    terminal.say(f"done in {seconds:.0f} s; open the report: {safe(page)}", "bold")
    return EXIT_DIFFERENT if failed else EXIT_OK


def _tell_article(terminal: Terminal, family: dict[str, Any]) -> None:
    """The article's claim, as far as it is proved."""
    form = {variant["name"]: variant["form"] for variant in family["variants"]}
    met: dict[tuple[str, str], Counter[str]] = {}
    for pair in family["pairs"]:
        a, b = sorted((form[pair["a"]], form[pair["b"]]))
        if a != b:
            met.setdefault((a, b), Counter())[pair["compare"]["verdict"]] += 1
    said = []
    for (a, b), counts in met.items():
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
        said.append(f"{a} = {b} ({verdicts})")
    terminal.say(f"{family['name']}: {'; '.join(said)}")


def _fastest(variants: Sequence[dict[str, Any]]) -> str:
    """The form with the smallest median at batch 1, and how much slower the slowest form is at its best."""
    best: dict[str, float] = {}
    for variant in variants:
        if variant["time_ms"] and variant["batch"] != 2:
            best[variant["form"]] = min(best.get(variant["form"], float("inf")), variant["time_ms"]["median"])
    if not best:
        return "-"
    form, slowest = min(best, key=lambda key: best[key]), max(best, key=lambda key: best[key])
    return f"{form} {best[form]:.2g} ms, {slowest} {best[slowest] / best[form]:.1f}x"
