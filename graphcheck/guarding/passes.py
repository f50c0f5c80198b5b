"""An optimizer pass by pass: each alone on the model, then each on what those before it made, compared after each step.

A step is compared with what the pass was given, so that each is judged by itself. What is not established is left out
of what follows: the passes behind it go on from the model before it.
"""

from __future__ import annotations

import dataclasses
import gc
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphcheck.errors import GraphcheckError, ModelError, Undecided
from graphcheck.files import model as model_
from graphcheck.files import places
from graphcheck.formats.json import renamed
from graphcheck.guarding.command import copy_files
from graphcheck.guarding.runners import Runner
from graphcheck.outcome import TROUBLE, Outcome
from graphcheck.verdict import EXIT_DIFFERENT, EXIT_OK, EXIT_TROUBLE, EXIT_UNDECIDED, Comparison, Verdict

SCHEMA = "graphcheck/passes/1"
BARE = "(no pass)"  # what a tool does to every model
Check = Callable[[Path, Path], Comparison]


@dataclasses.dataclass(frozen=True)
class Step:
    """What a pass made of what it was given: a verdict, or ``trouble`` where it failed or wrote no valid model.

    ``nodes`` are counted before and after, ``seconds`` are those of the pass, without the comparison. ``changes`` says
    whether it wrote another graph than was given to it, and another file than the tool writes without any pass.
    """

    verdict: str
    reason: str
    seconds: float = 0.0
    nodes: tuple[int, int] | None = None
    changes: bool = True

    def exit_code(self, require: Verdict) -> int:
        """The exit code that this step alone would give."""
        if self.verdict == TROUBLE:
            return EXIT_TROUBLE
        if self.verdict == Verdict.DIFFERENT:
            return EXIT_DIFFERENT
        return EXIT_OK if Verdict(self.verdict).meets(require) else EXIT_UNDECIDED


@dataclasses.dataclass(frozen=True)
class Row:
    """A pass: ``alone`` on the model, and ``in_order`` on what the passes before it made."""

    name: str
    alone: Step
    in_order: Step

    def steps(self) -> dict[str, Step]:
        """Both, by what they are called."""
        return {"alone": self.alone, "in order": self.in_order}


@dataclasses.dataclass(frozen=True)
class Culprit:
    """The first pass that changes the function: ``how`` it was run, ``behind`` which passes, and the comparison."""

    name: str
    how: str
    behind: tuple[str, ...]
    comparison: Comparison


@dataclasses.dataclass(frozen=True)
class Guarded:
    """What became of a model: a row for each pass in the usual order, the ``first`` that changes the function.

    ``kept`` compares the model with what all passes made that were established, one behind the other, and ``whole``
    with what the tool makes as people call it; ``written`` is where the former went.
    """

    tool: str
    model: Path
    rows: tuple[Row, ...]
    first: Culprit | None
    kept: Step
    whole: Step | None
    written: Path | None = None

    def steps(self) -> list[Step]:
        """All that was judged."""
        rows = [step for row in self.rows for step in row.steps().values()]
        return [*rows, self.kept, *([self.whole] if self.whole is not None else [])]

    def exit_code(self, require: Verdict) -> int:
        """1 if any step is different, else 2 if any was trouble, else 3 if any is weaker than required, else 0."""
        codes = {step.exit_code(require) for step in self.steps()}
        return next((code for code in (EXIT_DIFFERENT, EXIT_TROUBLE, EXIT_UNDECIDED) if code in codes), EXIT_OK)

    def outcomes(self) -> list[Outcome]:
        """One for each pass, alone and in order."""
        steps = [(f"{row.name} {how}", step) for row in self.rows for how, step in row.steps().items()]
        return [Outcome(name, step.verdict, step.reason, a=str(self.model), seconds=step.seconds) for name, step in steps]

    def to_json(self, require: Verdict) -> dict[str, Any]:
        """The plain data of ``--json``."""
        first = self.first and {
            "pass": self.first.name,
            "how": self.first.how,
            "behind": list(self.first.behind),
            "comparison": self.first.comparison.to_json(),
        }
        return {
            "schema": SCHEMA,
            "tool": self.tool,
            "model": str(self.model),
            "require": str(require),
            "exit_code": self.exit_code(require),
            "passes": [
                {"pass": row.name, "alone": dataclasses.asdict(row.alone), "in_order": dataclasses.asdict(row.in_order)}
                for row in self.rows
            ],
            "first": first,
            "kept": dataclasses.asdict(self.kept),
            "whole": self.whole and dataclasses.asdict(self.whole),
            "output": self.written and str(self.written),
        }


