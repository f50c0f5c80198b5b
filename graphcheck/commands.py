"""The commands that judge: ``compare``, ``rewrite`` and ``guard``; what is heavy is imported inside them."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from graphcheck import limits, processes
from graphcheck.command_line import Argument, Model, SideA, SideB
from graphcheck.errors import UsageError
from graphcheck.files import kept, places, wire
from graphcheck.formats import write_formats
from graphcheck.formats.blame import show_blame, show_twice
from graphcheck.formats.console import Terminal
from graphcheck.formats.json import dumps, plain, write_json
from graphcheck.formats.terminal import show_comparison, show_rewrite
from graphcheck.formats.wanted import Wanted, wanted
from graphcheck.options import Blaming, Guarding, Options, Required, RewriteOptions, Rewriting, Told, Twice
from graphcheck.runs import early
from graphcheck.verdict import EXIT_DIFFERENT, EXIT_OK, EXIT_UNDECIDED, Comparison, Verdict, ended
from graphcheck.words import safe

if TYPE_CHECKING:
    import typer

    from graphcheck.rewriting.result import Rewrite


def compare(a: SideA, b: SideB, required: Required, told: Told, twice: Twice, options: Options) -> int:
    """Tell whether two models are the same function, and if not, where they part."""
    places.check_sources(a, b)
    if twice.asked:
        return _twice(a, b, told, twice, options)
    saved = [Path(file) for file in (options.save_inputs, options.save_outputs) if file is not None]
    asked = wanted(told, *saved, sources=(a, b))
    places.check_folders(*(Path(folder) for folder in (options.reduce, options.witness) if folder is not None))
    wire.ahead(a, b)  # while the heavy packages load
    begin(options)
    options = dataclasses.replace(
        options,
        numerics=options.numerics or ("full" if asked.drawn else "quick"),
        witness=options.witness or kept.writable(),
        graphs=bool(told.json) or asked.drawn,
        partners=bool(told.json) or asked.drawn,
    )
    terminal = Terminal(quiet=asked.quiet)
    _if_late(told, options, a, b)
    with early.begun(options.run):
        result = _compared(terminal, a, b, options)
    data = result.to_json() | {"command": _command()}
    written = write_result(data, told.json, told.report)
    processes.if_ended(None)
    write_formats(result, asked.formats, required.require or Verdict.WITHIN_ROUNDING, required.accept)
    show_comparison(terminal, data, top_k=options.top_k, explain=options.explain, top=options.top)
    say(terminal, written)
    return _exit_code(terminal, result, required.require, required.accept, reduced=options.reduce is not None)


def _twice(a: Path, b: Path, told: Told, ways: Twice, options: Options) -> int:
    """One model, run in two ways."""
    from graphcheck.blaming import made_here

    if not a.samefile(b):
        how = "--optimizations-a, -b and --providers-a, -b run one model in two ways"
        raise UsageError(f"{b}: is another file, and {how}: name {a} twice")
    if told.report or told.format:
        raise UsageError("--report and --format tell of two models; of one that is run in two ways, --json does")
    places.check_targets(told.json, sources=[a])
    begin(options)
    terminal = Terminal(quiet=told.json == "-")
    with terminal.status("reading") as progress:
        result = made_here.twice(a, ways, options, progress)
    data = result.to_json() | {"command": _command(), "model": str(a)}
    written = write_result(data, told.json, None)
    show_twice(terminal, data)
    say(terminal, written)
    return result.exit_code()


def rewrite(model: Model, rewriting: Rewriting, told: Told, options: Options) -> int:
    """Rewrite patch embeddings and un-embeddings, and what options add, to one form; written only once it is proved."""
    places.check_sources(model)
    places.check_targets(told.json, told.report, sources=[model])
    places.check_targets(told.json, told.report, rewriting.out)
    out, dry_run = rewriting.out, rewriting.dry_run
    if rewriting.to == "fastest" and (rewriting.max_rank or rewriting.fold_normalization or rewriting.movement):
        raise UsageError("--max-rank, --fold-normalization and --movement go with a form, not with --to fastest")
    if out is None and not dry_run:
        raise UsageError("say where to write with --out FILE, or give --dry-run to be told only")
    if out is not None and not rewriting.force and out.exists() and out.samefile(model):
        raise UsageError(f"{out}: is the model itself; give --force to replace it")
    begin(options)
    terminal = Terminal(quiet=told.json == "-")
    proofs: list[tuple[Any, Any, Comparison]] = []
    recorded = bool(told.json or told.report)

    def prove(original: Any, rewritten: Any) -> Comparison:
        found = _compared(terminal, original, rewritten, dataclasses.replace(options, graphs=False, partners=recorded))
        proofs.append((original, rewritten, found))
        return found

    with terminal.status("measuring the forms" if rewriting.to == "fastest" else "rewriting"):
        result = _rewritten(model, rewriting, options, None if dry_run else prove)
    failed = result.verdict is Verdict.DIFFERENT or any(check.ok is False for check in result.checks)
    if failed:
        code = EXIT_DIFFERENT
    elif not result.applied and not result.moved:
        code = EXIT_UNDECIDED if rewriting.fail_if_none else EXIT_OK
    else:
        code = EXIT_OK if result.changed else EXIT_UNDECIDED
    written = out if out is not None and not dry_run and code == EXIT_OK else None
    notes = _write(result, model, written, rewriting.external_data)
    data = result.to_json() | {"output": written and str(written), "command": _command(), "versions": _versions()}
    data |= {"notes": [*data["model"]["notes"], *notes]}
    if recorded:
        timer = _timer(rewriting, options, runs=9, warm_up=1) if told.report and options.run else None
        data |= _evidence(result, proofs, timer)
    if rewriting.explain:
        data |= {"reported": _reported(result)}
    drawn = write_result(data, told.json, told.report)
    show_rewrite(terminal, data, rewriting.explain or dry_run)
    say(terminal, drawn)
    return code


def _write(result: Rewrite, model: Path, out: Path | None, external_data: str) -> list[str]:
    """Write the model, where it is to be; returns what there is to say of its data files."""
    if out is None:
        return []
    return places.write_model(result.model if result.changed else None, model, out, external_data)


def _evidence(result: Rewrite, proofs: list[Any], timer: Any) -> dict[str, Any]:
    """What a report draws before and after from; with a timer, the times of both as well."""
    from graphcheck.reporting import rewritten

    return rewritten.evidence(result, proofs, timer)


def _timer(rewriting: Rewriting, options: Options, **counts: int) -> Any:
    """Times models in onnxruntime, as the options say."""
    from graphcheck.rewriting.timing import onnxruntime_timer

    return onnxruntime_timer(
        batch=rewriting.batch,
        shapes=options.shapes,
        threads=options.threads,
        seed=options.seed,
        providers=options.providers,
        **counts,
    )


def _rewritten(model: Path, rewriting: Rewriting, options: Options, check: Any) -> Rewrite:
    from graphcheck.files.model import read
    from graphcheck.rewriting.fastest import fastest
    from graphcheck.rewriting.rewrite import rewrite as rewrite_model

    asked = {"check": check, "run": options.run, **rewriting.of(RewriteOptions).keywords()}
    if rewriting.to == "fastest":
        return fastest(read(model), _timer(rewriting, options), **asked)
    return rewrite_model(read(model), rewriting.to, **asked)


def _reported(result: Rewrite) -> list[dict[str, str]]:
    from graphcheck.rewriting.fastest import explain

    return explain(result.analysis)


def guard(
    model: Model,
    command: Annotated[
        list[str] | None,
        Argument(
            "-- COMMAND ... {in} {out}",
            "the optimizer; {in} and {out} stand for its files, {pass} for a pass of --passes-from",
        ),
    ] = None,
    *,
    guarding: Guarding,
    required: Required,
    told: Told,
    options: Options,
    rewriting: Rewriting,
) -> int:
    """Run an optimizer on a model and compare what it made with what it was given; --out keeps it only if it passes.

    With --passes, each of its passes is run alone and in the usual order, and the first that changes the function is
    named.
    """
    places.check_sources(model)
    asked = wanted(told, rewriting.out, sources=[model])
    places.check_folders(None if options.reduce is None else Path(options.reduce))
    numerics = options.numerics or ("full" if asked.drawn else "quick")
    options = dataclasses.replace(options, numerics=numerics, witness=kept.writable())
    level, out = Verdict(required.require or Verdict.WITHIN_ROUNDING), rewriting.out
    terminal = Terminal(quiet=asked.quiet)
    if guarding.passes or guarding.passes_from:
        return _guarded_by_pass(terminal, model, command or [], guarding, told, asked, options, level, out)
    from graphcheck.guarding.command import guard as guard_command

    begin(options)
    _if_late(told, options, model)
    with terminal.status("running the optimizer"):
        result = guard_command(
            model,
            command or [],
            lambda before, after: _compared(terminal, before, after, options),
            out=out,
            accept=lambda result: result.exit_code(level) == EXIT_OK,
        )
    data = result.to_json() | {"command": _command()}
    written = write_result(data, told.json, told.report)
    processes.if_ended(None)
    write_formats(result, asked.formats, level)
    show_comparison(terminal, data, top=options.top)
    say(terminal, written)
    code = _exit_code(terminal, result, required.require, reduced=options.reduce is not None)
    if out is not None:
        terminal.say(f"wrote {safe(out)}" if code == EXIT_OK else f"{safe(out)} was not written")
    return code


def blame(
    model: Model,
    tensors: Annotated[
        Path, typer.Option("--tensors", metavar="DUMP", help="what the device dumped: tensors by name", show_default=False)
    ],
    *,
    blaming: Blaming,
    told: Told,
) -> int:
    """Tell which operator of a device is wrong: each is judged on the device's own inputs to it, so that drift accuses nobody."""
    from graphcheck.blaming.blame import blamed

    places.check_sources(model)
    asked = wanted(told, sources=[model, tensors])
    places.check_folders(None if blaming.reduce is None else Path(blaming.reduce))
    begin(blaming)
    terminal = Terminal(quiet=asked.quiet)
    with terminal.status("reading") as say_status:
        result = blamed(model, tensors, dataclasses.replace(blaming, progress=say_status))
    data = result.to_json() | {"command": _command(), "model": str(model), "tensors": str(tensors)}
    if told.json or asked.drawn:
        from graphcheck.files.model import read
        from graphcheck.reporting.shapes import graph_of

        data |= {"graph": graph_of(read(model))}
    written = write_result(data, told.json, told.report)
    write_formats(data, asked.formats, Verdict.WITHIN_ROUNDING)
    show_blame(terminal, data)
    say(terminal, written)
    return result.exit_code()


