"""A model beyond 2 GB with external data: memory and speed of compare, analyze and rewrite; generates, measures, deletes.

The pair is a ViT written in two ways: Conv patches and fused operators in A, reshaped patches, MatMul and primitive
operators in B, so that only a proof can tell that they are the same. Their weights lie in one file that both share, or in
two.

    python benchmarks/large.py [--gigabytes 3] [--folder DIR]

Targets: peak memory of compare, children included, below 1.5 times the largest tensor plus 2 GB; at least half the speed of
reading and hashing both files (without onnxruntime, which computes); rewrite copies the data file once. Ends with 1 where
one is missed. Memory is what processes hold: pages of mapped files, which the system may take back at any time, are
counted in the column "with mapped pages" only. onnxruntime maps the data file as well, and reads all of it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import math
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import TensorProto, numpy_helper

sys.path.insert(0, str(Path(__file__).parent))
import measuring
from measuring import Sample, python

_ALIGN = 4096
_SPARE = 2e9  # bytes that compare may take beside its largest tensor
_PATCH, _SIDE, _HEADS = 16, 14, 12

_LINEAR = "{out}_ = MatMul({data}, {name}_w) {out} = Add({out}_, {name}_b)"
_PATCHES = {
    True: "p = Conv<strides = [16, 16]>(x, patch) q = Reshape(p, flat) h0 = Transpose<perm = [0, 2, 1]>(q)",
    False: "c = Reshape(x, cut) p = Transpose<perm = [0, 2, 4, 1, 3, 5]>(c) q = Reshape(p, rows) h0 = MatMul(q, patch)",
}
_NORM = {
    True: "{out} = LayerNormalization<epsilon = 1e-05>({data}, {name}_w, {name}_b)",
    False: "{out}m = ReduceMean<axes = [-1]>({data}) {out}d = Sub({data}, {out}m) {out}s = Mul({out}d, {out}d) "
    "{out}v = ReduceMean<axes = [-1]>({out}s) {out}e = Add({out}v, eps) {out}r = Sqrt({out}e) {out}n = Div({out}d, {out}r) "
    "{out}g = Mul({out}n, {name}_w) {out} = Add({out}g, {name}_b)",
}
_GELU = {
    True: "{out} = com.microsoft.Gelu({data})",
    False: "{out}a = Div({data}, root) {out}b = Erf({out}a) {out}c = Add({out}b, one) {out}d = Mul({data}, {out}c) "
    "{out} = Mul({out}d, half)",
}
_HEADED = "{out}r = Reshape({data}, split) {out} = Transpose<perm = {perm}>({out}r)"
_ATTEND = (
    "{l}s = MatMul({l}qh, {l}kh) {l}t = Mul({l}s, scale) {l}o = Softmax<axis = -1>({l}t) {l}c = MatMul({l}o, {l}vh) "
)
_JOIN = "{l}m = Transpose<perm = [0, 2, 1, 3]>({l}c) {l}j = Reshape({l}m, join)"


class Weights:
    """A data file that is written as it grows, and the initializers that refer to it."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, path.open("wb")
        self.draw = np.random.default_rng(0)
        self.tensors: list[TensorProto] = []
        self.largest = 0

    def add(self, name: str, *shape: int) -> None:
        """Random numbers; the product with a matrix keeps the size of what it is given."""
        values = self.draw.standard_normal(shape, np.float32) * np.float32(0.7 * shape[0] ** -0.5)
        self.file.seek(-self.file.tell() % _ALIGN, 1)
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self.path.name), ("offset", self.file.tell()), ("length", values.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        self.file.write(values.data)
        self.tensors.append(tensor)
        self.largest = max(self.largest, values.nbytes)


def generate(folder: Path, gigabytes: float) -> int:
    """Write a.onnx, b.onnx and their weights.data; the bytes of the largest tensor."""
    width = 1536 if gigabytes >= 0.5 else 192
    layers = max(1, math.ceil(gigabytes * 1e9 / (4 * 12 * width**2)))
    weights = Weights(folder / "weights.data")
    with weights.file:
        for i in range(layers):
            for name, *shape in _shapes(width):
                weights.add(f"l{i}{name}", *shape)
    patch = weights.draw.standard_normal((width, 3, _PATCH, _PATCH), np.float32) * np.float32(0.03)
    for name, fused in (("a", True), ("b", False)):
        text = _text(layers, width, fused=fused)
        model = onnx.parser.parse_model(text)
        own = patch if fused else np.ascontiguousarray(patch.transpose(1, 2, 3, 0).reshape(-1, width))
        model.graph.initializer.append(numpy_helper.from_array(own, "patch"))
        model.graph.initializer.extend(weights.tensors)
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    return weights.largest


def _shapes(width: int) -> Iterator[tuple[str, *tuple[int, ...]]]:
    for norm in ("before", "behind"):
        yield from ((f"{norm}_w", width), (f"{norm}_b", width))
    for name, inner, outer in (("q", 1, 1), ("k", 1, 1), ("v", 1, 1), ("out", 1, 1), ("up", 1, 4), ("down", 4, 1)):
        yield from ((f"{name}_w", inner * width, outer * width), (f"{name}_b", outer * width))


def _text(layers: int, width: int, *, fused: bool) -> str:
    head, tokens = width // _HEADS, _SIDE**2
    ints = {"flat": [-1, width, tokens], "cut": [-1, 3, _SIDE, _PATCH, _SIDE, _PATCH], "rows": [-1, tokens, 768]}
    ints |= {"split": [-1, tokens, _HEADS, head], "join": [-1, tokens, width]}
    floats = {"scale": head**-0.5, "root": 2**0.5, "one": 1.0, "half": 0.5, "eps": 1e-5}
    inits = [f"int64[{len(v)}] {k} = {{{', '.join(map(str, v))}}}" for k, v in ints.items()]
    inits += [f"float {k} = {{{v!r}}}" for k, v in floats.items()]
    nodes = [_PATCHES[fused], *(_layer(i, fused=fused) for i in range(layers))]
    size = _SIDE * _PATCH
    signature = f"(float[N, 3, {size}, {size}] x) => (float[N, {tokens}, {width}] h{layers})"
    opsets = '["": 17, "com.microsoft": 1]' if fused else '["": 17]'
    return f"<ir_version: 9, opset_import: {opsets}> vit {signature} <{', '.join(inits)}> {{ {' '.join(nodes)} }}"


def _layer(i: int, *, fused: bool) -> str:
    at = f"l{i}"
    linear = {
        name: _LINEAR.format(data=f"{at}{data}", name=f"{at}{name}", out=f"{at}{name}y")
        for name, data in (("q", "n"), ("k", "n"), ("v", "n"), ("out", "j"), ("up", "y"), ("down", "g"))
    }
    perms = {"q": [0, 2, 1, 3], "k": [0, 2, 3, 1], "v": [0, 2, 1, 3]}
    parts = [_NORM[fused].format(data=f"h{i}", name=f"{at}before", out=f"{at}n")]
    for name, perm in perms.items():
        parts += [linear[name], _HEADED.format(data=f"{at}{name}y", out=f"{at}{name}h", perm=perm)]
    parts += [(_ATTEND + _JOIN).format(l=at), linear["out"], f"{at}h = Add(h{i}, {at}outy)"]
    parts += [_NORM[fused].format(data=f"{at}h", name=f"{at}behind", out=f"{at}y"), linear["up"]]
    parts += [_GELU[fused].format(data=f"{at}upy", out=f"{at}g"), linear["down"], f"h{i + 1} = Add({at}h, {at}downy)"]
    return " ".join(parts)


def apart(folder: Path) -> Path:
    """B once more, with a data file of its own that holds the same weights."""
    shutil.copyfile(folder / "weights.data", folder / "other.data")
    model = onnx.ModelProto.FromString((folder / "b.onnx").read_bytes())
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "other.data"
    target = folder / "apart.onnx"
    target.write_bytes(model.SerializeToString())
    return target


def hashing(files: list[Path]) -> float:
    """Seconds of reading and hashing files, one after the other; the better of two, so that all come from memory."""

    def once() -> float:
        start = time.perf_counter()
        for path in files:
            with path.open("rb") as file:
                hashlib.file_digest(file, "sha256")
        return time.perf_counter() - start

    return min(once(), once())


class Held(threading.Thread):
    """The peak of what this process's children hold, mapped files aside, while the block runs (Linux)."""

    def __enter__(self) -> Held:
        self.megabytes, self.ended = 0.0, threading.Event()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join()

    def run(self) -> None:
        own, *_ = measuring._tree(os.getpid())
        while not self.ended.wait(0.02):
            held = sum(_held(pid) for pid in measuring._tree(own) if pid != own)
            self.megabytes = max(self.megabytes, held / 1e6)


def _held(pid: int) -> int:
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem")))
    return 0


class Table:
    """Rows as they come, and whether a target was missed."""

    def __init__(self, megabytes: float) -> None:
        self.missed, self.megabytes = False, megabytes
        print(
            "| what | wall s | at most | peak MB | at most | with mapped pages | exit |\n|---|---:|---:|---:|---:|---:|---:|"
        )

    def run(self, name: str, command: list[str], seconds: float = math.inf) -> None:
        with Held() as held:
            sample: Sample = measuring.run(command)
        good = sample.wall <= seconds and held.megabytes <= self.megabytes and sample.code == 0
        self.missed |= not good
        most = f"{seconds:.1f}" if seconds < math.inf else ""
        mapped = f"{sample.memory * 2**20 / 1e6:.0f}"
        cells = (
            name,
            f"{sample.wall:.1f}",
            most,
            f"{held.megabytes:.0f}",
            f"{self.megabytes:.0f}",
            mapped,
            f"{sample.code}",
        )
        print(f"| {' | '.join(cells)} |{'' if good else ' MISSED'}", flush=True)


def measure(folder: Path, gigabytes: float) -> int:
    """Generate, measure, and tell; 1 if a target was missed."""
    largest = generate(folder, gigabytes)
    other = apart(folder)
    a, b, data = folder / "a.onnx", folder / "b.onnx", folder / "weights.data"
    bound = (1.5 * largest + _SPARE) / 1e6
    print(f"data file {data.stat().st_size / 1e9:.2f} GB, largest tensor {largest / 1e6:.0f} MB\n")
    graphcheck = python("-m", "graphcheck")
    table = Table(bound)
    for name, second, files in (
        ("compare, one shared data file", b, [a, b, data]),
        ("compare, two data files", other, [a, other, data, folder / "other.data"]),
    ):
        command = [*graphcheck, "compare", str(a), str(second), "--require", "proved"]
        table.run(f"{name}, no run", [*command, "--no-run"], 2 * hashing(files))
        table.run(f"{name}, and run", command)
    table.run("analyze", [*graphcheck, "analyze", str(a)])
    (folder / "elsewhere").mkdir()
    for where, target, copies in (("its own", folder, 0), ("another", folder / "elsewhere", 1)):
        command = [
            *graphcheck,
            "rewrite",
            str(a),
            "--to",
            "matmul",
            "-o",
            str(target / "c.onnx"),
            "--external-data",
            "copy",
        ]
        table.run(f"rewrite into {where} folder", command)
        made = [path for path in target.glob("*.data") if path not in (data, folder / "other.data")]
        whole = all(path.stat().st_size == data.stat().st_size for path in made)
        print(f"  data files written: {len(made)}", "" if len(made) == copies and whole else "MISSED")
        table.missed |= len(made) != copies or not whole
    return int(table.missed)


def main() -> int:
    """Generate, measure, delete."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--folder", type=Path, help="where the models lie meanwhile (default: a temporary folder)")
    options = parser.parse_args()
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="graphcheck-large-") as folder:
        return measure(Path(folder), options.gigabytes)


if __name__ == "__main__":
    sys.exit(main())
