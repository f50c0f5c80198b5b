"""What each command says on the terminal: the JSON of its result in a few lines, the verdict first."""

from __future__ import annotations

from typing import Any

from graphcheck.formats.console import Cell, Terminal
from graphcheck.formats.numbers import show_depth, show_numbers
from graphcheck.graphs.repeats import repetition
from graphcheck.words import dims, divergence, number, plural, safe, short


def show_model(terminal: Terminal, model: dict[str, Any]) -> None:
    """What a person wants to know first of a model (the summary of ``analyze``)."""
    size = f", {number(model['bytes'])} bytes" if model.get("bytes") else ""
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in model["opsets"].items())
    name, producer = safe(model.get("path") or "model in memory"), safe(model["producer"] or "?")
    terminal.say(f"{name}{size}, opset {safe(opsets)}, by {producer}")
    for way in ("inputs", "outputs"):
        terminal.table((), [(way[:-1], short(p["name"]), safe(p["dtype"]), dims(p["shape"])) for p in model[way]])
    ops = ", ".join(f"{count} {short(op, 40)}" for op, count in model["ops"].items())
    terminal.say(f"  {plural(model['nodes'], 'node')}: {ops}")
    rank = "" if model.get("largest_rank") is None else f"; largest tensor rank {model['largest_rank']}"
    size = f" in {number(model['parameter_bytes'])} bytes" if model["parameters"] else ""
    terminal.say(f"  {plural(model['parameters'], 'parameter')}{size}{rank}")
    show_notes(terminal, model.get("notes") or [])


def show_notes(terminal: Terminal, notes: list[str]) -> None:
    """What is worth knowing besides."""
    for text in notes:
        terminal.say(f"  note: {safe(text)}", "dim")


def show_analysis(terminal: Terminal, result: dict[str, Any]) -> None:
    """The answer of ``analyze``."""
    show_model(terminal, result["model"])
    for size in result["model"].get("sizes") or []:
        _show_size(terminal, size)
    # Every CNN is full of ordinary convolutions: they are counted, and named in the JSON.
    sites = [site for site in result["patch_embeddings"] if not site.get("ordinary")]
    ordinary = len(result["patch_embeddings"]) - len(sites)
    besides = f", and {plural(ordinary, 'ordinary convolution')}" if ordinary else ""
    terminal.say(f"{plural(len(sites), 'patch embedding')}{besides}", "bold green" if sites else "bold")
    for site in sites:
        show_site(terminal, site)
    back = result.get("patch_unembeddings") or []
    if back:
        terminal.say(plural(len(back), "patch un-embedding"), "bold green")
    for site in back:
        show_site(terminal, site)
    bare = [row for row in result.get("movements") or [] if row["site"] is None]
    if bare:
        terminal.say(f"{plural(len(bare), 'movement')} without a projection (rewrite --movement)", "bold green")
    for row in bare:
        terminal.say(f"  {row['form']}: {short(row['input'])} -> {short(row['output'])}", "bold")
        terminal.say(f"    {row['kind']}, blocks of {row['blocksize']}×{row['blocksize']}")
    for refusal in result["refusals"]:
        terminal.say(f"  left alone: {short(refusal['node'])}: {safe(refusal['reason'])}", "yellow")


def _show_size(terminal: Terminal, size: dict[str, Any]) -> None:
    """What a model does with one of its free sizes."""
    name, mixed, bakes, breaks = short(size["symbol"]), size["mixed"], size["bakes"], size["breakpoints"]
    if bakes is not None:
        terminal.say(f"  {name}: bakes the size in at {short(bakes['node'])} ({safe(bakes['reason'])})", "yellow")
    elif mixed is not None:
        at = f" at {short(mixed['node'])}" if mixed["node"] else ""
        terminal.say(f"  {name}: mixes rows{at} ({safe(mixed['reason'])})", "yellow")
    else:
        terminal.say(f"  {name}: rows: every row by itself", "dim")
    if breaks:
        nodes = ", ".join(dict.fromkeys(short(row["node"]) for row in breaks))
        numbers = ", ".join(str(row["size"]) for row in breaks)
        terminal.say(f"  {name}: changes its form at sizes {numbers} ({nodes})", "yellow")
    for row in size["declared"]:
        terminal.say(f"  output {short(row['output'])}: {safe(row['reason'])}", "yellow")


