"""Rewrites every site of a model to one form; the proof that the result is the same function is handed in."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from graphcheck.errors import UsageError
from graphcheck.files import model as model_
from graphcheck.patches.analyze import Analyzed
from graphcheck.patches.preparing import prepared
from graphcheck.patches.site import Analysis, Refusal, Site
from graphcheck.patches.transpositions import Transposition
from graphcheck.rewriting import movement as moving
from graphcheck.rewriting import normalization
from graphcheck.rewriting.apply import apply, sweep
from graphcheck.rewriting.builder import RULE, Cannot
from graphcheck.rewriting.checks import WINDOWS, Check, structural_checks
from graphcheck.rewriting.folded_proof import parametric
from graphcheck.rewriting.forms import NAMES, forms_of, may_be
from graphcheck.rewriting.rank import limit_rank
from graphcheck.rewriting.transposes import cancel_transposes
from graphcheck.verdict import Comparison, Displayed, Verdict

SCHEMA = "graphcheck/rewrite/1"

_BESIDE = "so what moves it stays; another form beside that is written where it is named or --to fastest measures a gain"

_CODES = {Verdict.UNDECIDED: "GC216", Verdict.WITHIN_ROUNDING: "GC230"}
_ASKED = "is rewritten only with --site or --ordinary"

Prove = Callable[[ir.Model, ir.Model], Comparison]


@dataclasses.dataclass(frozen=True, eq=False)
class Applied:
    """One site that was rewritten: as it was, the form it has now, and its tensors before and after."""

    site: Site
    to: str
    before: tuple[dict[str, Any], ...] = dataclasses.field(repr=False)
    after: tuple[dict[str, Any], ...] = dataclasses.field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "site": self.site.to_json(),
            "from": self.site.form,
            "to": self.to,
            "before": list(self.before),
            "after": list(self.after),
        }


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Rewrite(Displayed):
    """The result of a rewrite.

    Attributes:
        original: The model that was given, as it was.
        model: The rewritten clone; the original where nothing was applied, or what was did not pass.
        to: The form asked for.
        applied: The sites that were rewritten.
        refusals: The sites that were not, and contractions that are none, each with the reason.
        verdict: That of the check; None where nothing was applied or there was no check.
        reason: One sentence.
        checks: What else was looked at: interface, onnx.checker, onnxruntime, window maps.
        timings: Seconds by stage.
        moved: Movement elsewhere that was split to keep ``max_rank``, or written anew.
        measured: For ``fastest``: milliseconds of each form, by site.
        analysis: What the analyzer found in the model.
    """

    original: ir.Model
    model: ir.Model
    to: str
    applied: tuple[Applied, ...]
    refusals: tuple[Refusal, ...]
    verdict: Verdict | None
    reason: str
    checks: tuple[Check, ...]
    timings: dict[str, float]
    moved: tuple[dict[str, Any], ...] = ()
    measured: tuple[dict[str, Any], ...] = ()
    analysis: Analysis = dataclasses.field(default=Analysis((), ()), repr=False)

    def __repr__(self) -> str:
        verdict = None if self.verdict is None else str(self.verdict)
        shown = {"to": self.to, "changed": self.changed, "verdict": verdict, "reason": self.reason}
        shown |= {"applied": self.applied, "refusals": self.refusals}
        return f"Rewrite({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def changed(self) -> bool:
        """Whether ``model`` differs from the original and passed everything that was asked of it."""
        return self.model is not self.original

    def to_json(self) -> dict[str, Any]:
        """``graphcheck rewrite`` as plain data (schema graphcheck/rewrite/1); ``output`` is the caller's to fill."""
        return {
            "schema": SCHEMA,
            "model": model_.summary(self.original, traced=self.analysis.largest_rank),
            "to": self.to,
            "sites": [a.to_json() for a in self.applied],
            "moved": list(self.moved),
            "measured": list(self.measured),
            "refusals": [r.to_json() for r in self.refusals],
            "verdict": None if self.verdict is None else str(self.verdict),
            "reason": self.reason,
            "code": None if self.verdict is None else _CODES.get(self.verdict),
            "checks": [c.to_json() for c in self.checks],
            "timings": dict(self.timings),
            "output": None,
        }


