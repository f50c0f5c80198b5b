"""What ``guard --passes`` says on the terminal: which pass changes the function first, and a row for each that did something."""

from __future__ import annotations

from typing import Any

from graphcheck.formats.console import STYLES, Cell, Terminal
from graphcheck.words import GLYPHS, safe, short

_SHOWN = 40  # rows
_HOW = ("alone", "in_order")
_GOOD = ("identical", "proved", "within-rounding")


def show_passes(terminal: Terminal, data: dict[str, Any]) -> None:
    """The answer, from the plain data of ``--json``."""
    rows, first = data["passes"], data["first"]
    done = f"{safe(data['tool'])}: {_passes(len(rows))} on {safe(data['model'])}"
    wrong = [row["pass"] for row in rows if any(row[how]["verdict"] not in _GOOD for how in _HOW)]
    if first:
        how = "in the usual order" if first["how"] == "in order" else "alone"
        behind = f", behind {', '.join(map(safe, first['behind']))}" if first["behind"] else ""
        terminal.say(f"{done}: {safe(first['pass'])} is the first that changes the function, {how}{behind}", "bold red")
    elif wrong:
        verb = "is" if len(wrong) == 1 else "are"
        terminal.say(f"{done}: none is known to change the function, {len(wrong)} {verb} not established", "bold yellow")
    else:
        terminal.say(f"{done}: none changes the function", "bold green")
    shown = [row for row in rows if any(row[how]["changes"] for how in _HOW)]
    terminal.table(("pass", "alone", "in order", "nodes", "s", "why"), [_row(row) for row in shown[:_SHOWN]])
    if len(shown) > _SHOWN:
        terminal.say(f"  and {_passes(len(shown) - _SHOWN)} more, in the JSON", "dim")
    if len(rows) > len(shown):
        more = " more than the tool does without any" if any(row["pass"] in wrong for row in rows if row not in shown) else ""
        terminal.say(f"  {_passes(len(rows) - len(shown))} changed nothing{more}", "dim")
    terminal.say(
        f"  all that are established, one behind the other: {_word(data['kept'])}: {safe(data['kept']['reason'])}"
    )
    if data["whole"]:
        terminal.say(f"  {safe(data['tool'])} as a whole: {_word(data['whole'])}: {safe(data['whole']['reason'])}")


def _row(row: dict[str, Any]) -> tuple[Cell, ...]:
    alone, in_order = row["alone"], row["in_order"]
    step = in_order if in_order["changes"] else alone
    nodes = f"{step['nodes'][0]} → {step['nodes'][1]}" if step["nodes"] else "-"
    worse = alone if alone["verdict"] not in _GOOD and in_order["verdict"] in _GOOD else step
    why = "" if worse["verdict"] in _GOOD else short(worse["reason"], 100)
    return short(row["pass"], 48), _cell(alone), _cell(in_order), nodes, f"{step['seconds']:.2f}", why


def _cell(step: dict[str, Any]) -> Cell:
    return (_word(step), STYLES.get(step["verdict"], "")) if step["changes"] else ("-", "")


def _word(step: dict[str, Any]) -> str:
    verdict = step["verdict"]
    return f"{GLYPHS.get(verdict, '!')} {verdict}"


def _passes(count: int) -> str:
    return f"{count} pass" if count == 1 else f"{count} passes"
