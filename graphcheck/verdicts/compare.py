"""``compare``: the same function, or not, or not known; with everything that was seen on the way to the verdict."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

from graphcheck import limits
from graphcheck.errors import UsageError
from graphcheck.files import model as model_
from graphcheck.options import Options
from graphcheck.verdict import Comparison, Verdict
from graphcheck.verdicts.judging import Judging


def compare(
    a: model_.ModelLike,
    b: model_.ModelLike,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    inputs: str | os.PathLike[str] | None = None,
    ignore_outputs: Iterable[str] = (),
    seed: int = 0,
    run: bool = True,
    numerics: str = "quick",
    error_probability: float = 1e-9,
    timeout: float = 300.0,
    max_memory: int | None = None,
    reduce: str | os.PathLike[str] | None = None,
    witness: str | os.PathLike[str] | None = None,
    providers: Iterable[str] | None = None,
    threads: int = 0,
    iterations: int | None = None,
    fail_fast: bool = False,
    graphs: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Comparison:
    """Whether two models are the same function; each is a path, an ``onnx.ModelProto`` or an ``onnx_ir.Model``.

    Args:
        a: The reference.
        b: The model to compare with it.
        shapes: Shapes of inputs by name; else a symbolic batch is tried at 2, 3 and 1, other symbolic dims at a few sizes.
        ranges: (low, high) by input name, ``""`` for every input: what is claimed, and where a witness may lie.
        inputs: An .npz with an array for each input, by name, cast to its dtype: run in place of drawn ones.
        ignore_outputs: Names of outputs that are left out.
        seed: Of inputs, primes and points, at least 0.
        run: False leaves onnxruntime out: the proof alone.
        numerics: ``quick`` (one input) or ``full`` (seeds, scales, signs, batch sizes; optimizations off and on).
        error_probability: Of a proof, at most; between 0 and 1.
        timeout: Seconds for the whole.
        max_memory: Bytes, for this process and for onnxruntime each; None: three quarters of the machine's.
        reduce: A folder for the two small models around the first divergence.
        witness: A folder for the input that shows a difference; None saves none.
        providers: Execution providers of onnxruntime, in order; None: the CPU.
        threads: Of onnxruntime, for each model; 0: half the cores.
        iterations: Seeds to run, from ``seed`` on.
        fail_fast: Stop running at the first unequal output.
        graphs: False leaves the graphs out of the evidence.
        progress: Called with a few words at each step.

    Raises:
        UsageError: for options that do not fit the models.
        ModelError: for a model that cannot be read. A limit that is reached raises nothing: it is ``undecided``.
    """
    if not 0 < error_probability < 1:
        raise UsageError(f"the error probability must lie between 0 and 1, not {error_probability}")
    options = Options(
        shapes=dict(shapes or {}),
        ranges=dict(ranges or {}),
        inputs=inputs,
        ignore_outputs=tuple(ignore_outputs),
        seed=seed,
        run=run,
        numerics=numerics,
        error_probability=error_probability,
        timeout=timeout,
        reduce=reduce,
        witness=witness,
        providers=tuple(providers or ("CPUExecutionProvider",)),
        threads=threads,
        iterations=iterations or 1,
        fail_fast=fail_fast,
    )
    with limits.within(max_memory, timeout):
        return Judging(a, b, options, graphs, progress or (lambda _: None)).run()


__all__ = ["Comparison", "Verdict", "compare"]