def show_site(terminal: Terminal, site: dict[str, Any]) -> None:
    """One patch embedding or un-embedding of ``analyze``."""
    terminal.say(f"  {safe(site['form'])}: {short(site['input'])} -> {short(site['output'])}", "bold")
    named = (("kernel", "kernel_shape"), ("strides", "strides"), ("dilations", "dilations"))
    geometry = ", ".join(f"{name} {dims(site[key])}" for name, key in named)
    pads = ",".join(str(pad) for pad in site["pads"])
    channels = f"{site['in_channels']} -> {site['out_channels']} channels in {plural(site['groups'], 'group')}"
    rows = [("pattern", short(site["pattern"], 100))] if site.get("pattern") else []
    rows += [("geometry", f"{safe(site['layout'])}, {geometry}, pads {pads}; {channels}")]
    rows += [("nodes", short(", ".join(map(str, site["nodes"])), 110))]
    rows += [("blocked", safe(site["blocked"]))] if site.get("blocked") else []
    rows += [("note", safe(note)) for note in site.get("notes") or []]
    terminal.table((), rows, 4)


def show_comparison(
    terminal: Terminal,
    result: dict[str, Any],
    top_k: int | None = None,
    explain: bool = False,
    top: int | None = None,
) -> None:
    """The answer of ``compare`` and ``guard``: verdict, outputs, proof, witness, first divergence."""
    terminal.verdict(result["verdict"], result["reason"])
    for text in result["interface"]["mismatches"]:
        terminal.say(f"  interface: {safe(text)}", "red")
    show_notes(terminal, result["interface"]["notes"])
    if result.get("numeric"):
        _show_numeric(terminal, result["numeric"], top_k)
    if "headroom" in (result.get("precision") or {}):
        show_numbers(terminal, result["precision"], top)
    elif top is not None and result.get("numeric"):
        show_depth(terminal, result["numeric"].get("curve") or [], top)
    if result.get("proof"):
        _show_proof(terminal, result["proof"])
        for output in result["proof"].get("steps") or [] if explain else ():
            _show_steps(terminal, output)
    if result.get("witness"):
        _show_witness(terminal, result["witness"])
    if result.get("divergence"):
        terminal.say(f"  first divergence: {divergence(result['divergence'])}")
    if result["verdict"] in ("different", "undecided"):
        _show_changed(terminal, result.get("changed") or [], result.get("used") or {})
    if reduced := result.get("reduced"):
        where = (
            f"{safe(reduced['a'])} and {safe(reduced['b'])} are {safe(reduced['verdict'])}" if reduced["a"] else "none"
        )
        terminal.say(f"  reduced: {where}: {safe(reduced['reason'])}")
        if result["verdict"] == "undecided" and reduced["verdict"] == "different":
            terminal.say("  note: their inputs are free, so that they may differ where the whole models do not", "dim")


def _show_changed(terminal: Terminal, rows: list[dict[str, Any]], used: dict[str, int]) -> None:
    """The constants that alone separate the graphs."""
    if not rows:
        return
    verb = "differs" if len(rows) == 1 else "differ"
    terminal.say(f"  {len(rows):,} of {plural(max(used.values()), 'constant')} {verb}, and the graphs in nothing else")
    shown = []
    for row in rows[:8]:
        name = short(row["a"], 40) if row["a"] == row["b"] else f"{short(row['a'], 24)} / {short(row['b'], 24)}"
        of = f"{row['unequal']:,} of {row['elements']:,}" if row["unequal"] is not None else "-"
        shapes = " and ".join(dict.fromkeys(dims(row[f"shape_{side}"]) for side in "ab"))
        shown.append([name, shapes, of, *(number(row[key]) for key in ("max_abs", "max_ulp"))])
    terminal.table(("constant", "shape", "elements", "max abs", "max ulp"), shown, 4)
    if len(rows) > 8:
        terminal.say(f"    and {len(rows) - 8:,} more, in the JSON", "dim")


