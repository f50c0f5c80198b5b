"""The options of a comparison."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from graphcheck.errors import UsageError
from graphcheck.options import values
from graphcheck.options.fields import CLAIM, OUT, RUN, Group, option

File = str | os.PathLike[str]
LEVELS = ("identical", "proved", "within-rounding")
_GATE = "exit with 0 only if every output passes; never touches the verdict; repeatable as NAME:X"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Required(Group):
    """The level that is asked for."""

    require: str | None = option(
        None, "--require", of="compare guard sweep", panel=CLAIM, metavar="LEVEL",
        takes=Literal["identical", "proved", "within-rounding"], check=values.one_of(*LEVELS),
        help="the weakest verdict that exits with 0: identical, proved or within-rounding (default)",
        doc="The weakest verdict that passes: ``identical``, ``proved`` or ``within-rounding`` (None: this one).",
    )
    accept: Sequence[str] = option(
        (), "--accept", of="compare sweep", panel=CLAIM, metavar="CODE", takes=str, repeatable=True, check=values.codes,
        help="exit with 0 for a weaker or undecided result whose reason has this code, such as GC204; repeatable",
        doc="Codes of reasons, such as ``GC204``, with which a weaker or undecided result passes; the verdict stays what it is, "
        "and ``different`` never passes.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Group):
    """What :func:`graphcheck.compare` takes beside its two models."""

    shapes: Mapping[str, tuple[int, ...]] = option(
        {}, "--shape", of="compare rewrite guard", panel=RUN, metavar="NAME=1,3,224,224", takes=str, repeatable=True,
        parse=values.parse_shapes, check=values.mapping,
        help="the shape of an input; repeatable",
        doc="Shapes of inputs by name; else a symbolic batch is tried at 2, 3 and 1, other symbolic dims at a few sizes.",
    )
    ranges: Mapping[str, tuple[float, float]] = option(
        {}, "--val-range", of="compare guard sweep", panel=CLAIM, metavar="NAME=LOW,HIGH", takes=str, repeatable=True,
        parse=values.parse_ranges, check=values.mapping,
        help="the values that an input (or, without NAME=, every input) takes: restricts the claim; repeatable",
        doc='(low, high) by input name, ``""`` for every input: what is claimed, and where a witness may lie.',
    )
    every: Sequence[str] = option(
        (), "--every", of="compare guard sweep", panel=CLAIM, metavar="DIM", takes=str, repeatable=True, check=values.names,
        help="the proof has to hold at every size of a free dim: its name, batch (the leading one) or all; repeatable",
        doc="Free dims at whose every size the proof has to hold: names, ``batch`` (the leading one) or ``all``.",
    )
    fix: Mapping[str, float] = option(
        {}, "--fix", of="compare", panel=CLAIM, metavar="NAME=NUMBER", takes=str, repeatable=True,
        parse=values.parse_numbers, check=values.numbers,
        help="hold an input at one number, in the models that have it: restricts the claim; repeatable",
        doc="Numbers by input name: the input is a constant then, and needs no partner in the other model.",
    )
    allow: Sequence[str] = option(
        (), "--allow", of="compare guard sweep", panel=CLAIM, metavar="FORMAT", takes=str, repeatable=True,
        parse=values.parse_allowed, check=values.allowed,
        help="accept a copy that was rounded to float16, bfloat16 or a float8 (float8e4m3fn, float8e5m2, ...fnuz), quantized to "
        "int8, int4 or int16 (int8,steps=1: weights one step off as well), or whose folded constants lie within ulps=N, "
        "as within-rounding; repeatable",
        doc="Roundings that a copy may have, and still be ``within-rounding``: ``float16``, ``bfloat16``, ``float8e4m3fn``, "
        "``float8e4m3fnuz``, ``float8e5m2``, ``float8e5m2fnuz``, ``int8``, ``int4``, ``int16`` (weights and activations that "
        "were quantized), ``steps=N`` beside these (weights N steps off, as GPTQ and AdaRound round), ``ulps=N`` (folded "
        "constants within N ulps).",
    )
    inputs: File | None = option(
        None, "--inputs", "--load-inputs", of="compare", panel=RUN, metavar="FILE.npz", takes=Path,
        help="own inputs, by name",
        doc="An .npz with an array for each input, by name, cast to its dtype: run in place of drawn ones.",
    )
    replay: str | None = option(
        None, "--replay", of="compare", panel=RUN, metavar="ID",
        help="the input that an earlier comparison kept under this ID",
        doc="The ID of an input that the command line kept, in place of ``inputs``.",
    )
    more_inputs: Sequence[File] = option((), check=values.names, doc="Further such files, which are run as well.")
    data_loader_script: str | None = option(
        None, "--data-loader-script", of="compare", panel=RUN, metavar="FILE.py[:FUNCTION]",
        help="own inputs: the name-to-array mappings that FUNCTION (load_data) yields, --iterations at most",
        doc="``FILE.py[:FUNCTION]``, which yields own inputs as mappings of names to arrays, ``iterations`` at most.",
    )
    ignore_outputs: Sequence[str] = option(
        (), "--ignore-output", of="compare guard sweep", panel=CLAIM, metavar="NAME", takes=str, repeatable=True,
        check=values.names,
        help="leave this output out; repeatable",
        doc="Names of outputs that are left out.",
    )
    seed: int = option(
        0, "--seed", of="compare rewrite guard sweep demo export", panel=RUN, metavar="N", least=0,
        help="of inputs, weights, primes and whatever is drawn (default: 0)",
        doc="Of inputs, primes and points, at least 0.",
    )
    run: bool = option(
        True, "--no-run", of="compare rewrite guard sweep", panel=RUN,
        help="prove only: do not run onnxruntime",
        doc="False leaves onnxruntime out: the proof alone.",
    )
    numerics: str | None = option(
        None, "--numerics", of="compare guard sweep", panel=RUN, metavar="quick|full", takes=Literal["quick", "full"],
        check=values.one_of("quick", "full"),
        help="quick: one input; full: many, at several scales, with optimizations off and on (default with --report "
        "and --format tensors)",
        doc="``quick`` (one input; the default) or ``full`` (seeds, scales, signs, batch sizes; optimizations off and on).",
    )
    iterations: int | None = option(
        None, "--iterations", of="compare", panel=RUN, metavar="N", least=1,
        help="seeds to run, from --seed on (default: 1; of a loader script all that it yields)",
        doc="Seeds to run, from ``seed`` on; None: 1, and of a loader script all that it yields.",
    )
    fail_fast: bool = option(
        False, "--fail-fast", of="compare", panel=RUN,
        help="stop running at the first unequal output",
        doc="Stop running at the first unequal output.",
    )
    providers: Sequence[str] = option(
        ("CPUExecutionProvider",), "--providers", of="compare rewrite", panel=RUN, metavar="NAME", takes=str,
        repeatable=True, parse=values.parse_separated, check=values.names,
        help="onnxruntime's execution providers, in order; repeatable, or separated by commas",
        doc="Execution providers of onnxruntime, in order.",
    )
    threads: int = option(
        0, "--threads", of="compare rewrite", panel=RUN, metavar="N", least=0,
        help="of onnxruntime, for each model (default: half the cores)",
        doc="Of onnxruntime, for each model; 0: half the cores.",
    )
    timeout: float = option(
        300.0, "--timeout", of="compare rewrite guard analyze", panel=RUN, metavar="SECONDS", check=values.seconds,
        help="for the whole; undecided after it (default: 300)",
        doc="Seconds for the whole.",
    )
    max_memory: int | None = option(
        None, "--max-memory", of="compare rewrite guard analyze", panel=RUN, metavar="SIZE", takes=str,
        parse=values.parse_size,
        help="such as 6G, for graphcheck and for onnxruntime each; undecided beyond it (default: 3/4 of the machine's)",
        doc="Bytes, for this process and for onnxruntime each; None: three quarters of the machine's.",
    )
    error_probability: float = option(
        1e-9, "--error-probability", of="compare rewrite guard sweep", panel=CLAIM, metavar="P", check=values.probability,
        help="of a proof, at most (default: 1e-9)",
        doc="Of a proof, at most; between 0 and 1.",
    )
    atol: float | Mapping[str, float] = option(
        {}, "--atol", of="compare", panel=CLAIM, metavar="X", takes=str, repeatable=True,
        parse=values.parse_tolerances, check=values.tolerance,
        help=f"absolute tolerance: {_GATE}",
        doc="An absolute tolerance, or one for each output by name: whether the runs keep it stands under ``tolerances`` in "
        "the evidence, and never touches the verdict.",
    )
    rtol: float | Mapping[str, float] = option(
        {}, "--rtol", of="compare", panel=CLAIM, metavar="X", takes=str, repeatable=True,
        parse=values.parse_tolerances, check=values.tolerance,
        help="relative tolerance, as --atol",
        doc="A relative tolerance, as ``atol``.",
    )
    top_k: int | None = option(
        None, "--top-k", of="compare", panel=CLAIM, metavar="1|5", takes=Literal["1", "5"], parse=values.parse_int,
        check=values.one_of(1, 5),
        help="show how many rows have the same K largest, and exit with 0 only if all have",
        doc="1 or 5: whether all rows have the same K largest, told as for ``atol``.",
    )
    top: int | None = option(
        None, "--top", of="compare guard", panel=OUT, metavar="N", least=1,
        help="of a copy in a narrower format: show the N nodes that bring most of its deviation; else the N tensors at which "
        "the deviation rises most",
        doc="Of a copy in a narrower format, look for the nodes that bring most of its deviation in large models too; all stand "
        "under ``precision.layers`` in the evidence. Of another pair, measure the deviation of aligned tensors, which stands "
        "under ``numeric.curve``.",
    )
    explain: bool = option(
        False, "--explain", of="compare", panel=OUT,
        help="tell why it is proved: each pair of tensors that are one, and the reason",
        doc="Tell why a proof holds (``proof.steps`` in the evidence), without ``graphs`` too.",
    )
    reduce: File | None = option(
        None, "--reduce", of="compare guard sweep", panel=OUT, metavar="DIR", takes=Path,
        help="write the two small models around the first divergence",
        doc="A folder for the two small models around the first divergence.",
    )
    witness: File | None = option(
        None, "--witness", of="compare sweep", panel=OUT, metavar="DIR", takes=Path,
        help="a folder for the input on which the models differ (default: your cache, from which --replay takes it)",
        doc="A folder for the input that shows a difference; None saves none.",
    )
    save_inputs: File | None = option(
        None, "--save-inputs", of="compare", panel=OUT, metavar="FILE.npz", takes=Path,
        help="save the inputs of the first run",
        doc="An .npz to save the inputs of the first run in.",
    )
    save_outputs: File | None = option(
        None, "--save-outputs", of="compare", panel=OUT, metavar="FILE.npz", takes=Path,
        help="save the outputs of the first run, as a/NAME and b/NAME",
        doc="An .npz to save the outputs of the first run in, as ``a/NAME`` and ``b/NAME``.",
    )
    graphs: bool = option(True, doc="False leaves the graphs out of the evidence.")
    partners: bool = option(True, doc="False leaves ``structure`` and ``alignment`` out of the evidence.")
    progress: Callable[[str], None] | None = option(None, doc="Called with a few words at each step.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.run and (self.gated or self.save_inputs is not None or self.save_outputs is not None):
            raise UsageError("--atol, --rtol, --top-k, --save-inputs and --save-outputs need runs: not with --no-run")
        own = {"--inputs": self.inputs, "--replay": self.replay, "--data-loader-script": self.data_loader_script}
        if len(given := [name for name, value in own.items() if value is not None]) > 1:
            raise UsageError(f"give {given[0]} or {given[1]}, not both")

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats that are allowed."""
        return tuple(name for name in self.allow if name in values.ROUNDINGS)

    @property
    def ulps(self) -> int:
        """The ulps that are allowed."""
        return self._most("ulps")

    @property
    def steps(self) -> int:
        """The steps that a quantized constant may be off."""
        return self._most("steps")

    def _most(self, of: str) -> int:
        return max((int(text.partition("=")[2]) for text in self.allow if text.startswith(of)), default=0)

    @property
    def gated(self) -> bool:
        """Whether tolerances or ranks are asked for."""
        return bool(self.atol or self.rtol or self.top_k)

    def range_rows(self) -> tuple[tuple[str, float, float], ...]:
        """The ranges as :class:`graphcheck.interface.inputs.InputSpec` wants them."""
        return tuple((name, *bounds) for name, bounds in self.ranges.items())


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModuleOptions(Options):
    """What :func:`graphcheck.compare` takes where one side is a ``torch.nn.Module``."""

    args: Sequence[Any] | None = option(
        None,
        doc="What the module is called with, in evaluation mode: its outputs are compared with those of the model on them, "
        "and a fresh export of it is proved against the model.",
    )
    kwargs: Mapping[str, Any] | None = option(None, doc="The same, by name.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AssertOptions(ModuleOptions, Required):
    """What :func:`graphcheck.assert_equivalent` takes beside its two models."""

    report: Path | None = option(None, doc="Where the HTML report goes if it fails; the failure names the file.")
