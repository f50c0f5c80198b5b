"""What a narrower format does to the numbers of a copy, on the terminal: a few lines, and with ``--top`` a table."""

from __future__ import annotations

from typing import Any

from graphcheck.formats.console import Terminal
from graphcheck.words import number, plural, safe, short

_FEW = 3  # nodes that are named without --top


def show_numbers(terminal: Terminal, told: dict[str, Any], top: int | None) -> None:
    """The numbers of ``precision``."""
    if told.get("untold"):
        terminal.say(f"  not all is told of the numbers in the format: {safe(told['untold'])}", "dim")
    _show_ends(terminal, told)
    steps = {row["output"]: row["step"] for row in told["spread"]}
    for row in () if told["overflowed"] else told["bound"]:
        terminal.say(f"  {_bound(row, steps.get(row['output']))}")
    if not any(row["measured"] for row in told["spread"]):
        return
    if told["layers"] and top is None:
        most = ", ".join(f"{_node(row)} ({row['share']:.0%})" for row in told["layers"][:_FEW])
        terminal.say(f"  most of it comes from {most}", "dim")
    elif top is not None:
        shares = {(row["node"], row["op_type"]): row for row in told["layers"]}
        rows = [
            [str(place), _node(row), *(f"{share.get(key, 0.0):.1%}" for key in ("share", "constants")), number(row["left"])]
            for place, row in enumerate(told["keep"], 1)
            for share in [shares.get((row["node"], row["op_type"]), {})]
        ]
        left = f"rms left of {number(told['keep'][0]['before'])}" if rows else ""
        terminal.table(("", "keep in float32", "share of the deviation", "by its constants", left), rows)


def show_depth(terminal: Terminal, curve: list[dict[str, Any]], top: int) -> None:
    """The aligned tensors at which the deviation rises most above that of all before; ``curve`` as in ``numeric``."""
    if not curve:
        terminal.say("  no tensors inside were measured side by side", "dim")
        return
    rows = []
    for place, row in sorted(enumerate(curve, 1), key=lambda item: (-item[1]["rise"], -item[1]["deviation"]))[:top]:
        name = short(row["a"], 60) if row["a"] == row["b"] else f"{short(row['a'], 40)} / {short(row['b'], 40)}"
        rows.append([str(place), safe(row["op_type"] or ""), name, *(number(row[k]) for k in ("rise", "deviation", "spread"))])
    terminal.table((f"of {len(curve)}", "operator", "tensor", "rise", "deviation", "spread"), rows)
    terminal.say("  by how much the deviation rises above that of all tensors before, in each one's largest magnitude", "dim")


def _show_ends(terminal: Terminal, told: dict[str, Any]) -> None:
    """What leaves the range of the format, or comes near its end."""
    for key, verb in (("overflowed", "overflows"), ("vanished", "vanishes")):
        if rows := told[key]:
            row = rows[0]
            by = f"{number(row['largest'])} > {row['limit']:g}" if key == "overflowed" else f"{number(row['lost'])} becomes 0"
            more = f", and {plural(len(rows) - 1, 'more tensor')}" if len(rows) > 1 else ""
            terminal.say(f"  in {safe(row['format'])}: {_node(row)} {verb} ({by}){more}", "yellow")
    if told["headroom"] and not told["overflowed"]:
        least = min((row for row in told["headroom"] if row["above"] is not None), key=lambda r: r["above"], default=None)
        if least is not None:
            terminal.say(f"  headroom in {safe(least['format'])}: {plural(int(least['above']), 'bit')} at {_node(least)}", "dim")
        inside = [row for row in told["headroom"] if row["inside"] is not None and row["inside"] > row["limit"]]
        if inside:
            row = inside[0]
            text = f"{_node(row)} reaches {number(row['inside'])} inside, beyond {row['limit']:g}: its sums have to be wider"
            terminal.say(f"  in {safe(row['format'])}: {text}", "yellow")
    if rows := told["saturated"]:
        taken_over = [row for row in rows if row.get("relu") and not row["over"]]  # the Relu's part of what a quantizer does
        lossy = [row for row in rows if row not in taken_over]
        row = max(lossy or rows, key=lambda r: r["steps"])
        more = f", the farthest of {len(lossy or rows)} that do" if len(lossy or rows) > 1 else ""
        of = f"{row['cut']:,} of {plural(row['elements'], 'element')}"
        said = f"{of} cut, by {plural(int(row['steps']), 'step')} at most{more}"
        as_well = "" if lossy else ", as a Relu of the other model does"
        terminal.say(f"  {_node(row)} saturates: {said}{as_well}", "yellow" if lossy else "dim")


def _bound(row: dict[str, Any], step: float | None) -> str:
    """``y deviates by 0.0011, at most 0.02 (18x) by any order of summation``, and what that rests on."""
    name, ratio = short(row["output"]), f" ({row['ratio']:.1f}x)" if row["ratio"] else ""
    steps = f" ({number(row['measured'] / step)} steps)" if step else ""
    running = "" if row["running"] is None else f"; running bound {number(row['running'])}"
    likely = f"at most {number(row['likely'])}{ratio} by any order of summation if roundings are independent"
    worst = f"{number(row['first_order'])} if all are at their worst{running}"
    return f"{name} deviates by {number(row['measured'])}{steps} in the format, {likely}, {worst}"


def _node(row: dict[str, Any]) -> str:
    """``Mul /norm/Mul``; the name alone where it was made from the operator."""
    name = short(row["node"], 60)
    return name if name.startswith(f"{row['op_type']}(") else f"{short(row['op_type'], 40)} {name}"