def show_rewrite(terminal: Terminal, result: dict[str, Any], explain: bool) -> None:
    """The answer of ``rewrite``: each site, why others are left alone, the proof, and what was written."""
    moved = result.get("moved") or []
    if result["verdict"]:
        terminal.verdict(result["verdict"], result["reason"])
    elif not result["sites"] and not moved:
        why = (result["reason"] or "").removeprefix("nothing to rewrite").removeprefix(": ")
        goal = "" if result["to"] == "fastest" else f" to {safe(result['to'])}"
        terminal.say(f"nothing to rewrite{goal}{': ' * bool(why)}{safe(why)}", "bold")
    for row in result.get("measured") or []:
        terminal.say(f"  {short(row['site'])}: {safe(row['chosen'])} is chosen of these, in ms of the whole model")
        timed = [form for form in row["forms"] if not form.get("untimed")]
        times = [[safe(form["form"]), *(number(form[key]) for key in ("median", "lower", "upper"))] for form in timed]
        terminal.table(("form", "median", "lower quartile", "upper quartile"), times, 4)
        for form in row["forms"]:
            if form.get("untimed"):
                terminal.say(f"    {safe(form['form'])} could not be timed: {safe(form['untimed'])}")
    for row in result["sites"]:
        site = row["site"]
        ranks = [
            max((t["rank"] for t in row[when] if t["rank"] is not None), default=None) for when in ("before", "after")
        ]
        rank = f", largest rank {ranks[0]} -> {ranks[1]}" if None not in ranks else ""
        terminal.say(
            f"  {safe(row['from'])} -> {safe(row['to'])}: {short(site['input'])} -> {short(site['output'])}{rank}"
        )
        if explain:
            show_site(terminal, site)
            for when in ("before", "after"):
                tensors = [
                    (when, short(t["tensor"], 60), safe(t.get("op_type", "")), dims(t["shape"])) for t in row[when]
                ]
                terminal.table((), tensors, 4)
    for row in moved:
        told = "split" if row.get("to", "steps") == "steps" else f"-> {safe(row['to'])}"
        terminal.say(f"  movement {told}: {short(row['input'])} -> {short(row['output'])}")
    for refusal in result["refusals"]:
        terminal.say(f"  left alone: {short(refusal['node'])}: {safe(refusal['reason'])}", "yellow")
    for check in result["checks"]:
        if explain or check["ok"] is False:
            word = {True: "passed", False: "FAILED", None: "not made"}[check["ok"]]
            terminal.say(
                f"  check {safe(check['name'])} {word}: {safe(check['detail'])}", "" if check["ok"] else "yellow"
            )
    if reported := result.get("reported"):
        terminal.say("  reported to be best, by target (not measured here; --to fastest measures):")
        rows = [[safe(row[key]) for key in ("target", "form", "reported", "source")] for row in reported]
        terminal.table(("target", "form", "what was reported", "source"), rows, 4)
    if result["output"]:
        kind = "" if result["sites"] or moved else ", a byte copy of the model"
        terminal.say(f"wrote {safe(result['output'])}{kind}")
    elif result["verdict"]:
        terminal.say("nothing was written")
    show_notes(terminal, result.get("notes") or [])


