"""The options of the command line that are no part of a comparison."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from graphcheck.options import values
from graphcheck.options.comparing import Options
from graphcheck.options.fields import HOW, OUT, RUN, WHAT, Group, option

_LEVELS = ("off", "basic", "extended", "all")  # of onnxruntime's optimizations


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told(Group):
    """How a result is told."""

    json: str | None = option(
        None, "--json", of="compare rewrite guard sweep analyze blame demo export", panel=OUT, metavar="FILE",
        help="write the result as JSON; - is standard output, which then holds nothing else",
    )
    report: Path | None = option(
        None, "--report", of="compare rewrite guard analyze blame", panel=OUT, metavar="FILE",
        help="write a self-contained HTML report",
    )
    format: Sequence[str] = option(
        (), "--format", of="compare guard blame", panel=OUT, metavar="KIND[=FILE]", takes=str, repeatable=True,
        check=values.names, help="{formats}, to FILE, or to standard output in place of the answer; repeatable",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewriteOptions(Group):
    """What :func:`graphcheck.rewrite` writes anew beside what it does without being asked, and within which limits."""

    sites: Sequence[str] | None = option(
        None, "--site", of="rewrite", metavar="NAME", takes=str, repeatable=True, check=values.names,
        help="only the site with this contraction, input or output; repeatable",
        doc="Only these, by the name of their contraction, input or output; None: all but ordinary convolutions.",
    )
    max_rank: int | None = option(
        None, "--max-rank", of="rewrite sweep", metavar="N", least=3,
        help="no tensor of more dims: movement over it is split into steps",
        doc="No tensor of more dims, at least 3: sites over it take whichever form fits, movement elsewhere is split into "
        "steps.",
    )
    fold_normalization: bool = option(
        False, "--fold-normalization", of="rewrite sweep",
        help="take a normalization before the patches into the weight (re-rounds it)",
        doc="Take a per-channel normalization before the patches into the weight, which re-rounds it.",
    )
    pointwise: bool = option(
        False, "--pointwise", of="rewrite sweep",
        help="rewrite projections of the channels too: a MatMul or Gemm to a 1x1 Conv, or back",
        doc="Rewrite projections of the channels too: a MatMul or Gemm to a 1x1 Conv, or back.",
    )
    ordinary: bool = option(
        False, "--ordinary", of="rewrite sweep",
        help="rewrite ordinary Convs too: overlapping, padded, dilated and grouped ones",
        doc="Rewrite ordinary convolutions too, whose windows overlap or leave gaps, and those in groups.",
    )
    movement: bool = option(
        False, "--movement", of="rewrite sweep",
        help="rewrite movement without a projection: --to space-to-depth (DepthToSpace too), and --to reshape back",
        doc="Rewrite movement without a projection too: ``space-to-depth`` writes SpaceToDepth or DepthToSpace, ``reshape``, "
        "which is a form of nothing else, Reshape, Transpose, Reshape.",
    )
    stills: bool = option(
        False, "--stills", of="rewrite sweep",
        help="rewrite a Conv3d of one repeated image too: its weight is summed over the copies (re-rounds it)",
        doc="Rewrite patch embeddings of a repeated image too, a Conv3d of one frame several times: the weight is summed over "
        "the copies, each element rounded once.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProvedOptions(RewriteOptions, Options):
    """The same with the options of :func:`graphcheck.compare`, which are for the proof."""

    check: Callable[[Any, Any], Any] | None = option(
        None, doc="``check(original, rewritten)``, the comparison that has to establish ``within-rounding`` or better "
        "(None: :func:`compare`, with those of these options that it takes).",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rewriting(RewriteOptions):
    """To which form a command rewrites, and what is done with the result."""

    to: str = option(
        "conv", "--to", of="rewrite", metavar="FORM",
        help="conv (default), matmul, unfold, space-to-depth; conv-transpose, matmul, depth-to-space of an un-embedding; "
        "or fastest: measured here; reshape with --movement",
        doc="``conv``, ``matmul``, ``unfold`` or ``space-to-depth``; ``conv-transpose``, ``matmul`` or ``depth-to-space`` of "
        "an un-embedding.",
    )
    out: Path | None = option(
        None, "-o", "--out", of="rewrite guard", panel=OUT, metavar="FILE", help="where to write the model",
    )
    batch: int = option(
        1, "--batch", of="rewrite", metavar="N", least=1,
        help="for --to fastest: a symbolic batch (default: 1)",
    )
    dry_run: bool = option(False, "--dry-run", of="rewrite", help="tell what would be done; write nothing")
    force: bool = option(False, "--force", of="rewrite", help="let OUT be MODEL")
    external_data: str = option(
        "copy", "--external-data", of="rewrite", panel=OUT, metavar="copy|link", takes=Literal["copy", "link"],
        check=values.one_of("copy", "link"),
        help="how data files get to another folder: copy (default), or link: a copy-on-write clone, no disk space",
    )
    fail_if_none: bool = option(
        False, "--fail-if-none", of="rewrite", help="exit with 3, and write nothing, where nothing applies",
    )
    explain: bool = option(
        False, "--explain", of="rewrite", help="show each site's tensors before and after, and every check",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Twice(Group):
    """One model run in two ways, each judged like a device: where one of these is given, both files have to be the same."""

    optimizations_a: str | None = option(
        None, "--optimizations-a", of="compare", panel=RUN, metavar="LEVEL", takes=Literal["off", "basic", "extended", "all"],
        check=values.one_of(*_LEVELS),
        help="one model twice: what onnxruntime does to it in the first run, off, basic, extended or all (default)",
    )
    optimizations_b: str | None = option(
        None, "--optimizations-b", of="compare", panel=RUN, metavar="LEVEL", takes=Literal["off", "basic", "extended", "all"],
        check=values.one_of(*_LEVELS),
        help="likewise in the second run; each is judged on its own tensors, and a wrong operator is named",
    )
    providers_a: Sequence[str] = option(
        (), "--providers-a", of="compare", panel=RUN, metavar="NAME", takes=str, repeatable=True,
        parse=values.parse_separated, check=values.names,
        help="one model twice: the execution providers of the first run (default: those of --providers)",
    )
    providers_b: Sequence[str] = option(
        (), "--providers-b", of="compare", panel=RUN, metavar="NAME", takes=str, repeatable=True,
        parse=values.parse_separated, check=values.names,
        help="likewise of the second run",
    )

    @property
    def asked(self) -> bool:
        """Whether one of them is given."""
        return bool(self.optimizations_a or self.optimizations_b or self.providers_a or self.providers_b)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guarding(Group):
    """How an optimizer is run: as a whole where none of these is given."""

    passes: str | None = option(
        None, "--passes", of="guard", panel=WHAT, metavar="TOOL[:PASS,...]",
        help="pass by pass: onnxoptimizer, onnxsim, onnxslim, onnxscript, onnxruntime or onnx-passes",
    )
    passes_from: str | None = option(
        None, "--passes-from", of="guard", panel=WHAT, metavar="COMMAND",
        help="pass by pass: COMMAND lists them, and the command behind -- takes {pass}",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweeping(Group):
    """What is done to each model of a sweep, how, and where it is kept."""

    against: Path | None = option(
        None, "--against", of="sweep", panel=WHAT, metavar="DIR", help="each model (B) and its namesake there, the reference (A)",
    )
    guard: str | None = option(
        None, "--guard", of="sweep", panel=WHAT, metavar="COMMAND",
        help='each model and what an optimizer, "onnxsim {in} {out}", makes',
    )
    analyze: bool = option(False, "--analyze", of="sweep", panel=WHAT, help="analyze each model")
    rewrite: str | None = option(
        None, "--rewrite", of="sweep", panel=WHAT, metavar="FORM", help="rewrite each model to this form",
    )
    jobs: int = option(
        0, "--jobs", of="sweep", panel=HOW, metavar="N", least=0, help="processes at once (default: half the cores)",
    )
    dask: str | None = option(
        None, "--dask", of="sweep", panel=HOW, metavar="ADDRESS", help="run on the workers of this Dask scheduler",
    )
    resources: Mapping[str, float] = option(
        {}, "--resources", of="sweep", panel=HOW, metavar="NAME=AMOUNT", takes=str, repeatable=True,
        parse=values.parse_resources, help="with --dask, what each needs of its worker, such as gpu=1; repeatable",
    )
    shard: tuple[int, int] | None = option(
        None, "--shard", of="sweep", panel=WHAT, metavar="I/N", takes=str, parse=values.parse_shard,
        help="the I-th of N parts, which together are all, each in one part",
    )
    merge: Sequence[Path] = option(
        (), "--merge", of="sweep", panel=WHAT, metavar="STORE|DIR", takes=Path, repeatable=True,
        help="take the results of other stores, or of those in a folder, and do what none of them has; repeatable",
    )
    timeout: float = option(
        300.0, "--timeout", of="sweep", panel=HOW, metavar="SECONDS", check=values.seconds,
        help="for each (default: 300)",
    )
    max_memory: int | None = option(
        None, "--max-memory", of="sweep", panel=HOW, metavar="SIZE", takes=str, parse=values.parse_size,
        help="for each, as 4G or 500M (default: its share of the machine)",
    )
    store: Path = option(
        Path("graphcheck-sweep.sqlite"), "--store", of="sweep", panel=OUT, metavar="FILE",
        help="keeps results (default: graphcheck-sweep.sqlite)",
    )
    fresh: bool = option(False, "--fresh", of="sweep", panel=HOW, help="do all anew, whatever the store knows")
    retry: bool = option(False, "--retry", of="sweep", panel=HOW, help="try failures again that the store knows")
    format: Sequence[str] = option(
        (), "--format", of="sweep", panel=OUT, metavar="KIND[=FILE]", takes=str, repeatable=True, check=values.names,
        help="{formats}, to FILE or standard output; repeatable",
    )
    report: Path | None = option(
        None, "--report", of="sweep", panel=OUT, metavar="DIR", help="write an HTML index and a page for each",
    )
    out: Path | None = option(None, "--out", of="sweep", panel=OUT, metavar="DIR", help="where rewritten models go")