def rewrite(
    model: ir.Model,
    to: str | Mapping[str, str] = "conv",
    *,
    check: Prove | None = None,
    sites: Sequence[str] | None = None,
    max_rank: int | None = None,
    fold_normalization: bool = False,
    pointwise: bool = False,
    ordinary: bool = False,
    movement: bool = False,
    stills: bool = False,
    run: bool = True,
) -> Rewrite:
    """Rewrite the sites of ``model`` (left as it is) to the form ``to``, or named ones to a form each.

    Sites are patch embeddings and un-embeddings; a form that only one of the two has leaves the other as it is.

    Args:
        model: The model.
        to: A form, or forms by site.
        check: Proves the result against the original; if its verdict is no proof, or a structural check fails, the
            result's ``model`` is the original.
        sites: Only these, by the name of their contraction, input or output; None: all but ordinary Convs.
        max_rank: No tensor of more dims: sites over it take whichever form fits, movement elsewhere is split into steps.
        fold_normalization: Take a per-channel normalization before the patches into the weight, which is then no longer
            the original's bit for bit.
        pointwise: Rewrite projections of the channels too: a MatMul or Gemm to a 1x1 Conv, or back.
        ordinary: Rewrite ordinary Convs too, whose windows overlap or leave gaps, and those in groups.
        movement: Rewrite movement without a projection too: ``space-to-depth`` writes SpaceToDepth or DepthToSpace,
            ``reshape``, which is a form of nothing else, Reshape, Transpose, Reshape.
        stills: Rewrite patch embeddings of a repeated image too, a Conv3d of one frame several times: the weight is summed
            over the copies, each element rounded once.
        run: False leaves onnxruntime out, for a form that its CPU provider cannot run.

    Raises:
        UsageError: for an unknown form or site.
    """
    forms = {} if isinstance(to, str) else dict(to)
    if movement and (to not in moving.FORMS or sites):
        raise UsageError(
            f"--movement is for --to {' or '.join(moving.FORMS)}, without --site; the former writes DepthToSpace too"
        )
    for form in forms.values() or (to,):
        if form not in NAMES and not movement:
            raise UsageError(
                f"there is no form {form!r}; the forms are {', '.join(NAMES)}, and with --movement {moving.RESHAPE}; "
                "--to fastest measures them"
            )
    if pointwise and not forms and to not in ("conv", "matmul"):
        raise UsageError(f"--pointwise is for --to conv, matmul or fastest: a projection is no {to}")
    sites = list(forms) if forms else sites
    if max_rank is not None and max_rank < 3:
        raise UsageError(f"--max-rank is {max_rank}; 3 is the least that movement can be split into")
    start = time.perf_counter()
    seen = prepared(model.clone(), whole=max_rank is not None, pointwise=pointwise, stills=stills)
    seconds = time.perf_counter() - start
    given: dict[str, Any] = {"max_rank": max_rank, "fold_normalization": fold_normalization, "ordinary": ordinary}
    given |= {"movement": movement}
    result = written(model, seen, forms or to, sites, **given)
    del seen  # its trials are large, and the proof wants room
    result = dataclasses.replace(result, timings={"analyze": seconds, **result.timings})
    return judge(result, check, run) if result.changed else result


def written(
    model: ir.Model,
    seen: Analyzed,
    to: str | Mapping[str, str],
    sites: Sequence[str] | None = None,
    *,
    max_rank: int | None = None,
    fold_normalization: bool = False,
    ordinary: bool = False,
    movement: bool = False,
) -> Rewrite:
    """The rewrite of a clone of ``model``, in place there, by what was ``seen`` in it; nothing is checked yet.

    ``to`` and the others as for :func:`rewrite`.
    """
    start = time.perf_counter()
    work, analysis = seen.model, seen.analysis
    work.meta.pop("graphcheck.path", None)
    known, unfolded = normalization.fold(seen, sites) if fold_normalization else (analysis.sites, ())
    known = tuple(s for s in (*known, *analysis.unembeddings) if sites or not isinstance(to, str) or to in forms_of(s))
    known = () if to == moving.RESHAPE else known
    chosen, refusals = choose(known, to, sites, max_rank, ordinary=ordinary)
    there = len([s for s in known if not sites or set(_names(s)) & set(sites)]) - len(chosen) - len(refusals)
    refusals = [*analysis.refusals, *unfolded, *refusals]
    replaced: dict[ir.Value, ir.Value] = {}
    done: list[tuple[Applied, list[ir.Node]]] = []
    for site in chosen:
        try:
            form, nodes = _first_form(work, site, _form_for(site, to), replaced, max_rank)
        except Cannot as error:
            refusals.append(Refusal(str(error), site.name))
            continue
        done.append((Applied(site, form, _before(site), described(nodes)), nodes))
    sweep(work)
    swept = [one.site.name for one, nodes in done if all(node.graph is None for node in nodes)]
    refusals += [Refusal("another site that was rewritten leaves it without use", name) for name in swept]
    applied = [one for one, _ in done if one.site.name not in swept]
    cancel_transposes([node for node in work.graph if RULE in node.metadata_props])
    sweep(work)
    moved, left = _moved(work, seen, to, movement, max_rank, anything=bool(applied))
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
    work: ir.Model, seen: Analyzed, to: str | Mapping[str, str], movement: bool, max_rank: int | None, anything: bool
) -> tuple[list[dict[str, Any]], list[Refusal]]:
    """Movement outside the sites that is written anew, as plain data, and why other movement is not."""
    rows: list[dict[str, Any]] = []
    refusals: list[Refusal] = []
    if movement:
        rewritten, refusals = moving.rewrite_movement(work, str(to))
        rows = [_row(moved, moved.made, moved.to) for moved in rewritten]
    elif to in moving.FORMS and not anything:
        refusals = moving.unasked(work, seen.runs)
    if max_rank is not None:
        steps, left = limit_rank(work, max_rank, seen.runs[0])
        rows += [_row(*step, "steps") for step in steps]
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
    sites: Sequence[Site], to: str | Mapping[str, str], named: Sequence[str] | None, max_rank: int | None = None,
    *, measured: bool = False, ordinary: bool = False,
) -> tuple[list[Site], list[Refusal]]:  # fmt: skip
    """The sites to rewrite, and why others are left alone.

    A blocked site's old nodes stay beside the new ones, which is a gain only where it is measured to be one or named.
    """
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
        if there and not site.folded and (max_rank is None or site.rank <= max_rank):
            continue
        if site.ordinary and not named and not ordinary:
            refusals.append(Refusal(f"an ordinary Conv {_ASKED}", site.name))
        elif site.groups > 1 and form in ("matmul", "unfold") and not named and not ordinary:
            reason = f"as one MatMul its {site.groups} groups would be mostly zeros; it {_ASKED}"
            refusals.append(Refusal(reason, site.name))
        elif site.blocked is not None and not named and not measured:
            refusals.append(Refusal(f"{site.blocked}, {_BESIDE}", site.blocker or site.name))
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