def _run_text(run: dict[str, Any]) -> str:
    """What a run was made on, in a few words: ``normal, scaled by 100, seed 0``."""
    spec = run["inputs"]
    values = _values(spec)
    if spec.get("distribution") in (None, "given"):
        return ", ".join(["given inputs", *values])
    words = ["in the ranges asked for"] if spec.get("ranges") else []
    if not words or spec["distribution"] != "normal":
        words += [safe(spec["distribution"])]
    words += [f"all {safe(spec['signs'])}"] if spec.get("signs", "both") != "both" else []
    words += [f"scaled by {number(spec['scale'])}"] if spec.get("scale", 1.0) != 1.0 else []
    words += [f"seed {safe(spec.get('seed'))}"]
    words += values
    words += ["unoptimized"] if str(run.get("side_note", "")).endswith("off") else []
    return ", ".join(words)


def _values(of: dict[str, Any]) -> list[str]:
    """``sr=16000`` for each input of one integer."""
    return [f"{short(name, 24)}={safe(value)}" for name, value in (of.get("values") or {}).items()]


def _show_numeric(terminal: Terminal, numeric: dict[str, Any], top_k: int | None) -> None:
    """One row for each output pair: the run in which it deviates most."""
    worst: dict[tuple[str, str], dict[str, Any]] = {}
    named: dict[tuple[str, str], str] = {}  # the run in which it does
    spreads: dict[tuple[str, str], float] = {}  # known of some runs alone, which need not be the worst ones
    several = len(numeric["runs"]) > 1
    for place, run in enumerate(numeric["runs"], 1):
        for row in run["outputs"]:
            key = (row["a"], row["b"])
            if key not in worst or (row["max_abs"] or 0) > (worst[key]["max_abs"] or 0):
                worst[key], named[key] = row, f"{place}: {_run_text(run)}"
            if row.get("spread_units") is not None:
                spreads[key] = max(row["spread_units"], spreads.get(key, 0.0))
    head = ["output", "shape", "max abs", "max ulp", "ulps of largest", "spreads", "min atol", "min rtol"]
    rows: list[list[Cell]] = []
    for key, row in worst.items():
        row = row | {"spread_units": spreads.get(key)}
        name = short(row["a"], 40) if row["a"] == row["b"] else f"{short(row['a'], 24)} / {short(row['b'], 24)}"
        measures = ("max_abs", "max_ulp", "scale_ulp", "spread_units", "min_atol", "min_rtol")
        rows.append([name, dims(row["shape"]), *(number(row.get(measure)) for measure in measures)])
        rows[-1] += [named[key]] if several else []
        if top_k is not None:
            rows[-1].append(number((row.get("top_k") or {}).get(str(top_k))))
    head += ["in run"] if several else []
    terminal.table([*head, *([f"top-{top_k}"] if top_k else [])], rows)
    if rows:
        runs = plural(len(numeric["runs"]), "run") + ("" if several else f" ({_run_text(numeric['runs'][0])})")
        terminal.say(f"  in onnxruntime, {runs}: the largest deviation of each output", "dim")
    for text in numeric["warnings"]:
        terminal.say(f"  warning: {safe(text)}", "yellow")


def _show_proof(terminal: Terminal, proof: dict[str, Any]) -> None:
    parts = [f"by {safe(proof['tier'])}"] if proof.get("tier") else []
    if primes := proof.get("primes"):
        parts.append(f"error probability {number(proof.get('error_probability'))}")
        parts.append(f"{len(primes)} primes drawn by seed {proof.get('seed')}")
    if parts:
        terminal.say(f"  proof: {', '.join(parts)}")
    for text in proof.get("assumptions") or []:
        terminal.say(f"  assuming: {safe(text)}", "dim")
    for symbol, limit in (proof.get("limits") or {}).items():
        tried = ", ".join(map(str, limit["sizes"]))
        alone = {row["size"] for row in limit.get("taken_by_one") or ()}  # which the verdict names
        left = [str(row["size"]) for row in limit["breakpoints"] if not row["tried"] and row["size"] not in alone]
        also = f"; not tried are the breakpoints {', '.join(left)}" if left else ""
        terminal.say(f"  {short(symbol)}: at {tried} alone, since {safe(limit['reason'])}{also}", "dim")
    constants = proof.get("constants") or []
    for constant in constants[:8]:
        known = (key for key in ("elements", "ulps", "roundings", "room") if key in constant)
        facts = (f"{safe(key)} {number(constant[key])}" for key in known)
        terminal.say(f"  rounded constant: {short(constant.get('name'))}: {', '.join(facts)}")
    if len(constants) > 8:
        terminal.say(f"  and {plural(len(constants) - 8, 'more rounded constant')}, in the JSON")


