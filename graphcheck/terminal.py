"""What people read on the terminal: the verdict first, small tables, the next step; plain text where there is no terminal."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

Cell = str | tuple[str, str]  # text, or (text, style)
GLYPHS = {"identical": "≡", "proved": "✓", "within-rounding": "≈", "undecided": "?", "different": "≠"}
STYLES = {
    "identical": "bold green",
    "proved": "bold green",
    "within-rounding": "bold green",
    "undecided": "bold yellow",
    "different": "bold red",
}
# C0, C1, line separators, and the marks that reverse the direction of text: names in a model are not to be trusted.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
_LONGEST = 72


def safe(text: object) -> str:
    """``text`` on one line, its control characters written out (``\\x1b``), so that no name can move the cursor."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def short(text: object, limit: int = _LONGEST) -> str:
    """``safe(text)``, cut in its middle to ``limit`` characters: the ends of a name tell most."""
    text = safe(text)
    head = limit // 2
    return text if len(text) <= limit else f"{text[:head]}…{text[-(limit - head - 1) :]}"


def number(value: object) -> str:
    """A measure for people: integers in full, floats to two digits, ``-`` where there is none."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return safe(value)
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e6):
        return f"{int(value):,}"
    return f"{value:.2g}" if 1e-3 <= abs(value) < 100 else f"{value:.1e}"


def dims(shape: object) -> str:
    """A shape such as ``2×3×224×224``; unknown dims are ``?``."""
    if not isinstance(shape, list | tuple):
        return "?" if shape is None else safe(shape)
    return "×".join("?" if dim is None else safe(dim) for dim in shape) or "scalar"


class Terminal:
    """Standard output for results, standard error for progress and trouble; ``quiet`` keeps results to themselves."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet

    @property
    def _out(self) -> Console:
        return _console(sys.stdout)

    def say(self, text: str = "", style: str = "") -> None:
        """Print a line of text that is already safe."""
        if not self.quiet:
            self._out.print(text, style=style or None)

    def verdict(self, verdict: str, reason: str) -> None:
        """The first line of every answer: the verdict in its colour, and why."""
        from rich.text import Text

        if not self.quiet:
            word = f"{GLYPHS.get(verdict, '')} {verdict}".strip()
            self._out.print(Text.assemble((safe(word), STYLES.get(verdict, "bold")), f": {safe(reason)}"))

    def table(self, head: Sequence[str], rows: Iterable[Sequence[Cell]], indent: int = 2) -> None:
        """Columns under a dim head; a column whose cells all are numbers stands right-aligned."""
        from rich.text import Text

        body = [[cell if isinstance(cell, tuple) else (cell, "") for cell in row] for row in rows]
        if self.quiet or not body:
            return
        cells: list[list[tuple[str, str]]] = [[(name, "dim") for name in head], *body] if any(head) else body
        widths = [max(len(row[i][0]) for row in cells) for i in range(len(cells[0]))]
        right = [all(re.fullmatch(r"[-\d.,e+%]+|NaN", row[i][0]) for row in body) for i in range(len(widths))]
        for row in cells:
            line = Text(" " * indent)
            for (text, style), width, to_right in zip(row, widths, right, strict=True):
                line.append(text.rjust(width) if to_right else text.ljust(width), style or None).append("  ")
            line.rstrip()
            self._out.print(line)

    @contextlib.contextmanager
    def status(self, first: str) -> Iterator[Callable[[str], None]]:
        """A line of progress on standard error that goes away at the end; nothing where that is no terminal."""
        console = _console(sys.stderr)
        if not console.is_terminal:
            yield lambda _: None
            return
        with console.status(safe(first)) as status:
            yield lambda text: status.update(safe(text))

    @contextlib.contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[str], None]]:
        """A progress bar on standard error; each call of what it yields is one step, and names it."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        console = _console(sys.stderr)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        text = TextColumn("{task.fields[step]}", markup=False)
        with Progress(*columns, text, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(what, total=total, step="")
            yield lambda step: bar.update(task, advance=1, step=short(step, 48))


def _console(file: Any) -> Console:
    from rich.console import Console

    # Made anew each time: tests and callers exchange sys.stdout. Lines are never wrapped, so that they can be grepped.
    return Console(file=file, markup=False, highlight=False, emoji=False, soft_wrap=True)


def show_model(terminal: Terminal, model: dict[str, Any]) -> None:
    """What a person wants to know first of a model (the summary of ``analyze``)."""
    size = f", {number(model['bytes'])} bytes" if model.get("bytes") else ""
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in model["opsets"].items())
    terminal.say(f"{safe(model.get('path') or 'model in memory')}{size}, opset {safe(opsets)}, by {safe(model['producer'] or '?')}")
    rows = [(way, short(port["name"]), safe(port["dtype"]), dims(port["shape"])) for way in ("inputs", "outputs") for port in model[way]]
    terminal.table((), [(way[:-1], *rest) for way, *rest in rows])
    ops = ", ".join(f"{count} {short(op, 40)}" for op, count in model["ops"].items())
    terminal.say(f"  {number(model['nodes'])} nodes: {ops}")
    rank = "" if model.get("largest_rank") is None else f"; largest tensor rank {model['largest_rank']}"
    terminal.say(f"  {number(model['parameters'])} parameters in {number(model['parameter_bytes'])} bytes{rank}")


def show_analysis(terminal: Terminal, result: dict[str, Any]) -> None:
    """The answer of ``analyze``."""
    show_model(terminal, result["model"])
    sites, refusals = result["patch_embeddings"], result["refusals"]
    terminal.say(f"{len(sites) or 'no'} patch embedding{'' if len(sites) == 1 else 's'}", "bold green" if sites else "bold")
    for site in sites:
        show_site(terminal, site)
    for refusal in refusals:
        terminal.say(f"  left alone: {short(refusal['node'])}: {safe(refusal['reason'])}", "yellow")


def show_site(terminal: Terminal, site: dict[str, Any]) -> None:
    """One patch embedding of ``analyze``."""
    terminal.say(f"  {safe(site['form'])}: {short(site['input'])} -> {short(site['output'])}  ({safe(site['layout'])})", "bold")
    geometry = [f"{name} {dims(site[key])}" for name, key in (("kernel", "kernel_shape"), ("strides", "strides"), ("dilations", "dilations"))]
    pads = ",".join(str(pad) for pad in site["pads"])
    channels = f"{site['in_channels']} -> {site['out_channels']} channels, {site['groups']} group{'' if site['groups'] == 1 else 's'}"
    rows = [("pattern", short(site["pattern"], 100))] if site.get("pattern") else []
    rows += [("geometry", f"{', '.join(geometry)}, pads {pads}; {channels}")]
    rows += [("nodes", short(", ".join(map(str, site["nodes"])), 110))]
    terminal.table((), rows, 4)


def show_comparison(terminal: Terminal, result: dict[str, Any], top_k: int | None = None) -> None:
    """The answer of ``compare`` and ``guard``: verdict, outputs, proof, witness, first divergence."""
    terminal.verdict(result["verdict"], result["reason"])
    for text in result["interface"]["mismatches"]:
        terminal.say(f"  interface: {safe(text)}", "red")
    for text in result["interface"]["notes"]:
        terminal.say(f"  note: {safe(text)}", "dim")
    if result.get("numeric"):
        _show_numeric(terminal, result["numeric"], top_k)
    if result.get("proof"):
        _show_proof(terminal, result["proof"])
    _show_witness(terminal, result.get("witness"))
    if result.get("divergence"):
        terminal.say(f"  first divergence: {divergence(result['divergence'])}")


def divergence(found: dict[str, Any]) -> str:
    """The first divergence in one phrase: ``Gelu node gelu_3 of B (tensor t9), MatMul node fc of A (tensor t7)``."""
    parts = []
    for side in ("b", "a"):
        if place := found.get(side):
            parts.append(f"{short(place['op_type'])} node {short(place['node'])} of {side.upper()} (tensor {short(place['tensor'])})")
    return "; ".join(parts) or "unknown"


def _show_numeric(terminal: Terminal, numeric: dict[str, Any], top_k: int | None) -> None:
    """One row for each output pair: the run in which it deviates most."""
    worst: dict[tuple[str, str], dict[str, Any]] = {}
    for run in numeric["runs"]:
        for row in run["outputs"]:
            key = (row["a"], row["b"])
            if key not in worst or (row["max_abs"] or 0) > (worst[key]["max_abs"] or 0):
                worst[key] = row
    head = ["output", "shape", "max abs", "max ulp", "ulps of largest", "spreads", "min atol", "min rtol"]
    rows: list[list[Cell]] = []
    for row in worst.values():
        name = short(row["a"], 40) if row["a"] == row["b"] else f"{short(row['a'], 24)} / {short(row['b'], 24)}"
        measures = ("max_abs", "max_ulp", "scale_ulp", "spread_units", "min_atol", "min_rtol")
        rows.append([name, dims(row["shape"]), *(number(row.get(key)) for key in measures)])
        if top_k is not None:
            rows[-1].append(number((row.get("top_k") or {}).get(str(top_k))))
    terminal.table([*head, *([f"top-{top_k}"] if top_k else [])], rows)
    if rows:
        count = len(numeric["runs"])
        terminal.say(f"  in onnxruntime, {count} run{'' if count == 1 else 's'}, the largest deviation of each output", "dim")
    for text in numeric["warnings"]:
        terminal.say(f"  warning: {safe(text)}", "yellow")


def _show_proof(terminal: Terminal, proof: dict[str, Any]) -> None:
    shapes = [", ".join(f"{safe(name)} {dims(shape)}" for name, shape in at.items()) for at in proof.get("shapes") or []]
    parts = [f"at {'; '.join(shapes)}"] if shapes else []
    if proof.get("tier"):
        parts.append(f"by {safe(proof['tier'])}")
    if proof.get("error_probability") is not None:
        primes = proof.get("primes") or []
        with_primes = f" ({len(primes)} primes, seed {proof.get('seed')})" if primes else ""
        parts.append(f"error probability {number(proof['error_probability'])}{with_primes}")
    if parts:
        terminal.say(f"  proof: {', '.join(parts)}")
    for text in proof.get("assumptions") or []:
        terminal.say(f"  assuming: {safe(text)}", "dim")
    constants = proof.get("constants") or []
    for constant in constants[:8]:
        terminal.say("  rounded constant: " + ", ".join(f"{safe(key)} {number(value)}" for key, value in constant.items()))
    if len(constants) > 8:
        terminal.say(f"  and {len(constants) - 8} more rounded constants, in the JSON")


def _show_witness(terminal: Terminal, witness: dict[str, Any] | None) -> None:
    if not witness:
        return
    sizes = [f"{name} {number(witness[key])}" for name, key in (("deviation", "max_abs"), ("bound", "bound"), ("spread", "spread")) if witness.get(key) is not None]
    where = f" {safe(witness['path'])}" if witness.get("path") else ""
    terminal.say(f"  witness{where}: {safe(witness.get('kind') or 'an input')}{', ' if sizes else ''}{', '.join(sizes)}")
    if witness.get("replay"):
        terminal.say(f"  replay it: {safe(witness['replay'])}")