def judge(result: Rewrite, check: Prove | None, run: bool = True) -> Rewrite:
    """Run the checks; the original takes the model's place where one fails or the proof is missing.

    Windows may be read in more than one way, so that a proof excuses a result whose own are read in another.
    """
    start = time.perf_counter()
    sites = tuple(a.site for a in result.applied)
    checks = structural_checks(result.original, result.model, sites or result.analysis.everything, run=run)
    failed = next((c for c in checks if c.ok is False), None)
    timings = {**result.timings, "checks": time.perf_counter() - start}
    result = dataclasses.replace(result, checks=tuple(checks), timings=timings)
    unread = failed is not None and failed.name == WINDOWS and check is not None
    if failed is not None and not unread:
        return dataclasses.replace(result, model=result.original, verdict=Verdict.UNDECIDED, reason=failed.detail)
    if check is None:
        return dataclasses.replace(result, reason="not proved: no check was asked for")
    start = time.perf_counter()
    verdict, reason = _proof(result, sites, check)
    timings = {**timings, "prove": time.perf_counter() - start}
    held = verdict in (Verdict.IDENTICAL, Verdict.PROVED, Verdict.WITHIN_ROUNDING)
    model = result.model if held else result.original
    if held and unread:
        read = f"{failed.detail} as it is read, and is proved"  # type: ignore[union-attr]
        checks = [dataclasses.replace(c, ok=None, detail=read) if c is failed else c for c in checks]
    if held and not run:
        reason += "; neither was run in onnxruntime, as asked"
    elif held and (unknown := next((c for c in checks if c.name == "onnxruntime" and c.ok is None), None)) is not None:
        reason += f"; neither was run: {unknown.detail}"
    return dataclasses.replace(result, model=model, verdict=verdict, reason=reason, checks=tuple(checks), timings=timings)


def _proof(result: Rewrite, sites: Sequence[Site], check: Prove) -> tuple[Verdict, str]:
    """The verdict; only a folded normalization and a summed weight may be ``within-rounding``, by a proof of their own."""
    if not any(site.folded or (site.summed and not site.summed.exact) for site in sites):
        proof = check(result.original, result.model)
        proved = proof.verdict.meets(Verdict.PROVED) or proof.verdict is not Verdict.WITHIN_ROUNDING
        return proof.verdict if proved else Verdict.UNDECIDED, proof.reason
    what = "folded normalization" if any(site.folded for site in sites) else "summed weight"
    pair = parametric(result.original, result.model, sites)
    if isinstance(pair, str):
        return Verdict.UNDECIDED, f"the {what} is not proved: {pair}"
    proof = check(*pair)
    if not proof.verdict.meets(Verdict.PROVED):
        return Verdict.UNDECIDED if proof.verdict is Verdict.WITHIN_ROUNDING else proof.verdict, proof.reason
    if what == "summed weight":
        said = "proved with the weight as a free input; each summed weight is the exact one, rounded once"
        return Verdict.WITHIN_ROUNDING, said
    return Verdict.WITHIN_ROUNDING, (
        "proved with the weights and the normalization as free inputs; each folded weight and bias is the exact one, "
        "rounded once"
    )
