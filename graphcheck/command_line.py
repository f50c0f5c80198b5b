"""The options of the command line, each once: what it is called, takes and says in ``--help``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

_RUN, _CLAIM, _OUT = "What is run", "What is claimed", "What is written"


def _option(
    *names: str, help: str, panel: str | None = None, metavar: str | None = None, least: int | None = None
) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, metavar=metavar, min=least, show_default=False)


def _flag(*names: str, help: str, panel: str | None = None) -> Any:
    return _option(*names, help=help, panel=panel, metavar="")  # without it, --help says that a flag takes a <bool>


Model = Annotated[Path, typer.Argument(metavar="MODEL", help="an ONNX model", show_default=False)]
SideA = Annotated[Path, typer.Argument(metavar="A", help="an ONNX model, the reference", show_default=False)]
SideB = Annotated[Path, typer.Argument(metavar="B", help="the ONNX model to compare with it", show_default=False)]

Json = Annotated[
    str | None,
    _option(
        "--json",
        metavar="FILE",
        help="write the result as JSON; - is standard output, which then holds nothing else",
        panel=_OUT,
    ),
]
Format = Annotated[
    list[str] | None,
    _option(
        "--format",
        metavar="KIND[=FILE]",
        help="junit, sarif, github or summary, to FILE, or to standard output in place of the answer; repeatable",
        panel=_OUT,
    ),
]
Report = Annotated[
    Path | None, _option("--report", metavar="FILE", help="write a self-contained HTML report", panel=_OUT)
]
Out = Annotated[Path | None, _option("-o", "--out", metavar="FILE", help="where to write the model", panel=_OUT)]
Require = Annotated[
    Literal["identical", "proved", "within-rounding"] | None,
    _option(
        "--require",
        metavar="LEVEL",
        help="the weakest verdict that exits with 0: identical, proved or within-rounding (default)",
        panel=_CLAIM,
    ),
]
Shape = Annotated[
    list[str] | None,
    _option("--shape", metavar="NAME=1,3,224,224", help="the shape of an input; repeatable", panel=_RUN),
]
Range = Annotated[
    list[str] | None,
    _option(
        "--val-range",
        metavar="NAME=LOW,HIGH",
        help="the values that an input (or, without NAME=, every input) takes: restricts the claim; repeatable",
        panel=_CLAIM,
    ),
]
Inputs = Annotated[
    Path | None, _option("--inputs", "--load-inputs", metavar="FILE.npz", help="own inputs, by name", panel=_RUN)
]
Loader = Annotated[
    str | None,
    _option(
        "--data-loader-script",
        metavar="FILE.py[:FUNCTION]",
        help="own inputs: the name-to-array mappings that FUNCTION (load_data) yields, --iterations at most",
        panel=_RUN,
    ),
]
Ignore = Annotated[
    list[str] | None, _option("--ignore-output", metavar="NAME", help="leave this output out; repeatable", panel=_CLAIM)
]
Seed = Annotated[
    int,
    _option(
        "--seed", metavar="N", least=0, help="of inputs, weights, primes and whatever is drawn (default: 0)", panel=_RUN
    ),
]
NoRun = Annotated[bool, _flag("--no-run", help="prove only: do not run onnxruntime", panel=_RUN)]
Numerics = Annotated[
    Literal["quick", "full"] | None,
    _option(
        "--numerics",
        metavar="quick|full",
        help="quick: one input; full: many, at several scales, with optimizations off and on (default with --report)",
        panel=_RUN,
    ),
]
Reduce = Annotated[
    Path | None,
    _option("--reduce", metavar="DIR", help="write the two small models around the first divergence", panel=_OUT),
]
Witness = Annotated[
    Path | None,
    _option(
        "--witness",
        metavar="DIR",
        help="where to save the input on which the models differ (default: here)",
        panel=_OUT,
    ),
]
ErrorProbability = Annotated[
    float, _option("--error-probability", metavar="P", help="of a proof, at most (default: 1e-9)", panel=_CLAIM)
]
Timeout = Annotated[
    float, _option("--timeout", metavar="SECONDS", help="for the whole; undecided after it (default: 300)", panel=_RUN)
]
MaxMemory = Annotated[
    str | None,
    _option(
        "--max-memory",
        metavar="SIZE",
        help="such as 6G, for graphcheck and for onnxruntime each; undecided beyond it (default: 3/4 of the machine's)",
        panel=_RUN,
    ),
]
Providers = Annotated[
    list[str] | None,
    _option(
        "--providers",
        metavar="NAME",
        help="onnxruntime's execution providers, in order; repeatable, or separated by commas",
        panel=_RUN,
    ),
]
Threads = Annotated[
    int,
    _option(
        "--threads", metavar="N", least=0, help="of onnxruntime, for each model (default: half the cores)", panel=_RUN
    ),
]
Iterations = Annotated[
    int | None,
    _option(
        "--iterations",
        metavar="N",
        least=1,
        help="seeds to run, from --seed on (default: 1; of a loader script all that it yields)",
        panel=_RUN,
    ),
]
FailFast = Annotated[bool, _flag("--fail-fast", help="stop running at the first unequal output", panel=_RUN)]
SaveInputs = Annotated[
    Path | None, _option("--save-inputs", metavar="FILE.npz", help="save the inputs of the first run", panel=_OUT)
]
SaveOutputs = Annotated[
    Path | None,
    _option(
        "--save-outputs", metavar="FILE.npz", help="save the outputs of the first run, as a/NAME and b/NAME", panel=_OUT
    ),
]
_GATE = "exit with 0 only if every output passes; never touches the verdict; repeatable as NAME:X"
Atol = Annotated[list[str] | None, _option("--atol", metavar="X", help=f"absolute tolerance: {_GATE}", panel=_CLAIM)]
Rtol = Annotated[list[str] | None, _option("--rtol", metavar="X", help="relative tolerance, as --atol", panel=_CLAIM)]
TopK = Annotated[
    Literal["1", "5"] | None,
    _option(
        "--top-k",
        metavar="1|5",
        help="show how many rows have the same K largest, and exit with 0 only if all have",
        panel=_CLAIM,
    ),
]

To = Annotated[
    str,
    _option("--to", metavar="FORM", help="conv (default), matmul, unfold, space-to-depth, or fastest: measured here"),
]
Site = Annotated[
    list[str] | None,
    _option("--site", metavar="NAME", help="only the site with this contraction, input or output; repeatable"),
]
MaxRank = Annotated[
    int | None,
    _option("--max-rank", metavar="N", least=3, help="no tensor of more dims: movement over it is split into steps"),
]
FoldNormalization = Annotated[
    bool, _flag("--fold-normalization", help="take a normalization before the patches into the weight (re-rounds it)")
]
Batch = Annotated[int, _option("--batch", metavar="N", least=1, help="for --to fastest: a symbolic batch (default: 1)")]
ExternalData = Annotated[
    Literal["copy", "link"],
    _option(
        "--external-data",
        metavar="copy|link",
        help="how data files get to another folder: copy (default), or link: a copy-on-write clone, no disk space",
        panel=_OUT,
    ),
]
DryRun = Annotated[bool, _flag("--dry-run", help="tell what would be done; write nothing")]
Force = Annotated[bool, _flag("--force", help="let OUT be MODEL")]
FailIfNone = Annotated[bool, _flag("--fail-if-none", help="exit with 3, and write nothing, where nothing applies")]
Explain = Annotated[bool, _flag("--explain", help="show each site's tensors before and after, and every check")]
