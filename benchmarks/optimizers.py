"""Other people's optimizers under guard: every node test of ONNX and the zoo, before and after each of them.

    python benchmarks/optimizers.py [nodes] [nets] [zoo] [--float16] [--only NAME] [--by OPTIMIZER] [--found FILE]

``nodes`` are ONNX's own node tests, their integer and boolean inputs stored as constants; ``nets`` the hand-written graphs;
``zoo`` what torch's two exporters and tf2onnx make of the architectures, families and Keras models (needs torch and
TensorFlow, and an hour). With ``--float16``, each model is first converted to float16. Every row is made in a process of its
own, so that a crash of an optimizer is a row too. onnxoptimizer and onnx-passes are looked at where they are installed.
Prints a table, and what is not equal; FILE takes those pairs.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import io
import json
import os
import resource
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402
import onnx  # noqa: E402

import graphcheck  # noqa: E402
from graphcheck.guarding import tools  # noqa: E402
from graphcheck.verdict import version  # noqa: E402
from tests.zoo import optimizers  # noqa: E402

_SECONDS = 60  # for optimizing and comparing a model
_EQUAL = ("identical", "proved", "within-rounding")
Source = tuple[str, Callable[[], onnx.ModelProto]]
Row = dict[str, Any]


def _rules(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxscript.rewriter

    return onnxscript.rewriter.rewrite(optimizers._onnxscript(model))


def _passes(tool: str, names: Sequence[str]) -> optimizers.Optimizer:
    """Passes of a tool that ``guard --passes`` knows, its usual ones where none are named."""

    def optimize(model: onnx.ModelProto) -> Any:
        found = tools.load(tool)
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "in.onnx"), Path(folder, "out.onnx")
            source.write_bytes(model.SerializeToString())
            found.run(names or found.passes(), source, target)
            return onnx.ModelProto.FromString(target.read_bytes())

    return optimize


# Those that are no part of constraints.txt are looked at where they are installed.
_OTHERS = {
    "onnxoptimizer": _passes("onnxoptimizer", ()),
    "onnx-passes": _passes("onnx-passes", ("shape-inference", "fold-constants", "eliminate", "cleanup")),
    "onnx-passes lowered": _passes("onnx-passes", ("shape-inference", "inline-batchnorm", "lower-conv", "lower-pooling")),
    "onnx-passes streamlined": _passes("onnx-passes", ("streamline",)),
}
OPTIMIZERS = (
    optimizers.OPTIMIZERS
    | {"onnxruntime all": optimizers._onnxruntime("ALL"), "onnxscript with rules": _rules}
    | {name: run for name, run in _OTHERS.items() if version(name.split()[0]) is not None}
)


def nodes() -> Iterator[Source]:
    """ONNX's node tests."""
    from onnx.backend.test.loader import load_model_tests

    for case in load_model_tests(kind="node"):
        if case.data_sets:
            yield case.name, lambda case=case: _stored(case.model, case.data_sets[0][0])


def _stored(model: onnx.ModelProto, values: Any) -> onnx.ModelProto:
    """The model with its integer and boolean inputs as constants: they steer, and optimizers fold them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.ir_version = max(copy.ir_version, 4)  # before, initializers had to be inputs
    for declared, value in zip(model.graph.input, values, strict=False):
        array = onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
        if isinstance(array, np.ndarray) and array.dtype.kind in "iub" and len(model.graph.input) > 1:
            copy.graph.initializer.append(onnx.numpy_helper.from_array(array, declared.name))
            copy.graph.input.remove(next(v for v in copy.graph.input if v.name == declared.name))
    return copy


def nets() -> Iterator[Source]:
    """The zoo's hand-written graphs."""
    from tests.zoo import nets as made

    for name in made.NETS:
        yield name, lambda name=name: made.net(name)


def zoo() -> Iterator[Source]:
    """Exports of the architectures, families and Keras models."""
    from graphcheck import exporting
    from tests.zoo import architectures, keras_nets

    for name in architectures.ARCHITECTURES:
        for exporter in ("torchscript", "dynamo"):
            yield f"{name} {exporter}", lambda n=name, e=exporter: architectures.export(n, e)
    for variant in exporting.catalogue():
        if not variant.benchmark:
            yield variant.name, lambda v=variant: _exported(v.name)
    for name in keras_nets.NETS:
        yield f"keras {name}", lambda name=name: keras_nets.export(name)


def _exported(name: str) -> onnx.ModelProto:
    from graphcheck import exporting

    with tempfile.TemporaryDirectory() as folder:
        (made,) = exporting.export([name], folder).models
        return onnx.ModelProto.FromString(Path(folder, made.file).read_bytes())


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in float16."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    made: onnx.ModelProto = convert_float_to_float16(model, disable_shape_infer=False)
    onnx.checker.check_model(made)
    return made