def _show_steps(terminal: Terminal, output: dict[str, Any]) -> None:
    """Why one pair of outputs is proved; steps by congruence stand together, and a block that is repeated is told once."""
    lines = _lines(output["steps"])
    kinds = [_kind(line) for line in lines]
    sizes = ", ".join(f"{safe(name)}={dims(shape)}" for name, shape in output["shapes"].items())
    names = dict.fromkeys(short(output[side], 48) for side in "ab")
    terminal.say(f"  why {' of A is '.join(names)}{' of B' * (len(names) > 1)}, at {sizes}:")
    at = 0
    while at < len(lines):
        period, times = repetition(kinds, at, [len(line) for line in lines])
        if times > 1:
            last = lines[at + period * times - 1][-1]["number"]
            terminal.say(f"    {lines[at][0]['number']} to {last}, {times} times the same, of which the first:")
        for line in lines[at : at + period]:
            terminal.say(f"    {'  ' * (times > 1)}{_told(line)}")
        at += period * times
    for rule, text in output["rules"].items():
        terminal.say(f"    {safe(rule)}: {safe(text)}", "dim")


def _lines(steps: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The steps in lines: those by congruence, one after the other, in one."""
    lines: list[list[dict[str, Any]]] = []
    for step in steps:
        if lines and all(s["why"]["kind"] == "congruence" for s in (lines[-1][-1], step)):
            lines[-1].append(step)
        else:
            lines.append([step])
    return lines


def _kind(line: list[dict[str, Any]]) -> Any:
    """What a line says but for its names and its number."""
    return [(step["a"]["op_type"], step["b"]["op_type"], step["why"]["text"]) for step in line]


def _told(line: list[dict[str, Any]]) -> str:
    """``2. Conv conv of A, MatMul mm of B: the same contraction, once both are told in verbs; from 1``."""
    ends = line[:1] + line[1:][-1:]
    a, b = (" to ".join(_made(step[side]) for step in ends) for side in "ab")
    inside = {step["number"] for step in line}
    given = sorted({number for step in line for number in step["given"]} - inside)
    numbers = " to ".join(str(step["number"]) for step in ends)
    many = f"{len(line)} nodes, each " if len(line) > 1 else ""
    source = f"; from {', '.join(map(str, given))}" if given else ""
    return f"{numbers}. {f'{a} of A, {b} of B' if a != b else a}: {many}{safe(line[0]['why']['text'])}{source}"


def _made(place: dict[str, Any]) -> str:
    return f"{short(place['op_type'], 24)} {short(place['node'], 48)}" if place["node"] else short(place["tensor"], 48)


def _show_witness(terminal: Terminal, witness: dict[str, Any]) -> None:
    named = (("deviation", "max_abs"), ("bound", "bound"), ("spread", "spread"))
    sizes = "".join(f", {text}" for text in _values(witness))
    sizes += "".join(f", {name} {number(witness[key])}" for name, key in named if witness.get(key) is not None)
    kept = witness.get("id") or witness.get("path")
    where = f" {safe(kept)}" if kept else ""
    terminal.say(f"  witness{where}: {safe(witness.get('kind') or 'an input')}{sizes}")
    if witness.get("replay"):
        terminal.say(f"  replay it: {safe(witness['replay'])}")