def _guarded_by_pass(
    terminal: Terminal,
    model: Path,
    command: list[str],
    guarding: Guarding,
    told: Told,
    asked: Wanted,
    options: Options,
    level: Verdict,
    out: Path | None,
) -> int:
    """``guard`` with each pass of an optimizer; the limits of the options hold for each pass and each comparison."""
    from graphcheck.formats.passes import show_passes
    from graphcheck.guarding.passes import guard_passes
    from graphcheck.guarding.runners import runner_of
    from graphcheck.verdicts import compare as comparing

    running = runner_of(guarding.passes, guarding.passes_from, command, options.timeout)
    with contextlib.closing(running) as runner, terminal.status("reading") as progress:
        told_in_full = bool(told.json) or asked.drawn
        shown = dataclasses.replace(options, graphs=told_in_full, partners=told_in_full, progress=progress)
        judged = dataclasses.replace(shown, reduce=None, graphs=False, partners=False)
        result = guard_passes(
            model,
            runner,
            lambda before, after: comparing.compared(before, after, judged),
            convict=lambda before, after: comparing.compared(before, after, shown),
            begin=lambda: begin(options),
            require=level,
            out=out,
            progress=progress,
        )
    data = result.to_json(level) | {"command": _command()}
    write_json(data, told.json)
    write_formats(result.outcomes(), asked.formats, level)
    first = data["first"]
    drawn = f"no report was written: {told.report} would show the pass that changes the function" if told.report else ""
    if first and told.report:
        drawn = write_result(first["comparison"], None, told.report)
    show_passes(terminal, data)
    if first:
        show_comparison(terminal, first["comparison"], top=options.top)
        if options.reduce is None and first["comparison"].get("divergence"):
            terminal.say("next: --reduce DIR writes the two small models around it, ready for a bug report", "dim")
    say(terminal, drawn)
    if out is not None:
        terminal.say(f"wrote {safe(out)}" if data["output"] else f"{safe(out)} was not written")
    return int(data["exit_code"])


