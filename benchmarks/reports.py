"""Reports to look at: makes eight, measures the size and opening time of each in headless Chromium, takes pictures.

    python benchmarks/reports.py [FOLDER] [--models DIR] [--demo demo.json] [--only NAME ...]

FOLDER (a new temporary one without it) gets NAME.html and NAME-{desktop,phone}-{light,dark}.png; the table (markdown)
goes to standard output. Opening time is that from the call of the page to its first drawn node, in a new browser context,
after one visit that is not counted.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

import onnx  # noqa: E402
from measuring import python  # noqa: E402

from tests.zoo import architectures, mutations, optimizers  # noqa: E402

SCREENS = {"desktop": {"width": 1440, "height": 900}, "phone": {"width": 390, "height": 844}}
VISITS = 5


def exported(models: Path, *names: str) -> list[Path]:
    """Variants of the catalogue as files."""
    from graphcheck.exporting import export

    paths = [models / f"{name}.onnx" for name in names]
    if missing := [path.stem for path in paths if not path.exists()]:
        export(missing, models)
    return paths


def saved(model: onnx.ModelProto, path: Path) -> Path:
    """The path, once the model is there."""
    onnx.save(model, path)
    return path


def vit(models: Path) -> list[str]:
    """ViT-B/16 by both exporters of torch."""
    pair = exported(models, *(f"vit-b16-conv-{e}-static" for e in ("torchscript", "dynamo")))
    return ["compare", *map(str, pair)]


def extended(models: Path) -> list[str]:
    """ViT-Tiny/16 before and after onnxruntime's extended optimization."""
    (before,) = exported(models, "vit-tiny16-conv-torchscript-static")
    after = saved(optimizers.optimize(onnx.load(before), "onnxruntime extended"), models / "vit-tiny16-extended.onnx")
    return ["compare", str(before), str(after)]


def mutant(models: Path) -> list[str]:
    """ViT-Tiny/16, and the same with two heads of one block swapped."""
    (before,) = exported(models, "vit-tiny16-conv-dynamo-static")
    made = mutations.mutate(onnx.load(before), "heads swapped", 5)
    assert made is not None
    return ["compare", str(before), str(saved(made[0], models / "vit-tiny16-heads-swapped.onnx"))]


def folded(models: Path) -> list[str]:
    """A ResNet, its BatchNormalizations folded into the convolutions by onnxscript."""
    model = architectures.export("resnet", "dynamo")
    after = saved(optimizers.optimize(model, "onnxscript"), models / "resnet-folded.onnx")
    return ["compare", str(saved(model, models / "resnet.onnx")), str(after)]


def focus(models: Path) -> list[str]:
    """YOLO's Focus (four Slices, a Concat and a 3x3 Conv) as one 6x6 Conv."""
    build, _ = architectures.ARCHITECTURES["yolo"]
    with mock.patch.dict(architectures.ARCHITECTURES, {"yolo": (build, ((1, 3, 160, 160),))}):
        model = saved(architectures.export("yolo", "torchscript"), models / "yolo.onnx")
    return ["rewrite", str(model), "--to", "conv", "--force", "--out", str(models / "yolo-conv.onnx")]


def swin(models: Path, deep: int = 6) -> list[str]:
    """A thin Swin-T by both exporters of torch: TorchScript's has about 3,300 nodes."""
    sizes = {"image_size": 224, "patch_size": 4, "embed_dim": 16, "depths": [2, 2, deep, 2], "num_heads": [1, 2, 4, 8]}
    build = architectures._transformers("SwinModel", sizes | {"window_size": 7}, architectures._hidden)
    paths = []
    with mock.patch.dict(architectures.ARCHITECTURES, {"swin": (build, ((1, 3, 224, 224),))}):
        for exporter in ("torchscript", "dynamo"):
            path = models / f"swin-{deep}-{exporter}.onnx"
            paths.append(path if path.exists() else saved(architectures.export("swin", exporter), path))
    return ["compare", *map(str, paths)]


REPORTS: dict[str, Callable[[Path], list[str]]] = {
    "vit-b16": vit,
    "ort-extended": extended,
    "mutant": mutant,
    "batchnorm-fold": folded,
    "focus": focus,
    "swin": swin,
    "swin-deep": lambda models: swin(models, 18),  # 6,600 nodes
}