def guarded(model: onnx.ModelProto, name: str, found: Path | None, label: str) -> Row:
    """What the optimizer makes of a model, compared with it."""
    try:
        with optimizers.quiet():
            made = OPTIMIZERS[name](model)
    except Exception as error:
        return {"verdict": "optimizer fails", "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    with contextlib.redirect_stderr(io.StringIO()):
        result = graphcheck.compare(model, made, run=False, graphs=False, timeout=_SECONDS / 2)
        if result.verdict not in _EQUAL:  # onnxruntime may show more
            result = graphcheck.compare(model, made, graphs=False, timeout=_SECONDS / 2)
    if found is not None and result.verdict not in _EQUAL:
        for side, proto in (("before", model), ("after", made)):
            Path(found, f"{label}~{name}.{side}.onnx".replace(" ", "_").replace("/", "_")).write_bytes(
                proto.SerializeToString()
            )
    return {"verdict": str(result.verdict), "reason": result.reason[:300]}


def rows(work: Callable[[str], Row], names: list[str]) -> Iterator[tuple[str, Row]]:
    """A row for each of ``names``, made in a child process; where that ends early, that is the row, and another goes on."""
    while names:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            with contextlib.suppress(BaseException):
                _work(work, names, writing)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            made = [json.loads(line) for line in pipe]
        _, status = os.waitpid(child, 0)
        yield from zip(names, made, strict=False)
        names = names[len(made) :]
        if names:
            code = -os.waitstatus_to_exitcode(status)
            how = signal.Signals(code).name if code > 0 else "itself"
            yield names[0], {"verdict": "optimizer fails", "reason": f"the process was ended by {how}"}
            names = names[1:]


def _work(work: Callable[[str], Row], names: list[str], pipe: int) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (6 * 2**30, resource.RLIM_INFINITY))
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    for name in names:
        signal.alarm(3 * _SECONDS)
        try:
            row = work(name)
        except Exception as error:
            row = {"verdict": "not read", "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
        os.write(pipe, json.dumps(row).encode() + b"\n")


def _prepare() -> None:
    """Load once what every child needs. onnxruntime runs in none of it: its threads would not survive a fork."""
    import onnxruntime  # noqa: F401
    import onnxsim  # noqa: F401

    from tests.zoo.nets import NETS, net

    for tool in {name.split()[0] for name in _OTHERS if name in OPTIMIZERS}:
        for module in tools.load(tool).modules:
            importlib.import_module(module)
    model = net(next(iter(NETS)))
    with optimizers.quiet():
        graphcheck.compare(model, _rules(optimizers._onnxslim(model)), run=False, graphs=False)


def main() -> int:
    """The table of the kinds asked for; 1 if anything is different."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=["nodes", "nets"], help="nodes, nets, zoo")
    parser.add_argument("--float16", action="store_true")
    parser.add_argument("--only", default="", help="models whose name holds this")
    parser.add_argument("--by", action="append", choices=list(OPTIMIZERS), help="this optimizer alone; repeatable")
    parser.add_argument("--found", type=Path)
    options = parser.parse_args()
    if options.found is not None:
        options.found.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    _prepare()
    counts: dict[str, Counter[str]] = {name: Counter() for name in options.by or OPTIMIZERS}
    for kind in options.kinds:
        for label, make in {"nodes": nodes, "nets": nets, "zoo": zoo}[kind]():
            if options.only not in label:
                continue
            source = functools.cache(lambda make=make: halved(make()) if options.float16 else make())
            if kind == "zoo" and not _made(source, label):  # exporters load too much to do so in every child
                continue
            work = functools.partial(_guard, source, options.found, label)
            for name, row in rows(work, list(counts)):
                counts[name][row["verdict"]] += 1
                if row["verdict"] not in (*_EQUAL, "not read"):
                    print(f"{row['verdict']}: {label} ~ {name}: {row['reason']}", flush=True)
    columns = (*_EQUAL, "different", "undecided", "optimizer fails", "not read")
    print(f"\n| optimizer | {' | '.join(columns)} |\n|--|{'--:|' * len(columns)}")
    for name, counter in counts.items():
        print(f"| {name} | {' | '.join(str(counter[column]) for column in columns)} |")
    return int(any(counter["different"] for counter in counts.values()))


def _made(source: Callable[[], onnx.ModelProto], label: str) -> bool:
    try:
        with optimizers.quiet():
            source()
    except Exception as error:  # exporters raise anything
        print(f"exporter fails: {label}: {type(error).__name__}: {' '.join(str(error).split())[:200]}", flush=True)
        return False
    return True


def _guard(source: Callable[[], onnx.ModelProto], found: Path | None, label: str, name: str) -> Row:
    return guarded(source(), name, found, label)


if __name__ == "__main__":
    sys.exit(main())
