"""The commands that judge: ``compare``, ``rewrite`` and ``guard``; what is heavy is imported inside them."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphcheck import command_line as o
from graphcheck import limits, output
from graphcheck.answers import show_comparison, show_rewrite
from graphcheck.errors import UsageError
from graphcheck.files import wire
from graphcheck.terminal import Terminal, safe
from graphcheck.verdict import EXIT_DIFFERENT, EXIT_OK, EXIT_UNDECIDED, Comparison, Verdict

if TYPE_CHECKING:
    from graphcheck.rewriting.rewrite import Rewrite


def compare(
    a: o.SideA,
    b: o.SideB,
    require: o.Require = None,
    shape: o.Shape = None,
    val_range: o.Range = None,
    inputs: o.Inputs = None,
    data_loader_script: o.Loader = None,
    ignore_output: o.Ignore = None,
    seed: o.Seed = 0,
    no_run: o.NoRun = False,
    numerics: o.Numerics = None,
    iterations: o.Iterations = None,
    fail_fast: o.FailFast = False,
    providers: o.Providers = None,
    threads: o.Threads = 0,
    timeout: o.Timeout = 300.0,
    max_memory: o.MaxMemory = None,
    error_probability: o.ErrorProbability = 1e-9,
    atol: o.Atol = None,
    rtol: o.Rtol = None,
    top_k: o.TopK = None,
    json: o.Json = None,
    report: o.Report = None,
    format: o.Format = None,
    reduce: o.Reduce = None,
    witness: o.Witness = None,
    save_inputs: o.SaveInputs = None,
    save_outputs: o.SaveOutputs = None,
) -> int:
    """Tell whether two models are the same function, and if not, where they part."""
    output.check_sources(a, b)
    from graphcheck import feeds

    wishes = feeds.wishes(atol or (), rtol or (), top_k, save_inputs, save_outputs)
    if no_run and wishes.any:
        raise UsageError("--atol, --rtol, --top-k, --save-inputs and --save-outputs need runs: not with --no-run")
    if inputs and data_loader_script:
        raise UsageError("give --inputs or --data-loader-script, not both")
    from graphcheck.sweeping.formats import parse_format, write_formats

    wanted = [parse_format(text) for text in format or ()]
    if sum(file is None for _, file in wanted) + (json == "-") > 1:
        raise UsageError("only one --format, or --json -, can go to standard output: name files for the others")
    targets = (report, save_inputs, save_outputs, *(file for _, file in wanted))
    output.check_targets(json, *targets, sources=(a, b))
    output.check_folders(reduce, witness)
    wire.ahead(a, b)  # while the heavy packages load
    options = _options(
        seed=seed,
        no_run=no_run,
        timeout=timeout,
        max_memory=max_memory,
        error_probability=error_probability,
        numerics=numerics or ("full" if report else "quick"),
        shape=shape,
        val_range=val_range,
        ignore_output=ignore_output,
    )
    options |= {"reduce": reduce, "witness": _here(witness), "threads": threads, "fail_fast": fail_fast}
    options |= {"iterations": iterations or 1, "graphs": bool(json or report)}
    options |= _providers(providers)
    terminal = Terminal(quiet=json == "-" or any(file is None for _, file in wanted))
    with tempfile.TemporaryDirectory(prefix="graphcheck-") as folder:
        with contextlib.redirect_stdout(sys.stderr):  # what a script prints is no part of the answer
            loaded = feeds.load_script(data_loader_script, iterations) if data_loader_script else []
        paths = [feeds.save_feed(feed, Path(folder, f"{i}.npz")) for i, feed in enumerate(loaded)] or (
            [inputs] if inputs else []
        )
        with _naming(data_loader_script, folder):
            result = _compared(terminal, a, b, **options, inputs=paths[0] if paths else None)
            data = result.to_json() | {"command": _command()}
            gate = feeds.add_runs(data, a, b, paths, options, wishes)
    written = output.write_all(data, json, report)
    write_formats(result, wanted, require or Verdict.WITHIN_ROUNDING)
    show_comparison(terminal, data, wishes.top_k)
    say(terminal, written)
    return _exit_code(terminal, result, require, gate, reduce)


def rewrite(
    model: o.Model,
    to: o.To = "conv",
    out: o.Out = None,
    site: o.Site = None,
    max_rank: o.MaxRank = None,
    fold_normalization: o.FoldNormalization = False,
    shape: o.Shape = None,
    batch: o.Batch = 1,
    providers: o.Providers = None,
    threads: o.Threads = 0,
    dry_run: o.DryRun = False,
    force: o.Force = False,
    external_data: o.ExternalData = "copy",
    fail_if_none: o.FailIfNone = False,
    explain: o.Explain = False,
    no_run: o.NoRun = False,
    seed: o.Seed = 0,
    timeout: o.Timeout = 300.0,
    max_memory: o.MaxMemory = None,
    error_probability: o.ErrorProbability = 1e-9,
    json: o.Json = None,
    report: o.Report = None,
) -> int:
    """Rewrite patch embeddings to one form; the result is written only once it is proved to be the same function."""
    output.check_sources(model)
    output.check_targets(json, report, sources=[model])
    output.check_targets(json, report, out)
    if to == "fastest" and (max_rank or fold_normalization):
        raise UsageError("--max-rank and --fold-normalization go with a form, not with --to fastest")
    if out is None and not dry_run:
        raise UsageError("say where to write with --out FILE, or give --dry-run to be told only")
    if out is not None and not force and out.exists() and out.samefile(model):
        raise UsageError(f"{out}: is the model itself; give --force to replace it")
    options = _options(
        seed=seed,
        no_run=no_run,
        timeout=timeout,
        max_memory=max_memory,
        error_probability=error_probability,
        shape=shape,
    )
    terminal = Terminal(quiet=json == "-")
    proofs: list[tuple[Any, Any, Comparison]] = []

    def prove(original: Any, rewritten: Any) -> Comparison:
        found = _compared(terminal, original, rewritten, **options, graphs=False)
        proofs.append((original, rewritten, found))
        return found

    check = None if dry_run else prove
    measuring = {"batch": batch, "shapes": options["shapes"], "threads": threads, "seed": seed}
    measuring |= _providers(providers)
    if to == "fastest":
        result = _fastest(model, check, site, options["run"], **measuring)
    else:
        within = {"max_rank": max_rank, "fold_normalization": fold_normalization}
        result = _rewritten(model, to, check=check, sites=site, run=options["run"], **within)
    failed = result.verdict is Verdict.DIFFERENT or any(check.ok is False for check in result.checks)
    if failed:
        code = EXIT_DIFFERENT
    elif not result.applied and not result.moved:
        code = EXIT_UNDECIDED if fail_if_none else EXIT_OK
    else:
        code = EXIT_OK if result.changed else EXIT_UNDECIDED
    written = out if out is not None and not dry_run and code == EXIT_OK else None
    notes = output.write_model(result, model, written, external_data) if written is not None else []
    data = result.to_json() | {"output": written and str(written), "command": _command(), "versions": _versions()}
    data |= {"notes": [*data["model"]["notes"], *notes]}
    if json or report:
        data |= _evidence(result, proofs, measuring if report and not no_run else None)
    if explain:
        data |= {"reported": _reported(result)}
    drawn = output.write_all(data, json, report)
    show_rewrite(terminal, data, explain or dry_run)
    say(terminal, drawn)
    return code


def _evidence(result: Rewrite, proofs: list[Any], measuring: dict[str, Any] | None) -> dict[str, Any]:
    """What a report draws before and after from; with ``measuring``, the times of both as well."""
    from graphcheck.reporting import rewritten
    from graphcheck.rewriting.timing import onnxruntime_timer

    timer = None if measuring is None else onnxruntime_timer(**measuring, runs=9, warm_up=1)
    return rewritten.evidence(result, proofs, timer)


def _rewritten(model: Path, to: str, **options: Any) -> Rewrite:
    from graphcheck.files.model import read
    from graphcheck.rewriting.rewrite import rewrite as rewrite_model

    return rewrite_model(read(model), to, **options)


def _reported(result: Rewrite) -> list[dict[str, str]]:
    from graphcheck.rewriting.fastest import explain

    return explain(result.analysis)


def _fastest(model: Path, check: Any, sites: list[str] | None, run: bool, **measuring: Any) -> Rewrite:
    from graphcheck.files.model import read
    from graphcheck.rewriting.fastest import fastest
    from graphcheck.rewriting.timing import onnxruntime_timer

    return fastest(read(model), onnxruntime_timer(**measuring), check=check, sites=sites, run=run)


def guard(
    model: o.Model,
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="-- COMMAND ... {in} {out}",
            help="the optimizer; {in} and {out} stand for its files",
            show_default=False,
        ),
    ],
    require: o.Require = None,
    shape: o.Shape = None,
    val_range: o.Range = None,
    ignore_output: o.Ignore = None,
    seed: o.Seed = 0,
    no_run: o.NoRun = False,
    numerics: o.Numerics = None,
    timeout: o.Timeout = 300.0,
    max_memory: o.MaxMemory = None,
    error_probability: o.ErrorProbability = 1e-9,
    json: o.Json = None,
    report: o.Report = None,
    reduce: o.Reduce = None,
    out: o.Out = None,
) -> int:
    """Run an optimizer on a model and compare what it made with what it was given; --out keeps it only if it passes."""
    from graphcheck import guarding

    output.check_sources(model)
    output.check_targets(json, report, out, sources=[model])
    output.check_folders(reduce)
    options = _options(
        seed=seed,
        no_run=no_run,
        timeout=timeout,
        max_memory=max_memory,
        error_probability=error_probability,
        numerics=numerics or ("full" if report else "quick"),
        shape=shape,
        val_range=val_range,
        ignore_output=ignore_output,
    )
    options |= {"reduce": reduce, "witness": _here(None)}
    terminal = Terminal(quiet=json == "-")
    level = Verdict(require or Verdict.WITHIN_ROUNDING)
    result = guarding.guard(
        model,
        command,
        lambda before, after: _compared(terminal, before, after, **options),
        out=out,
        accept=lambda result: result.exit_code(level) == EXIT_OK,
    )
    data = result.to_json() | {"command": _command()}
    written = output.write_all(data, json, report)
    show_comparison(terminal, data)
    say(terminal, written)
    code = _exit_code(terminal, result, require, None, reduce)
    if out is not None:
        terminal.say(f"wrote {safe(out)}" if code == EXIT_OK else f"{safe(out)} was not written")
    return code


@contextlib.contextmanager
def _naming(script: str | None, folder: str) -> Iterator[None]:
    """Trouble with what a loader script gave names the script, not the file in ``folder`` that its input went to."""
    try:
        yield
    except UsageError as error:
        raise UsageError(re.sub(rf"{re.escape(folder)}.(\d+)\.npz", rf"input \1 of {script}", str(error))) from None


def _here(folder: Path | None) -> Path | None:
    """Where a witness goes; without a folder, and where none can be written here, it is told but not kept."""
    return folder if folder is not None else Path() if os.access(".", os.W_OK) else None


def _options(
    *,
    seed: int,
    no_run: bool,
    timeout: float,
    max_memory: str | None,
    error_probability: float,
    numerics: str = "quick",
    shape: list[str] | None = None,
    val_range: list[str] | None = None,
    ignore_output: list[str] | None = None,
) -> dict[str, Any]:
    """The options of ``compare`` that the commands share, from those of the command line."""
    from graphcheck.interface.inputs import parse_range
    from graphcheck.interface.ports import parse_shape

    begin(timeout, max_memory)
    return {
        "shapes": dict(map(parse_shape, shape or ())),
        "ranges": {name: (low, high) for name, low, high in map(parse_range, val_range or ())},
        "ignore_outputs": tuple(ignore_output or ()),
        "seed": seed,
        "run": not no_run,
        "numerics": numerics,
        "timeout": timeout,
        "error_probability": error_probability,
    }


def begin(timeout: float, max_memory: str | None) -> None:
    """Set the limits of a command from its options."""
    if not timeout > 0:
        raise UsageError(f"--timeout takes seconds above 0, not {timeout:g}")
    limits.begin(limits.parse_size(max_memory) if max_memory is not None else None, timeout)


def _providers(texts: list[str] | None) -> dict[str, tuple[str, ...]]:
    return {"providers": tuple(name.strip() for text in texts for name in text.split(","))} if texts else {}


def _compared(terminal: Terminal, a: Path, b: Path, **options: Any) -> Comparison:
    from graphcheck.api import compare as compare_models

    with terminal.status("reading") as say:
        return compare_models(a, b, progress=say, **options)


def _exit_code(
    terminal: Terminal, result: Comparison, require: str | None, gate: dict[str, Any] | None, reduce: Path | None
) -> int:
    """The exit code, with the next step said; tolerances may decide it, but never excuse ``different``."""
    level = Verdict(require or Verdict.WITHIN_ROUNDING)
    if gate is not None and result.verdict is not Verdict.DIFFERENT:
        said = "within" if gate["passed"] else "beyond"
        terminal.say(
            f"  outputs are {said} the tolerances asked for, which decide the exit code alone and not the verdict"
        )
        if not gate["passed"]:
            return EXIT_DIFFERENT
        if require is None:
            return EXIT_OK
    code = result.exit_code(level)
    if result.verdict is Verdict.DIFFERENT and reduce is None and result.evidence.get("divergence"):
        terminal.say(
            "next: --reduce DIR writes the two small models around the first divergence, ready for a bug report", "dim"
        )
    elif result.verdict is Verdict.UNDECIDED:
        terminal.say("next: --report FILE.html shows both graphs aligned; --numerics full runs more inputs", "dim")
    elif code and result.verdict is not Verdict.DIFFERENT:
        terminal.say(f"required: {level}; established: {result.verdict}", "yellow")
    return code


def say(terminal: Terminal, text: str) -> None:
    """Print a line, where there is one."""
    if text:
        terminal.say(text)


def _command() -> str:
    return shlex.join(["graphcheck", *sys.argv[1:]])


def _versions() -> dict[str, str]:
    from graphcheck.verdicts.record import versions

    return versions()
