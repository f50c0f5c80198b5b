"""The command line: ``main`` and one function for each command; what is heavy is imported inside them."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from graphcheck import options as o
from graphcheck import output
from graphcheck.answers import show_analysis, show_comparison
from graphcheck.errors import GraphcheckError, UsageError
from graphcheck.terminal import Terminal, safe
from graphcheck.verdict import EXIT_DIFFERENT, EXIT_OK, EXIT_TROUBLE, Comparison, Verdict

app = typer.Typer(
    name="graphcheck",
    help="Are two ONNX models the same function? Can this patch embedding be one Conv, or one MatMul?",
    epilog="Exit codes: 0 the required level is established, 1 different, 2 trouble, 3 undecided or weaker.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# What typer raises for bad usage; click's own class in the versions of typer that are built on it.
_USAGE_ERRORS: tuple[type[Exception], ...] = tuple(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException"
)
_INTERRUPTED, _BROKEN_PIPE = 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; trouble is one sentence on standard error, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a sign must not stop the answer
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="graphcheck", standalone_mode=False)
        sys.stdout.flush()
        return int(code or EXIT_OK)
    except _USAGE_ERRORS as error:
        text = error.format_message()  # type: ignore[attr-defined]
        return _trouble(f"{text.rstrip('.')} (graphcheck --help tells more)") if text else EXIT_TROUBLE
    except GraphcheckError as error:
        return _trouble(str(error))
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    except (
        BrokenPipeError,
        SystemExit,
    ):  # typer turns a closed pipe into an exit with 1, which means something else here
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _BROKEN_PIPE
    except OSError as error:
        return _trouble(f"{error.filename or 'a file'}: {error.strerror or error}")
    except Exception as error:
        if os.environ.get("GRAPHCHECK_TRACEBACK"):
            raise
        kind = type(error).__name__
        return _trouble(
            f"graphcheck itself failed ({kind}: {error}); please report it, with what GRAPHCHECK_TRACEBACK=1 shows"
        )


def _trouble(message: str) -> int:
    with contextlib.suppress(OSError):
        print(f"graphcheck: {safe(message)}", file=sys.stderr)
    return EXIT_TROUBLE


def _version(asked: bool) -> None:
    if asked:
        import graphcheck

        print(f"graphcheck {graphcheck.__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    models: Annotated[Path, typer.Option("--models", metavar="DIR", help="where the exported models go")] = Path(
        "models"
    ),
    reports: Annotated[Path, typer.Option("--reports", metavar="DIR", help="where the report goes")] = Path("reports"),
    json: o.Json = None,
    seed: o.Seed = 0,
    families: Annotated[
        list[str] | None, typer.Option("--family", metavar="NAME", help="only this family; repeatable")
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=0, help="processes; 0: one a core, 4 at most")
    ] = 0,
) -> int:
    """Do it all on the built-in variants: export, analyze, compare all pairs, rewrite both ways, write a report."""
    from graphcheck.demo import run

    output.check_targets(json)
    terminal = Terminal(quiet=json == "-")
    return run(terminal, models, reports, json, seed, families or [], workers)


@app.command()
def export(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="variants or whole families", show_default=False)
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="all variants but the large ones of the benchmarks")] = False,
    list_: Annotated[bool, typer.Option("--list", help="name the variants and stop")] = False,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="where the models go")] = Path("models"),
    seed: o.Seed = 0,
    json: o.Json = None,
) -> int:
    """Export one function in many forms, by many exporters: graphs that are known to be equal."""
    from graphcheck.exporting import catalogue
    from graphcheck.exporting import export as export_models

    output.check_targets(json)
    terminal = Terminal(quiet=json == "-")
    if list_:
        rows = [(v.name, v.family, v.form, v.exporter, v.requires) for v in catalogue()]
        terminal.table(("name", "family", "form", "exporter", "needs"), rows, 0)
        output.write_json({"schema": "graphcheck/catalogue/1", "variants": [row[0] for row in rows]}, json)
        return EXIT_OK
    if bool(names) == all_:
        raise UsageError("name variants or families, or give --all (graphcheck export --list names them)")
    wanted = [v.name for v in catalogue() if not v.benchmark] if all_ else list(names or [])
    with terminal.progress("exporting", 0) as step:
        manifest = export_models(wanted, out, seed, lambda variant, _number, _total, _error: step(variant.name))
    terminal.say(f"{len(manifest.models)} models written to {safe(out)}", "bold")
    terminal.table(("model", "bytes"), [(entry.file, f"{entry.bytes:,}") for entry in manifest.models])
    for failure in manifest.failures:
        terminal.say(f"  not exported: {failure.variant.name}: {safe(failure.error)}", "yellow")
    output.write_json(manifest.to_json(), json)
    return EXIT_OK if manifest.models else EXIT_TROUBLE


@app.command()
def analyze(model: o.Model, json: o.Json = None, report: o.Report = None) -> int:
    """Find the patch embeddings of a model, and say why other contractions are none."""
    from graphcheck.equivalence.structure import graph_json
    from graphcheck.model import read
    from graphcheck.patches.analyze import analyze_json

    output.check_targets(json, report)
    terminal = Terminal(quiet=json == "-")
    loaded = read(model)
    result = analyze_json(loaded)
    show_analysis(terminal, result)
    if json or report:
        result |= {"graph": graph_json(loaded)}
    output.write_all(result, json, report, terminal)
    return EXIT_OK


@app.command()
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
    error_probability: o.ErrorProbability = 1e-9,
    atol: o.Atol = None,
    rtol: o.Rtol = None,
    top_k: o.TopK = None,
    json: o.Json = None,
    report: o.Report = None,
    reduce: o.Reduce = None,
    witness: o.Witness = None,
    save_inputs: o.SaveInputs = None,
    save_outputs: o.SaveOutputs = None,
) -> int:
    """Tell whether two models are the same function, and if not, where they part."""
    from graphcheck import feeds

    output.check_targets(json, report, save_inputs, save_outputs)
    wishes = feeds.Wishes(
        feeds.parse_tolerances("--atol", atol or ()),
        feeds.parse_tolerances("--rtol", rtol or ()),
        int(top_k) if top_k else None,
        save_inputs,
        save_outputs,
    )
    if no_run and wishes.any:
        raise UsageError("--atol, --rtol, --top-k, --save-inputs and --save-outputs need runs: not with --no-run")
    if inputs and data_loader_script:
        raise UsageError("give --inputs or --data-loader-script, not both")
    options = _options(
        shape,
        val_range,
        ignore_output,
        seed,
        no_run,
        numerics or ("full" if report else "quick"),
        timeout,
        error_probability,
    )
    options |= {"reduce": reduce, "witness": witness, "threads": threads, "fail_fast": fail_fast}
    options |= {"iterations": iterations or 1}
    if providers:
        options["providers"] = tuple(name.strip() for text in providers for name in text.split(","))
    terminal = Terminal(quiet=json == "-")
    with tempfile.TemporaryDirectory(prefix="graphcheck-") as folder:
        loaded = feeds.load_script(data_loader_script, iterations) if data_loader_script else []
        paths = [feeds.save_feed(feed, Path(folder, f"{i}.npz")) for i, feed in enumerate(loaded)] or (
            [inputs] if inputs else []
        )
        result = _compared(terminal, a, b, **options, inputs=paths[0] if paths else None)
        data = result.to_json() | {"command": _command()}
        gate = feeds.add_runs(data, a, b, paths, options, wishes)
    show_comparison(terminal, data, wishes.top_k)
    output.write_all(data, json, report, terminal)
    return _exit_code(terminal, result, require, gate, reduce)


@app.command(context_settings={"ignore_unknown_options": False})
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
    error_probability: o.ErrorProbability = 1e-9,
    json: o.Json = None,
    report: o.Report = None,
    reduce: o.Reduce = None,
    out: o.Out = None,
) -> int:
    """Run an optimizer on a model and compare what it made with what it was given; --out keeps it only if it passes."""
    from graphcheck import guarding

    output.check_targets(json, report, out)
    if out is not None and out.exists() and model.exists() and out.samefile(model):
        raise UsageError(f"{out}: is the model itself; name another file with --out")
    options = _options(
        shape,
        val_range,
        ignore_output,
        seed,
        no_run,
        numerics or ("full" if report else "quick"),
        timeout,
        error_probability,
    )
    options |= {"reduce": reduce}
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
    show_comparison(terminal, data)
    output.write_all(data, json, report, terminal)
    code = _exit_code(terminal, result, require, None, reduce)
    if out is not None:
        terminal.say(f"wrote {safe(out)}" if code == EXIT_OK else f"{safe(out)} was not written")
    return code


@app.command()
def report(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULT.json...", help="what --json wrote", show_default=False)
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="the HTML file")] = Path("graphcheck.html"),
) -> int:
    """Write one self-contained HTML file from saved results."""
    from graphcheck import reporting

    output.check_targets(out)
    reporting.write([output.read_json(path) for path in results], out)
    Terminal().say(f"wrote {safe(out)}")
    return EXIT_OK


def _options(
    shape: list[str] | None,
    val_range: list[str] | None,
    ignore_output: list[str] | None,
    seed: int,
    no_run: bool,
    numerics: str,
    timeout: float,
    error_probability: float,
) -> dict[str, Any]:
    """The options of ``compare`` that ``guard`` shares."""
    from graphcheck.equivalence.inputs import parse_range
    from graphcheck.equivalence.interface import parse_shape

    if timeout <= 0:
        raise UsageError(f"--timeout takes seconds above 0, not {timeout:g}")
    ranges = {name: (low, high) for name, low, high in map(parse_range, val_range or ())}
    return {
        "shapes": dict(map(parse_shape, shape or ())),
        "ranges": ranges,
        "ignore_outputs": tuple(ignore_output or ()),
        "seed": seed,
        "run": not no_run,
        "numerics": numerics,
        "timeout": timeout,
        "error_probability": error_probability,
    }


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


def _command() -> str:
    import shlex

    return shlex.join(["graphcheck", *sys.argv[1:]])
