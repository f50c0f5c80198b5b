"""``graphcheck sweep``: the command line of it."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphcheck import command_line as o
from graphcheck import limits, output
from graphcheck.errors import UsageError
from graphcheck.terminal import GLYPHS, STYLES, Terminal, safe, short
from graphcheck.verdict import EXIT_OK, Verdict

if TYPE_CHECKING:
    from graphcheck.sweeping.executors import Workers
    from graphcheck.sweeping.keys import Settings
    from graphcheck.sweeping.outcome import Outcome

SCHEMA = "graphcheck/sweep/1"
_WHAT, _HOW, _OUT = "What is done", "How it is run", "What is written"
_SHOWN = 60  # rows of the table, beyond which only what needs attention is shown


def _opt(*names: str, help: str, panel: str, metavar: str = "", least: int | None = None) -> Any:
    # without a metavar, a flag: --help would say that it takes a <bool>
    return typer.Option(*names, help=help, rich_help_panel=panel, metavar=metavar, min=least, show_default=False)


Source = Annotated[
    Path,
    typer.Argument(
        metavar="MANIFEST|DIR",
        help="a JSON list of pairs, a folder of graphcheck export, or with an option below a folder of models",
        show_default=False,
    ),
]
Against = Annotated[
    Path | None, _opt("--against", metavar="DIR", help="each model and its namesake there", panel=_WHAT)
]
Guard = Annotated[
    str | None,
    _opt(
        "--guard", metavar="COMMAND", help='each model and what an optimizer, "onnxsim {in} {out}", makes', panel=_WHAT
    ),
]
Analyze = Annotated[bool, _opt("--analyze", help="analyze each model", panel=_WHAT)]
To = Annotated[str | None, _opt("--rewrite", metavar="FORM", help="rewrite each model to this form", panel=_WHAT)]
Jobs = Annotated[
    int, _opt("--jobs", metavar="N", least=0, help="processes at once (default: half the cores)", panel=_HOW)
]
Dask = Annotated[
    str | None, _opt("--dask", metavar="ADDRESS", help="run on the workers of this Dask scheduler", panel=_HOW)
]
Timeout = Annotated[float, _opt("--timeout", metavar="SECONDS", help="for each (default: 300)", panel=_HOW)]
Memory = Annotated[
    str | None,
    _opt(
        "--max-memory", metavar="SIZE", help="for each, as 4G or 500M (default: its share of the machine)", panel=_HOW
    ),
]
StoreFile = Annotated[
    Path, _opt("--store", metavar="FILE", help="keeps results (default: graphcheck-sweep.sqlite)", panel=_OUT)
]
Fresh = Annotated[bool, _opt("--fresh", help="do all anew, whatever the store knows", panel=_HOW)]
Retry = Annotated[bool, _opt("--retry", help="try failures again that the store knows", panel=_HOW)]
Format = Annotated[
    list[str] | None,
    _opt(
        "--format",
        metavar="KIND[=FILE]",
        help="junit, sarif, github or summary, to FILE or standard output; repeatable",
        panel=_OUT,
    ),
]
Report = Annotated[
    Path | None, _opt("--report", metavar="DIR", help="write an HTML index and a page for each", panel=_OUT)
]
OutDir = Annotated[Path | None, _opt("--out", metavar="DIR", help="where rewritten models go", panel=_OUT)]


def sweep(
    source: Source,
    against: Against = None,
    guard: Guard = None,
    analyze: Analyze = False,
    rewrite: To = None,
    require: o.Require = None,
    val_range: o.Range = None,
    ignore_output: o.Ignore = None,
    seed: o.Seed = 0,
    no_run: o.NoRun = False,
    numerics: o.Numerics = None,
    error_probability: o.ErrorProbability = 1e-9,
    jobs: Jobs = 0,
    dask: Dask = None,
    timeout: Timeout = 300.0,
    max_memory: Memory = None,
    store: StoreFile = Path("graphcheck-sweep.sqlite"),
    fresh: Fresh = False,
    retry: Retry = False,
    format: Format = None,
    json: o.Json = None,
    report: Report = None,
    out: OutDir = None,
    reduce: o.Reduce = None,
    witness: o.Witness = None,
) -> int:
    """Compare, guard, analyze or rewrite many models, each in a process of its own; a second run does only what is new.

    Exit code: 1 if any pair is different, else 2 if any was trouble, else 3 if any is undecided or weaker, else 0.
    """
    from graphcheck.sweeping import formats, index, outcome
    from graphcheck.sweeping.keys import Settings
    from graphcheck.sweeping.manifest import read_jobs
    from graphcheck.sweeping.run import sweep as run
    from graphcheck.sweeping.store import Store

    do = _what(against, guard, analyze, rewrite)
    wanted = [formats.parse_format(text) for text in format or ()]
    if sum(file is None for _, file in wanted) + (json == "-") > 1:
        raise UsageError("only one --format, or --json -, can go to standard output: name files for the others")
    if timeout <= 0:
        raise UsageError(f"--timeout takes seconds above 0, not {timeout:g}")
    if out is not None and do != "rewrite":
        raise UsageError("--out is for --rewrite, which alone writes models")
    output.check_targets(json, store, *(file for _, file in wanted))
    output.check_folders(report, out, witness, reduce)
    options = {
        "ranges": _ranges(val_range or ()),
        "ignore_outputs": list(ignore_output or ()),
        "seed": seed,
        "run": not no_run,
        "numerics": numerics or "quick",
        "error_probability": error_probability,
    }
    found = read_jobs(source, against=against, pairs=do == "compare")
    terminal = Terminal(quiet=json == "-" or any(file is None for _, file in wanted))
    jobs = jobs or max(1, cores() // 2)
    with Store(store) as kept, _workers(dask, jobs) as workers:
        settings = Settings(
            do,
            options,
            timeout,
            _memory(max_memory, workers, jobs),
            command=tuple(shlex.split(guard or "")),
            to=rewrite,
            threads=1 if dask else max(1, cores() // jobs),
            witness=str(witness or store.with_name(f"{store.stem}-witnesses")),
            reduce=None if reduce is None else str(reduce),
            out=None if out is None else str(out),
        )
        with terminal.progress("sweeping", len(found)) as step:
            try:
                outcomes = run(found, settings, workers, kept, fresh=fresh, retry=retry, progress=step)
            except KeyboardInterrupt:
                terminal.say(f"interrupted; what is done is in {safe(store)}, and the same command goes on from there")
                raise
        level = Verdict(require or Verdict.WITHIN_ROUNDING)
        _show(terminal, outcomes, level)
        for file in formats.write_formats(outcomes, wanted, level):
            terminal.say(f"wrote {safe(file)}")
        if report is not None:
            index.write(outcomes, report, level, kept.result)
            terminal.say(f"wrote {safe(report / 'index.html')}")
    code = outcome.exit_code(outcomes, level)
    output.write_json(_to_json(outcomes, settings, level, code), json)
    return code


def _what(against: Path | None, guard: str | None, analyze: bool, rewrite: str | None) -> str:
    given = {"--against": against is not None, "--guard": guard is not None, "--analyze": analyze}
    named = [name for name, on in (given | {"--rewrite": rewrite is not None}).items() if on]
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)} exclude each other")
    if rewrite is not None:
        from graphcheck.rewriting.forms import FORMS

        if rewrite not in FORMS:
            raise UsageError(f"there is no form {rewrite!r}; the forms are {', '.join(FORMS)}")
    if guard is not None:
        words = shlex.split(guard)
        for placeholder in ("{in}", "{out}"):
            if not any(placeholder in word for word in words):
                raise UsageError(f"--guard must name {placeholder}, as in --guard 'onnxsim {{in}} {{out}}'")
    return (named[0] if named else "--compare").removeprefix("--").replace("against", "compare")


@contextlib.contextmanager
def _workers(address: str | None, jobs: int) -> Any:
    from graphcheck.sweeping.executors import Local, OnDask

    workers = Local(jobs) if address is None else OnDask(address)
    try:
        yield workers
    finally:
        workers.close()


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ranges(texts: Sequence[str]) -> dict[str, list[float]]:
    if not texts:
        return {}
    from graphcheck.interface.inputs import parse_range

    return {name: [low, high] for name, low, high in map(parse_range, texts)}


def _memory(given: str | None, workers: Workers, jobs: int) -> int:
    from graphcheck.sweeping.executors import OnDask

    if given is not None:
        return limits.parse_size(given)
    if isinstance(workers, OnDask) and (share := workers.memory()):
        return share
    return limits.default_memory() // jobs


def _show(terminal: Terminal, outcomes: Sequence[Outcome], level: Verdict) -> None:
    counts = Counter(outcome.status for outcome in outcomes)
    terminal.say(f"{len(outcomes)} done: " + ", ".join(f"{n} {status}" for status, n in counts.most_common()), "bold")
    rows = [outcome for outcome in outcomes if len(outcomes) <= _SHOWN or outcome.exit_code(level) != EXIT_OK]
    table = [
        (
            (f"{GLYPHS.get(row.status, '!' if row.failure else '-')} {row.status}", STYLES.get(row.status, "")),
            short(row.name, 60),
            f"{row.seconds:.1f}",
            f"{row.memory / 2**20:.0f}",
            short(row.reason, 100),
        )
        for row in rows
    ]
    terminal.table(("verdict", "what", "s", "MiB", "why"), table)
    known = [outcome for outcome in outcomes if outcome.known]
    failed = sum(outcome.failure is not None for outcome in known)
    if known:
        again = f", {failed} of them failures (--retry tries them again)" if failed else ""
        terminal.say(f"  {len(known)} were known from an earlier sweep{again}", "dim")


def _to_json(outcomes: Sequence[Outcome], settings: Settings, level: Verdict, code: int) -> dict[str, Any]:
    """The plain data of ``--json``; the whole results are in the store."""
    done = {"do": settings.do, "command": list(settings.command), "to": settings.to, "options": dict(settings.options)}
    limits = {"timeout": settings.timeout, "max_memory": settings.max_memory}
    rows = [outcome.to_json() for outcome in outcomes]
    return {"schema": SCHEMA, "exit_code": code, "require": str(level), **done, **limits, "results": rows}
