"""The command line: ``main`` and one function for each command; what is heavy is imported inside them."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

from graphcheck import commands, deferred, limits
from graphcheck.command_line import Argument, Model, called, command, plain
from graphcheck.errors import GraphcheckError, Undecided, UsageError
from graphcheck.files import places
from graphcheck.formats.console import Terminal
from graphcheck.formats.json import read_json, write_json, write_text
from graphcheck.formats.terminal import show_analysis
from graphcheck.options import Options, Told
from graphcheck.sweeping.command import sweep
from graphcheck.verdict import EXIT_OK, EXIT_TROUBLE, EXIT_UNDECIDED
from graphcheck.words import safe, short

if TYPE_CHECKING:
    import typer

_SIGNAL, _BROKEN_PIPE = 128, 141
_LONGEST = 1000  # characters of a sentence on standard error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; trouble is one sentence on standard error, never a traceback.

    Without arguments it takes those of the process.
    """
    sys.stdout, sys.stderr = sys.stdout or io.StringIO(), sys.stderr or io.StringIO()  # None where closed, as by >&-
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a sign must not stop the answer
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime 1.32 reports every run to its makers
    # two models are evaluated at once, and a thread of numpy's that has nothing to do spins
    os.environ.setdefault("OPENBLAS_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))
    logging.getLogger("onnx_ir").setLevel(logging.CRITICAL)  # its warnings are of files that we judge ourselves
    try:
        bounds = limits.of_process(limits.default_memory())
        with _interruptible() as come, bounds, deferred.modules(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's, of what a model computes: an answer is no place for them
            code = _called(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        return _SIGNAL + come[0] if come else int(code or EXIT_OK)
    except _of_typer("ClickException") as error:
        text = error.format_message().replace("Value error, ", "")  # type: ignore[attr-defined]
        return _trouble(f"{text.rstrip('.')} (graphcheck --help tells more)") if text else EXIT_TROUBLE
    except GraphcheckError as error:
        return _trouble(str(error))
    except Undecided as error:
        return _trouble(str(error), EXIT_UNDECIDED)
    except MemoryError:
        return _trouble("the memory limit was reached (--max-memory)", EXIT_UNDECIDED)
    except _of_typer("Abort", KeyboardInterrupt) as error:
        return _SIGNAL + int(next(iter(error.args), signal.SIGINT))
    except (BrokenPipeError, SystemExit):  # typer makes an exit with 1 of a closed pipe; 1 means something else here
        _drop_output()
        return _BROKEN_PIPE
    except OSError as error:
        if error.filename is None:
            _drop_output()
        return _trouble(f"{error.filename or 'standard output'}: {error.strerror or error}")
    except Exception as error:
        if os.environ.get("GRAPHCHECK_TRACEBACK"):
            raise
        if come:  # a package that was being imported makes its own error of an interrupt
            return _SIGNAL + come[0]
        kind = type(error).__name__
        return _trouble(
            f"graphcheck itself failed ({kind}: {error}); please report it, with what GRAPHCHECK_TRACEBACK=1 shows"
        )


def _called(words: Sequence[str]) -> int | None:
    """What the command returns that the words of the command line name."""
    for function, _ in _COMMANDS:
        if [function.__name__] == list(words[:1]) and (given := plain(function, words[1:])) is not None:
            return called(function, given)
    code: int | None = app()(args=list(words), prog_name="graphcheck", standalone_mode=False)
    return code


def app() -> typer.Typer:
    """The command line as typer has it: each command with its options, their help and an example."""
    import typer

    made = typer.Typer(
        name="graphcheck",
        help="Are two ONNX models the same function? Can this patch embedding be one Conv, or one MatMul?",
        epilog="Exit codes: 0 the required level is established, 1 different, 2 trouble, 3 undecided or weaker.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(command(_top))
    for function, example in _COMMANDS:
        made.command(epilog=f"Example: graphcheck {example}")(command(function))
    return made


def _of_typer(name: str, *others: type[BaseException]) -> tuple[type[BaseException], ...]:
    """Its exceptions of a name, if it was asked, and others; bad usage is click's own in versions that are built on it."""
    typer = sys.modules.get("typer")
    bases = () if typer is None else (*typer.BadParameter.__mro__, typer.Abort)
    return (*others, *(base for base in bases if base.__name__ == name))


def left(target: str, text: str) -> None:
    """Write what the work has left for the case that the time limit ends it."""
    try:
        write_text(text, target)
    except (GraphcheckError, OSError) as error:
        _trouble(str(error))


def _drop_output() -> None:
    """What could not be printed is not tried again when Python ends, which would make the exit code 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


@contextlib.contextmanager
def _interruptible() -> Iterator[list[int]]:
    """While it lasts, SIGTERM ends the command as Ctrl-C does, so that no file stays behind; yields what has come."""
    come: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        if come:  # timeout, make and CI send a signal to the whole group, so that it comes twice
            return
        while frame is not None and "importlib" not in frame.f_code.co_filename:
            frame = frame.f_back
        if frame is not None and hasattr(signal, "setitimer"):  # numpy, interrupted while it loads, prints a traceback
            before.setdefault(signal.SIGALRM, signal.signal(signal.SIGALRM, lambda _, later: end(number, later)))
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            return
        come.append(number)
        raise KeyboardInterrupt(number)

    before: dict[int, Any] = {}
    with contextlib.suppress(ValueError):  # of another thread than the main one
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, end)
    try:
        yield come
    finally:
        for changed, handler in before.items():
            signal.signal(changed, handler)


def _trouble(message: str, code: int = EXIT_TROUBLE) -> int:
    with contextlib.suppress(OSError):
        print(f"graphcheck: {short(message, _LONGEST)}", file=sys.stderr)
    return code


def _version(asked: bool) -> None:
    if asked:
        import typer

        print(f"graphcheck {sys.modules['graphcheck'].__version__}")
        raise typer.Exit


def _top(
    version: Annotated[
        bool, typer.Option("--version", metavar="", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def demo(
    models: Annotated[Path, typer.Option("--models", metavar="DIR", help="where the exported models go")] = Path(
        "models"
    ),
    reports: Annotated[Path, typer.Option("--reports", metavar="DIR", help="where the report goes")] = Path("reports"),
    families: Annotated[
        list[str] | None, typer.Option("--family", metavar="NAME", help="only this family; repeatable")
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=0, help="processes; 0: one a core, 4 at most")
    ] = 0,
    *,
    told: Told,
    options: Options,
) -> int:
    """Do it all on the built-in variants: export, analyze, compare all pairs, rewrite both ways, write a report."""
    from graphcheck.demo import run

    places.check_targets(told.json)
    terminal = Terminal(quiet=told.json == "-")
    return run(terminal, models, reports, told.json, options.seed, families or [], workers)


def export(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="variants or whole families", show_default=False)
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="all variants but the large ones of the benchmarks")] = False,
    list_: Annotated[bool, typer.Option("--list", help="name the variants and stop")] = False,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="where the models go")] = Path("models"),
    *,
    told: Told,
    options: Options,
) -> int:
    """Export one function in many forms, by many exporters: graphs that are known to be equal."""
    from graphcheck.exporting import catalogue
    from graphcheck.exporting import export as export_models

    places.check_targets(told.json)
    terminal = Terminal(quiet=told.json == "-")
    if list_:
        rows = [(v.name, v.family, v.form, v.exporter, v.requires) for v in catalogue()]
        terminal.table(("name", "family", "form", "exporter", "needs"), rows, 0)
        write_json({"schema": "graphcheck/catalogue/1", "variants": [row[0] for row in rows]}, told.json)
        return EXIT_OK
    if bool(names) == all_:
        raise UsageError("name variants or families, or give --all (graphcheck export --list names them)")
    wanted = [v.name for v in catalogue() if not v.benchmark] if all_ else list(names or [])
    with terminal.progress("exporting", 0) as step:
        manifest = export_models(wanted, out, options.seed, lambda variant, _number, _total, _error: step(variant.name))
    terminal.say(f"{len(manifest.models)} models written to {safe(out)}", "bold")
    terminal.table(("model", "bytes"), [(entry.file, f"{entry.bytes:,}") for entry in manifest.models])
    for failure in manifest.failures:
        terminal.say(f"  not exported: {failure.variant.name}: {safe(failure.error)}", "yellow")
    write_json(manifest.to_json(), told.json)
    return EXIT_OK if manifest.models else EXIT_TROUBLE


def analyze(model: Model, told: Told, options: Options) -> int:
    """Find the patch embeddings and un-embeddings of a model, and say why other contractions are neither."""
    from graphcheck.files.model import read
    from graphcheck.patches.preparing import analyze_json, prepared

    places.check_sources(model)
    places.check_targets(told.json, told.report, sources=[model])
    commands.begin(options)
    terminal = Terminal(quiet=told.json == "-")
    loaded = read(model)
    try:
        with terminal.status("analyzing"):
            found = prepared(loaded, movement=True)
            result = analyze_json(loaded, found, digest=bool(told.json or told.report))
    except Undecided as error:
        raise Undecided(f"{model}: {error}") from None
    if told.json or told.report:
        from graphcheck.reporting.shapes import graph_of

        result |= {"graph": graph_of(loaded, found.runs_of(loaded))}
    written = commands.write_result(result, told.json, told.report)
    show_analysis(terminal, result)
    commands.say(terminal, written)
    return EXIT_OK


def report(
    results: Annotated[
        list[Path], Argument("RESULT.json...", "what --json wrote")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="the HTML file")] = Path("graphcheck.html"),
) -> int:
    """Write one self-contained HTML file from saved results."""
    from graphcheck import reporting

    places.check_sources(*results)
    places.check_targets(None, out, sources=results)
    reporting.write([read_json(path) for path in results], out)
    Terminal().say(f"wrote {safe(out)}")
    return EXIT_OK


# Each command with an example of it, in the order in which --help lists them.
_COMMANDS: tuple[tuple[Callable[..., int], str], ...] = (
    (commands.compare, "compare a.onnx b.onnx --require proved"),
    (analyze, "analyze model.onnx"),
    (commands.rewrite, "rewrite model.onnx --to conv -o conv.onnx"),
    (commands.guard, "guard model.onnx --out slim.onnx -- onnxslim {in} {out}"),
    (commands.blame, "blame model.onnx --tensors dump.npz"),
    (sweep, "sweep exports --against reference"),
    (report, "report result.json -o result.html"),
    (export, "export vit -o models"),
    (demo, "demo --family vit"),
)
