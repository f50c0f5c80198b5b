"""``graphcheck sweep``: the command line of it."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from graphcheck import formats, limits, outcome
from graphcheck.command_line import Argument, fields_of
from graphcheck.errors import UsageError
from graphcheck.files import places
from graphcheck.formats.console import STYLES, Terminal
from graphcheck.formats.json import write_json
from graphcheck.options import OUT, Options, Required, RewriteOptions, Sweeping, Told, about
from graphcheck.outcome import Outcome, tally
from graphcheck.verdict import EXIT_OK, Verdict
from graphcheck.words import GLYPHS, safe, short

if TYPE_CHECKING:
    from graphcheck.sweeping.executors import Workers
    from graphcheck.sweeping.keys import Settings

SCHEMA = "graphcheck/sweep/1"
_SHOWN = 60  # rows of the table, beyond which only what needs attention is shown

Source = Annotated[
    Path,
    Argument(
        "MANIFEST|DIR", "a JSON list of pairs, a folder of graphcheck export, or with an option below a folder of models"
    ),
]


def sweep(
    source: Source, sweeping: Sweeping, rewriting: RewriteOptions, told: Told, required: Required, options: Options
) -> int:
    """Compare, guard, analyze or rewrite many models, each in a process of its own; a second run does only what is new.

    Exit code: 1 if any pair is different, else 2 if any was trouble, else 3 if any is undecided or weaker, else 0.
    """
    from graphcheck.sweeping import index
    from graphcheck.sweeping.keys import Settings
    from graphcheck.sweeping.manifest import part, read_jobs
    from graphcheck.sweeping.run import sweep as run
    from graphcheck.sweeping.store import Store

    o, do = sweeping, _what(sweeping, rewriting)
    wanted = [formats.parse_format(text) for text in o.format]
    if sum(file is None for _, file in wanted) + (told.json == "-") > 1:
        raise UsageError("only one --format, or --json -, can go to standard output: name files for the others")
    if o.out is not None and do != "rewrite":
        raise UsageError("--out is for --rewrite, which alone writes models")
    if o.merge and (o.shard or o.fresh or o.retry):
        raise UsageError("--merge tells what other sweeps found: not with --shard, --fresh or --retry")
    if o.resources and o.dask is None:
        raise UsageError("--resources are those of Dask's workers: give --dask ADDRESS too")
    places.check_targets(told.json, o.store, *(file for _, file in wanted))
    folders = (o.report, o.out, options.witness, options.reduce)
    places.check_folders(*(None if folder is None else Path(folder) for folder in folders))
    found = read_jobs(source, against=o.against, pairs=do == "compare")
    if o.shard is not None:
        found = part(found, *o.shard)
    stores = [store for path in o.merge for store in _stores(path, o.store)]
    terminal = Terminal(quiet=told.json == "-" or any(file is None for _, file in wanted))
    jobs = o.jobs or max(1, limits.cores() // 2)
    with Store(o.store) as kept, _workers(o.dask, jobs=jobs, resources=o.resources) as workers:
        for store in stores:
            kept.take(store)
        settings = Settings(
            do,
            _deciding(dataclasses.replace(options, numerics=options.numerics or "quick")),
            timeout=o.timeout,
            max_memory=o.max_memory or _share(workers, jobs),
            command=tuple(shlex.split(o.guard or "")),
            to=o.rewrite,
            rewriting={name: value for name, value in rewriting.keywords().items() if value},
            threads=1 if o.dask else max(1, limits.cores() // jobs),
            witness=str(options.witness or o.store.with_name(f"{o.store.stem}-witnesses")),
            reduce=None if options.reduce is None else str(options.reduce),
            out=None if o.out is None else str(o.out),
        )
        with terminal.progress("sweeping", len(found)) as step:
            try:
                outcomes = run(found, settings, workers, kept, fresh=o.fresh, retry=o.retry, final=bool(stores), progress=step)
            except KeyboardInterrupt:
                terminal.say(f"interrupted; what is done is in {safe(o.store)}, and the same command goes on from there")
                raise
        level = Verdict(required.require or Verdict.WITHIN_ROUNDING)
        outcomes = [each.accepting(level, required.accept) for each in outcomes]
        _show(terminal, outcomes, level)
        for file in formats.write_formats(outcomes, wanted, level, required.accept):
            terminal.say(f"wrote {safe(file)}")
        if o.report is not None:
            index.write(outcomes, o.report, level, kept.result)
            terminal.say(f"wrote {safe(o.report / 'index.html')}")
    code = outcome.exit_code(outcomes, level)
    write_json(_to_json(outcomes, settings, level, code), told.json)
    return code


def _deciding(options: Options) -> dict[str, Any]:
    """Those options of a sweep that decide about an answer: all but where something is written."""
    return {f.name: getattr(options, f.name) for f in fields_of(Options, "sweep") if about(f).panel != OUT}


def _what(o: Sweeping, rewriting: RewriteOptions) -> str:
    given = {"--against": o.against is not None, "--guard": o.guard is not None, "--analyze": o.analyze}
    guard, rewrite = o.guard, o.rewrite
    named = [name for name, on in (given | {"--rewrite": rewrite is not None}).items() if on]
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)} exclude each other")
    if rewrite is not None:
        from graphcheck.rewriting.rewrite import check_forms

        check_forms(rewrite, rewriting)
    elif asked := [about(field).names[-1] for field in dataclasses.fields(rewriting) if getattr(rewriting, field.name)]:
        raise UsageError(f"{asked[0]} goes with --rewrite FORM")
    if guard is not None:
        words = shlex.split(guard)
        for placeholder in ("{in}", "{out}"):
            if not any(placeholder in word for word in words):
                raise UsageError(f"--guard must name {placeholder}, as in --guard 'onnxsim {{in}} {{out}}'")
    return (named[0] if named else "--compare").removeprefix("--").replace("against", "compare")


def _stores(path: Path, own: Path) -> list[Path]:
    """The store at a path, or those below a folder, without the sweep's own."""
    if not path.is_dir():
        return [path]
    found = sorted(each for each in path.rglob("*.sqlite") if each.is_file() and each.resolve() != own.resolve())
    if not found:
        raise UsageError(f"--merge {path}: there is no store (*.sqlite) below this folder")
    return found


