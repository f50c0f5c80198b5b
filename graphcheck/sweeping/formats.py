"""Results for other tools: JUnit XML, SARIF 2.1.0, GitHub annotations, and GitHub's step summary."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from graphcheck.errors import UsageError
from graphcheck.sweeping import outcome as outcome_
from graphcheck.sweeping.outcome import Outcome
from graphcheck.sweeping.sarif import sarif
from graphcheck.verdict import EXIT_DIFFERENT, EXIT_OK, EXIT_TROUBLE, EXIT_UNDECIDED, Comparison, Verdict
from graphcheck.words import GLYPHS, safe, short

KINDS = ("junit", "sarif", "github", "summary")
_ANNOTATIONS = 10  # that GitHub shows of a step, of each kind
_SUMMARY_BYTES = 1_000_000  # GitHub takes 1 MiB of a step, and shows nothing of more
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Result = Outcome | Comparison | Mapping[str, Any]


def format_results(
    results: Result | Iterable[Result], kind: str, require: Verdict | str = Verdict.WITHIN_ROUNDING
) -> str:
    """The results as text of ``kind``: ``junit``, ``sarif``, ``github`` (annotations) or ``summary`` (Markdown).

    ``results`` are outcomes of a sweep, comparisons or their JSON; one, or many. What is weaker than ``require`` counts
    as undecided; only ``different`` and what meets ``require`` are answers. Raises UsageError for another kind.
    """
    if kind not in KINDS:
        raise UsageError(f"there is no format {kind!r}; the formats are {', '.join(KINDS)}")
    many = [results] if isinstance(results, Outcome | Comparison | Mapping) else list(results)
    outcomes = [outcome_.of(result) for result in many]
    return _WRITERS[kind](outcomes, Verdict(require))


def parse_format(text: str) -> tuple[str, Path | None]:
    """(kind, file) of ``--format KIND[=FILE]``; raises UsageError."""
    kind, _, file = text.partition("=")
    if kind not in KINDS or (_ and not file):
        raise UsageError(f"--format takes {', '.join(KINDS)}, each as KIND or KIND=FILE, not {text!r}")
    return kind, Path(file) if file else None


def write_formats(
    results: Result | Iterable[Result], wanted: Iterable[tuple[str, Path | None]], require: Verdict | str
) -> list[Path]:
    """Write each (kind, file) of ``parse_format``, None being standard output; returns the files.

    With ``github``, the summary is added to $GITHUB_STEP_SUMMARY, where there is one.
    """
    from graphcheck.files.atomic import write_bytes

    many = [results] if isinstance(results, Outcome | Comparison | Mapping) else list(results)
    files = []
    for kind, file in wanted:
        text = format_results(many, kind, require)
        if file is None:
            print(text, end="", flush=True)
        else:
            write_bytes(text.encode(errors="replace"), file)
            files.append(file)
        if kind == "github" and os.environ.get("GITHUB_STEP_SUMMARY"):
            add_step_summary(many, require, os.environ["GITHUB_STEP_SUMMARY"])
    return files


def add_step_summary(results: Result | Iterable[Result], require: Verdict | str, file: str | Path) -> None:
    """Append the Markdown summary to ``file`` ($GITHUB_STEP_SUMMARY), as far as it fits beside what is there."""
    text = format_results(results, "summary", require)
    path = Path(file)
    taken = path.stat().st_size if path.exists() else 0
    if taken + len(text.encode()) <= _SUMMARY_BYTES:
        with path.open("a", encoding="utf-8") as out:
            out.write(text)


# -- JUnit ---------------------------------------------------------------------------------------------------------


def _junit(outcomes: Sequence[Outcome], require: Verdict) -> str:
    """Every result is a test case: different is a failure, so is undecided (never a skip), trouble is an error."""
    codes = [o.exit_code(require) for o in outcomes]
    counts = {
        "tests": str(len(outcomes)),
        "failures": str(sum(code not in (EXIT_OK, EXIT_TROUBLE) for code in codes)),
        "errors": str(codes.count(EXIT_TROUBLE)),
        "time": f"{sum(o.seconds for o in outcomes):.3f}",
    }
    root = ElementTree.Element("testsuites", {"name": "graphcheck", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": "graphcheck", "skipped": "0", **counts})
    for o, code in zip(outcomes, codes, strict=True):
        attributes = {"classname": "graphcheck", "name": _xml(o.name), "time": f"{o.seconds:.3f}"}
        case = ElementTree.SubElement(suite, "testcase", attributes)
        if code != EXIT_OK:
            tag = "error" if code == EXIT_TROUBLE else "failure"
            found = ElementTree.SubElement(case, tag, {"type": o.failure or o.status, "message": _xml(o.reason)})
            found.text = _xml(_details(o, require))
        else:
            ElementTree.SubElement(case, "system-out").text = _xml(f"{o.status}: {o.reason}")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", "\n".join(safe(line) for line in text.split("\n")))


def _details(o: Outcome, require: Verdict) -> str:
    """All that one needs to look further, one fact on a line."""
    required = f" (required: {require})" if o.exit_code(require) == EXIT_UNDECIDED else ""
    lines = [f"{o.status}: {o.reason}{required}"]
    lines += [f"{side}: {path}" for side, path in (("A", o.a), ("B", o.b)) if path]
    result = o.result or {}
    for side in "ba":
        if place := (result.get("divergence") or {}).get(side):
            lines.append(f"first divergence in {side.upper()}: {place['op_type']} {place['node']} ({place['tensor']})")
    if (result.get("witness") or {}).get("replay"):
        lines.append(f"replay: {result['witness']['replay']}")
    return "\n".join(lines)


# -- GitHub --------------------------------------------------------------------------------------------------------


def _github(outcomes: Sequence[Outcome], require: Verdict) -> str:
    """Workflow commands, at most ten errors and ten warnings; the last of each then counts those left out."""
    levels: dict[str, list[str]] = {"error": [], "warning": []}
    for o in outcomes:
        code = o.exit_code(require)
        if code != EXIT_OK:
            level = "error" if code in (EXIT_DIFFERENT, EXIT_TROUBLE) else "warning"
            title = _property(f"graphcheck: {o.status}: {short(o.name)}")
            # No file is named: an annotation on a model in the diff would need a line, and models have none.
            levels[level].append(f"::{level} title={title}::{_data(_details(o, require))}")
    lines = []
    for level, found in levels.items():
        over = len(found) - _ANNOTATIONS
        lines += found if over <= 0 else found[: _ANNOTATIONS - 1]
        if over > 0:
            more = f"{over + 1} more like these; the step summary lists all"
            lines.append(f"::{level} title=graphcheck::{_data(more)}")
    lines.append(f"graphcheck: {_tally(outcomes)}")
    return "\n".join(lines) + "\n"


def _data(text: str) -> str:
    text = "\n".join(safe(line) for line in text.split("\n"))
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _tally(outcomes: Sequence[Outcome]) -> str:
    counts = Counter(o.status for o in outcomes)
    return ", ".join(f"{count} {status}" for status, count in counts.most_common()) or "no results"


def _summary(outcomes: Sequence[Outcome], require: Verdict) -> str:
    """A Markdown table, what needs attention first, within GitHub's limit."""
    head = [f"### graphcheck: {_tally(outcomes)}", "", "| | verdict | what | why | s |", "|---|---|---|---|---:|"]
    order = {EXIT_DIFFERENT: 0, EXIT_TROUBLE: 1, EXIT_OK: 3}
    rows = [
        f"| {GLYPHS.get(o.status, '!' if o.failure else '')} | {_cell(o.status, 40)} | {_cell(o.name, 120)} "
        f"| {_cell(o.reason, 400)} | {o.seconds:.1f} |"
        for o in sorted(outcomes, key=lambda o: order.get(o.exit_code(require), 2))
    ]
    size, kept = sum(len(line.encode()) + 1 for line in head) + 100, 0
    while kept < len(rows) and size + len(rows[kept].encode()) + 1 <= _SUMMARY_BYTES:
        size += len(rows[kept].encode()) + 1
        kept += 1
    left = [f"| | | {len(rows) - kept} more that do not fit here | | |"] if kept < len(rows) else []
    return "\n".join([*head, *rows[:kept], *left, ""]) + "\n"


def _cell(text: str, limit: int) -> str:
    """Text that Markdown and HTML take as it is: every sign that could mean something is an entity or escaped."""
    text = short(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]()#|!~@:])", lambda m: f"&#{ord(m[1])};", text)


_WRITERS = {"junit": _junit, "sarif": sarif, "github": _github, "summary": _summary}