def begin(options: Options | Blaming) -> None:
    """Set the limits of a command from its options."""
    limits.begin(options.max_memory, options.timeout)


def _if_late(told: Told, options: Options, a: Path, b: Path | None = None) -> None:
    """Leave a result for the case that the time limit ends this process, where one is asked for."""
    if told.json is None:
        return
    late = ended(f"the time limit of {options.timeout:g} s was reached", "GC201", str(a), None if b is None else str(b))
    processes.if_ended(told.json, dumps(late.to_json() | {"command": _command()}))


def _compared(terminal: Terminal, a: Path, b: Path, options: Options) -> Comparison:
    from graphcheck.verdicts import compare as comparing

    with terminal.status("reading") as say:
        return comparing.compared(a, b, dataclasses.replace(options, progress=say))


def _exit_code(
    terminal: Terminal, result: Comparison, require: str | None, accept: Sequence[str] = (), *, reduced: bool
) -> int:
    """The exit code, with the next step said; tolerances may decide it, but never excuse ``different``."""
    level = Verdict(require or Verdict.WITHIN_ROUNDING)
    gate = result.evidence.get("tolerances")
    if gate is not None and result.verdict is not Verdict.DIFFERENT:
        said = "within" if gate["passed"] else "beyond" if gate["outputs"] else "not measured by"
        terminal.say(
            f"  outputs are {said} the tolerances asked for, which decide the exit code alone and not the verdict"
        )
        if not gate["passed"]:
            return EXIT_DIFFERENT if gate["outputs"] else EXIT_UNDECIDED
        if require is None:
            return EXIT_OK
    code = result.exit_code(level, accept)
    if code == EXIT_UNDECIDED:
        terminal.say(f"  reason code: {result.code}")
    if code == EXIT_OK and not result.verdict.meets(level):
        terminal.say(f"  accepted by --accept {result.code}, which decides the exit code alone and not the verdict")
    elif result.verdict is Verdict.DIFFERENT and not reduced and result.evidence.get("divergence"):
        terminal.say(
            "next: --reduce DIR writes the two small models around the first divergence, ready for a bug report", "dim"
        )
    elif result.evidence.get("hint"):
        terminal.say(f"next: {safe(result.evidence['hint'])}")
    elif result.verdict is Verdict.UNDECIDED:
        terminal.say("next: --report FILE.html shows both graphs aligned; --numerics full runs more inputs", "dim")
    elif code and result.verdict is not Verdict.DIFFERENT:
        terminal.say(f"required: {level}; established: {result.verdict}", "yellow")
    return code


def say(terminal: Terminal, text: str) -> None:
    """Print a line, where there is one."""
    if text:
        terminal.say(text)


def write_result(result: dict[str, Any], target: str | None, report: Path | None) -> str:
    """Write the JSON and the HTML report of one result; returns what there is to say of it behind the answer, or "".

    That is before the answer is printed, since a reader such as ``head`` may end the command by then.
    """
    write_json(result, target)
    if report is None:
        return ""
    from graphcheck import reporting

    reporting.write([plain(result)], report)
    return f"wrote {safe(report)}"


def _command() -> str:
    return shlex.join(["graphcheck", *sys.argv[1:]])


def _versions() -> dict[str, str]:
    from graphcheck.verdicts.record import versions

    return versions()