def make(name: str, models: Path, folder: Path) -> float:
    """Write one report by the command line; the seconds that took."""
    command = python("-m", "graphcheck", *REPORTS[name](models), "--report", str(folder / f"{name}.html"))
    command += ["--json", str(folder / f"{name}.json")]
    start = time.perf_counter()
    # 1 is `different`, which one of them has to be
    code = subprocess.run(command, stdout=subprocess.DEVNULL, cwd=folder).returncode
    if code not in (0, 1):
        raise SystemExit(f"{name}: exit code {code} of {' '.join(command)}")
    return time.perf_counter() - start


def demo(result: str | None, models: Path, folder: Path) -> float:
    """The demo's index: from its saved result, or from the start."""
    start = time.perf_counter()
    page = folder / "demo.html"
    if result:
        subprocess.run(python("-m", "graphcheck", "report", result, "-o", str(page)), check=True)
    else:
        work = folder / "demo"
        arguments = ["--models", str(models / "demo"), "--reports", str(work)]
        subprocess.run(python("-m", "graphcheck", "demo", *arguments), check=True, stdout=subprocess.DEVNULL)
        shutil.copyfile(work / "index.html", page)
    return time.perf_counter() - start


def opened(browser: Any, path: Path, wait: str) -> float:
    """The median seconds from the call of the page to its first drawn node."""
    found = []
    for _ in range(VISITS + 1):
        context = browser.new_context(viewport=SCREENS["desktop"])
        page = context.new_page()
        start = time.perf_counter()
        page.goto(path.as_uri())
        page.locator(wait).first.wait_for(timeout=60_000)
        found.append(time.perf_counter() - start)
        context.close()
    return statistics.median(found[1:])


def pictures(browser: Any, path: Path, wait: str) -> Iterator[str]:
    """Screenshots of the whole page, each in a context of its own; yields what went wrong."""
    for screen, size in SCREENS.items():
        for scheme in ("light", "dark"):
            context = browser.new_context(viewport=size, color_scheme=scheme)
            page = context.new_page()
            trouble: list[str] = []
            page.on("console", lambda m, t=trouble: t.append(m.text) if m.type in ("error", "warning") else None)
            page.on("pageerror", lambda e, t=trouble: t.append(str(e)))
            page.goto(path.as_uri())
            page.locator(wait).first.wait_for(timeout=60_000)
            page.wait_for_timeout(800)
            page.screenshot(path=path.with_name(f"{path.stem}-{screen}-{scheme}.png"), full_page=True)
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            yield from (f"{path.stem} {screen}: {text}" for text in trouble)
            if wide > 0:
                yield f"{path.stem} {screen}: {wide} pixels wider than the screen"
            context.close()


def main() -> int:
    """The table; 1 if a page complained or is wider than its screen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--models", type=Path, help="where models lie and go (default: FOLDER/models)")
    parser.add_argument("--demo", metavar="JSON", help="a saved result of the demo, instead of running it")
    parser.add_argument("--only", nargs="*", choices=[*REPORTS, "demo"])
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    folder = (arguments.folder or Path(tempfile.mkdtemp(prefix="graphcheck-reports-"))).resolve()
    models = (arguments.models or folder / "models").resolve()
    models.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    trouble: list[str] = []
    print("| report | size kB | made in s | opens in s |\n|--|--|--|--|")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for name in arguments.only or [*REPORTS, "demo"]:
            is_demo = name == "demo"
            seconds = demo(arguments.demo, models, folder) if is_demo else make(name, models, folder)
            path, wait = folder / f"{name}.html", ".cell" if is_demo else ".canvas .box, .canvas .fold"
            opens = opened(browser, path, wait)
            print(f"| {name} | {os.path.getsize(path) / 1000:,.0f} | {seconds:.1f} | {opens:.2f} |", flush=True)
            trouble += pictures(browser, path, wait)
        browser.close()
    print(f"pages and pictures: {folder}", *trouble, sep="\n", file=sys.stderr)
    return bool(trouble)


if __name__ == "__main__":
    sys.exit(main())
