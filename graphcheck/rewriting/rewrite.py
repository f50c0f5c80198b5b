"""Rewrites every site of a model to one form; the proof that the result is the same function is handed in."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from graphcheck.codes import Coded
from graphcheck.errors import UsageError
from graphcheck.files import model as model_
from graphcheck.options import RewriteOptions
from graphcheck.patches.analyze import Analyzed
from graphcheck.patches.preparing import prepared
from graphcheck.patches.site import Analysis, Refusal, Site
from graphcheck.patches.transpositions import Transposition
from graphcheck.rewriting import movement as moving
from graphcheck.rewriting import normalization
from graphcheck.rewriting.apply import apply, sweep
from graphcheck.rewriting.builder import RULE, Cannot
from graphcheck.rewriting.forms import NAMES, forms_of, may_be
from graphcheck.rewriting.proving import Prove, judge, passing
from graphcheck.rewriting.rank import limit_rank
from graphcheck.rewriting.result import STEPS, Applied, Rewrite
from graphcheck.rewriting.transposes import cancel_transposes

_BESIDE = "so what moves it stays; another form beside that is written where it is named or --to fastest measures a gain"
_UNUSED = Coded("another site that was rewritten leaves it without use", "GC300")
_ASKED = "is rewritten only with --site or --ordinary"


def rewrite(
    model: ir.Model,
    to: str | Mapping[str, str] = "conv",
    *,
    check: Prove | None = None,
    run: bool = True,
    **options: Any,
) -> Rewrite:
    """Rewrite the sites of ``model`` (left as it is) to the form ``to``, or named ones to a form each.

    Sites are patch embeddings and un-embeddings; a form that only one of the two has leaves the other as it is. A site
    whose new form fails its check, or is not proved, is refused, and the others are written; but where the result is
    refuted nothing is.

    Args:
        model: The model.
        to: A form, or forms by site.
        check: Proves the result against the original; if its verdict is no proof, or a structural check fails, the
            result's ``model`` is the original.
        run: False leaves onnxruntime out, for a form that its CPU provider cannot run.
        options: Those of :class:`graphcheck.options.RewriteOptions`.

    Raises:
        UsageError: for an unknown form or site.
    """
    forms = {} if isinstance(to, str) else dict(to)
    asked = RewriteOptions(**(options | {"sites": list(forms)} if forms else options))
    check_forms(to, asked)

    def make(without: Collection[str] = ()) -> Rewrite:
        start = time.perf_counter()
        whole = asked.max_rank is not None
        seen = prepared(model.clone(), whole=whole, pointwise=asked.pointwise, stills=asked.stills)
        seconds = time.perf_counter() - start
        result = written(model, seen, forms or to, asked, without)  # the trials are large, and the proof wants room
        return dataclasses.replace(result, timings={"analyze": seconds, **result.timings})

    return passing(make, lambda result: judge(result, check, run))


def check_forms(to: str | Mapping[str, str], asked: RewriteOptions) -> None:
    """Raise :class:`UsageError` for a form that there is not, or that does not go with the options."""
    if asked.movement and (to not in moving.FORMS or asked.sites):
        raise UsageError(
            f"--movement is for --to {' or '.join(moving.FORMS)}, without --site; the former writes DepthToSpace too"
        )
    for form in (to,) if isinstance(to, str) else to.values():
        if form == "fastest":
            raise UsageError("the forms are measured by graphcheck rewrite --to fastest alone, one model at a time")
        if form not in NAMES and not asked.movement:
            raise UsageError(
                f"there is no form {form!r}; the forms are {', '.join(NAMES)}, and with --movement {moving.RESHAPE}; "
                "--to fastest measures them"
            )
    if asked.pointwise and isinstance(to, str) and to not in ("conv", "matmul"):
        raise UsageError(f"--pointwise is for --to conv, matmul or fastest: a projection is no {to}")


def written(
    model: ir.Model,
    seen: Analyzed,
    to: str | Mapping[str, str],
    options: RewriteOptions,
    without: Collection[str] = (),
) -> Rewrite:
    """The rewrite of a clone of ``model``, in place there, by what was ``seen`` in it; nothing is checked yet.

    ``to`` and ``options`` as for :func:`rewrite`; ``without`` are sites and movement to leave, by the names that
    :attr:`Rewrite.parts` gives them.
    """
    start = time.perf_counter()
    sites, max_rank = options.sites, options.max_rank
    work, analysis = seen.model, seen.analysis
    work.meta.pop("graphcheck.path", None)
    known, unfolded = normalization.fold(seen, sites) if options.fold_normalization else (analysis.sites, ())
    known = tuple(s for s in (*known, *analysis.unembeddings) if sites or not isinstance(to, str) or to in forms_of(s))
    known = () if to == moving.RESHAPE else known
    chosen, refusals = choose(known, to, options)
    there = len([s for s in known if not sites or set(_names(s)) & set(sites)]) - len(chosen) - len(refusals)
    refusals = [*analysis.refusals, *unfolded, *refusals]
    replaced: dict[ir.Value, ir.Value] = {}
    done: list[tuple[Applied, list[ir.Node]]] = []
    for site in chosen:
        if site.name in without:
            continue
        try:
            form, nodes = _first_form(work, site, _form_for(site, to), replaced, max_rank)
        except Cannot as error:
            refusals.append(Refusal(error.reason, site.name))
            continue
        done.append((Applied(site, form, _before(site), described(nodes)), nodes))
    sweep(work)
    swept = [one.site.name for one, nodes in done if all(node.graph is None for node in nodes)]
    refusals += [Refusal(_UNUSED, name) for name in swept]
    applied = [one for one, _ in done if one.site.name not in swept]
    cancel_transposes([node for node in work.graph if RULE in node.metadata_props])
    sweep(work)
    moved, left = _moved(work, seen, to, options, without, anything=bool(applied))
    refusals += left
    reason = ""
    if not applied and not moved:
        work, reason = model, f"nothing to rewrite{_why_nothing(there, analysis, to)}"
    return Rewrite(
        model,
        work,
        to if isinstance(to, str) else ", ".join(dict.fromkeys(to.values())),
        tuple(applied),
        tuple(refusals),
        None,
        reason,
        (),
        {"rewrite": time.perf_counter() - start},
        tuple(moved),
        analysis=analysis,
    )


def _why_nothing(there: int, analysis: Analysis, to: str | Mapping[str, str]) -> str:
    """That sites have the form already, or that it is one of the other kind of site."""
    if there:
        return f": {there} {'site has' if there == 1 else 'sites have'} the form already"
    others = [site for site in analysis.everything if isinstance(to, str) and to not in forms_of(site) and not site.ordinary]
    if not others or to not in NAMES:
        return ""
    return f": a {others[0].kind} {may_be(others[0])}"


def _moved(
    work: ir.Model,
    seen: Analyzed,
    to: str | Mapping[str, str],
    options: RewriteOptions,
    without: Collection[str],
    *,
    anything: bool,
) -> tuple[list[dict[str, Any]], list[Refusal]]:
    """Movement outside the sites that is written anew, as plain data, and why other movement is not."""
    rows: list[dict[str, Any]] = []
    refusals: list[Refusal] = []
    if options.movement:
        rewritten, refusals = moving.rewrite_movement(work, str(to), without)
        rows = [_row(moved, moved.made, moved.to) for moved in rewritten]
    elif to in moving.FORMS and not anything:
        refusals = moving.unasked(work, seen.runs)
    if options.max_rank is not None:
        steps, left = limit_rank(work, options.max_rank, seen.runs[0])
        rows += [_row(*step, STEPS) for step in steps]
        refusals += left
    return rows, refusals


def _first_form(
    model: ir.Model, site: Site, to: str, replaced: dict[ir.Value, ir.Value], max_rank: int | None
) -> tuple[str, list[ir.Node]]:
    """The form asked for, or under a rank limit the first one that keeps to it."""
    try:
        return to, apply(model, site, to, replaced, max_rank)
    except Cannot:
        for form in forms_of(site) if max_rank is not None else ():
            if form == site.form and site.rank <= (max_rank or 0):
                break  # it keeps to the limit as it is
            with contextlib.suppress(Cannot):
                return form, apply(model, site, form, replaced, max_rank)
        raise


def _before(site: Site) -> tuple[dict[str, Any], ...]:
    return tuple(
        {"tensor": name, "op_type": op_type, "rank": len(shape), "shape": list(shape)}
        for name, op_type, shape in site.tensors
    )


def _row(movement: Transposition | moving.Moved, nodes: Sequence[ir.Node], to: str) -> dict[str, Any]:
    """Movement that was written anew, as plain data."""
    return {
        "to": to,
        "input": movement.input.name,
        "output": movement.output.name,
        "before": list(described(movement.nodes)),
        "after": list(described(nodes)),
    }


def _form_for(site: Site, to: str | Mapping[str, str]) -> str:
    return to if isinstance(to, str) else next(to[name] for name in _names(site) if name in to)


def _names(site: Site) -> tuple[str, str, str]:
    return site.name, site.input.name or "", site.output.name or ""


def choose(
    sites: Sequence[Site], to: str | Mapping[str, str], options: RewriteOptions, *, measured: bool = False
) -> tuple[list[Site], list[Refusal]]:
    """The sites to rewrite, and why others are left alone.

    A blocked site's old nodes stay beside the new ones, which is a gain only where it is measured to be one or named.
    """
    named, max_rank = options.sites, options.max_rank
    if named:
        known = {name for site in sites for name in _names(site)}
        unknown = [name for name in named if name not in known]
        if unknown:
            raise UsageError(
                f"there is no site {unknown[0]!r}; the sites are {', '.join(s.name for s in sites) or 'none'}"
            )
    chosen, refusals = [], []
    for site in sites:
        if named and not set(_names(site)) & set(named):
            continue
        form = _form_for(site, to)
        there = site.form == form or (form == "matmul" and site.form == "unfold" and site.sliding)
        padded = form == "conv" and any(node.op_type == "Pad" for node in site.region)  # which the Conv can do itself
        if there and not padded and not site.folded and (max_rank is None or site.rank <= max_rank):
            continue
        if site.ordinary and not named and not options.ordinary:
            refusals.append(Refusal(Coded(f"an ordinary Conv {_ASKED}", "GC308"), site.name))
        elif site.groups > 1 and form in ("matmul", "unfold") and not named and not options.ordinary:
            reason = f"as one MatMul its {site.groups} groups would be mostly zeros; it {_ASKED}"
            refusals.append(Refusal(Coded(reason, "GC307"), site.name))
        elif site.blocked is not None and not named and not measured:
            refusals.append(Refusal(Coded(f"{site.blocked}, {_BESIDE}", "GC306"), site.blocker or site.name))
        else:
            chosen.append(site)
    return chosen, refusals


def described(nodes: Sequence[ir.Node]) -> tuple[dict[str, Any], ...]:
    """The tensors that nodes write, with rank and shape as far as they are declared."""
    rows = []
    for node in nodes:
        for value in node.outputs:
            shape = model_.declared_shape(value)
            rank = None if shape is None else len(shape)
            rows.append({"tensor": value.name, "op_type": node.op_type, "rank": rank, "shape": shape})
    return tuple(rows)
