"""A blame on the terminal: the verdict, the convicted operators, what is suspect, and what was not judged."""

from __future__ import annotations

from typing import Any

from graphcheck.formats.console import Terminal
from graphcheck.words import number, plural, safe, short

_FEW = 8


def show_blame(terminal: Terminal, result: dict[str, Any]) -> None:
    """The answer of ``blame``."""
    terminal.verdict(result["verdict"], result["reason"])
    for note in result["notes"]:
        terminal.say(f"  {safe(note)}", "dim")
    if result["precision"]:
        guessed = " and ".join(result["guessed"])
        how = f" ({guessed} guessed: --precision and --accumulate say otherwise)" if guessed else ""
        terminal.say(f"  stored in {result['precision']}, sums in {result['accumulate']}{how}", "dim")
    _show_rows(terminal, result["convicted"], "convicted")
    for row in result["convicted"][:_FEW]:
        if row["looks_like"]:
            like = row["looks_like"]
            left = f"which leaves {number(like['ratio'])} of what rounding explains"
            terminal.say(f"  {short(row['output'])} looks like: {safe(like['name'])}, {left}")
        if row["dump_next"]:
            names = ", ".join(short(name) for name in row["dump_next"])
            terminal.say(f"  to narrow {short(row['output'])} down ({plural(len(row['region']), 'node')}), dump {names} as well")
    _show_rows(terminal, result["suspect"], "suspect")
    _show_unjudged(terminal, result)
    for piece in result["reduced"] or ():
        at = f"{safe(piece['folder'])} ({piece['reason']})" if piece["folder"] else f"not cut out: {safe(piece['reason'])}"
        terminal.say(f"  {short(piece['node'])}: {at}")
    if result["convicted"] and result["reduced"] is None:
        terminal.say("next: --reduce DIR cuts each convicted operator out, ready for a bug report", "dim")


def show_twice(terminal: Terminal, result: dict[str, Any]) -> None:
    """The answer of ``compare`` where one model was run in two ways."""
    terminal.verdict(result["verdict"], result["reason"])
    for side in "ab":
        told = result[side]
        how = f"optimizations {told['optimizations']} on {', '.join(told['providers'])}"
        terminal.say(f"  {side.upper()}: {how}: {told['verdict']}, {plural(told['checked'], 'tensor')} judged", "dim")
        _show_rows(terminal, told["convicted"], f"convicted in {side.upper()}")
        _show_rows(terminal, told["suspect"], f"suspect in {side.upper()}")


def _show_rows(terminal: Terminal, rows: list[dict[str, Any]], word: str) -> None:
    """A table of tensors."""
    head = (word, "operator", "node", "off by", "explained", "ratio", "at")
    body = [
        (
            short(row["output"], 32),
            row["op_type"],
            short(row["node"], 32),
            _size(row["deviation"]),
            number(row["bound"]),
            _size(row["ratio"]),
            ",".join(map(str, row["where"])) or "-",
        )
        for row in rows[:_FEW]
    ]
    terminal.table(head, body)
    if len(rows) > _FEW:
        terminal.say(f"  and {number(len(rows) - _FEW)} more")


def _show_unjudged(terminal: Terminal, result: dict[str, Any]) -> None:
    """What was not judged, the reasons that are most frequent first."""
    count: dict[str, list[str]] = {}
    for row in result["skipped"]:
        count.setdefault(row["reason"], []).append(row["output"])
    for reason, names in sorted(count.items(), key=lambda pair: -len(pair[1]))[:3]:
        terminal.say(f"  {plural(len(names), 'tensor')} not judged ({short(names[0], 32)}): {safe(reason)}", "dim")
    if names := result["unmatched"]:
        some = ", ".join(short(name, 32) for name in names[:3])
        terminal.say(f"  {plural(len(names), 'tensor')} of the dump without a place in the model: {some}", "dim")


def _size(value: Any) -> str:
    return "not finite" if value is None or value != value or value in (float("inf"), float("-inf")) else number(value)