def guard_passes(
    model: Path,
    runner: Runner,
    check: Check,
    *,
    convict: Check,
    begin: Callable[[], None] = lambda: None,
    require: Verdict = Verdict.WITHIN_ROUNDING,
    out: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Guarded:
    """Every pass of ``runner`` on ``model``, judged by ``check``; ``convict`` compares the first culprit again, in full.

    ``begin`` is called before each pass and each comparison, whose time starts there, and ``progress`` for each pass.
    With ``out``, what all established passes made goes there if it is established too. Raises GraphcheckError for a
    model that cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="graphcheck-") as folder:
        copy_files(model, Path(folder, "in"))
        bench = _Bench(runner, check, begin, Path(folder), Path(folder, "in", model.name))
        bare = [BARE] if runner.bare else []
        state, rows = bench.source, []
        behind: list[str] = []
        first: tuple[str, str, tuple[str, ...], Path, Path] | None = None
        for name in (*bare, *runner.usual):
            progress(name)
            alone, made_alone = bench.step(name, bench.source)
            step, made = bench.step(name, state)
            rows.append(Row(name, alone, step))
            if first is None and step.verdict == Verdict.DIFFERENT and made is not None:
                first = (name, "in order", tuple(behind), state, made)
            elif first is None and alone.verdict == Verdict.DIFFERENT and made_alone is not None:
                first = (name, "alone", (), bench.source, made_alone)
            if made is not None and step.exit_code(require) == EXIT_OK:
                state = made
                behind += [name] if step.changes else []
        kept = bench.judged(bench.source, state)
        whole = bench.step(None, bench.source)[0] if runner.whole else None
        written = out if out is not None and kept.exit_code(require) == EXIT_OK else None
        if written is not None:
            places.copy_model(state, written)
        begin()
        culprit = first and Culprit(*first[:3], _named(first, convict(*first[3:]), model))
        return Guarded(runner.title, model, tuple(rows), culprit, kept, whole, written)


def _named(first: tuple[str, str, tuple[str, ...], Path, Path], result: Comparison, model: Path) -> Comparison:
    """The comparison with its files called by what they were: they are gone by the time that it is read."""
    name, _, behind, source, target = first
    a = f"{model} behind {', '.join(behind)}" if behind else str(model)
    sides = {
        side: (result.evidence.get(side) or {}) | {"path": path} for side, path in (("a", a), ("b", f"{{{name}}}"))
    }
    if result.evidence.get("witness"):
        sides["witness"] = result.evidence["witness"] | {"replay": None}
    names = {str(source): a, str(target): f"{{{name}}}"}
    evidence = renamed(result.evidence | sides, names)
    return dataclasses.replace(result, reason=renamed(result.reason, names), evidence=evidence)


class _Bench:
    """Passes run and pairs compared, each pass on a file and each pair of files once."""

    def __init__(self, runner: Runner, check: Check, begin: Callable[[], None], folder: Path, source: Path) -> None:
        self.runner, self.check, self.begin, self.folder, self.source = runner, check, begin, folder, source
        self.files: dict[Path, tuple[str, int]] = {}  # the digest and the number of nodes of each
        self.steps: dict[tuple[str | None, str], tuple[Step, Path | None]] = {}
        self.pairs: dict[tuple[str, str], Step] = {}
        self.made = 0
        self.bare: str | None = None  # the digest of what the tool writes without any pass

    def step(self, name: str | None, source: Path) -> tuple[Step, Path | None]:
        """What the pass makes of a file, and where that is; None: nowhere. Without a name, what the whole tool makes."""
        key = (name, self.digest(source))
        if key not in self.steps:
            self.steps[key] = self._step(name, source)
        return self.steps[key]

    def _step(self, name: str | None, source: Path) -> tuple[Step, Path | None]:
        self.made += 1
        target = self.folder / str(self.made) / self.source.name
        target.parent.mkdir()
        passes = None if name is None else [] if name == BARE else [name]
        self.begin()
        try:
            seconds = self.runner.run(passes, source, target)
            digest = self.digest(target)
        except ModelError as error:
            return Step(TROUBLE, f"what it wrote {error.cause}"), None
        except GraphcheckError as error:
            return Step(TROUBLE, renamed(str(error), {str(source): "{in}", str(target): "{out}"})), None
        if name == BARE and source == self.source:
            self.bare = digest
        judged = self.judged(source, target)
        known = (self.digest(source), None if name == BARE else self.bare)
        changes = judged.verdict != Verdict.IDENTICAL and digest not in known
        nodes = (self.look(source)[1], self.look(target)[1])
        step = dataclasses.replace(judged, seconds=seconds, nodes=nodes, changes=changes)
        return step, None if step.verdict == TROUBLE else target

    def judged(self, source: Path, target: Path) -> Step:
        """The comparison of two files."""
        key = (self.digest(source), self.digest(target))
        if key[0] == key[1]:
            return Step(str(Verdict.IDENTICAL), "the same bytes", changes=False)
        if key not in self.pairs:
            self.pairs[key] = self._compared(source, target)
        return self.pairs[key]

    def _compared(self, source: Path, target: Path) -> Step:
        gc.collect()  # the graphs of the pair before
        self.begin()
        try:
            result = self.check(source, target)
        except ModelError as error:
            if error.path != str(target):
                raise
            return Step(TROUBLE, f"what it wrote {error.cause}")
        except Undecided as error:
            return Step(str(Verdict.UNDECIDED), str(error))
        return Step(str(result.verdict), renamed(result.reason, {str(source): "{in}", str(target): "{out}"}))

    def digest(self, path: Path) -> str:
        return self.look(path)[0]

    def look(self, path: Path) -> tuple[str, int]:
        """The digest of a model with its external data, and the number of its nodes; raises ModelError."""
        if path not in self.files:
            content = "".join(model_.file_digest(file) for file, _ in places.files_of(path))
            self.files[path] = content, sum(1 for _ in model_.all_nodes(model_.read(path)))
        return self.files[path]