@contextlib.contextmanager
def _workers(address: str | None, *, jobs: int, resources: Mapping[str, float]) -> Any:
    from graphcheck.sweeping.executors import Local, OnDask

    workers = Local(jobs) if address is None else OnDask(address, resources=resources)
    try:
        yield workers
    finally:
        workers.close()


def _share(workers: Workers, jobs: int) -> int:
    """The memory of one job: its share of the machine."""
    from graphcheck.sweeping.executors import OnDask

    if isinstance(workers, OnDask) and (share := workers.memory()):
        return share
    return limits.default_memory() // jobs


def _show(terminal: Terminal, outcomes: Sequence[Outcome], level: Verdict) -> None:
    terminal.say(f"{len(outcomes)} done: {tally(outcomes)}", "bold")
    wanting = [outcome for outcome in outcomes if outcome.exit_code(level) != EXIT_OK or outcome.accepted]
    rows = outcomes if len(outcomes) <= _SHOWN else wanting
    table = [
        (
            (f"{GLYPHS.get(row.status, '!' if row.failure else '-')} {row.status}", STYLES.get(row.status, "")),
            short(row.name, 60),
            f"{row.seconds:.1f}",
            f"{row.memory / 2**20:.0f}",
            short(f"{row.family}: {row.reason}" if row.family and row in wanting else row.reason, 100),
        )
        for row in rows
    ]
    terminal.table(("verdict", "what", "s", "MiB", "why"), table)
    if accepted := sum(outcome.accepted for outcome in wanting):
        terminal.say(f"  {accepted} accepted by --accept, which decides the exit code alone and not the verdict")
    known = [outcome for outcome in outcomes if outcome.known]
    failed = sum(outcome.failure is not None for outcome in known)
    if known:
        again = f", {failed} of them failures (--retry tries them again)" if failed else ""
        terminal.say(f"  {len(known)} were known from an earlier sweep{again}", "dim")


def _to_json(outcomes: Sequence[Outcome], settings: Settings, level: Verdict, code: int) -> dict[str, Any]:
    """The plain data of ``--json``; the whole results are in the store."""
    done: dict[str, Any] = {"do": settings.do, "command": list(settings.command), "to": settings.to}
    done |= {"rewriting": dict(settings.rewriting), "options": dict(settings.options)}
    limits = {"timeout": settings.timeout, "max_memory": settings.max_memory}
    rows = [outcome.to_json() for outcome in outcomes]
    return {"schema": SCHEMA, "exit_code": code, "require": str(level), **done, **limits, "results": rows}
